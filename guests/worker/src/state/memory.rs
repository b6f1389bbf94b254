//! State in the memory of one thread, for native tests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::Failure;

/// Keys on one page: few, so that tests see several.
const PAGE: usize = 10;

type Entries = BTreeMap<String, Vec<u8>>;

thread_local! {
    static BUCKETS: RefCell<BTreeMap<String, Entries>> = const { RefCell::new(BTreeMap::new()) };
}

pub(super) struct Store(String);

impl Store {
    pub fn open(name: &str) -> Result<Self, Failure> {
        Ok(Self(
            if name.is_empty() { "default" } else { name }.to_owned(),
        ))
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.with(|entries| entries.get(key).cloned()))
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        self.with(|entries| entries.insert(key.to_owned(), value.to_owned()));
        Ok(())
    }

    pub fn delete(&self, key: &str) -> Result<(), Failure> {
        self.with(|entries| entries.remove(key));
        Ok(())
    }

    pub fn exists(&self, key: &str) -> Result<bool, Failure> {
        Ok(self.with(|entries| entries.contains_key(key)))
    }

    pub fn page(&self, after: Option<&str>) -> Result<(Vec<String>, Option<String>), Failure> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys: Vec<String> = self.with(|entries| {
            let following = entries.range::<str, _>((begin, Bound::Unbounded));
            following.take(PAGE).map(|(key, _)| key.clone()).collect()
        });
        let cursor = keys.get(PAGE - 1).cloned();
        Ok((keys, cursor))
    }

    pub fn update(
        &self,
        key: &str,
        change: &mut dyn FnMut(Option<Vec<u8>>) -> Result<Vec<u8>, Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let value = change(self.get(key)?)?;
        self.set(key, &value)?;
        Ok(value)
    }

    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Failure> {
        let text = String::from_utf8(self.get(key)?.unwrap_or(b"0".to_vec())).unwrap_or_default();
        let sum = text
            .parse()
            .ok()
            .and_then(|number: i64| number.checked_add(delta));
        let sum = sum.ok_or_else(|| Failure::failed("the state refuses: not a number"))?;
        self.set(key, sum.to_string().as_bytes())?;
        Ok(sum)
    }

    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    pub fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        entries
            .iter()
            .try_for_each(|(key, value)| self.set(key, value))
    }

    pub fn delete_many(&self, keys: &[String]) -> Result<(), Failure> {
        keys.iter().try_for_each(|key| self.delete(key))
    }

    fn with<T>(&self, use_entries: impl FnOnce(&mut Entries) -> T) -> T {
        BUCKETS.with_borrow_mut(|buckets| use_entries(buckets.entry(self.0.clone()).or_default()))
    }
}
