//! A host that is not there: workers with slots and lines in simulated time, calls that come at random,
//! and four ways to choose between them. No clock and no thread: the same numbers each time. The choice,
//! and what it believes of how long a worker takes, are the host's own code.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crank::admission::Service;
use crank::capability::Affinity;
use crank::router::{Ask, Decision, Facts, Load, Place, choose};
use crank::worker::Health;
use semver::Version;

static VERSION: Version = Version::new(1, 0, 0);

/// How a call finds its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `crank::router::choose`.
    Ours,
    /// The one with the fewest calls for its slots.
    LeastLoaded,
    /// Each in turn.
    RoundRobin,
    /// The one that costs least, and of those the least loaded.
    Cheapest,
}

impl Policy {
    pub const ALL: [Self; 4] = [
        Self::Ours,
        Self::LeastLoaded,
        Self::RoundRobin,
        Self::Cheapest,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "Crank",
            Self::LeastLoaded => "least loaded",
            Self::RoundRobin => "round robin",
            Self::Cheapest => "cheapest",
        }
    }
}

/// A kind of worker.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    pub count: usize,
    /// Milliseconds that a call takes on average.
    pub mean_ms: u64,
    pub slots: usize,
    pub cost: f64,
    /// Milliseconds within which it promises to answer 95 of 100.
    pub promised_ms: u64,
}

/// Twenty workers that do the same: the faster, the dearer.
pub const TWENTY: [Kind; 3] = [
    Kind {
        name: "slow",
        count: 8,
        mean_ms: 80,
        slots: 4,
        cost: 1.0,
        promised_ms: 250,
    },
    Kind {
        name: "middle",
        count: 7,
        mean_ms: 30,
        slots: 4,
        cost: 3.0,
        promised_ms: 100,
    },
    Kind {
        name: "fast",
        count: 5,
        mean_ms: 8,
        slots: 2,
        cost: 10.0,
        promised_ms: 30,
    },
];

/// A cheap slow one and a dear fast one.
pub const TWO: [Kind; 2] = [
    Kind {
        name: "cheap-slow",
        count: 1,
        mean_ms: 40,
        slots: 4,
        cost: 1.0,
        promised_ms: 160,
    },
    Kind {
        name: "dear-fast",
        count: 1,
        mean_ms: 8,
        slots: 8,
        cost: 8.0,
        promised_ms: 40,
    },
];

/// What callers give, in milliseconds, and how many of a hundred give it.
pub const PATIENCE: [(u64, u64); 3] = [(40, 25), (150, 35), (600, 40)];

/// Calls that a host of these workers ends in a second at the most.
pub fn capacity(kinds: &[Kind]) -> f64 {
    let of = |kind: &Kind| (kind.count * kind.slots) as f64 * 1e3 / kind.mean_ms as f64;
    kinds.iter().map(of).sum()
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// When it comes, since the start.
    pub at: Duration,
    pub patience: Duration,
    /// How much there is to do, 1 on average: half of it fixed, half exponential.
    pub size: f64,
}

/// Calls for so many seconds, at a rate that changes with time.
pub fn calls(seconds: f64, per_second: impl Fn(f64) -> f64, patience: &[(u64, u64)]) -> Vec<Call> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut at, mut calls) = (0.0, Vec::new());
    loop {
        at += -random.unit().ln() / per_second(at);
        if at >= seconds {
            return calls;
        }
        let total: u64 = patience.iter().map(|(_, weight)| weight).sum();
        let mut left = (random.unit() * total as f64).ceil() as u64;
        let drawn = patience.iter().find(|(_, weight)| {
            let found = left <= *weight;
            left = left.saturating_sub(*weight);
            found
        });
        calls.push(Call {
            at: Duration::from_secs_f64(at),
            patience: Duration::from_millis(drawn.expect("weights").0),
            size: 0.5 - 0.5 * random.unit().ln(),
        });
    }
}

/// What became of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub calls: usize,
    /// Answered within what their callers gave.
    pub in_time: usize,
    pub tokens: f64,
}

impl Tally {
    /// The part that was answered in time.
    pub fn attained(&self) -> f64 {
        self.in_time as f64 / self.calls as f64
    }

    /// Tokens for each call that was answered in time.
    pub fn cost(&self) -> f64 {
        self.tokens / self.in_time as f64
    }
}

/// The workers of a host at one moment of simulated time.
pub struct Host {
    workers: Vec<Worker>,
    now: Duration,
    /// When calls end, and where and since when they run.
    ends: BinaryHeap<Reverse<(Duration, u64, usize, Duration)>>,
    started: u64,
    chosen: u64,
    pub tally: Tally,
}

struct Worker {
    name: String,
    kind: Kind,
    running: usize,
    line: VecDeque<Call>,
    service: Service,
}

impl Host {
    pub fn new(kinds: &[Kind]) -> Self {
        let mut workers = Vec::new();
        for kind in kinds {
            for number in 0..kind.count {
                workers.push(Worker {
                    name: match kind.count {
                        1 => kind.name.to_owned(),
                        _ => format!("{}-{number}", kind.name),
                    },
                    kind: *kind,
                    running: 0,
                    line: VecDeque::new(),
                    service: Service::default(),
                });
            }
        }
        Self {
            workers,
            now: Duration::ZERO,
            ends: BinaryHeap::new(),
            started: 0,
            chosen: 0,
            tally: Tally::default(),
        }
    }

    /// What is known of each worker now, as the host would know it.
    pub fn facts(&self) -> Vec<Facts<'_>> {
        let of = |(number, worker): (usize, &'_ Worker)| Facts {
            number,
            worker_id: "",
            place: Place::Local,
            version: &VERSION,
            runtime: None,
            env_profile: None,
            denied: None,
            health: Health::Well,
            predicted: worker.service.predicted(
                worker.running,
                worker.line.len(),
                worker.kind.slots,
                self.now,
            ),
            promised: Some(Duration::from_millis(worker.kind.promised_ms)),
            budget_left: None,
            affinity: Affinity::Anywhere,
            cost: worker.kind.cost,
            load: Load {
                in_flight: worker.running,
                queued: worker.line.len(),
                capacity: worker.kind.slots,
            },
        };
        let mut facts: Vec<Facts> = self.workers.iter().enumerate().map(of).collect();
        for (facts, worker) in facts.iter_mut().zip(&self.workers) {
            facts.worker_id = &worker.name;
        }
        facts
    }

    /// Lets time pass until the call comes, and sends it where the policy says. Returns the worker's place.
    pub fn call(&mut self, call: Call, policy: Policy) -> usize {
        self.pass(call.at);
        self.chosen += 1;
        let to = self.choose(&call, policy);
        self.tally.calls += 1;
        self.workers[to].line.push_back(call);
        self.start(to);
        to
    }

    /// Lets time pass.
    pub fn pass(&mut self, until: Duration) {
        while let Some(Reverse((end, _, worker, began))) = self.ends.peek().copied()
            && end <= until
        {
            self.ends.pop();
            self.now = end;
            self.workers[worker].running -= 1;
            self.workers[worker].service.record(end - began, end);
            self.start(worker);
        }
        self.now = until;
    }

    fn choose(&self, call: &Call, policy: Policy) -> usize {
        let part = |worker: &Worker| {
            (worker.running + worker.line.len()) as f64 / worker.kind.slots as f64
        };
        // Who comes first among equals changes from call to call.
        let turn = |at: usize| (at + self.chosen as usize) % self.workers.len();
        let least = |costs: fn(&Worker) -> f64| {
            let rank = |at: &usize| {
                let worker = &self.workers[*at];
                (costs(worker), part(worker), turn(*at))
            };
            (0..self.workers.len())
                .min_by(|a, b| rank(a).partial_cmp(&rank(b)).expect("numbers"))
                .expect("workers")
        };
        match policy {
            Policy::RoundRobin => turn(0),
            Policy::LeastLoaded => least(|_| 0.0),
            Policy::Cheapest => least(|worker| worker.kind.cost),
            Policy::Ours => {
                let ask = Ask {
                    patience: Some(call.patience),
                    ..Ask::default()
                };
                match choose(&self.facts(), &ask, self.chosen) {
                    Decision::Chosen(at) => at,
                    Decision::Nobody(criterion) => panic!("nobody gets past {criterion:?}"),
                }
            }
        }
    }

    /// Starts whoever waits while there are slots. Who has no time left leaves the line, and who is not done
    /// when its time is up is stopped, as in the host.
    fn start(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        while worker.running < worker.kind.slots
            && let Some(call) = worker.line.pop_front()
        {
            let deadline = call.at + call.patience;
            if deadline <= self.now {
                continue;
            }
            let done = self.now + Duration::from_millis(worker.kind.mean_ms).mul_f64(call.size);
            worker.running += 1;
            self.started += 1;
            self.tally.tokens += worker.kind.cost;
            self.tally.in_time += usize::from(done <= deadline);
            let end = done.min(deadline);
            self.ends.push(Reverse((end, self.started, at, self.now)));
        }
    }
}

/// What becomes of twenty workers' calls at a part of their capacity, the first second left out.
pub fn twenty(policy: Policy, load: f64, seconds: f64) -> Tally {
    let rate = load * capacity(&TWENTY);
    let mut host = Host::new(&TWENTY);
    let mut warm = false;
    for call in calls(seconds + 1.0, |_| rate, &PATIENCE) {
        if !warm && call.at >= Duration::from_secs(1) {
            (warm, host.tally) = (true, Tally::default());
        }
        host.call(call, policy);
    }
    host.pass(Duration::from_secs_f64(seconds + 2.0));
    host.tally
}

/// Seconds of the rise and the fall together.
pub const RAMP: f64 = 60.0;
/// Calls in a second at the least and at the most.
pub const RATES: (f64, f64) = (10.0, 300.0);

/// The rate of calls in the ramp: up to its middle, and down again.
pub fn ramp(at: f64) -> f64 {
    let (low, high) = RATES;
    low + (high - low) * (1.0 - (2.0 * at / RAMP - 1.0).abs())
}

/// Xorshift (Marsaglia, 2003): the same numbers each time.
struct Random(u64);

impl Random {
    /// More than 0, at most 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}
