//! Who spent how many `cost_tokens` on what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::striped::Striped;

/// Tenants that have accounts of their own, and capabilities of each; what comes on top shares one.
pub(super) const TENANTS: usize = 1000;
/// The account of a tenant without an identity.
pub(super) const ANONYMOUS: &str = "anonymous";
/// The account of those beyond the bound. No SPIFFE id and no capability is written so.
const OTHERS: &str = "others";
/// Tokens are counted in millionths.
const MICRO: f64 = 1e6;

/// Calls after which an account is one that many threads charge.
const OFTEN: u64 = 1000;

/// What one tenant spent on one capability.
#[derive(Debug, Default)]
pub(super) struct Account {
    first: Counts,
    /// Where it goes on once it is charged often: few are, and each of these is as large as ten others.
    further: OnceLock<Striped<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    micro_tokens: AtomicU64,
}

/// All accounts: by tenant, then by capability.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tenants: Mutex<Tenants>,
}

type Tenants = BTreeMap<String, BTreeMap<String, Arc<Account>>>;

/// An account as it is kept and shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Spent {
    pub calls: u64,
    pub tokens: f64,
}

/// What each tenant spent on each capability.
pub(super) type Accounts = BTreeMap<String, BTreeMap<String, Spent>>;

impl Account {
    pub fn charge(&self, tokens: f64) {
        if let Some(further) = self.further.get() {
            further.mine().add(tokens);
        } else if self.first.add(tokens) > OFTEN {
            self.further.get_or_init(Striped::default);
        }
    }

    pub fn spent(&self) -> Spent {
        Spent {
            calls: self.sum(|counts| &counts.calls),
            tokens: tokens(self.sum(|counts| &counts.micro_tokens)),
        }
    }

    fn sum(&self, count: fn(&Counts) -> &AtomicU64) -> u64 {
        let further = self.further.get().map_or(0, |further| further.sum(count));
        count(&self.first).load(Relaxed) + further
    }
}

impl Counts {
    /// Adds a call, and says how many there were before.
    fn add(&self, tokens: f64) -> u64 {
        self.micro_tokens.fetch_add(micros(tokens), Relaxed);
        self.calls.fetch_add(1, Relaxed)
    }
}

impl Ledger {
    pub fn of(accounts: Accounts) -> Self {
        let account = |spent: Spent| {
            let first = Counts {
                calls: spent.calls.into(),
                micro_tokens: micros(spent.tokens).into(),
            };
            Arc::new(Account {
                first,
                further: OnceLock::new(),
            })
        };
        let tenants = accounts.into_iter().map(|(tenant, accounts)| {
            let accounts = accounts
                .into_iter()
                .map(|(name, spent)| (name, account(spent)));
            (tenant, accounts.collect())
        });
        Self {
            tenants: Mutex::new(tenants.collect()),
        }
    }

    pub fn account(&self, tenant: &str, capability: &str) -> Arc<Account> {
        let mut tenants = self.tenants();
        let tenant = match tenants.len() < TENANTS || tenants.contains_key(tenant) {
            true => tenant,
            false => OTHERS,
        };
        let accounts = tenants.entry(tenant.to_owned()).or_default();
        let capability = match accounts.len() < TENANTS || accounts.contains_key(capability) {
            true => capability,
            false => OTHERS,
        };
        accounts.entry(capability.to_owned()).or_default().clone()
    }

    pub fn accounts(&self) -> Accounts {
        let tenants = self.tenants();
        let spent = tenants.iter().map(|(tenant, accounts)| {
            let accounts = accounts
                .iter()
                .map(|(name, account)| (name.clone(), account.spent()));
            (tenant.clone(), accounts.collect())
        });
        spent.collect()
    }

    fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens as they are counted.
pub(super) fn micros(tokens: f64) -> u64 {
    // The cast saturates; tokens are not negative, and no number but a finite one gets here.
    (tokens * MICRO).round() as u64
}

/// What was counted, in tokens.
pub(super) fn tokens(micros: u64) -> f64 {
    micros as f64 / MICRO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_bound_share_an_account() {
        let ledger = Ledger::default();
        for tenant in 0..TENANTS + 50 {
            ledger
                .account(&format!("tenant-{tenant}"), "greet:world")
                .charge(0.1);
        }
        let accounts = ledger.accounts();
        assert_eq!(accounts.len(), TENANTS + 1);
        let others = accounts[OTHERS]["greet:world"];
        assert_eq!((others.calls, others.tokens), (50, 5.0));
        assert_eq!(Ledger::of(accounts.clone()).accounts(), accounts);
    }
}
