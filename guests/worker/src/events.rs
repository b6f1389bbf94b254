//! Events to the caller of the request that is being answered, while it is being answered.

pub use crate::bindings::crank::worker::events::Closed;
pub use crate::bindings::crank::worker::types::Event;

impl Event {
    /// An event of the type `event`, `progress` for example. `result` and `error` belong to the host.
    pub fn new(event: impl Into<String>, data: impl Into<String>) -> Self {
        Self {
            id: None,
            event: Some(event.into()),
            data: data.into(),
        }
    }
}

/// Hands one event to the caller. Waits while the caller is slower than the worker: that costs no
/// CPU time, but the deadline runs. Fails when nobody reads any more, and the worker may stop then.
/// A caller who did not ask for a stream gets none of them, and sending succeeds; so it does in a
/// native test.
pub fn send(event: Event) -> Result<(), Closed> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::crank::worker::events::send(&event);

    #[cfg(not(target_arch = "wasm32"))]
    {
        log::debug!("event {event:?}");
        Ok(())
    }
}
