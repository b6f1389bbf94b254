//! What the operator says: flags, `crank.toml` and `CRANK_*` variables become one `Config`, once.
//!
//! A flag wins over the environment, the environment over the file, the file over the defaults.
//! What is not understood is refused. Nothing here reads the process's own environment or arguments.

mod identity;
mod layers;
mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::capability::{CPU_SHARES, Constraint, DiskType, InterfaceEntry, WorkerId};
use crate::identity::{SpiffeId, TrustDomain};

pub use identity::{IdentitySettings, Registrar, TlsFiles};
use layers::Layers;
use reader::Reader;

/// The file that is read from the served directory where no other is named.
pub const FILE_NAME: &str = "crank.toml";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    /// So many bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// So many MiB.
    pub const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// All that the operator decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the host listens.
    pub listen: SocketAddr,
    /// The authority whose SPIFFE ids are accepted.
    pub trust_domain: TrustDomain,
    /// Where compiled components are kept.
    pub cache_dir: PathBuf,
    /// Where the scratch directories of invocations are made.
    pub tmp_dir: PathBuf,
    /// Where the state of workers is kept.
    pub state_dir: PathBuf,
    /// How long calls in flight may take to end once the host stops.
    pub grace: Duration,
    /// `Host` names that are served beside the loopback ones, in lower case, perhaps with a port.
    pub allowed_hosts: Vec<String>,
    /// `Origin` values that may call beside the host's own.
    pub allowed_origins: Vec<String>,
    /// How log lines look.
    pub log: LogFormat,
    /// Whether the directory of components is followed while it is served.
    pub watch: bool,
    /// Whether workers start from init snapshots.
    pub snapshot: bool,
    /// Where refusals are written down.
    pub audit_log: Option<PathBuf>,
    /// The collector that spans go to: `http://localhost:4318`.
    pub otlp_endpoint: Option<String>,
    /// What all workers together may use of this host's memory; three quarters of it where absent.
    pub memory_budget: Option<ByteCount>,
    /// What the operator says of the disk that workers' files lie on.
    pub disk_type: Option<DiskType>,
    /// What this host is called among others, in `Crank-Path` and a capability's `controller_affinity`; an id of
    /// its own where absent.
    pub controller_id: Option<String>,
    /// Where remote workers that register may be. None: none may.
    pub remote_addresses: Vec<IpNet>,
    /// The file of remote workers that the operator names.
    pub capabilities: Option<PathBuf>,
    /// How callers prove who they are.
    pub identity: IdentitySettings,
    /// The directory of policies. None: the built-in policy holds.
    pub policies: Option<PathBuf>,
    /// What one invocation and one request may use.
    pub limits: LimitSettings,
    /// How long answers under idempotency keys are kept, and how many of them.
    pub idempotency: IdempotencySettings,
    /// What holds for single workers, by the stem of the file that the operator placed.
    pub workers: BTreeMap<String, WorkerSettings>,
    settings: Vec<Setting>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The section `[limits]`: defaults for invocations, and caps of the host's own surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Memories and tables of one invocation together, where the worker declares nothing.
    pub memory: ByteCount,
    /// The most that a worker's own declaration may raise that to.
    pub max_memory: ByteCount,
    /// The most that a worker's own declaration may make of its weight.
    pub max_cpu_shares: u32,
    /// Wall-clock time of one invocation.
    pub wall: Duration,
    /// CPU time of one invocation.
    pub cpu: Duration,
    /// The /tmp of one invocation, where the worker declares nothing. None: there is no /tmp.
    pub tmp: ByteCount,
    /// The most that a worker's own declaration may raise that to.
    pub max_tmp: ByteCount,
    /// Files, directories and links in the /tmp of one invocation.
    pub tmp_files: u64,
    /// Buffers of one invocation on a GPU, where its worker declares no `gpu_memory_mb`.
    pub gpu: ByteCount,
    /// The most that a worker may declare of it.
    pub max_gpu: ByteCount,
    /// Body of one request.
    pub input: ByteCount,
    /// Answer of one invocation, its events included.
    pub output: ByteCount,
    /// What one invocation may hand to the host's functions in all.
    pub hostcall: ByteCount,
    /// Things that one invocation may hand to the host's functions: log lines, events, writes.
    pub hostcalls: u64,
    /// Megabits (10^6) per second from one worker to its callers, where it declares nothing.
    pub network_mbps: u32,
    /// Keys and values of one bucket, where the worker that writes declares nothing.
    pub state: ByteCount,
    /// The most that a worker's own declaration may raise that to.
    pub max_state: ByteCount,
    /// File of one component.
    pub component: ByteCount,
    /// CPU time that compiling one component may take, in steps of a second.
    pub compile: Duration,
    /// Memory that compiling one component may take.
    pub compile_memory: ByteCount,
    /// Compiled code of one component.
    pub artifact: ByteCount,
    /// All compiled code that is kept.
    pub cache: ByteCount,
    /// Head of one request: request line and header fields.
    pub header: ByteCount,
    /// Target of one request.
    pub uri: ByteCount,
    /// Time to send the head of a request.
    pub header_timeout: Duration,
    /// Time to send the body of a request.
    pub body_timeout: Duration,
    /// Component instances at once: the size of the pool.
    pub instances: u32,
    /// Invocations at once that callers asked for. The instances beyond are for calls that workers make
    /// of each other.
    pub concurrency: usize,
    /// Invocations of one worker at once.
    pub worker_concurrency: usize,
    /// Calls that may wait for one worker.
    pub queue: usize,
    /// The most that a worker's own `slo_bid` counts for.
    pub max_slo_bid: u32,
    /// Requests per second from one caller, in the long run. 0: any number.
    pub caller_rate: u32,
    /// Requests that one caller may make at once before that holds.
    pub caller_burst: u32,
    /// Requests of one caller that are answered at once. 0: any number.
    pub caller_concurrency: usize,
    /// Connections from one address that are open at once.
    pub address_connections: usize,
}

/// The section `[idempotency]`: answers that are kept under their callers' keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// How long from a key's first use.
    pub ttl: Duration,
    /// All of them together, on the disk.
    pub max: ByteCount,
    /// The longest answer that is kept.
    pub max_answer: ByteCount,
}

/// A section `[workers."FILE-STEM"]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerSettings {
    /// Interfaces that this worker may use beside those that every worker may.
    pub grants: Vec<InterfaceEntry>,
    /// Interfaces that this worker may not use, whatever else says so.
    pub deny: Vec<InterfaceEntry>,
    /// Replaces the worker's own `max_memory_mb` and the default.
    pub memory: Option<ByteCount>,
    /// Replaces the default wall-clock time.
    pub wall: Option<Duration>,
    /// Replaces the worker's own `max_cpu_ms` and the default.
    pub cpu: Option<Duration>,
    /// Replaces the worker's own `cpu_shares` and the default.
    pub cpu_shares: Option<u32>,
    /// Demands on this host that are not held against it.
    pub relax: Vec<Constraint>,
    /// The directory that this worker may read as `/models`.
    pub models: Option<PathBuf>,
    /// Replaces the default of invocations at once.
    pub concurrency: Option<usize>,
    /// The worker id that belongs to this file and to no other.
    pub worker_id: Option<WorkerId>,
    /// The identity that belongs to this file and to no other.
    pub spiffe_id: Option<SpiffeId>,
    /// Whose worker it is, for the manifests.
    pub owner: Option<String>,
    /// Replaces the global word on init snapshots.
    pub snapshot: Option<bool>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// A flag of the command line, with its dashes.
    Flag(String),
}

/// One value that holds, for `--print-config`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key as `crank.toml` writes it, sections before dots.
    pub key: String,
    /// The value.
    pub value: toml::Value,
    /// Where it came from.
    pub origin: Origin,
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

/// The file to read: the named one, or `crank.toml` in the served directory if there is one.
pub fn find_file(named: Option<&Path>, served: &Path) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_owned()),
        // A file that is there and cannot be read is an error later, never silently passed over.
        None => Some(served.join(FILE_NAME)).filter(|path| path.symlink_metadata().is_ok()),
    }
}

impl Config {
    /// Joins flags (key and value: `("listen", "127.0.0.1:0")`), the file and the environment.
    pub fn load(
        flags: &[(&str, String)],
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(Layers::gather(flags, file, environment)?);
        let config = Self::read(&mut reader);
        let (settings, mut problems) = reader.finish();
        match config {
            Some(config) if problems.is_empty() => Ok(Self { settings, ..config }),
            _ => {
                problems.dedup();
                Err(ConfigError(problems))
            }
        }
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        // Every key is read before the first `?`, so that all problems are told at once.
        let listen = reader.listen("listen");
        let trust_domain = reader.text("trust_domain", TrustDomain::parse);
        let cache_dir = reader.path("cache_dir");
        let tmp_dir = reader.path_or("tmp_dir", cache_dir.as_ref().map(|dir| dir.join("tmp")));
        let state_dir = reader.path("state_dir");
        let grace = reader.milliseconds("grace_ms", 0..=600_000);
        let allowed_hosts = reader.list("allowed_hosts", reader::host);
        let allowed_origins = reader.list("allowed_origins", reader::origin);
        let log = reader.text("log", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("must be \"text\" or \"json\""),
        });
        let watch = reader.boolean("watch");
        let snapshot = reader.boolean("snapshot");
        let audit_log = reader.optional("audit_log", |reader, key| reader.path(key));
        let otlp_endpoint = reader.optional("otlp_endpoint", |reader, key| {
            reader.text(key, reader::endpoint)
        });
        let memory_budget = reader.optional("memory_budget", |reader, key| {
            reader.mebibytes(key, 1..=u64::from(u32::MAX))
        });
        let disk_type = reader.optional("disk_type", |reader, key| {
            reader.text(key, |text| match DiskType::parse(text) {
                Some(kind) if kind != DiskType::Any => Ok(kind),
                _ => {
                    Err("must be \"ssd\", \"nvme\" or \"hdd\"; leave it empty where none is meant")
                }
            })
        });
        let controller_id = reader.optional("controller_id", |reader, key| {
            reader.text(key, reader::controller_id)
        });
        let remote_addresses = reader.list("remote_addresses", reader::range);
        let capabilities = reader.optional("capabilities", |reader, key| reader.path(key));
        let identity = IdentitySettings::read(reader, trust_domain.as_ref());
        if let (Some(listen), Some(identity)) = (listen, &identity) {
            identity.check_listen(reader, listen);
        }
        let policies = reader.optional("policies", |reader, key| reader.path(key));
        let limits = LimitSettings::read(reader);
        let idempotency = IdempotencySettings::read(reader);
        let workers = reader.workers(trust_domain.as_ref());
        Some(Self {
            listen: listen?,
            trust_domain: trust_domain?,
            cache_dir: cache_dir?,
            tmp_dir: tmp_dir?,
            state_dir: state_dir?,
            grace: grace?,
            allowed_hosts: allowed_hosts?,
            allowed_origins: allowed_origins?,
            log: log?,
            watch: watch?,
            snapshot: snapshot?,
            audit_log: audit_log?,
            otlp_endpoint: otlp_endpoint?,
            memory_budget: memory_budget?,
            disk_type: disk_type?,
            controller_id: controller_id?,
            // Each was read as one already.
            remote_addresses: remote_addresses?
                .iter()
                .filter_map(|range| range.parse().ok())
                .collect(),
            capabilities: capabilities?,
            identity: identity?,
            policies: policies?,
            limits: limits?,
            idempotency: idempotency?,
            workers,
            settings: Vec::new(),
        })
    }

    /// What holds and where it came from, in the order of the documentation.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

impl LimitSettings {
    fn read(reader: &mut Reader) -> Option<Self> {
        const DAY_MS: u64 = 86_400_000;
        let memory = reader.mebibytes("limits.memory_mb", 1..=16_384);
        let max_memory = reader.mebibytes("limits.max_memory_mb", 1..=16_384);
        let max_cpu_shares = reader.number("limits.max_cpu_shares", cpu_shares());
        let wall = reader.milliseconds("limits.wall_ms", 1..=DAY_MS);
        let cpu = reader.milliseconds("limits.cpu_ms", 1..=DAY_MS);
        let tmp = reader.mebibytes("limits.tmp_mb", 0..=1 << 20);
        let max_tmp = reader.mebibytes("limits.max_tmp_mb", 0..=1 << 20);
        let tmp_files = reader.number("limits.tmp_files", 1..=1_000_000);
        let gpu = reader.mebibytes("limits.gpu_mb", 0..=1 << 20);
        let max_gpu = reader.mebibytes("limits.max_gpu_mb", 0..=1 << 20);
        let input = reader.mebibytes("limits.input_mb", 1..=4096);
        let output = reader.mebibytes("limits.output_mb", 1..=4096);
        let hostcall = reader.mebibytes("limits.hostcall_mb", 1..=1 << 20);
        let hostcalls = reader.number("limits.hostcalls", 1..=1 << 40);
        let network_mbps = reader.number("limits.network_mbps", 1..=1_000_000);
        let state = reader.mebibytes("limits.state_mb", 1..=u64::from(u32::MAX));
        let max_state = reader.mebibytes("limits.max_state_mb", 1..=u64::from(u32::MAX));
        let component = reader.mebibytes("limits.component_mb", 1..=4096);
        let compile = reader.milliseconds("limits.compile_ms", 1000..=DAY_MS);
        // The compiler itself needs some 12 MiB, and 2 more for each core.
        let compile_memory = reader.mebibytes("limits.compile_memory_mb", 64..=1 << 20);
        let artifact = reader.mebibytes("limits.artifact_mb", 1..=16_384);
        let cache = reader.mebibytes("limits.cache_mb", 1..=1 << 20);
        // Hyper reads heads into a buffer of at least 8 KiB.
        let header = reader
            .number("limits.header_bytes", 8192..=1 << 20)
            .map(ByteCount::bytes);
        // The `http` crate holds targets of up to 65,534 bytes.
        let uri = reader
            .number("limits.uri_bytes", 256..=65_534)
            .map(ByteCount::bytes);
        let header_timeout = reader.milliseconds("limits.header_timeout_ms", 100..=600_000);
        let body_timeout = reader.milliseconds("limits.body_timeout_ms", 100..=600_000);
        // 10,000 slots take 42 TiB of address space; 30,000 no longer fit.
        let instances = reader.number("limits.instances", 1..=10_000);
        let three_quarters = instances.map_or(1, |count| (count * 3 / 4).max(1));
        let concurrency = reader.number_or("limits.concurrency", 1..=10_000, three_quarters);
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let worker_concurrency = reader.number_or(
            "limits.worker_concurrency",
            1..=10_000,
            (8 * cores).clamp(32, 10_000),
        );
        let queue = reader.number("limits.queue", 0..=10_000);
        let max_slo_bid = reader.number("limits.max_slo_bid", 0..=1_000_000);
        let caller_rate = reader.number("limits.caller_rate", 0..=1_000_000);
        let as_rate = caller_rate.unwrap_or_default().max(1);
        let caller_burst = reader.number_or("limits.caller_burst", 1..=1_000_000, as_rate);
        let caller_concurrency = reader.number("limits.caller_concurrency", 0..=10_000);
        let address_connections = reader.number("limits.address_connections", 1..=4096);
        if let (Some(concurrency), Some(instances)) = (concurrency, instances)
            && concurrency > instances
        {
            reader.problem(
                "limits.concurrency",
                "must not be more than limits.instances: each invocation needs one",
            );
        }
        if let (Some(header), Some(uri)) = (header, uri)
            && uri > header
        {
            reader.problem(
                "limits.uri_bytes",
                "must not be more than limits.header_bytes, of which it is a part",
            );
        }
        Some(Self {
            memory: memory?,
            max_memory: max_memory?,
            max_cpu_shares: u32::try_from(max_cpu_shares?).ok()?,
            wall: wall?,
            cpu: cpu?,
            tmp: tmp?,
            max_tmp: max_tmp?,
            tmp_files: tmp_files?,
            gpu: gpu?,
            max_gpu: max_gpu?,
            input: input?,
            output: output?,
            hostcall: hostcall?,
            hostcalls: hostcalls?,
            network_mbps: u32::try_from(network_mbps?).ok()?,
            state: state?,
            max_state: max_state?,
            component: component?,
            compile: compile?,
            compile_memory: compile_memory?,
            artifact: artifact?,
            cache: cache?,
            header: header?,
            uri: uri?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            instances: u32::try_from(instances?).ok()?,
            concurrency: usize::try_from(concurrency?).ok()?,
            worker_concurrency: usize::try_from(worker_concurrency?).ok()?,
            queue: usize::try_from(queue?).ok()?,
            max_slo_bid: u32::try_from(max_slo_bid?).ok()?,
            caller_rate: u32::try_from(caller_rate?).ok()?,
            caller_burst: u32::try_from(caller_burst?).ok()?,
            caller_concurrency: usize::try_from(caller_concurrency?).ok()?,
            address_connections: usize::try_from(address_connections?).ok()?,
        })
    }
}

impl IdempotencySettings {
    fn read(reader: &mut Reader) -> Option<Self> {
        let ttl = reader.milliseconds("idempotency.ttl_ms", 1..=30 * 86_400_000);
        // Whatever else is kept, one answer of the longest kind finds room.
        let max = reader.mebibytes("idempotency.max_mb", 16..=u64::from(u32::MAX));
        let max_answer = reader
            .number("idempotency.max_answer_bytes", 1024..=15 << 20)
            .map(ByteCount::bytes);
        Some(Self {
            ttl: ttl?,
            max: max?,
            max_answer: max_answer?,
        })
    }
}

/// The weights that a worker may have.
fn cpu_shares() -> RangeInclusive<u64> {
    u64::from(*CPU_SHARES.start())..=u64::from(*CPU_SHARES.end())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A line of TOML that says the same, with the origin as its comment.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {}  # {}",
            self.key,
            self.value,
            self.origin.to_string().escape_debug()
        )
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
