//! The command line: one file per command, each a thin layer over the library.
//!
//! Exit codes: 0 done, 1 what was checked or called falls short, 2 usage or configuration.

mod bench;
mod build;
mod cache;
mod check;
mod compile;
mod demo;
mod gpu;
mod invoke;
mod mcp;
mod new;
mod policy;
mod serve;
mod token;

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{self, Config, LogFormat};
use crate::engine::{self, Engine};
use crate::machine::Machine;
use crate::outbox;
use crate::rules::Rules;
use crate::state::State;
use crate::telemetry;
use crate::tmp;

/// A WebAssembly capability host: components in, verbs over HTTP out.
#[derive(Parser)]
#[command(
    name = "crank",
    version,
    after_help = "\
Examples:
  crank demo                                      build the repository's workers, serve them, show real calls
  crank new word-count                            make a worker of your own
  crank build guests/hello-world --out workers    compile a worker to a component
  crank check workers                             what do these workers declare, import and lack?
  crank serve workers                             serve them on 127.0.0.1:8080
  crank policy explain - greet:hello_world        may anybody invoke this, and why?
  crank cache list                                what compiled code is kept?
  crank gpu                                       which GPUs could workers use?
  crank invoke workers greet:hello_world '{\"name\":\"Ada\"}'
  crank bench workers                             what does each cost, and does it keep its promises?
  crank mcp workers                               serve them to an MCP client that starts this itself"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Check(check::Check),
    Invoke(invoke::Invoke),
    Mcp(mcp::Mcp),
    Bench(bench::Bench),
    Build(build::Build),
    New(new::New),
    Gpu(gpu::Gpu),
    Token(token::Token),
    Policy(policy::Policy),
    Cache(cache::Cache),
    #[command(name = engine::COMPILE, hide = true)]
    Compile(compile::Compile),
}

/// Where settings come from, for every command that loads workers.
#[derive(Args)]
struct ConfigArgs {
    /// Configuration file [default: crank.toml in the directory of workers, if there is one]
    #[arg(long, env = "CRANK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of policies [default: policies/ beside the configuration or the workers, if there is one]
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
}

/// Why a command did not do its work, and the exit code that says so.
enum Ended {
    /// What was checked or called falls short.
    Short(String),
    /// The command line, the configuration or the machine does not allow it.
    Usage(String),
}

impl Ended {
    fn usage(error: impl fmt::Display) -> Self {
        Ended::Usage(error.to_string())
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Demo(demo) => demo.run(),
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Invoke(invoke) => invoke.run(),
        Command::Mcp(mcp) => mcp.run(),
        Command::Bench(bench) => bench.run(),
        Command::Build(build) => build.run(),
        Command::New(new) => new.run(),
        Command::Gpu(gpu) => gpu.run(),
        Command::Token(token) => token.run(),
        Command::Policy(policy) => policy.run(),
        Command::Cache(cache) => cache.run(),
        Command::Compile(compile) => return compile.run(),
    };
    tmp::finish();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Short(message)) => {
            if !message.is_empty() {
                eprintln!("crank: {message}");
            }
            ExitCode::from(1)
        }
        Err(Ended::Usage(message)) => {
            eprintln!("crank: {message}");
            ExitCode::from(2)
        }
    }
}

/// The configuration for a directory of workers: flags, then `CRANK_*`, then the file, then defaults.
fn configure(
    dir: Option<&Path>,
    named: Option<&ConfigArgs>,
    flags: &[(&str, String)],
) -> Result<Config, Ended> {
    let file = named.and_then(|named| named.config.as_deref());
    let policies = named.and_then(|named| named.policies.as_deref());
    let policies = policies.map(|policies| ("policies", policies.display().to_string()));
    let flags: Vec<_> = flags.iter().cloned().chain(policies).collect();
    let file = match dir {
        Some(dir) => config::find_file(file, dir),
        None => file.map(Path::to_owned),
    };
    let loaded = Config::load(&flags, file.as_deref(), std::env::vars());
    let mut config = loaded.map_err(Ended::usage)?;
    if config.policies.is_none() {
        let beside = file
            .as_deref()
            .and_then(Path::parent)
            .into_iter()
            .chain(dir);
        let mut beside = beside.map(|dir| dir.join("policies"));
        config.policies = beside.find(|policies| policies.is_dir());
    }
    Ok(config)
}

/// Log lines to standard error: `RUST_LOG` chooses which, `default` where it is not set. Refusals also go
/// to a file of their own, if there is one.
fn log(format: LogFormat, audit: Option<&Path>, default: &str) -> Result<(), Ended> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let audit = audit.map(|file| {
        telemetry::audit_layer(file)
            .map_err(|error| Ended::Usage(format!("audit_log {}: {error}", file.display())))
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(audit.transpose()?)
        .init();
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Ended> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(engine::threads())
        // What guests do with their files runs here, at no cost to their own CPU time: it gets no more
        // threads than calls have.
        .max_blocking_threads(engine::threads())
        // A thread's first random number makes it a generator, which registers with the dynamic loader: behind
        // the lock that this holds while it loads a GPU's driver, and so the first calls would wait for that.
        .on_thread_start(|| {
            uuid::Uuid::now_v7();
            outbox::keep();
        })
        .on_thread_park(outbox::send)
        .on_thread_stop(outbox::send)
        .enable_all()
        .build()
        .map_err(|error| Ended::Usage(format!("cannot start threads: {error}")))
}

/// Where compiled code is kept.
fn code_dir(config: &Config) -> PathBuf {
    config.cache_dir.join("code")
}

fn engine(config: &Config) -> Result<Engine, Ended> {
    // Not by its path, where an update may have put another program meanwhile.
    let settings = engine::Settings::new(&config.limits, "/proc/self/exe");
    let rules = Rules::open(config.policies.as_deref())
        .map_err(|error| Ended::Usage(format!("the policy is broken: {error}")))?;
    let engine = Engine::new(settings, Some(&code_dir(config)))
        .map_err(|error| Ended::Usage(format!("the engine does not start: {error:#}")))?;
    Ok(engine.with_rules(rules))
}

/// What this machine has.
fn machine(config: &Config) -> Result<Machine, Ended> {
    Machine::read(config, &config.tmp_dir).map_err(Ended::usage)
}

/// Takes all the file handles that the system allows: connections and guests' files share them, and
/// the soft limit is for programs that still use `select`.
fn raise_handles() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of open files stays: {error}");
    }
}

/// Engine and configuration, shared by what is loaded with them on this machine.
fn host(config: Config) -> Result<(Engine, Arc<Config>), Ended> {
    raise_handles();
    if let Err(error) = tmp::sweep(&config.tmp_dir) {
        tracing::warn!("{} is not swept: {error}", config.tmp_dir.display());
    }
    let state = State::at(config.state_dir.clone());
    let engine = engine(&config)?.on(machine(&config)?).with_state(state);
    Ok((engine, Arc::new(config)))
}
