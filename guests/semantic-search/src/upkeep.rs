//! What keeps the index small and its model fresh.

use std::collections::{BTreeMap, HashSet};

use crank_worker::Failure;

use crate::index::QUOTA;
use crate::model::Model;
use crate::segment::{self, Draft, Segment};
use crate::store::{Index, Known, Manifest, damaged};

/// Segments of about the same size that become one. More would slow searches, fewer would write more.
const MERGED: usize = 8;
/// Segments beyond either of these stay as they are.
const MAX_MERGED_BYTES: u64 = QUOTA / 16;
const MAX_MERGED_DOCUMENTS: u32 = 32_768;
/// A first model is learnt from so many documents, and a new one when there are twice as many as the last
/// time, as long as that is done within an invocation.
const FIRST_MODEL: u64 = 8;
const LAST_MODEL: u64 = 65_536;
/// A model is learnt from about so many of the documents.
const SAMPLE: u64 = 4_096;

/// The model for what is written now, if there is one. The outer None: it is gone.
pub fn newest(index: &Index, manifest: &Manifest) -> Result<Option<Option<(u64, Model)>>, Failure> {
    let Some(known) = manifest.models.last() else {
        return Ok(Some(None));
    };
    Ok(index.model(known)?.map(|model| Some((known.id, model))))
}

/// Merges what should be merged, and learns a new model if the documents have become many more.
pub fn upkeep(index: &Index) -> Result<(), Failure> {
    while merge(index)? {}
    learn(index)
}

/// The segments that should become one: those of about the same size, if they are many, or one of which
/// more than half is deleted.
fn mergeable(manifest: &Manifest) -> Vec<u64> {
    let busy: HashSet<u64> = manifest
        .reserved
        .iter()
        .flat_map(|r| r.merging.iter().copied())
        .collect();
    let mut tiers: BTreeMap<u32, Vec<&Segment>> = BTreeMap::new();
    for segment in manifest
        .segments
        .iter()
        .filter(|segment| !busy.contains(&segment.id))
    {
        if segment.live() < segment.documents.div_ceil(2) {
            return vec![segment.id];
        }
        if segment.bytes <= MAX_MERGED_BYTES / 2 && segment.live() <= MAX_MERGED_DOCUMENTS / 2 {
            tiers
                .entry(segment.live().max(1).ilog(MERGED as u32))
                .or_default()
                .push(segment);
        }
    }
    let Some(tier) = tiers.values().find(|tier| tier.len() >= MERGED) else {
        return Vec::new();
    };
    let (mut bytes, mut documents) = (0, 0);
    let fitting = tier.iter().take_while(|segment| {
        bytes += segment.bytes;
        documents += segment.live();
        bytes <= MAX_MERGED_BYTES && documents <= MAX_MERGED_DOCUMENTS
    });
    fitting.map(|segment| segment.id).collect()
}

/// Makes one segment of several; false if there was nothing to do.
fn merge(index: &Index) -> Result<bool, Failure> {
    let parts = mergeable(&index.manifest()?);
    if parts.is_empty() {
        return Ok(false);
    }
    let (id, parts, dead) = index.change(|manifest| {
        let parts = mergeable(manifest);
        let (id, dead) = manifest.reserve(parts.clone());
        Ok(Some((id, parts, dead)))
    })?;
    index.forget(dead)?;
    let merged = merge_into(index, id, &parts);
    if !matches!(merged, Ok(true)) {
        index.abandon(id)?;
        return merged;
    }
    for part in parts {
        index.remove(&Segment::prefix(part))?;
    }
    Ok(true)
}

fn merge_into(index: &Index, id: u64, parts: &[u64]) -> Result<bool, Failure> {
    let manifest = index.manifest()?;
    let parts: Vec<&Segment> = manifest
        .segments
        .iter()
        .filter(|segment| parts.contains(&segment.id))
        .collect();
    let mut draft = Draft::default();
    let mut moved = Vec::new();
    for segment in &parts {
        let Some(places) = draft.absorb(index, segment)? else {
            return Ok(false);
        };
        moved.push(places);
    }
    let Some(model) = newest(index, &manifest)? else {
        return Ok(false);
    };
    let (segment, blobs) = draft.write(id, model.as_ref().map(|(id, model)| (*id, model)))?;
    // Of documents that are all deleted nothing is left to write.
    if segment.documents > 0 {
        index.put(blobs)?;
    }
    index.change(|manifest| {
        let there = parts
            .iter()
            .all(|part| manifest.segments.iter().any(|now| now.id == part.id));
        if parts.is_empty() || !there || !manifest.release(id) {
            return Ok(Some(false));
        }
        let mut segment = segment.clone();
        for (part, moved) in parts.iter().zip(&moved) {
            // Who deleted from a part meanwhile has deleted from the whole.
            let now = manifest.segments.iter().find(|now| now.id == part.id);
            let deleted = now.into_iter().flat_map(|now| &now.deleted);
            let deleted = deleted.filter_map(|document| *moved.get(*document as usize)?);
            segment.bury(&deleted.collect::<Vec<_>>());
        }
        manifest
            .segments
            .retain(|now| !parts.iter().any(|part| part.id == now.id));
        if segment.documents > 0 {
            manifest.segments.push(segment);
        }
        Ok(Some(true))
    })
}

/// Learns a new model if it is time, and gives every segment its vectors.
fn learn(index: &Index) -> Result<(), Failure> {
    let due = |manifest: &Manifest| {
        let documents = manifest.documents();
        (FIRST_MODEL..=LAST_MODEL).contains(&documents) && documents >= 2 * manifest.learnt_from
    };
    if due(&index.manifest()?) {
        // Noted before it is begun: if it cannot be done in time, not every call shall try.
        let claimed = index.change(|manifest| {
            let claimed = due(manifest).then(|| manifest.reserve(Vec::new()));
            if claimed.is_some() {
                manifest.learnt_from = manifest.documents();
            }
            Ok(Some(claimed))
        })?;
        if let Some((id, dead)) = claimed {
            index.forget(dead)?;
            let learnt = learn_as(index, id);
            if !matches!(learnt, Ok(true)) {
                index.abandon(id)?;
                learnt?;
            }
        }
    }
    refresh(index)
}

fn learn_as(index: &Index, id: u64) -> Result<bool, Failure> {
    let model = index.steady(|manifest| sample(index, manifest))?;
    let shards = model.shards();
    let mut known = Known {
        id,
        dimensions: model.dimensions as u32,
        shards,
        bytes: 0,
    };
    let blobs = (0..shards).map(|shard| {
        Ok((
            known.key(shard),
            model.shard(shard, shards).map_err(damaged)?,
        ))
    });
    let blobs: Vec<(String, Vec<u8>)> = blobs.collect::<Result<_, Failure>>()?;
    known.bytes = blobs
        .iter()
        .map(|(key, blob)| (key.len() + blob.len()) as u64)
        .sum();
    index.put(blobs)?;
    index.change(|manifest| {
        let released = manifest.release(id);
        if released {
            manifest.models.push(known.clone());
        }
        Ok(Some(released))
    })
}

/// Learns from some of the documents, evenly over all. None if a segment is gone.
fn sample(index: &Index, manifest: &Manifest) -> Result<Option<Model>, Failure> {
    let every = manifest.documents().div_ceil(SAMPLE).max(1);
    let mut postings: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
    let (mut live, mut taken) = (0_u64, 0_u32);
    for segment in &manifest.segments {
        let places: Vec<Option<u32>> = (0..segment.documents)
            .map(|document| {
                if segment.lacks(document) {
                    return None;
                }
                live += 1;
                (live % every == 0).then(|| {
                    taken += 1;
                    taken - 1
                })
            })
            .collect();
        let there = segment::each_posting(index, segment, |term, at| {
            let at = at.iter().filter_map(|(document, times)| {
                Some(((*places.get(*document as usize)?)?, *times))
            });
            if segment::is_word(term) {
                postings.entry(term.to_owned()).or_default().extend(at);
            }
        })?;
        if !there {
            return Ok(None);
        }
    }
    let postings: Vec<(&str, Vec<(u32, u32)>)> = postings
        .iter_mut()
        .map(|(term, at)| (term.as_str(), std::mem::take(at)))
        .collect();
    Ok(Some(Model::learn(taken as usize, &postings)))
}

/// Gives segments vectors of the newest model, and removes models that no segment uses any more.
fn refresh(index: &Index) -> Result<(), Failure> {
    let manifest = index.manifest()?;
    let behind = |manifest: &Manifest, segment: &Segment| {
        segment.model != manifest.models.last().map(|m| m.id)
    };
    if manifest.models.len() < 2
        && !manifest
            .segments
            .iter()
            .any(|segment| behind(&manifest, segment))
    {
        return Ok(());
    }
    let Some(Some((number, model))) = newest(index, &manifest)? else {
        return Ok(());
    };
    for segment in manifest
        .segments
        .iter()
        .filter(|segment| behind(&manifest, segment))
    {
        let mut postings: Vec<(String, Vec<(u32, u32)>)> = Vec::new();
        if !segment::each_posting(index, segment, |term, at| {
            postings.push((term.to_owned(), at.to_vec()))
        })? {
            continue;
        }
        let postings = postings
            .iter()
            .map(|(term, at)| (term.as_str(), at.as_slice()));
        let vectors = segment::vectors(segment.documents as usize, &model, postings);
        let bytes = vectors.len() as u64;
        let key = segment.vectors_key(number);
        index.put(vec![(key.clone(), vectors)])?;
        // Another may have done the same meanwhile, or have merged the segment away.
        let stays = index.change(|manifest| {
            let now = manifest
                .segments
                .iter_mut()
                .find(|now| now.id == segment.id);
            Ok(Some(now.is_some_and(|now| {
                if now.model == segment.model {
                    now.model = Some(number);
                    now.hot = now.hot - now.vectors + bytes;
                    now.bytes = now.bytes - now.vectors + bytes;
                    now.vectors = bytes;
                }
                now.model == Some(number)
            })))
        })?;
        if !stays {
            index.remove_one(&key)?;
        } else if let Some(old) = segment.model {
            index.remove_one(&segment.vectors_key(old))?;
        }
    }
    let unused = index.change(|manifest| {
        let newest = manifest.models.last().map(|model| model.id);
        let used = |id| {
            Some(id) == newest
                || manifest
                    .segments
                    .iter()
                    .any(|segment| segment.model == Some(id))
        };
        let (used, unused): (Vec<Known>, Vec<Known>) = manifest
            .models
            .iter()
            .cloned()
            .partition(|model| used(model.id));
        manifest.models = used;
        Ok(Some(unused))
    })?;
    unused
        .iter()
        .try_for_each(|model| index.remove(&Known::prefix(model.id)))
}
