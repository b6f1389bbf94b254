//! `crank:worker/events`: to a caller who reads them as they come, or into one array, or nowhere.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::mpsc;

use super::guest::paced;
use super::{Event, Guest, Listener, Payload};
use crate::bindings::crank::worker::{events, types};
use crate::limits::{Bandwidth, Stop};

/// The longest id or type of an event, in bytes.
const NAME: usize = 256;
/// The longest data of an event, in bytes: a caller who does not read leaves 64 of them waiting.
const DATA: usize = 64 << 10;

/// Which way one invocation's events take.
pub(super) enum Outlet {
    Nowhere,
    Stream {
        caller: mpsc::Sender<Event>,
        bandwidth: Arc<Bandwidth>,
    },
    /// JSON, but for the last bracket.
    Array(Vec<u8>),
}

impl Outlet {
    pub fn new(listener: Listener, bandwidth: &Arc<Bandwidth>) -> Self {
        match listener {
            Listener::Nobody => Outlet::Nowhere,
            Listener::Stream(caller) => Outlet::Stream {
                caller,
                bandwidth: bandwidth.clone(),
            },
            Listener::Array => Outlet::Array(vec![b'[']),
        }
    }

    /// The array, if there is to be one.
    pub fn gathered(self) -> Option<Payload> {
        let Outlet::Array(mut json) = self else {
            return None;
        };
        json.push(b']');
        Some(Payload {
            media_type: "application/json".to_owned(),
            body: json.into(),
        })
    }
}

/// An event in the array.
#[derive(Serialize)]
struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    data: String,
}

impl events::Host for Guest {
    async fn send(&mut self, event: types::Event) -> wasmtime::Result<Result<(), events::Closed>> {
        let names = [&event.id, &event.event].into_iter().flatten();
        let bytes = event.data.len() + names.clone().map(String::len).sum::<usize>();
        self.handed.hand(bytes)?;
        for name in names {
            if name.len() > NAME || name.contains(['\r', '\n', '\0']) {
                wasmtime::bail!(
                    "an event's id or type holds a line break or is longer than {NAME} bytes"
                );
            }
        }
        if event.data.len() > DATA {
            return Err(Stop::Output.into());
        }
        if matches!(event.event.as_deref(), Some("result" | "error")) {
            wasmtime::bail!("event types `result` and `error` belong to the host");
        }
        let types::Event { id, event, data } = event;
        match &mut self.events {
            Outlet::Nowhere => Ok(Ok(())),
            Outlet::Array(array) => {
                let before = array.len();
                if before > 1 {
                    array.push(b',');
                }
                serde_json::to_writer(&mut *array, &Item { id, event, data })?;
                // The last bracket has to fit in too.
                if array.len() >= self.limits.output {
                    return Err(Stop::Output.into());
                }
                self.meter.charge((array.len() - before) as u64)?;
                Ok(Ok(()))
            }
            Outlet::Stream { caller, bandwidth } => {
                let held = self.meter.hold((bytes + size_of::<Event>()) as u64)?;
                paced(bandwidth, bytes, self.deadline).await?;
                self.sent += bytes as u64;
                let event = Event {
                    id,
                    event,
                    data,
                    _held: held,
                };
                Ok(caller.send(event).await.map_err(|_| events::Closed {
                    reason: "the caller has gone".to_owned(),
                }))
            }
        }
    }
}
