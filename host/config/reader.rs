//! Takes values out of the layers as types, and gathers what is wrong on the way.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::{Table, Value};

use super::layers::{Layers, did_you_mean};
use super::{ByteCount, Origin, Setting, WorkerSettings};
use crate::capability::{Constraint, InterfaceEntry, Required, WorkerId};
use crate::identity::{SpiffeId, TrustDomain, is_controller_id};

pub(super) struct Reader {
    layers: Layers,
    settings: Vec<Setting>,
    problems: Vec<String>,
}

impl Reader {
    pub(super) fn new(mut layers: Layers) -> Self {
        let problems = std::mem::take(&mut layers.problems);
        Self {
            layers,
            settings: Vec::new(),
            problems,
        }
    }

    pub(super) fn finish(self) -> (Vec<Setting>, Vec<String>) {
        (self.settings, self.problems)
    }

    /// Notes what is wrong with a key, with where its value came from.
    pub(super) fn problem(&mut self, key: &str, reason: impl Display) {
        let origin = self
            .layers
            .values
            .get(key)
            .map_or(&Origin::Default, |(_, origin)| origin);
        self.problems.push(format!("{origin}: {key}: {reason}"));
    }

    /// Takes a key out as a type, and notes the value that holds.
    fn take<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Value) -> Result<(T, Value), String>,
    ) -> Option<T> {
        let (value, origin) = self.layers.values.get(key)?;
        match read(value) {
            Ok((read, value)) => {
                self.settings.push(Setting {
                    key: key.to_owned(),
                    value,
                    origin: origin.clone(),
                });
                Some(read)
            }
            Err(reason) => {
                self.problem(key, reason);
                None
            }
        }
    }

    pub(super) fn text<T, E: Display>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(key, |value| {
            let text = value.as_str().ok_or("must be a text in quotes")?;
            let read = read(text).map_err(|error| error.to_string())?;
            Ok((read, value.clone()))
        })
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        self.take(key, |value| {
            let read = match value {
                Value::Boolean(read) => Some(*read),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            let read = read.ok_or("must be true or false")?;
            Ok((read, Value::Boolean(read)))
        })
    }

    /// A key that may stay empty. `None` only if what stands there cannot be read.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> Option<Option<T>> {
        let empty = |(value, _): &(Value, Origin)| value.as_str() == Some("");
        if self.layers.values.get(key).is_some_and(empty) {
            return self.take(key, |value| Ok((None, value.clone())));
        }
        read(self, key).map(Some)
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key, |text| match text {
            "" => Err("is not set, and neither the XDG variable nor HOME names a place; set it"),
            text => Ok(PathBuf::from(text)),
        })
    }

    /// A path that lies somewhere else where nobody names it.
    pub(super) fn path_or(&mut self, key: &str, default: Option<PathBuf>) -> Option<PathBuf> {
        self.take(key, |value| {
            let text = value.as_str().ok_or("must be a text in quotes")?;
            let path = match (text, default) {
                ("", Some(default)) => default,
                ("", None) => {
                    return Err("is not set, and has no place without cache_dir".to_owned());
                }
                (text, _) => PathBuf::from(text),
            };
            let shown = Value::String(path.to_string_lossy().into_owned());
            Ok((path, shown))
        })
    }

    pub(super) fn number(&mut self, key: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        self.take(key, |value| {
            let number = number(value, &allowed)?;
            // Anything that came as text is a number by now.
            Ok((
                number,
                i64::try_from(number).map_or_else(|_| value.clone(), Value::Integer),
            ))
        })
    }

    /// A number whose default follows from something else.
    pub(super) fn number_or(
        &mut self,
        key: &str,
        allowed: RangeInclusive<u64>,
        default: u64,
    ) -> Option<u64> {
        if let Some((Value::String(text), _)) = self.layers.values.get_mut(key)
            && text.is_empty()
        {
            *text = default.to_string();
        }
        self.number(key, allowed)
    }

    pub(super) fn milliseconds(
        &mut self,
        key: &str,
        allowed: RangeInclusive<u64>,
    ) -> Option<Duration> {
        self.number(key, allowed).map(Duration::from_millis)
    }

    pub(super) fn mebibytes(
        &mut self,
        key: &str,
        allowed: RangeInclusive<u64>,
    ) -> Option<ByteCount> {
        self.number(key, allowed)
            .and_then(|count| u32::try_from(count).ok())
            .map(ByteCount::mib)
    }

    pub(super) fn list(
        &mut self,
        key: &str,
        check: impl Fn(&str) -> Result<String, String>,
    ) -> Option<Vec<String>> {
        self.take(key, |value| {
            let texts = texts(value)?;
            let list = texts
                .iter()
                .map(|text| check(text))
                .collect::<Result<Vec<String>, String>>()?;
            Ok((
                list.clone(),
                Value::Array(list.into_iter().map(Value::String).collect()),
            ))
        })
    }

    pub(super) fn listen(&mut self, key: &str) -> Option<SocketAddr> {
        self.text(key, |text| {
            text.parse()
                .map_err(|_| "must be an address and a port, such as 127.0.0.1:8080")
        })
    }

    pub(super) fn workers(
        &mut self,
        domain: Option<&TrustDomain>,
    ) -> BTreeMap<String, WorkerSettings> {
        let sections = std::mem::take(&mut self.layers.workers);
        let mut workers: BTreeMap<String, WorkerSettings> = BTreeMap::new();
        for (stem, section) in sections {
            let settings = self.worker(&stem, &section);
            let id = settings.spiffe_id.as_ref();
            if let (Some(id), Some(domain)) = (id, domain)
                && !id.is_member_of(domain)
            {
                self.worker_problem(
                    &stem,
                    "spiffe_id",
                    format!("{id} is outside of the trust domain {domain}"),
                );
            }
            if let Some(id) = id
                && let Some((other, _)) = workers
                    .iter()
                    .find(|(_, other)| other.spiffe_id.as_ref() == Some(id))
            {
                self.worker_problem(
                    &stem,
                    "spiffe_id",
                    format!("{id} is bound to workers.{other:?} already"),
                );
            }
            workers.insert(stem, settings);
        }
        workers
    }

    fn worker(&mut self, stem: &str, section: &Table) -> WorkerSettings {
        let day_ms = 1..=86_400_000;
        let megabytes = self.worker_key(stem, section, "memory_mb", |value| {
            number(value, &(1..=16_384))
        });
        let wall = self.worker_key(stem, section, "wall_ms", |value| number(value, &day_ms));
        let cpu = self.worker_key(stem, section, "cpu_ms", |value| number(value, &day_ms));
        let concurrency = self.worker_key(stem, section, "concurrency", |value| {
            number(value, &(1..=10_000))
        });
        WorkerSettings {
            grants: self
                .worker_key(stem, section, "grants", interfaces)
                .unwrap_or_default(),
            deny: self
                .worker_key(stem, section, "deny", interfaces)
                .unwrap_or_default(),
            memory: megabytes
                .and_then(|count| u32::try_from(count).ok())
                .map(ByteCount::mib),
            wall: wall.map(Duration::from_millis),
            cpu: cpu.map(Duration::from_millis),
            cpu_shares: self
                .worker_key(stem, section, "cpu_shares", |value| {
                    number(value, &super::cpu_shares())
                })
                .and_then(|shares| u32::try_from(shares).ok()),
            relax: self
                .worker_key(stem, section, "relax", relaxed)
                .unwrap_or_default(),
            models: self.worker_key(stem, section, "models", |value| {
                let text = value.as_str().filter(|text| !text.is_empty());
                text.map(PathBuf::from)
                    .ok_or_else(|| "must be the path of a directory, in quotes".to_owned())
            }),
            concurrency: concurrency.and_then(|count| usize::try_from(count).ok()),
            worker_id: self.worker_key(stem, section, "worker_id", |value| {
                let text = value.as_str().ok_or("must be a text in quotes")?;
                WorkerId::parse(text).map_err(|error| error.to_string())
            }),
            spiffe_id: self.worker_key(stem, section, "spiffe_id", |value| {
                let text = value.as_str().ok_or("must be a text in quotes")?;
                SpiffeId::parse(text).map_err(|error| error.to_string())
            }),
            snapshot: self.worker_key(stem, section, "snapshot", |value| {
                let read = value.as_bool();
                read.ok_or_else(|| "must be true or false".to_owned())
            }),
            owner: self.worker_key(stem, section, "owner", |value| {
                let text = value.as_str().filter(|text| !text.is_empty());
                text.map(str::to_owned)
                    .ok_or_else(|| "must be a text in quotes".to_owned())
            }),
        }
    }

    fn worker_key<T>(
        &mut self,
        stem: &str,
        section: &Table,
        key: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = section.get(key)?;
        match read(value) {
            Ok(read) => {
                let origin = self
                    .layers
                    .file
                    .clone()
                    .map_or(Origin::Default, Origin::File);
                let stem = Value::String(stem.to_owned());
                self.settings.push(Setting {
                    key: format!("workers.{stem}.{key}"),
                    value: value.clone(),
                    origin,
                });
                Some(read)
            }
            Err(reason) => {
                self.worker_problem(stem, key, reason);
                None
            }
        }
    }

    fn worker_problem(&mut self, stem: &str, key: &str, reason: impl Display) {
        let origin = self
            .layers
            .file
            .clone()
            .map_or(Origin::Default, Origin::File);
        self.problems
            .push(format!("{origin}: workers.{stem:?}.{key}: {reason}"));
    }
}

/// A whole number within bounds; text comes from the environment, a flag or the defaults.
fn number(value: &Value, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| {
            format!(
                "must be a whole number from {} to {}",
                allowed.start(),
                allowed.end()
            )
        })
}

/// A list of texts; commas part them in the environment and in flags.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || "must be a list of texts, such as [\"a\", \"b\"]".to_owned();
    match value {
        Value::String(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        _ => Err(wrong()),
    }
}

/// Interfaces that are granted or denied, in the syntax of `required_capabilities`.
fn interfaces(value: &Value) -> Result<Vec<InterfaceEntry>, String> {
    let entry = |text: &String| match Required::parse(text) {
        Ok(Required::Interface(entry)) => Ok(entry),
        Ok(Required::Capability { .. }) => Err(format!(
            "\"{text}\" is a capability; only interfaces, \"namespace:package/interface\", stand here"
        )),
        Err(error) => Err(format!("{text:?}: {error}")),
    };
    if !value.is_array() {
        return Err("must be a list of texts, such as [\"wasi:keyvalue/store\"]".to_owned());
    }
    texts(value)?.iter().map(entry).collect()
}

/// Constraints that are relaxed, by name. Only what asks something of the host can be: without a
/// limit a worker would take what is its neighbours'.
fn relaxed(value: &Value) -> Result<Vec<Constraint>, String> {
    let placement = || Constraint::ALL.iter().filter(|known| known.is_placement());
    let entry = |text: &String| match Constraint::parse(text) {
        Some(constraint) if constraint.is_placement() => Ok(constraint),
        Some(_) => Err(format!(
            "\"{text}\" limits what the worker itself may use, and a limit is raised and not relaxed: see memory_mb, cpu_ms and cpu_shares"
        )),
        None => {
            let names = placement().map(|known| known.as_str());
            Err(format!(
                "{text:?} is no constraint{}",
                did_you_mean(text, names)
            ))
        }
    };
    if !value.is_array() {
        return Err("must be a list of texts, such as [\"disk_type\"]".to_owned());
    }
    texts(value)?.iter().map(entry).collect()
}

/// A name for the `Host` header: `crank.example`, perhaps with a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let name_fits = match name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if name_fits && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "{text:?} is not a host name, perhaps with a port: \"crank.example\" or \"crank.example:8080\""
    ))
}

/// A host's id among others: letters, digits, `-`, `_` and `.`, as in `controller_affinity`.
pub(super) fn controller_id(text: &str) -> Result<String, String> {
    match is_controller_id(text) {
        true => Ok(text.to_owned()),
        false => Err("must be letters, digits, '-', '_' and '.', at most 128 bytes".to_owned()),
    }
}

/// A range of addresses in CIDR notation, or one address.
pub(super) fn range(text: &str) -> Result<String, String> {
    if let Ok(range) = text.parse::<IpNet>() {
        return Ok(range.trunc().to_string());
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address).to_string()),
        Err(_) => Err(format!(
            "{text:?} is no range of addresses, such as \"10.0.0.0/8\" or \"::1/128\""
        )),
    }
}

/// An origin as browsers write it (RFC 6454): scheme, host and port, no path.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match rest.map(host) {
        Some(Ok(_)) => Ok(text.to_ascii_lowercase()),
        _ => Err(format!(
            "{text:?} is not an origin: scheme, host and perhaps a port, such as \"https://crank.example\""
        )),
    }
}

/// The base of an OTLP collector's addresses.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").unwrap_or_default();
    match host(rest.split('/').next().unwrap_or_default()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "{text:?} is not where an OTLP collector is reached by plain HTTP, such as \"http://localhost:4318\""
        )),
    }
}
