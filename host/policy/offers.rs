//! What the host provides, at which versions.

use semver::{Prerelease, Version, VersionReq};

use super::Import;
use crate::capability::InterfaceEntry;

/// What `sandbox` can link. Each stands for the imports of `OFFERS` that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// `crank:worker/log`
    Log,
    /// `crank:worker/events`
    Events,
    /// `crank:worker/peers`: implied by any `verb:name` that is declared.
    Peers,
    /// `wasi:io/*`
    WasiIo,
    /// `wasi:clocks/*`
    WasiClocks,
    /// `wasi:random/*`
    WasiRandom,
    /// `wasi:cli/*`: an empty environment, no input, output thrown away.
    WasiCli,
    /// `wasi:filesystem/*`; what is preopened, if anything, is not decided here.
    WasiFilesystem,
    /// `crank:gpu/compute`
    Gpu,
    /// `wasi:keyvalue/*`: the buckets that the calling capability declares.
    WasiKeyvalue,
}

/// A package whose interfaces the host provides.
pub(super) struct Offer {
    namespace: &'static str,
    package: &'static str,
    interfaces: &'static [&'static str],
    /// `None`: types alone, nothing to link.
    pub links: Option<Interface>,
    /// The version that the host speaks, and with it every earlier one of the same minor version.
    version: (u64, u64, u64),
}

const CRANK: (u64, u64, u64) = (0, 1, 0);
/// What wasmtime-wasi 48 implements.
const WASI: (u64, u64, u64) = (0, 2, 12);

const fn offer(
    namespace: &'static str,
    package: &'static str,
    interfaces: &'static [&'static str],
    links: Option<Interface>,
    version: (u64, u64, u64),
) -> Offer {
    Offer {
        namespace,
        package,
        interfaces,
        links,
        version,
    }
}

/// The one version of a draft: no other is like it.
const KEYVALUE_DRAFT: &str = "draft2";
const KEYVALUE: (u64, u64, u64) = (0, 2, 0);

/// Everything that the host provides. Most of it is powerless: no worker reaches anything with it but
/// the caller of its own request and the operator's log, so none of that needs a declaration. (Files need
/// one: without it nothing is preopened.)
pub(super) const OFFERS: &[Offer] = &[
    offer("crank", "worker", &["types"], None, CRANK),
    offer("crank", "worker", &["log"], Some(Interface::Log), CRANK),
    offer(
        "crank",
        "worker",
        &["events"],
        Some(Interface::Events),
        CRANK,
    ),
    offer("crank", "worker", &["peers"], Some(Interface::Peers), CRANK),
    offer("crank", "gpu", &["compute"], Some(Interface::Gpu), CRANK),
    offer(
        "wasi",
        "io",
        &["error", "poll", "streams"],
        Some(Interface::WasiIo),
        WASI,
    ),
    offer(
        "wasi",
        "clocks",
        &["monotonic-clock", "wall-clock"],
        Some(Interface::WasiClocks),
        WASI,
    ),
    offer(
        "wasi",
        "random",
        &["random", "insecure", "insecure-seed"],
        Some(Interface::WasiRandom),
        WASI,
    ),
    offer(
        "wasi",
        "cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
        Some(Interface::WasiCli),
        WASI,
    ),
    offer(
        "wasi",
        "filesystem",
        &["types", "preopens"],
        Some(Interface::WasiFilesystem),
        WASI,
    ),
    offer(
        "wasi",
        "keyvalue",
        &["store", "atomics", "batch"],
        Some(Interface::WasiKeyvalue),
        KEYVALUE,
    ),
];

impl Offer {
    /// True if no worker has to declare it.
    pub(super) fn is_powerless(&self) -> bool {
        !matches!(
            self.links,
            Some(Interface::Peers | Interface::Gpu | Interface::WasiKeyvalue)
        )
    }

    /// What the version is a draft of, if it is one.
    fn pre(&self) -> Prerelease {
        let draft = match self.links {
            Some(Interface::WasiKeyvalue) => KEYVALUE_DRAFT,
            _ => "",
        };
        Prerelease::new(draft).unwrap_or_default()
    }

    pub(super) fn provides(&self, import: &Import) -> bool {
        self.namespace == import.namespace
            && self.package == import.package
            && self.interfaces.contains(&import.interface.as_str())
    }

    /// True if a declared entry means this offer; `*` of WASI means all that the host has of a package.
    /// `crank:worker/*` would take in peers, which has power.
    pub(super) fn is_meant(&self, entry: &InterfaceEntry) -> bool {
        entry.same_package(self.namespace, self.package)
            && match &entry.interface {
                Some(interface) => self.interfaces.contains(&interface.as_str()),
                None => self.namespace == "wasi",
            }
    }

    pub(super) fn speaks(&self, version: Option<&Version>) -> bool {
        let (major, minor, patch) = self.version;
        version.is_none_or(|asked| {
            asked.pre == self.pre()
                && (asked.major, asked.minor) == (major, minor)
                && asked.patch <= patch
        })
    }

    /// True if one of the spoken versions meets the entry's requirement.
    pub(super) fn meets(&self, entry: &InterfaceEntry) -> bool {
        let (major, minor, newest) = self.version;
        let meets = |wanted: &VersionReq| {
            (0..=newest).any(|patch| {
                let pre = self.pre();
                wanted.matches(&Version {
                    pre,
                    ..Version::new(major, minor, patch)
                })
            })
        };
        entry.requirement.as_ref().is_none_or(meets)
    }

    pub(super) fn spoken(&self) -> String {
        match self.version {
            (major, minor, 0) => Version {
                pre: self.pre(),
                ..Version::new(major, minor, 0)
            }
            .to_string(),
            (major, minor, patch) => format!("{major}.{minor}.0 to {major}.{minor}.{patch}"),
        }
    }
}
