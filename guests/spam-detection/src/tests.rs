//! What a caller sees, through the worker's own front door or with a host in memory.

use std::time::Instant;

use crank_worker::Payload;
use mail::outside::Rehearsal;
use serde_json::{Value, json};

use super::*;

fn call(input: &Value) -> Result<Value, Failure> {
    let request = Request {
        capability: "classify:spam_detection".into(),
        ..Request::default()
    };
    let input = Payload {
        media_type: "application/json".into(),
        body: input.to_string().into_bytes(),
    };
    let answer = spam_detection().handle(&request, input)?;
    Ok(serde_json::from_slice(&answer.body).unwrap())
}

fn probability(text: &str) -> f64 {
    call(&json!({ "email_text": text })).unwrap()["probability"]
        .as_f64()
        .unwrap()
}

const OFFER: &str = "Cheap viagra and cialis without prescription. Order now and save 80% off all pills, discreet shipping: http://best-pills.example/offer";

#[test]
fn an_offer_of_pills_is_spam_and_an_invitation_is_not() {
    let offer = call(&json!({"subject": "Discount meds", "email_text": OFFER})).unwrap();
    assert_eq!(offer["spam"], true);
    assert!(offer["probability"].as_f64().unwrap() > 0.9, "{offer}");
    assert!(offer["reasons"].to_string().contains("discount"), "{offer}");
    let lunch = "Are you two coming for lunch on Sunday? I'm making lasagne, bring the kids!";
    assert!(probability(lunch) < 0.2);
}

#[test]
fn a_disguise_changes_little() {
    let open = probability(OFFER);
    let swap = |pairs: &[(&str, &str)]| {
        let change = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        let (words, link) = OFFER.split_once("http").unwrap();
        format!("{}http{link}", pairs.iter().fold(words.to_owned(), change))
    };
    for (disguise, text) in [
        (
            "Cyrillic and Greek letters",
            swap(&[("a", "а"), ("e", "е"), ("o", "о"), ("i", "і"), ("p", "ρ")]),
        ),
        ("full width", OFFER.replace("viagra", "ｖｉａｇｒａ")),
        (
            "zero-width characters",
            swap(&[
                ("ia", "i\u{200B}a"),
                ("ll", "l\u{AD}l"),
                ("re", "r\u{2060}e"),
            ]),
        ),
        (
            "comments",
            swap(&[
                ("ia", "i<!-- x -->a"),
                ("er", "e<!---->r"),
                ("il", "i<!--<p>-->l"),
            ]),
        ),
        (
            "empty tags",
            swap(&[("ia", "i<b></b>a"), ("er", "e<span></span>r")]),
        ),
        (
            "numeric references",
            swap(&[("i", "&#105;"), ("a", "&#x61;")]),
        ),
        (
            "digits and signs",
            swap(&[("a", "@"), ("e", "3"), ("i", "1"), ("o", "0")]),
        ),
        (
            "gaps",
            swap(&[("viagra", "v i a g r a"), ("cialis", "c.i.a.l.i.s")]),
        ),
        ("accents", swap(&[("a", "à"), ("i", "ï"), ("e", "ê")])),
    ] {
        let found = probability(&text);
        assert!(
            found > 0.9 && found > open - 0.05,
            "{disguise}: {found} of {open}"
        );
    }
}

/// Other scripts, their joiners, and what newsletters hide are nobody's disguise.
#[test]
fn honest_letters_carry_no_marks() {
    for text in [
        "Привет! Посылаю фотографии с выходных, приезжайте в гости.",
        "می‌خواهم کتاب‌ها را ببینم",
        "Η γνώση είναι δύναμη",
        "👨‍👩‍👧‍👦 waren am See, es war schön in Łódź",
        "<div style=\"display:none\">Hello&zwnj;&nbsp;&zwnj;</div><p>This week: <b>B</b>ees.</p>",
        "来月の同窓会の場所は駅前です。",
    ] {
        let letter = Letter {
            email_text: text.into(),
            subject: "Hello".into(),
            ..Letter::default()
        };
        let features = letter.features("").unwrap();
        let odd = features
            .iter()
            .find(|feature| feature.name.contains("inside a word"));
        let odd = odd.filter(|feature| !feature.name.contains("tags"));
        assert_eq!(odd, None, "{text}");
    }
}

#[test]
fn headers_are_evidence() {
    let mail = |headers: &str| {
        let text = "Please confirm your account details in the customer area.";
        let answer =
            call(&json!({"subject": "Your account", "email_text": text, "headers": headers}));
        answer.unwrap()["probability"].as_f64().unwrap()
    };
    let honest = mail(
        "From: Bank <service@bank.example>\r\nAuthentication-Results: mx.example; spf=pass; dkim=pass; dmarc=pass\r\n",
    );
    let forged = mail(
        "From: Bank <service@bank.example>\r\nReply-To: desk@freemail.example\r\nAuthentication-Results: mx.example; dmarc=fail\r\n",
    );
    assert!(forged > honest + 0.2, "{forged} and {honest}");
    // What stands below our own server's line may be invented.
    let invented = mail(
        "Authentication-Results: mx.example; dmarc=fail\r\nFrom: Bank <service@bank.example>\r\nReply-To: desk@freemail.example\r\nAuthentication-Results: mx.example; dmarc=pass\r\n",
    );
    assert!((invented - forged).abs() < 1e-9);
}

#[test]
fn a_mail_of_nothing_is_refused_and_one_of_anything_is_not() {
    let failure = call(&json!({"email_text": " \n", "subject": ""})).unwrap_err();
    assert_eq!(failure.pointer.as_deref(), Some("/email_text"));
    assert_eq!(failure.code.as_deref(), Some("empty"));
    for text in [
        "?",
        "\u{200B}",
        "<",
        "<!--",
        "&#",
        "http://",
        "@",
        "\u{202E}abc",
        "<a href=",
        "0",
    ] {
        call(&json!({ "email_text": text })).unwrap();
    }
}

#[test]
fn a_mail_of_many_megabytes_is_judged_by_its_ends() {
    let filler = "lorem ipsum dolor <b>sit</b> amet ".repeat(1_000_000);
    let start = Instant::now();
    let answer = call(&json!({"email_text": format!("{OFFER}\n{filler}")})).unwrap();
    assert_eq!(answer["spam"], true, "{answer}");
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

/// Letters of a hiking club that a caller never wants, and those of others that they do.
fn club(at: usize) -> Value {
    let hills = ["Brocken", "Arber", "Rigi", "Snowdon", "Teide"];
    let place = hills[at % hills.len()];
    json!({
        "subject": format!("Ramblers circular {at}"),
        "email_text": format!("Fellow ramblers, our next hike takes us up the {place}. Sturdy boots and a thermos, departure at dawn by the old mill. Warden Hobbs leads."),
        "spam": true,
    })
}

#[test]
fn spam_is_not_drowned_in_innocent_words() {
    let innocent = "notes from the seminar, photos of the garden, soup recipes, choir rehearsal, chess results and holiday greetings from Grandma and the neighbours. ".repeat(6);
    for text in [
        format!("{OFFER}\n\n{innocent}"),
        format!("{innocent}\n\n{OFFER}"),
    ] {
        assert!(probability(&text) > 0.5, "{}", probability(&text));
    }
    assert!(probability(&innocent) < 0.2);
}

#[test]
fn twenty_lessons_change_the_verdict_on_their_like_and_on_nothing_else() {
    let outside = Rehearsal::default();
    let caller = |id: &str| Request {
        context: vec![("origin".into(), format!("spiffe://crank.local/person/{id}"))],
        ..Request::default()
    };
    let judge = |mail: &Value, id: &str| {
        let mut mail = mail.clone();
        mail.as_object_mut().unwrap().remove("spam");
        let input = serde_json::from_value(mail).unwrap();
        detect_with(&outside, input, &caller(id))
            .unwrap()
            .probability
    };
    let unseen = json!({
        "subject": "Ramblers circular 77",
        "email_text": "Fellow ramblers, on Saturday we hike up the Matterhorn. Bring sturdy boots, departure at dawn by the mill. Warden Hobbs",
    });
    let others = [
        json!({"subject": "Sunday", "email_text": "Are you two coming for lunch on Sunday? Bring the kids!"}),
        json!({"subject": "Minutes", "email_text": "Here are the notes from the design meeting, we talked about the new layout."}),
        json!({"subject": "Your order", "email_text": "Your parcel is on its way and will arrive on Thursday."}),
        json!({"subject": "Discount meds", "email_text": OFFER}),
    ];
    let before: Vec<f64> = others.iter().map(|mail| judge(mail, "ada")).collect();
    assert!(judge(&unseen, "ada") < 0.5);

    let lessons = json!({"mails": (0..20).map(club).collect::<Vec<_>>()});
    let lessons = serde_json::from_value(lessons).unwrap();
    let learned = learn_with(&outside, lessons, &caller("ada")).unwrap();
    assert_eq!((learned.learned, learned.spam, learned.ham), (20, 20, 0));

    assert!(judge(&unseen, "ada") > 0.9, "{}", judge(&unseen, "ada"));
    for (mail, before) in others.iter().zip(before) {
        let after = judge(mail, "ada");
        assert!(
            (after - before).abs() < 0.15 && (after < 0.5) == (before < 0.5),
            "{mail}: {before}, then {after}"
        );
    }
    // Another caller has another model.
    assert!(judge(&unseen, "bob") < 0.5);
    let kept = outside.state.borrow().values().next().unwrap().len();
    assert!(kept < 2_000, "{kept} bytes");
}

#[test]
fn what_was_taught_is_never_replaced_by_mistake() {
    let outside = Rehearsal::default();
    outside
        .state
        .borrow_mut()
        .insert("learned/everyone".into(), b"CML1 and then rubbish".to_vec());
    let lessons = serde_json::from_value(json!({"mails": [club(1)]})).unwrap();
    let failure = learn_with(&outside, lessons, &Request::default())
        .err()
        .unwrap();
    assert_eq!(failure.code.as_deref(), Some("model-damaged"));
    assert!(outside.state.borrow()["learned/everyone"].ends_with(b"rubbish"));
}
