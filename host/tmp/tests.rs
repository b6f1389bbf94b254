use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_tree_deeper_than_any_path_is_removed_and_links_are_not_followed() {
    let base = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let parent = File::open(base.path()).unwrap();
    let mut dir = tree::make(&parent, "deep".as_ref()).unwrap();
    fs::write(base.path().join("deep/.lifted-1"), "").unwrap();
    symlink(outside.path(), base.path().join("deep/link")).unwrap();
    for level in 0..3000 {
        let sibling = format!("a-rather-long-name-{level}");
        dir = tree::make(&dir, sibling.as_ref()).unwrap();
    }
    tree::remove(&parent, "deep".as_ref()).unwrap();
    assert!(!base.path().join("deep").exists());
    assert!(outside.path().join("kept").exists());
}

#[test]
fn a_sweep_removes_what_nobody_holds_and_nothing_else() {
    let base = tempfile::tempdir().unwrap();
    let live = spool(base.path());
    let (scratch, _) = live.make().unwrap();
    let dead = base.path().join(format!("{PREFIX}dead"));
    fs::create_dir_all(dead.join("0/some/where")).unwrap();
    fs::create_dir(base.path().join("of-someone-else")).unwrap();
    sweep(base.path()).unwrap();
    while dead.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    let left = || base.path().read_dir().unwrap().count();
    // The gate, the live host's directory and the stranger's.
    assert_eq!(left(), 3);
    drop(scratch);
    finish();
    assert_eq!(left(), 2);
}
