//! What one caller may ask of the host: so many requests a second, so many at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Parts of the accounts, each with a lock of its own: two callers seldom wait for each other. Half are for callers that
/// the host knows, half for addresses: who has many of these crowds out nobody who has a name.
const SHARDS: usize = 64;
/// Accounts of one part: 65,536 in all, some megabytes, however many addresses somebody has.
const ACCOUNTS: usize = 1024;
/// Between two searches of a full part for accounts that can go: each looks at all of them.
const SWEEP: Duration = Duration::from_millis(10);
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
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    origin: Instant,
    /// Nanoseconds that one request takes, and that a full burst takes. No rate: none.
    step: u64,
    burst: u64,
    concurrency: usize,
}

#[derive(Debug, Default)]
struct Shard {
    accounts: HashMap<Who, Arc<Account>>,
    /// Nanoseconds from the origin to the last search for accounts that can go.
    swept: u64,
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

    /// Takes a request for one that was never made.
    pub fn give_back(&self, turn: Turn) {
        let Turn(account) = &turn;
        account.full_at.fetch_sub(self.step, Relaxed);
    }

    fn admit_at(&self, who: Who, now: Duration) -> Result<Turn, Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let account = self.account(who, now)?;
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

    /// A caller's account; or when there may be room for one. Only one that says nothing any more makes room: a caller
    /// who is at the limit would else begin anew.
    fn account(&self, who: Who, now: u64) -> Result<Arc<Account>, Duration> {
        let half = SHARDS / 2;
        let named = matches!(who, Who::Named(_));
        let at = self.hasher.hash_one(&who) as usize % half + if named { half } else { 0 };
        let shard = self.shards.get(at).ok_or(BUSY)?;
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { accounts, swept } = &mut *shard;
        if let Some(account) = accounts.get(&who) {
            return Ok(account.clone());
        }
        let is_full = |accounts: &HashMap<_, _>| accounts.len() >= ACCOUNTS;
        if is_full(accounts) && u128::from(now.abs_diff(*swept)) >= SWEEP.as_nanos() {
            *swept = now;
            // Whoever has a turn, or is about to, has a handle too.
            accounts.retain(|_, account| {
                Arc::strong_count(account) > 1 || account.full_at.load(Relaxed) > now
            });
        }
        if is_full(accounts) {
            return Err(BUSY);
        }
        Ok(accounts.entry(who).or_default().clone())
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
        for _ in 0..10 {
            let turn = callers.admit_at(ada.clone(), Duration::from_secs(20));
            callers.give_back(turn.unwrap());
        }
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
    fn many_addresses_take_bounded_room_and_no_place_of_who_has_one() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        let callers = Callers::new(1, 1, 1).unwrap();
        let ask = |who: Who, ms| callers.admit_at(who, Duration::from_millis(ms));
        let held = ask(address("192.168.0.1"), 1000).unwrap();
        let from = |number: u32| Who::Address(number.to_be_bytes().into());
        let taken = (0..200_000).filter(|number| ask(from(*number), 1000).is_ok());
        assert_eq!(taken.count() + 1, SHARDS / 2 * ACCOUNTS);
        // Nobody's account went for another's, and who has a name is none of the crowd.
        let again = ask(address("192.168.0.1"), 1000);
        assert_eq!(again.err(), Some(BUSY), "it has one under way");
        assert!(
            ask(from(0), 1000).is_err(),
            "it has had its turn of this second"
        );
        let ada = Who::of(Some("spiffe://a/b"), [10, 0, 0, 1].into());
        assert!(ask(ada, 1000).is_ok());
        // What says nothing any more goes, and what is under way stays.
        assert!(ask(from(300_000), 3000).is_ok());
        let again = ask(address("192.168.0.1"), 3000);
        assert_eq!(again.err(), Some(BUSY));
        let sizes = callers
            .shards
            .iter()
            .map(|s| s.lock().unwrap().accounts.len());
        assert!(sizes.sum::<usize>() <= SHARDS * ACCOUNTS);
        drop(held);
    }
}
