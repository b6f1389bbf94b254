//! What the workers for zettels share: the slip box in the host's state ([`SlipBox`]), what a zettel's
//! Markdown says ([`Draft`]), words, and dates.
//!
//! The bucket `zettel` holds, and nothing else:
//!
//! * `drawer/00` to `drawer/7f`: the zettels, by a hash of their id, each with what is derived from it
//!   (tags, links, words). A zettel and its index are one value, changed by compare-and-swap: they cannot
//!   disagree, whenever a host dies, and no writer loses another's write.
//! * `old/ID/VERSION`: what a zettel was before. It is written before its successor is and always says the
//!   same, so a write that was cut off leaves nothing that is wrong or to be cleared away.
//!
//! One get and a walk over a hundredth of the zettels finds an id; 128 gets are the whole box.

mod date;
mod draft;
mod entry;
mod markdown;
mod words;

use crank_worker::state::Bucket;
use crank_worker::{Capability, Constraints, Failure};
use schemars::JsonSchema;
use serde::Serialize;

pub use date::{compact, moment, now, rfc3339};
pub use draft::{Draft, MAX_BODY, id_of_path};
pub use entry::{Content, Drawer, Entry, write_drawer, write_entry};
pub use markdown::{id, tag};
pub use words::{Terms, asked};

/// The bucket that the workers share.
const BUCKET: &str = "zettel";
/// Each has one zettel in so many: small enough to be written anew with each change, few enough to be
/// read one after the other.
const DRAWERS: u8 = 128;

/// All zettels.
pub struct SlipBox(Bucket);

impl SlipBox {
    /// Opens it; what the capability may do with it is its declaration's matter.
    pub fn open() -> Result<Self, Failure> {
        Bucket::open(BUCKET).map(Self)
    }

    /// Where it is kept.
    pub fn bucket(&self) -> &Bucket {
        &self.0
    }

    /// One drawer, by its number.
    pub fn drawer(&self, number: u8) -> Result<Drawer, Failure> {
        Ok(Drawer::new(self.0.get(&drawer_key(number))?))
    }

    /// Every drawer's number.
    pub fn numbers() -> std::ops::Range<u8> {
        0..DRAWERS
    }
}

/// What the workers' capabilities have in common.
pub fn profile(capability: Capability) -> Capability {
    capability
        .env_profile("cpu-optimized")
        .constraints(Constraints {
            min_memory_mb: Some(1024),
            max_memory_mb: Some(2048),
            cpu_shares: Some(1024),
            disk_type: Some("ssd"),
            disk_storage_gb: Some(10),
            ..Constraints::default()
        })
}

/// In which drawer a zettel is: FNV-1a of its id, 32 bits.
pub fn drawer_of(id: &str) -> u8 {
    let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    // The remainder is below 128.
    (hash % u32::from(DRAWERS)) as u8
}

/// The key of a drawer.
pub fn drawer_key(number: u8) -> String {
    format!("drawer/{number:02x}")
}

/// The key under which what a zettel was is kept; with `None` what all of its keys begin with.
pub fn old_key(id: &str, version: Option<u64>) -> String {
    let version = version.map_or(String::new(), |version| format!("{version:012}"));
    format!("old/{id}/{version}")
}

/// A zettel as callers see it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Zettel {
    /// Its id.
    pub id: String,
    /// Counts its changes from 1; hand it back as `if_match`.
    pub version: u64,
    /// Its title.
    pub title: String,
    /// Its text, in Markdown.
    pub body: String,
    /// Its tags, those in the text among them; lower case, without the `#`.
    pub tags: Vec<String>,
    /// The ids that its text links to, be they there or not, in the order of the text.
    pub links: Vec<String>,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// When it was changed last.
    pub updated: String,
}

impl Zettel {
    /// What an entry says; `None` if the zettel was deleted.
    pub fn of(entry: &Entry<'_>) -> Option<Self> {
        let content = entry.content.as_ref()?;
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Some(Self {
            id: entry.id.to_owned(),
            version: entry.version,
            title: content.title.to_owned(),
            body: content.body.to_owned(),
            tags: owned(&content.tags),
            links: owned(&content.links),
            created: rfc3339(entry.created),
            updated: rfc3339(entry.updated),
        })
    }
}
