//! Why a build failed. Each message names its fix.

use std::io;
use std::path::{Path, PathBuf};

/// Why [`build`](super::build) failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant is")]
pub enum BuildError {
    #[error("{} has no Cargo.toml; name the directory of a guest crate, or of a workspace of them", .0.display())]
    NoManifest(PathBuf),

    #[error("cargo cannot read {}:\n{output}", .directory.display())]
    BadManifest { directory: PathBuf, output: String },

    #[error("{} holds no guest; add `crate-type = [\"cdylib\"]` under `[lib]` in its Cargo.toml", .0.display())]
    NoGuest(PathBuf),

    #[error("two guests would become `{name}.wasm`: {} and {}; rename one of the packages", .first.display(), .second.display())]
    SameName {
        name: String,
        first: PathBuf,
        second: PathBuf,
    },

    #[error(
        "the compiler has no standard library for wasm32-unknown-unknown, and {why}; run `rustup target add wasm32-unknown-unknown`"
    )]
    NoTarget { why: String },

    #[error(
        "the compiler has no standard library for wasm32-unknown-unknown, and --offline forbids to download one; \
         run once without --offline, or `rustup target add wasm32-unknown-unknown`"
    )]
    Offline,

    #[error("{what} failed{hint}\n{output}", hint = hint(.output))]
    Failed { what: String, output: String },

    #[error(
        "`{package}` became a core module, not a component; it needs the linker wasm-component-ld, \
         which comes with rustup's toolchains, or from `cargo install wasm-component-ld`"
    )]
    NotAComponent { package: String },

    #[error(
        "cargo compiled `{package}` and named no .wasm file; is its `crate-type` still \"cdylib\"?"
    )]
    NoArtifact { package: String },

    #[error("cannot run {program}: {source}; is it installed and on the PATH?")]
    CannotRun { program: String, source: io::Error },

    #[error("cannot {action} {}: {source}{hint}", .path.display(), hint = if source.kind() == io::ErrorKind::StorageFull { DISK_FULL } else { "" })]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl BuildError {
    /// For `map_err`: cannot `action` (a verb) `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn failed(what: impl Into<String>, output: impl Into<String>) -> Self {
        Self::Failed {
            what: what.into(),
            output: output.into(),
        }
    }
}

const DISK_FULL: &str = "; the disk is full: make room (a private toolchain takes 1.5 GB while it is made, \
     0.5 GB afterwards) and run again";

/// What tools write when the cause lies outside of the sources, and what to do about it.
const CAUSES: &[(&str, &str)] = &[
    ("No space left on device", DISK_FULL),
    (
        "linker `wasm-component-ld` not found",
        "; the linker comes with rustup's toolchains, or from \
      `cargo install wasm-component-ld`",
    ),
    (
        "error while loading shared libraries",
        "; apt did not offer the library, so that dpkg's database may be in \
      disorder: repair it with `apt-get --fix-broken install`, or run `rustup target add wasm32-unknown-unknown`",
    ),
    ("--offline was specified", "; run once without --offline"),
    ("Could not resolve", NO_NETWORK),
    ("Temporary failure resolving", NO_NETWORK),
    ("Could not connect", NO_NETWORK),
    ("Cannot initiate the connection", NO_NETWORK),
    ("failed to download", NO_NETWORK),
    ("download of config.json failed", NO_NETWORK),
];

const NO_NETWORK: &str =
    "; the network cannot be reached: check the connection (and the proxy), and run again";

fn hint(output: &str) -> &'static str {
    CAUSES
        .iter()
        .find(|(sign, _)| output.contains(sign))
        .map_or("", |(_, fix)| fix)
}
