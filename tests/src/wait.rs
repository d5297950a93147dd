//! Waiting on conditions, never on the clock.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long [`eventually`] rests between two looks.
const INTERVAL: Duration = Duration::from_millis(150);

/// How long a look may take although the time is up: the last one should be able to end.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What one look at the awaited thing showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look<T, S> {
    /// It is as it should be.
    Done(T),
    /// It is not yet; this is what was seen instead.
    NotYet(S),
}

/// Looks again and again until `look` says [`Look::Done`].
///
/// # Errors
/// After `timeout`, with the name of what was awaited and what was seen last. An error from `look` counts as "not yet":
/// an API server that is restarting is no reason to give up.
pub async fn eventually<T, S, F>(what: &str, timeout: Duration, mut look: F) -> Result<T>
where
    S: Debug,
    F: AsyncFnMut() -> Result<Look<T, S>>,
{
    let started = Instant::now();
    loop {
        let left = timeout.saturating_sub(started.elapsed()).max(LONGEST_LOOK);
        let seen = match tokio::time::timeout(left, look()).await {
            Ok(Ok(Look::Done(value))) => return Ok(value),
            Ok(Ok(Look::NotYet(seen))) => format!("{seen:?}"),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        if started.elapsed() >= timeout {
            bail!(
                "waited {:.0} s for {what}; last seen: {seen}",
                started.elapsed().as_secs_f64()
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_what_the_last_look_found() {
        let mut looks = 0;
        let found = eventually("the third look", Duration::from_secs(5), async || {
            looks += 1;
            Ok(if looks == 3 {
                Look::Done(looks)
            } else {
                Look::NotYet(looks)
            })
        })
        .await
        .unwrap();
        assert_eq!(found, 3);
    }

    #[tokio::test]
    async fn failure_names_the_awaited_thing_and_the_last_value() {
        let error = eventually("a label on node-1", Duration::ZERO, async || {
            Ok(Look::<(), _>::NotYet("no labels"))
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0 s for a label on node-1; last seen: \"no labels\""
        );
    }
}
