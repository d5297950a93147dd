//! What to say of the node, and when.

use coral_api::{
    FailureReason,
    conditions::{self, condition},
    node_images::{DesiredState, ImageFailure, ImageState, ImageStatus, NodeImagesStatus, PauseReason, PullProgress},
};
use coral_runtime::SetBack;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    classify::Failure,
    situation::{Situation, Wanted},
};

/// Least time between two writes that say nothing but how many bytes have arrived.
const PROGRESS_ALONE: SignedDuration = SignedDuration::from_secs(10);
/// Least time between two writes while images move, and how long the first of them waits: small images are there by then.
const WHILE_MOVING: SignedDuration = SignedDuration::from_secs(2);
/// The pauses between writes that say nothing but what has begun and what has arrived double up to this.
const LONGEST_WHILE_MOVING: SignedDuration = SignedDuration::from_secs(5);

/// The status that describes the situation.
#[must_use]
pub fn status(situation: &Situation, previous: &[Condition], now: Timestamp) -> NodeImagesStatus {
    NodeImagesStatus {
        observed_generation: situation.generation,
        runtime: situation.runtime.clone(),
        image_filesystem: situation.filesystem,
        conditions: [
            Some(ready(situation, previous, now)),
            Some(accepting(situation, previous, now)),
            pinning(situation, previous, now),
        ]
        .into_iter()
        .flatten()
        .collect(),
        images: situation.wanted.iter().map(|wanted| image(situation, wanted)).collect(),
    }
}

fn ready(situation: &Situation, previous: &[Condition], now: Timestamp) -> Condition {
    let (is_ready, reason, message) = match (&situation.runtime_failure, &situation.inventory) {
        (None, Some(_)) => (
            true,
            "RuntimeReady",
            "The agent reaches the container runtime.".to_owned(),
        ),
        (Some(failure), _) => (false, "RuntimeUnavailable", failure.message.clone()),
        (None, None) => (
            false,
            "Starting",
            "The agent has not yet looked at the container runtime.".to_owned(),
        ),
    };
    condition(
        previous,
        conditions::READY,
        is_ready,
        reason,
        message,
        situation.generation,
        now,
    )
}

fn accepting(situation: &Situation, previous: &[Condition], now: Timestamp) -> Condition {
    let (is_accepting, reason, message) = match situation.paused {
        None => (true, "Accepting", "Nothing keeps the node from pulling."),
        Some(PauseReason::DiskPressure) => (
            false,
            "DiskPressure",
            "The node is under disk pressure; pulls go on when it is over.",
        ),
        Some(PauseReason::PIDPressure) => (
            false,
            "PIDPressure",
            "The node runs out of process IDs; pulls go on when it is over.",
        ),
        Some(PauseReason::Cordoned) => (
            false,
            "Cordoned",
            "The node is cordoned; pulls go on when it is uncordoned.",
        ),
    };
    let message = message.to_owned();
    condition(
        previous,
        conditions::ACCEPTING,
        is_accepting,
        reason,
        message,
        situation.generation,
        now,
    )
}

/// Whether the runtime lets Coral pin images; absent when no image is to be pinned, or the runtime is not known.
fn pinning(situation: &Situation, previous: &[Condition], now: Timestamp) -> Option<Condition> {
    let to_pin = |wanted: &Wanted| wanted.entry.pin && !wanted.goes();
    let runtime = situation
        .runtime
        .as_ref()
        .filter(|_| situation.wanted.iter().any(to_pin))?;
    let (can_pin, message) = match runtime.name.as_str() {
        // Once may be a moment between the label and the news of it.
        "containerd" if situation.looks_without_pins > 1 => (
            false,
            format!(
                "containerd {} makes nothing of the label that pins images; later versions do.",
                runtime.version
            ),
        ),
        "containerd" => (true, "containerd lets Coral pin images.".to_owned()),
        "cri-o" => (
            false,
            "CRI-O lets nobody pin images from outside; name them in pinned_images of crio.conf on the node."
                .to_owned(),
        ),
        name => (false, format!("{name} has no way to pin images that Coral knows.")),
    };
    let reason = if can_pin { "Supported" } else { "Unsupported" };
    Some(condition(
        previous,
        conditions::PINNING,
        can_pin,
        reason,
        message,
        situation.generation,
        now,
    ))
}

fn image(situation: &Situation, wanted: &Wanted) -> ImageStatus {
    let held = situation.held(wanted);
    let pulls = situation.pulls(wanted).cloned().unwrap_or_default();
    // Also of an image whose turn has not come: whoever gives the turns goes by it.
    let next_attempt = pulls.next_attempt;
    let attempts = i32::try_from(pulls.failed_attempts).unwrap_or(i32::MAX);
    let attempted = || {
        pulls.failure.clone().map(|failure| ImageFailure {
            reason: failure.reason,
            message: failure.message,
            attempts,
            next_attempt_time: next_attempt.map(conditions::time),
        })
    };
    let failure = match (&wanted.reference, held) {
        (Err(message), _) => Some(ImageFailure {
            reason: FailureReason::InvalidReference,
            message: message.clone(),
            attempts: 0,
            next_attempt_time: None,
        }),
        // What failed was an attempt at a newer one.
        (Ok(_), Some(_)) if !wanted.goes() => attempted(),
        (Ok(_), None) if wanted.goes() && situation.inventory.is_some() => None,
        (Ok(_), _) => waits_for(situation, wanted)
            .map(|failure| ImageFailure {
                reason: failure.reason,
                message: failure.message,
                attempts,
                next_attempt_time: None,
            })
            .or_else(attempted),
    };
    let state = if held.is_some() {
        ImageState::Present
    } else if wanted.goes() && situation.inventory.is_some() && pulls.unsure_since.is_none() {
        ImageState::Absent
    } else if wanted.goes() {
        // Nobody knows.
        ImageState::Waiting
    } else if wanted.reference.is_err() {
        ImageState::Failed
    } else if pulls.running_since.is_some() {
        ImageState::Pulling
    } else if attempts >= wanted.entry.backoff_limit && failure.is_some() && pulls.shortage.is_none() {
        ImageState::Failed
    } else {
        ImageState::Waiting
    };
    let pull = match (pulls.running_since, pulls.last_success) {
        (Some(began), _) => Some(PullProgress {
            start_time: Some(conditions::time(began)),
            seconds: None,
            done_bytes: pulls.bytes.map(|bytes| bytes.done),
            total_bytes: pulls.bytes.map(|bytes| bytes.total),
        }),
        // What an earlier run of the agent remembers has no length.
        (None, Some((began, ended))) if began < ended => Some(PullProgress {
            start_time: Some(conditions::time(began)),
            seconds: Some(ended.duration_since(began).as_secs()),
            ..PullProgress::default()
        }),
        _ => None,
    };
    ImageStatus {
        image: wanted.entry.image.clone(),
        state,
        digest: held.and_then(|held| held.digest.clone()),
        size_bytes: held.map(|held| held.size_bytes),
        pinned: held.is_some_and(|held| held.pinned),
        pull,
        failure,
        last_pull_time: pulls.last_success.map(|(_, ended)| conditions::time(ended)),
    }
}

/// What keeps an image from being pulled that is not a failed attempt of its own.
fn waits_for(situation: &Situation, wanted: &Wanted) -> Option<Failure> {
    if wanted.entry.state == DesiredState::Held {
        return None;
    }
    if let Some(failure) = &situation.runtime_failure {
        return Some(failure.clone());
    }
    if wanted.goes() {
        return None;
    }
    if situation.paused == Some(PauseReason::DiskPressure) {
        return Some(Failure {
            reason: FailureReason::DiskPressure,
            message: "the node is under disk pressure".to_owned(),
        });
    }
    situation.pulls(wanted)?.shortage.map(Failure::from)
}

/// Whether an image will be taken away, or found to be away, within moments.
#[must_use]
pub fn removes(situation: &Situation) -> bool {
    let has_failed = |wanted: &Wanted| situation.pulls(wanted).is_some_and(|pulls| pulls.failure.is_some());
    let is_unsure = |wanted: &Wanted| {
        wanted.goes()
            && situation
                .pulls(wanted)
                .is_some_and(|pulls| pulls.unsure_since.is_some())
    };
    situation.runtime_failure.is_none()
        && situation
            .wanted
            .iter()
            .any(|wanted| is_unsure(wanted) || (situation.lingers(wanted) && !has_failed(wanted)))
}

/// How often a node whose images move says so: the longer they do, the more seldom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// When it began to move, or the last write since.
    since: Timestamp,
    pause: SignedDuration,
}

impl Pace {
    /// The pace of a node whose images begin to move.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            pause: WHILE_MOVING,
        }
    }

    /// Takes in a write.
    pub fn wrote(&mut self, began: Timestamp) {
        self.since = began;
        self.pause = self.pause.saturating_mul(2).min(LONGEST_WHILE_MOVING);
    }

    /// The wall clock was set back.
    pub fn clock_set_back(&mut self, set_back: SetBack) {
        self.since = set_back.moved(self.since);
    }
}

/// Whether more is to be known within moments: images are being pulled, or the node has just been told that it will be asked for some. `written` is
/// what the API server has.
#[must_use]
pub fn moves(current: &NodeImagesStatus, written: Option<&NodeImagesStatus>) -> bool {
    let is_pulling = |image: &ImageStatus| image.state == ImageState::Pulling;
    let says_nothing = |image: &ImageStatus| image.state == ImageState::Waiting && image.failure.is_none();
    let is_unanswered = written.is_some_and(|written| written.observed_generation.is_none());
    current.images.iter().any(is_pulling) || (is_unanswered && current.images.iter().all(says_nothing))
}

/// When `current` is to be written, given what was written last and when. `None` when there is nothing new to say. `pace` is there while
/// images move, or will be taken away within moments.
///
/// A situation in which nothing moves is told at once, so that whoever waits for the last image learns of it without delay. What has gone or failed
/// is told soon, whatever else moves: nobody is to count on an image that is not there.
#[must_use]
pub fn write_time(
    current: &NodeImagesStatus,
    pace: Option<&Pace>,
    written: Option<&(Timestamp, NodeImagesStatus)>,
    now: Timestamp,
) -> Option<Timestamp> {
    let Some((time, written)) = written else {
        return Some(now);
    };
    if current == written || says_the_same(current, written) {
        return None;
    }
    if says_the_same(&without_bytes(current), &without_bytes(written)) {
        return Some(now.max(*time + PROGRESS_ALONE));
    }
    let Some(pace) = pace else {
        return Some(now);
    };
    Some(now.max(if takes_back(current, written) {
        *time + WHILE_MOVING
    } else if current.observed_generation == written.observed_generation {
        pace.since + pace.pause
    } else {
        pace.since + WHILE_MOVING
    }))
}

/// Whether something that was well is well no more.
fn takes_back(current: &NodeImagesStatus, written: &NodeImagesStatus) -> bool {
    let is_worse = |before: &Condition| {
        conditions::is_true(&written.conditions, &before.type_)
            && !conditions::is_true(&current.conditions, &before.type_)
    };
    let has_gone = |before: &ImageStatus| {
        let after = current.images.iter().find(|after| after.image == before.image);
        before.state == ImageState::Present && after.is_some_and(|after| after.state != ImageState::Present)
    };
    let has_failed = |after: &ImageStatus| {
        let before = written.images.iter().find(|before| before.image == after.image);
        after.failure.is_some() && before.is_none_or(|before| before.failure != after.failure)
    };
    written.conditions.iter().any(is_worse)
        || written.images.iter().any(has_gone)
        || current.images.iter().any(has_failed)
}

/// The status without how many bytes of running pulls have arrived.
fn without_bytes(status: &NodeImagesStatus) -> NodeImagesStatus {
    let mut status = status.clone();
    for pull in status.images.iter_mut().filter_map(|image| image.pull.as_mut()) {
        pull.done_bytes = None;
        pull.total_bytes = None;
    }
    status
}

/// Whether two statuses differ in nothing that is worth a write: the file system's use changes all the time.
fn says_the_same(current: &NodeImagesStatus, written: &NodeImagesStatus) -> bool {
    let without_usage = |status: &NodeImagesStatus| NodeImagesStatus {
        image_filesystem: None,
        ..status.clone()
    };
    without_usage(current) == without_usage(written)
}

#[cfg(test)]
mod tests;
