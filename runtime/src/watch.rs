//! How long a server waits before it begins a broken watch again.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::{utils::Backoff, watcher::ExponentialBackoff};

const SHORTEST: Duration = Duration::from_millis(800);
/// A third of what client-go and kube wait at most. A node that hears nothing pulls nothing new, so an API server that is back should be
/// noticed soon; and 5,000 agents whose pauses are spread over 10 to 20 s are some 330 requests a second, which it can queue.
const LONGEST: Duration = Duration::from_secs(10);

/// The pauses before a watch that broke is begun again: they double from 0.8 s to 10 s, each made longer by a random part of up to
/// itself, so that nobody waits for more than 20 s. They start anew when the watch has worked.
#[must_use]
pub fn watch_backoff() -> impl Backoff {
    ExponentialBackoff::from(
        ExponentialBuilder::default()
            .with_min_delay(SHORTEST)
            .with_max_delay(LONGEST)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_and_none_is_longer_than_twenty_seconds() {
        let pauses: Vec<Duration> = watch_backoff().take(100).collect();
        assert_eq!(pauses.len(), 100, "the attempts end");
        assert!(pauses[0] >= SHORTEST && pauses[0] < SHORTEST * 2, "{:?}", pauses[0]);
        assert!(
            pauses[10..]
                .iter()
                .all(|pause| *pause >= LONGEST && *pause < LONGEST * 2),
            "{pauses:?}"
        );
    }
}
