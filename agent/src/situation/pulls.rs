//! How the pulls of one image went, and when the next may begin.

use coral_api::{
    NodeImages,
    node_images::{DesiredImage, DesiredState},
};
use coral_runtime::{SetBack, spread};
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

/// Times in a status are rounded to the second.
const ROUNDED: SignedDuration = SignedDuration::from_secs(1);

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
    /// The latest time from which a pull was asked to be. It is taken back when the node's turn is over, and given again with the next.
    pub refresh_asked: Option<Timestamp>,
}

impl Pulls {
    /// Takes in that something else is asked of the image than before. `told` are the failed attempts that whoever asks knew of.
    pub(super) fn take_change(&mut self, old: &DesiredImage, new: &DesiredImage, told: u32, now: Timestamp) {
        let goes = |entry: &DesiredImage| entry.state == DesiredState::Absent;
        if goes(old) != goes(new) {
            self.forget_failures();
            self.vanished = 0;
            self.unsure_since = None;
        } else if self.asks_anew(old, new) {
            self.forget_failures();
        } else if has_its_turn_again(old, new) && self.failed_attempts > 0 && told >= self.failed_attempts {
            // It is tried at once, but what has failed so far still counts. The pause of an image that keeps vanishing, of which no
            // attempt has failed, is no matter of turns; nor is one after a failure that nobody knew of when the turn was given. Turns are
            // given when the pause is over, as far as whoever gives them knows; what was known may be of the failure before this one.
            self.next_attempt.take_if(|time| *time <= now + ROUNDED);
        }
        self.refresh_asked = self.refresh_asked.max(refresh_asked(new));
    }

    /// Whether somebody changed what decides over success, so that the next attempt need not wait.
    fn asks_anew(&self, old: &DesiredImage, new: &DesiredImage) -> bool {
        old.pull_secrets != new.pull_secrets || old.timeout != new.timeout || refresh_asked(new) > self.refresh_asked
    }

    /// The wall clock was set back.
    pub(super) fn clock_set_back(&mut self, set_back: SetBack) {
        for time in [
            &mut self.running_since,
            &mut self.unsure_since,
            &mut self.next_attempt,
            &mut self.missing_at,
        ] {
            set_back.shift(time);
        }
        self.last_success = self
            .last_success
            .map(|(began, ended)| (set_back.moved(began), set_back.moved(ended)));
    }

    pub(super) fn forget_failures(&mut self) {
        self.failed_attempts = 0;
        self.failure = None;
        self.next_attempt = None;
    }
}

/// Whether an image that had no turn has one now.
fn has_its_turn_again(old: &DesiredImage, new: &DesiredImage) -> bool {
    let is_released = old.state == DesiredState::Held && new.state == DesiredState::Present;
    is_released || (refresh_asked(old).is_none() && refresh_asked(new).is_some())
}

fn refresh_asked(entry: &DesiredImage) -> Option<Timestamp> {
    entry.refresh_after.as_ref().map(|time| time.0)
}

/// How many failed attempts at an image the status of the object tells of.
pub(super) fn told_attempts(object: &NodeImages, image: &str) -> u32 {
    let mut images = object.status.iter().flat_map(|status| &status.images);
    let failure = images
        .find(|status| status.image == image)
        .and_then(|status| status.failure.as_ref());
    failure.map_or(0, |failure| u32::try_from(failure.attempts).unwrap_or_default())
}

/// What an earlier run of the agent wrote down of an image, so that a restart does not pull again what is fresh.
pub(super) fn remembered(object: &NodeImages, entry: &DesiredImage) -> Pulls {
    let last_pull = object
        .status
        .as_ref()
        .and_then(|status| status.images.iter().find(|status| status.image == entry.image))
        .and_then(|status| status.last_pull_time.as_ref());
    Pulls {
        last_success: last_pull.map(|time| (time.0, time.0)),
        refresh_asked: refresh_asked(entry),
        ..Pulls::default()
    }
}

/// The pause after the given failed attempt: doubling, with a jitter of a quarter so that nodes do not knock in step.
pub(super) fn pause(node: &str, image: &str, failed_attempts: u32) -> SignedDuration {
    let doublings = failed_attempts.saturating_sub(1).min(16);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    spread(pause, &(node, image, failed_attempts))
}
