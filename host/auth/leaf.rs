//! What makes a certificate an X.509-SVID beside its chain: one URI name that is a SPIFFE id, and no signing of others.
//!
//! Source of the rules: the X.509-SVID specification, sections 4 and 5
//! (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>). webpki, which verifies the chain, passes
//! over names that are no UTF-8 and tells nothing of key usage; so the extensions are walked here. It has parsed
//! the certificate before: what does not parse here is refused.

use crate::identity::{SpiffeId, TrustDomain};

const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
/// `[3] EXPLICIT Extensions` of a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// `[6] IA5String`, a URI among general names.
const URI: u8 = 0x86;
/// 2.5.29.15 and 2.5.29.17.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The SPIFFE id of a leaf certificate.
pub(super) fn id(der: &[u8], domain: &TrustDomain) -> Result<SpiffeId, String> {
    let Leaf { uris, usage } = read(der).ok_or("the certificate's extensions cannot be read")?;
    let uri = match uris.as_slice() {
        [] => return Err("the certificate has no URI name".to_owned()),
        [uri] => std::str::from_utf8(uri).map_err(|_| "the URI name is no text")?,
        several => return Err(format!("the certificate has {} URI names", several.len())),
    };
    let id = SpiffeId::parse(uri).map_err(|error| error.to_string())?;
    if !id.is_member_of(domain) {
        return Err(format!("{id} is outside of the trust domain {domain}"));
    }
    // The first byte counts unused bits; then digitalSignature is bit 0, keyCertSign 5, cRLSign 6.
    match usage.and_then(|bits| bits.get(1).copied()) {
        Some(bits) if bits & 0x80 != 0 && bits & 0x06 == 0 => Ok(id),
        _ => Err("the certificate's key usage is not that of a leaf: digitalSignature, and neither keyCertSign nor cRLSign".to_owned()),
    }
}

#[derive(Default)]
struct Leaf<'a> {
    uris: Vec<&'a [u8]>,
    usage: Option<&'a [u8]>,
}

fn read(der: &[u8]) -> Option<Leaf<'_>> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    let mut leaf = Leaf::default();
    while !fields.is_empty() {
        let (tag, value, rest) = next(fields)?;
        fields = rest;
        if tag != EXTENSIONS {
            continue;
        }
        let (mut extensions, _) = expect(value, SEQUENCE)?;
        while !extensions.is_empty() {
            let (extension, rest) = expect(extensions, SEQUENCE)?;
            extensions = rest;
            let (_, oid, mut rest) = next(extension)?;
            if let Some((BOOLEAN, _, after)) = next(rest) {
                rest = after;
            }
            let (value, _) = expect(rest, OCTET_STRING)?;
            match oid {
                KEY_USAGE => leaf.usage = Some(expect(value, BIT_STRING)?.0),
                SUBJECT_ALT_NAME => {
                    let (mut names, _) = expect(value, SEQUENCE)?;
                    while !names.is_empty() {
                        let (tag, name, rest) = next(names)?;
                        names = rest;
                        leaf.uris.extend((tag == URI).then_some(name));
                    }
                }
                _ => {}
            }
        }
    }
    Some(leaf)
}

/// The value of an element with this tag, and what follows it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, value, rest) = next(der)?;
    (found == tag).then_some((value, rest))
}

/// The first element: its tag, its value, and what follows it (X.690, section 8.1).
fn next(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        // Longer is no certificate that came in a handshake.
        if !(1..=3).contains(&count) {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        len = digits
            .iter()
            .fold(0, |len, digit| len << 8 | usize::from(*digit));
        rest = after;
    }
    let (value, rest) = rest.split_at_checked(len)?;
    Some((tag, value, rest))
}
