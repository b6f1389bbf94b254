//! `crank build`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigArgs, Ended};
use crate::toolchain::{self, BuildRequest, Built, Terminal};

/// Compile guest crates to components.
///
/// Uses the active Rust toolchain where it has the target wasm32-unknown-unknown. Where it has not
/// and apt-get exists, a private compiler is made under the cache directory from Debian's packages,
/// once, without root and without a change to the system or to your toolchains.
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
        for built in build(paths, self.out, &config.cache_dir, self.offline)? {
            let state = if built.changed { "built" } else { "unchanged" };
            println!(
                "{state} {} ({} KiB)",
                built.component.display(),
                built.bytes >> 10
            );
        }
        Ok(())
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
