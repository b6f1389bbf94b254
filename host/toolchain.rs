//! Compiling guest crates to components, `crank build`, and making new ones, `crank new`.
//!
//! A guest needs a compiler with the standard library for `wasm32-unknown-unknown`. The active
//! toolchain is used if it has one; else, on Debian, a private compiler is made once in a cache
//! directory (`docs/decisions/0002-guest-toolchain.md`). The user's toolchains are never changed and
//! rustup is never asked to: that is the user's own act, and an error names the command.
//!
//! Nothing of the running host enters this room: no engine, no configuration, no async.

mod apt;
mod compiler;
mod debian;
mod error;
mod guest;
mod lock;
mod new;
mod process;
mod terminal;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use error::BuildError;
pub use new::{Made, NewError, new};
pub use terminal::Terminal;

use compiler::Compiler;
use guest::{Guest, Source};
use lock::Lock;

/// The one target that guests are compiled for.
const TARGET: &str = "wasm32-unknown-unknown";

/// What to build, and where things go. Relative paths start at the working directory.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Directories of guest crates, or of workspaces: then every default member that is a `cdylib`.
    pub crates: Vec<PathBuf>,
    /// Receives `<package>.wasm` for each guest: `target/workers`.
    pub out: PathBuf,
    /// Cargo's intermediate files go to `<target_dir>/guests-<compiler>`, one per compiler.
    pub target_dir: PathBuf,
    /// Where a private toolchain is kept between runs: `<cache_dir>/toolchain/<key>`.
    pub cache_dir: PathBuf,
    /// Download nothing: neither a toolchain nor crates.
    pub offline: bool,
}

/// One component that now lies in the output directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The package's name.
    pub package: String,
    /// The file, `<out>/<package>.wasm`.
    pub component: PathBuf,
    /// False if the file already held these very bytes; it was then left alone.
    pub changed: bool,
    /// The component's size in bytes.
    pub bytes: u64,
}

/// What a build says while it runs. Steps never overlap.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step begins: a lower-case phrase such as `compiling hello-world`.
    Started(&'a str),
    /// How far the step is.
    Advanced {
        /// What is done.
        done: u64,
        /// Of how much.
        total: u64,
        /// Counted in what.
        unit: Unit,
    },
    /// A line that a person should see: a compiler's warning, whom cargo waits for.
    Note(&'a str),
    /// The step is over; `ok` is false if it failed, and the error follows from [`build`].
    Finished {
        /// Whether it did what it was for.
        ok: bool,
    },
}

/// What [`Event::Advanced`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes that were downloaded.
    Bytes,
    /// Crates that were compiled.
    Crates,
    /// Packages that were unpacked.
    Packages,
}

/// Who hears of a build's events: [`Terminal::show`], or `|_| {}` for nobody.
pub type Progress<'a> = &'a dyn Fn(Event<'_>);

/// Compiles the guests one after another and places their components in `request.out`.
///
/// A guest's bytes depend on its sources, its lock file and the compiler alone: not on the path of
/// the checkout, not on the environment, and not on the guests that are built beside it.
///
/// # Errors
///
/// [`BuildError`], whose message names the fix. Guests that were built before the failing one stay.
pub fn build(request: &BuildRequest, progress: Progress<'_>) -> Result<Vec<Built>, BuildError> {
    let request = absolute(request)?;
    let sources = request
        .crates
        .iter()
        .map(|path| Source::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    guest::refuse_same_names(&sources)?;

    let mut built = Vec::new();
    for source in &sources {
        // Asked per source: rust-toolchain.toml files decide by directory.
        let compiler = Compiler::choose(&source.directory, &request, progress)?;
        let target_dir = request.target_dir.join(format!("guests-{}", compiler.key));
        let lock = request
            .target_dir
            .join(format!("guests-{}.lock", compiler.key));
        let purpose = format!(
            "builds {} into {}",
            source.directory.display(),
            request.out.display()
        );
        let _lock = Lock::take(&lock, &purpose, progress)?;
        for guest in &source.guests {
            let bytes = guest.compile(source, &compiler, &target_dir, request.offline, progress)?;
            built.push(place(guest, &bytes, &request.out)?);
        }
    }
    Ok(built)
}

fn absolute(request: &BuildRequest) -> Result<BuildRequest, BuildError> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(BuildError::io("find", path));
    Ok(BuildRequest {
        crates: request
            .crates
            .iter()
            .map(absolute)
            .collect::<Result<_, _>>()?,
        out: absolute(&request.out)?,
        target_dir: absolute(&request.target_dir)?,
        cache_dir: absolute(&request.cache_dir)?,
        offline: request.offline,
    })
}

/// Writes the component, unless the file holds it already: whoever watches the directory sees one
/// event per change, and never half a file.
fn place(guest: &Guest, bytes: &[u8], out: &Path) -> Result<Built, BuildError> {
    let component = out.join(format!("{}.wasm", guest.package));
    let changed = fs::read(&component).ok().as_deref() != Some(bytes);
    if changed {
        fs::create_dir_all(out).map_err(BuildError::io("create", out))?;
        let mut file = tempfile::Builder::new()
            .prefix(".crank-build-")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(out)
            .map_err(BuildError::io("write to", out))?;
        file.write_all(bytes)
            .map_err(BuildError::io("write", &component))?;
        file.persist(&component)
            .map_err(|failed| BuildError::io("write", &component)(failed.error))?;
    }
    Ok(Built {
        package: guest.package.clone(),
        component,
        changed,
        bytes: bytes.len() as u64,
    })
}

/// Runs one step between its two events.
fn step<T>(
    progress: Progress<'_>,
    what: &str,
    run: impl FnOnce() -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    progress(Event::Started(what));
    let result = run();
    progress(Event::Finished { ok: result.is_ok() });
    result
}

/// Bytes in the unit that Debian and browsers use: 1 MB is 10^6 bytes.
fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    let digits = if megabytes < 10.0 { 1 } else { 0 };
    format!("{megabytes:.digits$} MB")
}
