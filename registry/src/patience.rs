//! When a registry is asked again, and how long is waited before that.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use crate::error::Error;

/// How often a registry is asked that fails for the moment: one that cannot be reached, fails with 5xx, or wants fewer requests.
///
/// Only what may be asked twice is asked twice: questions, manifests and deletions by name, and uploads, which begin anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// Times that something is asked at most, the first included.
    pub attempts: u32,
    /// Pause before the second time, give or take a quarter. It doubles with each.
    pub first_pause: Duration,
    /// Longest pause. A registry that asks for a longer one (`Retry-After`) is not waited for.
    pub longest_pause: Duration,
}

impl Patience {
    /// Everything is asked once.
    pub const NONE: Self = Self {
        attempts: 1,
        first_pause: Duration::ZERO,
        longest_pause: Duration::ZERO,
    };

    /// The pause after the attempt of that number, the first being 1, failed so. `None` if it was the last. `spread` is from 0 to 1.
    pub(crate) fn pause(&self, attempt: u32, error: &Error, spread: f64) -> Option<Duration> {
        if attempt >= self.attempts || !error.is_transient() {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(16);
        let own = self.first_pause.saturating_mul(1 << doublings).min(self.longest_pause);
        let own = own.mul_f64(0.75 + spread / 2.0);
        match error.retry_after() {
            Some(asked) if asked > self.longest_pause => None,
            Some(asked) => Some(asked.max(own)),
            None => Some(own),
        }
    }
}

/// A number from 0 to 1 that differs from one call to the next, so that programs do not knock in step.
pub(crate) fn spread() -> f64 {
    let random = RandomState::new().hash_one(()) % 1000;
    f64::from(u32::try_from(random).unwrap_or_default()) / 1000.0
}

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        attempts: 4,
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(10),
    };

    fn limited(seconds: Option<u64>) -> Error {
        Error::RateLimited {
            host: "registry".to_owned(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    fn status(status: u16) -> Error {
        Error::Unavailable {
            host: "registry".to_owned(),
            status,
            retry_after: None,
            said: None,
        }
    }

    #[test]
    fn pauses_grow_and_follow_what_the_registry_asks_for() {
        // Attempt, error, spread, pause in milliseconds.
        let cases = [
            (1, status(503), 0.5, Some(1_000)),
            (2, status(503), 0.5, Some(2_000)),
            (3, status(503), 0.5, Some(4_000)),
            (4, status(503), 0.5, None),
            (1, status(503), 0.0, Some(750)),
            (1, status(503), 1.0, Some(1_250)),
            (1, limited(None), 0.5, Some(1_000)),
            (1, limited(Some(7)), 0.5, Some(7_000)),
            (3, limited(Some(0)), 0.5, Some(4_000)),
            (1, limited(Some(11)), 0.5, None),
            // These stay as they are.
            (1, status(501), 0.5, None),
            (1, status(507), 0.5, None),
        ];
        for (attempt, error, spread, expected) in cases {
            let pause = PATIENCE.pause(attempt, &error, spread);
            assert_eq!(pause, expected.map(Duration::from_millis), "attempt {attempt}: {error}");
        }
        assert_eq!(Patience::NONE.pause(1, &status(503), 0.5), None);
        let never_so_long = Patience {
            attempts: u32::MAX,
            ..PATIENCE
        };
        assert_eq!(
            never_so_long.pause(60, &status(503), 0.5),
            Some(Duration::from_secs(10))
        );
    }

    #[test]
    fn spread_is_a_share() {
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&spread()));
        }
    }
}
