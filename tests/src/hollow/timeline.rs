//! What the runtimes of a fleet did, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::cri::{Attempt, Ending};

/// One pull on one node.
#[derive(Clone, Debug)]
pub struct Pull {
    /// Name of the node.
    pub node: String,
    /// What its runtime saw.
    pub attempt: Attempt,
}

/// All pulls of a fleet.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pulls: Vec<Pull>,
}

impl Timeline {
    /// From the attempts of each node.
    pub fn new(nodes: impl IntoIterator<Item = (String, Vec<Attempt>)>) -> Self {
        let pulls = nodes.into_iter().flat_map(|(node, attempts)| {
            attempts.into_iter().map(move |attempt| Pull {
                node: node.clone(),
                attempt,
            })
        });
        Self { pulls: pulls.collect() }
    }

    /// Only the pulls for which this holds: those of one Prefetch, of one image.
    #[must_use]
    pub fn only(&self, is_wanted: impl Fn(&Pull) -> bool) -> Self {
        Self {
            pulls: self.pulls.iter().filter(|pull| is_wanted(pull)).cloned().collect(),
        }
    }

    /// The pulls.
    #[must_use]
    pub fn pulls(&self) -> &[Pull] {
        &self.pulls
    }

    /// Time from the beginning of the first pull to the end of the last one that has ended.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let began = self.pulls.iter().map(|pull| pull.attempt.began).min();
        let ended = self
            .pulls
            .iter()
            .filter_map(|pull| pull.attempt.ended)
            .map(|(ended, _)| ended)
            .max();
        began
            .zip(ended)
            .map_or(Duration::ZERO, |(began, ended)| ended.saturating_duration_since(began))
    }

    /// How many pulls ended so.
    #[must_use]
    pub fn ended(&self, ending: Ending) -> usize {
        let ended = |pull: &&Pull| pull.attempt.ended.is_some_and(|(_, so)| so == ending);
        self.pulls.iter().filter(ended).count()
    }

    /// The most nodes that pulled at the same time. A node counts once, however many images it pulls; a pull that ends at
    /// the moment when another begins is not at the same time.
    #[must_use]
    pub fn most_nodes_at_once(&self) -> usize {
        // Ends before beginnings: `false` is less than `true`.
        let mut changes: Vec<(Instant, bool, &str)> = Vec::new();
        for Pull { node, attempt } in &self.pulls {
            let ended = attempt.ended.map(|(ended, _)| ended);
            // What took no time was at the same time as nothing.
            if ended != Some(attempt.began) {
                changes.push((attempt.began, true, node));
                changes.extend(ended.map(|ended| (ended, false, node.as_str())));
            }
        }
        changes.sort_unstable();
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        let mut most = 0;
        for (_, begins, node) in changes {
            let count = running.entry(node).or_default();
            if begins {
                *count += 1;
            } else {
                *count = count.saturating_sub(1);
            }
            if *count == 0 {
                running.remove(node);
            }
            most = most.max(running.len());
        }
        most
    }

    /// The nodes that had pulled each of `images` with success at the time `at`.
    #[must_use]
    pub fn complete_nodes(&self, images: &[String], at: Instant) -> BTreeSet<&str> {
        let mut held: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for Pull { node, attempt } in &self.pulls {
            if matches!(attempt.ended, Some((ended, Ending::Succeeded)) if ended <= at) {
                held.entry(node).or_default().insert(&attempt.image);
            }
        }
        let is_complete = |held: &BTreeSet<&str>| images.iter().all(|image| held.contains(image.as_str()));
        held.into_iter()
            .filter(|(_, held)| is_complete(held))
            .map(|(node, _)| node)
            .collect()
    }

    /// The most pulls of one image on one node.
    #[must_use]
    pub fn most_pulls_of_one_image(&self) -> usize {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for Pull { node, attempt } in &self.pulls {
            *counts.entry((node, &attempt.image)).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node, image, beginning and end in seconds.
    type Row = (&'static str, &'static str, u64, Option<u64>);

    fn timeline(start: Instant, rows: &[Row]) -> Timeline {
        let at = |seconds| start + Duration::from_secs(seconds);
        let attempt = |&(_, image, began, ended): &Row| Attempt {
            image: image.to_owned(),
            began: at(began),
            ended: ended.map(|ended| (at(ended), Ending::Succeeded)),
            credential: None,
        };
        Timeline::new(rows.iter().map(|row| (row.0.to_owned(), vec![attempt(row)])))
    }

    #[test]
    fn nodes_count_once_and_one_after_the_other_is_not_at_once() {
        let most = |rows: &[Row]| timeline(Instant::now(), rows).most_nodes_at_once();
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[("a", "x", 0, Some(3)), ("a", "y", 1, Some(2))]), 1);
        assert_eq!(most(&[("a", "x", 0, Some(3)), ("b", "x", 3, Some(4))]), 1);
        assert_eq!(most(&[("a", "x", 0, Some(3)), ("b", "x", 2, Some(4))]), 2);
        assert_eq!(
            most(&[("a", "x", 0, None), ("b", "x", 9, Some(9)), ("c", "x", 9, None)]),
            2
        );
        // Its second pull goes on.
        let rows = [("a", "x", 0, Some(2)), ("a", "y", 1, Some(5)), ("b", "x", 4, Some(6))];
        assert_eq!(most(&rows), 2);
    }

    #[test]
    fn a_node_is_complete_when_its_last_image_is_there() {
        let start = Instant::now();
        let all = timeline(
            start,
            &[("a", "x", 0, Some(1)), ("a", "y", 1, Some(4)), ("b", "x", 0, Some(1))],
        );
        let images = ["x".to_owned(), "y".to_owned()];
        let complete = |seconds| all.complete_nodes(&images, start + Duration::from_secs(seconds)).len();
        assert_eq!((complete(3), complete(4)), (0, 1));
        assert_eq!(all.most_pulls_of_one_image(), 1);
        assert_eq!(all.ended(Ending::Succeeded), 3);
        assert_eq!(all.duration(), Duration::from_secs(4));
        assert_eq!(all.only(|pull| pull.node == "b").pulls().len(), 1);
    }
}
