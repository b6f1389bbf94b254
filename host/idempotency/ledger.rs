//! Where records lie on the disk, whose they are, and who makes room: each of these is one transaction.
//!
//! Beside each record stands an entry in its owner's index by time, and beside those what the owner's take
//! together. What is under way is not touched; that is looked at in the transaction itself, so that no call
//! begins between the look and the removal.

use std::cmp::Reverse;
use std::ops::ControlFlow::{Break, Continue};

use super::Scope;
use crate::state::{Edit, StateError};

/// Records that are looked for at once.
const PAGE: usize = 64;
/// Records that one sweep removes at most: others wait for the same thread.
pub(super) const SWEPT: usize = 1000;
/// Bytes for an owner's sum.
const SUM: u64 = 64;

/// Where one key's record is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    owner: String,
    /// When the key was first used, in milliseconds since 1970.
    at: u64,
    scope: String,
}

impl Place {
    pub fn of(scope: &Scope, at: u64) -> Self {
        Self {
            owner: scope.owner().to_owned(),
            at,
            scope: scope.as_str().to_owned(),
        }
    }

    fn parse(entry: &str) -> Option<Self> {
        let mut parts = entry.split('/').skip(1);
        let owner = parts.next()?.to_owned();
        let at = u64::from_str_radix(parts.next()?, 16).ok()?;
        let scope = parts.next()?.to_owned();
        Some(Self { owner, at, scope })
    }

    fn record(&self) -> String {
        record(&self.scope)
    }

    fn entry(&self) -> String {
        format!("{}{:016x}/{}", index(&self.owner), self.at, self.scope)
    }
}

/// The key of a scope's record.
pub(super) fn record(scope: &str) -> String {
    format!("k/{scope}")
}

/// What the keys of an owner's index begin with; they are ordered by time.
fn index(owner: &str) -> String {
    format!("o/{owner}/")
}

/// What the keys of the owners' sums begin with.
const SUMS: &str = "u/";

fn sum(owner: &str) -> String {
    format!("{SUMS}{owner}")
}

/// Writes a record. Where there is no room, others make it; answers how many.
///
/// # Errors
///
/// Nobody could make room, and nothing was written.
pub(super) fn write(
    edit: &mut Edit<'_, '_>,
    place: &Place,
    bytes: &[u8],
    is_free: &dyn Fn(&str) -> bool,
) -> Result<u64, StateError> {
    let (record, entry) = (place.record(), place.entry());
    let before = edit.size(&record)? + edit.size(&entry)?;
    let after = (record.len() + bytes.len() + entry.len()) as u64;
    let mut evicted = 0;
    if let Some(growth) = after.checked_sub(before).filter(|growth| *growth > 0) {
        let wanted = growth + SUM;
        if edit.free() < wanted {
            evicted = make_room(edit, &place.owner, wanted, is_free)?;
        }
        if edit.free() < wanted {
            return Err(StateError::Quota);
        }
    }
    let used = edit.number(&sum(&place.owner))?;
    edit.set(&record, bytes)?;
    edit.set(&entry, &[])?;
    let used = (used + after).saturating_sub(before);
    edit.set(&sum(&place.owner), used.to_string().as_bytes())?;
    Ok(evicted)
}

/// Throws out what is oldest: of whoever asks for room, if that is more than a fair share; else of those who
/// have more than theirs, who has most first. Answers how many records that were.
fn make_room(
    edit: &mut Edit<'_, '_>,
    owner: &str,
    wanted: u64,
    is_free: &dyn Fn(&str) -> bool,
) -> Result<u64, StateError> {
    let mut others = sums(edit)?;
    others.retain(|(other, _)| other != owner);
    let share = edit.quota() / (others.len() as u64 + 1);
    let own = edit.number(&sum(owner))?;
    // A little more than is needed, so that not each call has to ask.
    let until = wanted + share / 64;
    others.retain(|(_, used)| *used > share && *used >= own);
    let spare: u64 = others.iter().map(|(_, used)| used - share).sum();
    if edit.free() + spare + own < wanted {
        // In vain.
        return Ok(0);
    }
    others.sort_by_key(|(_, used)| Reverse(*used));
    let others = others.iter().map(|(other, _)| (other.as_str(), share));
    let mut victims: Vec<(&str, u64)> = others.collect();
    let at = if own + wanted > share {
        0
    } else {
        victims.len()
    };
    victims.insert(at, (owner, 0));
    let mut evicted = 0;
    for (victim, least) in victims {
        evicted += evict(edit, victim, least, until, is_free)?;
    }
    Ok(evicted)
}

/// Throws out an owner's oldest until so much is free, or the owner has no more than `least`.
fn evict(
    edit: &mut Edit<'_, '_>,
    owner: &str,
    least: u64,
    until: u64,
    is_free: &dyn Fn(&str) -> bool,
) -> Result<u64, StateError> {
    let mut used = edit.number(&sum(owner))?;
    let mut evicted = 0;
    loop {
        let mut oldest = Vec::new();
        edit.each(&index(owner), |entry, _| {
            let place = Place::parse(entry).filter(|place| is_free(&place.scope));
            oldest.extend(place);
            if oldest.len() < PAGE {
                Continue(())
            } else {
                Break(())
            }
        })?;
        if oldest.is_empty() {
            return Ok(evicted);
        }
        for place in &oldest {
            if edit.free() >= until || used <= least {
                return Ok(evicted);
            }
            used = used.saturating_sub(remove(edit, place)?);
            evicted += 1;
        }
    }
}

/// Removes a record, if it is still the one of that time. Answers how many bytes that frees.
pub(super) fn remove(edit: &mut Edit<'_, '_>, place: &Place) -> Result<u64, StateError> {
    let entry = edit.delete(&place.entry())?;
    if entry == 0 {
        return Ok(0);
    }
    let freed = entry + edit.delete(&place.record())?;
    let sum = sum(&place.owner);
    match edit.number(&sum)?.saturating_sub(freed) {
        0 => edit.delete(&sum).map(drop)?,
        used => edit.set(&sum, used.to_string().as_bytes())?,
    }
    Ok(freed)
}

/// Removes what was first used before a time, [`SWEPT`] of it at most. Answers how many records that were.
pub(super) fn sweep(
    edit: &mut Edit<'_, '_>,
    before: u64,
    is_free: &dyn Fn(&str) -> bool,
) -> Result<u64, StateError> {
    let mut old = Vec::new();
    for (owner, _) in sums(edit)? {
        edit.each(&index(&owner), |entry, _| match Place::parse(entry) {
            Some(place) if place.at < before && old.len() < SWEPT => {
                old.extend(is_free(&place.scope).then_some(place));
                Continue(())
            }
            _ => Break(()),
        })?;
    }
    for place in &old {
        remove(edit, place)?;
    }
    Ok(old.len() as u64)
}

/// What the records of each owner take.
fn sums(edit: &mut Edit<'_, '_>) -> Result<Vec<(String, u64)>, StateError> {
    let mut sums = Vec::new();
    edit.each(SUMS, |key, value| {
        let owner = key.strip_prefix(SUMS).unwrap_or_default().to_owned();
        let used = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok());
        sums.push((owner, used.unwrap_or_default()));
        Continue(())
    })?;
    Ok(sums)
}
