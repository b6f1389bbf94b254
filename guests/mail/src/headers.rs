//! What the header block of a mail shows.

use mail_parser::{Address, MessageParser};

use crate::evidence::Marks;
use crate::words::domain;

/// Where everyone can have an address: an office does not write from there.
const FREE: [&str; 14] = [
    "aol.com",
    "freemail.example",
    "gmail.com",
    "gmx.de",
    "gmx.net",
    "hotmail.com",
    "icloud.com",
    "mail.com",
    "mail.ru",
    "outlook.com",
    "proton.me",
    "web.de",
    "yahoo.com",
    "yandex.ru",
];

/// What offices call themselves.
const OFFICES: [&str; 14] = [
    "account",
    "admin",
    "bank",
    "billing",
    "ceo",
    "customer",
    "department",
    "desk",
    "director",
    "office",
    "security",
    "service",
    "support",
    "team",
];

/// More than so many are a crowd.
const CROWD: usize = 10;

/// Reads a header block (RFC 5322).
pub fn read(block: &str, marks: &mut Marks) {
    let Some(message) = MessageParser::default().parse_headers(block.as_bytes()) else {
        return;
    };
    // The topmost of a name: our own mail server's is above what the sender may have invented.
    let raw = |name: &str| {
        let header = message
            .headers()
            .iter()
            .find(|header| header.name.as_str().eq_ignore_ascii_case(name))?;
        let place = header.offset_start as usize..header.offset_end as usize;
        block.get(place).map(str::to_ascii_lowercase)
    };
    let has = |name: &str| raw(name).is_some();
    let from = message.from().and_then(address_of);
    for (other, mark) in [
        (
            message.reply_to().and_then(address_of),
            "[replies go to another domain]",
        ),
        (
            raw("Return-Path").map(|path| path.trim().trim_matches(['<', '>']).to_owned()),
            "[bounces go to another domain]",
        ),
    ] {
        if let (Some(from), Some(other)) = (&from, other)
            && other.contains('@')
            && home(from) != home(&other)
        {
            marks.add(mark);
        }
    }
    let name = message
        .from()
        .and_then(|from| from.first()?.name.as_deref())
        .unwrap_or_default()
        .to_lowercase();
    if let Some(from) = &from {
        let local = from.split('@').next().unwrap_or_default();
        let office = OFFICES
            .iter()
            .any(|office| name.contains(office) || local.contains(office));
        if office && FREE.contains(&home(from).as_str()) {
            marks.add("[an office at a free mail service]");
        }
        if name.contains('@') && !name.contains(from) {
            marks.add("[the sender's name is another address]");
        }
        if local.contains("noreply") || local.contains("no-reply") {
            marks.add("[from a machine]");
        }
    }
    if let Some(results) = raw("Authentication-Results") {
        let any = |signs: &[&str]| signs.iter().any(|sign| results.contains(sign));
        if any(&["spf=fail", "spf=softfail", "dkim=fail", "dmarc=fail"]) {
            marks.add("[the sender's domain disowns it]");
        } else if any(&["dmarc=pass"]) || (any(&["spf=pass"]) && any(&["dkim=pass"])) {
            marks.add("[the sender's domain vouches for it]");
        }
    }
    let recipients = message.to().map_or(0, |to| to.iter().count())
        + message.cc().map_or(0, |cc| cc.iter().count());
    let undisclosed = raw("To").is_some_and(|to| to.contains("undisclosed"));
    let high = raw("Importance").is_some_and(|value| value.contains("high"))
        || raw("X-Priority").is_some_and(|value| value.trim_start().starts_with('1'));
    for (shown, mark) in [
        (undisclosed, "[hidden recipients]"),
        (recipients > CROWD, "[many recipients]"),
        (high, "[marked as urgent]"),
        (has("List-Id"), "[from a list]"),
        (has("List-Unsubscribe"), "[can be unsubscribed]"),
        (has("Precedence"), "[sent in bulk]"),
        (has("Auto-Submitted"), "[sent automatically]"),
        (
            has("In-Reply-To") || has("References"),
            "[part of a thread]",
        ),
    ] {
        if shown {
            marks.add(mark);
        }
    }
}

fn address_of(address: &Address<'_>) -> Option<String> {
    Some(address.first()?.address.as_deref()?.to_ascii_lowercase())
}

fn home(address: &str) -> String {
    domain(address.rsplit('@').next().unwrap_or_default())
}
