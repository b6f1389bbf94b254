//! `greet:hello_world` over HTTP: names of every script, what is no name, and the longest there is.

use serde_json::{Value, json};

use crate::support::{Host, guest, router, run};

async fn greet(host: &Host, input: &Value) -> (u16, Value) {
    let url = host.url("/invoke/greet/hello_world");
    let answer = host.client.post(url).json(input).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[test]
fn every_name_is_greeted_as_it_is_written() {
    run(async {
        let host = Host::of(router(vec![guest("hello-world")], "").await, |_| {}).await;
        let longest = "灯".repeat(200);
        for (name, greeted) in [
            ("Ada", "Ada"),
            (" Zoë Ångström\n", "Zoë Ångström"),
            ("עדה \"Ada\" לאבלייס", "עדה \"Ada\" לאבלייס"),
            ("آدا لوفلايس", "آدا لوفلايس"),
            ("灯台守", "灯台守"),
            (
                "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
                "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            ),
            (&longest, &longest),
        ] {
            let greeting = json!({ "greeting": format!("Hello, {greeted}!") });
            assert_eq!(
                greet(&host, &json!({ "name": name })).await,
                (200, greeting)
            );
        }
    });
}

#[test]
fn what_is_no_name_is_refused_with_its_place_however_long_it_is() {
    run(async {
        let host = Host::of(router(vec![guest("hello-world")], "").await, |_| {}).await;
        for (name, pointer) in [
            (json!(""), "/name"),
            (json!(" \t\u{3000}"), "/name"),
            (json!(7), "/name"),
            (json!("x".repeat(201)), "/name"),
            (json!("x".repeat(50_000_000)), "/name"),
            (Value::Null, "/name"),
        ] {
            let (status, problem) = greet(&host, &json!({ "name": name })).await;
            assert_eq!(
                (status, &problem["code"]),
                (422, &json!("invalid-input")),
                "{problem:.300}"
            );
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem:.300}");
            // The answer does not hand fifty megabytes back.
            assert!(
                problem.to_string().len() < 4096,
                "{} bytes",
                problem.to_string().len()
            );
        }
        // One too long was no harm to the next.
        assert_eq!(greet(&host, &json!({ "name": "Ada" })).await.0, 200);
    });
}
