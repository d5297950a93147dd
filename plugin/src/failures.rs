//! What went wrong where, with what to do about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use coral_api::{FailureReason, Prefetch};
use jiff::Timestamp;

use crate::{
    failure_advice::advice,
    human,
    matrix::{CellState, Matrix, is_finished},
};

/// Nodes that are named before the rest is counted.
const NODES_NAMED: usize = 5;

/// One image that is not on one node, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    /// Empty when it is not about one node.
    pub(crate) node: String,
    /// The name that people know.
    pub(crate) image: String,
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
    pub(crate) attempts: i32,
    pub(crate) next_attempt: Option<Timestamp>,
    pub(crate) state: CellState,
    /// The copy that the node was to pull instead, if that is known.
    pub(crate) copy: Option<String>,
}

impl Failure {
    /// The failure in one line.
    pub(crate) fn line(&self) -> String {
        let place = if self.node.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.node)
        };
        let message = self.message.lines().next().unwrap_or_default();
        let outlook = match self.state {
            CellState::Failed => "",
            CellState::Retrying => " (it is tried again)",
            _ => " (it waits)",
        };
        format!("{place}{}: {}: {message}{outlook}", self.image, self.reason)
    }
}

/// The same failure on several nodes.
#[derive(Debug, PartialEq)]
pub(crate) struct Group {
    first: Failure,
    nodes: BTreeMap<CellState, BTreeSet<String>>,
}

impl Group {
    fn add(&mut self, failure: Failure) {
        self.first.attempts = self.first.attempts.max(failure.attempts);
        self.first.next_attempt = match (self.first.next_attempt, failure.next_attempt) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.nodes.entry(failure.state).or_default().insert(failure.node);
    }
}

/// What the agents report, and what the controller says beyond that.
pub(crate) fn collect<'a>(matrix: &Matrix, prefetches: impl IntoIterator<Item = &'a Prefetch>) -> Vec<Failure> {
    let prefetches: Vec<&Prefetch> = prefetches.into_iter().collect();
    let mut failures: Vec<Failure> = matrix
        .cells()
        .filter_map(|(node, column, cell)| {
            let failure = cell.failure.as_ref()?;
            Some(Failure {
                node: node.to_owned(),
                image: column.familiar(),
                reason: failure.reason,
                message: failure.message.clone(),
                attempts: failure.attempts,
                next_attempt: failure.next_attempt_time.as_ref().map(|time| time.0),
                state: cell.state,
                copy: cell.copy.clone(),
            })
        })
        .collect();
    let statuses = prefetches.iter().filter_map(|prefetch| prefetch.status.as_ref());
    for failure in statuses.flat_map(|status| &status.failures) {
        // The agent's report is newer than the controller's summary of it.
        if matrix.cell(&failure.node, &failure.image).is_some() {
            continue;
        }
        let image = failure.image.parse().map_or_else(
            |_| failure.image.clone(),
            |image: coral_api::ImageReference| image.familiar(),
        );
        failures.push(Failure {
            node: failure.node.clone(),
            image,
            reason: failure.reason,
            message: failure.message.clone(),
            attempts: failure.attempts,
            next_attempt: failure.next_attempt_time.as_ref().map(|time| time.0),
            state: CellState::Failed,
            copy: None,
        });
    }
    if !prefetches.is_empty() && prefetches.iter().all(|prefetch| is_finished(prefetch)) {
        // The agents told when they would try again before they knew that nobody asks them to.
        for failure in &mut failures {
            failure.next_attempt = None;
        }
    }
    failures
}

/// Puts together what happened to one image for one reason, in the order of its first appearance.
pub(crate) fn group(failures: Vec<Failure>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for failure in failures {
        let is_same = |group: &Group| (&group.first.image, group.first.reason) == (&failure.image, failure.reason);
        let index = groups.iter().position(is_same).unwrap_or_else(|| {
            groups.push(Group {
                first: failure.clone(),
                nodes: BTreeMap::new(),
            });
            groups.len() - 1
        });
        groups[index].add(failure);
    }
    groups
}

/// The failures as a block of text.
pub(crate) fn render(groups: &[Group], now: Timestamp) -> String {
    let mut text = String::new();
    for Group { first, nodes } in groups {
        let places: Vec<String> = nodes.iter().map(|(state, nodes)| place(*state, nodes)).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {}: {}", first.image, places.join(", "), first.reason);
        for line in first.message.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(text, "  {}", line.trim_end());
        }
        if let Some(attempts) = attempts(first, now) {
            let _ = writeln!(text, "  {attempts}");
        }
        let asked = first.copy.as_deref().unwrap_or(&first.image);
        let _ = writeln!(text, "  hint: {}", advice(first.reason, asked));
    }
    text
}

/// `failed on node-1, node-2`
fn place(state: CellState, nodes: &BTreeSet<String>) -> String {
    let verb = match state {
        CellState::Failed => "failed",
        CellState::Retrying => "is tried again",
        CellState::Present => "stays as it is",
        _ => "waits",
    };
    let named: Vec<&str> = nodes
        .iter()
        .map(String::as_str)
        .filter(|node| !node.is_empty())
        .collect();
    if named.is_empty() {
        verb.to_owned()
    } else {
        format!("{verb} on {}", human::some_of(&named, NODES_NAMED))
    }
}

/// How often it was tried, and when it will be again.
fn attempts(failure: &Failure, now: Timestamp) -> Option<String> {
    let tried = usize::try_from(failure.attempts)
        .ok()
        .filter(|attempts| *attempts > 0)?;
    let tried = human::counted(tried, "attempt");
    Some(match failure.next_attempt {
        Some(next) if next > now => format!("{tried}, the next in {}", human::duration(human::between(now, next))),
        Some(_) => format!("{tried}, the next is due"),
        None if failure.state == CellState::Failed => format!("{tried}, and no more will be made"),
        None => tried,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{node_images, prefetch};

    #[test]
    fn failures_are_grouped_and_explained() {
        let web = prefetch(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"images": ["nginx:1.99", "acme/app:1"]},
            "status": {"failures": [
                {"node": "node-1", "image": "nginx:1.99", "reason": "Unknown", "message": "older news", "attempts": 1},
                {"image": "acme/app:1", "reason": "PullSecretUnreadable", "message": "Secret regcred does not exist", "attempts": 0},
            ]},
        }));
        let mut matrix = Matrix::new([&web]);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (node, next) in [("node-1", "2026-01-01T00:00:40Z"), ("node-2", "2026-01-01T00:00:20Z")] {
            let image = "docker.io/library/nginx:1.99";
            let node = node_images(json!({
                "metadata": {"name": node},
                "spec": {"images": [{"image": image, "requestedBy": ["shop/web"]}]},
                "status": {"images": [{"image": image, "state": "Failed", "failure": {
                    "reason": "NotFound", "message": "manifest unknown", "attempts": 3, "nextAttemptTime": next}}]},
            }));
            matrix.insert(&node, now);
        }
        let groups = group(collect(&matrix, [&web]));
        insta::assert_snapshot!(render(&groups, now), @r"
        nginx:1.99 failed on node-1, node-2: NotFound
          manifest unknown
          3 attempts, the next in 20s
          hint: check the name and the tag: docker.io has no such image
        acme/app:1 failed: PullSecretUnreadable
          Secret regcred does not exist
          hint: a Secret in spec.imagePullSecrets does not exist in this namespace, or Coral's agents may not read it: `kubectl coral allow-secret NAME`
        ");
    }

    #[test]
    fn a_prefetch_that_is_done_makes_no_further_attempts() {
        let mut web = prefetch(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"images": ["nginx:1.99"], "mode": "Once"},
        }));
        let mut matrix = Matrix::new([&web]);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let image = "docker.io/library/nginx:1.99";
        let node = node_images(json!({
            "metadata": {"name": "node-1"},
            "spec": {"images": [{"image": image, "requestedBy": ["shop/web"]}]},
            "status": {"images": [{"image": image, "state": "Failed", "failure": {
                "reason": "NotFound", "message": "manifest unknown", "attempts": 3, "nextAttemptTime": "2026-01-01T00:00:20Z"}}]},
        }));
        matrix.insert(&node, now);
        let told = |web: &Prefetch| render(&group(collect(&matrix, [web])), now);
        assert!(told(&web).contains("3 attempts, the next in 20s"), "{}", told(&web));
        web.status = Some(serde_json::from_value(json!({"completionTime": "2026-01-01T00:00:00Z"})).unwrap());
        assert!(
            told(&web).contains("3 attempts, and no more will be made"),
            "{}",
            told(&web)
        );
    }

    #[test]
    fn many_nodes_are_counted() {
        let failures = (0..1_234).map(|index| Failure {
            node: format!("node-{index:04}"),
            image: "a:1".to_owned(),
            reason: FailureReason::NoSpace,
            message: String::new(),
            attempts: 1,
            next_attempt: None,
            state: CellState::Failed,
            copy: None,
        });
        let text = render(&group(failures.collect()), Timestamp::UNIX_EPOCH);
        assert!(
            text.starts_with(
                "a:1 failed on node-0000, node-0001, node-0002, node-0003, node-0004 and 1,229 more: NoSpace\n"
            ),
            "{text}"
        );
        assert!(text.contains("1 attempt, and no more will be made"), "{text}");
    }
}
