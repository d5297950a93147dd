//! The Prefetches themselves, and what there is to say about them in sentences.

use std::{collections::BTreeMap, time::Duration};

use coral_api::{
    Prefetch, PrefetchStatus, conditions,
    prefetch::{ImageCounts, Mode},
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::{
    human,
    matrix::{CellState, Column, Matrix, Summary},
    selector,
    table::{Table, Text, Tone},
    wait::UNSEEN_HINT,
};

/// A controller that is there acts within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nodes that are named before the rest is counted.
const NODES_NAMED: usize = 5;
/// What stands where nothing is known.
const UNKNOWN: &str = "-";

/// One row for each Prefetch.
pub(super) fn prefetches(prefetches: &[Prefetch], all_namespaces: bool, wide: bool, now: Timestamp) -> Table {
    let mut table = Table::new(["PREFETCH", "NODES", "READY", "IMAGES", "FAILED", "AGE"]);
    if all_namespaces {
        table.header.insert(0, "NAMESPACE".to_owned());
    }
    if wide {
        table
            .header
            .extend(["STATUS", "MODE", "PRIORITY", "NODE SELECTOR"].map(str::to_owned));
    }
    for prefetch in prefetches {
        let mut row: Vec<Text> = Vec::new();
        if all_namespaces {
            row.push(prefetch.namespace().unwrap_or_default().into());
        }
        row.push(prefetch.name_any().into());
        row.extend(numbers(prefetch.status.as_ref()));
        let created = prefetch.metadata.creation_timestamp.as_ref();
        row.push(
            created
                .map_or_else(|| UNKNOWN.to_owned(), |time| human::age(time.0, now))
                .into(),
        );
        if wide {
            let selector = prefetch.spec.node_selector.as_ref().map(selector::display);
            let selector = selector.filter(|text| !text.is_empty());
            let reason = prefetch.status.as_ref().and_then(|status| {
                conditions::find(&status.conditions, conditions::READY).map(|condition| condition.reason.clone())
            });
            let mode = match prefetch.spec.mode {
                Mode::Keep => "Keep",
                Mode::Once => "Once",
            };
            row.extend([
                Text::from(reason.unwrap_or_else(|| UNKNOWN.to_owned())),
                mode.into(),
                prefetch.spec.priority.to_string().into(),
                selector.unwrap_or_else(|| "<all>".to_owned()).into(),
            ]);
        }
        table.rows.push(row);
    }
    table
}

/// Nodes, ready, images, failed.
fn numbers(status: Option<&PrefetchStatus>) -> [Text; 4] {
    let Some(status) = status else {
        return [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN].map(Text::from);
    };
    let nodes = status.nodes;
    let ready = Text {
        text: nodes.ready.to_string(),
        tone: if nodes.desired > 0 && nodes.ready >= nodes.desired {
            Tone::Good
        } else {
            Tone::Plain
        },
    };
    let failed = Text {
        text: nodes.failed.to_string(),
        tone: if nodes.failed > 0 { Tone::Bad } else { Tone::Plain },
    };
    [
        nodes.desired.to_string().into(),
        ready,
        status.image_count.to_string().into(),
        failed,
    ]
}

/// The images over all nodes, as the Prefetches say it. An image of two Prefetches has the counts of the larger one, since their nodes overlap.
pub(super) fn summaries(matrix: &Matrix, prefetches: &[Prefetch]) -> (Vec<Column>, Vec<Summary>) {
    let counts = |column: &Column| -> Option<&ImageCounts> {
        let statuses = prefetches.iter().filter_map(|prefetch| prefetch.status.as_ref());
        let images = statuses.flat_map(|status| &status.images);
        images
            .filter(|image| is_column(column, &image.image))
            .max_by_key(|image| image.desired)
    };
    let size = |number: i32| usize::try_from(number).unwrap_or_default();
    matrix
        .columns()
        .iter()
        .filter_map(|column| {
            let counts = counts(column)?;
            let summary = Summary {
                nodes: size(counts.desired),
                present: size(counts.available),
                pulling: size(counts.pulling),
                failed: size(counts.failed),
                size: None,
                digests: counts.digests.iter().cloned().collect(),
            };
            Some((column.clone(), summary))
        })
        .unzip()
}

fn is_column(column: &Column, image: &str) -> bool {
    column.text == image
        || column
            .reference
            .as_ref()
            .is_some_and(|reference| image.parse().ok().as_ref() == Some(reference))
}

/// What keeps images from coming, other than failures.
pub(super) fn notes(prefetches: &[Prefetch], matrix: &Matrix, now: Timestamp) -> Vec<String> {
    let mut notes: Vec<String> = prefetches.iter().filter_map(|prefetch| note(prefetch, now)).collect();
    let mut troubles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, row) in matrix.rows() {
        let is_waiting = row.wanted().any(|cell| cell.state != CellState::Present);
        if let Some(trouble) = row.trouble.as_deref().filter(|_| is_waiting) {
            troubles.entry(trouble).or_default().push(node);
        }
    }
    notes.extend(
        troubles
            .into_iter()
            .map(|(trouble, nodes)| format!("{}: {trouble}", human::some_of(&nodes, NODES_NAMED))),
    );
    notes
}

fn note(prefetch: &Prefetch, now: Timestamp) -> Option<String> {
    let name = prefetch.name_any();
    let status = prefetch.status.as_ref();
    let created = prefetch.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let is_seen = status.is_some_and(|status| status.observed_generation >= prefetch.metadata.generation);
    if !is_seen && human::between(created, now) > PATIENCE {
        return Some(format!(
            "{name}: Coral's controller has not looked at it yet. {UNSEEN_HINT}"
        ));
    }
    let status = status?;
    if status.nodes.desired == 0 {
        let selector = prefetch
            .spec
            .node_selector
            .as_ref()
            .map(selector::display)
            .unwrap_or_default();
        return Some(match selector.as_str() {
            "" => format!("{name}: no node to hold the images"),
            selector => format!("{name}: no node matches {selector}"),
        });
    }
    if prefetch.spec.suspend {
        return Some(format!("{name}: suspended, so no further pulls begin"));
    }
    let disagreeing = status
        .images
        .iter()
        .filter(|image| image.digests.len() > 1)
        .map(|image| image.image.as_str());
    let disagreeing: Vec<&str> = disagreeing.collect();
    (!disagreeing.is_empty()).then(|| {
        format!(
            "{name}: nodes hold different versions of {}",
            human::some_of(&disagreeing, NODES_NAMED)
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::prefetch;

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    fn web(status: &serde_json::Value) -> Prefetch {
        prefetch(json!({
            "metadata": {"name": "web", "namespace": "shop", "generation": 1, "creationTimestamp": "2026-01-01T00:00:46Z"},
            "spec": {"images": ["nginx:1.29", "redis:8"], "nodeSelector": {"matchLabels": {"gpu": "true"}}},
            "status": status,
        }))
    }

    fn counts(image: &str, desired: i32) -> serde_json::Value {
        json!({"image": image, "desired": desired, "available": 1, "pulling": 0, "failed": 0})
    }

    #[test]
    fn a_prefetch_is_one_row() {
        let status = json!({"observedGeneration": 1, "nodes": {"desired": 2, "ready": 1, "pulling": 0, "failed": 1}, "imageCount": 2,
            "conditions": [{"type": "Ready", "status": "False", "reason": "Pulling", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let seen = web(&status);
        insta::assert_snapshot!(prefetches(std::slice::from_ref(&seen), false, false, now()).render(true, false), @r"
        PREFETCH   NODES   READY   IMAGES   FAILED   AGE
        web        2       1       2        1        14s
        ");
        insta::assert_snapshot!(prefetches(std::slice::from_ref(&seen), true, true, now()).render(true, false), @r"
        NAMESPACE   PREFETCH   NODES   READY   IMAGES   FAILED   AGE   STATUS    MODE   PRIORITY   NODE SELECTOR
        shop        web        2       1       2        1        14s   Pulling   Keep   0          gpu=true
        ");
    }

    #[test]
    fn a_prefetch_that_nobody_looks_at_says_so() {
        let unseen = web(&serde_json::Value::Null);
        assert_eq!(
            prefetches(std::slice::from_ref(&unseen), false, false, now()).rows[0][1].text,
            "-"
        );
        let notes = notes(&[unseen], &Matrix::default(), now());
        assert!(
            notes[0].starts_with("web: Coral's controller has not looked at it yet."),
            "{notes:?}"
        );
    }

    #[test]
    fn a_selector_without_nodes_is_named() {
        let empty = web(&json!({"observedGeneration": 1}));
        assert_eq!(
            notes(&[empty], &Matrix::default(), now()),
            ["web: no node matches gpu=true"]
        );
    }

    #[test]
    fn without_nodes_the_prefetches_are_summed_up() {
        let one = web(&json!({"images": [counts("nginx:1.29", 2), counts("redis:8", 2)]}));
        let two = web(&json!({"images": [counts("docker.io/library/nginx:1.29", 5)]}));
        let prefetches = [one, two];
        let (columns, summaries) = summaries(&Matrix::new(&prefetches), &prefetches);
        assert_eq!(columns.len(), 2);
        assert_eq!((summaries[0].nodes, summaries[1].nodes), (5, 2));
    }
}
