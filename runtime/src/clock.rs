//! The wall clock, which somebody may set back.
//!
//! What the servers plan is at times of the wall clock, because that is what they tell and are told. Put forward, the clock only makes
//! things due early. Set back by an hour, it would make an agent blind for an hour: the next look would be that far away, and whatever
//! was seen by then would be older than what is remembered. So they notice, and take along what they remember.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// How far a clock may be behind what was expected: less than that is its rate, not its being set.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// The wall clock, watched by a clock that cannot be set.
#[derive(Debug)]
pub struct Clock {
    wall: Timestamp,
    steady: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that is looked at for the first time.
    #[must_use]
    pub fn new() -> Self {
        Self::seen(Timestamp::now(), Instant::now())
    }

    /// A clock that was looked at last when it showed this.
    #[must_use]
    pub const fn seen(wall: Timestamp, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// Whether the wall clock was set back since the last look at it.
    pub fn set_back(&mut self) -> Option<SetBack> {
        self.compare(Timestamp::now(), Instant::now())
    }

    fn compare(&mut self, wall: Timestamp, steady: Instant) -> Option<SetBack> {
        let passed = steady.saturating_duration_since(self.steady);
        let expected = SignedDuration::try_from(passed)
            .ok()
            .and_then(|passed| self.wall.checked_add(passed).ok())
            .unwrap_or(wall);
        *self = Self { wall, steady };
        (expected.duration_since(wall) > TOLERANCE).then_some(SetBack { expected, now: wall })
    }
}

/// The wall clock was set back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SetBack {
    /// What it would show otherwise.
    pub expected: Timestamp,
    /// What it shows.
    pub now: Timestamp,
}

impl SetBack {
    /// The time by the clock as it is now: what was to come is as far away as it was, and what was is no later than now.
    #[must_use]
    pub fn moved(&self, time: Timestamp) -> Timestamp {
        if time > self.expected {
            let ahead = time.duration_since(self.expected);
            self.now.checked_add(ahead).unwrap_or(time)
        } else {
            time.min(self.now)
        }
    }

    /// Moves a time that may be there.
    pub fn shift(&self, time: &mut Option<Timestamp>) {
        *time = time.map(|time| self.moved(time));
    }

    /// How far it was set back.
    #[must_use]
    pub fn by(&self) -> SignedDuration {
        self.expected.duration_since(self.now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::ToSpan as _;

    use super::*;

    const NOON: Timestamp = Timestamp::constant(1_800_000_000, 0);

    #[test]
    fn only_a_clock_that_was_set_back_is_noticed() {
        // Seconds that passed, and by how much the wall clock went on meanwhile.
        let cases = [
            (8, 8, None),
            (8, 3_608, None),
            (0, 0, None),
            (8, 7, None),
            (8, 6, Some(2)),
            (8, -3_592, Some(3_600)),
        ];
        for (passed, went_on, expected) in cases {
            let steady = Instant::now();
            let mut clock = Clock::seen(NOON, steady);
            let wall = NOON + went_on.seconds();
            let found = clock.compare(wall, steady + Duration::from_secs(passed));
            assert_eq!(found.map(|it| it.by().as_secs()), expected, "{passed} {went_on}");
            // Once.
            assert_eq!(clock.compare(wall, steady + Duration::from_secs(passed)), None);
        }
    }

    #[test]
    fn what_is_to_come_stays_as_far_away_and_what_was_is_not_later_than_now() {
        let hour = SetBack {
            expected: NOON,
            now: NOON - 1.hour(),
        };
        let cases = [
            (NOON + 8.seconds(), NOON - 1.hour() + 8.seconds()),
            (NOON, NOON - 1.hour()),
            (NOON - 10.minutes(), NOON - 1.hour()),
            (NOON - 2.hours(), NOON - 2.hours()),
            (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH),
        ];
        for (time, expected) in cases {
            assert_eq!(hour.moved(time), expected, "{time}");
        }
    }
}
