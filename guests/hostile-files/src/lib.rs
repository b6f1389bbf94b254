//! A worker that does to its files what it is told: the host's tests hold quotas and walls against it.
//!
//! The input is a script; the answer says how each step went. Never serve it.

use std::collections::BTreeMap;

use crank_worker::{Capability, Constraints, Failure, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, DirectoryEntryStream, ErrorCode, OpenFlags, PathFlags,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

#[derive(Deserialize, JsonSchema)]
struct Script {
    steps: Vec<Step>,
}

/// One step. What an operation does not need is left out.
#[derive(Deserialize, JsonSchema)]
#[serde(default)]
struct Step {
    /// What to do.
    op: String,
    /// The preopened directory, or the handle, that paths begin at.
    dir: String,
    path: String,
    /// The second path: of a link, a rename.
    to: String,
    /// The name of a handle: what an open keeps, what others use.
    handle: String,
    /// Flags of an open: create, exclusive, truncate, directory, write, follow.
    flags: Vec<String>,
    /// Where in the file, in bytes.
    at: u64,
    /// How many bytes.
    bytes: u64,
    /// How often the step is done; `{}` in a path is then the number.
    count: u64,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            op: String::new(),
            dir: "/tmp".to_owned(),
            path: String::new(),
            to: String::new(),
            handle: "it".to_owned(),
            flags: Vec::new(),
            at: 0,
            bytes: 0,
            count: 1,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Answer {
    /// `ok`, what was read, or the error code; of a step that is repeated, the first error.
    results: Vec<String>,
}

/// What the script holds open.
#[derive(Default)]
struct Held {
    preopens: Vec<(Descriptor, String)>,
    handles: BTreeMap<String, Descriptor>,
    outputs: BTreeMap<String, OutputStream>,
    kept: Vec<Descriptor>,
    inputs: Vec<InputStream>,
    listings: Vec<DirectoryEntryStream>,
}

type Done = Result<String, ErrorCode>;

fn run(script: Script) -> Result<Answer, Failure> {
    let mut held = Held {
        preopens: get_directories(),
        ..Held::default()
    };
    let mut results = Vec::new();
    for step in &script.steps {
        let mut result = Ok(String::new());
        for number in 0..step.count {
            result = held.step(step, &number.to_string());
            if result.is_err() {
                break;
            }
        }
        results.push(match result {
            Ok(told) if told.is_empty() => "ok".to_owned(),
            Ok(told) => told,
            Err(error) => error.name().to_owned(),
        });
    }
    Ok(Answer { results })
}

impl Held {
    fn step(&mut self, step: &Step, number: &str) -> Done {
        let path = step.path.replace("{}", number);
        let to = step.to.replace("{}", number);
        let dir = || {
            let preopen = self.preopens.iter().find(|(_, name)| *name == step.dir);
            let preopen = preopen.map(|(dir, _)| dir);
            preopen
                .or_else(|| self.handles.get(&step.dir))
                .ok_or(ErrorCode::NoEntry)
        };
        let file = || {
            self.handles
                .get(&step.handle)
                .ok_or(ErrorCode::BadDescriptor)
        };
        let done = |()| String::new();
        match step.op.as_str() {
            "preopens" => Ok(self
                .preopens
                .iter()
                .map(|(_, name)| format!("{name} "))
                .collect()),
            "open" => {
                let opened = open(dir()?, &path, &step.flags)?;
                self.handles.insert(step.handle.clone(), opened);
                Ok(String::new())
            }
            "close" => {
                self.handles.remove(&step.handle);
                self.outputs.remove(&step.handle);
                Ok(String::new())
            }
            // A new handle, a stream, a listing: each is kept until the end.
            "keep" => {
                let opened = open(dir()?, &path, &step.flags)?;
                self.kept.push(opened);
                Ok(String::new())
            }
            "keep_input" => {
                let input = file()?.read_via_stream(0)?;
                self.inputs.push(input);
                Ok(String::new())
            }
            "keep_listing" => {
                let listing = open(dir()?, &path, &["directory".to_owned()])?.read_directory()?;
                self.listings.push(listing);
                Ok(String::new())
            }
            // A small file, closed again.
            "make" => {
                let made = open(dir()?, &path, &["create".to_owned(), "write".to_owned()])?;
                write(&made, 0, step.bytes)
            }
            "write" => write(file()?, step.at, step.bytes),
            "stream" => stream(&file()?.write_via_stream(step.at)?, step.bytes),
            "append" => stream(&file()?.append_via_stream()?, step.bytes),
            // One chunk, and nobody waits for it.
            "write_and_run" => {
                let output = file()?.write_via_stream(step.at)?;
                let written = output
                    .check_write()
                    .and_then(|_| output.write(&vec![7; step.bytes as usize]));
                self.outputs.insert(step.handle.clone(), output);
                written.map(done).map_err(told)
            }
            "set_size" => file()?.set_size(step.bytes).map(done),
            "size" => Ok(file()?.stat()?.size.to_string()),
            "mkdir" => dir()?.create_directory_at(&path).map(done),
            "symlink" => dir()?.symlink_at(&to, &path).map(done),
            "link" => dir()?
                .link_at(PathFlags::empty(), &path, dir()?, &to)
                .map(done),
            "rename" => dir()?.rename_at(&path, dir()?, &to).map(done),
            "rename_from" => {
                let from = self.preopens.iter().find(|(_, name)| *name == step.to);
                let (from, _) = from.ok_or(ErrorCode::NoEntry)?;
                from.rename_at(&path, dir()?, &path).map(done)
            }
            "unlink" => dir()?.unlink_file_at(&path).map(done),
            "rmdir" => dir()?.remove_directory_at(&path).map(done),
            "read" => {
                let (bytes, _) = open(dir()?, &path, &["follow".to_owned()])?.read(1 << 20, 0)?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            "list" => {
                let entries = open(dir()?, &path, &["directory".to_owned()])?.read_directory()?;
                let mut names = Vec::new();
                while let Some(entry) = entries.read_directory_entry()? {
                    names.push(entry.name);
                }
                names.sort();
                Ok(names.join(" "))
            }
            // One directory in the other.
            "deep" => {
                let parent = self.handles.get("deep").map_or_else(dir, Ok)?;
                parent.create_directory_at("d")?;
                let inner = open(parent, "d", &["directory".to_owned()])?;
                self.handles.insert("deep".to_owned(), inner);
                Ok(String::new())
            }
            // So many milliseconds.
            "wait" => {
                subscribe_duration(step.bytes * 1_000_000).block();
                Ok(String::new())
            }
            _ => Err(ErrorCode::Unsupported),
        }
    }
}

fn open(dir: &Descriptor, path: &str, flags: &[String]) -> Result<Descriptor, ErrorCode> {
    let mut path_flags = PathFlags::empty();
    let mut open = OpenFlags::empty();
    let mut mode = DescriptorFlags::READ;
    for flag in flags {
        match flag.as_str() {
            "create" => open |= OpenFlags::CREATE,
            "exclusive" => open |= OpenFlags::EXCLUSIVE,
            "truncate" => open |= OpenFlags::TRUNCATE,
            "directory" => open |= OpenFlags::DIRECTORY,
            "write" => mode |= DescriptorFlags::WRITE,
            "follow" => path_flags |= PathFlags::SYMLINK_FOLLOW,
            _ => return Err(ErrorCode::Unsupported),
        }
    }
    dir.open_at(path_flags, path, open, mode)
}

fn write(file: &Descriptor, mut at: u64, mut left: u64) -> Done {
    let chunk = vec![7; (64 << 10).min(left) as usize];
    while left > 0 {
        let len = left.min(chunk.len() as u64);
        let written = file.write(&chunk[..len as usize], at)?;
        (at, left) = (at + written, left - written);
    }
    Ok(String::new())
}

fn stream(output: &OutputStream, mut left: u64) -> Done {
    while left > 0 {
        let len = left.min(4096);
        let written = output.blocking_write_and_flush(&vec![7; len as usize]);
        written.map_err(told)?;
        left -= len;
    }
    Ok(String::new())
}

fn told(error: StreamError) -> ErrorCode {
    match error {
        StreamError::Closed => ErrorCode::Pipe,
        StreamError::LastOperationFailed(_) => ErrorCode::Io,
    }
}

fn hostile_files() -> Worker {
    let quota = Constraints {
        tmp_storage_mb: Some(1),
        model_storage_mb: Some(1),
        ..Constraints::default()
    };
    Worker::new("worker-hostile-files")
        .offers(capability("one_megabyte").constraints(quota))
        .offers(capability("by_default"))
}

fn capability(name: &'static str) -> Capability {
    Capability::new("misbehave_files", name, "1.0.0", run)
        .description("Does to its files what the script says. For tests.")
        .required_capabilities(&["wasi:filesystem/types", "wasi:filesystem/preopens"])
}

crank_worker::worker!(hostile_files);
