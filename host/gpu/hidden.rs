//! What a compiler need not look into.

use std::ops::Deref;
use std::sync::Arc;

/// Something of wgpu's, whose types are nested so deep that a compiler gives up on asking whether they may
/// cross threads. Asked once, where one is hidden, and of nobody who holds it.
pub struct Hidden<T>(Arc<dyn Hides<T>>);

trait Hides<T>: Send + Sync {
    fn shown(&self) -> &T;
}

impl<T: Send + Sync> Hides<T> for T {
    fn shown(&self) -> &T {
        self
    }
}

impl<T: Send + Sync + 'static> Hidden<T> {
    pub fn new(hidden: T) -> Self {
        Self(Arc::new(hidden))
    }
}

impl<T> Clone for Hidden<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Hidden<T> {
    type Target = T;

    fn deref(&self) -> &T {
        (*self.0).shown()
    }
}
