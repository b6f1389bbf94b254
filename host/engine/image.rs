//! Init snapshots: a component whose memories and globals are already as `declare` leaves them.
//!
//! `declare` runs here as a stranger's program does anywhere: in a child process that is bounded, in a
//! sandbox with less power than any other. What would freeze a secret, a random number or a moment into
//! the image is not answered: then there is no image, and the worker runs as it is.

use std::io;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, Instance, Lift, Linker, LinkerInstance, ResourceType, Val, WasmList,
};
use wasmtime::{Config, Engine, OptLevel, Store, StoreLimits, StoreLimitsBuilder, Trap};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

/// CPU time of `declare` in code that is compiled in a hurry. The loader allows it two seconds.
const CPU: Duration = Duration::from_secs(4);
/// How often that time is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a memory, and elements of a table.
const MEMORY: usize = 256 << 20;
const TABLE: usize = 20_000;

/// The interface whose `declare` is run, but for its version.
const CAPABILITIES: &str = "crank:worker/capabilities@";

/// The component with the state after `declare`.
///
/// # Errors
///
/// It does what no image can hold; the text says what, for the worker's author.
pub(super) fn take(component: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let wizer = Wizer::new();
    let (context, instrumented) = wizer.instrument_component(component)?;
    let engine = Engine::new(&config())?;
    let instrumented = Component::new(&engine, instrumented)?;
    let init = Init {
        limits: StoreLimitsBuilder::new()
            .memory_size(MEMORY)
            .table_elements(TABLE)
            .build(),
        asked: None,
    };
    let mut store = Store::new(&engine, init);
    store.limiter(|init| &mut init.limits);
    store.set_epoch_deadline(1);
    brake(engine.clone())?;
    let initialised = powerless(&engine, &instrumented)?
        .instantiate(&mut store, &instrumented)
        .and_then(|instance| declare(&mut store, &instrumented, &instance).map(|()| instance));
    let instance = initialised.map_err(|error| reason(store.data_mut().asked.take(), error))?;

    // The child's own bounds hold from here on: what runs is what wizer has added.
    store.set_epoch_deadline(u64::MAX / 2);
    store.set_hostcall_fuel(usize::MAX);
    let mut state = State {
        store: &mut store,
        instance,
        failed: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let image = runtime.block_on(wizer.snapshot_component(&context, &mut state));
    match state.failed {
        Some(error) => Err(error.context("its memory cannot be read")),
        None => image,
    }
}

/// What the author can do something about.
fn reason(asked: Option<String>, error: wasmtime::Error) -> wasmtime::Error {
    match (asked, error.downcast_ref::<Trap>()) {
        (Some(function), _) => wasmtime::format_err!(
            "`declare` calls {function}, and its answer must not be frozen into what every call starts from"
        ),
        (None, Some(Trap::Interrupt)) => {
            wasmtime::format_err!("`declare` computes for more than {} s", CPU.as_secs())
        }
        (None, Some(trap)) => wasmtime::format_err!("`declare` traps: {trap}"),
        (None, None) => error,
    }
}

/// The host's settings, and what instrumenting needs. It runs once: quickly compiled is what counts.
fn config() -> Config {
    let mut config = super::code();
    config
        .cranelift_opt_level(OptLevel::None)
        // One module reads the memories of all.
        .wasm_multi_memory(true);
    config
}

/// Ends `declare` when it has computed for too long.
fn brake(engine: Engine) -> io::Result<()> {
    let now = || {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        Duration::try_from(spent).unwrap_or_default()
    };
    let began = now();
    let watch = move || {
        while now().saturating_sub(began) < CPU {
            thread::sleep(LOOK);
        }
        engine.increment_epoch();
    };
    // It ends with the process.
    thread::Builder::new().spawn(watch).map(|_watch| ())
}

/// What the Store holds while `declare` runs.
struct Init {
    limits: StoreLimits,
    /// The function that ended it.
    asked: Option<String>,
}

fn declare(
    store: &mut Store<Init>,
    component: &Component,
    instance: &Instance,
) -> wasmtime::Result<()> {
    let ty = component.component_type();
    let name = ty
        .exports(store.engine())
        .map(|(name, _)| name)
        .find(|name| name.starts_with(CAPABILITIES))
        .ok_or_else(|| wasmtime::format_err!("it exports no {CAPABILITIES}…"))?
        .to_owned();
    let declare = instance
        .get_export_index(&mut *store, None, &name)
        .and_then(|at| instance.get_export_index(&mut *store, Some(&at), "declare"))
        .and_then(|at| instance.get_func(&mut *store, at))
        .ok_or_else(|| wasmtime::format_err!("it exports no `declare`"))?;
    declare.call(store, &[], &mut [Val::Bool(false)])
}

/// A linker that has every import, and answers those alone whose answer is always the same.
fn powerless(engine: &Engine, component: &Component) -> wasmtime::Result<Linker<Init>> {
    let mut linker = Linker::new(engine);
    for (name, item) in component.component_type().imports(engine) {
        define(engine, &mut linker.root(), "", name, &item.ty)?;
    }
    Ok(linker)
}

fn define(
    engine: &Engine,
    linker: &mut LinkerInstance<'_, Init>,
    interface: &str,
    name: &str,
    item: &ComponentItem,
) -> wasmtime::Result<()> {
    match item {
        ComponentItem::ComponentInstance(instance) => {
            let mut linker = linker.instance(name)?;
            for (function, item) in instance.exports(engine) {
                define(engine, &mut linker, name, function, &item.ty)?;
            }
        }
        ComponentItem::ComponentFunc(_) if is_constant(interface, name) => {
            linker.func_new(name, |_, ty, _, results| {
                for (result, ty) in results.iter_mut().zip(ty.results()) {
                    *result = match ty {
                        wasmtime::component::Type::Option(_) => Val::Option(None),
                        _ => Val::List(Vec::new()),
                    };
                }
                Ok(())
            })?;
        }
        ComponentItem::ComponentFunc(_) => {
            let function = format!("{interface}#{name}");
            linker.func_new(name, move |mut store, _, _, _| {
                store.data_mut().asked = Some(function.clone());
                wasmtime::bail!("not there while a worker is initialised")
            })?;
        }
        ComponentItem::Resource(_) => {
            linker.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?;
        }
        _ => {}
    }
    Ok(())
}

/// What every sandbox of this host answers alike: there are no variables and no arguments, and what is
/// logged is logged when the worker is loaded.
fn is_constant(interface: &str, function: &str) -> bool {
    let interface = interface.split('@').next().unwrap_or_default();
    match interface {
        "wasi:cli/environment" => matches!(
            function,
            "get-environment" | "get-arguments" | "initial-cwd"
        ),
        "crank:worker/log" => matches!(function, "write" | "panicked"),
        _ => false,
    }
}

/// How wizer reads what it has made readable.
struct State<'a> {
    store: &'a mut Store<Init>,
    instance: Instance,
    /// What went wrong: wizer has no way to hear of it.
    failed: Option<wasmtime::Error>,
}

impl State<'_> {
    fn read<T: Lift + Send + Sync + 'static>(&mut self, interface: &str, name: &str) -> Option<T> {
        let mut read = || {
            let missing = || wasmtime::format_err!("{interface}#{name} is not there");
            let at = self
                .instance
                .get_export_index(&mut *self.store, None, interface);
            let at = at.ok_or_else(missing)?;
            let at = self
                .instance
                .get_export_index(&mut *self.store, Some(&at), name);
            let at = at.ok_or_else(missing)?;
            let read = self
                .instance
                .get_typed_func::<(), (T,)>(&mut *self.store, at)?;
            Ok(read.call(&mut *self.store, ())?.0)
        };
        read()
            .map_err(|error: wasmtime::Error| self.failed = Some(error))
            .ok()
    }
}

impl ComponentInstanceState for State<'_> {
    async fn call_func_ret_list_u8(
        &mut self,
        interface: &str,
        name: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        match self.read::<WasmList<u8>>(interface, name) {
            Some(bytes) => contents(bytes.as_le_slice(&*self.store)),
            None => contents(&[]),
        }
    }

    async fn call_func_ret_s32(&mut self, interface: &str, name: &str) -> i32 {
        self.read(interface, name).unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, interface: &str, name: &str) -> i64 {
        self.read(interface, name).unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, interface: &str, name: &str) -> u32 {
        let value: f32 = self.read(interface, name).unwrap_or_default();
        value.to_bits()
    }

    async fn call_func_ret_f64(&mut self, interface: &str, name: &str) -> u64 {
        let value: f64 = self.read(interface, name).unwrap_or_default();
        value.to_bits()
    }
}
