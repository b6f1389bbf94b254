//! The ZIP file around a document, and which of its parts are needed.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use crank_worker::Failure;
use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive, ZipArchiveEntryWayfinder, ZipSliceArchive};

use super::{Xml, attribute, broken, fault, read};
use crate::source;

/// Bytes of the parts, unpacked, all together: a few thousand pages.
const UNPACKED: u64 = 128 << 20;

/// Files in the archive. A document has a few dozen, and one for each picture.
const FILES: usize = 100_000;

/// The files of Compound File Binary Format start so: old Word's, and encrypted ones.
const COMPOUND: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// An archive, and where its files are.
pub struct Package<'a> {
    archive: ZipSliceArchive<&'a [u8]>,
    files: HashMap<String, (CompressionMethod, ZipArchiveEntryWayfinder)>,
    /// Bytes that may still be unpacked.
    left: u64,
}

/// The parts that have text, or say what it is.
pub struct Parts {
    pub document: String,
    pub styles: Option<String>,
    pub numbering: Option<String>,
    pub footnotes: Option<String>,
    pub endnotes: Option<String>,
    /// Title and author.
    pub core: Option<String>,
}

impl<'a> Package<'a> {
    pub fn open(document: &'a [u8]) -> Result<Self, Failure> {
        if document.starts_with(&COMPOUND) {
            return Err(fault(
                "encrypted",
                "the file has a password, or is of Word before 2007; save it as DOCX without a password",
            ));
        }
        let archive =
            ZipArchive::from_slice(document).map_err(|error| broken(&error.to_string()))?;
        let mut files = HashMap::new();
        let mut entries = archive.entries();
        while let Some(entry) = entries
            .next_entry()
            .map_err(|error| broken(&error.to_string()))?
        {
            if files.len() == FILES {
                return Err(too_large());
            }
            // Names that are no UTF-8 are of no part.
            if let Ok(name) = std::str::from_utf8(entry.file_path().as_bytes()) {
                let name = name.trim_start_matches('/').to_ascii_lowercase();
                files.insert(name, (entry.compression_method(), entry.wayfinder()));
            }
        }
        Ok(Self {
            archive,
            files,
            left: UNPACKED,
        })
    }

    /// Follows the relations from the package to the document, and from there to its parts.
    pub fn parts(&mut self) -> Result<Parts, Failure> {
        let root = self.relations("")?;
        let Some(main) = root.get("officeDocument") else {
            return Err(broken("it names no document"));
        };
        let Some(document) = self.part(main)? else {
            return Err(broken(&format!("it has no part {main:?}")));
        };
        let related = self.relations(main)?;
        let mut part = |relations: &HashMap<String, String>, kind: &str| match relations.get(kind) {
            Some(name) => self.part(name),
            None => Ok(None),
        };
        Ok(Parts {
            document,
            styles: part(&related, "styles")?,
            numbering: part(&related, "numbering")?,
            footnotes: part(&related, "footnotes")?,
            endnotes: part(&related, "endnotes")?,
            core: part(&root, "core-properties")?,
        })
    }

    /// To which part each kind of relation leads; the kind is its URL's last word.
    fn relations(&mut self, part: &str) -> Result<HashMap<String, String>, Failure> {
        let (folder, name) = part.rsplit_once('/').unwrap_or(("", part));
        let place = format!("{folder}/_rels/{name}.rels");
        let mut found = HashMap::new();
        let Some(relations) = self.part(&place)? else {
            return Ok(found);
        };
        read(&relations, |event| {
            let Xml::Start("Relationship", tag) = event else {
                return;
            };
            let (Some(kind), Some(target)) = (attribute(tag, "Type"), attribute(tag, "Target"))
            else {
                return;
            };
            let target = match target.strip_prefix('/') {
                Some(absolute) => absolute.to_owned(),
                None => format!("{folder}/{target}"),
            };
            if let Some((_, kind)) = kind.rsplit_once('/') {
                found.entry(kind.to_owned()).or_insert(target);
            }
        })?;
        Ok(found)
    }

    /// A part's text. None if the archive has no such file.
    fn part(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let name = name.trim_start_matches('/').to_ascii_lowercase();
        let Some((method, place)) = self.files.get(&name).copied() else {
            return Ok(None);
        };
        let unreadable = || broken(&format!("{name:?} cannot be unpacked"));
        let entry = self.archive.get_entry(place).map_err(|_| unreadable())?;
        let packed: Box<dyn BufRead + '_> = match method {
            CompressionMethod::STORE => Box::new(entry.data()),
            CompressionMethod::DEFLATE => {
                Box::new(std::io::BufReader::new(DeflateDecoder::new(entry.data())))
            }
            _ => return Err(unreadable()),
        };
        // What the archive claims about sizes is not believed.
        let mut bytes = Vec::new();
        let length = packed
            .take(self.left + 1)
            .read_to_end(&mut bytes)
            .map_err(|_| unreadable())?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(too_large)?;
        // UTF-8, or UTF-16 with a mark: XML in Office has no other.
        Ok(Some(source::decode(&bytes, Some("utf-8"), || None)?.0))
    }
}

fn too_large() -> Failure {
    let message = format!(
        "the document is larger than {} MiB when it is unpacked; divide it",
        UNPACKED >> 20
    );
    fault("too-large", &message)
}
