//! Compiled code: loaded, and kept on disk, authenticated.
//!
//! Loading compiled code means running it, so a file is trusted only if a MAC over it, keyed with a
//! secret that only this host's user can read, says that this host wrote it: for this component,
//! this engine and these settings. The file is read whole before the check and loaded from memory
//! after it; a file that is mapped could change in between.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use wasmtime::component::Component;

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;

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
}

impl CodeCache {
    /// Opens the cache in `dir`. A directory that cannot be used costs speed and not service: the
    /// reason goes to the log.
    pub fn open(dir: Option<&Path>, engine: &wasmtime::Engine) -> Self {
        let open = dir.and_then(|dir| {
            Open::new(dir, engine)
                .inspect_err(|error| {
                    tracing::warn!(dir = %dir.display(), %error, "no code cache; components compile at every start");
                })
                .ok()
        });
        Self { open }
    }

    /// Compiled code of this very component, if the cache holds it unaltered.
    pub fn load(&self, engine: &wasmtime::Engine, component: &[u8]) -> Option<Component> {
        let open = self.open.as_ref()?;
        let digest = blake3::hash(component);
        let path = open.path(&digest);
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "code cache entry unreadable; compiling anew");
                return None;
            }
        };
        let Some(code) = open.verified(&digest, &file) else {
            tracing::warn!(path = %path.display(), "code cache entry altered or cut short; compiling anew");
            return None;
        };
        loaded(engine, code)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "code cache entry not loadable; compiling anew");
            })
            .ok()
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
        component: &[u8],
        code: &[u8],
    ) -> wasmtime::Result<Component> {
        let loaded = loaded(engine, code)?;
        if let Some(open) = &self.open
            && let Err(error) = open.store(component, code)
        {
            tracing::warn!(dir = %open.dir.display(), %error, "compiled code not kept; it will be compiled again at the next start");
        }
        Ok(loaded)
    }
}

/// Loads compiled code that is known to be ours.
fn loaded(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` demands bytes that wasmtime made, unaltered; that they are of a compatible
    // engine it checks itself. Two callers have such bytes, in memory of ours where nobody changes
    // them any more. `keep` has them from a child that runs this very program and nothing else, over
    // a pipe that no other process holds. `load` has them from a file whose every byte the MAC
    // covers, made by `store` of what `keep` had, with a key that only this user can read.
    #[allow(unsafe_code)]
    unsafe {
        Component::deserialize(engine, code)
    }
}

impl Open {
    fn new(dir: &Path, engine: &wasmtime::Engine) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let mut digest = Digest(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut digest);
        Ok(Self {
            dir: dir.to_owned(),
            key: key(dir)?,
            engine: *digest.0.finalize().as_bytes(),
        })
    }

    fn path(&self, component: &blake3::Hash) -> PathBuf {
        let mut name = blake3::Hasher::new();
        name.update(component.as_bytes()).update(&self.engine);
        self.dir.join(format!("{}.cwasm", name.finalize().to_hex()))
    }

    /// MAC over component, engine, length and code.
    fn mac(&self, component: &blake3::Hash, code: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(component.as_bytes())
            .update(&self.engine)
            .update(&(code.len() as u64).to_le_bytes())
            .update(code);
        mac.finalize()
    }

    /// The code part of a cache file, if its MAC holds. `blake3::Hash` compares in constant time.
    fn verified<'a>(&self, component: &blake3::Hash, file: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, code) = file.split_first_chunk::<MAC_BYTES>()?;
        (self.mac(component, code) == blake3::Hash::from_bytes(*mac)).then_some(code)
    }

    fn store(&self, component: &[u8], code: &[u8]) -> io::Result<()> {
        let digest = blake3::hash(component);
        // A name of its own, then a rename: no reader ever sees half a file, a crash leaves none.
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(self.mac(&digest, code).as_bytes())?;
        file.write_all(code)?;
        file.persist(self.path(&digest))?;
        Ok(())
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
    let mut fresh = tempfile::NamedTempFile::new_in(dir)?;
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
