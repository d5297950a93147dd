//! Whether a Prefetch has got what it asks for, from what its status says.

use coral_api::{Prefetch, conditions};

use crate::{
    human,
    matrix::{CellState, Matrix, Row},
};

/// Names that are given before the rest is counted.
const NAMED: usize = 3;

/// How it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The controller has not looked at what was applied.
    Unseen,
    Waiting,
    Ready,
    /// There is no node to hold the images.
    NoNodes,
    /// Nothing will change without help; the controller says why.
    Stalled(String),
}

/// Judges a Prefetch by the status of this generation, or a newer one.
pub(super) fn judge(prefetch: &Prefetch, generation: i64) -> Verdict {
    let is_current = |observed: Option<i64>| observed.is_some_and(|observed| observed >= generation);
    let Some(status) = prefetch
        .status
        .as_ref()
        .filter(|status| is_current(status.observed_generation))
    else {
        return Verdict::Unseen;
    };
    let find = |kind| {
        // A condition without a generation is as old as the status.
        conditions::find(&status.conditions, kind)
            .filter(|condition| condition.observed_generation.is_none() || is_current(condition.observed_generation))
    };
    let is_true = |kind| find(kind).filter(|condition| condition.status == "True");
    if find(conditions::READY).is_some() && status.nodes.desired == 0 {
        return Verdict::NoNodes;
    }
    if is_true(conditions::READY).is_some() {
        return Verdict::Ready;
    }
    match is_true(conditions::STALLED) {
        Some(stalled) if is_true(conditions::RECONCILING).is_none() && status.nodes.pulling == 0 => {
            Verdict::Stalled(stalled.message.clone())
        }
        _ => Verdict::Waiting,
    }
}

/// What is missing where, as a clause.
pub(super) fn missing(prefetch: &Prefetch, matrix: &Matrix) -> String {
    let mut clauses: Vec<String> = by_nodes(matrix)
        .into_iter()
        .map(|(nodes, images)| format!("{} on {}", are_missing(&images), human::some_of(&nodes, NAMED)))
        .collect();
    if matrix.rows().is_empty() {
        let images = prefetch.status.iter().flat_map(|status| &status.images);
        for image in images.filter(|image| image.available < image.desired) {
            let absent = usize::try_from(image.desired - image.available).unwrap_or_default();
            let nodes = human::counted(absent, "node");
            clauses.push(format!(
                "{} on {nodes}",
                are_missing(std::slice::from_ref(&image.image))
            ));
        }
    }
    match clauses.len().saturating_sub(NAMED) {
        _ if clauses.is_empty() => "its status is not up to date".to_owned(),
        0 => clauses.join("; "),
        _ => format!("{}; and more elsewhere", clauses[..NAMED].join("; ")),
    }
}

/// The images that are not there, put together where the same nodes miss them.
fn by_nodes(matrix: &Matrix) -> Vec<(Vec<&str>, Vec<String>)> {
    let mut groups: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for (index, column) in matrix.columns().iter().enumerate() {
        let lacks = |row: &Row| row.cell(index).is_some_and(|cell| cell.state != CellState::Present);
        let nodes = matrix
            .rows()
            .iter()
            .filter(|(_, row)| lacks(row))
            .map(|(node, _)| node.as_str());
        let nodes: Vec<&str> = nodes.collect();
        if nodes.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(others, _)| *others == nodes) {
            Some((_, images)) => images.push(column.familiar()),
            None => groups.push((nodes, vec![column.familiar()])),
        }
    }
    groups
}

fn are_missing(images: &[String]) -> String {
    let verb = if images.len() == 1 { "is" } else { "are" };
    format!("{} {verb} missing", human::some_of(images, NAMED))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{node_images, prefetch};

    fn web(status: &Value) -> Prefetch {
        prefetch(
            json!({"metadata": {"name": "web", "namespace": "shop", "generation": 2}, "spec": {"images": ["a:1", "b:1"]}, "status": status}),
        )
    }

    fn status(desired: i32, pulling: i32, conditions: &[(&str, &str, i64)]) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, generation)| {
                json!({"type": kind, "status": status, "reason": "R", "message": "why", "observedGeneration": generation,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        json!({"observedGeneration": 2, "nodes": {"desired": desired, "ready": 0, "pulling": pulling, "failed": 0}, "conditions": conditions})
    }

    #[test]
    fn verdicts_follow_the_conditions_of_this_generation() {
        let stalled = || Verdict::Stalled("why".to_owned());
        for (name, status, expected) in [
            ("no status", Value::Null, Verdict::Unseen),
            ("older status", json!({"observedGeneration": 1}), Verdict::Unseen),
            ("nothing said yet", json!({"observedGeneration": 2}), Verdict::Waiting),
            ("ready", status(2, 0, &[("Ready", "True", 2)]), Verdict::Ready),
            (
                "ready before the change",
                status(2, 0, &[("Ready", "True", 1)]),
                Verdict::Waiting,
            ),
            (
                "not ready",
                status(2, 1, &[("Ready", "False", 2), ("Reconciling", "True", 2)]),
                Verdict::Waiting,
            ),
            ("no nodes", status(0, 0, &[("Ready", "True", 2)]), Verdict::NoNodes),
            (
                "no nodes, not ready",
                status(0, 0, &[("Ready", "False", 2)]),
                Verdict::NoNodes,
            ),
            (
                "stalled",
                status(2, 0, &[("Ready", "False", 2), ("Stalled", "True", 2)]),
                stalled(),
            ),
            (
                "stalled here, pulling there",
                status(2, 1, &[("Stalled", "True", 2)]),
                Verdict::Waiting,
            ),
            (
                "still at work",
                status(2, 0, &[("Stalled", "True", 2), ("Reconciling", "True", 2)]),
                Verdict::Waiting,
            ),
            (
                "stalled before the change",
                status(2, 0, &[("Stalled", "True", 1)]),
                Verdict::Waiting,
            ),
        ] {
            assert_eq!(judge(&web(&status), 2), expected, "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_named_by_node_or_counted() {
        let counts = json!({"image": "a:1", "desired": 5, "available": 2, "pulling": 0, "failed": 0});
        let web = web(&json!({"images": [counts]}));
        assert_eq!(missing(&web, &Matrix::default()), "a:1 is missing on 3 nodes");

        let mut matrix = Matrix::new([&web]);
        for node in ["n1", "n2"] {
            let wanted = ["a:1", "b:1"]
                .map(|image| json!({"image": format!("docker.io/library/{image}"), "requestedBy": ["shop/web"]}));
            let node = node_images(json!({"metadata": {"name": node}, "spec": {"images": wanted}}));
            matrix.insert(&node, jiff::Timestamp::UNIX_EPOCH);
        }
        assert_eq!(missing(&web, &matrix), "a:1, b:1 are missing on n1, n2");
    }
}
