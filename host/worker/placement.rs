//! Whether this host has what a worker asks for. Pure: a declaration and facts in, refusals out.

use std::fmt::Display;

use crate::capability::{Capability, Constraint, DiskType, EnvProfile, GpuType};
use crate::config::ByteCount;
use crate::gpu;
use crate::limits::Limits;
use crate::machine::{Gpu, Machine};

/// What a capability asks for and this host has not, each a line that says both. `stem` names the
/// section of the configuration that could relax it.
pub(super) fn refusals(
    capability: &Capability,
    limits: &Limits,
    machine: &Machine,
    gpus: &[Gpu],
    relaxed: &[Constraint],
    stem: &str,
) -> Vec<String> {
    let asked = Asked::new(capability, relaxed);
    let mut lacks = asked.memory(limits, machine);
    lacks.extend(asked.disk(machine));
    lacks.extend(asked.gpus(gpus));
    let line = |(constraint, lack): (Constraint, String)| {
        let (key, name) = (capability.key(), constraint.as_str());
        format!(
            "{key}: {lack}; place the worker on a host that has it, or relax it: [workers.{stem:?}] relax = [\"{name}\"]"
        )
    };
    lacks.into_iter().map(line).collect()
}

/// Whether what a capability asks for can only be known from the drivers.
pub(super) fn asks_for_gpu(capability: &Capability, relaxed: &[Constraint]) -> bool {
    let asked = Asked::new(capability, relaxed);
    asked.gpu
        || asked.gpu_count.is_some()
        || asked.gpu_memory_mb.is_some()
        || asked.gpu_type.is_some()
}

/// A constraint that does not hold, and what was declared and what there is.
type Lack = (Constraint, String);

/// What is asked of the host, without what the operator relaxed and what asks for nothing.
struct Asked {
    memory_mb: Option<u32>,
    disk: Option<DiskType>,
    gpu_count: Option<u32>,
    gpu_memory_mb: Option<u32>,
    gpu_type: Option<GpuType>,
    gpu: bool,
}

impl Asked {
    fn new(capability: &Capability, relaxed: &[Constraint]) -> Self {
        let held = |constraint| !relaxed.contains(&constraint);
        let given = capability.constraints.clone().unwrap_or_default();
        let above_zero = |number: &u32| *number > 0;
        Self {
            memory_mb: given
                .min_memory_mb
                .filter(|_| held(Constraint::MinMemoryMb)),
            disk: given.disk_type.filter(|_| held(Constraint::DiskType)),
            gpu_count: given
                .gpu_count
                .filter(above_zero)
                .filter(|_| held(Constraint::GpuCount)),
            gpu_memory_mb: given
                .gpu_memory_mb
                .filter(above_zero)
                .filter(|_| held(Constraint::GpuMemoryMb)),
            gpu_type: given.gpu_type.filter(|_| held(Constraint::GpuType)),
            gpu: capability.env_profile == Some(EnvProfile::GpuRequired)
                && held(Constraint::EnvProfile),
        }
    }

    /// A minimum that the budget does not cover, or that the limit in force would not let the worker
    /// use.
    fn memory(&self, limits: &Limits, machine: &Machine) -> Vec<Lack> {
        let Some(asked) = self.memory_mb else {
            return Vec::new();
        };
        let budget = machine.budget.get();
        let lack = if ByteCount::mib(asked).get() > budget {
            format!("this host's memory budget is {} MiB", budget >> 20)
        } else if ByteCount::mib(asked).get() > limits.memory {
            let limit = limits.memory >> 20;
            format!("the operator's limit for one invocation is {limit} MiB")
        } else {
            return Vec::new();
        };
        vec![(
            Constraint::MinMemoryMb,
            format!("min_memory_mb is {asked}, and {lack}"),
        )]
    }

    /// A kind of disk is a floor: what is faster will do. Only the operator's word counts.
    fn disk(&self, machine: &Machine) -> Option<Lack> {
        let (asked, there) = (self.disk?, machine.disk_type?);
        let lack = format!(
            "disk_type is {}, and the operator says that this host's disk is {}",
            asked.as_str(),
            there.as_str()
        );
        (speed(there) < speed(asked)).then_some((Constraint::DiskType, lack))
    }

    /// Type and memory say which GPUs will do, the count how many of these there must be.
    fn gpus(&self, gpus: &[Gpu]) -> Vec<Lack> {
        let typed = |gpu: &&Gpu| self.gpu_type.is_none_or(|asked| gpu.maker == asked);
        let roomy = |gpu: &&Gpu| {
            self.gpu_memory_mb
                .is_none_or(|asked| gpu.memory >= ByteCount::mib(asked))
        };
        let typed = || gpus.iter().filter(typed);
        let fitting = typed().filter(roomy).count();
        // Where there is no GPU, of what kind it would have to be is no matter.
        let of_type = self.gpu_type.filter(|_| !gpus.is_empty());
        let of_type =
            of_type.map_or_else(String::new, |asked| format!(" of type {}", asked.as_str()));
        let with = self.gpu_memory_mb.filter(|_| !gpus.is_empty());
        let with = with.map_or_else(String::new, |asked| format!(" with {asked} MiB or more"));
        let there = listed(gpus);
        let of_these = match fitting {
            _ if of_type.is_empty() && with.is_empty() => there.clone(),
            0 => format!("none: it has {there}"),
            some => format!("{some} of these: it has {there}"),
        };
        let lack = |constraint: Constraint, asked: &dyn Display, has: &str| {
            let name = constraint.as_str();
            let lack = format!("{name} is {asked}, and this host has {has}");
            (constraint, lack)
        };
        let mut lacks = Vec::new();
        if let Some(asked) = self.gpu_type.filter(|_| typed().next().is_none()) {
            lacks.push(lack(Constraint::GpuType, &asked.as_str(), &there));
        }
        if let Some(asked) = self.gpu_memory_mb.filter(|_| fitting == 0) {
            let asked = format_args!("{asked}{of_type}");
            lacks.push(lack(Constraint::GpuMemoryMb, &asked, &there));
        }
        if let Some(asked) = self.gpu_count.filter(|asked| fitting < *asked as usize) {
            let asked = format_args!("{asked}{of_type}{with}");
            lacks.push(lack(Constraint::GpuCount, &asked, &of_these));
        }
        if self.gpu && gpus.is_empty() {
            let asked = EnvProfile::GpuRequired.as_str();
            lacks.push(lack(Constraint::EnvProfile, &asked, &there));
        }
        lacks
    }
}

const fn speed(disk: DiskType) -> u8 {
    match disk {
        DiskType::Any => 0,
        DiskType::Hdd => 1,
        DiskType::Ssd => 2,
        DiskType::Nvme => 3,
    }
}

fn listed(gpus: &[Gpu]) -> String {
    let all: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    match &all[..] {
        [] if cfg!(feature = "gpu") => "no GPU".to_owned(),
        [] => format!("no GPU: {}", gpu::NONE),
        [gpu] => format!("one GPU ({gpu})"),
        gpus => format!("{} GPUs ({})", gpus.len(), gpus.join(", ")),
    }
}
