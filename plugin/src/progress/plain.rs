//! Progress for a file or a pipe: a line when something changed, and not too many.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use super::{Progress, Snapshot};

/// Least time between two lines about many nodes.
const PAUSE: Duration = Duration::from_secs(5);

/// Lines on stderr.
pub(super) struct Plain {
    told: BTreeMap<String, String>,
    summary: String,
    last_summary: Option<Instant>,
}

impl Plain {
    /// A display that has told nothing yet.
    pub(super) fn new() -> Self {
        Self {
            told: BTreeMap::new(),
            summary: String::new(),
            last_summary: None,
        }
    }

    /// The lines that say something new.
    fn news(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<String> {
        let mut news = Vec::new();
        for line in snapshot.lines.iter().flatten() {
            let summary = line.summary();
            if self.told.get(&line.node) != Some(&summary) {
                news.push(format!("{}: {summary}", line.node));
                self.told.insert(line.node.clone(), summary);
            }
        }
        if snapshot.lines.is_some() || snapshot.nodes == 0 {
            return news;
        }
        let summary = snapshot.summary();
        let is_due = self.last_summary.is_none_or(|last| now.duration_since(last) >= PAUSE);
        if is_due && summary != self.summary {
            news.push(summary.clone());
            self.summary = summary;
            self.last_summary = Some(now);
        }
        news
    }
}

impl Progress for Plain {
    fn update(&mut self, snapshot: &Snapshot) {
        for line in self.news(snapshot, Instant::now()) {
            self.tell(&line);
        }
    }

    fn tell(&mut self, line: &str) {
        // Nobody can be told when stderr is gone.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    fn finish(&mut self) {}

    fn abandon(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::NodeLine;

    fn few(present: usize) -> Snapshot {
        Snapshot {
            nodes: 1,
            lines: Some(vec![NodeLine {
                node: "node-1".to_owned(),
                wanted: 2,
                present,
                failed: 0,
                retrying: 0,
                held: 0,
                pulling: Vec::new(),
                transfer: None,
            }]),
            ..Snapshot::default()
        }
    }

    fn many(ready: usize) -> Snapshot {
        Snapshot {
            nodes: 5_000,
            ready,
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_node_is_told_when_it_changed() {
        let mut plain = Plain::new();
        let now = Instant::now();
        assert_eq!(plain.news(&few(0), now), ["node-1: 0 of 2 images"]);
        assert_eq!(plain.news(&few(0), now), [""; 0]);
        assert_eq!(plain.news(&few(2), now), ["node-1: 2 of 2 images"]);
    }

    #[test]
    fn many_nodes_are_told_now_and_then() {
        let mut plain = Plain::new();
        let now = Instant::now();
        assert_eq!(plain.news(&many(0), now), ["0 of 5,000 nodes ready"]);
        assert_eq!(plain.news(&many(1), now), [""; 0]);
        assert_eq!(plain.news(&many(2), now + PAUSE), ["2 of 5,000 nodes ready"]);
        assert_eq!(plain.news(&many(2), now + 3 * PAUSE), [""; 0]);
    }
}
