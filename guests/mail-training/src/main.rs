//! Makes, trains and judges the models of the workers for mail. Everything comes from this folder's
//! texts and a fixed sequence of random numbers: the same sources make the same models.
//!
//!     cargo run --release -p mail-training            # trains, and writes both models
//!     cargo run --release -p mail-training evaluate   # judges them, prints docs/evaluation's figures

mod evaluate;
mod grammar;
mod obfuscate;
mod random;
mod senders;
mod train;
mod written;

use std::fs;
use std::path::PathBuf;

/// Counts up when models with other contents are published.
const VERSION: u32 = 1;

/// The three classes of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Spam,
    Important,
    Normal,
}

impl Class {
    fn parse(name: &str) -> Self {
        match name {
            "spam" => Self::Spam,
            "important" => Self::Important,
            "normal" => Self::Normal,
            other => panic!("no class is called {other}"),
        }
    }
}

/// A mail whose class is known.
#[derive(Clone, Debug)]
struct Sample {
    class: Class,
    /// What it was made from; those of one family resemble each other.
    family: String,
    subject: String,
    text: String,
    headers: String,
}

impl Sample {
    fn features(&self) -> Vec<mail::Feature> {
        mail::evidence(&mail::Mail {
            subject: &self.subject,
            text: &self.text,
            headers: &self.headers,
        })
    }
}

/// Where a worker's model lies.
fn model_file(worker: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../{worker}/model.bin"))
}

fn main() {
    let trained = train::train();
    match std::env::args().nth(1).as_deref() {
        None => {
            for (worker, file) in [
                ("spam-detection", &trained.spam),
                ("email-classifier", &trained.importance),
            ] {
                let place = model_file(worker);
                fs::write(&place, file).expect("a model is written");
                println!("{worker}: {} bytes", file.len());
            }
        }
        Some("evaluate") => print!("{}", evaluate::page(&trained)),
        Some(other) => panic!("no command is called {other}; there is `evaluate`, or none"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use train::Trained;

    static TRAINED: LazyLock<Trained> = LazyLock::new(train::train);

    #[test]
    fn the_models_in_the_repository_are_what_training_makes() {
        for (worker, file) in [
            ("spam-detection", &TRAINED.spam),
            ("email-classifier", &TRAINED.importance),
        ] {
            assert!(
                fs::read(model_file(worker)).unwrap() == *file,
                "{worker}: train anew"
            );
        }
    }

    #[test]
    fn the_page_about_mail_has_the_figures_that_evaluate_prints() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/evaluation-mail.md");
        let page = fs::read_to_string(place).unwrap();
        let (_, printed) = page.split_once("## As printed\n").unwrap();
        // A section of a page has headings that are one deeper.
        let figures = format!("\n{}", evaluate::page(&TRAINED)).replace("\n## ", "\n### ");
        assert_eq!(printed.trim(), figures.trim());
    }
}
