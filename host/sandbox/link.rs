//! Linkers: which host functions a component is given.

use wasmtime::component::{Component, HasData, HasSelf, InstancePre, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{ResourceTable, WasiView};

use super::Guest;
use crate::bindings::crank::worker::{events, log};
use crate::bindings::wasi::keyvalue::{atomics, batch, store};
use crate::engine::Engine;
use crate::policy::{Grants, Interface};

/// Names of the interfaces that a component imports, with their versions.
pub fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    component
        .component_type()
        .imports(engine.wasm())
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// What was granted, and nothing else.
pub fn granted(engine: &Engine, grants: &Grants) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine.wasm());
    for interface in grants.iter() {
        link(&mut linker, interface)?;
    }
    Ok(linker)
}

/// The powerless interfaces; whatever else the component imports traps when it is called.
pub fn powerless(engine: &Engine, component: &Component) -> wasmtime::Result<InstancePre<Guest>> {
    let mut linker = granted(engine, &Grants::powerless())?;
    linker.define_unknown_imports_as_traps(component)?;
    linker.instantiate_pre(component)
}

fn link(l: &mut Linker<Guest>, interface: Interface) -> wasmtime::Result<()> {
    match interface {
        Interface::Log => log::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest),
        Interface::Events => events::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest),
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
        // Types alone, no preopened directory: there is nothing to open.
        Interface::WasiFilesystem => {
            filesystem::types::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;
            filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)
        }
    }
}

/// The resource table as the data of WASI io's host functions.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}
