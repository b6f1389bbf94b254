use std::ops::Range;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::config::ByteCount;

/// Keys that may take so many bytes.
fn keys(max: u64) -> (Arc<Keys>, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let max = ByteCount::bytes(max);
    let settings = IdempotencySettings {
        ttl: Duration::from_secs(3600),
        max,
        max_answer: max,
    };
    (Keys::at(dir.path().join("keys"), &settings), dir)
}

fn claim(keys: &Arc<Keys>, caller: &str, key: &str) -> Claim {
    let key = Key::parse(key).expect("a key");
    let scope = Scope::new(Some(caller), "greet", None, &key);
    let claimed = keys.claim(key, scope, Fingerprint::of([&b"x"[..]]));
    claimed.expect("it is not under way")
}

fn ran() -> Ran {
    Ran {
        worker_id: "worker-greet".to_owned(),
        capability: "greet:hello".to_owned(),
    }
}

/// A call that is answered with so many bytes.
async fn answer(keys: &Arc<Keys>, caller: &str, key: &str, bytes: usize) {
    let claim = claim(keys, caller, key);
    claim.start(ran(), false).await.expect("there is room");
    let told = Told::Answered(Answered {
        worker_id: ran().worker_id,
        media_type: "text/plain".to_owned(),
        body: vec![b'x'; bytes].into(),
    });
    claim.end(&told).await.expect("that is written");
}

async fn is_kept(keys: &Arc<Keys>, caller: &str, key: &str) -> bool {
    matches!(claim(keys, caller, key).before().await, Ok(Some(_)))
}

#[tokio::test]
async fn who_fills_the_store_makes_room_and_nobody_who_has_less_than_a_fair_share() {
    let (keys, _dir) = keys(100_000);
    let store = async |caller: &str, some: Range<usize>| {
        for at in some {
            answer(&keys, caller, &format!("k{at}"), 5000).await;
        }
    };
    let all_of_adas = async || {
        for at in 0..5 {
            assert!(is_kept(&keys, "ada", &format!("k{at}")).await, "k{at}");
        }
    };
    store("ada", 0..5).await;
    store("eve", 0..40).await;
    all_of_adas().await;
    assert!(!is_kept(&keys, "eve", "k0").await, "her own oldest went");
    assert!(is_kept(&keys, "eve", "k39").await);

    // Who comes later has a share too, of those who took more than theirs.
    store("bob", 0..3).await;
    all_of_adas().await;
    assert!(is_kept(&keys, "bob", "k0").await && is_kept(&keys, "eve", "k39").await);
    store("bob", 3..40).await;
    all_of_adas().await;
    assert!(!is_kept(&keys, "bob", "k0").await && is_kept(&keys, "bob", "k39").await);
    assert!(is_kept(&keys, "eve", "k39").await);

    // What is more than all that one may have is given once, and nobody pays for it.
    answer(&keys, "ada", "large", 90_000).await;
    let again = claim(&keys, "ada", "large").before().await;
    let again = again.expect_err("it was not kept");
    assert_eq!(again.code, Code::IdempotencyUnanswered);
    all_of_adas().await;
    assert!(is_kept(&keys, "eve", "k39").await && is_kept(&keys, "bob", "k39").await);
}

/// More than one look at the index finds.
const MANY: usize = 1100;

#[tokio::test]
async fn calls_under_way_stand_in_the_way_of_no_room_and_of_no_sweep() {
    let (keys, _dir) = keys(1_000_000);
    let claims: Vec<Claim> = (0..MANY)
        .map(|at| claim(&keys, "ada", &format!("k{at}")))
        .collect();
    let started = join_all(claims.iter().map(|claim| claim.start(ran(), false))).await;
    assert!(started.iter().all(Result::is_ok));
    answer(&keys, "ada", "done", 300_000).await;
    answer(&keys, "ada", "next", 300_000).await;
    assert!(is_kept(&keys, "ada", "next").await);
    assert!(!is_kept(&keys, "ada", "done").await, "it made room");

    // Nor does a sweep take them, and all the rest it takes.
    keys.remove_before(u64::MAX).await.expect("it is swept");
    assert!(!is_kept(&keys, "ada", "next").await);
    for claim in &claims {
        assert!(claim.before().await.is_err(), "it is written down as begun");
    }
    drop(claims);
    keys.remove_before(u64::MAX).await.expect("it is swept");
    let left = keys.records.keys(None).await.expect("it is read").keys;
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn the_removal_of_what_is_over_takes_nothing_that_began_since() {
    let (keys, _dir) = keys(100_000);
    let begun = claim(&keys, "ada", "k");
    begun.start(ran(), false).await.expect("there is room");
    let before = Place::of(begun.scope(), 1);
    keys.remove(before).await.expect("it is not there");
    let again = begun.before().await.expect_err("its call has begun");
    assert_eq!(again.code, Code::IdempotencyUnanswered);
}
