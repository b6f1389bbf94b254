//! Events to the caller of the request that is being answered, while it is being answered.

pub use crate::bindings::crank::worker::events::Closed;
pub use crate::bindings::crank::worker::types::Event;

use schemars::{Schema, json_schema};

use crate::{Failure, Output, Payload};

impl Event {
    /// An event of the type `event`, `progress` for example. `result` and `error` belong to the host.
    pub fn new(event: impl Into<String>, data: impl Into<String>) -> Self {
        Self {
            id: None,
            event: Some(event.into()),
            data: data.into(),
        }
    }
}

/// Hands one event to the caller. Waits while the caller is slower than the worker: that costs no
/// CPU time, but the deadline runs. Fails when nobody reads any more, and the worker may stop then.
/// A caller who did not ask for a stream gets none of them, unless they are the [answer](Streamed), and
/// sending succeeds; so it does in a native test.
pub fn send(event: Event) -> Result<(), Closed> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::crank::worker::events::send(&event);

    #[cfg(not(target_arch = "wasm32"))]
    {
        log::debug!("event {event:?}");
        Ok(())
    }
}

/// The answer of a capability whose output is its events: it
/// [produces](crate::Capability::produces) `text/event-stream`. Who does not read a stream gets the
/// events as a JSON array.
#[derive(Clone, Copy, Debug)]
pub struct Streamed;

impl Output for Streamed {
    /// Of the array.
    fn schema() -> Schema {
        json_schema!({
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": { "type": "string" },
                    "event": { "type": "string" },
                    "data": { "type": "string" },
                },
                "required": ["data"],
            },
        })
    }

    fn into_payload(self) -> Result<Payload, Failure> {
        Ok(Payload {
            media_type: "text/event-stream".into(),
            body: Vec::new(),
        })
    }
}
