//! Adding and removing documents.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crank_worker::{Failure, log};

use crate::segment::{Documents, Draft};
use crate::store::{Index, Manifest, damaged};
use crate::upkeep::{newest, upkeep};

/// `vector_index_mb`, in bytes.
pub const QUOTA: u64 = crate::VECTOR_INDEX_MB as u64 * (1 << 20);
/// What documents may take: the rest is for merging, which writes before it deletes.
const FULL: u64 = QUOTA / 4 * 3;
/// Adds documents; those with the same ids are replaced. Returns when they can be found.
pub fn add(index: &Index, draft: &Draft, ids: &HashSet<&str>) -> Result<(), Failure> {
    let id = index.reserve()?;
    let written = write(index, draft, ids, id);
    if written.is_err() {
        // The first failure is the one to be told.
        let _kept = index.abandon(id);
    }
    written?;
    // The documents are in; what follows makes searching better and may as well happen next time.
    if let Err(failure) = upkeep(index) {
        log::warn!("the index is not tidied: {failure:?}");
    }
    Ok(())
}

fn write(index: &Index, draft: &Draft, ids: &HashSet<&str>, id: u64) -> Result<(), Failure> {
    let (segment, blobs) = index.steady(|manifest| {
        let Some(model) = newest(index, manifest)? else {
            return Ok(None);
        };
        let written = draft.write(id, model.as_ref().map(|(id, model)| (*id, model)))?;
        room(manifest, written.0.bytes)?;
        Ok(Some(written))
    })?;
    index.put(blobs)?;
    let mut found = Found::default();
    index.change(|manifest| {
        room(manifest, segment.bytes)?;
        let Some(buried) = found.places(index, manifest, ids)? else {
            return Ok(None);
        };
        if !manifest.release(id) {
            return Err(Failure::unavailable(
                Duration::from_secs(1),
                "too many others index at once; try again",
            ));
        }
        bury(manifest, &buried);
        manifest.segments.push(segment.clone());
        Ok(Some(()))
    })
}

fn room(manifest: &Manifest, bytes: u64) -> Result<(), Failure> {
    let there = manifest.bytes();
    if there.saturating_add(bytes) <= FULL {
        return Ok(());
    }
    let message = format!(
        "the index is full: {} MiB of {} are taken and this needs {} KiB; delete documents",
        there >> 20,
        FULL >> 20,
        bytes.div_ceil(1 << 10)
    );
    Err(Failure::failed(message).code("index-full"))
}

/// Removes documents; returns how many of them were there.
pub fn delete(index: &Index, ids: &HashSet<&str>) -> Result<usize, Failure> {
    let mut found = Found::default();
    let deleted = index.change(|manifest| {
        let Some(places) = found.places(index, manifest, ids)? else {
            return Ok(None);
        };
        Ok(Some(bury(manifest, &places)))
    })?;
    if let Err(failure) = upkeep(index) {
        log::warn!("the index is not tidied: {failure:?}");
    }
    Ok(deleted)
}

/// A segment's number, and documents of it.
type Places = (u64, Vec<u32>);

/// Where documents are, by segment: what is in a segment never changes, so it is read once.
#[derive(Default)]
struct Found(HashMap<u64, Vec<u32>>);

impl Found {
    /// None if a segment is gone.
    fn places(
        &mut self,
        index: &Index,
        manifest: &Manifest,
        ids: &HashSet<&str>,
    ) -> Result<Option<Vec<Places>>, Failure> {
        let mut places = Vec::new();
        for segment in &manifest.segments {
            let here = match self.0.entry(segment.id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let Some(blob) = index.get(&segment.documents_key())? else {
                        return Ok(None);
                    };
                    let documents: Documents<'_> = postcard::from_bytes(&blob).map_err(damaged)?;
                    let here = (0..)
                        .zip(&documents.ids)
                        .filter(|(_, id)| ids.contains(**id));
                    unknown.insert(here.map(|(document, _)| document).collect())
                }
            };
            if !here.is_empty() {
                places.push((segment.id, here.clone()));
            }
        }
        Ok(Some(places))
    }
}

fn bury(manifest: &mut Manifest, places: &[Places]) -> usize {
    let mut buried = 0;
    for segment in &mut manifest.segments {
        let id = segment.id;
        for (_, documents) in places.iter().filter(|(place, _)| *place == id) {
            buried += segment.bury(documents);
        }
    }
    buried
}
