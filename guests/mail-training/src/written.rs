//! Mails that a person wrote: `=== class [kind]`, header lines, a blank line, the text.

use crate::{Class, Sample};

/// Seen while the models were made: they are calibrated on it.
pub fn development() -> Vec<Sample> {
    parse(include_str!("../written/development.txt"))
}

/// Never seen by training.
pub fn held_out() -> Vec<Sample> {
    parse(include_str!("../written/held-out.txt"))
}

fn parse(file: &str) -> Vec<Sample> {
    format!("\n{file}")
        .split("\n=== ")
        .skip(1)
        .map(sample)
        .collect()
}

fn sample(entry: &str) -> Sample {
    let (title, mail) = entry.split_once('\n').expect("a title, then a mail");
    let (head, text) = mail.split_once("\n\n").expect("a head, then a text");
    let (class, kind) = title.split_once(' ').unwrap_or((title, "plain"));
    let mut subject = "";
    let mut headers = String::new();
    for line in head.lines() {
        match line.strip_prefix("Subject: ") {
            Some(rest) => subject = rest,
            None => headers.push_str(&format!("{line}\r\n")),
        }
    }
    Sample {
        class: Class::parse(class),
        family: kind.to_owned(),
        subject: subject.to_owned(),
        text: text.trim_end().to_owned(),
        headers,
    }
}
