//! Every constraint of a capability: what was declared, what holds, and how.

use serde_json::Value;

use crate::capability::{Capability, Constraint};
use crate::limits::Limits;
use crate::machine::Machine;
use crate::sandbox::Quotas;

/// One constraint of a capability, declared or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Which.
    pub constraint: Constraint,
    /// What the worker declares, in the unit of the name.
    pub declared: Option<Value>,
    /// What holds, likewise; `None` where nothing does.
    pub in_force: Option<Value>,
    /// How it is held, in words that stay the same.
    pub enforced: &'static str,
}

/// What is known of a worker when its constraints are set.
pub(super) struct Known<'a> {
    /// Its weight in the fair gate.
    pub weight: u32,
    /// Megabits per second to its callers.
    pub megabits: u32,
    /// What it may keep.
    pub quotas: Quotas,
    /// The machine that it is placed on, if placement is looked at.
    pub machine: Option<&'a Machine>,
    /// What the operator relaxed.
    pub relaxed: &'a [Constraint],
}

impl Known<'_> {
    /// All constraints of a capability that runs under these limits, in the order of the contract.
    pub fn held(&self, capability: &Capability, limits: &Limits) -> Vec<Held> {
        let one = |constraint: &Constraint| {
            let declared = constraint.declared(capability);
            let (in_force, enforced) = self.force(*constraint, declared.as_ref(), limits);
            Held {
                constraint: *constraint,
                declared,
                in_force,
                enforced,
            }
        };
        Constraint::ALL.iter().map(one).collect()
    }

    fn force(
        &self,
        constraint: Constraint,
        declared: Option<&Value>,
        limits: &Limits,
    ) -> (Option<Value>, &'static str) {
        if constraint.is_placement() {
            let enforced = self.placed(constraint);
            return (
                declared.filter(|_| enforced == PLACEMENT).cloned(),
                enforced,
            );
        }
        let (value, enforced) = match constraint {
            Constraint::MaxMemoryMb => (
                limits.memory >> 20,
                "limit: a refused grow ends as memory-limit",
            ),
            Constraint::MaxCpuMs => (
                u64::try_from(limits.cpu.as_millis()).unwrap_or(u64::MAX),
                "limit: more ends as cpu-limit",
            ),
            Constraint::CpuShares => (self.weight.into(), "weight in the fair gate"),
            Constraint::NetworkBandwidthMbps => {
                (self.megabits.into(), "token bucket over answers and events")
            }
            Constraint::TmpStorageMb => (limits.storage >> 20, "quota"),
            Constraint::ModelStorageMb => {
                let allowed = declared.and_then(Value::as_u64).unwrap_or(0);
                (allowed, "quota")
            }
            Constraint::DiskStorageGb => {
                let gb = self.quotas.storage as f64 / f64::from(1 << 30);
                return (Some(gb.into()), "quota");
            }
            Constraint::VectorIndexMb => (self.quotas.index.unwrap_or(0) >> 20, "quota"),
            // Placement, which was dealt with above.
            _ => return (None, PLACEMENT),
        };
        (Some(value.into()), enforced)
    }

    fn placed(&self, constraint: Constraint) -> &'static str {
        match self.machine {
            _ if self.relaxed.contains(&constraint) => "relaxed by the operator",
            None => "placement: not looked at",
            Some(machine) if constraint == Constraint::DiskType && machine.disk_type.is_none() => {
                "advisory: the operator does not say what the disk is"
            }
            Some(_) => PLACEMENT,
        }
    }
}

const PLACEMENT: &str = "placement";
