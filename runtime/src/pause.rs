//! Pauses that keep those apart who would otherwise come back in step.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use jiff::SignedDuration;

/// The same pause, give or take a quarter. `key` says whose it is, and which: the same key gives the same pause.
#[must_use]
pub fn spread(pause: SignedDuration, key: &impl Hash) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let share = i32::try_from(hasher.finish() % 501).unwrap_or(0);
    pause.saturating_mul(750 + share) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_of_many_lie_evenly_around_what_was_asked() {
        let pause = SignedDuration::from_secs(10);
        let pauses: Vec<f64> = (0..5_000)
            .map(|node| spread(pause, &format!("node-{node}")).as_secs_f64())
            .collect();
        assert!(pauses.iter().all(|pause| (7.5..=12.5).contains(pause)));
        for begin in [7.5, 8.5, 9.5, 10.5, 11.5] {
            let number = pauses
                .iter()
                .filter(|pause| (begin..begin + 1.0).contains(*pause))
                .count();
            assert!((800..1_200).contains(&number), "{number} from {begin} s on");
        }
        assert_eq!(spread(pause, &"a"), spread(pause, &"a"));
        assert_eq!(spread(SignedDuration::ZERO, &"a"), SignedDuration::ZERO);
    }
}
