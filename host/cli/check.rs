//! `crank check`.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::{ConfigArgs, Ended};
use crate::capability::{Capability, Tier, missing_faas, tiers};
use crate::registry::{self, Manifests, Snapshot};
use crate::worker::Worker;

/// Check components: what they declare, what they import, what they lack.
///
/// Holds each worker's imports against its declarations and the operator's grants, and prints how complete
/// its metadata is, a line for each worker. Exits with 1 if a worker is refused or lacks a field that is required: the
/// FaaS fields always, more with --require.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank check target/workers
  crank check hello-world.wasm --require slo,identity
  crank check target/workers --host                       do they fit on this machine, too?
  crank check target/workers --manifests policies/data/worker_manifests.json
  crank check target/workers --json | jq '.workers[].tiers'")]
pub struct Check {
    /// Components, or directories of them
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Tiers that every worker must reach, besides faas: slo, identity, economic, multi-controller
    #[arg(long, value_delimiter = ',', value_name = "TIER,…", value_parser = tier)]
    require: Vec<Tier>,
    /// Check placement too: whether this machine has what the workers ask for
    #[arg(long)]
    host: bool,
    /// Write the manifests of those that may serve, as GET /manifests has them, for policies
    #[arg(long, value_name = "FILE")]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What the check found, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    workers: Vec<Checked>,
    refused: Vec<Refused>,
    complete: bool,
}

#[derive(Serialize)]
struct Checked {
    worker_id: String,
    file: PathBuf,
    capabilities: Vec<String>,
    tiers: Vec<&'static str>,
    /// What the worker lacks of what is required, per capability.
    missing: Vec<String>,
    imports: Vec<String>,
    required_capabilities: BTreeSet<String>,
    /// What it declares, capability by capability, without the schemas.
    metadata: Vec<Capability>,
}

#[derive(Serialize)]
struct Refused {
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    reasons: Vec<String>,
}

impl Check {
    pub fn run(self) -> Result<(), Ended> {
        let mut files = Vec::new();
        for path in &self.paths {
            if path.is_dir() {
                files.extend(registry::components(path).map_err(|error| unreadable(path, &error))?);
            } else if path.is_file() {
                files.push(path.clone());
            } else {
                return Err(Ended::Usage(format!(
                    "{}: no such file or directory",
                    path.display()
                )));
            }
        }
        if files.is_empty() {
            return Err(Ended::Usage(
                "nothing to check: no *.wasm there; `crank build` makes components".to_owned(),
            ));
        }
        let dir = self
            .paths
            .iter()
            .find(|path| path.is_dir())
            .map(PathBuf::as_path);
        let config = super::configure(dir, Some(&self.config), &[])?;
        super::log(config.log, None, "warn,crank=info")?;
        let snapshot = super::runtime()?.block_on(async {
            let (engine, config) = if self.host {
                super::host(config)?
            } else {
                (super::engine(&config)?, Arc::new(config))
            };
            Ok(Snapshot::load(&engine, &config, files).await)
        })?;
        if let Some(file) = &self.manifests {
            write_manifests(file, &Manifests::of(&snapshot)).map_err(|error| {
                Ended::Usage(format!("{} is not written: {error}", file.display()))
            })?;
        }
        let report = Report::new(&snapshot, &self.require);
        if self.json {
            let json = serde_json::to_string_pretty(&report).map_err(Ended::usage)?;
            println!("{json}");
        } else {
            report.print();
        }
        if report.complete {
            Ok(())
        } else {
            Err(Ended::Short(String::new()))
        }
    }
}

impl Report {
    fn new(snapshot: &Snapshot, require: &[Tier]) -> Self {
        let workers: Vec<Checked> = snapshot
            .workers()
            .iter()
            .map(|worker| Checked::new(worker, require))
            .collect();
        let refused: Vec<Refused> = snapshot
            .refused()
            .iter()
            .map(|refused| Refused {
                file: refused.file.clone(),
                worker_id: refused.worker_id.clone(),
                reasons: refused.reasons.clone(),
            })
            .collect();
        let complete = refused.is_empty() && workers.iter().all(|worker| worker.missing.is_empty());
        Self {
            workers,
            refused,
            complete,
        }
    }

    /// What each reaches for first, then the table, so that it stands together.
    fn print(&self) {
        for worker in &self.workers {
            worker.print_reach();
        }
        if !self.workers.is_empty() {
            println!();
        }
        for worker in &self.workers {
            worker.print_row();
        }
        for refused in &self.refused {
            let name = refused.worker_id.as_deref().unwrap_or("(no worker id)");
            println!("❌ {name}: refused ({})", refused.file.display());
            for reason in &refused.reasons {
                println!("     {reason}");
            }
        }
        if self.complete {
            println!("All workers have complete metadata ✅");
        }
    }
}

impl Checked {
    fn new(worker: &Worker, require: &[Tier]) -> Self {
        let offered: Vec<Capability> = worker
            .offered()
            .iter()
            .map(|offered| offered.capability.clone())
            .collect();
        let reached = tiers(&offered);
        let mut missing = missing_faas(&offered);
        missing.extend(
            require
                .iter()
                .filter(|tier| !reached.contains(tier))
                .map(|tier| format!("{} is required and not declared", tier.title())),
        );
        Self {
            worker_id: worker.id().to_string(),
            file: worker.file().to_owned(),
            capabilities: worker
                .offered()
                .iter()
                .map(|offered| offered.id.to_string())
                .collect(),
            tiers: reached.iter().map(|tier| tier.title()).collect(),
            missing,
            imports: worker.imports().to_vec(),
            required_capabilities: offered
                .iter()
                .filter_map(|capability| capability.required_capabilities.as_ref())
                .flatten()
                .map(ToString::to_string)
                .collect(),
            metadata: offered,
        }
    }

    fn print_reach(&self) {
        println!("{}", self.worker_id);
        println!("     imports   {}", listed(self.imports.iter()));
        println!(
            "     declares  {}",
            listed(self.required_capabilities.iter())
        );
    }

    fn print_row(&self) {
        let mark = if self.missing.is_empty() {
            "✅"
        } else {
            "❌"
        };
        let tiers = if self.tiers.is_empty() {
            "no tier is complete".to_owned()
        } else {
            self.tiers.join(" + ")
        };
        println!("{mark} {}: {tiers}", self.worker_id);
        for missing in &self.missing {
            println!("     lacks     {missing}");
        }
    }
}

fn listed<'a>(items: impl Iterator<Item = &'a String>) -> String {
    let items: Vec<&str> = items.map(String::as_str).collect();
    if items.is_empty() {
        "nothing".to_owned()
    } else {
        items.join(", ")
    }
}

/// A name of its own, then a rename: no reader ever sees half a file.
fn write_manifests(path: &Path, manifests: &Manifests) -> std::io::Result<()> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        // As any file that is written: the process's umask takes from it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent.unwrap_or(Path::new(".")))?;
    serde_json::to_writer_pretty(&mut file, manifests)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Ended {
    Ended::Usage(format!("{}: {error}", path.display()))
}

fn tier(text: &str) -> Result<Tier, String> {
    Tier::parse(text.trim()).ok_or_else(|| {
        let known: Vec<String> = Tier::ALL
            .iter()
            .map(|tier| tier.title().to_lowercase())
            .collect();
        format!("the tiers are {}", known.join(", "))
    })
}
