//! What a worker offers, needs and promises: the capability schema, with its names.

use schemars::Schema;

use crate::function::{self, Function, Output as _};
use crate::{Failure, Payload, Request};

/// A function, from payload to payload.
type Call = dyn Fn(&Request, Payload) -> Result<Payload, Failure>;

/// Names and values.
pub(crate) type Pairs = &'static [(&'static str, &'static str)];

/// A worker: its name and what it offers.
pub struct Worker {
    pub(crate) worker_id: &'static str,
    pub(crate) capabilities: Vec<Capability>,
}

impl Worker {
    /// A worker that offers nothing yet. Its name: `[a-z][a-z0-9-]*`, at most 64 bytes.
    pub fn new(worker_id: &'static str) -> Self {
        Self {
            worker_id,
            capabilities: Vec::new(),
        }
    }

    /// Adds a capability.
    pub fn offers(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// Answers a request, as the component does.
    pub fn handle(&self, request: &Request, input: Payload) -> Result<Payload, Failure> {
        let asked = request.capability.split_once(':');
        let found = self
            .capabilities
            .iter()
            .find(|offered| asked == Some((offered.verb, offered.name)));
        match found {
            Some(capability) => (capability.call)(request, input),
            None => Err(Failure::not_found(format!(
                "{} has no capability {}",
                self.worker_id, request.capability
            ))),
        }
    }
}

/// One thing that a worker can do, and the function that does it.
pub struct Capability {
    pub(crate) verb: &'static str,
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) description: &'static str,
    pub(crate) input: fn() -> Schema,
    pub(crate) output: fn() -> Schema,
    pub(crate) accepts: &'static [&'static str],
    pub(crate) produces: &'static str,
    pub(crate) examples: Vec<Example>,
    pub(crate) runtime: &'static str,
    pub(crate) env_profile: Option<&'static str>,
    pub(crate) constraints: Option<Constraints>,
    pub(crate) slo: Option<Slo>,
    pub(crate) spiffe_id: Option<&'static str>,
    pub(crate) required_capabilities: Option<&'static [&'static str]>,
    pub(crate) cost_tokens: Option<f64>,
    pub(crate) slo_bid: Option<f64>,
    pub(crate) controller_affinity: Option<&'static [&'static str]>,
    pub(crate) extensions: Pairs,
    call: Box<Call>,
}

/// A call that works.
pub(crate) struct Example {
    pub(crate) title: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) body: &'static [u8],
    pub(crate) parameters: Pairs,
}

impl Capability {
    /// `verb` and `name`: `[a-z][a-z0-9_]*`, at most 64 bytes each. `version`: semantic version
    /// 2.0.0. The schemas come from the function's types; the `runtime` is `wasm-component`.
    pub fn new<Arguments, F: Function<Arguments>>(
        verb: &'static str,
        name: &'static str,
        version: &'static str,
        function: F,
    ) -> Self {
        Self {
            verb,
            name,
            version,
            description: "",
            input: function::input_schema::<F::Input>,
            output: F::Output::schema,
            accepts: &[],
            produces: function::JSON,
            examples: Vec::new(),
            runtime: "wasm-component",
            env_profile: None,
            constraints: None,
            slo: None,
            spiffe_id: None,
            required_capabilities: None,
            cost_tokens: None,
            slo_bid: None,
            controller_affinity: None,
            extensions: &[],
            call: Box::new(move |request, input| {
                function
                    .call(function::read(request, input)?, request)?
                    .into_payload()
            }),
        }
    }

    /// One or two sentences for people and agents, at most 4 KiB.
    pub fn description(self, description: &'static str) -> Self {
        Self {
            description,
            ..self
        }
    }

    /// Media types of inputs. JSON alone if this is not called; name `application/json` too if it is
    /// to stay. Of any other type the body arrives, raw, in the input's field of the type
    /// [`Bytes`](crate::Bytes), and the query parameters in the other fields.
    pub fn accepts(self, accepts: &'static [&'static str]) -> Self {
        Self { accepts, ..self }
    }

    /// Media type of the output, for functions that return a [`Payload`].
    pub fn produces(self, produces: &'static str) -> Self {
        Self { produces, ..self }
    }

    /// A call that works, as JSON. Documentation, `crank demo` and `crank bench` use it.
    pub fn example(self, title: &'static str, json: &'static str) -> Self {
        self.raw_example(title, function::JSON, json.as_bytes(), &[])
    }

    /// A call that works, with a raw body and query parameters.
    pub fn raw_example(
        mut self,
        title: &'static str,
        media_type: &'static str,
        body: &'static [u8],
        parameters: Pairs,
    ) -> Self {
        self.examples.push(Example {
            title,
            media_type,
            body,
            parameters,
        });
        self
    }

    /// `cpu-optimized`, `gpu-required` or `memory-intensive`. Placement.
    pub fn env_profile(self, env_profile: &'static str) -> Self {
        Self {
            env_profile: Some(env_profile),
            ..self
        }
    }

    /// What it needs at least, and may use at most.
    pub fn constraints(self, constraints: Constraints) -> Self {
        Self {
            constraints: Some(constraints),
            ..self
        }
    }

    /// What it promises.
    pub fn slo(self, slo: Slo) -> Self {
        Self {
            slo: Some(slo),
            ..self
        }
    }

    /// The worker's identity: `spiffe://<trust domain>/<path>`.
    pub fn spiffe_id(self, spiffe_id: &'static str) -> Self {
        Self {
            spiffe_id: Some(spiffe_id),
            ..self
        }
    }

    /// The allowlist: capabilities, `verb:name[@requirement]`, and WIT interfaces,
    /// `namespace:package/interface[@requirement]`, that it may use. What is not listed is not there.
    pub fn required_capabilities(self, required: &'static [&'static str]) -> Self {
        Self {
            required_capabilities: Some(required),
            ..self
        }
    }

    /// Cost of one invocation, in the operator's units.
    pub fn cost_tokens(self, cost_tokens: f64) -> Self {
        Self {
            cost_tokens: Some(cost_tokens),
            ..self
        }
    }

    /// Priority under contention: the higher bid is served first.
    pub fn slo_bid(self, slo_bid: f64) -> Self {
        Self {
            slo_bid: Some(slo_bid),
            ..self
        }
    }

    /// Hosts, by their controller id, on which the worker should run.
    pub fn controller_affinity(self, controllers: &'static [&'static str]) -> Self {
        Self {
            controller_affinity: Some(controllers),
            ..self
        }
    }

    /// Names and values that are kept and shown, never interpreted.
    pub fn extensions(self, extensions: Pairs) -> Self {
        Self { extensions, ..self }
    }
}

/// Hard requirements. The host enforces each one, or refuses the worker and says why. An absent one
/// means the operator's default, never "unlimited".
#[derive(Clone, Copy, Debug, Default)]
pub struct Constraints {
    /// MiB of memory that the host's budget must be able to give this worker. Placement.
    pub min_memory_mb: Option<u32>,
    /// MiB over all memories and tables of one invocation. Going over ends it as `memory-limit`.
    pub max_memory_mb: Option<u32>,
    /// Weight between workers when they compete for CPU: 1024 is the default.
    pub cpu_shares: Option<u32>,
    /// Milliseconds of CPU time that one invocation may use, waiting not counted: `cpu-limit`.
    pub max_cpu_ms: Option<u32>,
    /// `any`, `ssd`, `hdd` or `nvme`. Placement.
    pub disk_type: Option<&'static str>,
    /// MiB in the private /tmp of one invocation.
    pub tmp_storage_mb: Option<u32>,
    /// GiB that a bucket may hold after this worker has written to it: `storage-limit`.
    pub disk_storage_gb: Option<u32>,
    /// Megabits (10^6 bits) per second of output, events and outgoing traffic.
    pub network_bandwidth_mbps: Option<u32>,
    /// MiB in the worker's read-only model directory.
    pub model_storage_mb: Option<u32>,
    /// MiB in the worker's own bucket `index`, which it has if it declares this.
    pub vector_index_mb: Option<u32>,
    /// Number of GPUs that the host must have. Placement.
    pub gpu_count: Option<u32>,
    /// MiB of GPU memory: placement, and a quota on the buffers of one invocation.
    pub gpu_memory_mb: Option<u32>,
    /// `nvidia`, `amd`, `intel`, `apple-metal` or `software`. Placement.
    pub gpu_type: Option<&'static str>,
    /// Names that this version of the contract does not list. A host that does not know one refuses
    /// the worker.
    pub other: &'static [(&'static str, &'static str)],
}

/// Service level objective: what the worker promises. The host measures whether it is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slo {
    /// Milliseconds within which half of the invocations answer, queueing included.
    pub latency_p50_ms: Option<u32>,
    /// Milliseconds within which 95 % of the invocations answer.
    pub latency_p95_ms: Option<u32>,
    /// Milliseconds within which 99 % of the invocations answer.
    pub latency_p99_ms: Option<u32>,
    /// Percentage of invocations that do not fail through the worker's or the host's fault.
    pub availability_pct: Option<f64>,
    /// Percentage of invocations that may fail before the budget is spent.
    pub error_budget_pct: Option<f64>,
}
