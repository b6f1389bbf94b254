//! The way out of the sandbox: other workers, and state. Everything that a worker for mail asks of
//! its host goes through here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crank_worker::state::Bucket;
use crank_worker::{Failure, Output, Payload, Request, peers};
use serde_json::Value;

use crate::Learned;

/// What a worker for mail asks of its host. A trait, so that tests can stand in for the host.
pub trait Outside {
    /// Calls another capability, `verb:name`, with bytes of a media type. They are moved and not copied:
    /// a mail may have many megabytes.
    fn call(&self, capability: &str, input: Payload) -> Result<Payload, Failure>;

    /// The value of a key in the worker's own bucket.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// Replaces the value of a key, by compare and swap: `change` may be asked again.
    fn update(&self, key: &str, change: &dyn Fn(Option<Vec<u8>>) -> Vec<u8>)
    -> Result<(), Failure>;
}

/// The host itself.
pub struct Host;

impl Outside for Host {
    fn call(&self, capability: &str, input: Payload) -> Result<Payload, Failure> {
        peers::Call::new(capability, input.media_type, input.body)
            .invoke()
            .map_err(|failure| peers::of_peer(capability, failure))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        Bucket::own()?.get(key)
    }

    fn update(
        &self,
        key: &str,
        change: &dyn Fn(Option<Vec<u8>>) -> Vec<u8>,
    ) -> Result<(), Failure> {
        Bucket::own()?.update(key, |old| Ok(change(old)))?;
        Ok(())
    }
}

fn missing(message: &str) -> Failure {
    Failure::unavailable(Duration::from_secs(60), message)
}

/// Where a caller's model lies: each caller has one, who is whoever asked first, be it through other
/// workers. Where the host knows no identities all share one.
fn key(request: &Request) -> String {
    let origin = request.context.iter().find(|(name, _)| name == "origin");
    format!("learned/{}", origin.map_or("everyone", |(_, id)| id))
}

/// What the caller has taught so far.
pub fn recall(outside: &dyn Outside, request: &Request) -> Result<Learned, Failure> {
    let file = outside.get(&key(request))?.unwrap_or_default();
    Learned::parse(&file)
        .ok_or_else(|| Failure::failed("what this caller taught is damaged").code("model-damaged"))
}

/// Adds mails, each with its class, to what the caller has taught. Returns all of it.
pub fn learn(
    outside: &dyn Outside,
    request: &Request,
    mails: &[(Vec<crate::Feature>, usize)],
) -> Result<Learned, Failure> {
    // A file that cannot be read is reported, not replaced.
    recall(outside, request)?;
    let after = RefCell::new(Learned::default());
    outside.update(&key(request), &|file| {
        let mut learned = Learned::parse(&file.unwrap_or_default()).unwrap_or_default();
        for (features, class) in mails {
            learned.add(features, *class);
        }
        let file = learned.to_bytes();
        after.replace(learned);
        file
    })?;
    Ok(after.into_inner())
}

/// Plays other workers: takes a capability and its input.
pub type Peers = fn(&str, &Payload) -> Result<Value, Failure>;

/// A host for tests: state in memory, and peers that a function plays.
#[derive(Default)]
pub struct Rehearsal {
    /// Every key and its value.
    pub state: RefCell<BTreeMap<String, Vec<u8>>>,
    /// Answers calls of other capabilities.
    pub peers: Option<Peers>,
}

impl Outside for Rehearsal {
    fn call(&self, capability: &str, input: Payload) -> Result<Payload, Failure> {
        let peers = self.peers.ok_or_else(|| missing("no peers in this test"))?;
        peers(capability, &input)?.into_payload()
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.state.borrow().get(key).cloned())
    }

    fn update(
        &self,
        key: &str,
        change: &dyn Fn(Option<Vec<u8>>) -> Vec<u8>,
    ) -> Result<(), Failure> {
        let old = self.get(key)?;
        self.state.borrow_mut().insert(key.to_owned(), change(old));
        Ok(())
    }
}
