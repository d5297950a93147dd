//! A clock that cannot be set and goes on while the machine sleeps.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine was started, sleep included. A leader that slept through its Lease must not think that no time has passed, as
/// it would by [`std::time::Instant`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// After every other moment.
    pub(crate) const NEVER: Self = Self(Duration::MAX);

    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanoseconds))
    }

    #[cfg(test)]
    pub(crate) const fn of(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Completes at that moment. Sleep of the machine makes it late: whoever waits looks at the clock again.
    pub(crate) async fn come(self) {
        loop {
            let left = self - Self::now();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_hours(1))).await;
        }
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The time between two moments; none where the second is later.
impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
