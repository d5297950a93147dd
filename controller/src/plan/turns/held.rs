//! One turn of one node, while it lasts.

use std::collections::BTreeMap;

use coral_api::{node_images::DesiredState, prefetch::PullPolicy};
use jiff::{SignedDuration, Timestamp};

use crate::plan::{
    Wish,
    view::{Cell, NodeView, Standing},
};

/// What one attempt may take beyond its own timeout: until the agent has read what is asked, and until what came of it is written.
const GRACE: SignedDuration = SignedDuration::from_secs(15);
/// How long an agent may leave what is asked of it unanswered.
pub(super) const SILENCE: SignedDuration = SignedDuration::from_secs(60);

/// A turn: what the node may do for a Prefetch, beyond the images that it has not tried yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeldTurn {
    /// Images that failed, or whose refresh did, and may be tried once more, by name, with the attempts that had failed when the turn was given.
    retries: BTreeMap<String, i32>,
    /// Images that are there are to be from a pull that began at this time or later.
    refresh: Option<Timestamp>,
    progress: Progress,
}

/// What has become of a turn.
pub(super) enum Outcome {
    GoesOn(HeldTurn),
    /// There is nothing left to do.
    Ends,
    /// The node may not pull any more. What it has begun goes on.
    IsStopped(Progress),
    /// The node makes no progress.
    IsLost {
        was_silent: bool,
        progress: Progress,
    },
}

/// How far a node is, and since when it is no further.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Progress {
    mark: Mark,
    /// When the mark was last seen to change.
    moved: Timestamp,
    /// When the agent last had answered to all that was asked.
    heard: Timestamp,
    /// How long one attempt may take in all.
    patience: SignedDuration,
}

/// What changes when a node makes progress.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Mark {
    /// Images that are missing or too old.
    missing: usize,
    /// When the pulls began that are under way, in seconds, added up.
    begun: i64,
    /// Attempts that have failed.
    attempts: i64,
    /// Bytes that have arrived.
    bytes: i64,
}

impl HeldTurn {
    /// A new turn. One that tries again includes the images whose next attempt is due.
    pub(super) fn new(wish: &Wish<'_>, node: &NodeView<'_>, tries_again: bool, now: Timestamp) -> Self {
        let mut retries = BTreeMap::new();
        let has_failed = |cell: &&Cell<'_>| cell.standing() == Standing::Failed || cell.has_failed_refresh();
        for cell in cells(wish, node).filter(|cell| tries_again && has_failed(cell)) {
            let (attempts, next_attempt) = cell.failure();
            if next_attempt.is_none_or(|time| time <= now) {
                note_retry(&mut retries, cell, attempts);
            }
        }
        let refresh = wish.refresh_after(node.name, now);
        Self {
            retries,
            refresh,
            progress: Progress::of(None, refresh, wish, node, now),
        }
    }

    /// The turn that the node's object shows, for whoever has no memory of it: something is to be pulled, and nothing is held back.
    pub(super) fn read(wish: &Wish<'_>, node: &NodeView<'_>, now: Timestamp) -> Option<Self> {
        let mut has_begun = false;
        let mut retries = BTreeMap::new();
        let mut refresh = None;
        for cell in cells(wish, node) {
            let is_asked = cell.is_asked(DesiredState::Present);
            match cell.standing() {
                Standing::Missing | Standing::Pulling if is_asked => has_begun = true,
                Standing::Missing => return None,
                Standing::Failed if is_asked => {
                    let (attempts, next_attempt) = cell.failure();
                    // An attempt that is still to come belongs to another turn.
                    if next_attempt.is_none_or(|time| time <= now) {
                        has_begun = true;
                        note_retry(&mut retries, cell, attempts);
                    }
                }
                Standing::There => {
                    let (attempts, next_attempt) = cell.failure();
                    let is_due = !cell.has_failed_refresh() || next_attempt.is_none_or(|time| time <= now);
                    let unmet = cell.asked_refresh().filter(|time| is_due && cell.is_older_than(*time));
                    let unmet = unmet.filter(|_| wish.prefetch.spec.pull_policy == PullPolicy::Always);
                    if unmet.is_some() && cell.has_failed_refresh() {
                        note_retry(&mut retries, cell, attempts);
                    }
                    has_begun |= unmet.is_some();
                    refresh = refresh.max(unmet);
                }
                Standing::Failed | Standing::Pulling => {}
            }
        }
        has_begun.then(|| Self {
            retries,
            refresh,
            progress: Progress::of(None, refresh, wish, node, now),
        })
    }

    /// What has become of the turn.
    pub(super) fn go_on(self, wish: &Wish<'_>, node: &NodeView<'_>, now: Timestamp) -> Outcome {
        let progress = Progress::of(Some(&self.progress), self.refresh, wish, node, now);
        if !cells(wish, node).any(|cell| self.includes(cell)) {
            Outcome::Ends
        } else if !node.can_pull() || wish.is_at_rest() {
            Outcome::IsStopped(progress)
        } else if progress.has_stopped(now) {
            Outcome::IsLost {
                was_silent: false,
                progress,
            }
        } else if progress.is_silent(now) {
            Outcome::IsLost {
                was_silent: true,
                progress,
            }
        } else {
            Outcome::GoesOn(Self { progress, ..self })
        }
    }

    /// Notes on the node what it may pull.
    pub(super) fn release(&self, wish: &Wish<'_>, node: &mut NodeView<'_>) {
        let mut next = 0;
        for image in &wish.images {
            let cell = node.cell_from(image.number, &mut next, false);
            let includes = |cell: &&mut Cell<'_>| !cell.askers.is_empty() && self.includes(cell);
            let Some(cell) = cell.filter(includes) else { continue };
            if cell.standing() == Standing::There {
                cell.refresh = cell.refresh.max(self.refresh);
            } else {
                cell.is_released = true;
            }
        }
    }

    /// Whether the image is yet to be pulled in this turn.
    fn includes(&self, cell: &Cell<'_>) -> bool {
        match cell.standing() {
            Standing::Missing | Standing::Pulling => true,
            Standing::Failed => self.may_retry(cell),
            Standing::There => {
                let is_due = |time| cell.is_older_than(time) || cell.is_being_refreshed();
                self.refresh.is_some_and(is_due) && (!cell.has_failed_refresh() || self.may_retry(cell))
            }
        }
    }

    /// Whether the turn allows one more attempt at an image whose attempts are used up.
    fn may_retry(&self, cell: &Cell<'_>) -> bool {
        let before = cell.reported.and_then(|status| self.retries.get(&status.image));
        before.is_some_and(|before| cell.failure().0 <= *before)
    }
}

impl Progress {
    /// How far the node is now, given how far it was.
    pub(super) fn of(
        before: Option<&Self>,
        refresh: Option<Timestamp>,
        wish: &Wish<'_>,
        node: &NodeView<'_>,
        now: Timestamp,
    ) -> Self {
        let mut mark = Mark::default();
        let mut timeout = wish.timeout;
        let mut is_told = false;
        // The whole node: one that is busy with the images of another Prefetch is not idle.
        for cell in node.cells().iter().filter(|cell| !cell.askers.is_empty()) {
            let is_missing = cell.standing() != Standing::There;
            let is_too_old = refresh.is_some_and(|time| cell.is_older_than(time));
            if !is_missing && !is_too_old && !cell.is_being_refreshed() {
                continue;
            }
            mark.missing += 1;
            mark.begun = mark
                .begun
                .saturating_add(cell.pull_under_way().map_or(0, Timestamp::as_second));
            mark.attempts += i64::from(cell.failure().0);
            mark.bytes = mark.bytes.saturating_add(cell.bytes());
            if let Some(asked) = cell.asked {
                let longest = std::time::Duration::from(asked.timeout);
                timeout = timeout.max(SignedDuration::try_from(longest).unwrap_or(SignedDuration::MAX));
                is_told |= asked.state == DesiredState::Present && (is_missing || cell.asked_refresh() >= refresh);
            }
        }
        Self {
            mark,
            moved: before
                .filter(|before| before.mark == mark)
                .map_or(now, |before| before.moved),
            // What is not written yet cannot be answered.
            heard: before
                .filter(|_| is_told && !node.is_acknowledged)
                .map_or(now, |before| before.heard),
            patience: timeout.saturating_add(GRACE),
        }
    }

    /// Whether nothing has changed for longer than an attempt may take.
    pub(super) fn has_stopped(&self, now: Timestamp) -> bool {
        now.duration_since(self.moved) >= self.patience
    }

    fn is_silent(&self, now: Timestamp) -> bool {
        now.duration_since(self.heard) >= self.patience.min(SILENCE)
    }
}

fn note_retry(retries: &mut BTreeMap<String, i32>, cell: &Cell<'_>, attempts: i32) {
    if let Some(status) = cell.reported {
        retries.insert(status.image.clone(), attempts);
    }
}

/// What the node is asked for by the Prefetch.
fn cells<'n, 'a>(wish: &'n Wish<'_>, node: &'n NodeView<'a>) -> impl Iterator<Item = &'n Cell<'a>> {
    node.cells_of(wish).flatten().filter(|cell| !cell.askers.is_empty())
}
