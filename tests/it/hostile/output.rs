//! Answers that no honest worker gives.

use serde_json::{Value, json};

use super::{Wat, called, doing, end, honest, misbehaved, returning, serving};
use crate::support::call;

cases! {
    an_answer_of_a_gigabyte ends "output-limit":
        called(untouched(&returning(0, &[40_100, 16, ZEROS, 1 << 30])), "memory_mb = 2048");
    an_answer_a_little_too_large ends "output-limit": misbehaved("return_bytes", r#"{"mb": 33}"#, "");
    an_answer_of_one_byte_too_many ends "output-limit":
        called(untouched(&returning(0, &[40_100, 16, ZEROS, (32 << 20) + 1])), "memory_mb = 2048");
    an_answer_behind_the_memory ends "trapped": called(doing("(return (i32.const -16))"), "");
    a_body_behind_the_memory ends "trapped":
        called(doing(&returning(0, &[0, 0, u32::MAX - 8, 8])), "");
    an_answer_that_is_not_aligned ends "trapped": called(doing("(return (i32.const 4097))"), "");
    a_case_that_the_result_does_not_have ends "trapped": called(doing(&returning(7, &[])), "");
    a_case_that_the_failure_does_not_have ends "trapped": called(doing(&returning(1, &[6])), "");
    a_case_that_the_option_does_not_have ends "trapped": called(doing(&returning(1, &[0, 2])), "");
    a_media_type_that_is_not_utf8 ends "trapped": called(not_utf8(), "");
    a_message_that_is_not_utf8 ends "trapped":
        called(with_bytes(doing(&returning(1, &[5, 0, 0, 0, BYTES, 4]))), "");
    a_body_that_is_not_utf8 ends "invalid-output": called(with_bytes(body(BYTES, 4)), "");
    a_body_that_is_not_json ends "invalid-output": called(answering("{\"a\": 1} 2"), "");
    a_body_that_says_nan ends "invalid-output": called(answering(r#"{"a": NaN, "b": -Infinity}"#), "");
    a_number_that_no_float_holds ends "invalid-output": called(answering(r#"{"a": 1e999999}"#), "");
    a_body_of_a_hundred_thousand_brackets ends "invalid-output":
        called(answering(&("[".repeat(100_000) + &"]".repeat(100_000))), "");
    a_body_that_breaks_the_schema ends "invalid-output":
        misbehaved("break_schema", r#"{"count": 0}"#, "");
    another_media_type ends "invalid-output": called(typed("text/html"), "");
    a_media_type_with_a_line_break ends "invalid-output":
        called(typed("application/json\r\nset-cookie: a=b"), "");
    a_media_type_of_a_megabyte ends "invalid-output":
        called(untouched(&returning(0, &[ZEROS, 1 << 20, 0, 0])), "memory_mb = 2048");
    a_media_type_of_a_gigabyte ends "output-limit":
        called(untouched(&returning(0, &[ZEROS, 1 << 30, 0, 0])), "memory_mb = 2048");
    a_message_of_a_gigabyte ends "output-limit":
        called(untouched(&returning(1, &[5, 0, 0, 0, ZEROS, 1 << 30])), "memory_mb = 2048");
    a_code_of_a_gigabyte ends "output-limit":
        called(untouched(&returning(1, &[5, 1, ZEROS, 1 << 30])), "memory_mb = 2048");
    a_failure_with_long_texts ends "invalid-input": long_texts();
    a_failure_with_forged_lines ends "worker-failed": forged();
}

/// Where a case puts four bytes that are not UTF-8.
const BYTES: u32 = 40_000;
/// Where a gigabyte of zeros begins, which are UTF-8 too.
const ZEROS: u32 = 65_536;

fn with_bytes(mut wat: Wat) -> Wat {
    wat.items = format!(r#"(data (i32.const {BYTES}) "\ff\fe\c0\80") {MEDIA_TYPE}"#);
    wat
}

const MEDIA_TYPE: &str = r#"(data (i32.const 40100) "application/json")"#;

fn body(at: u32, length: u32) -> Wat {
    doing(&returning(0, &[40_100, 16, at, length]))
}

/// It has the memory and never touched it: what counts is what the host would copy.
fn untouched(returning: &str) -> Wat {
    let mut wat = doing(&format!(
        "(drop (memory.grow (i32.const 16384))) {returning}"
    ));
    wat.items = MEDIA_TYPE.to_owned();
    wat
}

fn not_utf8() -> Wat {
    with_bytes(doing(&returning(0, &[BYTES, 4, 0, 0])))
}

fn answering(body: &str) -> Wat {
    Wat {
        answer: json!({ "ok": { "media-type": "application/json", "body": body } }),
        ..honest()
    }
}

fn typed(media_type: &str) -> Wat {
    Wat {
        answer: json!({ "ok": { "media-type": media_type, "body": "{}" } }),
        ..honest()
    }
}

fn failing(failure: Value) -> Wat {
    Wat {
        answer: json!({ "err": failure }),
        ..honest()
    }
}

/// The texts of a worker's own failure are cut to what the contract allows.
async fn long_texts() -> String {
    let long = "é".repeat(100_000);
    let failure =
        json!({ "kind": "invalid-input", "message": long, "code": long, "pointer": long });
    let router = serving(&failing(failure), "").await;
    let failure = router
        .invoke(call("misbehave:work", "{}"))
        .await
        .expect_err("it fails");
    assert!(failure.message.len() <= 4 << 10);
    assert_eq!(failure.worker_code, None, "no code of the contract's form");
    assert!(
        failure
            .faults
            .iter()
            .all(|fault| fault.pointer.len() <= 1 << 10)
    );
    end(Err(failure))
}

/// What a worker says of its failure reaches the caller and the log: as one line.
async fn forged() -> String {
    let failure = json!({
        "kind": "failed", "message": "no\r\n\u{1b}[31mERROR forged\u{9b}", "code": "no\ncode",
    });
    let router = serving(&failing(failure), "").await;
    let failure = router
        .invoke(call("misbehave:work", "{}"))
        .await
        .expect_err("it fails");
    assert_eq!(failure.worker_code, None, "no code of the contract's form");
    end(Err(failure))
}
