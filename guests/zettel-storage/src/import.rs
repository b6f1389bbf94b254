//! Many zettels at once, as JSON lines.

use std::collections::{BTreeMap, BTreeSet};

use crank_worker::Failure;
use serde::Deserialize;
use zettel::{Draft, SlipBox, drawer_of, id_of_path, moment, now};

use crate::change::{Edit, change};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<String>,
    path: Option<String>,
    title: Option<String>,
    body: String,
    #[serde(default)]
    tags: Vec<String>,
    created: Option<String>,
}

/// Keeps all of them, once every line is understood; returns how many were new or changed and how many
/// were not. Cut off, it has kept some of them, each whole; done again, it goes on.
pub fn import(slip_box: &SlipBox, lines: &[u8]) -> Result<(usize, usize), Failure> {
    let mut seen = BTreeSet::new();
    let mut drawers: BTreeMap<u8, Vec<Draft>> = BTreeMap::new();
    for (number, line) in (1..).zip(lines.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let draft = draft(line).and_then(|draft| match seen.insert(draft.id.clone()) {
            true => Ok(draft),
            false => Err(format!("there is a zettel `{}` before it", draft.id)),
        });
        let draft = draft.map_err(|why| {
            let message = format!("line {number}: {why}; nothing was imported");
            Failure::invalid_input("/lines", message).code("bad-line")
        })?;
        drawers.entry(drawer_of(&draft.id)).or_default().push(draft);
    }
    if seen.is_empty() {
        return Err(Failure::invalid_input("/lines", "there is no line").code("empty"));
    }
    let mut imported = 0;
    for drafts in drawers.into_values() {
        let edit = |draft| Edit::Put {
            draft,
            again: false,
        };
        let edits: Vec<_> = drafts.iter().map(edit).collect();
        let done = change(slip_box, &edits, None, now())?;
        imported += done.iter().filter(|done| done.changed).count();
    }
    Ok((imported, seen.len() - imported))
}

fn draft(line: &[u8]) -> Result<Draft, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let id = line.id.as_deref().or(line.path.as_deref().map(id_of_path));
    let id = id.ok_or("it has neither an `id` nor a `path`")?;
    let told = |failure: Failure| failure.message;
    let mut draft = Draft::new(id, line.title.as_deref(), line.body, &line.tags).map_err(told)?;
    let created = line.created.as_deref().map(|text| moment("", text));
    draft.created = created.transpose().map_err(told)?.map(|(begin, _)| begin);
    Ok(draft)
}
