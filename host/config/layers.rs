//! Where values come from: every source becomes a flat map from key to value, later ones win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{ConfigError, Origin};

/// Every key but those of workers, in the order of the documentation, with its default as text.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("listen", "127.0.0.1:8080"),
    ("trust_domain", "crank.local"),
    // From XDG_CACHE_HOME or HOME.
    ("cache_dir", ""),
    // Below cache_dir.
    ("tmp_dir", ""),
    // From XDG_STATE_HOME or HOME.
    ("state_dir", ""),
    ("grace_ms", "10000"),
    ("allowed_hosts", ""),
    ("allowed_origins", ""),
    ("log", "text"),
    ("watch", "true"),
    ("snapshot", "true"),
    ("audit_log", ""),
    ("otlp_endpoint", ""),
    // Three quarters of what there is.
    ("memory_budget", ""),
    ("disk_type", ""),
    // An id of its own.
    ("controller_id", ""),
    ("remote_addresses", ""),
    ("capabilities", ""),
    ("identity.certificate", ""),
    ("identity.key", ""),
    ("identity.bundle", ""),
    ("identity.jwks", ""),
    ("identity.audience", ""),
    ("identity.tokens", ""),
    ("identity.registrars", ""),
    ("identity.operators", ""),
    ("identity.forwarders", ""),
    ("identity.open_metrics", "false"),
    ("identity.local", ""),
    // policies/ beside the configuration or the workers, if there is one.
    ("policies", ""),
    ("limits.memory_mb", "256"),
    ("limits.max_memory_mb", "4096"),
    // Above the highest of the schema's own examples, which is 8192.
    ("limits.max_cpu_shares", "10240"),
    ("limits.wall_ms", "30000"),
    ("limits.cpu_ms", "30000"),
    ("limits.tmp_mb", "0"),
    ("limits.max_tmp_mb", "1024"),
    ("limits.tmp_files", "10000"),
    ("limits.gpu_mb", "256"),
    ("limits.max_gpu_mb", "16384"),
    ("limits.input_mb", "64"),
    ("limits.output_mb", "32"),
    ("limits.hostcall_mb", "1024"),
    ("limits.hostcalls", "10000000"),
    ("limits.network_mbps", "10000"),
    ("limits.state_mb", "64"),
    ("limits.max_state_mb", "16384"),
    ("limits.component_mb", "64"),
    ("limits.compile_ms", "120000"),
    ("limits.compile_memory_mb", "1024"),
    ("limits.artifact_mb", "256"),
    ("limits.cache_mb", "4096"),
    ("limits.header_bytes", "16384"),
    ("limits.uri_bytes", "8192"),
    ("limits.header_timeout_ms", "10000"),
    ("limits.body_timeout_ms", "30000"),
    ("limits.instances", "1000"),
    // Three quarters of limits.instances.
    ("limits.concurrency", ""),
    // Eight for each core, 32 at least.
    ("limits.worker_concurrency", ""),
    ("limits.queue", "256"),
    ("limits.max_slo_bid", "100"),
    // None.
    ("limits.caller_rate", "0"),
    // As many as limits.caller_rate.
    ("limits.caller_burst", ""),
    // Any number.
    ("limits.caller_concurrency", "0"),
    // A quarter of all that the host holds open.
    ("limits.address_connections", "1024"),
    // A day.
    ("idempotency.ttl_ms", "86400000"),
    ("idempotency.max_mb", "256"),
    ("idempotency.max_answer_bytes", "1048576"),
];

/// Keys of a section `[workers."FILE-STEM"]`.
pub(super) const WORKER_KEYS: &[&str] = &[
    "grants",
    "deny",
    "memory_mb",
    "wall_ms",
    "cpu_ms",
    "cpu_shares",
    "relax",
    "models",
    "concurrency",
    "worker_id",
    "spiffe_id",
    "owner",
    "snapshot",
];

/// Variables with our prefix that belong to the command line itself.
const FOREIGN: &[&str] = &["CRANK_CONFIG"];
const PREFIX: &str = "CRANK_";
/// Longest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// All sources, laid over each other.
pub(super) struct Layers {
    pub values: BTreeMap<&'static str, (Value, Origin)>,
    pub workers: BTreeMap<String, Table>,
    pub file: Option<PathBuf>,
    pub problems: Vec<String>,
}

impl Layers {
    pub(super) fn gather(
        flags: &[(&str, String)],
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let mut layers = Self {
            values: BTreeMap::new(),
            workers: BTreeMap::new(),
            file: file.map(Path::to_owned),
            problems: Vec::new(),
        };
        for (key, default) in KEYS {
            layers
                .values
                .insert(key, (Value::String((*default).to_owned()), Origin::Default));
        }
        for (key, variable, beside_home) in [
            ("cache_dir", "XDG_CACHE_HOME", ".cache"),
            ("state_dir", "XDG_STATE_HOME", ".local/state"),
        ] {
            if let Some(dir) = base_dir(&environment, variable, beside_home) {
                layers
                    .values
                    .insert(key, (Value::String(dir), Origin::Default));
            }
        }
        if let Some(path) = file {
            layers.file(path)?;
        }
        layers.environment(&environment);
        for (key, value) in flags {
            let flag = format!("--{}", key.replace(['.', '_'], "-"));
            layers.set(key, Value::String(value.clone()), Origin::Flag(flag));
        }
        Ok(layers)
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) {
        match KEYS.iter().find(|(known, _)| *known == key) {
            Some((known, _)) => {
                self.values.insert(known, (value, origin));
            }
            None => {
                let hint = did_you_mean(key, KEYS.iter().map(|(known, _)| *known));
                self.problems.push(format!(
                    "{origin}: unknown key \"{}\"{hint}",
                    key.escape_debug()
                ));
            }
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let fail = |reason: String| ConfigError(vec![format!("file {}: {reason}", path.display())]);
        let size = path
            .metadata()
            .map_err(|error| fail(error.to_string()))?
            .len();
        if size > MAX_FILE_BYTES {
            return Err(fail(format!(
                "has {size} bytes; at most {MAX_FILE_BYTES} are read"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| fail(error.to_string()))?;
        let origin = Origin::File(path.to_owned());
        for (key, value) in table {
            match (key.as_str(), value) {
                ("workers", Value::Table(workers)) => self.workers(workers, &origin),
                (section @ ("limits" | "idempotency" | "identity"), Value::Table(values)) => {
                    for (key, value) in values {
                        self.set(&format!("{section}.{key}"), value, origin.clone());
                    }
                }
                ("workers" | "limits" | "idempotency" | "identity", _) => self
                    .problems
                    .push(format!("{origin}: \"{key}\" must be a section")),
                (key, value) => self.set(key, value, origin.clone()),
            }
        }
        Ok(())
    }

    fn workers(&mut self, workers: Table, origin: &Origin) {
        for (stem, section) in workers {
            let Value::Table(section) = section else {
                self.problems
                    .push(format!("{origin}: workers.{stem:?} must be a section"));
                continue;
            };
            for key in section
                .keys()
                .filter(|key| !WORKER_KEYS.contains(&key.as_str()))
            {
                let hint = did_you_mean(key, WORKER_KEYS.iter().copied());
                self.problems.push(format!(
                    "{origin}: unknown key workers.{stem:?}.{key:?}{hint}"
                ));
            }
            self.workers.insert(stem, section);
        }
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) {
        let ours = environment
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && !FOREIGN.contains(&name.as_str()));
        for (name, text) in ours {
            let known = KEYS.iter().find(|(key, _)| variable(key) == *name);
            match known {
                Some((key, _)) => self.set(
                    key,
                    Value::String(text.clone()),
                    Origin::Environment(name.clone()),
                ),
                None => {
                    let names: Vec<String> = KEYS.iter().map(|(key, _)| variable(key)).collect();
                    let hint = did_you_mean(name, names.iter().map(String::as_str));
                    self.problems.push(format!(
                        "environment: unknown variable {}{hint}",
                        name.escape_debug()
                    ));
                }
            }
        }
    }
}

/// The variable of a key: `CRANK_LIMITS_MEMORY_MB` of `limits.memory_mb`.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// XDG Base Directory Specification: a variable with a relative path is ignored.
fn base_dir(
    environment: &BTreeMap<String, String>,
    variable: &str,
    beside_home: &str,
) -> Option<String> {
    let absolute = |name: &str| {
        environment
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(beside_home)))?;
    Some(base.join("crank").to_string_lossy().into_owned())
}

pub(super) fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    // A section's name that was left out or added still finds its key.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |key: &str| {
        strsim::damerau_levenshtein(given, key)
            .min(strsim::damerau_levenshtein(&last(given), &last(key)))
    };
    if given.len() > 64 {
        return String::new();
    }
    match known.map(|key| (distance(key), key)).min() {
        Some((distance, key)) if distance <= 3 => format!("; did you mean \"{key}\"?"),
        _ => String::new(),
    }
}
