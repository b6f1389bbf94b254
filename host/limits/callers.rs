//! What one caller may ask of the host: so many requests a second, so many at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Parts of the accounts, each with a lock of its own: two callers seldom wait for each other.
const SHARDS: usize = 64;
/// Accounts of one part: 65,536 in all, some megabytes, however many addresses somebody has.
const ACCOUNTS: usize = 1024;
/// When to come back if as many requests are under way as may be.
const BUSY: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A caller that the host knows, by SPIFFE id.
    Named(Box<str>),
    /// Any other, by address. Of IPv6 the first 64 bits: one customer of a provider has them all.
    Address(IpAddr),
}

impl Who {
    /// Whose account a request goes on.
    pub fn of(caller: Option<&str>, address: IpAddr) -> Self {
        match (caller, address.to_canonical()) {
            (Some(caller), _) => Self::Named(caller.into()),
            (None, IpAddr::V6(address)) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self::Address(Ipv6Addr::from(network).into())
            }
            (None, address) => Self::Address(address),
        }
    }
}

/// The accounts of all callers, as many as are remembered.
#[derive(Debug)]
pub struct Callers {
    shards: Vec<Mutex<HashMap<Who, Arc<Account>>>>,
    hasher: RandomState,
    origin: Instant,
    /// Nanoseconds that one request takes, and that a full burst takes. No rate: none.
    step: u64,
    burst: u64,
    concurrency: usize,
}

/// One caller's requests.
#[derive(Debug, Default)]
struct Account {
    /// When the bucket is full again, in nanoseconds from the origin (the generic cell rate algorithm, as
    /// in `Bandwidth`).
    full_at: AtomicU64,
    under_way: AtomicUsize,
}

/// A request that is under way, until dropped.
#[derive(Debug)]
pub struct Turn(Arc<Account>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl Callers {
    /// Accounts with so many requests per second, so many of them at once before that holds, and so many
    /// under way at a time. 0 is no limit; `None` where there is neither.
    pub fn new(rate: u32, burst: u32, concurrency: usize) -> Option<Self> {
        if rate == 0 && concurrency == 0 {
            return None;
        }
        let step = 1_000_000_000_u64
            .checked_div(rate.into())
            .unwrap_or_default();
        Some(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            origin: Instant::now(),
            step,
            burst: step * u64::from(burst.max(1)),
            concurrency: match concurrency {
                0 => usize::MAX,
                most => most,
            },
        })
    }

    /// One more request.
    ///
    /// # Errors
    ///
    /// It is one too many; when to come back.
    pub fn admit(&self, who: Who) -> Result<Turn, Duration> {
        self.admit_at(who, self.origin.elapsed())
    }

    fn admit_at(&self, who: Who, now: Duration) -> Result<Turn, Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let account = self.account(who, now);
        let before = account.under_way.fetch_add(1, Relaxed);
        // From here on a guard gives it back.
        let turn = Turn(account.clone());
        if before >= self.concurrency {
            return Err(BUSY);
        }
        let next = |full_at: u64| full_at.max(now).saturating_add(self.step);
        let taken = account.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            Some(next(full_at)).filter(|next| *next <= now.saturating_add(self.burst))
        });
        match taken {
            Ok(_) => Ok(turn),
            Err(full_at) => {
                let early = next(full_at).saturating_sub(now.saturating_add(self.burst));
                Err(Duration::from_nanos(early))
            }
        }
    }

    fn account(&self, who: Who, now: u64) -> Arc<Account> {
        let at = self.hasher.hash_one(&who) as usize % SHARDS;
        let Some(shard) = self.shards.get(at) else {
            return Arc::default();
        };
        let mut accounts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(&who) {
            return account.clone();
        }
        if accounts.len() >= ACCOUNTS {
            // An account that says nothing any more is as good as none.
            accounts.retain(|_, account| {
                account.under_way.load(Relaxed) > 0 || account.full_at.load(Relaxed) > now
            });
        }
        if accounts.len() >= ACCOUNTS {
            // Whoever has as many addresses as that is slowed by other means; the room stays bounded.
            let soonest = accounts
                .iter()
                .min_by_key(|(_, account)| account.full_at.load(Relaxed));
            if let Some(soonest) = soonest.map(|(who, _)| who.clone()) {
                accounts.remove(&soonest);
            }
        }
        accounts.entry(who).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Who {
        Who::of(None, text.parse().unwrap())
    }

    #[test]
    fn a_caller_has_a_burst_and_then_the_rate_and_others_have_their_own() {
        let callers = Callers::new(10, 3, 0).unwrap();
        let ask = |who: &Who, ms| {
            let asked = callers.admit_at(who.clone(), Duration::from_millis(ms));
            asked.map(|_| ()).map_err(|wait| wait.as_millis())
        };
        let ada = address("10.0.0.1");
        assert_eq!([(); 3].map(|()| ask(&ada, 1000)), [Ok(()); 3]);
        assert_eq!(ask(&ada, 1000), Err(100));
        assert_eq!(ask(&ada, 1040), Err(60), "a refusal costs nothing");
        assert_eq!(ask(&address("10.0.0.2"), 1040), Ok(()));
        assert_eq!(ask(&ada, 1100), Ok(()));
        assert_eq!(ask(&ada, 1100), Err(100));
        assert_eq!([(); 3].map(|()| ask(&ada, 9000)), [Ok(()); 3]);
    }

    #[test]
    fn a_caller_has_so_many_under_way() {
        let callers = Callers::new(0, 1, 2).unwrap();
        let (ada, bob) = (
            address("10.0.0.1"),
            Who::of(Some("spiffe://a/b"), [10, 0, 0, 1].into()),
        );
        let turns = [callers.admit(ada.clone()), callers.admit(ada.clone())];
        assert!(turns.iter().all(Result::is_ok));
        assert_eq!(callers.admit(ada.clone()).err(), Some(BUSY));
        assert!(callers.admit(bob).is_ok());
        drop(turns);
        assert!(callers.admit(ada).is_ok());
    }

    #[test]
    fn many_addresses_take_bounded_room_and_one_ipv6_network_is_one_caller() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        let callers = Callers::new(1, 1, 1).unwrap();
        let held = callers.admit(address("192.168.0.1")).unwrap();
        for number in 0..200_000_u32 {
            drop(callers.admit(Who::Address(number.to_be_bytes().into())));
        }
        let accounts: usize = callers.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!(accounts <= SHARDS * ACCOUNTS, "{accounts}");
        drop(held);
    }
}
