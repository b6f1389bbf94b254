use std::collections::BTreeMap;

use super::*;

const QUOTA: u64 = 400_000;

fn bucket(dir: &tempfile::TempDir, name: &str) -> Bucket {
    let state = Arc::new(State::at(dir.path().join("state")));
    state.bucket(name, Some(QUOTA))
}

/// Small and repeatable: xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn key(&mut self) -> String {
        "k".repeat(1 + self.roll(12) as usize)
    }

    fn value(&mut self) -> Vec<u8> {
        match self.roll(3) {
            0 => self.roll(1000).to_string().into_bytes(),
            // Short and long ones, in one and in several pieces.
            1 => (0..self.roll(150_000)).map(|at| at as u8).collect(),
            _ => vec![b'x'; self.roll(200) as usize],
        }
    }
}

/// What a bucket ought to be.
#[derive(Default)]
struct Model(BTreeMap<String, Vec<u8>>);

impl Model {
    fn used(&self) -> u64 {
        let size = |(key, value): (&String, &Vec<u8>)| (key.len() + value.len()) as u64;
        self.0.iter().map(size).sum()
    }

    fn set_many(&mut self, entries: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        let before = self.used();
        let mut after = Self(self.0.clone());
        after.0.extend(entries.iter().cloned());
        if after.used() > QUOTA && after.used() > before {
            return Err(StateError::Quota);
        }
        *self = after;
        Ok(())
    }

    fn increment(&mut self, key: &str, delta: i64) -> Result<i64, StateError> {
        let number = match self.0.get(key) {
            Some(value) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok()),
            None => Some(0),
        };
        let number: i64 = number.ok_or(StateError::Refused("the value is not a number"))?;
        let sum = number + delta;
        self.set_many(&[(key.to_owned(), sum.to_string().into_bytes())])?;
        Ok(sum)
    }
}

async fn all_keys(bucket: &Bucket) -> Vec<String> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.keys(cursor).await.unwrap();
        keys.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            return keys;
        }
    }
}

#[tokio::test]
async fn a_bucket_does_as_a_map_with_a_quota_would_and_finds_itself_again() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 1..=4 {
        let mut dice = Dice(seed);
        let mut model = Model::default();
        let name = format!("b{seed}");
        let mut real = bucket(&dir, &name);
        let other = real.state.bucket("neighbour", Some(QUOTA));
        other.set("k".into(), b"neighbour".to_vec()).await.unwrap();
        for _ in 0..300 {
            let key = dice.key();
            match dice.roll(9) {
                0..=2 => {
                    let entries = vec![(key, dice.value())];
                    assert_eq!(
                        real.set_many(entries.clone()).await,
                        model.set_many(&entries)
                    );
                }
                3 => {
                    let entries: Vec<_> = (0..dice.roll(5))
                        .map(|_| (dice.key(), dice.value()))
                        .collect();
                    assert_eq!(
                        real.set_many(entries.clone()).await,
                        model.set_many(&entries)
                    );
                }
                4 => {
                    model.0.remove(&key);
                    real.delete(key).await.unwrap();
                }
                5 => {
                    let keys = vec![key, dice.key()];
                    keys.iter().for_each(|key| drop(model.0.remove(key)));
                    real.delete_many(keys).await.unwrap();
                }
                6 => {
                    let delta = dice.roll(2000) as i64 - 1000;
                    let expected = model.increment(&key, delta);
                    assert_eq!(real.increment(key, delta).await, expected);
                }
                7 => {
                    let cas = real.cas(key.clone()).await.unwrap();
                    assert_eq!(cas.current().await.unwrap(), model.0.get(&key).cloned());
                    let value = dice.value();
                    let expected = model.set_many(&[(key, value.clone())]);
                    assert_eq!(
                        cas.swap(value).await.map(|swapped| swapped.unwrap()),
                        expected
                    );
                }
                _ => {
                    let keys = vec![key.clone(), dice.key()];
                    let expected: Vec<_> =
                        keys.iter().map(|key| model.0.get(key).cloned()).collect();
                    assert_eq!(real.exists(key).await.unwrap(), expected[0].is_some());
                    assert_eq!(real.get_many(keys).await.unwrap(), expected);
                }
            }
            if dice.roll(100) == 0 {
                real.state.close().await;
                assert!(matches!(
                    real.get("k".into()).await,
                    Err(StateError::Failed(_))
                ));
                drop(real);
                real = bucket(&dir, &name);
            }
        }
        assert_eq!(
            all_keys(&real).await,
            model.0.keys().cloned().collect::<Vec<_>>()
        );
        for (key, value) in &model.0 {
            assert_eq!(real.get(key.clone()).await.unwrap().as_ref(), Some(value));
        }
        let neighbour = real.state.bucket("neighbour", None);
        assert_eq!(all_keys(&neighbour).await, ["k"]);
        // What is left of the quota, to the byte.
        let left = (QUOTA - model.used()) as usize;
        if left > 3 {
            let over = real.set("new".into(), vec![0; left - 2]).await;
            assert_eq!(over, Err(StateError::Quota));
            real.set("new".into(), vec![0; left - 3]).await.unwrap();
        }
        real.state.close().await;
    }
}

#[tokio::test]
async fn a_bucket_over_a_quota_that_was_lowered_may_shrink_and_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = bucket(&dir, "b");
    roomy.set("a".into(), vec![0; 500]).await.unwrap();
    let tight = roomy.state.bucket("b", Some(100));
    assert_eq!(tight.set("b".into(), vec![]).await, Err(StateError::Quota));
    tight.set("a".into(), vec![0; 400]).await.unwrap();
    tight.delete("a".into()).await.unwrap();
    tight.set("a".into(), vec![0; 99]).await.unwrap();
    let reader = roomy.state.bucket("b", None);
    assert_eq!(reader.get("a".into()).await.unwrap(), Some(vec![0; 99]));
    assert_eq!(
        reader.set("a".into(), vec![]).await,
        Err(StateError::ReadOnly)
    );
    assert_eq!(reader.delete("a".into()).await, Err(StateError::ReadOnly));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_fails_whenever_someone_wrote_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = bucket(&dir, "b");
    let cas = bucket.cas("k".into()).await.unwrap();
    bucket.set("k".into(), b"1".to_vec()).await.unwrap();
    let again = cas.swap(b"2".to_vec()).await.unwrap().unwrap_err();
    // The same value again is another write.
    bucket.set("k".into(), b"1".to_vec()).await.unwrap();
    let again = again.swap(b"2".to_vec()).await.unwrap().unwrap_err();
    assert_eq!(again.current().await.unwrap().unwrap(), b"1");
    again.swap(b"2".to_vec()).await.unwrap().unwrap();
    assert_eq!(bucket.get("k".into()).await.unwrap().unwrap(), b"2");

    let adding = (0..50).map(|_| {
        let bucket = bucket.clone();
        tokio::spawn(async move {
            let mut cas = bucket.cas("sum".into()).await.unwrap();
            loop {
                let before = cas.current().await.unwrap().unwrap_or_default();
                match cas.swap([before, b"x".to_vec()].concat()).await.unwrap() {
                    Ok(()) => return,
                    Err(again) => cas = again,
                }
            }
        })
    });
    for added in adding.collect::<Vec<_>>() {
        added.await.unwrap();
    }
    assert_eq!(bucket.get("sum".into()).await.unwrap().unwrap().len(), 50);
}

#[tokio::test]
async fn a_directory_has_one_host_and_a_host_that_asks_nothing_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    let first = bucket(&dir, "b");
    let place = dir.path().join("state");
    assert!(!place.exists());
    first.set("k".into(), vec![]).await.unwrap();
    let second = bucket(&dir, "b");
    let error = second.get("k".into()).await.unwrap_err();
    let pid = std::process::id().to_string();
    assert!(
        matches!(&error, StateError::Held { pid: held, .. } if *held == pid),
        "{error}"
    );
    assert!(error.to_string().contains("state_dir"), "{error}");
    first.state.close().await;
    drop(first);
    // Who was refused may try again.
    assert_eq!(second.get("k".into()).await.unwrap(), Some(vec![]));
}

#[tokio::test]
async fn keys_and_values_beyond_what_one_call_may_carry_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(State::at(dir.path().to_owned()));
    let bucket = state.bucket("b", Some(u64::MAX));
    let key = |bytes| "k".repeat(bytes);
    bucket.set(key(MAX_KEY), vec![1; MAX_VALUES]).await.unwrap();
    assert_eq!(
        bucket.get(key(MAX_KEY)).await.unwrap().unwrap().len(),
        MAX_VALUES
    );
    for refused in [
        bucket.set(key(MAX_KEY + 1), vec![]).await,
        bucket.set(String::new(), vec![]).await,
        bucket.set(key(1), vec![0; MAX_VALUES + 1]).await,
        bucket.delete_many(vec![key(1); MAX_KEYS + 1]).await,
        bucket.get_many(vec![key(MAX_KEY); 2]).await.map(|_| ()),
        bucket.keys(Some(key(MAX_KEY + 1))).await.map(|_| ()),
    ] {
        assert!(
            matches!(refused, Err(StateError::Refused(_))),
            "{refused:?}"
        );
    }
    bucket.increment(key(2), i64::MAX).await.unwrap();
    assert!(bucket.increment(key(2), 1).await.is_err());
    let names: Vec<String> = (0..2500).map(|n| format!("n{n:04}")).collect();
    let entries = names.iter().map(|name| (name.clone(), vec![])).collect();
    bucket.set_many(entries).await.unwrap();
    let listed = all_keys(&bucket).await;
    assert_eq!(listed[2..], names);
    assert_eq!(
        bucket.keys(Some("n2498".into())).await.unwrap().keys,
        ["n2499"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_whose_callers_have_gone_hurt_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(State::at(dir.path().to_owned()));
    let bucket = state.bucket("b", Some(u64::MAX));
    for n in 0..200 {
        let writing = bucket.set(format!("k{n}"), vec![0; 1 << 20]);
        let _gone = tokio::time::timeout(std::time::Duration::from_micros(50), writing).await;
    }
    bucket.set("last".into(), vec![]).await.unwrap();
    let opened = state.opened.get().unwrap();
    assert_eq!(opened.room.available_permits(), ROOM_KIB as usize);
    assert_eq!(opened.reads.available_permits(), READS);
}

#[tokio::test]
async fn what_is_overwritten_or_deleted_leaves_its_place_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = bucket(&dir, "b");
    for round in 0..50_u8 {
        bucket.set("k".into(), vec![round; 300_000]).await.unwrap();
        if round % 5 == 0 {
            bucket.delete("k".into()).await.unwrap();
        }
    }
    let file = dir.path().join("state/state.redb");
    let size = file.metadata().unwrap().len();
    assert!(size < 6 << 20, "{size} bytes for one value of 300,000");
}
