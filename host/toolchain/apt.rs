//! Debian packages without root: apt's lists and archives in a directory of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{self, Ended, Seen, command};
use super::{BuildError, Event, Progress, TARGET, Unit, megabytes, step};

/// The compiler, and the source of its standard library.
const WANTED: [&str; 2] = ["rustc-web", "rust-web-src"];
/// What of their dependencies is needed; the rest is the C toolchain, which cargo needs anyway.
const NEEDED: [&str; 2] = ["libstd-rust-web", "libllvm"];

/// apt, on lists and archives that lie in one directory.
pub(super) struct Apt {
    directory: PathBuf,
}

/// A package as apt would download it.
struct Package {
    file: String,
    /// Bytes of the archive.
    size: u64,
}

impl Package {
    /// Reads a line of `--print-uris`: `'http://…' name_version_arch.deb 4450500 SHA256:…`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
        Some(Self {
            file: words.next()?.to_owned(),
            size: words.next()?.parse().ok()?,
        })
    }

    fn name(&self) -> &str {
        self.file.split('_').next().unwrap_or(&self.file)
    }
}

impl Apt {
    /// Fetches the package lists into `directory`.
    pub fn new(directory: &Path, progress: Progress<'_>) -> Result<Self, BuildError> {
        for part in ["lists/partial", "cache/archives/partial", "archives"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).map_err(BuildError::io("create", &part))?;
        }
        let apt = Self {
            directory: directory.to_owned(),
        };
        let file = apt.settings();
        fs::write(&file, settings(directory)).map_err(BuildError::io("write", &file))?;
        step(progress, "reading Debian's package lists", || {
            let update = process::output(apt.get().arg("update"))?;
            // One unreachable source of several is no reason to stop: what counts is what is found.
            if process::output(apt.cache().arg("show").args(WANTED))?
                .status
                .success()
            {
                return Ok(());
            }
            if update.stderr.contains("Failed to fetch") || !update.status.success() {
                return Err(BuildError::failed(
                    "`apt-get update`",
                    update.stderr.trim_end(),
                ));
            }
            Err(BuildError::NoTarget {
                why: format!("this system's packages hold no {}", WANTED.join(" and ")),
            })
        })?;
        Ok(apt)
    }

    /// Downloads the compiler's packages and whatever shared libraries this machine lacks for it;
    /// answers their files.
    pub fn download(&self, progress: Progress<'_>) -> Result<Vec<PathBuf>, BuildError> {
        let names = self.names()?;
        let listed = process::succeed(
            self.get().args(["--print-uris", "download"]).args(&names),
            "`apt-get --print-uris download`",
        )?;
        let packages: Vec<Package> = listed.stdout.lines().filter_map(Package::parse).collect();
        let total = packages.iter().map(|package| package.size).sum();
        let each: Vec<String> = packages
            .iter()
            .map(|package| format!("{} {}", package.name(), megabytes(package.size)))
            .collect();
        progress(Event::Note(&format!(
            "this compiler lacks {TARGET}; Debian's is prepared in a private directory, this once: {}",
            each.join(", ")
        )));
        let what = format!(
            "downloading {} Debian packages, {}",
            packages.len(),
            megabytes(total)
        );
        let archives = self.directory.join("archives");
        step(progress, &what, || {
            let mut errors = String::new();
            let mut download = self.get();
            download.arg("download").args(&names).current_dir(&archives);
            let status = process::watch(&mut download, &mut |seen| match seen {
                Seen::Err(line) => process::push_line(&mut errors, line),
                Seen::Out(_) | Seen::Quiet => progress(Event::Advanced {
                    done: size_of_files(&archives),
                    total,
                    unit: Unit::Bytes,
                }),
            })?;
            if status.success() {
                Ok(())
            } else {
                Err(BuildError::failed("`apt-get download`", errors.trim_end()))
            }
        })?;
        Ok(packages
            .iter()
            .map(|package| archives.join(&package.file))
            .collect())
    }

    /// The packages to fetch: versions are Debian's affair, so the names come from the lists.
    fn names(&self) -> Result<Vec<String>, BuildError> {
        let mut depends = self.cache();
        depends
            .args(["depends", "--recurse", "--important"])
            .args(WANTED);
        let listed = process::succeed(&mut depends, "`apt-cache depends`")?;
        let mut names: Vec<String> = WANTED.map(str::to_owned).to_vec();
        // Unindented lines name the packages of the closure.
        let closure = listed
            .stdout
            .lines()
            .filter(|line| !line.starts_with([' ', '|', '<']));
        names.extend(
            closure
                .filter(|name| NEEDED.iter().any(|needed| name.starts_with(needed)))
                .map(str::to_owned),
        );

        // Shared libraries that the compiler loads and the machine lacks. Where dpkg's database is in
        // disorder apt refuses to answer; the compiler's own start then shows whether one is missing.
        let libraries = names
            .iter()
            .filter(|name| name.starts_with("lib") && !name.ends_with("-dev"));
        let mut install = self.get();
        install
            .args(["--print-uris", "--no-install-recommends", "install"])
            .args(libraries);
        let Ended { stdout, .. } = process::output(&mut install)?;
        names.extend(
            stdout
                .lines()
                .filter_map(Package::parse)
                .map(|package| package.name().to_owned()),
        );
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn settings(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    fn get(&self) -> Command {
        let mut get = command("apt-get");
        get.arg("-c").arg(self.settings());
        get
    }

    fn cache(&self) -> Command {
        let mut cache = command("apt-cache");
        cache.arg("-c").arg(self.settings());
        cache
    }
}

/// apt's settings, read after the system's own, so that proxies and mirrors hold.
fn settings(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "Dir::State::Lists \"{directory}/lists\";\n\
         Dir::Cache \"{directory}/cache\";\n\
         Dir::Cache::Archives \"archives\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         // Hooks that would touch the system: appstream's caches, docker-clean.\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n"
    )
}

/// Unpacks archives side by side into one tree.
pub(super) fn unpack(
    archives: &[PathBuf],
    tree: &Path,
    progress: Progress<'_>,
) -> Result<(), BuildError> {
    let total = archives.len() as u64;
    step(progress, &format!("unpacking {total} packages"), || {
        for (done, archive) in archives.iter().enumerate() {
            progress(Event::Advanced {
                done: done as u64,
                total,
                unit: Unit::Packages,
            });
            let mut dpkg = command("dpkg");
            dpkg.arg("-x").arg(archive).arg(tree);
            process::succeed(&mut dpkg, &format!("unpacking {}", archive.display()))?;
        }
        Ok(())
    })
}

fn size_of_files(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}
