//! How the slip box is changed: one drawer at a time, by compare-and-swap.

use std::collections::BTreeMap;

use crank_worker::Failure;
use zettel::{Draft, Entry, SlipBox, drawer_key, drawer_of, old_key, write_drawer, write_entry};

/// Versions of a zettel's past that are kept.
pub const KEPT: u64 = 100;
/// The longest value that the host takes, in bytes.
const MAX_VALUE: usize = 16 << 20;

/// What is to become of a zettel.
pub enum Edit<'d> {
    /// It says this. Where it says so already, and `again` is not set, nothing happens.
    Put { draft: &'d Draft, again: bool },
    /// It is gone; with `purge` its past as well.
    Delete { id: &'d str, purge: bool },
}

/// What came of it.
pub struct Done {
    /// The zettel's version now.
    pub version: u64,
    pub changed: bool,
}

impl Edit<'_> {
    fn id(&self) -> &str {
        match self {
            Self::Put { draft, .. } => &draft.id,
            Self::Delete { id, .. } => id,
        }
    }
}

/// Changes zettels of one drawer, all or none, each named once. `if_match` is the version that they must
/// have; 0: that they must not be there.
pub fn change(
    slip_box: &SlipBox,
    edits: &[Edit<'_>],
    if_match: Option<u64>,
    now: i64,
) -> Result<Vec<Done>, Failure> {
    let Some(first) = edits.first() else {
        return Ok(Vec::new());
    };
    let bucket = slip_box.bucket();
    let mut done = Vec::new();
    bucket.update(&drawer_key(drawer_of(first.id())), |value| {
        done.clear();
        let drawer = zettel::Drawer::new(value);
        let mut entries = BTreeMap::new();
        for entry in drawer.entries() {
            let entry = entry?;
            entries.insert(entry.id, entry);
        }
        let mut past = Vec::new();
        for edit in edits {
            let before = entries.get(edit.id());
            check(edit.id(), before, if_match)?;
            match next(edit, before, now)? {
                None => done.push(Done {
                    version: before.map_or(0, |entry| entry.version),
                    changed: false,
                }),
                Some(entry) => {
                    let kept = before.filter(|before| before.content.is_some() && keeps(edit));
                    if let Some(kept) = kept {
                        past.push((old_key(kept.id, Some(kept.version)), write_entry(kept)?));
                    }
                    done.push(Done {
                        version: entry.version,
                        changed: true,
                    });
                    entries.insert(entry.id, entry);
                }
            }
        }
        let written = write_drawer(entries.values())?;
        if written.len() > MAX_VALUE {
            let message = format!("there is no room beside the zettel `{}`: what lies with it may have 16 MiB together; split or purge large zettels", first.id());
            return Err(Failure::failed(message).code("drawer-full"));
        }
        // Before its successor, so that there is no moment without it.
        if !past.is_empty() {
            bucket.set_many(&past)?;
        }
        Ok(written)
    })?;
    forget(slip_box, edits, &done)?;
    Ok(done)
}

fn check(id: &str, before: Option<&Entry<'_>>, if_match: Option<u64>) -> Result<(), Failure> {
    let is = before.map_or(0, |entry| {
        entry.content.as_ref().map_or(0, |_| entry.version)
    });
    let message = match if_match {
        None => return Ok(()),
        Some(asked) if asked == is => return Ok(()),
        Some(0) => format!("there is a zettel `{id}` already, at version {is}"),
        Some(asked) if is == 0 => {
            format!("there is no zettel `{id}`, at version {asked} or any other")
        }
        Some(asked) => {
            format!("the zettel `{id}` is at version {is}, not {asked}; retrieve it and try again")
        }
    };
    Err(Failure::conflict(message).code("version-mismatch"))
}

/// What stands in the drawer afterwards; `None`: what stands there now.
fn next<'a>(
    edit: &Edit<'a>,
    before: Option<&Entry<'a>>,
    now: i64,
) -> Result<Option<Entry<'a>>, Failure> {
    let version = before.map_or(1, |entry| entry.version + 1);
    let living = before.filter(|entry| entry.content.is_some());
    match *edit {
        Edit::Put { draft, again } => {
            let created = living.map(|entry| entry.created);
            let created = draft.created.or(created).unwrap_or(now);
            let entry = draft.entry(version, created, now);
            let same = living.is_some_and(|living| {
                living.content == entry.content && living.created == entry.created
            });
            Ok((again || !same).then_some(entry))
        }
        Edit::Delete { id, purge } => match (living, before) {
            (Some(living), _) => Ok(Some(Entry {
                version,
                updated: now,
                content: None,
                ..living.clone()
            })),
            // Only its past is left.
            (None, Some(_)) if purge => Ok(None),
            (None, _) => Err(Failure::not_found(format!("there is no zettel `{id}`"))),
        },
    }
}

fn keeps(edit: &Edit<'_>) -> bool {
    !matches!(edit, Edit::Delete { purge: true, .. })
}

/// Clears away the past that is not kept. A host that dies before leaves it; that harms nothing.
fn forget(slip_box: &SlipBox, edits: &[Edit<'_>], done: &[Done]) -> Result<(), Failure> {
    let bucket = slip_box.bucket();
    let mut keys = Vec::new();
    for (edit, done) in edits.iter().zip(done) {
        if !keeps(edit) {
            // What has been written since is not meant.
            let end = old_key(edit.id(), Some(done.version));
            for key in bucket.keys(&old_key(edit.id(), None)) {
                keys.extend(Some(key?).filter(|key| *key < end));
            }
        } else if done.changed && done.version > KEPT + 1 {
            keys.push(old_key(edit.id(), Some(done.version - KEPT - 1)));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    bucket.delete_many(&keys)
}
