//! What the agent knows: what is asked of the node, what the runtime holds, and how the pulls went.
//!
//! Events change it; [`plan`](crate::plan) and [`report`](crate::report) read it.

mod pulls;

use std::collections::BTreeMap;

use coral_api::{
    FailureReason, ImageReference, InvalidReference, NodeImages,
    node_images::{DesiredImage, DesiredState, FilesystemUsage, PauseReason, RuntimeInfo},
    prefetch::PullPolicy,
};
use coral_runtime::SetBack;
use jiff::{SignedDuration, Timestamp};

use crate::{
    classify::Failure,
    containerd::{Bytes, Pins},
    filesystem::Space,
    runtime::{HeldImage, Inventory},
    space::{Need, Reserve, Shortage, shortage},
};

pub use pulls::Pulls;
use pulls::{pause, remembered, told_attempts};

/// How long what the runtime held is believed when it does not answer.
const MEMORY: SignedDuration = SignedDuration::from_secs(60);
/// Pause before an image that disappeared a second time is pulled again; it doubles with each further time.
const FIRST_VANISHED_PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// Longest such pause.
const LONGEST_VANISHED_PAUSE: SignedDuration = SignedDuration::from_mins(30);
/// An image that stayed this long before it disappeared begins anew.
const LONG_STAY: SignedDuration = SignedDuration::from_hours(1);

/// What the agent knows.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// Name of the node.
    pub node: String,
    /// Generation of the NodeImages object that is acted on.
    pub generation: Option<i64>,
    /// Why nothing is to be pulled.
    pub paused: Option<PauseReason>,
    /// The images that are asked for, in the order of the object.
    pub wanted: Vec<Wanted>,
    /// What the runtime held when it was last seen; none before the first look, and when that is too long ago.
    pub inventory: Option<Inventory>,
    /// When the runtime last answered.
    pub last_answer: Option<Timestamp>,
    /// Why the runtime does not answer.
    pub runtime_failure: Option<Failure>,
    /// Which runtime it is.
    pub runtime: Option<RuntimeInfo>,
    /// Use of the image filesystem.
    pub filesystem: Option<FilesystemUsage>,
    /// What of it is to stay free.
    pub reserve: Reserve,
    /// What Coral has pinned; none where the runtime cannot.
    pub pins: Option<Pins>,
    /// How many looks in a row have shown images that Coral has pinned, and that the runtime does not call pinned.
    pub looks_without_pins: u32,
    /// How the pulls of an image went, by the image as the object names it.
    pub pulls: BTreeMap<String, Pulls>,
}

/// An image that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The entry of the object.
    pub entry: DesiredImage,
    /// What is pulled and held for it, read; an error when the entry has no image reference.
    pub reference: Result<ImageReference, String>,
}

impl Situation {
    /// What the agent of a node knows when it starts.
    #[must_use]
    pub fn new(node: String) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    /// Takes in what the NodeImages object now asks for; `None` when there is no such object. Returns the images that are pulled under
    /// another name from now on: a pull under the old one is of no use any more.
    pub fn asked(&mut self, object: Option<&NodeImages>, now: Timestamp) -> Vec<String> {
        let Some(object) = object else {
            self.generation = None;
            self.paused = None;
            self.wanted.clear();
            self.pulls.clear();
            return Vec::new();
        };
        let mut renamed = Vec::new();
        self.generation = object.metadata.generation;
        self.paused = object.spec.paused;
        let wanted: Vec<Wanted> = object.spec.images.iter().cloned().map(Wanted::new).collect();
        for new in &wanted {
            let old = self.wanted.iter().find(|old| old.entry.image == new.entry.image);
            if let Some(old) = old
                && let Some(pulls) = self.pulls.get_mut(&new.entry.image)
            {
                let told = told_attempts(object, &new.entry.image);
                pulls.take_change(&old.entry, &new.entry, told, now);
            }
            // What happened to another name of it says nothing of this one.
            let is_renamed = old.is_some_and(|old| old.entry.pull_as != new.entry.pull_as);
            if is_renamed {
                renamed.push(new.entry.image.clone());
            }
            if old.is_none() || is_renamed {
                self.pulls
                    .insert(new.entry.image.clone(), remembered(object, &new.entry));
            }
            if new.goes()
                && !old.is_some_and(Wanted::goes)
                && let Some(pulls) = self.pulls.get_mut(&new.entry.image)
            {
                pulls.unsure_since = Some(now);
            }
        }
        self.pulls
            .retain(|image, _| wanted.iter().any(|wanted| wanted.entry.image == *image));
        self.wanted = wanted;
        renamed
    }

    /// The wall clock was set back: takes the times along, but for those that somebody else wrote.
    pub fn clock_set_back(&mut self, set_back: SetBack) {
        set_back.shift(&mut self.last_answer);
        for pulls in self.pulls.values_mut() {
            pulls.clock_set_back(set_back);
        }
    }

    /// Takes in what the runtime held when the look at `began` was made.
    pub fn looked(&mut self, began: Timestamp, mut inventory: Inventory) {
        // An image whose pull ended after the look had begun may be missing in what the look saw.
        for wanted in &self.wanted {
            if let Some(identity) = wanted.identity()
                && self
                    .pulls
                    .get(&wanted.entry.image)
                    .is_some_and(|pulls| pulls.last_success.is_some_and(|(_, ended)| ended >= began))
                && let Some(held) = self.inventory.as_ref().and_then(|inventory| inventory.get(&identity))
            {
                inventory.entry(identity).or_insert_with(|| held.clone());
            }
        }
        // An image that was gone after the look had begun may be in what the look saw.
        for wanted in &self.wanted {
            if let Some(identity) = wanted.identity()
                && self.pulls(wanted).and_then(|pulls| pulls.missing_at) >= Some(began)
            {
                inventory.remove(&identity);
            }
        }
        self.note_vanished(&inventory, began);
        self.note_arrived(&inventory);
        for pulls in self.pulls.values_mut() {
            pulls.unsure_since.take_if(|since| *since < began);
        }
        let is_ineffective = |name: &String| inventory.get(name).is_some_and(|held| !held.pinned);
        let mut pinned = self.pins.iter().flat_map(BTreeMap::values).flatten();
        self.looks_without_pins = if pinned.any(is_ineffective) {
            self.looks_without_pins + 1
        } else {
            0
        };
        self.inventory = Some(inventory);
        self.last_answer = Some(began);
        self.runtime_failure = None;
    }

    /// An image that somebody else has pulled is there: why our own attempts failed is the past.
    fn note_arrived(&mut self, inventory: &Inventory) {
        for wanted in self.wanted.iter().filter(|wanted| !wanted.goes()) {
            let Some(identity) = wanted.identity().filter(|identity| inventory.contains_key(identity)) else {
                continue;
            };
            let was_there = self
                .inventory
                .as_ref()
                .is_some_and(|before| before.contains_key(&identity));
            if let Some(pulls) = self.pulls.get_mut(&wanted.entry.image).filter(|_| !was_there) {
                pulls.forget_failures();
            }
        }
    }

    /// An image that was there and is gone is pulled again at once the first time, and after growing pauses when it happens again:
    /// whoever takes it away, most likely the kubelet's garbage collector, must not be fought.
    fn note_vanished(&mut self, inventory: &Inventory, now: Timestamp) {
        let Some(before) = &self.inventory else {
            return;
        };
        for wanted in self
            .wanted
            .iter()
            .filter(|wanted| wanted.entry.state == DesiredState::Present)
        {
            let Some(identity) = wanted.identity() else {
                continue;
            };
            if let Some(pulls) = self.pulls.get_mut(&wanted.entry.image)
                && before.contains_key(&identity)
                && !inventory.contains_key(&identity)
            {
                let stayed = pulls
                    .last_success
                    .map_or(LONG_STAY, |(_, ended)| now.duration_since(ended));
                pulls.vanished = if stayed >= LONG_STAY { 1 } else { pulls.vanished + 1 };
                if pulls.vanished > 1 {
                    let doublings = (pulls.vanished - 2).min(16);
                    let pause = FIRST_VANISHED_PAUSE
                        .saturating_mul(1 << doublings)
                        .min(LONGEST_VANISHED_PAUSE);
                    pulls.next_attempt = Some(now + pause);
                    pulls.failure = Some(Failure {
                        reason: FailureReason::Unknown,
                        message: format!(
                            "the image disappeared from the node {} times; the kubelet collects images when its disk fills up \
                             (imageGCHighThresholdPercent)",
                            pulls.vanished
                        ),
                    });
                }
            }
        }
    }

    /// Takes in that the runtime does not answer. A restart takes no image away, so for a while what was seen last still holds.
    pub fn lost_runtime(&mut self, failure: Failure, now: Timestamp) {
        if self.last_answer.is_none_or(|time| now.duration_since(time) > MEMORY) {
            self.inventory = None;
        }
        self.runtime_failure = Some(failure);
    }

    /// Takes in how much room there is now; `None` when the agent does not see it.
    pub fn has_space(&mut self, space: Option<Space>) {
        if let Some(filesystem) = &mut self.filesystem {
            filesystem.free_bytes = space.map(|space| space.free);
            filesystem.capacity_bytes = space.map(|space| space.capacity);
        }
    }

    /// Takes in how much room an image takes.
    pub fn measured(&mut self, image: &str, need: Need) {
        if let Some(pulls) = self.pulls.get_mut(image) {
            pulls.need = need;
        }
    }

    /// Notes for which images there is no room. `running` are the images whose pulls are under way.
    pub fn note_shortages(&mut self, running: &[String], now: Timestamp) {
        let shortages: Vec<(String, Option<Shortage>)> = self
            .wanted
            .iter()
            .map(|wanted| {
                let image = wanted.entry.image.clone();
                let waits = self.lacks(wanted, now) && !running.contains(&image);
                let before = self.pulls(wanted).and_then(|pulls| pulls.shortage);
                let shortage = waits.then(|| shortage(self, wanted, running, before)).flatten();
                (image, shortage)
            })
            .collect();
        for (image, shortage) in shortages {
            if let Some(pulls) = self.pulls.get_mut(&image) {
                pulls.shortage = shortage;
            }
        }
    }

    /// Whether the runtime keeps compressed layers beside unpacked ones.
    #[must_use]
    pub fn keeps_compressed(&self) -> bool {
        self.runtime.as_ref().is_none_or(|runtime| runtime.name == "containerd")
    }

    /// Takes in that a pull has begun.
    pub fn pull_began(&mut self, image: &str, now: Timestamp) {
        if let Some(pulls) = self.pulls.get_mut(image) {
            pulls.running_since = Some(now);
            pulls.bytes = None;
        }
    }

    /// Takes in how far pulls are.
    pub fn progressed(&mut self, progress: Vec<(ImageReference, Bytes)>) {
        for (reference, bytes) in progress {
            for wanted in self
                .wanted
                .iter()
                .filter(|wanted| wanted.reference.as_ref() == Ok(&reference))
            {
                if let Some(pulls) = self.pulls.get_mut(&wanted.entry.image)
                    && pulls.running_since.is_some()
                {
                    pulls.bytes = Some(bytes);
                }
            }
        }
    }

    /// Takes in that a pull was ended by the agent itself.
    pub fn pull_cancelled(&mut self, image: &str, now: Timestamp) {
        if let Some(pulls) = self.pulls.get_mut(image) {
            pulls.running_since = None;
            pulls.unsure_since = Some(now);
        }
    }

    /// Takes in that a pull has ended well.
    pub fn pull_succeeded(&mut self, image: &str, held: HeldImage, now: Timestamp) {
        let Some(wanted) = self.wanted.iter().find(|wanted| wanted.entry.image == image) else {
            return;
        };
        if let (Some(identity), Some(inventory)) = (wanted.identity(), &mut self.inventory) {
            inventory.insert(identity, held);
        }
        if let Some(pulls) = self.pulls.get_mut(image) {
            let began = pulls.running_since.take().unwrap_or(now);
            pulls.forget_failures();
            pulls.need = Need::Unasked;
            pulls.missing_at = None;
            pulls.last_success = Some((began, now));
        }
    }

    /// Takes in that the runtime does not hold an image, whatever it listed before.
    pub fn found_missing(&mut self, image: &str, now: Timestamp) {
        let wanted = self.wanted.iter().find(|wanted| wanted.entry.image == image);
        if let Some(identity) = wanted.and_then(Wanted::identity)
            && let Some(inventory) = &mut self.inventory
        {
            inventory.remove(&identity);
        }
        if let Some(pulls) = self.pulls.get_mut(image) {
            pulls.missing_at = Some(now);
        }
    }

    /// Takes in that a pull has failed.
    pub fn pull_failed(&mut self, image: &str, failure: Failure, now: Timestamp) {
        if let Some(pulls) = self.pulls.get_mut(image) {
            pulls.running_since = None;
        }
        self.failed(image, failure, now);
    }

    /// Takes in that an image which is to go is gone.
    pub fn removed(&mut self, image: &str, now: Timestamp) {
        self.found_missing(image, now);
        if let Some(pulls) = self.pulls.get_mut(image) {
            pulls.forget_failures();
        }
    }

    /// Takes in that an image which is to go could not be removed.
    pub fn removal_failed(&mut self, image: &str, failure: Failure, now: Timestamp) {
        // It may be wanted again by now.
        if self
            .wanted
            .iter()
            .any(|wanted| wanted.entry.image == image && wanted.goes())
        {
            self.failed(image, failure, now);
        }
    }

    fn failed(&mut self, image: &str, failure: Failure, now: Timestamp) {
        if let Some(pulls) = self.pulls.get_mut(image) {
            pulls.failed_attempts += 1;
            if pulls.need == Need::Unknown {
                pulls.need = Need::Unasked;
            }
            pulls.failure = Some(failure);
            pulls.next_attempt = Some(now + pause(&self.node, image, pulls.failed_attempts));
        }
    }

    /// Whether the runtime holds the image.
    #[must_use]
    pub fn held(&self, wanted: &Wanted) -> Option<&HeldImage> {
        self.inventory.as_ref()?.get(&wanted.identity()?)
    }

    /// How the pulls of a wanted image went.
    #[must_use]
    pub fn pulls(&self, wanted: &Wanted) -> Option<&Pulls> {
        self.pulls.get(&wanted.entry.image)
    }

    /// Whether the image is to be pulled, were nothing in the way.
    #[must_use]
    pub fn lacks(&self, wanted: &Wanted, now: Timestamp) -> bool {
        wanted.entry.state == DesiredState::Present
            && wanted.reference.is_ok()
            && (self.held(wanted).is_none() || self.is_stale(wanted, now))
    }

    /// Whether a look is needed before anything is said of an image.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.pulls.values().any(|pulls| pulls.unsure_since.is_some())
    }

    /// Whether the image is there, but is to go.
    #[must_use]
    pub fn lingers(&self, wanted: &Wanted) -> bool {
        wanted.goes() && self.held(wanted).is_some()
    }

    /// Whether the image is there, but is to be looked up again.
    fn is_stale(&self, wanted: &Wanted, now: Timestamp) -> bool {
        let Some(refresh_after) = self.refresh_after(wanted) else {
            return false;
        };
        let looked_up = self.pulls(wanted).and_then(|pulls| pulls.last_success);
        refresh_after <= now && looked_up.is_none_or(|(began, _)| began < refresh_after)
    }

    /// When the image is to be looked up again. A time to come, perhaps only by this node's clock, is waited for: a pull before it would not do.
    #[must_use]
    pub fn refresh_after(&self, wanted: &Wanted) -> Option<Timestamp> {
        let refresh_after = wanted.entry.refresh_after.as_ref().map(|time| time.0);
        refresh_after.filter(|_| wanted.entry.pull_policy == PullPolicy::Always)
    }
}

impl Wanted {
    fn new(entry: DesiredImage) -> Self {
        let name = entry.pull_as.as_ref().unwrap_or(&entry.image);
        let reference = name.parse().map_err(|error: InvalidReference| error.to_string());
        Self { entry, reference }
    }

    /// Whether the image is to be taken away.
    #[must_use]
    pub fn goes(&self) -> bool {
        self.entry.state == DesiredState::Absent
    }

    /// The name for the runtime.
    #[must_use]
    pub fn identity(&self) -> Option<String> {
        self.reference.as_ref().ok().map(ImageReference::identity)
    }
}

#[cfg(test)]
mod tests;
