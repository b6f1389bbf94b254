//! `crank build`.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::Builder;

use super::{ConfigArgs, Ended};
use crate::toolchain::{self, BuildRequest, Built, Terminal};

/// Compile guest crates to components.
///
/// Uses the active Rust toolchain where it has the target wasm32-unknown-unknown. Where it has not
/// and apt-get exists, a private compiler is made under the cache directory from Debian's packages,
/// once, without root and without a change to the system or to your toolchains.
///
/// Where a path has a crank.toml (what its workers need to be granted), that is placed beside the components, where
/// `crank serve` and `crank check` read it. One that is there already is left as it is.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank build                              the guests of this clone, or the worker here, to target/workers
  crank build my-worker --out workers
  crank build --offline                    never download a toolchain")]
pub struct Build {
    /// Guest crates, or workspaces of them [default: guests, or else the crate here]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where the components go
    #[arg(long, value_name = "DIR", default_value = "target/workers")]
    out: PathBuf,
    /// Download nothing
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Build {
    pub fn run(self) -> Result<(), Ended> {
        let config = super::configure(None, Some(&self.config), &[])?;
        let paths = if self.paths.is_empty() {
            let here = Path::new(".");
            let worker = || here.join("Cargo.toml").is_file().then(|| here.to_owned());
            vec![guests(here).or_else(|none| worker().ok_or(none))?]
        } else {
            self.paths
        };
        let built = build(
            paths.clone(),
            self.out.clone(),
            &config.cache_dir,
            self.offline,
        )?;
        for built in built {
            let state = if built.changed { "built" } else { "unchanged" };
            println!(
                "{state} {} ({} KiB)",
                built.component.display(),
                built.bytes >> 10
            );
        }
        for path in paths {
            let written = place(&path, &self.out);
            let placed =
                written.map_err(|error| Ended::usage(format!("{}: {error}", path.display())))?;
            match placed {
                Placed::Nothing => {}
                Placed::New(file) => println!("placed {}", file.display()),
                Placed::Other(file) => println!(
                    "kept {}, which differs from {}",
                    file.display(),
                    path.join(CONFIG).display()
                ),
            }
        }
        Ok(())
    }
}

/// The configuration's name, beside crates and beside components.
const CONFIG: &str = "crank.toml";

/// What became of a workspace's configuration.
#[derive(Debug, PartialEq, Eq)]
enum Placed {
    /// There is none, or the same is there.
    Nothing,
    New(PathBuf),
    /// Another one is there, and stays.
    Other(PathBuf),
}

/// Puts the configuration that stands beside crates beside their components, if there is none.
fn place(crates: &Path, out: &Path) -> io::Result<Placed> {
    let text = match fs::read(crates.join(CONFIG)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Placed::Nothing),
        text => text?,
    };
    let file = out.join(CONFIG);
    let mut new = Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(out)?;
    new.write_all(&text)?;
    match new.persist_noclobber(&file) {
        Ok(_) => Ok(Placed::New(file)),
        Err(failed) if failed.error.kind() == ErrorKind::AlreadyExists => {
            match fs::read(&file)? == text {
                true => Ok(Placed::Nothing),
                false => Ok(Placed::Other(file)),
            }
        }
        Err(failed) => Err(failed.error),
    }
}

/// Builds, with progress on standard error.
pub fn build(
    crates: Vec<PathBuf>,
    out: PathBuf,
    cache_dir: &Path,
    offline: bool,
) -> Result<Vec<Built>, Ended> {
    let request = BuildRequest {
        crates,
        out,
        target_dir: PathBuf::from("target"),
        cache_dir: cache_dir.to_owned(),
        offline,
    };
    let terminal = Terminal::default();
    toolchain::build(&request, &|event| terminal.show(event)).map_err(Ended::usage)
}

/// The workspace of guests in a clone of this repository.
pub fn guests(root: &Path) -> Result<PathBuf, Ended> {
    let guests = root.join("guests");
    if guests.join("Cargo.toml").is_file() {
        return Ok(guests);
    }
    Err(Ended::Usage(
        "no guests/ here; name the crates to build, or run this in a clone of the repository"
            .to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_placed_once_and_the_operators_is_kept() {
        let [crates, out] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let placed = || place(crates.path(), out.path()).expect("it can be written");
        assert_eq!(placed(), Placed::Nothing);
        let file = out.path().join(CONFIG);
        fs::write(crates.path().join(CONFIG), "[workers]").expect("a file");
        assert_eq!(placed(), Placed::New(file.clone()));
        assert_eq!(placed(), Placed::Nothing);
        fs::write(&file, "grace_ms = 5").expect("a file");
        assert_eq!(placed(), Placed::Other(file.clone()));
        assert_eq!(fs::read(&file).expect("a file"), b"grace_ms = 5");
    }
}
