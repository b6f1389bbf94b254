//! `crank new`: what it makes builds, passes its test and serves, far from this repository.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cli::{Serving, crank, told};
use crate::support::{dir, run};

/// `crank new NAME` in a directory.
fn new(name: &str, parent: &Path) -> (i32, String, String) {
    told(
        &crank(&["new", "--", name])
            .current_dir(parent)
            .output()
            .unwrap(),
    )
}

/// The files below a directory, as paths from there.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(directory).unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn a_new_worker_builds_passes_its_test_and_serves_as_it_was_printed() {
    let parent = dir();
    let (code, printed, error) = new("word-count", parent.path());
    assert_eq!(code, 0, "{error}");
    let worker = parent.path().join("word-count");

    // Cargo's intermediate files are shared with the other tests, so that a machine makes them once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    symlink(target, worker.join("target")).unwrap();
    let build = ["build", "--out", "workers"];
    let built = crank(&build).current_dir(&worker).output().unwrap();
    let (code, _, error) = told(&built);
    assert_eq!(code, 0, "{error}");

    let check = ["check", "workers", "--require", "faas"];
    let (code, out, _) = told(&crank(&check).current_dir(&worker).output().unwrap());
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("✅ worker-word-count: FaaS\n"), "{out}");

    for arguments in [&["fmt", "--check"][..], &["test", "--quiet"]] {
        let mut cargo = Command::new("cargo");
        cargo.args(arguments).current_dir(&worker);
        cargo.env("CARGO_TARGET_DIR", target.join("guests"));
        let (code, out, error) = told(&cargo.output().unwrap());
        assert_eq!(code, 0, "cargo {arguments:?}: {out}{error}");
    }

    // The call that was printed, at the port that was free.
    let curl = printed.lines().last().unwrap().trim();
    let path = curl.strip_prefix("curl localhost:8080").unwrap();
    let (path, rest) = path.split_once(' ').unwrap();
    let input = rest.split('\'').nth(3).unwrap().to_owned();
    let serving = Serving::start(&worker.join("workers"), &[]);
    let url = format!("{}{path}", serving.1);
    let answer: Value = run(async move {
        let call = reqwest::Client::new().post(url).body(input);
        let call = call.header("content-type", "application/json");
        call.send().await.unwrap().json().await.unwrap()
    });
    assert_eq!(answer, json!({ "words": 4, "longest": "lamp" }));
}

#[test]
fn a_new_worker_has_every_file_of_the_helper_crate_and_the_contract() {
    let parent = dir();
    assert_eq!(new("complete", parent.path()).0, 0);
    let shipped = parent.path().join("complete/crank");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, own) in [("guests/worker", Some("tests")), ("wit", None)] {
        let mut expected = files(&here.join(folder));
        // The helper crate's own tests stay with it.
        expected.retain(|path| own.is_none_or(|own| !path.starts_with(own)));
        assert_eq!(files(&shipped.join(folder)), expected, "{folder}");
        for path in expected {
            let path = Path::new(folder).join(path);
            let text = |root: &Path| fs::read_to_string(root.join(&path)).unwrap();
            assert_eq!(text(&shipped), text(here), "{}", path.display());
        }
    }
}

#[test]
fn a_bad_name_is_refused_with_a_better_one() {
    let parent = dir();
    let long = "x".repeat(58);
    for (name, says) in [
        ("", "no name for a worker"),
        ("Word Count", "try `word-count`"),
        ("word_count", "try `word-count`"),
        ("-x", "try `x`"),
        ("x--y", "try `x-y`"),
        ("3d-models", "try `d-models`"),
        ("../x", "try `x`"),
        ("/tmp/x", "try `tmp-x`"),
        ("wörter", "try `w-rter`"),
        ("語", "a letter first"),
        ("x\ny", "try `x-y`"),
        ("fn", "try `fn-worker`"),
        ("std", "try `std-worker`"),
        ("serde", "try `serde-worker`"),
        (&long, "at most 57 bytes"),
    ] {
        let (code, _, error) = new(name, parent.path());
        assert_eq!(code, 2, "{name:?}: {error}");
        assert!(error.contains(says), "{name:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert_eq!(files(parent.path()), BTreeSet::new(), "nothing was made");
}

#[test]
fn what_is_there_is_never_overwritten_and_a_failure_leaves_nothing() {
    let parent = dir();
    fs::write(parent.path().join("taken"), "mine").unwrap();
    symlink("nowhere", parent.path().join("dangling")).unwrap();
    fs::create_dir(parent.path().join("empty")).unwrap();
    for name in ["taken", "dangling", "empty"] {
        let (code, _, error) = new(name, parent.path());
        assert_eq!(code, 2, "{name}");
        assert!(error.contains("exists; choose another name"), "{error}");
    }
    let mine = fs::read_to_string(parent.path().join("taken")).unwrap();
    assert_eq!(mine, "mine");

    // A program that may not write files of more than two kilobytes fails half-way.
    let script = format!("ulimit -f 4; exec {} new half", env!("CARGO_BIN_EXE_crank"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("trap '' XFSZ; {script}")]);
    let failed = shell.current_dir(parent.path()).output().unwrap();
    let (code, _, error) = told(&failed);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("cannot write"), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3, "{error}");

    assert_eq!(new("made", parent.path()).0, 0);
    let mode = |name: &str| {
        let made = fs::metadata(parent.path().join(name)).unwrap();
        made.permissions().mode()
    };
    assert_eq!(mode("made"), mode("empty"), "as `mkdir` makes it");
}
