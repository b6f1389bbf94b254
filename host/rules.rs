//! What the operator says in Rego: who may invoke what, and which worker may be loaded.
//!
//! Files become a `Revision`, whole or not at all, which judges documents within bounds and fails closed.
//! What the documents say of calls and workers is put together by who asks; which doors exist must not
//! enter this room.

mod rego;
mod source;
mod suite;
mod turns;
mod verdicts;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use rego::Policy;
pub use rego::{INVOKE, Judgement, LOAD, Package};
use source::{Files, Stamp};
pub use suite::{Suite, Tested};
use turns::Turns;
pub use verdicts::{Asking, Denial, Verdicts};

/// Time for one call's questions together, on a thread of their own.
const INVOKE_TIME: Duration = Duration::from_millis(100);
/// Time for one worker's questions: when a host starts, every core compiles.
const LOAD_TIME: Duration = Duration::from_secs(2);
/// What a built-in function, which is not interrupted, gets beyond that before it is no longer waited for.
const GRACE: Duration = Duration::from_millis(400);
/// How long a file must have been still before it counts: who copies or saves is done by then.
const SETTLE: Duration = Duration::from_millis(200);

/// The policy that the built-in files make: file name and text.
pub const BUILT_IN: [(&str, &str); 2] = [
    (
        "default_invoke.rego",
        include_str!("rules/default_invoke.rego"),
    ),
    ("default_load.rego", include_str!("rules/default_load.rego")),
];

/// The policy that holds, and where it is read from.
pub struct Rules {
    dir: Option<PathBuf>,
    current: ArcSwap<Revision>,
    /// What was looked at last, good or bad.
    seen: Mutex<Stamp>,
    /// Of those who ask: what is known already asks nobody.
    turns: Turns,
}

/// The time was over before there was an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// One state of all files, compiled.
pub struct Revision {
    /// Different from that of any other in this process.
    number: u64,
    policy: Policy,
    /// Nobody says anything beside the built-in policy, which denies nothing by itself.
    is_open: bool,
}

/// What a look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Nothing that was not there before.
    Same,
    /// Somebody is writing: it is looked at again.
    Unsettled(PathBuf),
    /// Another policy holds.
    Revised,
    /// They make no policy: the one before still holds.
    Broken(String),
}

impl Default for Rules {
    /// The built-in policy alone.
    fn default() -> Self {
        Self {
            dir: None,
            current: ArcSwap::from_pointee(Revision::built_in()),
            seen: Mutex::default(),
            turns: Turns::default(),
        }
    }
}

impl Rules {
    /// Reads a directory of policies: `*.rego` and `data/*.json`; without one the built-in policy holds.
    ///
    /// # Errors
    ///
    /// What is wrong with which file, by line, and what would mend it.
    pub fn open(dir: Option<&Path>) -> Result<Self, String> {
        let Some(dir) = dir else {
            return Ok(Self::default());
        };
        let (files, stamp) = Files::read(dir)?;
        Ok(Self {
            dir: Some(dir.to_owned()),
            current: ArcSwap::from_pointee(Revision::of(&files)?),
            seen: Mutex::new(stamp),
            turns: Turns::default(),
        })
    }

    /// What holds now.
    pub fn current(&self) -> Arc<Revision> {
        self.current.load_full()
    }

    /// The number of the revision that calls have to be judged by; `None`: they need no judgement.
    pub fn revision(&self) -> Option<u64> {
        let current = self.current.load();
        (!current.is_open).then_some(current.number)
    }

    /// Looks at the files again; `anew` tries also what was broken. Blocks while it reads and compiles.
    pub fn refresh(&self, anew: bool) -> Looked {
        let Some(dir) = &self.dir else {
            return Looked::Same;
        };
        // A stamp is replaced whole.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match Stamp::of(dir) {
            Ok(stamp) => stamp,
            Err(error) => return self.broken(&mut seen, Stamp::default(), anew, error),
        };
        if stamp == *seen && !anew {
            return Looked::Same;
        }
        if let Some(file) = stamp.fresh(SETTLE) {
            return Looked::Unsettled(file);
        }
        let same = stamp == *seen;
        match Files::read(dir).and_then(|(files, read)| Ok((Revision::of(&files)?, read))) {
            Err(error) => self.broken(&mut seen, stamp, anew, error),
            // Written to meanwhile.
            Ok((_, read)) if read != stamp => Looked::Unsettled(dir.clone()),
            Ok((revision, _)) => {
                *seen = stamp;
                if same && revision.policy.is_same(&self.current.load().policy) {
                    return Looked::Same;
                }
                tracing::info!(revision = revision.number, "another policy holds");
                self.current.store(Arc::new(revision));
                Looked::Revised
            }
        }
    }

    /// Says once what is wrong, and whenever somebody asks.
    fn broken(&self, seen: &mut Stamp, stamp: Stamp, anew: bool, error: String) -> Looked {
        if *seen == stamp && !anew {
            return Looked::Same;
        }
        *seen = stamp;
        tracing::error!("the policy stays as it was: {error}");
        Looked::Broken(error)
    }

    /// Judges calls that one caller (`who`) began, all of them within one bound, on a thread where that may take
    /// its time.
    ///
    /// # Errors
    ///
    /// It was not done until then.
    pub async fn invoke(
        &self,
        inputs: Vec<Value>,
        who: Option<&str>,
        until: Instant,
    ) -> Result<(u64, Vec<Judgement>), Late> {
        let judged = self.judge(inputs, who);
        timeout_at(until.into(), judged).await.map_err(|_| Late)
    }

    async fn judge(&self, inputs: Vec<Value>, who: Option<&str>) -> (u64, Vec<Judgement>) {
        // It goes along: a thread that hangs keeps it.
        let turn = self.turns.take(who).await;
        let revision = self.current();
        let number = revision.number;
        let count = inputs.len();
        let judging = spawn_blocking(move || {
            let _turn = turn;
            let until = Instant::now() + INVOKE_TIME;
            let judge = |input| revision.policy.judge(INVOKE, input, until);
            inputs.into_iter().map(judge).collect::<Vec<_>>()
        });
        let failed = |why: &str| vec![Judgement::failed(INVOKE, why); count];
        let judged = match tokio::time::timeout(INVOKE_TIME + GRACE, judging).await {
            Ok(Ok(judged)) => judged,
            Ok(Err(panic)) => failed(&panic.to_string()),
            Err(_) => failed("it takes too long"),
        };
        (number, judged)
    }

    /// Why a worker may not be loaded, a line for each reason; `applicant` is the document of `crank.load`.
    pub async fn refusals(&self, applicant: impl FnOnce() -> Value) -> Vec<String> {
        let revision = self.current();
        if revision.is_open {
            return Vec::new();
        }
        let input = applicant();
        let judging = spawn_blocking(move || {
            let until = Instant::now() + LOAD_TIME;
            revision.policy.judge(LOAD, input, until)
        });
        let judged = match tokio::time::timeout(LOAD_TIME + GRACE, judging).await {
            Ok(Ok(judged)) => judged,
            Ok(Err(panic)) => Judgement::failed(LOAD, &panic.to_string()),
            Err(_) => Judgement::failed(LOAD, "it takes too long"),
        };
        let refusal = |reason: &String| format!("the policy refuses it: {reason} ({LOAD})");
        judged.reasons.iter().map(refusal).collect()
    }
}

impl Revision {
    fn of(files: &Files) -> Result<Self, String> {
        Ok(Self {
            number: next(),
            policy: Policy::compile(files, false)?,
            is_open: files.is_empty(),
        })
    }

    /// The built-in policy alone.
    fn built_in() -> Self {
        Self {
            number: next(),
            policy: Policy::open(),
            is_open: true,
        }
    }

    /// Different from that of any other in this process.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A judgement of one document, with the values of all rules of the package that it came from. Blocks,
    /// within bounds.
    pub fn explain(&self, package: Package, input: Value) -> (Judgement, Value) {
        let until = Instant::now() + LOAD_TIME;
        let values = self.policy.values(package, input.clone(), until);
        (self.policy.judge(package, input, until), values)
    }
}

fn next() -> u64 {
    static REVISIONS: AtomicU64 = AtomicU64::new(1);
    REVISIONS.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests;
