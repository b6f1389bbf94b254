//! The worker that keeps zettels, notes that link to each other: `store:zettel`.
//!
//! How they lie in the state, and why a crash leaves none half there, says the crate `zettel`.

mod change;
mod import;
#[cfg(test)]
mod tests;

use change::{Done, Edit, KEPT, change};
use crank_worker::{Bytes, Capability, Failure, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zettel::{
    Content, Draft, Drawer, SlipBox, compact, drawer_of, moment, now, old_key, profile, rfc3339,
};

/// What is done.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Op {
    /// Makes a zettel or replaces what it says: `title`, `body`, perhaps `id`, `tags`, `created`, `if_match`.
    #[default]
    Put,
    /// Takes the zettel `id` away, perhaps with `if_match`. Its history stays, unless `purge`.
    Delete,
    /// The versions that there are of the zettel `id`; with `at` that one, its text as well.
    History,
    /// Keeps all the zettels in `lines`.
    Import,
}

/// A zettel to be kept, or another operation and what it needs.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Input {
    /// What is done; `import` if there are `lines`, else `put`.
    op: Option<Op>,
    /// The zettel: 1 to 200 bytes, none of `[ ] | # / \`. Without one a new zettel gets the moment (UTC) as its id.
    id: Option<String>,
    /// Its title.
    title: Option<String>,
    /// Its text: CommonMark with `[[id]]`, `[[id|label]]` and `#tags`; at most 1 MiB.
    body: Option<String>,
    /// Its tags, beside those in the text.
    tags: Option<Vec<String>>,
    /// When it was made, a date or RFC 3339. By default when it is first kept.
    created: Option<String>,
    /// The version that the zettel must have now, or nothing happens (`conflict`); 0: it must not be there.
    if_match: Option<u64>,
    /// With `delete`: the history goes as well, for good. What the zettel took of the quota is free again.
    purge: bool,
    /// With `history`: this version alone, with its text.
    at: Option<u64>,
    /// With `import`: JSON lines, `{"path"?, "id"?, "title"?, "body", "tags"?, "created"?}` each. The id is `id`
    /// or the name of the file at `path`; without a title the first heading is it. A zettel that says the
    /// same already stays at its version.
    #[schemars(extend("contentMediaType" = "application/x-ndjson"))]
    lines: Option<Bytes>,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Output {
    /// Of `history`.
    History {
        /// The zettel.
        id: String,
        /// Its version now.
        version: u64,
        /// Whether it is deleted.
        deleted: bool,
        /// Its versions, the newest first; at most 100 are kept beside the present one.
        history: Vec<Past>,
    },
    /// Of `put` and `delete`.
    Stored {
        /// The zettel.
        id: String,
        /// Its version now.
        version: u64,
    },
    /// Of `import`.
    Imported {
        /// Zettels that are new or changed.
        imported: usize,
        /// Zettels that said the same already.
        unchanged: usize,
    },
}

/// What a zettel is or was.
#[derive(Debug, Serialize, JsonSchema)]
struct Past {
    /// Which version.
    version: u64,
    /// Its title then.
    title: String,
    /// When it became so (RFC 3339, UTC).
    updated: String,
    /// How long its text was, in bytes.
    bytes: usize,
    /// Its tags then, if one version was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    /// Its text then, if one version was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

fn store(input: Input) -> Result<Output, Failure> {
    let slip_box = SlipBox::open()?;
    let default = if input.lines.is_some() {
        Op::Import
    } else {
        Op::Put
    };
    match input.op.unwrap_or(default) {
        Op::Put => put(&slip_box, input),
        Op::Delete => {
            let id = named(&input)?;
            let edit = Edit::Delete {
                id: &id,
                purge: input.purge,
            };
            let done = change(&slip_box, &[edit], input.if_match, now())?;
            Ok(stored(id, &done))
        }
        Op::History => history(&slip_box, named(&input)?, input.at),
        Op::Import => {
            let lines = input.lines.ok_or_else(|| missing("/lines", "import"))?;
            let (imported, unchanged) = import::import(&slip_box, &lines)?;
            Ok(Output::Imported {
                imported,
                unchanged,
            })
        }
    }
}

fn put(slip_box: &SlipBox, input: Input) -> Result<Output, Failure> {
    let title = input.title.ok_or_else(|| missing("/title", "put"))?;
    let body = input.body.ok_or_else(|| missing("/body", "put"))?;
    let created = input
        .created
        .as_deref()
        .map(|text| moment("/created", text));
    let created = created.transpose()?;
    let mut now = now();
    let given = input.id.is_some();
    let id = input.id.unwrap_or_else(|| compact(now));
    let mut draft = Draft::new(&id, Some(&title), body, &input.tags.unwrap_or_default())?;
    draft.created = created.map(|(begin, _)| begin);
    if given {
        let edit = Edit::Put {
            draft: &draft,
            again: true,
        };
        let done = change(slip_box, &[edit], input.if_match, now)?;
        return Ok(stored(draft.id, &done));
    }
    if input.if_match.is_some_and(|version| version > 0) {
        let message = "a zettel without an id is a new one, which has no version yet";
        return Err(Failure::invalid_input("/if_match", message));
    }
    loop {
        let edit = Edit::Put {
            draft: &draft,
            again: true,
        };
        match change(slip_box, &[edit], Some(0), now) {
            // Another was made in this very millisecond.
            Err(failure) if failure.code.as_deref() == Some("version-mismatch") => {
                now += 1;
                draft.id = compact(now);
            }
            Err(failure) => return Err(failure),
            Ok(done) => return Ok(stored(draft.id, &done)),
        }
    }
}

fn stored(id: String, done: &[Done]) -> Output {
    let version = done.first().map_or(0, |done| done.version);
    Output::Stored { id, version }
}

fn history(slip_box: &SlipBox, id: String, version: Option<u64>) -> Result<Output, Failure> {
    let drawer = slip_box.drawer(drawer_of(&id))?;
    let Some(entry) = drawer.find(&id)? else {
        return Err(Failure::not_found(format!(
            "there never was a zettel `{id}`"
        )));
    };
    let wanted = |at: u64| version.is_none_or(|version| version == at);
    let mut history = Vec::new();
    if let Some(content) = entry.content.as_ref().filter(|_| wanted(entry.version)) {
        history.push(past(
            entry.version,
            entry.updated,
            content,
            version.is_some(),
        ));
    }
    // Read one by one: together they may be more than one call carries. What a write that was cut off
    // left is not yet the past.
    let first = entry.version.saturating_sub(KEPT);
    for at in (first..entry.version).rev().filter(|at| wanted(*at)) {
        let old = Drawer::new(slip_box.bucket().get(&old_key(&id, Some(at)))?);
        if let Some(old) = old.find(&id)?
            && let Some(content) = &old.content
        {
            history.push(past(old.version, old.updated, content, version.is_some()));
        }
    }
    if let Some(version) = version.filter(|_| history.is_empty()) {
        let message = format!("version {version} of the zettel `{id}` is not there, or no longer");
        return Err(Failure::not_found(message));
    }
    Ok(Output::History {
        version: entry.version,
        deleted: entry.content.is_none(),
        history,
        id,
    })
}

fn past(version: u64, updated: i64, content: &Content<'_>, whole: bool) -> Past {
    Past {
        version,
        title: content.title.to_owned(),
        updated: rfc3339(updated),
        bytes: content.body.len(),
        tags: whole.then(|| content.tags.iter().map(|tag| (*tag).to_owned()).collect()),
        body: whole.then(|| content.body.to_owned()),
    }
}

fn named(input: &Input) -> Result<String, Failure> {
    let id = input.id.as_deref().ok_or_else(|| missing("/id", "this"))?;
    zettel::id(id).ok_or_else(|| Failure::not_found("there is no zettel of such an id"))
}

fn missing(pointer: &str, op: &str) -> Failure {
    let name = pointer.trim_start_matches('/');
    Failure::invalid_input(pointer, format!("`{name}` is missing: {op} needs it"))
}

fn zettel_storage() -> Worker {
    Worker::new("worker-zettel-storage").offers(
        profile(Capability::new("store", "zettel", "1.0.0", store))
            .description("Keeps zettels: Markdown notes with [[links]] and #tags, in versions. Makes, changes and deletes them, tells their history, imports many.")
            .accepts(&["application/json", "application/x-ndjson"])
            .example("A new zettel", r##"{"id": "lighthouse", "title": "Lighthouses", "body": "They warn of [[reefs]]. #sea"}"##)
            .raw_example("Several files", "application/x-ndjson", b"{\"path\": \"notes/reefs.md\", \"body\": \"# Reefs\\n\\nSee [[lighthouse]]. #sea\"}\n", &[])
            .required_capabilities(&["wasi:keyvalue/store[zettel]"]),
    )
}

crank_worker::worker!(zettel_storage);
