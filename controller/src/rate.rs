//! How many writes the API server is asked for.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// A bucket of tokens, one for each write. It holds as many as come in two seconds, so that a pause makes up for a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    /// A full bucket.
    pub(crate) fn new(per_second: NonZeroU32, now: Instant) -> Self {
        let per_second = f64::from(per_second.get());
        Self {
            per_second,
            tokens: 2.0 * per_second,
            filled: now,
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled);
        self.tokens = elapsed
            .as_secs_f64()
            .mul_add(self.per_second, self.tokens)
            .min(2.0 * self.per_second);
        self.filled = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    /// When there will be a token, as far as is known after [`take`](Self::take) found none.
    pub(crate) fn next(&self) -> Instant {
        let missing = (1.0 - self.tokens).max(0.0);
        // Rounding must not make it a moment too early.
        self.filled + Duration::from_secs_f64(missing / self.per_second) + Duration::from_micros(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_bounded_and_so_is_what_follows() {
        let start = Instant::now();
        let mut rate = Rate::new(NonZeroU32::new(10).unwrap(), start);
        let taken = (0..100).filter(|_| rate.take(start)).count();
        assert_eq!(taken, 20);
        let next = rate.next();
        assert!(!rate.take(next.checked_sub(Duration::from_millis(1)).unwrap()));
        assert!(rate.take(next));
        // One a tenth of a second, for as long as somebody asks.
        let taken = (0..10_000u64)
            .filter(|n| rate.take(next + Duration::from_millis(*n)))
            .count();
        assert!((99..=101).contains(&taken), "{taken}");
    }

    #[test]
    fn a_long_pause_fills_the_bucket_and_no_more() {
        let start = Instant::now();
        let mut rate = Rate::new(NonZeroU32::new(1).unwrap(), start);
        while rate.take(start) {}
        let later = start + Duration::from_hours(1);
        assert_eq!((0..100).filter(|_| rate.take(later)).count(), 2);
    }
}
