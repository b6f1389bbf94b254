//! Which compiler builds the guests: the three routes, in order.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{self, command};
use super::{BuildError, BuildRequest, Progress, TARGET, debian};

/// Links a core module and turns it into a component.
pub(super) const LINKER: &str = "wasm-component-ld";

/// A compiler that has the guests' target.
pub(super) struct Compiler {
    /// What cargo gets as `RUSTC`; absent is cargo's own choice.
    pub rustc: Option<OsString>,
    /// Where the active toolchain keeps its linkers. Its own rustc looks there by itself.
    tools: PathBuf,
    /// Names the compiler in paths: release and a digest of all that it says of itself.
    pub key: String,
    /// Where the source of its standard library would lie, and what rustc calls that place.
    pub std_source: (PathBuf, String),
}

impl Compiler {
    /// The compiler for crates in `directory`.
    pub fn choose(
        directory: &Path,
        request: &BuildRequest,
        progress: Progress<'_>,
    ) -> Result<Self, BuildError> {
        // A user who sets RUSTC says which compiler is the active one.
        let own = env::var_os("RUSTC");
        let active = About::ask(own.as_deref().unwrap_or("rustc".as_ref()), directory)?;
        let tools = active.tools();
        if active.has_target() {
            return Ok(Self::new(own, tools, &active));
        }
        let private = debian::toolchain(&request.cache_dir, request.offline, progress)?;
        let about = About::ask(private.as_os_str(), directory)?;
        Ok(Self::new(Some(private.into()), tools, &about))
    }

    fn new(rustc: Option<OsString>, tools: PathBuf, about: &About) -> Self {
        let digest = blake3::hash(about.version.as_bytes()).to_hex();
        let commit = about.field("commit-hash").filter(|hash| *hash != "unknown");
        Self {
            rustc,
            tools,
            key: format!(
                "{}-{}",
                about.release(),
                digest.get(..8).unwrap_or_default()
            ),
            std_source: (
                about.sysroot.join("lib/rustlib/src/rust"),
                format!("/rustc/{}", commit.unwrap_or(about.release())),
            ),
        }
    }

    /// A cargo that compiles with this compiler and finds the linker [`LINKER`].
    pub fn cargo(&self) -> Command {
        let mut cargo = process::cargo();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = iter::once(self.tools.clone()).chain(env::split_paths(&path));
        // Fails for a directory with a colon in its name, which rustc alone could find.
        if let Ok(path) = env::join_paths(path) {
            cargo.env("PATH", path);
        }
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        cargo
    }
}

/// What a rustc says of itself.
struct About {
    version: String,
    sysroot: PathBuf,
    target_libraries: PathBuf,
}

impl About {
    fn ask(rustc: &OsStr, directory: &Path) -> Result<Self, BuildError> {
        let ask = |argument: &[&str]| {
            let what = format!("`{} {}`", rustc.display(), argument.join(" "));
            process::succeed(command(rustc).args(argument).current_dir(directory), &what)
        };
        let places = ask(&[
            "--print",
            "sysroot",
            "--print",
            "target-libdir",
            "--target",
            TARGET,
        ])?
        .stdout;
        let mut places = places.lines().map(PathBuf::from);
        Ok(Self {
            version: ask(&["-vV"])?.stdout,
            sysroot: places.next().unwrap_or_default(),
            target_libraries: places.next().unwrap_or_default(),
        })
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.version
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn release(&self) -> &str {
        self.field("release").unwrap_or("unknown")
    }

    fn has_target(&self) -> bool {
        fs::read_dir(&self.target_libraries).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libstd-") && name.ends_with(".rlib")
            })
        })
    }

    /// rustup's toolchains bring the linker, with the `rust-lld` that it calls beside it.
    fn tools(&self) -> PathBuf {
        let host = self.field("host").unwrap_or_default();
        self.sysroot.join("lib/rustlib").join(host).join("bin")
    }
}
