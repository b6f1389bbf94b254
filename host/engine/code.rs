//! Compiled code that is known to be ours, made ready to run.
//!
//! Whoever calls these answers for the bytes: loading them means running them.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads a copy of code that `CodeCache::keep` or [`mapped`] has.
pub(super) fn copied(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` demands bytes that wasmtime made, unaltered; that they are of a compatible
    // engine it checks itself. `keep` has such bytes, in memory of ours where nobody changes them any more,
    // from a child that runs this very program and nothing else (the one that runs `declare` for a
    // snapshot is another, and gives back a component), over a pipe that no other process holds; `mapped` has
    // what it says.
    #[allow(unsafe_code)]
    unsafe {
        Component::deserialize(engine, code)
    }
}

/// Memory behind a handle: what is mapped need not be copied.
pub(super) fn memory() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(memfd_create("crank-code", flags)?.into())
}

/// Loads the code that `CodeCache::load` has written to such memory, which nobody changes from here on.
pub(super) fn mapped(engine: &Engine, mut code: File) -> wasmtime::Result<Component> {
    seal(&code)
        .map_err(wasmtime::Error::from)
        .and_then(|()| map(engine, &code))
        .or_else(|_| {
            // A system's rules may forbid to map such memory as code.
            let mut bytes = Vec::new();
            code.rewind().map_err(wasmtime::Error::from)?;
            code.read_to_end(&mut bytes)
                .map_err(wasmtime::Error::from)?;
            copied(engine, &bytes)
        })
}

/// Loads a component's code once more, into each of these engines: all map the same memory.
pub(super) fn again<'a>(
    engines: impl Iterator<Item = &'a Engine>,
    component: &Component,
) -> wasmtime::Result<Vec<Component>> {
    let mut code = memory()?;
    code.write_all(&component.serialize()?)?;
    seal(&code)?;
    engines.map(|engine| map(engine, &code)).collect()
}

/// From here on nobody writes to it, this process included.
fn seal(code: &File) -> io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    Ok(fcntl_add_seals(code, seals)?)
}

/// Loads what is sealed.
fn map(engine: &Engine, code: &File) -> wasmtime::Result<Component> {
    let path = format!("/proc/self/fd/{}", code.as_raw_fd());
    // SAFETY: as for `copied`; and the file must never change, which the kernel sees to: this one has no
    // name, and its seals let nobody write to it. `CodeCache::load` has its bytes from a
    // file whose every byte the MAC covers, made by `store` of what `keep` had, with a key that only this
    // user can read; they were copied before they were checked. `again` has them from a component that was loaded
    // so, from memory that nobody can write to. The path is that of the handle, which is open.
    #[allow(unsafe_code)]
    unsafe {
        Component::deserialize_file(engine, path)
    }
}
