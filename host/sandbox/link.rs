//! Linkers: which host functions a component is given.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, HasData, HasSelf, InstancePre, Linker, LinkerInstance, ResourceType,
};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{ResourceTable, WasiView};

use super::Guest;
use super::files::HasFiles;
use crate::bindings::crank::gpu::compute;
use crate::bindings::crank::worker::{events, log, peers};
use crate::bindings::wasi::keyvalue::{atomics, batch, store};
use crate::engine::Engine;
use crate::policy::{Grants, Import, Interface};

/// Names of the interfaces that a component imports, with their versions.
pub fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    component
        .component_type()
        .imports(engine.wasm())
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// What was granted, and nothing else.
pub fn granted(engine: &wasmtime::Engine, grants: &Grants) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    for interface in grants.iter() {
        link(&mut linker, interface)?;
    }
    Ok(linker)
}

/// The powerless interfaces; whatever else the component imports traps when it is called.
pub fn powerless(engine: &Engine, component: &Component) -> wasmtime::Result<InstancePre<Guest>> {
    let mut linker = granted(engine.wasm(), &Grants::powerless())?;
    let mut traps = Traps {
        engine,
        known: Vec::new(),
    };
    for (name, item) in component.component_type().imports(engine.wasm()) {
        let is_there = Import::parse(name).is_some_and(|import| import.is_powerless());
        traps.define(&mut linker.root(), name, &item.ty, !is_there)?;
    }
    linker.instantiate_pre(component)
}

/// Stands in for what a component imports and is not given.
///
/// Wasmtime's own `define_unknown_imports_as_traps` also defines the names under which an interface
/// uses the resources of another (`pollable` in `wasi:clocks`), as resources of their own: then the
/// interface that is there no longer fits.
struct Traps<'a> {
    engine: &'a Engine,
    /// Resources that have been met: to meet one again is to use it.
    known: Vec<ResourceType>,
}

impl Traps<'_> {
    fn define(
        &mut self,
        linker: &mut LinkerInstance<'_, Guest>,
        name: &str,
        item: &ComponentItem,
        missing: bool,
    ) -> wasmtime::Result<()> {
        match item {
            ComponentItem::ComponentInstance(instance) if missing => {
                let mut linker = linker.instance(name)?;
                for (name, item) in instance.exports(self.engine.wasm()) {
                    self.define(&mut linker, name, &item.ty, missing)?;
                }
            }
            ComponentItem::ComponentInstance(instance) => {
                for (_, item) in instance.exports(self.engine.wasm()) {
                    if let ComponentItem::Resource(resource) = item.ty {
                        self.known.push(resource);
                    }
                }
            }
            ComponentItem::ComponentFunc(_) if missing => {
                let function = name.to_owned();
                linker.func_new(name, move |_, _, _, _| {
                    wasmtime::bail!("{function} is not there while a worker declares itself")
                })?;
            }
            ComponentItem::Resource(resource) if missing && !self.known.contains(resource) => {
                self.known.push(*resource);
                linker.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn link(l: &mut Linker<Guest>, interface: Interface) -> wasmtime::Result<()> {
    match interface {
        Interface::Log => log::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest),
        Interface::Events => events::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest),
        Interface::Peers => peers::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest),
        Interface::Gpu => compute::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest),
        Interface::WasiIo => {
            io::error::add_to_linker::<_, Table>(l, |guest| guest.ctx().table)?;
            io::poll::add_to_linker::<_, Table>(l, |guest| guest.ctx().table)?;
            io::streams::add_to_linker::<_, Table>(l, |guest| guest.ctx().table)
        }
        Interface::WasiClocks => {
            clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, Guest::clocks)?;
            clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, Guest::clocks)
        }
        Interface::WasiRandom => {
            random::random::add_to_linker::<_, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
            random::insecure::add_to_linker::<_, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
            random::insecure_seed::add_to_linker::<_, WasiRandom>(l, |guest| {
                guest.ctx().ctx.random()
            })
        }
        Interface::WasiCli => {
            cli::exit::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::environment::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::terminal_input::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::terminal_output::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
            cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)
        }
        Interface::WasiKeyvalue => {
            store::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
            atomics::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
            batch::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)
        }
        Interface::WasiFilesystem => {
            filesystem::types::add_to_linker::<_, HasFiles>(l, Guest::files)?;
            // By hand, since to make /tmp may wait for a disk and wasmtime-wasi's own function may not.
            l.instance("wasi:filesystem/preopens@0.2.12")?
                .func_wrap_async("get-directories", |mut store, ()| {
                    Box::new(async move { Ok((store.data_mut().files().preopens().await?,)) })
                })
        }
    }
}

/// The resource table as the data of WASI io's host functions.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}
