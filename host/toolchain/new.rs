//! A new worker: what `crank new` does.
//!
//! The helper crate and the contract come from this program itself, as its own sources had them: a worker
//! fits the host that made it, and needs no clone of the repository.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Files of this repository, each with the path that it has there.
macro_rules! repository {
    ($($path:literal,)*) => {
        &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))),*]
    };
}

/// What a worker gets in its folder `crank`, where the helper crate finds the contract as it does in the
/// repository. `tests/it/new.rs` holds that nothing is missing.
const SHIPPED: &[(&str, &str)] = repository![
    "guests/worker/Cargo.toml",
    "guests/worker/src/allocator.rs",
    "guests/worker/src/bytes.rs",
    "guests/worker/src/capability.rs",
    "guests/worker/src/declaration.rs",
    "guests/worker/src/events.rs",
    "guests/worker/src/failure.rs",
    "guests/worker/src/function.rs",
    "guests/worker/src/gpu.rs",
    "guests/worker/src/host.rs",
    "guests/worker/src/lib.rs",
    "guests/worker/src/peers.rs",
    "guests/worker/src/raw.rs",
    "guests/worker/src/state.rs",
    "guests/worker/src/state/host.rs",
    "guests/worker/src/state/memory.rs",
    "wit/capabilities.wit",
    "wit/deps/gpu/compute.wit",
    "wit/deps/keyvalue/keyvalue.wit",
    "wit/events.wit",
    "wit/handler.wit",
    "wit/log.wit",
    "wit/peers.wit",
    "wit/types.wit",
    "wit/worker.wit",
];

/// What becomes the author's own. The lock is that of our workers: cargo drops what is not used, and the
/// versions that stay are those that our tests passed with.
const OWN: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("new/Cargo.toml.in")),
    ("src/lib.rs", include_str!("new/lib.rs.in")),
    (".gitignore", "/target\n"),
    (
        "Cargo.lock",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/guests/Cargo.lock")),
    ),
];

/// The name that the author's files have before they get the author's own.
const PLACEHOLDER: &str = "my-worker";

/// Longest name, in bytes: the worker's id is `worker-` and the name, and an id has 64 at most.
const MAX_NAME_BYTES: usize = 57;

/// Names that a crate cannot have: Rust's keywords and crates (as `cargo new` has it), and those of the
/// crates that a worker uses.
const TAKEN: [&str; 60] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crank-worker",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "schemars",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// A worker that was made.
#[derive(Debug)]
pub struct Made {
    /// Its crate.
    pub directory: PathBuf,
    /// What it offers, `verb:name`.
    pub capability: String,
}

/// Why there is no new worker. Each message names its fix.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant is")]
pub enum NewError {
    #[error(
        "{name:?} is no name for a worker: lower-case letters, digits and single hyphens between them, a letter first{}",
        hint(name)
    )]
    Letters { name: String },

    #[error("a worker's name has at most {MAX_NAME_BYTES} bytes; this one has {0}")]
    Long(usize),

    #[error(
        "a crate cannot be called `{0}`: Rust, or a crate that workers use, has that name; try `{0}-worker`"
    )]
    Taken(String),

    #[error("{} exists; choose another name, or move it away", .0.display())]
    Exists(PathBuf),

    #[error("cannot write {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Makes the worker `name` in a folder of that name in `parent`. It is there whole or not at all.
///
/// # Errors
///
/// [`NewError`]; what was there before is left as it was.
pub fn new(name: &str, parent: &Path) -> Result<Made, NewError> {
    check(name)?;
    let directory = parent.join(name);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| NewError::Io { path, source }
    };
    // A link that leads nowhere is there too.
    if directory.symlink_metadata().is_ok() {
        return Err(NewError::Exists(directory));
    }
    let underscored = name.replace('-', "_");
    let named = |text: &str| {
        text.replace(&PLACEHOLDER.replace('-', "_"), &underscored)
            .replace(PLACEHOLDER, name)
    };
    let own = OWN.iter().map(|(path, text)| ((*path).into(), named(text)));
    let shipped = SHIPPED
        .iter()
        .map(|(path, text)| (Path::new("crank").join(path), (*text).to_owned()));

    // Under another name until it is complete; gone again if something fails.
    let draft = tempfile::Builder::new()
        .prefix(".crank-new-")
        .permissions(fs::Permissions::from_mode(0o777))
        .tempdir_in(parent)
        .map_err(failed(parent))?;
    for (path, text) in own.chain(shipped) {
        let at = draft.path().join::<PathBuf>(path);
        if let Some(folder) = at.parent() {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        fs::write(&at, text).map_err(failed(&at))?;
    }
    fs::rename(draft.path(), &directory).map_err(failed(&directory))?;
    // What it would remove has another name now.
    drop(draft.keep());
    Ok(Made {
        directory,
        capability: format!("run:{underscored}"),
    })
}

/// A name is a package's, a file's, and with `worker-` before it a worker's.
fn check(name: &str) -> Result<(), NewError> {
    if name.is_empty() || respelled(name) != name {
        return Err(NewError::Letters {
            name: name.to_owned(),
        });
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NewError::Long(name.len()));
    }
    if TAKEN.contains(&name) {
        return Err(NewError::Taken(name.to_owned()));
    }
    Ok(())
}

/// The nearest name that is allowed: `Word Count` is `word-count`. A name that is allowed is its own.
fn respelled(name: &str) -> String {
    let words = name
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let joined = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    joined
        .trim_start_matches(|letter: char| !letter.is_ascii_lowercase())
        .to_owned()
}

fn hint(name: &str) -> String {
    match respelled(name) {
        near if near.is_empty() => String::new(),
        near => format!("; try `{near}`"),
    }
}
