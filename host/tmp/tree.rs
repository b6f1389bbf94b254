//! Directories by handle: no path is walked, so no link leads out and no depth is too deep.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Makes a directory that only its owner may enter, and opens it.
pub(super) fn make(parent: &File, name: &OsStr) -> io::Result<File> {
    mkdirat(parent, name, Mode::RWXU)?;
    open(parent, name)
}

/// Opens a directory, and nothing that only leads to one.
pub(super) fn open(parent: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?.into())
}

/// Removes a directory with all that is in it, if it is there.
///
/// A guest may have laid directories in each other ten thousand deep, which neither a path nor a
/// handle for each level reaches: what lies below the second level is lifted to the first.
pub(super) fn remove(parent: &File, name: &OsStr) -> io::Result<()> {
    let top = match open(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        top => top?,
    };
    let mut lifted = 0;
    loop {
        while thin(&top, &mut lifted)? {}
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // An operation that was under way has added to it.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes files and one level of directories; false if there was nothing.
fn thin(top: &File, lifted: &mut u64) -> io::Result<bool> {
    let mut found = false;
    for name in names(top)? {
        let name = name?;
        found = true;
        if !removed(top, &name)? {
            lift(top, &name, lifted)?;
        }
    }
    Ok(found)
}

/// Empties a directory: what cannot be removed at once becomes its sibling.
fn lift(top: &File, name: &OsStr, lifted: &mut u64) -> io::Result<()> {
    let dir = match open(top, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir?,
    };
    for inner in names(&dir)? {
        let inner = inner?;
        if removed(&dir, &inner)? {
            continue;
        }
        loop {
            *lifted += 1;
            match renameat(&dir, &*inner, top, format!(".lifted-{lifted}")) {
                Ok(()) | Err(Errno::NOENT) => break,
                // The guest has used that name.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Removes a file, a link or an empty directory; false if it is a directory with something in it.
fn removed(dir: &File, name: &OsStr) -> io::Result<bool> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn names(dir: &File) -> io::Result<impl Iterator<Item = io::Result<Box<OsStr>>>> {
    let entries = Dir::read_from(dir)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) => {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            (name != "." && name != "..").then(|| Ok(name.into()))
        }
        Err(error) => Some(Err(error.into())),
    }))
}
