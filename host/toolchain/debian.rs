//! The second route: a private compiler from Debian's packages, with the guests' standard library
//! compiled once from its source. No root, no change to the system or to the user's toolchains.
//!
//! Why Debian's compiler and not only its source: the library's source must match the compiler to the
//! release, and Debian ships the two together.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::apt::{self, Apt};
use super::guest;
use super::lock::Lock;
use super::process::{self, command};
use super::{BuildError, Progress, TARGET, step};

/// Part of the toolchain's name: a change to what is made here asks for a new one.
const RECIPE: u32 = 1;

/// Cargo's flag `-Z build-std` needs a compiler that takes unstable flags. It holds for this one step.
const BOOTSTRAP: &str = "RUSTC_BOOTSTRAP";

/// Finds its own place, so that the directory can be moved: it is made elsewhere and renamed.
const WRAPPER: &str = r#"#!/bin/sh
root=${0%/bin/rustc}
LD_LIBRARY_PATH="$root/compiler${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$root/compiler/rustc" --sysroot "$root" "$@"
"#;

/// The private toolchain's rustc, which is made first if it is not there yet.
pub(super) fn toolchain(
    cache_dir: &Path,
    offline: bool,
    progress: Progress<'_>,
) -> Result<PathBuf, BuildError> {
    let toolchains = cache_dir.join("toolchain");
    let key = format!("{}-{}-{RECIPE}", system(), env::consts::ARCH);
    let root = toolchains.join(&key);
    let rustc = root.join("bin/rustc");
    // The directory gets its name when it is complete, so that it is whole if it is there.
    if rustc.is_file() {
        return Ok(rustc);
    }
    if !has_apt() {
        return Err(BuildError::NoTarget {
            why: "this machine has no apt-get and dpkg to fetch one with".to_owned(),
        });
    }
    if offline {
        return Err(BuildError::Offline);
    }
    let lock = toolchains.join(format!("{key}.lock"));
    let _lock = Lock::take(&lock, "prepares the guest toolchain", progress)?;
    if rustc.is_file() {
        return Ok(rustc);
    }

    let prefix = format!(".{key}-");
    remove_leftovers(&toolchains, &prefix)?;
    let work = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&toolchains)
        .map_err(BuildError::io("write to", &toolchains))?;
    let made = make(work.path(), progress)?;
    fs::rename(&made, &root).map_err(BuildError::io("create", &root))?;
    Ok(rustc)
}

/// Makes the toolchain inside `work` and answers its directory.
fn make(work: &Path, progress: Progress<'_>) -> Result<PathBuf, BuildError> {
    let archives = Apt::new(&work.join("apt"), progress)?.download(progress)?;
    let unpacked = work.join("unpacked");
    apt::unpack(&archives, &unpacked, progress)?;
    let root = work.join("toolchain");
    assemble(&unpacked, &root)?;
    write_package_list(&archives, &root)?;

    let rustc = root.join("bin/rustc");
    process::succeed(command(&rustc).arg("-vV"), "starting Debian's rustc")?;
    let source = find(&unpacked.join("usr/src"), |name| name.starts_with("rustc-"))?;
    compile_std(work, &root, &source, progress)?;
    Ok(root)
}

/// Sorts what was unpacked into a sysroot with a compiler in it.
fn assemble(unpacked: &Path, root: &Path) -> Result<(), BuildError> {
    let rustlib = unpacked.join("usr/lib/rustlib");
    let host = find(&rustlib, |name| name.ends_with("-linux-gnu"))?;
    let host_name = host.file_name().unwrap_or_default();
    let compiler = root.join("compiler");
    let host_libraries = root.join("lib/rustlib").join(host_name);
    for directory in [
        &root.join("bin"),
        &compiler,
        &host_libraries,
        &target_libraries(root),
    ] {
        fs::create_dir_all(directory).map_err(BuildError::io("create", directory))?;
    }

    rename(&unpacked.join("usr/bin/rustc"), &compiler.join("rustc"))?;
    rename(&host.join("lib"), &host_libraries.join("lib"))?;
    for libraries in ["usr/lib", "lib"] {
        let libraries = unpacked.join(libraries);
        // Shared libraries lie in Debian's directory for the architecture, x86_64-linux-gnu.
        let Ok(libraries) = find(&libraries, |name| name.ends_with("-linux-gnu")) else {
            continue;
        };
        for file in entries(&libraries)? {
            let name = file.file_name().unwrap_or_default();
            if name.to_string_lossy().contains(".so") {
                rename(&file, &compiler.join(name))?;
            }
        }
    }

    let rustc = root.join("bin/rustc");
    fs::write(&rustc, WRAPPER).map_err(BuildError::io("write", &rustc))?;
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755))
        .map_err(BuildError::io("write", &rustc))
}

/// Compiles the standard library for the guests' target, by way of an empty crate.
///
/// The crate lies above the source: cargo then names the library's crates by relative paths, and the
/// result does not depend on where the cache is.
fn compile_std(
    work: &Path,
    root: &Path,
    source: &Path,
    progress: Progress<'_>,
) -> Result<(), BuildError> {
    let manifest = work.join("Cargo.toml");
    let library = work.join("empty.rs");
    fs::write(&manifest, STUB).map_err(BuildError::io("write", &manifest))?;
    fs::write(&library, "").map_err(BuildError::io("write", &library))?;
    // Where `-Z build-std` looks for the source.
    let linked = root.join("lib/rustlib/src");
    fs::create_dir_all(&linked).map_err(BuildError::io("create", &linked))?;
    symlink(source, linked.join("rust")).map_err(BuildError::io("link", &linked))?;

    let target_dir = work.join("target");
    let flags = [
        // Guests are optimised at link time, across this library.
        "-Cembed-bitcode=yes".to_owned(),
        guest::remap(work, "/build"),
        guest::remap(&guest::cargo_home()?, "/cargo"),
        guest::remap(&linked.join("rust"), "/rustc/debian"),
        guest::remap(source, "/rustc/debian"),
    ];
    let mut cargo = process::cargo();
    cargo
        .args([
            "build",
            "--release",
            guest::MESSAGES,
            "-Zbuild-std=std,panic_abort",
            "-Zbuild-std-features=",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(work)
        .env("RUSTC", root.join("bin/rustc"))
        .env(BOOTSTRAP, "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let what = format!("compiling the standard library for {TARGET}, this once");
    step(progress, &what, || {
        guest::run(&mut cargo, &what, progress).map(drop)
    })?;

    let made = target_dir.join(TARGET).join("release/deps");
    for file in entries(&made)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".rlib") && !name.starts_with("libempty-") {
            rename(&file, &target_libraries(root).join(&*name))?;
        }
    }
    fs::remove_dir_all(&linked).map_err(BuildError::io("remove", &linked))
}

const STUB: &str = r#"[package]
name = "empty"
version = "0.0.0"
edition = "2024"

[lib]
path = "empty.rs"

[profile.release]
panic = "abort"

[workspace]
"#;

/// `debian-12`: which system's packages the toolchain is made of.
fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    format!("{}-{}", field("ID"), field("VERSION_ID"))
}

fn has_apt() -> bool {
    ["apt-get", "dpkg"]
        .iter()
        .all(|tool| process::output(command(tool).arg("--version")).is_ok())
}

/// What killed runs left behind. Called under the lock, so nobody works in there.
fn remove_leftovers(toolchains: &Path, prefix: &str) -> Result<(), BuildError> {
    for path in entries(toolchains)? {
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(&path).map_err(BuildError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Leaves a note of what the toolchain is made of.
fn write_package_list(archives: &[PathBuf], root: &Path) -> Result<(), BuildError> {
    let names: Vec<_> = archives
        .iter()
        .map(|archive| archive.file_name().unwrap_or_default().to_string_lossy())
        .collect();
    let list = root.join("packages.txt");
    fs::write(&list, names.join("\n") + "\n").map_err(BuildError::io("write", &list))
}

fn target_libraries(root: &Path) -> PathBuf {
    root.join("lib/rustlib").join(TARGET).join("lib")
}

fn rename(from: &Path, to: &Path) -> Result<(), BuildError> {
    fs::rename(from, to).map_err(BuildError::io("move", from))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let read = BuildError::io("read", directory);
    let entries = fs::read_dir(directory).map_err(&read)?;
    entries
        .map(|entry| Ok(entry.map_err(&read)?.path()))
        .collect()
}

/// The entry of `directory` whose name fits.
fn find(directory: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf, BuildError> {
    entries(directory)?
        .into_iter()
        .find(|path| fits(&path.file_name().unwrap_or_default().to_string_lossy()))
        .ok_or_else(|| {
            let output = format!(
                "nothing in {} has the expected name; please report this",
                directory.display()
            );
            BuildError::failed("reading Debian's packages", output)
        })
}
