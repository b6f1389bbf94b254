//! Mails made by rule. A family is a subject, sentences that mostly come in this order, and a manner
//! of greeting, signing and sending; `{a|b}` is a choice, `<first>` something from a list.

use crate::random::Random;
use crate::senders::{headers, manners};
use crate::{Class, Sample, obfuscate};

/// Mails of each family.
const MAILS: usize = 60;

pub const FIRST: [&str; 28] = [
    "Anna", "Ben", "Carla", "David", "Elif", "Frank", "Grace", "Hugo", "Ines", "Jan", "Kemal",
    "Laura", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Uwe", "Vera", "Wei", "Yara",
    "Zoe", "Amir", "Keiko", "Sven", "Lucia",
];
const NAME: [&str; 24] = [
    "Miller", "Garcia", "Novak", "Schmidt", "Rossi", "Dubois", "Jensen", "Kowalski", "Silva",
    "Tanaka", "Khan", "Brown", "Meyer", "Larsen", "Moreau", "Costa", "Okoye", "Weber", "Singh",
    "Horvat", "Peters", "Bakker", "Ortiz", "Wood",
];
pub const COMPANY: [&str; 20] = [
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
