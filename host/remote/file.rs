//! `capabilities.yaml`, the registry format of ADR-0006: read, never written.

use std::path::Path;

use serde::Deserialize;

use super::registration::{Registration, SchemaText};

/// Longest file, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Workers that it may name.
const MAX_WORKERS: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    capabilities: Vec<CapabilityText>,
}

/// A capability: nameless, so the verb is its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CapabilityText {
    verb: String,
    version: String,
    schema: Option<SchemaText>,
    workers: Vec<WorkerText>,
    /// Beyond the ADR: the call may be made again elsewhere when a worker dies in the middle of it.
    idempotent: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerText {
    worker_id: String,
    address: String,
    load: Option<f64>,
}

/// Reads the file: a registration for each worker of each capability.
///
/// # Errors
///
/// It cannot be read, or is not what it should be; the text says where.
pub fn read(path: &Path) -> Result<Vec<Registration>, String> {
    let fail = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let size = path.metadata().map_err(|error| fail(&error))?.len();
    if size > MAX_BYTES {
        return Err(fail(&format_args!(
            "has {size} bytes; at most {MAX_BYTES} are read"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    parse(&text).map_err(|error| fail(&error))
}

fn parse(text: &str) -> Result<Vec<Registration>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut registrations = Vec::new();
    for capability in file.capabilities {
        for worker in capability.workers {
            registrations.push(Registration {
                verb: capability.verb.clone(),
                version: capability.version.clone(),
                worker_id: worker.worker_id,
                url: worker.address,
                load_score: worker.load,
                schema: capability.schema.clone(),
                idempotent: capability.idempotent,
                ..Registration::default()
            });
        }
    }
    if registrations.len() > MAX_WORKERS {
        return Err(format!(
            "names {} workers; at most {MAX_WORKERS} are served",
            registrations.len()
        ));
    }
    Ok(registrations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_adrs_and_nothing_else() {
        let file = |version: &str, more: &str| {
            format!(
                "capabilities:\n  - verb: a\n    version: {version}\n{more}    workers:\n      - {{worker_id: w, address: 'http://localhost:1'}}\n"
            )
        };
        for version in ["\"1.0\"", "1.0", "1.0.0"] {
            let read = parse(&file(version, "")).unwrap();
            let capability = read[0].read().unwrap();
            assert_eq!(capability.version.to_string(), "1.0.0");
            assert_eq!(capability.name.as_str(), "a");
        }
        assert!(parse(&file("1.0", "    priority: 1\n")).is_err());
        assert!(parse("capabilities: [").is_err());
        // Aliases of aliases would fill the memory.
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
        assert!(parse(bomb).is_err());
    }
}
