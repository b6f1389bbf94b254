//! The worker that streams a text: another worker divides it, this one sends it as events, as fast as
//! the caller reads.

use crank_worker::events::{self, Closed, Streamed};
use crank_worker::{Bytes, Capability, Constraints, Event, Failure, Function, Slo, Worker, peers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who divides texts.
const DIVIDE: &str = "convert:text_to_stream";
/// The data of one event, in bytes: the contract allows no more.
const EVENT: usize = 64 << 10;
/// A chunk of so many characters fits into one event, whatever they are.
const MOST_CHARS: u32 = EVENT as u32 / 4;
/// A text is divided so many bytes at a time (more, where a paragraph is longer): the first chunks of a
/// long one are on their way at once, and no more of it is in two places than that.
const PIECE: usize = 256 << 10;

/// A text, and how it is to be streamed. The text comes as `text` or, raw, as `document`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Input {
    /// The text.
    text: Option<String>,
    /// The text as a file in UTF-8, in place of `text`.
    #[schemars(extend("contentMediaType" = "text/plain"))]
    document: Option<Bytes>,
    /// What a chunk is.
    unit: Unit,
    /// A chunk with more characters (Unicode scalar values) is divided further; 16384 if absent.
    #[schemars(range(min = 1, max = MOST_CHARS))]
    max_chars: Option<u32>,
}

/// What a chunk is.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unit {
    /// A sentence. A paragraph's end also ends a sentence.
    #[default]
    Sentence,
    /// What stands between blank lines.
    Paragraph,
}

/// What was streamed: the data of the event `done`, as JSON, and the answer of `text_events`.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
struct Done {
    /// Characters (Unicode scalar values) in all chunks.
    chars: usize,
    /// Number of chunks.
    chunks: usize,
}

/// What the dividing worker answers.
#[derive(Deserialize)]
struct Divided {
    chunks: Vec<String>,
}

fn text_events(input: Input) -> Result<Done, Failure> {
    stream(input, divide, events::send)
}

fn sse_events(input: Input) -> Result<Streamed, Failure> {
    stream(input, divide, events::send).map(|_| Streamed)
}

fn divide(call: &Value) -> Result<Divided, Failure> {
    peers::call(DIVIDE, call)
}

/// Sends a text as events: `chunk` for each chunk, with its number as id, and `done` at last.
fn stream(
    input: Input,
    divide: impl Fn(&Value) -> Result<Divided, Failure>,
    mut send: impl FnMut(Event) -> Result<(), Closed>,
) -> Result<Done, Failure> {
    let text = match (input.text, input.document) {
        (Some(text), None) => text,
        (None, Some(document)) => String::from_utf8(document.0).map_err(|_| {
            Failure::invalid_input("/document", "the text is not UTF-8").code("charset")
        })?,
        _ => {
            let message = "give either text or document";
            return Err(Failure::invalid_input("", message));
        }
    };
    let max_chars = input.max_chars.unwrap_or(MOST_CHARS);
    let gone = |closed: Closed| {
        Failure::failed(format!("nobody reads on: {}", closed.reason)).code("gone")
    };
    let mut done = Done::default();
    for piece in pieces(&text) {
        let call = json!({ "text": piece, "unit": input.unit, "max_chars": max_chars });
        for chunk in divide(&call)?.chunks {
            if chunk.len() > EVENT {
                let message = "one character of the text has more than 64 KiB of marks";
                return Err(Failure::invalid_input("", message).code("endless-character"));
            }
            done.chunks += 1;
            done.chars += chunk.chars().count();
            let id = Some(done.chunks.to_string());
            send(Event {
                id,
                ..Event::new("chunk", chunk)
            })
            .map_err(gone)?;
        }
    }
    send(Event::new("done", json!(done).to_string())).map_err(gone)?;
    Ok(done)
}

/// The text in pieces, cut at blank lines, where no sentence goes on.
fn pieces(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            end += line.len();
            if end >= PIECE && line.trim().is_empty() {
                break;
            }
        }
        let (piece, later) = rest.split_at(end);
        rest = later;
        (!piece.is_empty()).then_some(piece)
    })
}

fn streaming() -> Worker {
    Worker::new("worker-streaming")
        .offers(
            streams("text_events", text_events)
                .description("Streams a text as events: each chunk, then how many there were. The answer counts them.")
                .example("Two sentences", TWO),
        )
        .offers(
            streams("sse_events", sse_events)
                .description("Streams a text as events: each chunk, then how many there were. They are the answer.")
                .produces("text/event-stream")
                .example("Two sentences", TWO),
        )
}

const TWO: &str = r#"{"text": "The lamp is lit. The wind comes from the northwest."}"#;

/// What both capabilities have in common.
fn streams<A, F: Function<A>>(name: &'static str, function: F) -> Capability {
    Capability::new("stream", name, "1.0.0", function)
        .accepts(&["application/json", "text/plain"])
        .env_profile("cpu-optimized")
        .constraints(Constraints {
            min_memory_mb: Some(1024),
            max_memory_mb: Some(2048),
            cpu_shares: Some(2048),
            network_bandwidth_mbps: Some(100),
            ..Constraints::default()
        })
        .slo(Slo {
            latency_p50_ms: Some(100),
            latency_p95_ms: Some(250),
            latency_p99_ms: Some(500),
            availability_pct: Some(99.9),
            error_budget_pct: Some(0.1),
        })
        .spiffe_id("spiffe://crank.local/worker/streaming")
        .required_capabilities(&[DIVIDE])
}

crank_worker::worker!(streaming);

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &str) -> Input {
        Input {
            text: Some(text.to_owned()),
            ..Input::default()
        }
    }

    /// Plays the dividing worker: a chunk for each line that is not blank.
    fn lines(call: &Value) -> Result<Divided, Failure> {
        let lines = call["text"].as_str().unwrap().lines();
        let chunks = lines.filter(|line| !line.is_empty()).map(str::to_owned);
        Ok(Divided {
            chunks: chunks.collect(),
        })
    }

    /// All that is sent, and how it ends.
    fn sent(input: Input) -> (Vec<Event>, Result<Done, Failure>) {
        let mut sent = Vec::new();
        let ended = stream(input, lines, |event| {
            sent.push(event);
            Ok(())
        });
        (sent, ended)
    }

    #[test]
    fn each_chunk_is_an_event_and_the_last_one_counts_them() {
        let (events, done) = sent(input("Light.\n\nמגדלור\n灯台"));
        assert_eq!(
            done.unwrap(),
            Done {
                chunks: 3,
                chars: 14
            }
        );
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event.id.as_deref(),
                    event.event.as_deref().unwrap(),
                    &*event.data,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Some("1"), "chunk", "Light."),
                (Some("2"), "chunk", "מגדלור"),
                (Some("3"), "chunk", "灯台"),
                (None, "done", r#"{"chars":14,"chunks":3}"#),
            ]
        );
        let (events, done) = sent(input(""));
        assert_eq!((events.len(), done.unwrap().chunks), (1, 0));
    }

    #[test]
    fn a_long_text_is_divided_in_pieces_that_lose_nothing() {
        let text = format!("{}\r\n", "A line of the log.\n".repeat(9000)).repeat(9);
        let cut: Vec<&str> = pieces(&text).collect();
        assert!(cut.len() > 2, "{}", cut.len());
        assert!(cut.iter().all(|piece| piece.ends_with("\n\r\n")));
        assert_eq!(cut.concat(), text);
    }

    #[test]
    fn what_cannot_be_streamed_is_the_inputs_fault() {
        let both = Input {
            document: Some(Bytes(b"a".into())),
            ..input("a")
        };
        let latin = Input {
            document: Some(Bytes(b"Erd\xf6l".into())),
            ..Input::default()
        };
        let endless = input(&"a\u{301}".repeat(EVENT));
        for (input, code) in [
            (both, None),
            (Input::default(), None),
            (latin, Some("charset")),
            (endless, Some("endless-character")),
        ] {
            let (events, ended) = sent(input);
            assert_eq!(ended.unwrap_err().code.as_deref(), code);
            assert!(events.is_empty());
        }
    }

    #[test]
    fn nothing_is_divided_for_a_caller_who_has_gone() {
        let text = "A line.\n\n".repeat(PIECE);
        let reason = || "hung up".to_owned();
        let ended = stream(input(&text), lines, |_| Err(Closed { reason: reason() }));
        assert_eq!(ended.unwrap_err().code.as_deref(), Some("gone"));
    }
}
