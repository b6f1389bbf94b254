//! Child processes: a clean environment, and their output line by line while they run.

use std::env;
use std::ffi::OsStr;
use std::io::{BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::BuildError;

/// What is seen of a running process.
pub(super) enum Seen<'a> {
    Out(&'a str),
    /// A line of stderr; a carriage return ends one too, so that progress bars can be read.
    Err(&'a str),
    /// Nothing was said for a while; time to look how far the process is.
    Quiet,
}

/// A process that has ended, and all that it said.
pub(super) struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Cargo's variables that a user sets to reach crates; every other `CARGO_…` is either left over from
/// a `cargo run` or `cargo test` around us, or would change what is built.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
];

/// A command whose result does not depend on variables that happen to be set. `RUSTUP_TOOLCHAIN`
/// stays, since it says which toolchain is the active one.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        let of_cargo = name_text.starts_with("CARGO_") || name_text.starts_with("__CARGO");
        let of_rustc = name_text.starts_with("RUSTC") || name_text.ends_with("RUSTFLAGS");
        let kept = KEPT.iter().any(|prefix| name_text.starts_with(prefix));
        if (of_cargo && !kept) || of_rustc || name_text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    // Some of the output is read by us.
    command.env("LC_ALL", "C");
    command
}

/// The cargo that drives everything: the one that runs us, or the one on the PATH.
pub(super) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end and hands on what it says.
pub(super) fn watch(
    command: &mut Command,
    see: &mut dyn FnMut(Seen<'_>),
) -> Result<ExitStatus, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let cannot_run = |source| BuildError::CannotRun {
        program: program.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;

    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || read_lines(stdout, &sender, false));
    }
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || read_lines(stderr, &sender, true));
    }
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok((false, line)) => see(Seen::Out(&line)),
            Ok((true, line)) => see(Seen::Err(&line)),
            Err(RecvTimeoutError::Timeout) => see(Seen::Quiet),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    child.wait().map_err(cannot_run)
}

/// Runs a command to its end and keeps what it says.
pub(super) fn output(command: &mut Command) -> Result<Ended, BuildError> {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let status = watch(command, &mut |seen| match seen {
        Seen::Out(line) => push_line(&mut stdout, line),
        Seen::Err(line) => push_line(&mut stderr, line),
        Seen::Quiet => {}
    })?;
    Ok(Ended {
        status,
        stdout,
        stderr,
    })
}

/// Like [`output`], and a failing exit is an error that carries what was said.
pub(super) fn succeed(command: &mut Command, what: &str) -> Result<Ended, BuildError> {
    let ended = output(command)?;
    if ended.status.success() {
        Ok(ended)
    } else {
        Err(BuildError::failed(what, ended.stderr.trim_end()))
    }
}

pub(super) fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn read_lines(stream: impl Read, sender: &Sender<(bool, String)>, is_stderr: bool) {
    let mut line = Vec::new();
    let mut bytes = BufReader::new(stream).bytes();
    loop {
        let byte = bytes.next().and_then(Result::ok);
        if let Some(byte) = byte.filter(|byte| !matches!(byte, b'\n' | b'\r')) {
            line.push(byte);
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let unheard = !line.is_empty() && sender.send((is_stderr, text)).is_err();
        if byte.is_none() || unheard {
            return;
        }
        line.clear();
    }
}
