//! Which notices are written, as what, and when.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{About, name};
use crate::notice::Notice;

/// Least time between two writes of one series.
const INTERVAL: Duration = Duration::from_mins(1);
/// A series in which nothing happens for as long is over: what follows is a new Event.
const IDLE: Duration = Duration::from_mins(30);
/// Most series that are known. Beyond them nothing new is taken until some are over.
const MAX_SERIES: usize = 1_000;

/// What makes two notices the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    uid: Option<String>,
    reason: &'static str,
    topic: String,
}

/// Notices about the same, one after another.
#[derive(Debug)]
struct Series {
    /// Name of the Event.
    name: String,
    about: About,
    /// The newest one.
    notice: Notice,
    /// How many there have been.
    count: i32,
    /// How many of them the Event has.
    written: i32,
    /// When it may be written.
    time: Instant,
    last: Instant,
}

/// A write of an Event.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) name: String,
    pub(super) about: About,
    pub(super) notice: Notice,
    /// 1 is a new Event, more is a series.
    pub(super) count: i32,
}

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Log {
    series: HashMap<Key, Series>,
    number: u64,
}

impl Log {
    /// Takes a notice in. Returns whether there was room for it.
    pub(super) fn take(&mut self, about: About, notice: Notice, now: Instant) -> bool {
        self.series
            .retain(|_, series| series.is_pending() || now < series.last + IDLE);
        let key = Key {
            uid: about.uid.clone(),
            reason: notice.reason,
            topic: notice.topic.clone(),
        };
        if let Some(series) = self.series.get_mut(&key) {
            series.count = series.count.saturating_add(1);
            series.notice = notice;
            series.last = now;
            return true;
        }
        if self.series.len() >= MAX_SERIES {
            return false;
        }
        self.number += 1;
        let series = Series {
            name: name(&about, self.number),
            about,
            notice,
            count: 1,
            written: 0,
            time: now,
            last: now,
        };
        self.series.insert(key, series);
        true
    }

    /// When the next write is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.series
            .values()
            .filter(|series| series.is_pending())
            .map(|series| series.time)
            .min()
    }

    /// The write that is due first, if any is. It counts as written.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let pending = self
            .series
            .values_mut()
            .filter(|series| series.is_pending() && series.time <= now);
        let series = pending.min_by_key(|series| series.time)?;
        series.written = series.count;
        series.time = now + INTERVAL;
        Some(Due {
            name: series.name.clone(),
            about: series.about.clone(),
            notice: series.notice.clone(),
            count: series.count,
        })
    }
}

impl Series {
    const fn is_pending(&self) -> bool {
        self.written < self.count
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn about(uid: &str) -> About {
        Box::new(ObjectReference {
            uid: Some(uid.to_owned()),
            name: Some(uid.to_owned()),
            ..ObjectReference::default()
        })
    }

    fn notice(topic: &str, note: &str) -> Notice {
        Notice {
            is_warning: true,
            reason: "ImageFailed",
            action: "Pulling",
            topic: topic.to_owned(),
            note: note.to_owned(),
        }
    }

    fn drain(log: &mut Log, now: Instant) -> Vec<(String, i32)> {
        std::iter::from_fn(|| log.due(now))
            .map(|due| (due.notice.note, due.count))
            .collect()
    }

    #[test]
    fn the_same_again_is_one_series_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut log = Log::default();
        log.take(about("a"), notice("nginx", "first"), at(0));
        let first = log.due(at(0)).unwrap();
        assert_eq!((first.notice.note.as_str(), first.count), ("first", 1));
        for second in 1..60 {
            log.take(about("a"), notice("nginx", &format!("at {second}")), at(second));
            assert_eq!(drain(&mut log, at(second)), []);
        }
        assert_eq!(log.next(), Some(at(60)));
        let next = log.due(at(60)).unwrap();
        assert_eq!((next.notice.note.as_str(), next.count), ("at 59", 60));
        assert_eq!(next.name, first.name);
        assert_eq!(log.next(), None);
    }

    #[test]
    fn different_things_are_different_events() {
        let now = Instant::now();
        let mut log = Log::default();
        for (uid, topic) in [("a", "nginx"), ("a", "redis"), ("b", "nginx")] {
            log.take(about(uid), notice(topic, topic), now);
        }
        assert_eq!(drain(&mut log, now).len(), 3);
    }

    #[test]
    fn a_series_ends_when_nothing_happens() {
        let start = Instant::now();
        let mut log = Log::default();
        log.take(about("a"), notice("nginx", "old"), start);
        assert_eq!(drain(&mut log, start), [("old".to_owned(), 1)]);
        let later = start + IDLE;
        log.take(about("a"), notice("nginx", "new"), later);
        assert_eq!(drain(&mut log, later), [("new".to_owned(), 1)]);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let now = Instant::now();
        let mut log = Log::default();
        let taken = (0..5_000)
            .filter(|number| log.take(about(&number.to_string()), notice("nginx", ""), now))
            .count();
        assert_eq!(taken, MAX_SERIES);
        assert_eq!(drain(&mut log, now).len(), MAX_SERIES);
        let later = now + IDLE;
        assert!(log.take(about("new"), notice("nginx", ""), later));
    }
}
