//! A capability that is measured, and what it is sent.

use std::sync::Arc;

use crate::error::Failure;
use crate::registry::{Local, Registry, Snapshot};
use crate::router::{Answer, Call, Router};
use crate::sandbox::Payload;
use crate::worker::{Offered, Worker};

/// What a capability is sent.
#[derive(Clone, Debug)]
pub struct Input {
    /// The example's title, or where the input came from.
    pub title: String,
    /// The body.
    pub payload: Payload,
    /// Query parameters of a raw input.
    pub parameters: Vec<(String, String)>,
}

/// A capability of one worker, and its inputs: never none.
#[derive(Clone)]
pub(super) struct Target {
    pub worker: Arc<Worker>,
    pub offered: Arc<Offered>,
    pub inputs: Arc<[Input]>,
}

impl Target {
    /// Calls it through a router, with one input after the other.
    pub fn call(
        &self,
        router: &Router,
        at: usize,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send + use<> {
        let capability = &self.offered.capability;
        let count = self.inputs.len().max(1);
        let input = self.inputs.get(at % count).cloned();
        let (verb, name) = (capability.verb.to_string(), capability.name.to_string());
        let router = router.clone();
        async move {
            let input = input.ok_or_else(|| Failure::internal("a target without input"))?;
            let call = Call {
                parameters: input.parameters,
                ..Call::new(format!("bench-{at}"), verb, Some(name), input.payload)
            };
            router.invoke(call).await
        }
    }

    /// What a router needs to send this target's calls to `worker`, which is the target's own or
    /// another start of it: all workers but those that offer the same capability.
    pub fn registry(&self, worker: &Arc<Worker>, all: &[Arc<Worker>]) -> Registry {
        let id = &self.offered.id;
        let stays = |other: &&Arc<Worker>| {
            let offers = other.offered().iter().any(|offered| offered.id == *id);
            !offers && other.file() != worker.file()
        };
        let mut workers: Vec<Arc<Worker>> = all.iter().filter(stays).cloned().collect();
        workers.push(worker.clone());
        let registry = Registry::new(Snapshot::default());
        registry.replace_local(Local {
            workers,
            ..Local::default()
        });
        registry
    }

    /// What its calls are sent, by title.
    pub fn titles(&self) -> Vec<String> {
        self.inputs
            .iter()
            .map(|input| input.title.clone())
            .collect()
    }
}

/// What a capability declares as calls that work.
pub(super) fn examples(offered: &Offered) -> Vec<Input> {
    let examples = offered.capability.examples.iter();
    let inputs = examples.map(|example| Input {
        title: example.title.clone(),
        payload: Payload {
            media_type: example.media_type.to_string(),
            body: example.body.clone().into(),
        },
        parameters: example.parameters.clone(),
    });
    inputs.collect()
}
