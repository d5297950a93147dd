//! What to do now.

use std::time::Duration;

use coral_api::{FailureReason, ImageReference, node_images::SecretReference};
use jiff::Timestamp;

use crate::{
    situation::{Situation, Wanted},
    space::{Admission, admit, room},
};

/// Something that the agent is to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Begin to pull an image.
    Pull {
        /// The image as the object names it.
        image: String,
        /// The image, read.
        reference: ImageReference,
        /// Secrets with credentials, in the order in which to try them.
        secrets: Vec<SecretReference>,
        /// How long the pull may take.
        timeout: Duration,
    },
    /// Ask the registry for the size of an image, for there may be too little room.
    Measure {
        /// The image as the object names it.
        image: String,
        /// The image, read.
        reference: ImageReference,
        /// Secrets with credentials, in the order in which to try them.
        secrets: Vec<SecretReference>,
    },
    /// Protect an image from the kubelet's garbage collector.
    Pin {
        /// The image as the runtime names it.
        identity: String,
    },
    /// Take away a protection that Coral gave and nobody wants any more.
    Unpin {
        /// All names of the image.
        names: Vec<String>,
    },
    /// Take an image away that is to go.
    Remove {
        /// The image as the object names it.
        image: String,
        /// The image as the runtime names it.
        identity: String,
    },
    /// End a pull that nobody wants any more.
    Cancel {
        /// The image as the object named it.
        image: String,
    },
}

/// What to do now, in this order. `running` are the images whose pulls, or questions for their size, are under way.
#[must_use]
pub fn plan(situation: &Situation, running: &[String], max_parallel_pulls: usize, now: Timestamp) -> Vec<Action> {
    let is_unwanted = |image: &String| {
        !situation
            .wanted
            .iter()
            .any(|wanted| wanted.entry.image == *image && !wanted.goes())
    };
    let mut actions: Vec<Action> = running
        .iter()
        .filter(|image| is_unwanted(image))
        .map(|image| Action::Cancel { image: image.clone() })
        .collect();
    let cancelled = actions.len();

    if situation.runtime_failure.is_none() {
        let pins = pins(situation);
        actions.extend(removals(situation, running, &pins, now));
        actions.extend(pins);
    }

    // Without an inventory nobody knows what is missing, and a runtime that does not answer pulls nothing.
    if situation.paused.is_some() || situation.inventory.is_none() || situation.runtime_failure.is_some() {
        return actions;
    }
    let free = max_parallel_pulls.saturating_sub(running.len() - cancelled);
    let mut ready: Vec<(&Wanted, &ImageReference)> = situation
        .wanted
        .iter()
        .filter(|wanted| !running.contains(&wanted.entry.image) && situation.lacks(wanted, now))
        .filter(|wanted| next_attempt(situation, wanted).is_none_or(|time| time <= now))
        .filter_map(|wanted| Some((wanted, wanted.reference.as_ref().ok()?)))
        .collect();
    // The sort is stable: within a priority the order of the object stays.
    ready.sort_by_key(|(wanted, _)| std::cmp::Reverse(wanted.entry.priority));
    let mut begun: Vec<&ImageReference> = Vec::new();
    let under_way = references_of(situation, running);
    let mut room = room(situation, running);
    for (wanted, reference) in ready {
        if begun.len() == free {
            break;
        }
        // Two spellings of one image are one pull.
        if begun.contains(&reference) || under_way.contains(&reference) {
            continue;
        }
        // A registry that asks for fewer requests is asked for one image at a time.
        let is_busy = || {
            begun
                .iter()
                .chain(&under_way)
                .any(|other| other.registry() == reference.registry())
        };
        if limits_rate(situation, reference.registry()) && is_busy() {
            continue;
        }
        let image = wanted.entry.image.clone();
        let secrets = wanted.entry.pull_secrets.clone();
        let action = match admit(situation, wanted, room) {
            // A smaller image may fit.
            Admission::Wait => continue,
            Admission::Ask => Action::Measure {
                image,
                reference: reference.clone(),
                secrets,
            },
            Admission::Go(needed) => {
                room = room.map(|room| room - needed);
                Action::Pull {
                    image,
                    reference: reference.clone(),
                    secrets,
                    timeout: wanted.entry.timeout.into(),
                }
            }
        };
        begun.push(reference);
        actions.push(action);
    }
    actions
}

/// The images of these pulls.
fn references_of<'a>(situation: &'a Situation, running: &[String]) -> Vec<&'a ImageReference> {
    let is_running = |wanted: &&Wanted| running.contains(&wanted.entry.image);
    let running = situation.wanted.iter().filter(is_running);
    running.filter_map(|wanted| wanted.reference.as_ref().ok()).collect()
}

/// Whether the last attempt at an image of this registry, one that is still wanted, was refused for its rate.
fn limits_rate(situation: &Situation, registry: &str) -> bool {
    situation.wanted.iter().any(|wanted| {
        let failure = situation.pulls(wanted).and_then(|pulls| pulls.failure.as_ref());
        failure.is_some_and(|failure| failure.reason == FailureReason::RateLimited)
            && wanted
                .reference
                .as_ref()
                .is_ok_and(|reference| reference.registry() == registry)
    })
}

/// Which images are to be taken away. That frees space, so that it is done on a node that is to pull nothing, too.
fn removals(situation: &Situation, running: &[String], pins: &[Action], now: Timestamp) -> Vec<Action> {
    let under_way = references_of(situation, running);
    // First the protection that Coral gave, then the image.
    let is_to_be_unpinned = |identity: &String| {
        pins.iter()
            .any(|pin| matches!(pin, Action::Unpin { names } if names.contains(identity)))
    };
    situation
        .wanted
        .iter()
        .filter(|wanted| situation.lingers(wanted))
        .filter(|wanted| next_attempt(situation, wanted).is_none_or(|time| time <= now))
        .filter(|wanted| {
            wanted
                .reference
                .as_ref()
                .is_ok_and(|reference| !under_way.contains(&reference))
        })
        .filter_map(|wanted| Some((wanted.entry.image.clone(), wanted.identity()?)))
        .filter(|(_, identity)| !is_to_be_unpinned(identity))
        .map(|(image, identity)| Action::Remove { image, identity })
        .collect()
}

/// Which protections are missing, and which are one too many.
fn pins(situation: &Situation) -> Vec<Action> {
    let Some(pins) = &situation.pins else {
        return Vec::new();
    };
    let to_pin = || {
        situation
            .wanted
            .iter()
            .filter(|wanted| wanted.entry.pin && !wanted.goes())
    };
    // What Coral has pinned and the runtime does not call pinned, it cannot protect: to pin it again would change nothing.
    let is_pinned_by_coral = |identity: &String| pins.values().any(|names| names.contains(identity));
    let missing = to_pin()
        .filter(|wanted| situation.held(wanted).is_some_and(|held| !held.pinned))
        .filter_map(Wanted::identity)
        .filter(|identity| !is_pinned_by_coral(identity))
        .map(|identity| Action::Pin { identity });
    let surplus = pins
        .values()
        .filter(|names| {
            !to_pin()
                .filter_map(Wanted::identity)
                .any(|identity| names.contains(&identity))
        })
        .map(|names| Action::Unpin { names: names.clone() });
    missing.chain(surplus).collect()
}

/// When `plan` may have something new to say although nothing happens.
#[must_use]
pub fn next_wake(situation: &Situation, now: Timestamp) -> Option<Timestamp> {
    let attempts = situation
        .wanted
        .iter()
        .filter(|wanted| situation.lacks(wanted, now) || situation.lingers(wanted))
        .filter_map(|wanted| next_attempt(situation, wanted));
    let refreshes = situation
        .wanted
        .iter()
        .filter_map(|wanted| situation.refresh_after(wanted));
    attempts.chain(refreshes).filter(|time| *time > now).min()
}

fn next_attempt(situation: &Situation, wanted: &Wanted) -> Option<Timestamp> {
    situation.pulls(wanted)?.next_attempt
}

#[cfg(test)]
mod tests;
