//! Mails made by rule. A family is a subject, sentences that mostly come in this order, and a manner
//! of greeting, signing and sending; `{a|b}` is a choice, `<first>` something from a list.

use crate::random::Random;
use crate::{Class, Sample, obfuscate};

/// Mails of each family.
const MAILS: usize = 60;

const FIRST: [&str; 28] = [
    "Anna", "Ben", "Carla", "David", "Elif", "Frank", "Grace", "Hugo", "Ines", "Jan", "Kemal",
    "Laura", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Uwe", "Vera", "Wei", "Yara",
    "Zoe", "Amir", "Keiko", "Sven", "Lucia",
];
const NAME: [&str; 24] = [
    "Miller", "Garcia", "Novak", "Schmidt", "Rossi", "Dubois", "Jensen", "Kowalski", "Silva",
    "Tanaka", "Khan", "Brown", "Meyer", "Larsen", "Moreau", "Costa", "Okoye", "Weber", "Singh",
    "Horvat", "Peters", "Bakker", "Ortiz", "Wood",
];
const COMPANY: [&str; 20] = [
    "Northwind",
    "Acme",
    "Blue Harbor",
    "Contoso",
    "Fabrikam",
    "Lakeside",
    "Orchard",
    "Sparrow",
    "Tideline",
    "Vertex",
    "Granite",
    "Juniper",
    "Kestrel",
    "Meridian",
    "Pinecone",
    "Quarry",
    "Saffron",
    "Willow",
    "Zephyr",
    "Brightside",
];
const PRODUCT: [&str; 14] = [
    "lamp",
    "notebook",
    "jacket",
    "coffee grinder",
    "bike light",
    "headphones",
    "kettle",
    "backpack",
    "desk chair",
    "rain coat",
    "tea set",
    "keyboard",
    "blender",
    "tent",
];
const CITY: [&str; 16] = [
    "Lyon", "Porto", "Dresden", "Leeds", "Oslo", "Gdansk", "Turin", "Seville", "Utrecht", "Vienna",
    "Prague", "Boston", "Toronto", "Kyoto", "Athens", "Cork",
];
const DAY: [&str; 16] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "3 May",
    "12 June",
    "20 March",
    "7 October",
    "28 November",
    "15 January",
    "30 September",
    "1 December",
    "24 August",
];
const MONTH: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

struct Family<'a> {
    class: Class,
    name: &'a str,
    manner: &'a str,
    subjects: Vec<&'a str>,
    sentences: Vec<&'a str>,
}

/// All mails of all families.
pub fn samples() -> Vec<Sample> {
    let files = [
        include_str!("../grammar/spam.txt"),
        include_str!("../grammar/important.txt"),
        include_str!("../grammar/normal.txt"),
    ];
    let mut samples = Vec::new();
    for family in files
        .iter()
        .flat_map(|file| file.split("=== ").skip(1))
        .map(parse)
    {
        // Its own sequence, so that one family's change leaves the others as they are.
        let seed = family.name.bytes().fold(17, |seed: u64, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        let mut random = Random::new(seed);
        samples.extend((0..MAILS).map(|_| family.mail(&mut random)));
    }
    samples
}

fn parse(entry: &str) -> Family<'_> {
    let mut lines = entry.lines();
    let title: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [class, name, manner] = title[..] else {
        panic!("a family's title is `class name manner`, not {title:?}");
    };
    let mut family = Family {
        class: Class::parse(class),
        name,
        manner,
        subjects: Vec::new(),
        sentences: Vec::new(),
    };
    for line in lines {
        match line.split_once(' ') {
            Some(("s", subject)) => family.subjects.push(subject),
            Some(("-", sentence)) => family.sentences.push(sentence),
            _ => panic!("{name}: a line begins with `s` or `-`, not: {line}"),
        }
    }
    family
}

impl Family<'_> {
    fn mail(&self, random: &mut Random) -> Sample {
        let subject = match random.below(30) {
            0 => String::new(),
            _ => expand(random.pick(&self.subjects), random),
        };
        let mut sentences: Vec<&str> = self
            .sentences
            .iter()
            .copied()
            .filter(|_| random.percent(55))
            .collect();
        if sentences.is_empty() {
            sentences.push(random.pick(&self.sentences));
        }
        let gap = random.pick(&[" ", "\n", "\n\n"]);
        let mut text: Vec<String> = sentences
            .iter()
            .map(|sentence| expand(sentence, random))
            .collect();
        let (greetings, endings) = manners(self.manner);
        if random.percent(60) {
            text.insert(0, expand(random.pick(greetings), random));
        }
        if random.percent(60) {
            text.push(expand(random.pick(endings), random));
        }
        let mut text = text.join(gap);
        if random.percent(10) && self.class == Class::Spam {
            // Not the padding: what looks innocent is not made a sign of guilt.
            let (_, way) = obfuscate::WAYS[random.below(obfuscate::WAYS.len() - 1)];
            text = way(&text, random);
        }
        if self.manner == "bulk" && random.percent(20) {
            text = page(&text);
        }
        let headers = if random.percent(40) {
            headers(self.manner, random)
        } else {
            String::new()
        };
        Sample {
            class: self.class,
            family: self.name.to_owned(),
            subject,
            text,
            headers,
        }
    }
}

/// A newsletter's HTML, with the hidden line that mail programs show in their lists.
fn page(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("<p>{line}</p>")).collect();
    format!(
        "<html><body><div style=\"display:none\">News&zwnj;&nbsp;&zwnj;</div>{}</body></html>",
        lines.concat()
    )
}

/// How people of a manner greet, and how they end.
fn manners(manner: &str) -> (&'static [&'static str], &'static [&'static str]) {
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

/// Makes one text of a rule.
fn expand(rule: &str, random: &mut Random) -> String {
    let mut text = rule.to_owned();
    // The innermost choice first.
    while let Some(end) = text.find('}') {
        let start = text[..end]
            .rfind('{')
            .unwrap_or_else(|| panic!("a choice has no beginning: {rule}"));
        let choices: Vec<&str> = text[start + 1..end].split('|').collect();
        let choice = random.pick(&choices).to_owned();
        text.replace_range(start..=end, &choice);
    }
    while let Some(start) = text.find('<') {
        let end = start
            + text[start..]
                .find('>')
                .unwrap_or_else(|| panic!("a list's name has no end: {rule}"));
        let word = fill(&text[start + 1..end], random);
        text.replace_range(start..=end, &word);
    }
    text
}

fn fill(list: &str, random: &mut Random) -> String {
    match list {
        "first" => random.pick(&FIRST).to_owned(),
        "name" => random.pick(&NAME).to_owned(),
        "company" => random.pick(&COMPANY).to_owned(),
        "product" => random.pick(&PRODUCT).to_owned(),
        "city" => random.pick(&CITY).to_owned(),
        "day" => random.pick(&DAY).to_owned(),
        "month" => random.pick(&MONTH).to_owned(),
        "n" => format!("{}", 1 + random.below(90)),
        "time" => format!("{}:{}0", 7 + random.below(13), random.below(6)),
        "amount" => format!(
            "{}{}.{}{}",
            random.pick(&["", "", "EUR ", "$", "£"]),
            5 + random.below(900),
            random.below(10),
            random.below(10)
        ),
        "big" => format!(
            "{}{},{}00,000",
            random.pick(&["", "$", "USD "]),
            1 + random.below(30),
            1 + random.below(9)
        ),
        "code" => format!(
            "{}{}",
            random.pick(&["", "A", "K", "INV-", "R"]),
            10_000 + random.below(90_000)
        ),
        "link" => format!(
            "{}://{}.example/{}",
            random.pick(&["https", "https", "http"]),
            random.pick(&COMPANY).to_lowercase().replace(' ', ""),
            random.pick(&["news", "account", "order", "settings", "read", "help"])
        ),
        "bad" => bad_link(random),
        other => panic!("no list is called {other}"),
    }
}

fn bad_link(random: &mut Random) -> String {
    let word = random.pick(&[
        "offer", "secure", "login", "verify", "bonus", "claim", "deal", "online", "account",
        "update", "best", "win",
    ]);
    let other = random.pick(&[
        "now", "365", "center", "world", "shop", "portal", "club", "24",
    ]);
    match random.below(10) {
        0 => format!(
            "http://{}.{}.{}.{}/{word}",
            11 + random.below(200),
            random.below(255),
            random.below(255),
            1 + random.below(254)
        ),
        1 => format!("http://bit.ly/{}{word}", random.below(99)),
        2..=4 => format!("https://{word}-{other}.example/{}", random.below(9999)),
        _ => format!("http://{word}-{other}.example/{word}"),
    }
}

/// A header block, as such senders' mails mostly have it. These shares are assumptions, not counts.
fn headers(manner: &str, random: &mut Random) -> String {
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
