//! Who may come in: the sizes of a request's head, its `Host`, its `Origin`.
//!
//! Any web page can send requests to a loopback port. `Host` stops a name that was rebound to
//! loopback; `Origin` stops a page of somebody else.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request};

use super::Settings;
use crate::error::{Code, Failure};

/// Headers that a request may have. Hyper parses at most 100 and answers more by itself, with a bare
/// 431: ours must be the lower limit for the caller to get a problem document.
const HEADERS: usize = 64;

pub(super) struct Door {
    header_bytes: usize,
    uri_bytes: usize,
    loopback: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Door {
    pub fn new(settings: &Settings, bound: SocketAddr) -> Self {
        let lower = |list: &[String]| {
            list.iter()
                .map(|entry| entry.to_ascii_lowercase())
                .collect()
        };
        Self {
            header_bytes: settings.header_bytes,
            uri_bytes: settings.uri_bytes,
            loopback: bound.ip().is_loopback(),
            hosts: lower(&settings.allowed_hosts),
            origins: lower(&settings.allowed_origins),
        }
    }

    /// Refuses a request that is too large in its head, or that asks in a foreign name.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Failure> {
        self.check_sizes(request)?;
        let authority = self.check_host(request)?;
        self.check_origin(request.headers(), &authority)
    }

    fn check_sizes<B>(&self, request: &Request<B>) -> Result<(), Failure> {
        let target = request
            .uri()
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        if target > self.uri_bytes {
            let message = format!(
                "the request target has {target} bytes, at most {} are read",
                self.uri_bytes
            );
            return Err(Failure::new(Code::UriTooLong, message));
        }
        let headers = request.headers();
        if headers.len() > HEADERS {
            let message = format!(
                "the request has {} headers, at most {HEADERS} are read",
                headers.len()
            );
            return Err(Failure::new(Code::HeadersTooLarge, message));
        }
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if bytes > self.header_bytes {
            let message = format!(
                "the headers have {bytes} bytes, at most {} are read",
                self.header_bytes
            );
            return Err(Failure::new(Code::HeadersTooLarge, message));
        }
        Ok(())
    }

    /// A request may name its host twice, in an absolute target and in `Host`: each must pass.
    fn check_host<B>(&self, request: &Request<B>) -> Result<Authority, Failure> {
        let malformed = |message: &str| Failure::new(Code::InvalidRequest, message);
        let mut named = request.uri().authority().cloned();
        if let Some(authority) = &named {
            self.admit(authority)?;
        }
        let mut values = request.headers().get_all(HOST).iter();
        if let Some(value) = values.next() {
            let authority = Authority::try_from(value.as_bytes())
                .map_err(|_| malformed("the host header is not a host with an optional port"))?;
            self.admit(&authority)?;
            named.get_or_insert(authority);
        }
        if values.next().is_some() {
            return Err(malformed("the request has more than one host header"));
        }
        named.ok_or_else(|| malformed("the request has no host header; send host: NAME[:PORT]"))
    }

    fn admit(&self, authority: &Authority) -> Result<(), Failure> {
        let (host, whole) = (authority.host(), authority.as_str());
        let allowed = (self.loopback && is_loopback_name(host))
            || self
                .hosts
                .iter()
                .any(|entry| entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(whole));
        // User information is no part of `Host`; who sends it means to confuse somebody.
        if allowed && !whole.contains('@') {
            return Ok(());
        }
        let message = format!("the host {whole:?} is not served here; allow it with allowed_hosts");
        Err(Failure::new(Code::Denied, message))
    }

    fn check_origin(&self, headers: &HeaderMap, host: &Authority) -> Result<(), Failure> {
        for value in headers.get_all(ORIGIN) {
            let own = || {
                split_origin(value).is_some_and(|(scheme, origin)| is_same(scheme, &origin, host))
            };
            if !self.allows_origin(value) && !own() {
                let message =
                    format!("the origin {value:?} is foreign; allow it with allowed_origins");
                return Err(Failure::new(Code::Denied, message));
            }
        }
        Ok(())
    }

    /// Whether the operator's list has this origin.
    pub fn allows_origin(&self, value: &HeaderValue) -> bool {
        self.origins
            .iter()
            .any(|entry| value.as_bytes().eq_ignore_ascii_case(entry.as_bytes()))
    }
}

fn is_loopback_name(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The scheme and authority of a web origin. `null` and other schemes have none.
fn split_origin(value: &HeaderValue) -> Option<(&str, Authority)> {
    let (scheme, authority) = value.to_str().ok()?.split_once("://")?;
    Some((scheme, authority.parse().ok()?))
}

fn is_same(scheme: &str, origin: &Authority, host: &Authority) -> bool {
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    origin.host().eq_ignore_ascii_case(host.host())
        && origin.port_u16().unwrap_or(default_port) == host.port_u16().unwrap_or(default_port)
}
