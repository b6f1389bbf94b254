//! The files of a directory of policies, read whole and within bounds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// Files of one kind.
const FILES: usize = 256;
/// Bytes of one policy.
const POLICY: u64 = 1 << 20;
/// Bytes of one file of data.
const DATA: u64 = 16 << 20;

/// What an operator has written.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Policies: path as it is told, text.
    pub policies: Vec<(PathBuf, String)>,
    /// `data/NAME.json` by its name, under which policies see it: `data.NAME`.
    pub data: BTreeMap<String, Value>,
}

/// What changes when one of them is written, moved or replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, u64, u64, Option<SystemTime>, i64, i64)>);

impl Files {
    /// Reads `*.rego` and `data/*.json`.
    pub fn read(dir: &Path) -> Result<(Self, Stamp), String> {
        let stamp = Stamp::of(dir)?;
        let mut files = Self::default();
        for path in listed(dir, "rego")? {
            let text = text(&path, POLICY)?;
            files.policies.push((path, text));
        }
        for path in data(dir)? {
            let text = text(&path, DATA)?;
            let value = serde_json::from_str(&text).map_err(|error| {
                let (line, column) = (error.line(), error.column());
                let path = path.display();
                format!("{path}:{line}:{column}: is not JSON: {error}; correct it there")
            })?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if name == "crank" {
                let path = path.display();
                return Err(format!(
                    "{path}: data.crank is where policies stand; give the file another name"
                ));
            }
            files.data.insert(name.into_owned(), value);
        }
        Ok((files, stamp))
    }

    /// Whether nobody has written anything that a host would ask.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && !self.policies.iter().any(|(path, _)| !is_test(path))
    }
}

impl Stamp {
    pub fn of(dir: &Path) -> Result<Self, String> {
        let mut paths = listed(dir, "rego")?;
        paths.extend(data(dir)?);
        let stamped = |path: PathBuf| {
            let about = path.metadata().ok()?;
            let (ino, size) = (about.ino(), about.size());
            let modified = about.modified().ok();
            Some((path, ino, size, modified, about.ctime(), about.ctime_nsec()))
        };
        Ok(Self(paths.into_iter().filter_map(stamped).collect()))
    }

    /// A file that was written to within this time.
    pub fn fresh(&self, settle: Duration) -> Option<PathBuf> {
        let is_fresh = |modified: &Option<SystemTime>| {
            let age = modified.and_then(|modified| modified.elapsed().ok());
            age.is_some_and(|age| age < settle)
        };
        let mut files = self.0.iter();
        let found = files.find(|(_, _, _, modified, ..)| is_fresh(modified))?;
        Some(found.0.clone())
    }
}

/// Whether a file holds tests, which a host that serves does not read.
pub(super) fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default();
    stem.as_encoded_bytes().ends_with(b"_test")
}

fn data(dir: &Path) -> Result<Vec<PathBuf>, String> {
    match dir.join("data") {
        data if data.is_dir() => listed(&data, "json"),
        _ => Ok(Vec::new()),
    }
}

/// The files of a directory with this ending, not hidden, in the order of their names.
fn listed(dir: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let told = |error: io::Error| format!("{}: {error}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(told)? {
        let path = entry.map_err(told)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let fits = path.extension().is_some_and(|has| has == ending);
        if fits && !name.starts_with(b".") && path.is_file() {
            found.push(path);
        }
    }
    if found.len() > FILES {
        let (dir, count) = (dir.display(), found.len());
        return Err(format!(
            "{dir}: holds {count} files of .{ending}; at most {FILES} are read, so join some"
        ));
    }
    found.sort();
    Ok(found)
}

fn text(path: &Path, most: u64) -> Result<String, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(told)?;
    let read = file
        .take(most + 1)
        .read_to_string(&mut text)
        .map_err(told)?;
    if read as u64 > most {
        let path = path.display();
        return Err(format!("{path}: at most {most} bytes are read"));
    }
    Ok(text)
}
