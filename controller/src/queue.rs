//! In which order the writes that are due are carried out.
//!
//! Kinds of writes take turns, so that ten thousand NodeImages do not keep one status waiting. A write that failed waits for a while, each
//! time for longer, and lets the others pass. Of two writes about the same thing the first is carried out; the next plan knows of it, and has
//! the second anew. So a node has its labels before it loses its startup taint.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::plan::Write;

/// Pause after the first failure; it doubles with each one that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What a write is about. Two writes about the same thing are never under way at the same time.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    /// Name of the object, after its namespace where it has one.
    name: String,
}

/// What kind of object a write changes, and which part of it. The order is that of the turns.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    PrefetchStatus,
    Node,
    NodeImages,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::PrefetchStatus, Self::Node, Self::NodeImages];
}

impl Subject {
    pub(crate) fn of(write: &Write) -> Self {
        let (kind, name) = match write {
            Write::NodeImages { node, .. } | Write::DeleteNodeImages { node, .. } => (Kind::NodeImages, node.clone()),
            Write::NodeLabels { node, .. } | Write::RemoveStartupTaint { node, .. } => (Kind::Node, node.clone()),
            Write::PrefetchStatus { namespace, name, .. } | Write::DeletePrefetch { namespace, name, .. } => {
                (Kind::PrefetchStatus, format!("{namespace}/{name}"))
            }
        };
        Self { kind, name }
    }
}

/// The writes that are due.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    due: [VecDeque<Write>; Kind::ALL.len()],
    /// Whose turn it is.
    turn: usize,
    failed: BTreeMap<Subject, Failed>,
}

/// A write that failed.
#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    retry: Instant,
}

impl Queue {
    /// Replaces what is due, but for what has failed just now. Returns when the first of that may be tried again.
    pub(crate) fn fill(&mut self, writes: impl IntoIterator<Item = Write>, now: Instant) -> Option<Instant> {
        self.clear();
        let mut first = None;
        let mut failed = BTreeMap::new();
        let mut subjects = BTreeSet::new();
        for write in writes {
            let subject = Subject::of(&write);
            if !subjects.insert(subject.clone()) {
                continue;
            }
            if let Some(failure) = self.failed.get(&subject).copied() {
                failed.insert(subject.clone(), failure);
                if failure.retry > now {
                    first = Some(first.map_or(failure.retry, |first: Instant| first.min(failure.retry)));
                    continue;
                }
            }
            self.due[subject.kind as usize].push_back(write);
        }
        // What is not due any more need not be remembered.
        self.failed = failed;
        first
    }

    /// The write that is next.
    pub(crate) fn next(&mut self) -> Option<Write> {
        for _ in 0..self.due.len() {
            let write = self.due[self.turn].pop_front();
            self.turn = (self.turn + 1) % self.due.len();
            if write.is_some() {
                return write;
            }
        }
        None
    }

    /// Forgets what is due.
    pub(crate) fn clear(&mut self) {
        self.due.iter_mut().for_each(VecDeque::clear);
    }

    pub(crate) fn len(&self) -> usize {
        self.due.iter().map(VecDeque::len).sum()
    }

    /// Takes in how a write ended. Returns when it may be tried again, if it failed.
    pub(crate) fn ended(&mut self, subject: Subject, succeeded: bool, now: Instant) -> Option<Instant> {
        if succeeded {
            self.failed.remove(&subject);
            return None;
        }
        let times = self.failed.get(&subject).map_or(0, |failed| failed.times);
        let pause = FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(times))
            .min(LONGEST_PAUSE);
        let retry = now + pause;
        self.failed.insert(
            subject,
            Failed {
                times: times + 1,
                retry,
            },
        );
        Some(retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(node: &str) -> Write {
        Write::NodeLabels {
            node: node.to_owned(),
            labels: BTreeMap::new(),
        }
    }

    fn status(name: &str) -> Write {
        Write::PrefetchStatus {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            status: Box::default(),
        }
    }

    fn node_images(node: &str) -> Write {
        Write::NodeImages {
            node: node.to_owned(),
            node_uid: "1".to_owned(),
            spec: coral_api::NodeImagesSpec::default(),
        }
    }

    #[test]
    fn kinds_take_turns() {
        use Kind::{Node, NodeImages, PrefetchStatus};
        let now = Instant::now();
        let mut queue = Queue::default();
        let many = (0..1_000).map(|number| node_images(&format!("node-{number}")));
        queue.fill(many.chain([labels("a"), labels("b"), status("web")]), now);
        assert_eq!(queue.len(), 1_003);
        let first: Vec<Kind> = (0..6).map(|_| Subject::of(&queue.next().unwrap()).kind).collect();
        assert_eq!(first, [PrefetchStatus, Node, NodeImages, Node, NodeImages, NodeImages]);
        assert_eq!(std::iter::from_fn(|| queue.next()).count(), 997);
    }

    #[test]
    fn a_failed_write_waits_longer_each_time_and_lets_others_pass() {
        let start = Instant::now();
        let mut queue = Queue::default();
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            queue.fill([labels("bad"), labels("good")], now);
            assert_eq!(queue.len(), 2);
            let retry = queue.ended(Subject::of(&labels("bad")), false, now).unwrap();
            pauses.push((retry - now).as_millis());
            let almost = retry.checked_sub(Duration::from_millis(1)).unwrap();
            assert_eq!(queue.fill([labels("bad"), labels("good")], almost), Some(retry));
            assert_eq!(
                std::iter::from_fn(|| queue.next()).collect::<Vec<_>>(),
                [labels("good")]
            );
            now = retry;
        }
        assert_eq!(
            pauses,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        );
        queue.ended(Subject::of(&labels("bad")), true, now);
        assert_eq!(queue.fill([labels("bad")], now), None);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn of_two_writes_about_one_thing_the_first_is_carried_out() {
        let mut queue = Queue::default();
        let taint = Write::RemoveStartupTaint {
            node: "a".to_owned(),
            node_uid: "1".to_owned(),
            taints: vec![0],
            prefetches: Vec::new(),
            outcome: crate::plan::GateOutcome::Ready,
            waited: jiff::SignedDuration::ZERO,
        };
        queue.fill([labels("a"), taint.clone(), node_images("a")], Instant::now());
        assert_eq!(
            std::iter::from_fn(|| queue.next()).collect::<Vec<_>>(),
            [labels("a"), node_images("a")]
        );
        queue.fill([taint.clone()], Instant::now());
        assert_eq!(queue.next(), Some(taint));
    }

    #[test]
    fn what_is_due_no_more_is_forgotten_with_its_failures() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.ended(Subject::of(&labels("a")), false, now);
        queue.fill([], now);
        assert_eq!(queue.fill([labels("a")], now), None);
        assert_eq!(queue.len(), 1);
    }
}
