//! How the pulls of one image went, and when the next may begin.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use coral_api::{
    NodeImages,
    node_images::{DesiredImage, DesiredState},
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    classify::Failure,
    containerd::Bytes,
    space::{Need, Shortage},
};

/// Pause after the first failed attempt; it doubles with each further one.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// Longest pause between two attempts.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(300);

/// How the pulls of one image went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pulls {
    /// When the pull that is under way began.
    pub running_since: Option<Timestamp>,
    /// How far that pull is, where the runtime tells.
    pub bytes: Option<Bytes>,
    /// Since when it needs a look to know whether the image is there: the runtime may have finished a pull that the agent ended, and
    /// somebody else may have pulled an image that is to go from now on.
    pub unsure_since: Option<Timestamp>,
    /// Failed attempts since the last success; of an image that is to go, attempts to remove it.
    pub failed_attempts: u32,
    /// How often the image has disappeared without having stayed for long.
    pub vanished: u32,
    /// How much room the image takes.
    pub need: Need,
    /// What the image waits for, if there is no room.
    pub shortage: Option<Shortage>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// When the next attempt may begin.
    pub next_attempt: Option<Timestamp>,
    /// When the runtime, asked for this one image, did not hold it.
    pub missing_at: Option<Timestamp>,
    /// When the last successful pull began and ended.
    pub last_success: Option<(Timestamp, Timestamp)>,
}

impl Pulls {
    /// Takes in that something else is asked of the image than before.
    pub(super) fn take_change(&mut self, old: &DesiredImage, new: &DesiredImage) {
        let goes = |entry: &DesiredImage| entry.state == DesiredState::Absent;
        if goes(old) != goes(new) {
            self.forget_failures();
            self.vanished = 0;
            self.unsure_since = None;
        } else if asks_anew(old, new) {
            self.forget_failures();
        } else if old.state == DesiredState::Held && new.state == DesiredState::Present && self.failed_attempts > 0 {
            // Its turn has come again: it is tried at once, but what has failed so far still counts. The pause of an image that
            // keeps vanishing, of which no attempt has failed, is no matter of turns.
            self.next_attempt = None;
        }
    }

    pub(super) fn forget_failures(&mut self) {
        self.failed_attempts = 0;
        self.failure = None;
        self.next_attempt = None;
    }
}

/// Whether somebody changed what decides over success, so that the next attempt need not wait.
fn asks_anew(old: &DesiredImage, new: &DesiredImage) -> bool {
    old.pull_secrets != new.pull_secrets || old.timeout != new.timeout || old.refresh_after != new.refresh_after
}

/// What an earlier run of the agent wrote down of an image, so that a restart does not pull again what is fresh.
pub(super) fn remembered(object: &NodeImages, image: &str) -> Pulls {
    let last_pull = object
        .status
        .as_ref()
        .and_then(|status| status.images.iter().find(|status| status.image == image))
        .and_then(|status| status.last_pull_time.as_ref());
    Pulls {
        last_success: last_pull.map(|time| (time.0, time.0)),
        ..Pulls::default()
    }
}

/// The pause after the given failed attempt: doubling, with a jitter of a quarter so that nodes do not knock in step.
pub(super) fn pause(node: &str, image: &str, failed_attempts: u32) -> SignedDuration {
    let doublings = failed_attempts.saturating_sub(1).min(16);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let mut hasher = DefaultHasher::new();
    (node, image, failed_attempts).hash(&mut hasher);
    let spread = i32::try_from(hasher.finish() % 501).unwrap_or(0);
    pause.saturating_mul(750 + spread) / 1000
}
