//! Compiled code: loaded, and kept on disk, authenticated.
//!
//! Loading compiled code means running it, so a file is trusted only if a MAC over it, keyed with a
//! secret that only this host's user can read, says that this host wrote it: for this component,
//! this engine and these settings. What is checked is a copy in sealed memory, which nobody can change
//! any more, and that is what is mapped: the file itself could change in between.
//!
//! Files appear whole, under their names, by a rename: a crash leaves nothing that is read, and hosts
//! that share a directory do not disturb each other. What was used longest ago goes first where all
//! together are too large.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use wasmtime::component::Component;

use super::code;

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// What is copied and authenticated at once, in bytes: it stays in the core's own cache.
const CHUNK: usize = 64 << 10;
/// What begins the names of files that are being written.
const UNFINISHED: &str = ".unfinished-";
/// The age at which nobody writes such a file any more.
const ABANDONED: Duration = Duration::from_secs(600);

/// What is kept of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Its code.
    Code,
    /// The code of its init snapshot, with the image.
    Snapshot,
    /// Why it has no init snapshot.
    Refusal,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Code, Kind::Snapshot, Kind::Refusal];

    /// As a listing says it, and the file's name ends.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Code => "cwasm",
            Kind::Snapshot => "snapshot",
            Kind::Refusal => "refusal",
        }
    }
}

/// A file of the cache.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its name.
    pub file: String,
    /// What it holds.
    pub kind: Kind,
    /// Its size.
    pub bytes: u64,
    /// When it was written or last read.
    #[serde(skip)]
    pub used: SystemTime,
}

/// Where a component's compiled code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Compiled just now.
    Compiled,
    /// Compiled earlier, by this or another host of the same user.
    Cached,
}

/// A directory of compiled code. Without one (no directory, or an unusable one) nothing is kept.
pub struct CodeCache {
    open: Option<Open>,
}

struct Open {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    /// Digest of what must be equal for code to run: wasmtime's version, its settings, the CPU's
    /// features.
    engine: [u8; 32],
    /// Bytes that all files may take together.
    size: u64,
}

impl CodeCache {
    /// Opens the cache in `dir`, which may take so many bytes. A directory that cannot be used costs
    /// speed and not service: the reason goes to the log.
    pub fn open(dir: Option<&Path>, size: u64, engine: &wasmtime::Engine) -> Self {
        let open = dir.and_then(|dir| {
            Open::new(dir, size, engine)
                .inspect_err(|error| {
                    tracing::warn!(dir = %dir.display(), %error, "no code cache; components compile at every start");
                })
                .ok()
        });
        Self { open }
    }

    /// Compiled code of this very component, if the cache holds it unaltered.
    pub fn load(
        &self,
        engine: &wasmtime::Engine,
        component: &blake3::Hash,
        kind: Kind,
    ) -> Option<Component> {
        let open = self.open.as_ref()?;
        let unusable = |error: wasmtime::Error| {
            let path = open.path(component, kind);
            tracing::warn!(path = %path.display(), %error, "code cache entry not loadable; compiling anew");
        };
        let mut code = code::memory()
            .map_err(|error| unusable(error.into()))
            .ok()?;
        open.read(component, kind, &mut code)?;
        code::mapped(engine, code).map_err(unusable).ok()
    }

    /// Loads code that our compiler has just made of a component, and keeps it. Failure to keep it is
    /// logged: the code at hand works all the same.
    ///
    /// # Errors
    ///
    /// The code is another engine's: the compiler is not of this very program.
    pub(super) fn keep(
        &self,
        engine: &wasmtime::Engine,
        component: &blake3::Hash,
        kind: Kind,
        code: &[u8],
    ) -> wasmtime::Result<Component> {
        let loaded = code::copied(engine, code)?;
        self.store(component, kind, code);
        Ok(loaded)
    }

    /// Why this component has no init snapshot, if that was found out before.
    pub fn refusal(&self, component: &blake3::Hash) -> Option<String> {
        let mut reason = Vec::new();
        let open = self.open.as_ref()?;
        open.read(component, Kind::Refusal, &mut reason)?;
        String::from_utf8(reason).ok()
    }

    /// Keeps the reason, so that it is not found out again, and no snapshot.
    pub(super) fn refuse(&self, component: &blake3::Hash, reason: &str) {
        if let Some(open) = &self.open {
            let _ = fs::remove_file(open.path(component, Kind::Snapshot));
        }
        self.store(component, Kind::Refusal, reason.as_bytes());
    }

    fn store(&self, component: &blake3::Hash, kind: Kind, content: &[u8]) {
        if let Some(open) = &self.open
            && let Err(error) = open.store(component, kind, content)
        {
            tracing::warn!(dir = %open.dir.display(), %error, "compiled code not kept; it will be compiled again at the next start");
        }
    }
}

/// What a directory of compiled code holds, the last used first.
///
/// # Errors
///
/// It cannot be read. One that is not there holds nothing.
pub fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut entries = Vec::new();
    for file in files {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let ending = Path::new(&name).extension().and_then(OsStr::to_str);
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| ending == Some(kind.as_str()));
        // Another host may just have removed it.
        let (Some(kind), Ok(about)) = (kind, file.metadata()) else {
            continue;
        };
        entries.push(Entry {
            file: name,
            kind,
            bytes: about.len(),
            used: about.modified()?,
        });
    }
    entries.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.file.cmp(&b.file)));
    Ok(entries)
}

/// Removes everything that a directory of compiled code holds, but for its key; says how many files and
/// bytes that was. Hosts that run go on: they have loaded what they need.
///
/// # Errors
///
/// A file cannot be removed.
pub fn clear(dir: &Path) -> io::Result<(usize, u64)> {
    sweep(dir, Duration::ZERO)?;
    let entries = entries(dir)?;
    for entry in &entries {
        remove(&dir.join(&entry.file))?;
    }
    Ok((entries.len(), entries.iter().map(|entry| entry.bytes).sum()))
}

/// Removes what was used longest ago until the rest takes no more than so many bytes. What was used last
/// stays, whatever its size.
fn evict(dir: &Path, size: u64) -> io::Result<()> {
    let mut together = 0;
    for (at, entry) in entries(dir)?.iter().enumerate() {
        together += entry.bytes;
        if at > 0 && together > size {
            tracing::debug!(file = entry.file, "code cache entry evicted");
            remove(&dir.join(&entry.file))?;
        }
    }
    Ok(())
}

/// Removes what a host that died has left half written.
fn sweep(dir: &Path, age: Duration) -> io::Result<()> {
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        let file = file?;
        let unfinished = file.file_name().to_string_lossy().starts_with(UNFINISHED);
        let modified = file.metadata().and_then(|about| about.modified());
        let since = modified.map(|modified| modified.elapsed().unwrap_or_default());
        if unfinished && since.is_ok_and(|since| since >= age) {
            remove(&file.path())?;
        }
    }
    Ok(())
}

/// Removes a file that another host may remove at the same time.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Open {
    fn new(dir: &Path, size: u64, engine: &wasmtime::Engine) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let mut digest = Digest(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut digest);
        let open = Self {
            dir: dir.to_owned(),
            key: key(dir)?,
            engine: *digest.0.finalize().as_bytes(),
            size,
        };
        if let Err(error) = sweep(dir, ABANDONED).and_then(|()| evict(dir, size)) {
            tracing::warn!(dir = %dir.display(), %error, "the code cache is not swept");
        }
        Ok(open)
    }

    fn path(&self, component: &blake3::Hash, kind: Kind) -> PathBuf {
        let mut name = blake3::Hasher::new();
        name.update(component.as_bytes()).update(&self.engine);
        let name = name.finalize().to_hex();
        self.dir.join(format!("{name}.{}", kind.as_str()))
    }

    /// MAC over component, engine, kind, length and content, which is still to follow.
    fn mac(&self, component: &blake3::Hash, kind: Kind, length: u64) -> blake3::Hasher {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(component.as_bytes())
            .update(&self.engine)
            .update(&[kind as u8])
            .update(&length.to_le_bytes());
        mac
    }

    /// Copies what a cache file holds, if its MAC does: only then may the copy be looked at.
    fn read(&self, component: &blake3::Hash, kind: Kind, to: &mut impl Write) -> Option<()> {
        let path = self.path(component, kind);
        match self.copy(&path, component, kind, to) {
            Ok(true) => Some(()),
            Ok(false) => {
                tracing::warn!(path = %path.display(), "code cache entry altered or cut short; compiling anew");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "code cache entry unreadable; compiling anew");
                None
            }
        }
    }

    /// Whether the MAC of what was copied holds. A file whose MAC does is used with that.
    /// `blake3::Hash` compares in constant time.
    fn copy(
        &self,
        path: &Path,
        component: &blake3::Hash,
        kind: Kind,
        to: &mut impl Write,
    ) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let Some(length) = file.metadata()?.len().checked_sub(MAC_BYTES as u64) else {
            return Ok(false);
        };
        let mut expected = [0; MAC_BYTES];
        file.read_exact(&mut expected)?;
        let mut mac = self.mac(component, kind, length);
        let mut content = (&mut file).take(length);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = content.read(&mut chunk)?;
            let Some(read @ [_, ..]) = chunk.get(..read) else {
                break;
            };
            mac.update(read);
            to.write_all(read)?;
        }
        let holds = mac.finalize() == blake3::Hash::from_bytes(expected);
        if holds {
            // For the order of eviction alone.
            let _ = file.set_modified(SystemTime::now());
        }
        Ok(holds)
    }

    fn store(&self, component: &blake3::Hash, kind: Kind, content: &[u8]) -> io::Result<()> {
        // A name of its own, then a rename: no reader ever sees half a file.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.dir)?;
        let mut mac = self.mac(component, kind, content.len() as u64);
        file.write_all(mac.update(content).finalize().as_bytes())?;
        file.write_all(content)?;
        // Or a crash of the machine could leave the name without the bytes.
        file.as_file().sync_all()?;
        file.persist(self.path(component, kind))?;
        evict(&self.dir, self.size)
    }
}

/// Reads the secret, or makes it where there is none. Two hosts that start at once agree on one:
/// the file appears whole, under a name that only the first one gets.
fn key(dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = &dir.join("key");
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    // Mode 0600 and never through a link; it takes the key's name only if nobody else has.
    let mut fresh = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempfile_in(dir)?;
    fresh.write_all(&key)?;
    fresh.as_file().sync_all()?;
    match fresh.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
        _ => {}
    }
    read_key(path)?.ok_or_else(|| io::Error::other("the cache's key vanished"))
}

fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    use std::os::unix::fs::MetadataExt;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let about = file.metadata()?;
    if about.mode() & 0o077 != 0 || about.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(
            "the cache's key can be read or changed by other users; delete the cache directory",
        ));
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key)?;
    Ok(Some(key))
}

/// Feeds a `Hash` into blake3: a stable digest where std's hashers give 64 bits.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
