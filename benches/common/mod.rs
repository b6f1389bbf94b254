//! What the load generators share.

/// Xorshift (Marsaglia, 2003): the same numbers each time.
pub struct Random(pub u64);

impl Random {
    /// More than 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}
