//! Three sets meet at load: what a component imports, what its worker declares, what the operator
//! grants. Pure: what comes out says what `sandbox` may link, and nothing else opens a door.

mod buckets;
mod offers;

use std::collections::BTreeSet;
use std::fmt;

use semver::Version;
use serde::Serialize;

use crate::capability::{InterfaceEntry, Required};
use crate::config::WorkerSettings;

pub use buckets::{Access, Buckets, INDEX, OWN};
pub use offers::Interface;
use offers::OFFERS;

/// An interface that a component imports: `crank:worker/log@0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// `crank`
    pub namespace: String,
    /// `worker`
    pub package: String,
    /// `log`
    pub interface: String,
    /// `0.1.0`, where the component names one.
    pub version: Option<Version>,
}

impl Import {
    /// Reads the name of a component's import; `None` if it is not an interface's.
    pub fn parse(name: &str) -> Option<Self> {
        let (path, version) = match name.split_once('@') {
            Some((path, version)) => (path, Some(Version::parse(version).ok()?)),
            None => (name, None),
        };
        // The path alone is an entry without requirement and scope.
        match Required::parse(path) {
            Ok(Required::Interface(InterfaceEntry {
                namespace,
                package,
                interface: Some(interface),
                scope,
                ..
            })) if scope.is_empty() => Some(Self {
                namespace,
                package,
                interface,
                version,
            }),
            _ => None,
        }
    }

    /// Whether this host provides it without a declaration, at the version that is asked for.
    pub fn is_powerless(&self) -> bool {
        OFFERS.iter().any(|offer| {
            offer.is_powerless() && offer.provides(self) && offer.speaks(self.version.as_ref())
        })
    }

    /// The import's name without its version, as an entry would name it.
    fn path(&self) -> String {
        format!("{}:{}/{}", self.namespace, self.package, self.interface)
    }

    fn is_peers(&self) -> bool {
        (
            self.namespace.as_str(),
            self.package.as_str(),
            self.interface.as_str(),
        ) == ("crank", "worker", "peers")
    }
}

/// What the operator says about one worker, by the file that the operator placed.
#[derive(Clone, Copy, Debug)]
pub struct OperatorGrants<'a> {
    /// The stem of the worker's file, which names its section in `crank.toml`.
    pub stem: &'a str,
    /// Granted beside what is powerless.
    pub grants: &'a [InterfaceEntry],
    /// Denied, whatever else says so.
    pub deny: &'a [InterfaceEntry],
}

impl<'a> OperatorGrants<'a> {
    /// Takes the grants out of a worker's section, if there is one.
    pub fn new(stem: &'a str, settings: Option<&'a WorkerSettings>) -> Self {
        let (grants, deny) = settings.map_or((&[][..], &[][..]), |settings| {
            (&settings.grants, &settings.deny)
        });
        Self { stem, grants, deny }
    }

    /// A refusal of the worker, for an import or an entry of its declaration.
    fn refusal(
        &self,
        subject: &dyn fmt::Display,
        reason: Reason,
        detail: String,
        line: Option<String>,
    ) -> Refusal {
        Refusal {
            worker: self.stem.to_owned(),
            subject: subject.to_string(),
            reason,
            detail,
            line,
        }
    }
}

/// What may be linked for a worker: imported, declared where that is needed, and granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    interfaces: BTreeSet<Interface>,
    files: bool,
}

impl Grants {
    /// What no worker has to ask for, and nothing else: what `declare` runs with.
    pub fn powerless() -> Self {
        Self {
            interfaces: OFFERS
                .iter()
                .filter(|offer| offer.is_powerless())
                .filter_map(|offer| offer.links)
                .collect(),
            files: false,
        }
    }

    /// Everything that is to be linked.
    pub fn iter(&self) -> impl Iterator<Item = Interface> + '_ {
        self.interfaces.iter().copied()
    }

    /// Whether there may be something to open behind `wasi:filesystem`: to import it gives nothing,
    /// a worker has to declare it.
    pub fn files(&self) -> bool {
        self.files
    }
}

/// Why a worker is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Imported, but not declared.
    Undeclared,
    /// Declared, but not granted by the operator.
    NotGranted,
    /// The operator denies it.
    Denied,
    /// The host does not provide it.
    NotOffered,
    /// The host provides it at other versions.
    Version,
}

/// One import or entry that refuses a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The stem of the worker's file.
    pub worker: String,
    /// The import, or the entry of `required_capabilities`, as the worker writes it.
    pub subject: String,
    /// Why.
    pub reason: Reason,
    /// What is wrong and what would mend it.
    pub detail: String,
    /// The line to add or to take away, ready to be pasted, where one would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// Decides what a worker may reach. `declared` is the union over its capabilities.
pub fn decide(
    imports: &[Import],
    declared: &[Required],
    operator: &OperatorGrants<'_>,
) -> Result<Grants, Vec<Refusal>> {
    let mut grants = Grants {
        files: declared.iter().any(|required| {
            matches!(required, Required::Interface(entry) if entry.same_package("wasi", "filesystem"))
        }),
        ..Grants::default()
    };
    let mut refusals = Vec::new();
    for import in imports.iter().collect::<BTreeSet<_>>() {
        match judge_import(import, declared, operator) {
            Ok(interface) => grants.interfaces.extend(interface),
            Err(refusal) => refusals.push(refusal),
        }
    }
    for (at, required) in declared.iter().enumerate() {
        let Required::Interface(entry) = required else {
            continue;
        };
        if !declared.iter().take(at).any(|earlier| earlier == required) {
            refusals.extend(judge_entry(entry, operator).err());
        }
    }
    if refusals.is_empty() {
        Ok(grants)
    } else {
        Err(refusals)
    }
}

fn judge_import(
    import: &Import,
    declared: &[Required],
    operator: &OperatorGrants<'_>,
) -> Result<Option<Interface>, Refusal> {
    let refuse = |reason, detail, line| operator.refusal(import, reason, detail, line);
    if let Some(entry) = operator.deny.iter().find(|entry| entry.covers(import)) {
        let line = deny_line(operator.stem, entry);
        return Err(refuse(
            Reason::Denied,
            format!("imports {import}, which the operator denies: {line}"),
            Some(line),
        ));
    }
    // Any peer that is declared implies the import that reaches it; a bucket, what works on buckets.
    let is_declared = declared.iter().any(|required| match required {
        Required::Capability { .. } => import.is_peers(),
        Required::Interface(entry) => entry.covers(import) || entry.implies(import),
    });
    let offer = OFFERS.iter().find(|offer| offer.provides(import));
    if let Some(offer) = offer {
        if !offer.speaks(import.version.as_ref()) {
            let spoken = offer.spoken();
            let detail = format!(
                "imports {import}; this host speaks {} at {spoken}",
                import.path()
            );
            return Err(refuse(Reason::Version, detail, None));
        }
        if is_declared || offer.is_powerless() {
            return Ok(offer.links);
        }
    } else if is_declared {
        let detail = format!("imports {import}, which is not offered by this version of the host");
        return Err(refuse(Reason::NotOffered, detail, None));
    }
    let entry = if import.is_peers() {
        "verb:name".to_owned()
    } else {
        import.path()
    };
    let line = format!("required_capabilities: \"{entry}\"");
    let later = match offer {
        Some(_) => "",
        None => " (this version of the host does not offer it yet)",
    };
    let detail = format!("imports {import} and does not declare it; its author adds {line}{later}");
    Err(refuse(Reason::Undeclared, detail, Some(line)))
}

/// Judges a declared interface, needed or not: a worker that asks for what it may not have is refused.
fn judge_entry(entry: &InterfaceEntry, operator: &OperatorGrants<'_>) -> Result<(), Refusal> {
    let refuse = |reason, detail, line| operator.refusal(entry, reason, detail, line);
    if let Some(denied) = operator.deny.iter().find(|denied| denied.overlaps(entry)) {
        let line = deny_line(operator.stem, denied);
        return Err(refuse(
            Reason::Denied,
            format!("declares {entry}, which the operator denies: {line}"),
            Some(line),
        ));
    }
    if OFFERS.iter().any(|offer| offer.is_meant(entry)) {
        return match OFFERS
            .iter()
            .find(|offer| offer.is_meant(entry) && !offer.meets(entry))
        {
            Some(offer) => {
                let detail = format!(
                    "declares {entry}; this host speaks it at {}",
                    offer.spoken()
                );
                Err(refuse(Reason::Version, detail, None))
            }
            None if entry.scope.is_empty() => Ok(()),
            None if buckets::is_store(entry) => judge_buckets(entry, operator),
            None => {
                let detail = format!(
                    "declares {entry}, but this interface has nothing that a scope could narrow; remove the brackets"
                );
                Err(refuse(Reason::NotOffered, detail, None))
            }
        };
    }
    if operator.grants.iter().any(|grant| grant.grants(entry)) {
        let detail = format!("declares {entry}, which is not offered by this version of the host");
        return Err(refuse(Reason::NotOffered, detail, None));
    }
    let line = format!("[workers.{:?}] grants = [\"{entry}\"]", operator.stem);
    let detail = format!(
        "declares {entry}, which the operator does not grant; the operator adds {line} (this version of the host does not offer it yet)"
    );
    Err(refuse(Reason::NotGranted, detail, Some(line)))
}

/// Judges an entry that names buckets.
fn judge_buckets(entry: &InterfaceEntry, operator: &OperatorGrants<'_>) -> Result<(), Refusal> {
    let refuse = |reason, detail, line| operator.refusal(entry, reason, detail, line);
    buckets::judge(entry, operator.grants).map_err(|wrong| match wrong {
        buckets::Wrong::NoBucket(scope) => {
            let detail = format!(
                "declares {entry}, but {scope:?} is no bucket: lower-case letters, digits, - and _, at most 64, perhaps followed by :ro"
            );
            refuse(Reason::NotOffered, detail, None)
        }
        buckets::Wrong::NotGranted(missing) => {
            let line = format!("[workers.{:?}] grants = [\"{missing}\"]", operator.stem);
            let detail = format!(
                "declares {entry}, and the operator does not grant it: a bucket that workers share; the operator adds {line}"
            );
            refuse(Reason::NotGranted, detail, Some(line))
        }
    })
}

fn deny_line(stem: &str, entry: &InterfaceEntry) -> String {
    format!("[workers.{stem:?}] deny = [\"{entry}\"]")
}

impl InterfaceEntry {
    fn same_package(&self, namespace: &str, package: &str) -> bool {
        self.namespace == namespace && self.package == package
    }

    /// True if the import is among what this entry names.
    fn covers(&self, import: &Import) -> bool {
        self.same_package(&import.namespace, &import.package)
            && self
                .interface
                .as_ref()
                .is_none_or(|interface| *interface == import.interface)
            && self.requirement.as_ref().is_none_or(|wanted| {
                // An import without a version meets any requirement there is: the host picks one.
                import
                    .version
                    .as_ref()
                    .is_none_or(|version| wanted.matches(version))
            })
    }

    /// True if the import does nothing but with what this entry lets it open.
    fn implies(&self, import: &Import) -> bool {
        buckets::is_store(self)
            && self.same_package(&import.namespace, &import.package)
            && matches!(import.interface.as_str(), "atomics" | "batch")
    }

    /// True if something could be meant by both, whatever their versions and scopes: to deny errs on
    /// the side of denying.
    fn overlaps(&self, other: &InterfaceEntry) -> bool {
        self.same_package(&other.namespace, &other.package)
            && (self.interface.is_none()
                || other.interface.is_none()
                || self.interface == other.interface)
    }

    /// True if all that the other entry asks for is granted by this one.
    fn grants(&self, asked: &InterfaceEntry) -> bool {
        self.same_package(&asked.namespace, &asked.package)
            && (self.interface.is_none() || self.interface == asked.interface)
            && (self.requirement.is_none() || self.requirement == asked.requirement)
            && (self.scope.is_empty()
                || (!asked.scope.is_empty()
                    && asked.scope.iter().all(|scope| self.scope.contains(scope))))
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())?;
        self.version
            .as_ref()
            .map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {:?} {}", self.worker, self.detail)
    }
}

#[cfg(test)]
mod tests;
