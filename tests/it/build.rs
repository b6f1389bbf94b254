//! `crank build`: what comes out of the guest crates, and what is said when nothing can.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crank::toolchain::{BuildError, BuildRequest, Built, build};
use tempfile::TempDir;

/// The compiler's cache and cargo's intermediate files are shared with `crank build`, so that a
/// machine prepares them once.
fn request(guest: &Path, out: &Path) -> BuildRequest {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| env::home_dir().unwrap().join(".cache"));
    BuildRequest {
        crates: vec![guest.to_owned()],
        out: out.to_owned(),
        target_dir: Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .to_owned(),
        cache_dir: cache.join("crank"),
        offline: false,
    }
}

fn build_one(guest: &Path, out: &Path) -> Result<Built, BuildError> {
    let mut built = build(&request(guest, out), &|_| {})?;
    assert_eq!(built.len(), 1);
    Ok(built.remove(0))
}

/// Copies what a checkout holds of the guests: `guests` and the contract beside it.
fn check_out(to: &Path) {
    for part in ["guests", "wit"] {
        copy(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(part),
            &to.join(part),
        );
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A guest without a world and without dependencies, which compiles within a second.
fn tiny_guest(source: &str, manifest_end: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let manifest = format!(
        "[package]\nname = \"tiny-guest\"\nedition = \"2024\"\n[workspace]\n{manifest_end}"
    );
    fs::write(directory.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(directory.path().join("src")).unwrap();
    fs::write(directory.path().join("src/lib.rs"), source).unwrap();
    directory
}

const CDYLIB: &str = "[lib]\ncrate-type = [\"cdylib\"]\n";

#[test]
fn two_checkouts_of_the_same_sources_give_the_same_bytes() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let there = there.path().join("a/longer/path");
    check_out(here.path());
    check_out(&there);

    let first = build_one(
        &here.path().join("guests/hello-world"),
        &here.path().join("out"),
    )
    .unwrap();
    let second = build_one(&there.join("guests/hello-world"), &there.join("out")).unwrap();

    assert!(first.component.ends_with("out/hello-world.wasm"));
    let bytes = fs::read(first.component).unwrap();
    assert_eq!(bytes.len() as u64, first.bytes);
    assert!(
        bytes == fs::read(second.component).unwrap(),
        "the components differ"
    );
    let root = here.path().to_str().unwrap().as_bytes();
    assert!(
        !bytes.windows(root.len()).any(|part| part == root),
        "the checkout's path is in the component"
    );
}

#[test]
fn a_second_build_leaves_the_component_alone() {
    let guest = tiny_guest("", CDYLIB);
    let out = guest.path().join("out");
    let first = build_one(guest.path(), &out).unwrap();
    let written = fs::metadata(&first.component).unwrap().modified().unwrap();

    let second = build_one(guest.path(), &out).unwrap();

    assert!(first.changed);
    assert_eq!(
        second,
        Built {
            changed: false,
            ..first.clone()
        }
    );
    assert_eq!(
        fs::metadata(&first.component).unwrap().modified().unwrap(),
        written
    );
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        1,
        "something else was left in the directory"
    );
}

#[test]
fn a_guest_that_does_not_compile_shows_what_the_compiler_says() {
    let guest = tiny_guest("pub fn f() -> u32 { \"no number\" }", CDYLIB);
    let error = build_one(guest.path(), &guest.path().join("out"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("compiling tiny-guest failed"), "{error}");
    assert!(
        error.contains("mismatched types") && error.contains("src/lib.rs:1"),
        "{error}"
    );
}

#[test]
fn what_is_no_guest_is_refused_with_the_line_to_add() {
    let library = tiny_guest("", "");
    let error = build_one(library.path(), library.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("add `crate-type = [\"cdylib\"]`"), "{error}");

    let empty = TempDir::new().unwrap();
    let error = build_one(empty.path(), empty.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("has no Cargo.toml"), "{error}");
}

#[test]
fn two_guests_of_one_name_are_refused() {
    let (one, other) = (tiny_guest("", CDYLIB), tiny_guest("", CDYLIB));
    let mut request = request(one.path(), one.path());
    request.crates.push(other.path().to_owned());
    let error = build(&request, &|_| {}).unwrap_err().to_string();
    assert!(
        error.contains("tiny-guest.wasm") && error.contains("rename"),
        "{error}"
    );
}

#[test]
fn offline_without_a_compiler_names_both_ways_out() {
    let guest = tiny_guest("", CDYLIB);
    let mut request = request(guest.path(), &guest.path().join("out"));
    request.cache_dir = guest.path().join("empty-cache");
    request.offline = true;
    // A toolchain that has the target needs no download, and the build succeeds.
    if let Err(error) = build(&request, &|_| {}) {
        let error = error.to_string();
        assert!(error.contains("without --offline"), "{error}");
        assert!(
            error.contains("rustup target add wasm32-unknown-unknown"),
            "{error}"
        );
    }
}
