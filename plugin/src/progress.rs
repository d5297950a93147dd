//! What people see while they wait.

mod plain;
pub(crate) mod steps;
mod terminal;

use std::time::Duration;

use coral_api::Prefetch;

use crate::{
    human,
    matrix::{CellState, Matrix, Transfer},
    printer::Printer,
};

/// Nodes that have a line of their own; more are summed up.
pub(crate) const MOST_NODE_LINES: usize = 8;

/// Shows how far a Prefetch is. Everything goes to stderr.
pub(crate) trait Progress {
    /// Shows the state.
    fn update(&mut self, snapshot: &Snapshot);
    /// Tells something for good, above what is redrawn.
    fn tell(&mut self, line: &str);
    /// Ends the display, and leaves what was told.
    fn finish(&mut self);
    /// Ends the display after Ctrl-C, and leaves what was shown, too.
    fn abandon(&mut self);
}

/// The display that suits where stderr goes.
pub(crate) fn choose(printer: &Printer) -> Box<dyn Progress> {
    if printer.live_progress() {
        Box::new(terminal::Terminal::new())
    } else {
        Box::new(plain::Plain::new())
    }
}

/// How far a Prefetch is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) nodes: usize,
    pub(crate) ready: usize,
    pub(crate) pulling: usize,
    pub(crate) failed: usize,
    pub(crate) images: usize,
    /// Images on nodes, over all nodes.
    pub(crate) placed: usize,
    /// The nodes one by one, while they are few and may be read.
    pub(crate) lines: Option<Vec<NodeLine>>,
}

/// How far one node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeLine {
    pub(crate) node: String,
    pub(crate) wanted: usize,
    pub(crate) present: usize,
    pub(crate) failed: usize,
    pub(crate) retrying: usize,
    /// Images whose turn has not come.
    pub(crate) held: usize,
    /// Images that are being pulled now, by the end of their names.
    pub(crate) pulling: Vec<String>,
    /// Bytes of these, where the runtime tells.
    pub(crate) transfer: Option<Transfer>,
}

impl Snapshot {
    /// What the Prefetch says, and the nodes where they may be read.
    pub(crate) fn new(prefetch: &Prefetch, matrix: &Matrix, nodes_are_readable: bool) -> Self {
        let size = |number: i32| usize::try_from(number).unwrap_or_default();
        let status = prefetch.status.clone().unwrap_or_default();
        let nodes = size(status.nodes.desired);
        let are_few = nodes <= MOST_NODE_LINES && matrix.rows().len() <= MOST_NODE_LINES;
        let lines = || matrix.rows().keys().map(|node| line(node, matrix)).collect();
        Self {
            nodes,
            ready: size(status.nodes.ready),
            pulling: size(status.nodes.pulling),
            failed: size(status.nodes.failed),
            images: size(status.image_count),
            placed: status.images.iter().map(|image| size(image.available)).sum(),
            lines: (nodes_are_readable && are_few).then(lines),
        }
    }

    /// The state in one line, without the bytes.
    pub(crate) fn summary(&self) -> String {
        if self.nodes == 0 {
            return "waiting for Coral's controller".to_owned();
        }
        let mut parts = vec![format!(
            "{} of {} ready",
            human::count(self.ready),
            human::counted(self.nodes, "node")
        )];
        for (number, what) in [(self.pulling, "pulling"), (self.failed, "failed")] {
            if number > 0 {
                parts.push(format!("{} {what}", human::count(number)));
            }
        }
        parts.join(", ")
    }

    /// Parts of a thousand of all images on all nodes.
    pub(crate) fn permille(&self) -> u64 {
        permille(self.placed, self.nodes * self.images)
    }
}

impl NodeLine {
    /// The state in one line, without the bytes, which change all the time.
    pub(crate) fn summary(&self) -> String {
        self.parts(Vec::new()).join(", ")
    }

    /// The state in one line of at most so many characters, with the bytes. What matters least comes last, and is left out where there is
    /// no room for it.
    pub(crate) fn detailed(&self, room: usize) -> String {
        let mut parts = self.parts(self.bytes());
        while parts.len() > 1 && parts.join(", ").chars().count() > room {
            parts.pop();
        }
        parts.join(", ")
    }

    fn parts(&self, bytes: Vec<String>) -> Vec<String> {
        let mut parts = vec![format!("{} of {}", self.present, human::counted(self.wanted, "image"))];
        for (number, what) in [(self.failed, "failed"), (self.retrying, "retrying")] {
            if number > 0 {
                parts.push(format!("{number} {what}"));
            }
        }
        if self.held > 0 {
            parts.push("waiting for its turn".to_owned());
        }
        parts.extend(bytes);
        if !self.pulling.is_empty() {
            parts.push(format!("pulling {}", human::some_of(&self.pulling, 2)));
        }
        parts
    }

    /// `512 MB of 1.24 GB`, `48.0 MB/s`, `15s left`
    fn bytes(&self) -> Vec<String> {
        let Some(Transfer { done, total, rate }) = self.transfer else {
            return Vec::new();
        };
        let of = total.map(|total| format!(" of {}", human::bytes(total)));
        let mut parts = vec![format!("{}{}", human::bytes(done), of.unwrap_or_default())];
        if let Some(rate) = rate.filter(|rate| *rate > 0) {
            parts.push(format!("{}/s", human::bytes(rate)));
            let rest = total.and_then(|total| total.checked_sub(done)).filter(|rest| *rest > 0);
            parts
                .extend(rest.map(|rest| format!("{} left", human::duration(Duration::from_secs(rest.div_ceil(rate))))));
        }
        parts
    }

    /// Parts of a thousand; an image that is being pulled counts for the share that has come.
    pub(crate) fn permille(&self) -> u64 {
        let share = self
            .transfer
            .and_then(|transfer| transfer.percent())
            .unwrap_or_default();
        let pulling = u64::try_from(self.pulling.len()).unwrap_or_default();
        let wanted = u64::try_from(self.wanted).unwrap_or_default();
        let extra = (pulling * share * 10).checked_div(wanted).unwrap_or_default();
        permille(self.present, self.wanted) + extra
    }
}

fn permille(part: usize, whole: usize) -> u64 {
    let share = (part * 1_000).checked_div(whole).unwrap_or_default();
    u64::try_from(share).unwrap_or_default()
}

fn line(node: &str, matrix: &Matrix) -> NodeLine {
    let mut line = NodeLine {
        node: node.to_owned(),
        wanted: 0,
        present: 0,
        failed: 0,
        retrying: 0,
        held: 0,
        pulling: Vec::new(),
        transfer: None,
    };
    let cells = matrix.rows().get(node).into_iter().flat_map(|row| {
        let columns = matrix.columns().iter().enumerate();
        columns.filter_map(|(index, column)| Some((column, row.cell(index)?)))
    });
    for (column, cell) in cells {
        line.wanted += 1;
        match cell.state {
            CellState::Present => line.present += 1,
            CellState::Failed => line.failed += 1,
            CellState::Pulling => line.pulling.push(column.short()),
            CellState::Retrying => line.retrying += 1,
            CellState::Held => line.held += 1,
            CellState::Waiting => {}
        }
        if let Some(transfer) = cell.transfer {
            line.transfer = Some(line.transfer.map_or(transfer, |sum| add(sum, transfer)));
        }
    }
    line
}

fn add(one: Transfer, other: Transfer) -> Transfer {
    let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
    Transfer {
        done: one.done.saturating_add(other.done),
        total: sum(one.total, other.total),
        rate: sum(one.rate, other.rate),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{node_images, prefetch};

    fn snapshot(nodes: usize) -> Snapshot {
        let web = prefetch(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"images": ["a:1", "b:1", "c:1"]},
            "status": {
                "nodes": {"desired": nodes, "ready": 1, "pulling": 1, "failed": 0},
                "imageCount": 3,
                "images": [{"image": "a:1", "desired": nodes, "available": nodes, "pulling": 0, "failed": 0}],
            },
        }));
        let mut matrix = Matrix::new([&web]);
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let pull = json!({"startTime": "2026-01-01T00:00:00Z", "doneBytes": 500_000_000, "totalBytes": 1_000_000_000});
        for index in 0..nodes {
            let images = ["a:1", "b:1", "c:1"].map(|image| format!("docker.io/library/{image}"));
            let wanted = images
                .clone()
                .map(|image| json!({"image": image, "requestedBy": ["shop/web"]}));
            matrix.insert(
                &node_images(json!({
                    "metadata": {"name": format!("node-{index}")},
                    "spec": {"images": wanted},
                    "status": {"images": [
                        {"image": images[0], "state": "Present"},
                        {"image": images[1], "state": "Pulling", "pull": pull},
                        {"image": images[2], "state": "Pulling", "pull": pull},
                    ]},
                })),
                now,
            );
        }
        Snapshot::new(&web, &matrix, true)
    }

    #[test]
    fn few_nodes_have_their_lines() {
        let snapshot = snapshot(2);
        assert_eq!(snapshot.summary(), "1 of 2 nodes ready, 1 pulling");
        let line = &snapshot.lines.as_ref().unwrap()[0];
        assert_eq!(line.summary(), "1 of 3 images, pulling b:1, c:1");
        assert_eq!(
            line.detailed(80),
            "1 of 3 images, 1.00 GB of 2.00 GB, 100 MB/s, 10s left, pulling b:1, c:1"
        );
        assert_eq!(
            line.detailed(58),
            "1 of 3 images, 1.00 GB of 2.00 GB, 100 MB/s, 10s left"
        );
        assert_eq!(line.detailed(50), "1 of 3 images, 1.00 GB of 2.00 GB, 100 MB/s");
        assert_eq!(line.detailed(0), "1 of 3 images");
        assert_eq!(line.permille(), 333 + 333);
    }

    #[test]
    fn many_nodes_are_summed_up() {
        let snapshot = snapshot(MOST_NODE_LINES + 1);
        assert_eq!(snapshot.lines, None);
        assert_eq!(snapshot.permille(), 333);
    }
}
