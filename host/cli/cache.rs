//! `crank cache`: what compiled code is kept, and away with it.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, Ended};
use crate::engine;

/// Look at the compiled code that is kept, or remove it.
///
/// Hosts that run are not disturbed: they have loaded what they need, and compile again what they miss.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank cache list             what is kept, the last used first
  crank cache list --json      the same for programs
  crank cache clear            remove all of it")]
pub struct Cache {
    #[command(subcommand)]
    command: What,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Subcommand)]
enum What {
    /// List what is kept, the last used first
    List {
        /// As one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove all of it
    Clear,
}

impl Cache {
    pub fn run(self) -> Result<(), Ended> {
        let config = super::configure(None, Some(&self.config), &[])?;
        let dir = super::code_dir(&config);
        let failed = |error| Ended::Usage(format!("{}: {error}", dir.display()));
        match self.command {
            What::List { json } => {
                let entries = engine::cache_entries(&dir).map_err(failed)?;
                let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
                if json {
                    let entries: Vec<_> = entries
                        .iter()
                        .map(|entry| {
                            json!({
                                "file": entry.file,
                                "kind": entry.kind,
                                "bytes": entry.bytes,
                                "used_s_ago": age(entry.used),
                            })
                        })
                        .collect();
                    let most = config.limits.cache.get();
                    println!(
                        "{:#}",
                        json!({ "dir": dir, "bytes": bytes, "max_bytes": most, "entries": entries })
                    );
                    return Ok(());
                }
                for entry in &entries {
                    println!(
                        "{:>10} KiB  used {:>9} s ago  {}",
                        entry.bytes.div_ceil(1024),
                        age(entry.used),
                        entry.file
                    );
                }
                println!(
                    "{} files, {} of at most {} MiB, in {}",
                    entries.len(),
                    bytes.div_ceil(1 << 20),
                    config.limits.cache.get() >> 20,
                    dir.display()
                );
            }
            What::Clear => {
                let (files, bytes) = engine::clear_cache(&dir).map_err(failed)?;
                println!("removed {files} files, {} MiB", bytes.div_ceil(1 << 20));
            }
        }
        Ok(())
    }
}

/// Seconds since then; none for what lies ahead.
fn age(used: SystemTime) -> u64 {
    used.elapsed().unwrap_or_default().as_secs()
}
