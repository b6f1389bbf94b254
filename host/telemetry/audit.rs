//! The audit log: a line of JSON for each refusal, in a file that is turned over when it is full.
//!
//! Whoever refuses says so with an event of the target `audit`; this room only writes them down.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// Bytes after which the file is turned over.
const FULL: usize = 16 << 20;
/// Files that are kept beside the current one: `FILE.1` is the youngest.
const OLD: usize = 8;
/// For nobody but this user to read.
const MODE: u32 = 0o600;

/// Writes the events of the target `audit` to a file.
///
/// # Errors
///
/// The file cannot be written.
pub fn layer<S>(file: &Path) -> io::Result<impl Layer<S> + use<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_level(false)
        .with_writer(Mutex::new(rotated(file, FULL)?));
    Ok(lines.with_filter(Targets::new().with_target("audit", LevelFilter::INFO)))
}

fn rotated(file: &Path, full: usize) -> io::Result<impl Write + Send + use<>> {
    let mut how = File::options();
    how.read(true).append(true).create(true).mode(MODE);
    // `FileRotate` would pass over a file that it cannot open.
    how.open(file)?;
    Ok(FileRotate::new(
        file,
        AppendCount::new(OLD),
        ContentLimit::BytesSurpassed(full),
        Compression::None,
        Some(how),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_turned_over_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("audit.jsonl");
        let mut log = rotated(&file, 100).expect("it opens");
        for line in 0..2 * OLD {
            writeln!(log, "{line:0120}").expect("it is written");
        }
        let entries = std::fs::read_dir(dir.path()).expect("it is there");
        assert_eq!(entries.count(), 1 + OLD);
        for entry in std::fs::read_dir(dir.path()).expect("it is there") {
            let size = entry.expect("an entry").metadata().expect("a file").len();
            assert!(size <= 121, "{size}");
        }
        assert!(rotated(&dir.path().join("no/such/place"), 100).is_err());
    }
}
