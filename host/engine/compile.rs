//! Compilation, in a child process.
//!
//! A stranger's component can cost Cranelift minutes and gigabytes, and nothing stops Cranelift from
//! within its own process. So this program starts itself as a compiler: a child that first bounds
//! itself, then reads a component from standard input and writes compiled code to standard output.
//! The bounds are the kernel's; a child that dies of one costs its component its place and the host
//! nothing.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, nice, set_parent_process_death_signal, setrlimit,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{CompileError, image};
use crate::gpu;

/// The hidden command of the program that compiles.
pub const COMMAND: &str = "compile";
/// How much lower the priority of a compiler is than the host's: calls come first.
const NICE: i32 = 10;
/// Wall-clock time of a compiler, in multiples of the CPU time that it may use: a low priority on a
/// busy machine waits long. Meant for a child that does not compute at all.
const PATIENCE: u32 = 10;
/// What is read of a child's last words, in bytes.
const WORDS: u64 = 4 << 10;
/// Exit codes of a compiler: the component is none that this engine runs, its last words say why; or
/// memory was refused to it in a way that it could still tell.
const REFUSED: u8 = 1;
const NO_MEMORY: u8 = 3;
/// The allocator makes memory writable as it is needed: a gigabyte at once would be all that the child has.
const ALLOCATOR: [(&str, &str); 1] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
/// What Rust's runtime says before it aborts because memory was refused. A test holds this.
const ABORTS: &str = "memory allocation of";

/// The compiler, and what compiling one component may cost.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// An executable of this very program.
    pub program: PathBuf,
    /// CPU time of all its threads, rounded up to seconds.
    pub cpu: Duration,
    /// Memory that it may write to, in bytes.
    pub memory: u64,
    /// Compiled code, in bytes.
    pub artifact: u64,
}

/// What a compiler is to do with its input.
#[derive(Clone, Copy, Debug)]
pub enum Job<'a> {
    /// Compile a component.
    Code,
    /// Make of a component one that is initialised.
    Image,
    /// Read a shader that has this entry point.
    Shader(&'a str),
}

impl Job<'_> {
    /// The flag that asks for it.
    fn flag(self) -> Option<String> {
        match self {
            Job::Code => None,
            Job::Image => Some("--image".to_owned()),
            Job::Shader(entry) => Some(format!("--shader={entry}")),
        }
    }

    /// What it says of an input that is none for it.
    const fn refusal(self) -> &'static str {
        match self {
            Job::Code => "does not compile: ",
            Job::Image => "",
            Job::Shader(_) => "cannot be read: ",
        }
    }
}

impl Compiler {
    /// Compiles a component. Dropping the future kills the child.
    pub(super) async fn compile(&self, component: Bytes) -> Result<Vec<u8>, CompileError> {
        self.run(component, Job::Code).await
    }

    /// Initialises a component: a component again, with the state that its `declare` leaves behind.
    pub(super) async fn image(&self, component: Bytes) -> Result<Vec<u8>, CompileError> {
        self.run(component, Job::Image).await
    }

    /// Reads a shader as the host will read it again, and throws the result away: what it costs to read
    /// is not known before. One that is refused is none that costs too much.
    pub(super) async fn read_shader(&self, wgsl: Bytes, entry: &str) -> Result<(), CompileError> {
        match self.run(wgsl, Job::Shader(entry)).await {
            Ok(_) | Err(CompileError::Refused(_)) => Ok(()),
            Err(costly) => Err(costly),
        }
    }

    async fn run(&self, input: Bytes, job: Job<'_>) -> Result<Vec<u8>, CompileError> {
        let mut child = self
            .start(job)
            .map_err(|error| CompileError::Died(format!("no compiler starts: {error}")))?;
        let wall = self.cpu.saturating_mul(PATIENCE);
        let ended = tokio::time::timeout(wall, self.converse(&mut child, input, job)).await;
        // It has ended already, but for one that is over its time or closed its end too early.
        let _ = child.kill().await;
        ended.unwrap_or(Err(CompileError::Wall(wall)))
    }

    fn start(&self, job: Job<'_>) -> io::Result<Child> {
        Command::new(&self.program)
            .arg0("crank")
            .arg(COMMAND)
            .arg(self.cpu_seconds().to_string())
            .arg(self.memory.to_string())
            .args(job.flag())
            .env_clear()
            .envs(ALLOCATOR)
            // A Ctrl-C at the terminal is the host's to answer.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    async fn converse(
        &self,
        child: &mut Child,
        component: Bytes,
        job: Job<'_>,
    ) -> Result<Vec<u8>, CompileError> {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let send = async move {
            if let Some(mut stdin) = stdin {
                // A child that ends before it has read all says why by its status.
                let _ = stdin.write_all(&component).await;
            }
        };
        let cap = self.artifact.saturating_add(1);
        let ((), code, words) = tokio::join!(send, read(stdout, cap), read(stderr, WORDS));
        let lost = |error: io::Error| CompileError::Refused(format!("cannot be compiled: {error}"));
        let code = code.map_err(lost)?;
        if code.len() as u64 > self.artifact {
            return Err(CompileError::Artifact(self.artifact >> 20));
        }
        let status = child.wait().await.map_err(lost)?;
        if status.success() {
            return Ok(code);
        }
        let words = words.unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let line: Vec<&str> = words.split_whitespace().collect();
        Err(self.refusal(job, status, &line.join(" ")))
    }

    /// Which bound it was, where that can be told.
    fn refusal(&self, job: Job<'_>, status: ExitStatus, words: &str) -> CompileError {
        let exit = |code: u8| status.code() == Some(code.into());
        if exit(REFUSED) {
            CompileError::Refused(format!("{}{words}", job.refusal()))
        } else if status.signal() == Some(Signal::XCPU.as_raw()) {
            CompileError::Cpu(self.cpu_seconds())
        } else if exit(NO_MEMORY) || words.contains(ABORTS) {
            CompileError::Memory(self.memory >> 20)
        } else {
            CompileError::Died(format!("{status}; {words}"))
        }
    }

    /// The kernel counts whole seconds.
    fn cpu_seconds(&self) -> u64 {
        self.cpu.as_secs() + u64::from(self.cpu.subsec_nanos() > 0)
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, cap: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(cap).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The child's part: bounds this process, then works from standard input to standard output.
pub fn child(cpu_seconds: u64, memory: u64, job: Job<'_>) -> ExitCode {
    match bound(cpu_seconds, memory)
        .map_err(Into::into)
        .and_then(|()| match job {
            Job::Code => translate(translated),
            Job::Image => translate(image::take),
            Job::Shader(entry) => read_shader(entry),
        }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_out_of_memory(&error) => ExitCode::from(NO_MEMORY),
        Err(error) => {
            // The host may not want all of it.
            let _ = write!(io::stderr(), "{error:#}");
            ExitCode::from(REFUSED)
        }
    }
}

fn bound(cpu_seconds: u64, memory: u64) -> io::Result<()> {
    let limit = |resource, current: u64, maximum: u64| {
        // What this user may have at most, if that is less, holds too and cannot be raised.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let new = Rlimit {
            current: Some(current.min(most)),
            maximum: Some(maximum.min(most)),
        };
        setrlimit(resource, new)
    };
    // A second between the signal that tells and the one that ends for certain.
    limit(Resource::Cpu, cpu_seconds, cpu_seconds.saturating_add(1))?;
    // Memory that can be written to, and not address space: each thread's heap reserves 64 MiB of
    // that, which would make the limit depend on the number of cores.
    limit(Resource::Data, memory, memory)?;
    limit(Resource::Core, 0, 0)?;
    // No orphan goes on computing when the host dies. To the kernel the parent is a thread: one of
    // the runtime's, which live as long as the host.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Two favours that may be refused: calls come first, and where memory runs out, this goes first.
    let _ = nice(NICE);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

fn translate(with: fn(&[u8]) -> wasmtime::Result<Vec<u8>>) -> wasmtime::Result<()> {
    let mut component = Vec::new();
    io::stdin().lock().read_to_end(&mut component)?;
    io::stdout().lock().write_all(&with(&component)?)?;
    Ok(())
}

fn translated(component: &[u8]) -> wasmtime::Result<Vec<u8>> {
    wasmtime::Engine::new(&super::code())?.precompile_component(component)
}

fn read_shader(entry: &str) -> wasmtime::Result<()> {
    let mut wgsl = String::new();
    io::stdin().lock().read_to_string(&mut wgsl)?;
    gpu::read(&wgsl, entry).map_err(wasmtime::Error::msg)
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::OutOfMemory;
    error.is::<wasmtime::OutOfMemory>() || error.downcast_ref().is_some_and(refused)
}
