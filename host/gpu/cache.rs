//! What a worker keeps on its GPU between invocations, by what it is: bounded, the longest unused goes.

use std::collections::HashMap;
use std::hash::Hash;

/// Values of some weight each, of which no more than `most` are kept together.
pub struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    most: u64,
    weight: u64,
    clock: u64,
}

struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub fn new(most: u64) -> Self {
        Self {
            entries: HashMap::new(),
            most,
            weight: 0,
            clock: 0,
        }
    }

    pub fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Keeps a value, and lets go of others to make room. A value that is too heavy alone is not kept.
    pub fn insert(&mut self, key: K, value: V, weight: u64) {
        if weight > self.most || self.entries.contains_key(&key) {
            return;
        }
        self.weight += weight;
        while self.weight > self.most {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(gone) = self.entries.remove(&oldest) {
                self.weight -= gone.weight;
            }
        }
        self.clock += 1;
        let used = self.clock;
        self.entries.insert(
            key,
            Entry {
                value,
                weight,
                used,
            },
        );
    }
}
