//! Watches that never end, and how long a server waits before it begins a broken one again.

use std::{fmt::Debug, time::Duration};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt as _, TryStreamExt as _, future, stream};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;

/// How long the API server is asked to keep a watch open, in seconds. Then it is begun again where it ended. A connection that has gone
/// dead in silence is noticed 5 s after that.
const WATCH_SECONDS: u32 = 60;
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

/// Everything that happens to the objects of one kind, and the errors in between, which are logged. A watch that breaks is begun again, with
/// growing pauses, and one that the API server has forgotten the beginning of (410 Gone) with a new list, of pages of `page_size`. Bookmarks make
/// that rare.
pub fn watch<K>(
    api: Api<K>,
    kind: &'static str,
    page_size: u32,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(page_size);
    answered(watcher(api, config))
        .backoff(watch_backoff())
        .inspect_err(move |error| tracing::warn!(kind, error = %error, "A watch broke; it is begun again"))
}

/// The same events, but that a list begins only when the API server has answered. The watcher says so before it asks, which would pass for a success,
/// and the pauses between lists that fail would never grow.
fn answered<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> {
    let with_beginning = events.scan(false, |has_begun, event| {
        let began = std::mem::replace(has_begun, matches!(event, Ok(watcher::Event::Init)));
        let beginning = (began && event.is_ok()).then_some(Ok(watcher::Event::Init));
        let event = Some(event).filter(|_| !*has_begun);
        future::ready(Some(stream::iter(beginning.into_iter().chain(event))))
    });
    with_beginning.flatten()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

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

    #[tokio::test]
    async fn a_list_begins_when_it_is_answered() {
        let failure = || Err(watcher::Error::NoResourceVersion);
        let events = [
            Ok(Event::Init),
            failure(),
            Ok(Event::Init),
            failure(),
            Ok(Event::Init),
            Ok(Event::InitApply(1)),
            Ok(Event::InitDone),
            Ok(Event::Apply(2)),
            failure(),
            Ok(Event::Init),
            Ok(Event::InitDone),
        ];
        let told: Vec<String> = answered(stream::iter(events))
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .map(|event| event.map_or_else(|_| "failure".to_owned(), |event| format!("{event:?}")))
            .collect();
        let expected = [
            "failure",
            "failure",
            "Init",
            "InitApply(1)",
            "InitDone",
            "Apply(2)",
            "failure",
            "Init",
            "InitDone",
        ];
        assert_eq!(told, expected);
    }
}
