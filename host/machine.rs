//! What this host has, as far as workers ask for it: read once at the start, and kept.
//!
//! Files of the kernel in, facts out, each with the place where it was read. Which worker fits must
//! not enter this room, nor any wasmtime type.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

use crate::capability::{DiskType, GpuType};
use crate::config::{ByteCount, Config};
pub use crate::striped::cores;

/// What this host has. The fields are public, so that a test can place workers on any machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The memory there is, where the kernel tells.
    pub memory: Option<Memory>,
    /// The memory that workers may use: the operator's `memory_budget`, else three quarters of `memory`.
    pub budget: ByteCount,
    /// The disk that workers' files would lie on. Advisory: virtual disks lie about themselves.
    pub disk: Disk,
    /// What the operator says that this disk is; nothing but this refuses a worker.
    pub disk_type: Option<DiskType>,
    /// The GPUs that workers may use; `None`: those that the drivers offer, who are asked when the first
    /// worker wants one.
    pub gpus: Option<Vec<Gpu>>,
}

/// An amount of memory, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// How much.
    pub size: ByteCount,
    /// The file that says so.
    pub from: String,
}

/// A disk as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its kind; `None` where it cannot be known.
    pub kind: Option<DiskType>,
    /// The file that says so, or why none does, and the directory that was meant.
    pub from: String,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its maker.
    pub maker: GpuType,
    /// Its memory.
    pub memory: ByteCount,
}

/// Nothing says how much memory there is, and nobody named a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "neither /proc/meminfo nor a control group says how much memory there is; set `memory_budget`"
)]
pub struct MemoryUnknown;

/// Bytes of memory that this process may use; 0 where nothing says.
pub fn memory() -> u64 {
    memory_under(Path::new("/")).map_or(0, |memory| memory.size.get())
}

impl Machine {
    /// Looks at the machine that this process runs on. Workers' files would lie in `files`, which need
    /// not exist yet.
    ///
    /// # Errors
    ///
    /// There is no memory budget to be had.
    pub fn read(config: &Config, files: &Path) -> Result<Self, MemoryUnknown> {
        Self::read_under(Path::new("/"), config, files)
    }

    /// The same, with the kernel's files under another root.
    fn read_under(root: &Path, config: &Config, files: &Path) -> Result<Self, MemoryUnknown> {
        let memory = memory_under(root);
        let budget = match (config.memory_budget, &memory) {
            (Some(budget), _) => budget,
            (None, Some(memory)) => ByteCount::bytes(memory.size.get() / 4 * 3),
            (None, None) => return Err(MemoryUnknown),
        };
        let (kind, from) = match device(files) {
            Ok((major, minor)) => disk(root, major, minor),
            Err(error) => (None, error.to_string()),
        };
        let disk = Disk {
            kind,
            from: format!("{} of {}", from, files.display()),
        };
        Ok(Self {
            cores: cores(),
            memory,
            budget,
            disk,
            disk_type: config.disk_type,
            gpus: None,
        })
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with {} MiB",
            self.maker.as_str(),
            self.memory.get() >> 20
        )
    }
}

/// The least of the machine's memory and of what each control group above this process allows.
fn memory_under(root: &Path) -> Option<Memory> {
    let mut sizes = cgroup_limits(root);
    sizes.extend(total(root));
    sizes.into_iter().min_by_key(|memory| memory.size)
}

/// `MemTotal` (proc_meminfo(5)), which is in KiB.
fn total(root: &Path) -> Option<Memory> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Memory {
        size: ByteCount::bytes(kib.saturating_mul(1024)),
        from: "MemTotal of /proc/meminfo".to_owned(),
    })
}

/// The memory limits of this process's control group and of all above it, of version 2 and version 1
/// (cgroups(7)). In a container the path may be one that only the outside sees: then the walk upwards
/// ends at what the container sees as the top, which is its own group.
fn cgroup_limits(root: &Path) -> Vec<Memory> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (mounts, file) = match controllers {
            "" => (
                &["sys/fs/cgroup", "sys/fs/cgroup/unified"][..],
                "memory.max",
            ),
            some if some.split(',').any(|controller| controller == "memory") => {
                (&["sys/fs/cgroup/memory"][..], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for mount in mounts.iter().map(|mount| root.join(mount)) {
            let group = mount.join(path.trim_start_matches('/'));
            let groups = group.ancestors().take_while(|up| up.starts_with(&mount));
            limits.extend(groups.filter_map(|group| limit(root, &group.join(file))));
        }
    }
    limits
}

/// What one control group allows; `None` where it sets no limit (`max`).
fn limit(root: &Path, file: &Path) -> Option<Memory> {
    let bytes = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let shown = file.strip_prefix(root).unwrap_or(file);
    Some(Memory {
        size: ByteCount::bytes(bytes),
        from: format!("/{}", shown.display()),
    })
}

/// The device that a directory lies on, or would if it were made.
fn device(files: &Path) -> io::Result<(u32, u32)> {
    let mut found = fs::metadata(files);
    for parent in files.ancestors().skip(1) {
        if found.is_ok() {
            break;
        }
        found = fs::metadata(parent);
    }
    found.map(|metadata| (major(metadata.dev()), minor(metadata.dev())))
}

/// Looks a block device up (sysfs(5), `queue/rotational`). Memory, a network, and file systems that
/// lie on several devices have none.
fn disk(root: &Path, major: u32, minor: u32) -> (Option<DiskType>, String) {
    let name = format!("sys/dev/block/{major}:{minor}");
    let unknown = |why: &str| (None, format!("/{name}, which {why},"));
    let Ok(device) = root.join(&name).canonicalize() else {
        return unknown("does not exist");
    };
    // A partition has no queue of its own: its disk has, one folder up.
    let queue = device.ancestors().take(2).find_map(|disk| {
        let rotational = fs::read_to_string(disk.join("queue/rotational")).ok()?;
        Some((disk.file_name()?.to_string_lossy().into_owned(), rotational))
    });
    let Some((disk, rotational)) = queue else {
        return unknown("has no queue");
    };
    let kind = match rotational.trim() {
        "1" => DiskType::Hdd,
        "0" if disk.starts_with("nvme") => DiskType::Nvme,
        "0" => DiskType::Ssd,
        _ => return unknown("does not say"),
    };
    (Some(kind), format!("/sys/block/{disk}/queue/rotational"))
}

#[cfg(test)]
mod tests;
