//! A host that starts: from an engine that is not there yet to the first answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Lab;
use super::report::{Sampled, Start};
use super::target::Target;
use crate::config::Config;
use crate::engine::{self, Engine};
use crate::machine::Machine;
use crate::router::Router;
use crate::state::State;
use crate::telemetry::Temperature;
use crate::worker::Worker;

/// Samples of one temperature: enough for a median.
const SAMPLES: usize = 5;

/// The parts of one start, each from the end of the one before.
pub(super) struct Sample {
    engine: Duration,
    load: Duration,
    call: Duration,
    /// Whether its first call used a GPU.
    pub used_gpu: bool,
}

/// Where the compiled code of this run is kept.
pub(super) fn code(config: &Config) -> PathBuf {
    config.cache_dir.join("code")
}

/// An engine as `crank serve` has it, with its compiled code and its state in these directories.
pub(super) fn engine(
    config: &Config,
    machine: &Machine,
    code: &Path,
    state: &Path,
) -> Result<Engine, String> {
    // Not by its path, where an update may have put another program meanwhile.
    let settings = engine::Settings::new(&config.limits, "/proc/self/exe");
    let engine = Engine::new(settings, Some(code))
        .map_err(|error| format!("the engine does not start: {error:#}"))?;
    let state = State::at(state.to_owned());
    Ok(engine.on(machine.clone()).with_state(state))
}

impl Lab {
    /// Starts with a cache that has never seen the component.
    pub(super) async fn uncompiled(&self, target: &Target) -> Result<Vec<Sample>, String> {
        self.samples(target, Temperature::Uncompiled).await
    }

    /// Starts with a cache that has.
    pub(super) async fn cached(&self, target: &Target) -> Result<Vec<Sample>, String> {
        self.samples(target, Temperature::Cached).await
    }

    /// As many samples as fit into a quarter of the time for calls, and one at least.
    async fn samples(
        &self,
        target: &Target,
        temperature: Temperature,
    ) -> Result<Vec<Sample>, String> {
        let began = Instant::now();
        let mut samples = Vec::new();
        while samples.is_empty()
            || (samples.len() < SAMPLES && began.elapsed() < self.plan.duration / 4)
        {
            let dir = tempfile::tempdir_in(&self.config.state_dir)
                .map_err(|error| format!("no directory for a start: {error}"))?;
            samples.push(self.start(target, temperature, dir.path()).await?);
        }
        Ok(samples)
    }

    async fn start(
        &self,
        target: &Target,
        temperature: Temperature,
        dir: &Path,
    ) -> Result<Sample, String> {
        let began = Instant::now();
        let code = match temperature {
            Temperature::Cached => code(&self.config),
            _ => dir.join("code"),
        };
        let engine = engine(&self.config, &self.machine, &code, &dir.join("state"))?;
        let started = Instant::now();
        let worker = Worker::load(&engine, &self.config, target.worker.file())
            .await
            .map_err(|refused| refused.reasons.join("; "))?;
        let loaded = Instant::now();
        let worker = Arc::new(worker);
        let state = engine.state().filter(|_| worker.keeps_state());
        if let Some(state) = state {
            state.open().await.map_err(|error| error.to_string())?;
        }
        let router = Router::new(target.registry(&worker, self.workers()));
        let answer = target.call(&router, 0).await;
        let ended = Instant::now();
        if let Some(state) = state {
            state.close().await;
        }
        let answer = answer.map_err(|failure| failure.to_string())?;
        // Else something was measured that is called by another name. With a GPU a first call has one name, whatever
        // its code needed.
        if ![temperature, Temperature::GpuFirst].contains(&answer.cold) {
            return Err(format!(
                "the start was {} and not {}",
                answer.cold.as_str(),
                temperature.as_str()
            ));
        }
        Ok(Sample {
            engine: started - began,
            load: loaded - started,
            call: ended - loaded,
            used_gpu: answer.usage.gpu_memory_peak > 0,
        })
    }
}

/// What samples of one temperature come to; `None` of none.
pub(super) fn summed(samples: &[Sample]) -> Option<Start> {
    let of = |part: fn(&Sample) -> Duration| Sampled::of(samples.iter().map(part).collect());
    Some(Start {
        total: of(|sample| sample.engine + sample.load + sample.call)?,
        engine_ms: of(|sample| sample.engine)?.ms,
        load_ms: of(|sample| sample.load)?.ms,
        call_ms: of(|sample| sample.call)?.ms,
    })
}

/// What the first calls took, where they used a GPU.
pub(super) fn gpu_first(samples: &[Sample]) -> Option<Sampled> {
    let used = samples.iter().filter(|sample| sample.used_gpu);
    Sampled::of(used.map(|sample| sample.call).collect())
}
