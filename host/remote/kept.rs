//! What outlives the host: its registrations, and the id that it was given. One host to a directory.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Registration;
use crate::identity::is_controller_id;

const REGISTRATIONS: &str = "registrations.json";
const CONTROLLER_ID: &str = "controller-id";

/// A place in the state directory, held until dropped.
pub struct Kept {
    dir: PathBuf,
    _lock: File,
}

/// A registration as it lies on the disk.
#[derive(Serialize, Deserialize)]
pub struct Line {
    pub registration: Registration,
    /// The addresses that it was found to mean: a restart looks none up again.
    pub pinned: Vec<SocketAddr>,
    /// Milliseconds since 1970.
    pub expires: u64,
    /// The registrar whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Who registered it as an operator, where that was an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

impl Kept {
    /// Takes the directory, which is made if absent.
    ///
    /// # Errors
    ///
    /// It cannot be written, or another host has it; the text is for the log.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let fail = |reason: String| format!("{}: {reason}", dir.display());
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700);
        make.create(dir).map_err(|error| fail(error.to_string()))?;
        let lock = File::create(dir.join("remotes.lock"));
        let lock = lock.map_err(|error| fail(error.to_string()))?;
        lock.try_lock().map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// The id that this host has where the operator gave it none: made once.
    pub fn controller_id(&self) -> Result<String, String> {
        if let Ok(id) = std::fs::read_to_string(self.dir.join(CONTROLLER_ID))
            && is_controller_id(id.trim())
        {
            return Ok(id.trim().to_owned());
        }
        let id = fresh_controller_id();
        self.replace(CONTROLLER_ID, id.as_bytes())?;
        Ok(id)
    }

    /// What was registered. A file that cannot be read is put aside, and nothing was.
    pub fn load(&self) -> Vec<Line> {
        let path = self.dir.join(REGISTRATIONS);
        let Ok(bytes) = std::fs::read(&path) else {
            return Vec::new();
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            let aside = path.with_extension("json.broken");
            let moved = std::fs::rename(&path, &aside);
            tracing::error!(file = %path.display(), aside = %aside.display(), ?moved, "the registrations are not read: {error}");
            Vec::new()
        })
    }

    /// Writes what is registered, whole or not at all.
    pub fn save(&self, lines: &[Line]) -> Result<(), String> {
        let bytes = serde_json::to_vec(lines).map_err(|error| error.to_string())?;
        self.replace(REGISTRATIONS, &bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.dir.join(name);
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            // The name too is to survive.
            File::open(&self.dir)?.sync_all()
        };
        written().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
    }
}

/// An id that no other host has.
pub fn fresh_controller_id() -> String {
    let random = uuid::Uuid::now_v7().simple().to_string();
    // The end of it is random, the beginning is the time.
    format!("crank-{}", random.get(16..).unwrap_or(&random))
}
