//! Numbers that follow from a seed, so that a run can be repeated.

/// A generator (xorshift64*).
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        // A state of zero would stay zero.
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { seed, state }
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or_default() % limit
    }
}
