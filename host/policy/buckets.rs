//! Which buckets of the host's state a capability may open: the scopes of `wasi:keyvalue/store`.

use std::collections::BTreeMap;

use crate::capability::{InterfaceEntry, Required};

/// The worker's own bucket, also opened by the empty text.
pub const OWN: &str = "default";
/// The worker's own bucket for an index, with a quota of its own: `vector_index_mb`.
pub const INDEX: &str = "index";

/// What may be done with a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// `[zettel:ro]`
    Read,
    /// `[zettel]`
    Write,
}

/// The buckets that one capability declares, by the name that it opens them by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets(BTreeMap<String, Access>);

impl Buckets {
    /// Reads the scopes of a capability's entries, which have been judged: without a scope the
    /// worker's own two, with one those that it names. Of two entries for a bucket the wider holds.
    pub fn of(required: &[Required]) -> Self {
        let mut buckets = Self::default();
        for required in required {
            let Required::Interface(entry) = required else {
                continue;
            };
            if !is_store(entry) {
                continue;
            }
            if entry.scope.is_empty() {
                buckets.add(OWN, Access::Write);
                buckets.add(INDEX, Access::Write);
            }
            for scope in &entry.scope {
                if let Some((name, access)) = parse(scope) {
                    buckets.add(name, access);
                }
            }
        }
        buckets
    }

    /// What may be done with the bucket that a guest opens by this text, if anything.
    pub fn access(&self, identifier: &str) -> Option<(&str, Access)> {
        let name = if identifier.is_empty() {
            OWN
        } else {
            identifier
        };
        let (name, access) = self.0.get_key_value(name)?;
        Some((name, *access))
    }

    fn add(&mut self, name: &str, access: Access) {
        let known = self.0.entry(name.to_owned()).or_insert(access);
        *known = access.max(*known);
    }
}

/// Whether it is an entry whose scopes are buckets.
pub(super) fn is_store(entry: &InterfaceEntry) -> bool {
    entry.same_package("wasi", "keyvalue")
        && entry
            .interface
            .as_ref()
            .is_none_or(|interface| interface == "store")
}

/// A scope as a bucket: `[a-z][a-z0-9_-]*`, at most 64 bytes, perhaps followed by `:ro`.
fn parse(scope: &str) -> Option<(&str, Access)> {
    let (name, access) = match scope.split_once(':') {
        Some((name, "ro")) => (name, Access::Read),
        Some(_) => return None,
        None => (scope, Access::Write),
    };
    let fits = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    fits.then_some((name, access))
}

/// Why an entry's scopes cannot be granted.
pub(super) enum Wrong {
    /// A scope that names no bucket.
    NoBucket(String),
    /// Shared buckets that the operator does not grant: the entry that would grant them.
    NotGranted(InterfaceEntry),
}

/// Holds the scopes of an entry against the operator's grants. A worker's own buckets need none; that a
/// bucket may be written includes that it may be read.
pub(super) fn judge(entry: &InterfaceEntry, grants: &[InterfaceEntry]) -> Result<(), Wrong> {
    let mut missing = Vec::new();
    for scope in &entry.scope {
        let Some((name, asked)) = parse(scope) else {
            return Err(Wrong::NoBucket(scope.clone()));
        };
        let granted = grants
            .iter()
            .filter(|grant| is_store(grant))
            .flat_map(|grant| &grant.scope)
            .filter_map(|scope| parse(scope))
            .any(|(granted, access)| granted == name && access >= asked);
        if !granted && ![OWN, INDEX].contains(&name) {
            missing.push(scope.clone());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Wrong::NotGranted(InterfaceEntry {
        scope: missing,
        ..entry.clone()
    }))
}
