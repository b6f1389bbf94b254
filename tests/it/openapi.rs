//! The interface as an OpenAPI document, and the page that shows it.

use serde_json::Value;

use crate::support::{Host, run};

const ROUTES: &str = include_str!("../../host/api/routes.rs");

async fn document(host: &Host) -> Value {
    let answer = host.get("/openapi.json").await;
    answer.json().await.expect("JSON")
}

/// Every `$ref` below a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_has_every_route_and_every_capability_and_all_that_it_points_at() {
    run(async {
        let host = Host::start(|_| {}).await;
        let document = document(&host).await;
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().expect("paths");
        let routes = ROUTES.split(".route(\"").skip(1);
        for route in routes.filter_map(|rest| rest.split('"').next()) {
            // What takes a capability's name is there for each capability; files of the page are not for callers.
            if !route.starts_with("/invoke/") && route != "/docs/{*file}" {
                assert!(paths.contains_key(route), "{route}");
            }
        }
        let greet = &paths["/invoke/greet/hello_world"]["post"];
        let input = &greet["requestBody"]["content"]["application/json"];
        assert_eq!(
            input["schema"]["$ref"],
            "#/components/schemas/greet.hello_world.input"
        );
        assert_eq!(input["examples"]["example-1"]["value"]["name"], "Ada");
        assert!(
            greet["responses"]["502"]["description"]
                .as_str()
                .is_some_and(|codes| codes.contains("`memory-limit`"))
        );
        assert!(paths.contains_key("/invoke/greet"), "a verb with one name");
        assert!(!paths.contains_key("/invoke/convert"), "a verb with eight");
        let pdf = &paths["/invoke/convert/pdf_to_text"]["post"];
        assert!(
            pdf["requestBody"]["content"]["application/pdf"].is_object(),
            "{pdf}"
        );
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    });
}

#[test]
fn the_page_and_all_that_it_loads_come_from_this_host() {
    run(async {
        let host = Host::start(|_| {}).await;
        let get = async |path: &str| {
            let answer = host.get(path).await;
            let policy = answer.headers().get("content-security-policy").cloned();
            (
                answer.status().as_u16(),
                policy,
                answer.text().await.expect("text"),
            )
        };
        assert_eq!(get("/docs").await.0, 308);
        let (status, policy, page) = get("/docs/").await;
        assert_eq!(status, 200);
        let policy = policy.expect("a policy");
        assert!(
            policy
                .to_str()
                .expect("text")
                .starts_with("default-src 'self'")
        );
        let mut loaded = 0;
        for attribute in ["src=\"", "href=\""] {
            for file in page
                .split(attribute)
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
            {
                let path = format!("/docs/{}", file.trim_start_matches("./"));
                let (status, _, text) = get(&path).await;
                assert_eq!(status, 200, "{path}");
                assert!(!text.is_empty(), "{path}");
                loaded += 1;
            }
        }
        assert!(loaded >= 3, "{page}");
        let (_, _, script) = get("/docs/swagger-initializer.js").await;
        assert!(script.contains("/openapi.json"), "{script}");
        assert_eq!(get("/docs/nothing").await.0, 404);
    });
}
