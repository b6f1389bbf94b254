//! Guest crates: finding them, and compiling one with cargo.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::compiler::{Compiler, LINKER};
use super::process::{self, Seen, push_line};
use super::{BuildError, Event, Progress, TARGET, Unit, step};
use crate::engine;

/// Heap that a guest starts with behind its data: room for its first allocations without a `memory.grow`,
/// which is what keeps guests from scaling over cores (`docs/decisions/0002-guest-toolchain.md`).
const INITIAL_HEAP: &str = "--initial-heap=1048576";

/// The release profile of guests, for those keys that their own manifest leaves open.
const PROFILE: [(&str, &str); 5] = [
    ("opt-level", "\"s\""),
    ("lto", "true"),
    ("codegen-units", "1"),
    ("panic", "\"abort\""),
    ("strip", "true"),
];

/// The argument that makes cargo's output one that [`run`] reads.
pub(super) const MESSAGES: &str = "--message-format=json";

/// A directory that holds guests.
pub(super) struct Source {
    pub directory: PathBuf,
    pub guests: Vec<Guest>,
    workspace: PathBuf,
}

/// One guest crate.
pub(super) struct Guest {
    pub package: String,
    id: String,
    directory: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    id: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

/// A line of `cargo build --message-format=json`.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Said {
    CompilerArtifact {
        package_id: String,
        filenames: Vec<PathBuf>,
    },
    CompilerMessage {
        message: Diagnostic,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Diagnostic {
    rendered: Option<String>,
    level: String,
}

impl Source {
    /// The guest in this directory, or those among the default members of the workspace in it.
    pub fn read(directory: &Path) -> Result<Self, BuildError> {
        if !directory.join("Cargo.toml").is_file() {
            return Err(BuildError::NoManifest(directory.to_owned()));
        }
        // Cargo answers with paths that hold no links and no dots.
        let directory = fs::canonicalize(directory).map_err(BuildError::io("read", directory))?;
        let mut cargo = process::cargo();
        cargo
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(&directory);
        let ended = process::output(&mut cargo)?;
        let bad = |output: String| BuildError::BadManifest {
            directory: directory.clone(),
            output,
        };
        if !ended.status.success() {
            return Err(bad(ended.stderr));
        }
        let metadata: Metadata =
            serde_json::from_str(&ended.stdout).map_err(|error| bad(error.to_string()))?;
        let mut guests: Vec<Guest> = metadata
            .packages
            .into_iter()
            .filter_map(Guest::new)
            .collect();
        if guests.iter().any(|guest| guest.directory == directory) {
            guests.retain(|guest| guest.directory == directory);
        } else if metadata.workspace_root == directory {
            guests.retain(|guest| metadata.workspace_default_members.contains(&guest.id));
        } else {
            // A library beside guests is not a guest, though its workspace holds some.
            guests.clear();
        }
        if guests.is_empty() {
            return Err(BuildError::NoGuest(directory));
        }
        Ok(Self {
            directory,
            guests,
            workspace: metadata.workspace_root,
        })
    }
}

/// Two packages of one name would overwrite each other's component.
pub(super) fn refuse_same_names(sources: &[Source]) -> Result<(), BuildError> {
    let mut seen: HashMap<&str, &Path> = HashMap::new();
    for guest in sources.iter().flat_map(|source| &source.guests) {
        let first = seen.insert(&guest.package, &guest.directory);
        if let Some(first) = first.filter(|first| *first != guest.directory) {
            return Err(BuildError::SameName {
                name: guest.package.clone(),
                first: first.to_owned(),
                second: guest.directory.clone(),
            });
        }
    }
    Ok(())
}

impl Guest {
    fn new(package: Package) -> Option<Self> {
        let is_guest = |target: &Target| target.crate_types.iter().any(|kind| kind == "cdylib");
        package.targets.iter().any(is_guest).then_some(Self {
            package: package.name,
            id: package.id,
            directory: package.manifest_path.parent()?.to_owned(),
        })
    }

    /// Compiles this guest alone and answers its component. Alone, since cargo unites the features of
    /// all that it builds in one call: a neighbour would change this guest's bytes.
    pub fn compile(
        &self,
        source: &Source,
        compiler: &Compiler,
        target_dir: &Path,
        offline: bool,
        progress: Progress<'_>,
    ) -> Result<Vec<u8>, BuildError> {
        let mut cargo = compiler.cargo();
        cargo
            .args([
                "rustc",
                "--release",
                MESSAGES,
                "--lib",
                "--target",
                TARGET,
                "--package",
                &self.id,
            ])
            .arg("--target-dir")
            .arg(target_dir)
            .args(offline.then_some("--offline"))
            // Cargo looks for .cargo/config.toml from here on upwards.
            .current_dir(&self.directory);
        for setting in self.settings(source, compiler, target_dir)? {
            cargo.arg("--config").arg(setting);
        }
        // For this crate alone: flags for all would compile every dependency anew in each checkout.
        cargo.arg("--").arg(remap(&source.workspace, "/guest"));
        let what = format!("compiling {}", self.package);
        let files = step(progress, &what, || run(&mut cargo, &what, progress))?;

        let is_own = |(id, file): &&(String, PathBuf)| {
            *id == self.id && file.extension().is_some_and(|end| end == "wasm")
        };
        let Some((_, file)) = files.iter().find(is_own) else {
            return Err(BuildError::NoArtifact {
                package: self.package.clone(),
            });
        };
        let bytes = fs::read(file).map_err(BuildError::io("read", file))?;
        if !engine::is_component(&bytes) {
            return Err(BuildError::NotAComponent {
                package: self.package.clone(),
            });
        }
        Ok(bytes)
    }

    /// What cargo is told beyond the crate's own files, as `--config` values: those are added to the
    /// flags of its .cargo/config.toml, where the variable `RUSTFLAGS` would replace them.
    fn settings(
        &self,
        source: &Source,
        compiler: &Compiler,
        target_dir: &Path,
    ) -> Result<Vec<String>, BuildError> {
        let (std_path, std_name) = &compiler.std_source;
        // Of several that match a path, the last one counts.
        let mut flags = vec![
            remap(&cargo_home()?, "/cargo"),
            remap(std_path, std_name),
            remap(target_dir, "/target"),
        ];
        if !self.sets_initial_heap() {
            flags.push(format!("-Clink-arg={INITIAL_HEAP}"));
        }
        let flags = toml::Value::from(flags);
        let mut settings = vec![
            format!("target.{TARGET}.linker=\"{LINKER}\""),
            format!("target.{TARGET}.rustflags={flags}"),
        ];

        let manifest = source.workspace.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).map_err(BuildError::io("read", &manifest))?;
        // Cargo has read it already, so that it parses.
        let manifest: toml::Table = text.parse().unwrap_or_default();
        let own = manifest
            .get("profile")
            .and_then(|profiles| profiles.get("release"));
        for (key, value) in PROFILE {
            if own.and_then(|profile| profile.get(key)).is_none() {
                settings.push(format!("profile.release.{key}={value}"));
            }
        }
        Ok(settings)
    }

    /// Whether the crate's own configuration says how much heap or memory it starts with. Ours would
    /// come last and win.
    fn sets_initial_heap(&self) -> bool {
        self.directory.ancestors().any(|directory| {
            ["config.toml", "config"].iter().any(|name| {
                fs::read_to_string(directory.join(".cargo").join(name))
                    .is_ok_and(|text| text.contains("--initial-"))
            })
        })
    }
}

/// Runs a cargo build that has the argument [`MESSAGES`], reports how far it is, and answers the files it names, with their packages.
pub(super) fn run(
    cargo: &mut Command,
    what: &str,
    progress: Progress<'_>,
) -> Result<Vec<(String, PathBuf)>, BuildError> {
    // The progress bar is the only place where cargo says how many crates there are.
    cargo
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "80")
        .env("CARGO_TERM_COLOR", "never");
    let (mut files, mut errors) = (Vec::new(), String::new());
    let status = process::watch(cargo, &mut |seen| match seen {
        Seen::Out(line) => match serde_json::from_str(line) {
            Ok(Said::CompilerArtifact {
                package_id,
                filenames,
            }) => {
                files.extend(filenames.into_iter().map(|file| (package_id.clone(), file)));
            }
            Ok(Said::CompilerMessage { message }) => {
                let text = message.rendered.unwrap_or_default();
                if message.level == "warning" {
                    progress(Event::Note(text.trim_end()));
                } else {
                    push_line(&mut errors, &text);
                }
            }
            Ok(Said::Other) | Err(_) => {}
        },
        Seen::Err(line) => match read_bar(line) {
            Some((done, total)) => progress(Event::Advanced {
                done,
                total,
                unit: Unit::Crates,
            }),
            None if line.contains("Blocking waiting") => progress(Event::Note(line.trim())),
            None if is_chatter(line) => {}
            None => push_line(&mut errors, line),
        },
        Seen::Quiet => {}
    })?;
    if status.success() {
        Ok(files)
    } else {
        Err(BuildError::failed(what, errors.trim_end()))
    }
}

/// Reads `    Building [=====>      ] 12/40: serde, syn`.
fn read_bar(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.split_once("Building [")?.1.split_once("] ")?;
    let (done, rest) = counts.split_once('/')?;
    let total = rest.split(':').next()?;
    Some((done.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// Lines that tell what cargo does, and not what went wrong.
fn is_chatter(line: &str) -> bool {
    const VERBS: [&str; 12] = [
        "Compiling",
        "Building",
        "Finished",
        "Fresh",
        "Downloading",
        "Downloaded",
        "Fetch",
        "Updating",
        "Locking",
        "Adding",
        "Fetching",
        "Unpacking",
    ];
    let line = line.trim_start_matches(|sign: char| sign.is_whitespace() || sign == '\u{1b}');
    let line = line.strip_prefix("[K").unwrap_or(line).trim_start();
    line.is_empty() || VERBS.iter().any(|verb| line.starts_with(verb))
}

/// The flag that writes `name` where the compiler would write `path`.
pub(super) fn remap(path: &Path, name: &str) -> String {
    format!("--remap-path-prefix={}={name}", path.display())
}

/// Where cargo keeps the sources of crates.
pub(super) fn cargo_home() -> Result<PathBuf, BuildError> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    // Without a home cargo fails by itself, and says so; there is nothing to remap.
    std::path::absolute(home.unwrap_or_else(|| PathBuf::from(".cargo")))
        .map_err(BuildError::io("find", Path::new(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::read_bar;

    #[test]
    fn cargo_s_progress_bar_tells_how_many_crates_there_are() {
        assert_eq!(
            read_bar("\u{1b}[K    Building [===>    ] 12/40: serde, syn"),
            Some((12, 40))
        );
        assert_eq!(read_bar("    Building [=======>] 39/40"), Some((39, 40)));
        assert_eq!(read_bar("    Fetch [===>    ] 12.00%"), None);
        assert_eq!(read_bar("error: Building [x] is no bar"), None);
    }
}
