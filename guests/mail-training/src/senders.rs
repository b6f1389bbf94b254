//! How senders of a manner greet, sign, and what their mails' headers say.

use crate::grammar::{COMPANY, FIRST};
use crate::random::Random;

/// How people of a manner greet, and how they end.
pub fn manners(manner: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match manner {
        "person" => (
            &[
                "Hi <first>,",
                "Hello <first>,",
                "Dear <first>,",
                "Hey,",
                "Hi,",
            ],
            &[
                "Best, <first>",
                "<first>",
                "Cheers, <first>",
                "Take care",
                "Bye",
            ],
        ),
        "work" => (
            &["Hi <first>,", "Hi all,", "Hello,", "Dear <first>,", "All,"],
            &[
                "Thanks, <first>",
                "<first>",
                "Best regards, <first> <name>",
                "Regards, <first>",
            ],
        ),
        "machine" => (
            &[
                "Hello <first>,",
                "Hi <first>,",
                "Dear <first> <name>,",
                "Dear Mr <name>,",
                "Dear customer,",
                "Hello,",
            ],
            &[
                "Your <company> team",
                "<company> <link>",
                "Kind regards, <company>",
                "See <link> for details.",
                "<link>",
                "This is an automatic message.",
            ],
        ),
        "bulk" => (
            &["Hello,", "Hi <first>,", "Dear all,", "Welcome!"],
            &[
                "Your <company> team",
                "See you soon",
                "The editors",
                "<link> <link>",
                "Read on: <link>",
                "More on our site: <link>",
                "You can unsubscribe at any time.",
            ],
        ),
        "forged" => (
            &[
                "Dear customer,",
                "Dear user,",
                "Hello,",
                "Dear <first>,",
                "Attention!",
            ],
            &[
                "<company> support team",
                "Thank you",
                "<company> customer service",
                "Security department",
            ],
        ),
        "blast" => (
            &["Hello,", "Hi,", "Dear friend,", "Attention!", "Hi <first>,"],
            &[
                "To unsubscribe click here",
                "Act now!",
                "Best wishes",
                "Remove me: <bad>",
            ],
        ),
        "fraud" => (
            &[
                "Dear friend,",
                "Hello,",
                "Good day,",
                "Hi <first>,",
                "Attention,",
            ],
            &[
                "Regards",
                "<first> <name>",
                "Mr <name>",
                "Sent from my iPhone",
            ],
        ),
        "stranger" => (
            &[
                "Hi,",
                "Hello,",
                "Hi <first>,",
                "Dear sir,",
                "Good morning,",
                "Hi there,",
            ],
            &[
                "Best regards, <first>",
                "Thanks, <first>",
                "Kind regards, <first> <name>",
                "Regards, <first>",
                "<first>",
            ],
        ),
        other => panic!("no manner is called {other}"),
    }
}

/// A header block, as such senders' mails mostly have it. These shares are assumptions, not counts.
pub fn headers(manner: &str, random: &mut Random) -> String {
    let company = random.pick(&COMPANY).to_lowercase().replace(' ', "");
    let first = random.pick(&FIRST);
    let local = first.to_lowercase();
    let mut lines = Vec::new();
    let mut add = |chance: usize, line: String, random: &mut Random| {
        if random.percent(chance) {
            lines.push(line);
        }
    };
    let pass = "Authentication-Results: mx.example; spf=pass; dkim=pass; dmarc=pass".to_owned();
    let fail = "Authentication-Results: mx.example; spf=softfail; dkim=none; dmarc=fail".to_owned();
    match manner {
        "person" | "work" => {
            add(
                100,
                format!("From: {first} <{local}@{company}.example>"),
                random,
            );
            add(75, pass, random);
            add(
                40,
                format!("In-Reply-To: <{}@{company}.example>", random.below(9999)),
                random,
            );
            add(5, "Importance: high".to_owned(), random);
        }
        "machine" | "bulk" => {
            add(
                100,
                format!(
                    "From: {company} <{}@{company}.example>",
                    random.pick(&["no-reply", "info", "service", "news"])
                ),
                random,
            );
            add(90, pass, random);
            add(
                if manner == "bulk" { 85 } else { 15 },
                format!("List-Unsubscribe: <https://{company}.example/u>"),
                random,
            );
            add(
                if manner == "bulk" { 50 } else { 2 },
                format!("List-Id: <{company}.example>"),
                random,
            );
            add(
                if manner == "bulk" { 50 } else { 5 },
                "Precedence: bulk".to_owned(),
                random,
            );
            add(
                if manner == "bulk" { 10 } else { 40 },
                "Auto-Submitted: auto-generated".to_owned(),
                random,
            );
            add(
                25,
                format!("Return-Path: <bounce@mailer-{company}.example.net>"),
                random,
            );
        }
        _ => {
            let (name, from) = match manner {
                "forged" => (
                    format!("{company} security"),
                    format!(
                        "{}@{}.example",
                        random.pick(&["alert", "support", "info", "no-reply"]),
                        bad_host(random)
                    ),
                ),
                "fraud" => (
                    format!("{first} director"),
                    format!(
                        "{local}{}@{}",
                        random.below(999),
                        random.pick(&["gmail.com", "outlook.com", "freemail.example"])
                    ),
                ),
                "stranger" => (
                    first.to_owned(),
                    format!(
                        "{local}@{}",
                        random.pick(&[
                            "gmail.com",
                            "outreach.example",
                            "agency.example",
                            "growth.example"
                        ])
                    ),
                ),
                _ => (
                    company.clone(),
                    format!("{local}{}@{}.example", random.below(99), bad_host(random)),
                ),
            };
            add(100, format!("From: {name} <{from}>"), random);
            let honest = if manner == "stranger" { 65 } else { 20 };
            if random.percent(honest) {
                add(100, pass, random)
            } else {
                add(60, fail, random)
            }
            add(
                25,
                format!("Reply-To: {local}.{}@gmail.com", random.below(999)),
                random,
            );
            add(25, "To: undisclosed-recipients:;".to_owned(), random);
            add(
                20,
                format!(
                    "Return-Path: <{}@{}.example.org>",
                    random.below(99),
                    bad_host(random)
                ),
                random,
            );
            add(
                20,
                "List-Unsubscribe: <https://mailer.example/u>".to_owned(),
                random,
            );
            add(10, "X-Priority: 1".to_owned(), random);
            add(5, "Precedence: bulk".to_owned(), random);
        }
    }
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

fn bad_host(random: &mut Random) -> String {
    format!(
        "{}{}",
        random.pick(&["mail", "srv", "promo", "secure", "host"]),
        random.below(99)
    )
}
