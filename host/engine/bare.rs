//! The engine and nothing else: the yardstick of `crank bench`.

use std::time::{Duration, Instant};

use wasmtime::{Instance, Module, Store};

use super::Engine;

/// A core module with a page of memory and one function, `run`, that counts its parameter down to zero:
///
/// ```wat
/// (module
///   (memory 1)
///   (func (export "run") (param i32)
///     (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))
/// ```
#[rustfmt::skip]
const MODULE: &[u8] = &[
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
    0x01, 0x05, 0x01, 0x60, 0x01, 0x7f, 0x00,
    0x03, 0x02, 0x01, 0x00,
    0x05, 0x03, 0x01, 0x00, 0x01,
    0x07, 0x07, 0x01, 0x03, b'r', b'u', b'n', 0x00, 0x00,
    0x0a, 0x10, 0x01, 0x0e, 0x00,
    0x03, 0x40, 0x20, 0x00, 0x41, 0x01, 0x6b, 0x22, 0x00, 0x0d, 0x00, 0x0b, 0x0b,
];

/// Turns of the loop: some tens of microseconds, far more than a clock's own error.
const TURNS: i32 = 20_000;

/// A module of ours, ready to run on an engine without any of the host's own work around it.
#[derive(Clone)]
pub struct Bare {
    engine: Engine,
    module: Module,
}

impl Bare {
    /// Compiles it, in this process: it is a constant of fifty bytes.
    ///
    /// # Errors
    ///
    /// The engine does not compile it: then it runs nothing else either.
    pub fn new(engine: &Engine) -> wasmtime::Result<Self> {
        Ok(Self {
            engine: engine.clone(),
            module: Module::new(engine.wasm(), MODULE)?,
        })
    }

    /// A new instance, the same work each time, and its end. Returns how long that took.
    ///
    /// # Errors
    ///
    /// The pool of instances is exhausted.
    pub async fn run(&self) -> wasmtime::Result<Duration> {
        let began = Instant::now();
        let mut store = Store::new(self.engine.wasm(), ());
        // Far away, and no overflow where the epoch is added.
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = Instance::new_async(&mut store, &self.module, &[]).await?;
        let run = instance.get_typed_func::<i32, ()>(&mut store, "run")?;
        run.call_async(&mut store, TURNS).await?;
        drop(store);
        Ok(began.elapsed())
    }
}
