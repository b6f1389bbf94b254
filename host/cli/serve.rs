//! `crank serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgs, Ended};
use crate::admission::Admission;
use crate::api;
use crate::auth::Auth;
use crate::capability::{DiskType, Schema};
use crate::config::{ByteCount, Config};
use crate::engine::Engine;
use crate::gpu::Adapter;
use crate::idempotency::Keys;
use crate::registry::{Registry, Watch};
use crate::remote::Remotes;
use crate::router::Router;
use crate::striped::cores;
use crate::telemetry::Telemetry;

/// Serve a directory of components over HTTP.
///
/// Every *.wasm in DIR is loaded in parallel; one that may not serve is refused and listed in
/// GET /workers with its reasons, the others serve. The directory is watched: what is new or changed is
/// checked and swapped in, what is gone drains (`watch = false` turns that off); SIGHUP and
/// POST /reload look at once. Who calls is asked for where [identity] is configured (docs/identity.md). SIGTERM or Ctrl-C ends it: calls in flight finish within `grace_ms`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank serve target/workers
  crank serve target/workers --listen 127.0.0.1:0        a free port; the log says which
  crank serve target/workers --print-config              what holds, and where it came from
  crank serve --print-host                               what this machine has for workers
  CRANK_LIMITS_MEMORY_MB=64 crank serve target/workers
  curl -d '{\"name\":\"Ada\"}' -H 'content-type: application/json' localhost:8080/invoke/greet/hello_world")]
pub struct Serve {
    /// Directory of components
    #[arg(required_unless_present = "print_host")]
    dir: Option<PathBuf>,
    /// Address to listen on; only loopback binds as long as no [identity] is configured
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// File of remote workers (capabilities.yaml); watched, never written
    #[arg(long, value_name = "FILE")]
    capabilities: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the configuration that holds and where each value came from, then exit
    #[arg(long)]
    print_config: bool,
    /// Print what this machine has for workers and where that was read, then exit
    #[arg(long)]
    print_host: bool,
}

impl Serve {
    pub fn run(self) -> Result<(), Ended> {
        let dir = self.dir.as_deref();
        if let Some(dir) = dir.filter(|dir| !dir.is_dir()) {
            return Err(Ended::Usage(format!(
                "{} is not a directory",
                dir.display()
            )));
        }
        let listen = self
            .listen
            .iter()
            .map(|listen| ("listen", listen.to_string()));
        let file = self.capabilities.iter();
        let file = file.map(|file| ("capabilities", file.display().to_string()));
        let flags: Vec<_> = listen.chain(file).collect();
        let config = super::configure(dir, Some(&self.config), &flags)?;
        if self.print_config {
            for setting in config.settings() {
                println!("{setting}");
            }
            return Ok(());
        }
        let Some(dir) = dir.filter(|_| !self.print_host) else {
            return print_host(&config);
        };
        super::log(config.log, config.audit_log.as_deref(), "info,rmcp=warn")?;
        let runtime = super::runtime()?;
        let ended = runtime.block_on(serve(config, dir));
        // A check that is under way on a thread of its own is not waited for.
        runtime.shutdown_background();
        ended
    }
}

/// A line of TOML for each fact, with its origin as the comment, as `--print-config` does.
fn print_host(config: &Config) -> Result<(), Ended> {
    let machine = super::machine(config)?;
    let set = |key: &str| {
        let setting = config.settings().iter().find(|setting| setting.key == key);
        setting.map_or_else(String::new, |setting| setting.origin.to_string())
    };
    let word = |kind: Option<DiskType>, none: &'static str| kind.map_or(none, DiskType::as_str);
    let mib = |size: ByteCount| size.get() >> 20;
    println!("cores = {}  # those this process may use", machine.cores);
    match &machine.memory {
        Some(memory) => println!("memory_mb = {}  # {}", mib(memory.size), memory.from),
        None => println!("memory_mb = \"unknown\"  # nothing says"),
    }
    let quarters = match config.memory_budget {
        Some(_) => "",
        None => ", three quarters of the memory",
    };
    println!(
        "memory_budget = {}  # {}{quarters}",
        mib(machine.budget),
        set("memory_budget")
    );
    println!(
        "disk = \"{}\"  # {}; advisory",
        word(machine.disk.kind, "unknown"),
        machine.disk.from
    );
    println!(
        "disk_type = \"{}\"  # {}",
        word(machine.disk_type, ""),
        set("disk_type")
    );
    let found = Adapter::find();
    let gpus: Vec<String> = found.iter().map(|gpu| gpu.found.to_string()).collect();
    println!("gpus = {gpus:?}  # those that the drivers offer; see `crank gpu`");
    Ok(())
}

async fn serve(config: Config, dir: &Path) -> Result<(), Ended> {
    let mut stop = Box::pin(stop_signal().map_err(Ended::usage)?);
    // From the first moment on: without a handler it would end the host.
    let hangup = signal(SignalKind::hangup()).map_err(Ended::usage)?;
    // First, since it is quick: a broken file of identities ends the start.
    let auth = Auth::open(&config).map_err(Ended::Usage)?;
    // Before the directory is read, so that no change is missed.
    let watch = config.watch.then(|| Watch::start(dir));
    let (listener, router, config, engine) = tokio::select! {
        ready = ready(config, dir) => ready?,
        // Workers that still compile are left alone: whoever stops a host does not wait for them.
        () = &mut stop => return Ok(()),
    };
    let settings = api::Settings {
        auth,
        ..api::Settings::from(config.as_ref())
    };
    if cores() == 1 {
        let ticker = engine.ticker();
        tokio::spawn(async move { ticker.keep_reserve().await });
    }
    let following = tokio::spawn(follow(router.clone(), watch, hangup));
    let served = tending(
        &router,
        api::serve(listener, router.clone(), settings, stop),
    )
    .await;
    following.abort();
    served.map_err(Ended::usage)?;
    if let Some(state) = engine.state() {
        state.close().await;
    }
    if let Some(keys) = router.keys() {
        keys.close().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Serves, and meanwhile does what has to be done now and then: looks after remote workers, writes down what
/// was measured.
pub async fn tending<T>(router: &Router, serving: impl Future<Output = T>) -> T {
    let telemetry = router.telemetry().clone();
    let served = tokio::select! {
        served = serving => served,
        never = telemetry.tend() => match never {},
        never = router.registry().keep_remote() => match never {},
        never = router.registry().keep_placed() => match never {},
        never = router.registry().keep_snapshots() => match never {},
    };
    // Only a panic ends it early, and that was printed.
    let _ = tokio::task::spawn_blocking(move || telemetry.close()).await;
    served
}

/// Keeps the registry as its directory is: what is watched, and whenever SIGHUP asks.
async fn follow(router: Arc<Router>, watch: Option<Watch>, mut hangup: Signal) {
    let registry = router.registry();
    let watched = async {
        if let Some(watch) = &watch {
            watch.follow(registry).await;
        }
    };
    let asked = async {
        while hangup.recv().await.is_some() {
            tracing::info!("reloading, as SIGHUP asks");
            if let Err(error) = registry.reload().await {
                tracing::error!("what is loaded goes on serving: {error}");
            }
        }
    };
    tokio::join!(watched, asked);
}

/// Everything that can fail, before the first request can come. A worker that asks for a GPU may still be starting.
pub async fn ready(
    config: Config,
    dir: &Path,
) -> Result<(TcpListener, Arc<Router>, Arc<Config>, Engine), Ended> {
    let (router, config, engine) = load(config, dir).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| Ended::Usage(format!("cannot listen on {}: {error}", config.listen)))?;
    let address = listener.local_addr().map_err(Ended::usage)?;
    if let Some(policies) = &config.policies {
        tracing::info!("policies of {} hold", policies.display());
    }
    let scheme = match config.identity.tls {
        Some(_) => "https",
        None => "http",
    };
    tracing::info!("listening on {scheme}://{address}");
    Ok((listener, router, config, engine))
}

/// The same without a socket.
pub async fn load(config: Config, dir: &Path) -> Result<(Arc<Router>, Arc<Config>, Engine), Ended> {
    // While the engine starts.
    tokio::task::spawn_blocking(Schema::warm);
    let (engine, config) = super::host(config)?;
    // First, since it is quick: a broken file of remote workers ends the start.
    let remotes = Remotes::open(&config).map_err(Ended::Usage)?;
    let registry = Registry::open(&engine, &config, dir)
        .await
        .map_err(|error| Ended::Usage(format!("{}: {error}", dir.display())))?;
    let registry = registry.joined_by(remotes);
    let snapshot = registry.snapshot();
    if snapshot.workers().is_empty() && snapshot.starting().is_empty() {
        tracing::warn!(
            "no worker serves: {} holds no component that may",
            dir.display()
        );
    }
    let mut workers = snapshot.workers().iter();
    if let Some(state) = engine
        .state()
        .filter(|_| workers.any(|worker| worker.keeps_state()))
    {
        state.open().await.map_err(Ended::usage)?;
    }
    let budget = engine.budget().clone();
    let admission = Admission::new(config.limits.concurrency, move || budget.is_high());
    // What the pool has beyond the host's slots.
    let reserve = (config.limits.instances as usize).saturating_sub(config.limits.concurrency);
    let admission = admission.with_reserve(reserve);
    let mut telemetry = Telemetry::kept_in(&config.state_dir);
    if let Some(endpoint) = &config.otlp_endpoint {
        telemetry = telemetry.traced(endpoint).map_err(Ended::Usage)?;
    }
    let router = Router::watched(registry, admission, telemetry);
    let keys = config.state_dir.join("idempotency");
    router.keep(Keys::at(keys, &config.idempotency));
    Ok((Arc::new(router), config, engine))
}

/// Resolves at SIGTERM or SIGINT.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new calls, those in flight may finish");
    })
}
