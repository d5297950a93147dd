//! Which image is where: nodes × images, from what the agents report about what Prefetches want.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use coral_api::{
    FailureReason, ImageReference, NodeImages, Prefetch, conditions,
    node_images::{DesiredImage, DesiredState, ImageFailure, ImageState, ImageStatus, PullProgress},
    prefetch::{Mode, PrefetchStatus},
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::human;

/// Hex digits of a digest that are shown.
const DIGEST_DIGITS: usize = 12;

/// Nodes and images of some Prefetches, and where each image stands on each node.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    /// `namespace/name` of the Prefetches that this is about.
    wanted_by: BTreeSet<String>,
    /// Those of them that are done, and make no further attempts.
    finished: BTreeSet<String>,
    /// Whether it is about some images, whoever wants them.
    is_of_images: bool,
    columns: Vec<Column>,
    /// Every spelling that was met, and its column.
    column_of: HashMap<String, usize>,
    rows: BTreeMap<String, Row>,
}

/// One image.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The reference; absent where the text is none, and then nothing can be shortened.
    pub(crate) reference: Option<ImageReference>,
    /// The text that it came from.
    pub(crate) text: String,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// By column; `None` where the image is not wanted, and shorter than the columns where the last ones are not.
    cells: Vec<Option<Cell>>,
    pub(crate) runtime: Option<String>,
    pub(crate) free_bytes: Option<u64>,
    /// Why nothing happens on this node for now, if there is a reason.
    pub(crate) trouble: Option<String>,
}

/// One image on one node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) state: CellState,
    pub(crate) failure: Option<ImageFailure>,
    pub(crate) transfer: Option<Transfer>,
    /// How long the pull that is under way has taken.
    pub(crate) pulling_for: Option<Duration>,
    pub(crate) digest: Option<String>,
    pub(crate) size: Option<u64>,
    pub(crate) priority: i32,
    /// The name by which the node pulls it, where that is a copy's.
    pub(crate) copy: Option<String>,
}

/// Where an image stands on a node, as people see it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum CellState {
    Failed,
    /// An attempt failed, and another follows.
    Retrying,
    Pulling,
    Waiting,
    /// Its turn has not come: the Prefetch limits how many nodes pull at a time.
    Held,
    Present,
}

impl CellState {
    /// The word in the table.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Retrying => "retrying",
            Self::Pulling => "pulling",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Present => "present",
        }
    }
}

/// A pull that is under way, as far as the runtime tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) done: u64,
    pub(crate) total: Option<u64>,
    /// Bytes per second since the pull began.
    pub(crate) rate: Option<u64>,
}

impl Transfer {
    /// Whole percents, where the total is known. A pull that is not over is never at 100 percent.
    pub(crate) fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((u128::from(self.done) * 100 / u128::from(total)).min(99) as u64)
    }
}

/// One image over all nodes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Summary {
    pub(crate) nodes: usize,
    pub(crate) present: usize,
    pub(crate) pulling: usize,
    pub(crate) failed: usize,
    pub(crate) size: Option<u64>,
    pub(crate) digests: BTreeSet<String>,
}

/// Whether a Prefetch is done, and makes no further attempts.
pub(crate) fn is_finished(prefetch: &Prefetch) -> bool {
    let is_complete = |status: &PrefetchStatus| status.completion_time.is_some();
    prefetch.spec.mode == Mode::Once && prefetch.status.as_ref().is_some_and(is_complete)
}

impl Matrix {
    /// An empty matrix with the images of these Prefetches, in their order.
    pub(crate) fn new<'a>(prefetches: impl IntoIterator<Item = &'a Prefetch>) -> Self {
        let mut matrix = Self::default();
        for prefetch in prefetches {
            if is_finished(prefetch) {
                matrix.finished.insert(key(prefetch));
            }
            matrix.wanted_by.insert(key(prefetch));
            for image in &prefetch.spec.images {
                matrix.column(image);
            }
        }
        matrix
    }

    /// An empty matrix of these images, whoever wants them.
    pub(crate) fn of_images<S: AsRef<str>>(images: impl IntoIterator<Item = S>) -> Self {
        let mut matrix = Self {
            is_of_images: true,
            ..Self::default()
        };
        for image in images {
            matrix.column(image.as_ref());
        }
        matrix
    }

    /// Takes up what a node reports. A node on which nothing is wanted any more disappears.
    pub(crate) fn insert(&mut self, node: &NodeImages, now: Timestamp) {
        let name = node.name_any();
        let status = node.status.as_ref();
        let reported: HashMap<&str, &ImageStatus> = status
            .iter()
            .flat_map(|status| &status.images)
            .map(|image| (image.image.as_str(), image))
            .collect();
        let mut cells: Vec<Option<Cell>> = Vec::new();
        for desired in &node.spec.images {
            if !self.is_wanted(desired) {
                continue;
            }
            let index = self.column(&desired.image);
            if cells.len() <= index {
                cells.resize(index + 1, None);
            }
            let mut cell = cell(desired, reported.get(desired.image.as_str()).copied(), now);
            if let Some(failure) = cell.failure.as_mut().filter(|_| self.is_at_rest(desired)) {
                // The agent tells when it would try again, not that nobody will ask it to.
                failure.next_attempt_time = None;
            }
            cells[index] = Some(cell);
        }
        if cells.is_empty() {
            self.rows.remove(&name);
            return;
        }
        let row = Row {
            cells,
            runtime: status
                .and_then(|status| status.runtime.as_ref())
                .map(|runtime| format!("{} {}", runtime.name, runtime.version)),
            free_bytes: status
                .and_then(|status| status.image_filesystem)
                .and_then(|filesystem| filesystem.free_bytes)
                .and_then(|bytes| u64::try_from(bytes).ok()),
            trouble: trouble(node),
        };
        self.rows.insert(name, row);
    }

    /// Forgets what a person did not ask for.
    pub(crate) fn narrow(&mut self, filter: &Filter) {
        let is_node = |node: &str| filter.nodes.is_empty() || filter.nodes.iter().any(|name| name == node);
        let is_failed = |cell: &Cell| cell.failure.is_some();
        let stays: Vec<bool> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let mut cells = self.rows.values().filter_map(|row| row.cell(index));
                filter.has_image(&column.familiar()) && (!filter.failed || cells.any(is_failed))
            })
            .collect();
        self.rows.retain(|node, row| {
            let mut index = 0;
            row.cells.resize(stays.len(), None);
            row.cells.retain(|_| {
                index += 1;
                stays[index - 1]
            });
            is_node(node) && row.wanted().next().is_some() && (!filter.failed || row.wanted().any(is_failed))
        });
        let columns = std::mem::take(&mut self.columns);
        self.column_of.clear();
        for (column, _) in columns.into_iter().zip(&stays).filter(|(_, stays)| **stays) {
            self.column(&column.text);
        }
    }

    /// Forgets a node.
    pub(crate) fn remove(&mut self, node: &str) {
        self.rows.remove(node);
    }

    /// Forgets all nodes.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    /// The images.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The nodes by name.
    pub(crate) fn rows(&self) -> &BTreeMap<String, Row> {
        &self.rows
    }

    /// All that is wanted: node, image, and where it stands.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (&str, &Column, &Cell)> {
        self.rows.iter().flat_map(|(node, row)| {
            let cells = self.columns.iter().zip(&row.cells);
            cells.filter_map(|(column, cell)| Some((node.as_str(), column, cell.as_ref()?)))
        })
    }

    /// Where an image, in any spelling, stands on a node.
    pub(crate) fn cell(&self, node: &str, image: &str) -> Option<&Cell> {
        let index = self
            .column_of
            .get(image)
            .or_else(|| self.column_of.get(&identity(image)))?;
        self.rows.get(node)?.cell(*index)
    }

    /// The images, each over all nodes, in the order of the columns.
    pub(crate) fn summaries(&self) -> Vec<Summary> {
        let mut summaries = vec![Summary::default(); self.columns.len()];
        for row in self.rows.values() {
            for (summary, cell) in summaries.iter_mut().zip(&row.cells) {
                let Some(cell) = cell else { continue };
                summary.nodes += 1;
                match cell.state {
                    CellState::Present => summary.present += 1,
                    CellState::Pulling => summary.pulling += 1,
                    CellState::Failed => summary.failed += 1,
                    CellState::Retrying | CellState::Waiting | CellState::Held => {}
                }
                summary.size = summary.size.max(cell.size);
                summary.digests.extend(cell.digest.clone());
            }
        }
        summaries
    }

    /// Whether everybody who wants the image is done.
    fn is_at_rest(&self, desired: &DesiredImage) -> bool {
        let mut requesters = desired.requested_by.iter();
        !desired.requested_by.is_empty() && requesters.all(|prefetch| self.finished.contains(prefetch))
    }

    fn is_wanted(&self, desired: &DesiredImage) -> bool {
        let is_meant = if self.is_of_images {
            self.column_of.contains_key(&identity(&desired.image))
        } else {
            let mut requesters = desired.requested_by.iter();
            requesters.any(|prefetch| self.wanted_by.contains(prefetch))
        };
        desired.state != DesiredState::Absent && is_meant
    }

    /// The column of an image in any spelling; a new one where there is none yet.
    fn column(&mut self, image: &str) -> usize {
        if let Some(index) = self.column_of.get(image) {
            return *index;
        }
        let identity = identity(image);
        let index = self.column_of.get(&identity).copied().unwrap_or_else(|| {
            self.columns.push(Column {
                reference: image.parse().ok(),
                text: image.to_owned(),
            });
            self.columns.len() - 1
        });
        self.column_of.insert(identity, index);
        self.column_of.insert(image.to_owned(), index);
        index
    }
}

/// What a person asks for of all that there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Parts of names of images; none means every image.
    pub(crate) images: Vec<String>,
    /// Names of nodes; none means every node.
    pub(crate) nodes: Vec<String>,
    /// Only what failed, and may be tried again.
    pub(crate) failed: bool,
}

impl Filter {
    /// Whether anything is left out.
    pub(crate) fn is_none(&self) -> bool {
        self.images.is_empty() && self.nodes.is_empty() && !self.failed
    }

    /// Whether the image is asked for, by a part of its familiar name or by any spelling of its name.
    pub(crate) fn has_image(&self, image: &str) -> bool {
        let is_meant = |wanted: &String| image.contains(wanted.as_str()) || identity(image) == identity(wanted);
        self.images.is_empty() || self.images.iter().any(is_meant)
    }
}

impl Row {
    /// The cell of a column; `None` where the image is not wanted on this node.
    pub(crate) fn cell(&self, column: usize) -> Option<&Cell> {
        self.cells.get(column)?.as_ref()
    }

    /// The cells of the images that are wanted here.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().flatten()
    }
}

impl Column {
    /// The name that people know.
    pub(crate) fn familiar(&self) -> String {
        self.reference
            .as_ref()
            .map_or_else(|| self.text.clone(), ImageReference::familiar)
    }

    /// The end of the name, for lines with little room: `model:v7`, `model@1a2b3c4d5e6f`.
    pub(crate) fn short(&self) -> String {
        let Some(reference) = &self.reference else {
            return self.text.clone();
        };
        let path = reference.repository();
        let name = path.rsplit('/').next().unwrap_or(path);
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => format!("{name}@{}", short_digest(digest)),
            (None, Some(tag)) => format!("{name}:{tag}"),
            (None, None) => name.to_owned(),
        }
    }
}

/// The first digits of a digest: enough to tell two apart.
pub(crate) fn short_digest(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..DIGEST_DIGITS).unwrap_or(hex).to_owned()
}

/// `namespace/name`, as `requestedBy` has it.
pub(crate) fn key(prefetch: &Prefetch) -> String {
    format!("{}/{}", prefetch.namespace().unwrap_or_default(), prefetch.name_any())
}

fn identity(image: &str) -> String {
    image
        .parse::<ImageReference>()
        .map_or_else(|_| image.to_owned(), |image| image.identity())
}

impl Cell {
    /// Whether it is there, and could not be refreshed.
    pub(crate) fn has_failed_refresh(&self) -> bool {
        let is_about_pulls = |failure: &ImageFailure| failure.reason != FailureReason::RemovalRefused;
        self.state == CellState::Present && self.failure.as_ref().is_some_and(is_about_pulls)
    }
}

fn cell(desired: &DesiredImage, reported: Option<&ImageStatus>, now: Timestamp) -> Cell {
    let has_tried = reported
        .and_then(|image| image.failure.as_ref())
        .is_some_and(|failure| failure.attempts > 0);
    let state = match (reported.map(|image| image.state), desired.state) {
        (Some(ImageState::Present), _) => CellState::Present,
        (Some(ImageState::Pulling), _) => CellState::Pulling,
        // What failed waits for its turn to be tried again; that it failed is what people need to know.
        (Some(ImageState::Failed), _) => CellState::Failed,
        (_, DesiredState::Held) => CellState::Held,
        (Some(ImageState::Waiting), _) if has_tried => CellState::Retrying,
        (None | Some(ImageState::Waiting | ImageState::Absent), _) => CellState::Waiting,
    };
    let pull = reported
        .filter(|_| state == CellState::Pulling)
        .and_then(|image| image.pull.as_ref());
    Cell {
        state,
        failure: reported
            .filter(|_| !matches!(state, CellState::Pulling | CellState::Held))
            .and_then(|image| image.failure.clone()),
        transfer: pull.and_then(|pull| transfer(pull, now)),
        pulling_for: pull
            .and_then(|pull| pull.start_time.as_ref())
            .map(|start| human::between(start.0, now)),
        digest: reported.and_then(|image| image.digest.clone()),
        size: reported.and_then(|image| u64::try_from(image.size_bytes?).ok()),
        priority: desired.priority,
        copy: desired.pull_as.clone(),
    }
}

fn transfer(pull: &PullProgress, now: Timestamp) -> Option<Transfer> {
    let done = u64::try_from(pull.done_bytes?).ok()?;
    let seconds = pull
        .start_time
        .as_ref()
        .map(|start| human::between(start.0, now).as_secs());
    Some(Transfer {
        done,
        total: pull.total_bytes.and_then(|total| u64::try_from(total).ok()),
        rate: seconds.filter(|seconds| *seconds > 0).map(|seconds| done / seconds),
    })
}

/// Why nothing happens on a node for now.
fn trouble(node: &NodeImages) -> Option<String> {
    if let Some(paused) = node.spec.paused {
        return Some(format!("nothing is pulled for now: {}", paused.as_str()));
    }
    let Some(status) = &node.status else {
        return Some("Coral's agent has not reported yet".to_owned());
    };
    let said_no = |kind| conditions::find(&status.conditions, kind).filter(|condition| condition.status == "False");
    if let Some(condition) = said_no(conditions::READY) {
        return Some(format!(
            "Coral's agent is not ready: {}: {}",
            condition.reason, condition.message
        ));
    }
    said_no(conditions::ACCEPTING)
        .map(|condition| format!("nothing is pulled for now: {}: {}", condition.reason, condition.message))
}

#[cfg(test)]
mod tests;
