//! Where a remote worker is: its URL as it was given, and the addresses that this was found to mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::Uri;
use ipnet::IpNet;

/// Longest URL of a worker, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// Addresses that are kept of one name.
const MAX_ADDRESSES: usize = 8;
/// How long a name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);

/// A worker's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: String,
    is_https: bool,
    /// Without the brackets of IPv6.
    host: String,
    port: u16,
    /// Host and port as the URL has them: what `Host` says.
    authority: String,
    /// Path without a slash at its end, mostly empty.
    base: String,
}

impl Address {
    /// Reads `http://HOST[:PORT][/PATH]`, or the same with https.
    pub fn parse(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("{text:?} is no worker's URL; it looks like http://localhost:8500");
        if text.len() > MAX_URL_BYTES || text.contains(['?', '#', '@']) {
            return Err(malformed());
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let port = match authority.port_u16() {
            Some(port) => port,
            // What follows the host is no port.
            None if authority.as_str() != host => return Err(malformed()),
            None if is_https => 443,
            None => 80,
        };
        Ok(Self {
            url: text.trim_end_matches('/').to_owned(),
            is_https,
            host: bare.unwrap_or(host).to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it asks for TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// The host alone: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What `Host` says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The target of a request below this URL.
    pub fn target(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The addresses that the name means now.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let looked_up = tokio::net::lookup_host((self.host.as_str(), self.port));
        let failed = |why: &dyn std::fmt::Display| format!("{:?} is not found: {why}", self.host);
        match tokio::time::timeout(LOOKUP, looked_up).await {
            Ok(Ok(found)) => Ok(found.take(MAX_ADDRESSES).collect()),
            Ok(Err(error)) => Err(failed(&error)),
            Err(late) => Err(failed(&late)),
        }
    }
}

/// Those of the addresses that lie in a range.
pub fn within(addresses: &[SocketAddr], ranges: &[IpNet]) -> Vec<SocketAddr> {
    let allowed = |ip: IpAddr| ranges.iter().any(|range| range.contains(&ip));
    let addresses = addresses.iter().copied();
    // An IPv4 address in IPv6 clothes is that IPv4 address.
    addresses
        .filter(|address| allowed(address.ip().to_canonical()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_scheme_host_port_and_path_and_nothing_else() {
        let address = Address::parse("http://Crank.example:81/base/").unwrap();
        assert_eq!(address.authority(), "Crank.example:81");
        assert_eq!(address.target("/healthz"), "/base/healthz");
        assert_eq!(Address::parse("http://[::1]").unwrap().host, "::1");
        assert!(Address::parse("https://localhost:8501").unwrap().is_https());
        for text in [
            "",
            "localhost:80",
            "/x",
            "ftp://a",
            "http://",
            "http://a:99999",
            "http://u@a",
            "http://a?b",
            "http://a#b",
        ] {
            assert!(Address::parse(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn only_what_the_operator_allows_is_within() {
        let ranges = ["10.0.0.0/8".parse().unwrap()];
        let addresses = [
            "10.1.2.3:1",
            "127.0.0.1:1",
            "[::ffff:10.0.0.1]:1",
            "[::1]:1",
        ];
        let addresses = addresses.map(|text| text.parse().unwrap());
        assert_eq!(within(&addresses, &ranges), [addresses[0], addresses[2]]);
        assert!(within(&addresses, &[]).is_empty());
    }
}
