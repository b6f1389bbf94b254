//! What a caller sees, with a host in memory. The real peers answer in the host's own tests.

use crank_worker::{FailureKind, Payload};
use mail::outside::Rehearsal;
use serde_json::{Value, json};

use super::*;

/// Plays the peers: mails that speak of pills are spam, a message is what stands below its headers.
fn peers(capability: &str, input: &Payload) -> Result<Value, Failure> {
    match capability {
        "classify:spam_detection" => {
            let input: Value = serde_json::from_slice(&input.body).unwrap();
            let pills = input["email_text"].as_str().unwrap().contains("pills");
            let reasons = [json!({"evidence": "pills", "weight": 2.5})];
            Ok(match pills {
                true => {
                    json!({"spam": true, "probability": 0.98, "reasons": reasons, "model": 1, "taught": 0})
                }
                false => {
                    json!({"spam": false, "probability": 0.04, "reasons": [], "model": 1, "taught": 0})
                }
            })
        }
        "convert:email_to_text" => {
            assert_eq!(input.media_type, "message/rfc822");
            let text = std::str::from_utf8(&input.body).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                // As the host tells of it.
                return Err(Failure::failed("this is no e-mail").code("invalid-input"));
            };
            let subject = head.lines().find_map(|line| line.strip_prefix("Subject: "));
            Ok(
                json!({"subject": subject, "from": [], "to": [], "cc": [], "date": null, "text": body, "attachments": []}),
            )
        }
        other => panic!("{other} is not declared"),
    }
}

fn rehearsal() -> Rehearsal {
    Rehearsal {
        peers: Some(peers),
        ..Rehearsal::default()
    }
}

fn sort(outside: &Rehearsal, input: Value) -> Result<Output, Failure> {
    let input = serde_json::from_value(input).unwrap();
    classify_with(outside, input, &Request::default())
}

#[test]
fn each_category_is_found_and_says_why() {
    for (input, category) in [
        (
            json!({"subject": "Discount", "email_text": "Cheap pills, order now"}),
            Category::Spam,
        ),
        (
            json!({"subject": "Invoice 4417 is due on Friday", "email_text": "Please transfer the amount by Friday to avoid a reminder fee."}),
            Category::Important,
        ),
        (
            json!({"subject": "Photos", "email_text": "Hi all, here are the pictures from the lake. See you on Sunday for cake, love, Grandma"}),
            Category::Normal,
        ),
    ] {
        let answer = sort(&rehearsal(), input).unwrap();
        assert_eq!(answer.category, category, "{:?}", answer.words);
        let Scores {
            spam,
            important,
            normal,
        } = answer.scores;
        assert!((spam + important + normal - 1.0).abs() < 1e-9);
        assert!(answer.confidence > 0.5 && answer.confidence <= 1.0);
        // What decided speaks for the category, on the whole.
        assert!(answer.words.iter().map(|word| word.weight).sum::<f64>() > 0.0);
    }
}

#[test]
fn a_message_as_it_was_sent_goes_through_its_converter() {
    let message = |text: &str| json!({"message": Bytes(text.as_bytes().to_vec())});
    let mail = "From: Ada <ada@example.org>\r\nSubject: Discount\r\n\r\nCheap pills, order now";
    assert_eq!(
        sort(&rehearsal(), message(mail)).unwrap().category,
        Category::Spam
    );
    // What it cannot read is the caller's to mend.
    let failure = sort(&rehearsal(), message("no mail")).err().unwrap();
    assert_eq!(failure.kind, FailureKind::InvalidInput);
    assert_eq!(failure.code.as_deref(), Some("unreadable"));
    let both = json!({"message": Bytes(mail.into()), "email_text": "or this"});
    assert_eq!(
        sort(&rehearsal(), both).err().unwrap().pointer.as_deref(),
        Some("/message")
    );
}

#[test]
fn without_its_peer_it_fails_and_does_not_guess() {
    let outside = Rehearsal::default();
    assert!(sort(&outside, json!({"email_text": "Hello"})).is_err());
    let failure = sort(&rehearsal(), json!({})).err().unwrap();
    assert_eq!(failure.code.as_deref(), Some("empty"));
}

#[test]
fn twenty_lessons_change_the_verdict_on_their_like_and_on_nothing_else() {
    let outside = rehearsal();
    let report = |at: usize| {
        let valve = ["intake", "bypass", "relief", "drain"][at % 4];
        json!({
            "subject": format!("Boiler telemetry {at}"),
            "email_text": format!("Hourly reading of the {valve} valve: pressure nominal, flue clean, ignition count {at}."),
            "category": "important",
        })
    };
    let unseen = json!({"subject": "Boiler telemetry 99", "email_text": "Hourly reading of the main valve: pressure falling, flue clean, ignition count 7."});
    let others = [
        json!({"subject": "Photos", "email_text": "Hi all, here are the pictures from the lake. See you on Sunday, love, Grandma"}),
        json!({"subject": "Invoice 4417 is due on Friday", "email_text": "Please transfer the amount by Friday to avoid a reminder fee."}),
        json!({"subject": "Chess club", "email_text": "Round four is away, bring cake. Thanks to all who came."}),
        json!({"subject": "Discount", "email_text": "Cheap pills, order now"}),
    ];
    let categories = |outside: &Rehearsal| {
        others
            .clone()
            .map(|mail| sort(outside, mail).unwrap().category)
    };
    let before = categories(&outside);
    assert_eq!(
        sort(&outside, unseen.clone()).unwrap().category,
        Category::Normal
    );

    let lessons = json!({"mails": (0..20).map(report).collect::<Vec<_>>()});
    let learned = learn_with(
        &outside,
        serde_json::from_value(lessons).unwrap(),
        &Request::default(),
    )
    .unwrap();
    assert_eq!((learned.learned, learned.important), (20, 20));

    let answer = sort(&outside, unseen).unwrap();
    assert_eq!((answer.category, answer.taught), (Category::Important, 20));
    assert!(
        answer
            .words
            .iter()
            .any(|word| word.word.contains("valve") || word.word.contains("boiler")),
        "{:?}",
        answer.words
    );
    assert_eq!(categories(&outside), before);
}

#[test]
fn a_caller_can_teach_what_is_spam_to_them() {
    let outside = rehearsal();
    let request = |origin: &str| Request {
        context: vec![("origin".into(), origin.into())],
        ..Request::default()
    };
    let mail = |at: usize| {
        format!(
            "Subject: Kite gazette {at}\r\n\r\nKites, strings and gales: the gazette for flyers, edition {at}."
        )
    };
    for at in 0..12 {
        let lesson = json!({"message": Bytes(mail(at).into_bytes()), "category": "spam"});
        learn_with(
            &outside,
            serde_json::from_value(lesson).unwrap(),
            &request("ada"),
        )
        .unwrap();
    }
    let sort = |origin: &str| {
        let input = json!({"message": Bytes(mail(50).into_bytes())});
        classify_with(
            &outside,
            serde_json::from_value(input).unwrap(),
            &request(origin),
        )
        .unwrap()
        .category
    };
    assert_eq!(sort("ada"), Category::Spam);
    assert_eq!(sort("bob"), Category::Normal);
}

#[test]
fn a_lesson_without_its_category_is_refused() {
    let learn = |lessons: Value| {
        let lessons = serde_json::from_value(lessons).unwrap();
        learn_with(&rehearsal(), lessons, &Request::default())
            .err()
            .unwrap()
            .pointer
    };
    assert_eq!(learn(json!({})).as_deref(), Some("/mails"));
    assert_eq!(
        learn(json!({"message": "TQ=="})).as_deref(),
        Some("/category")
    );
    let empty = json!({"mails": [{"email_text": "Hello", "category": "normal"}, {"email_text": "", "category": "spam"}]});
    assert_eq!(learn(empty).as_deref(), Some("/mails/1/email_text"));
}
