//! The status of one image: what it was, with what a look or a copy has shown.

use coral_api::{
    Mirror, MirroredImageStatus, conditions,
    mirror::CopyFailure,
    mirrored_image::{CopyState, CopyStatus, OriginState, OriginStatus},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{
    desired::Wanted,
    look::{Looked, Seen, Target},
    schedule::pause,
    verdict::Verdict,
    work::Copied,
};
use crate::destination::names;

/// Most copies of an image.
const MAX_COPIES: usize = 64;

/// The status with the copies that are wanted, in their order; what was known of each stays.
pub(super) fn fitted(
    wanted: &Wanted,
    mirrors: &[&Mirror],
    old: Option<&MirroredImageStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> MirroredImageStatus {
    let old = old.cloned().unwrap_or_default();
    let mut destinations = Vec::new();
    for name in &wanted.requested_by {
        let Some(mirror) = mirrors.iter().find(|mirror| mirror.name_any() == *name) else {
            continue;
        };
        for destination in &mirror.spec.destinations {
            let named = match names(destination, &wanted.image) {
                Ok(named) => named,
                Err(error) => {
                    let known = |copy: &&CopyStatus| copy.mirror == *name && copy.reference.is_empty();
                    let mut copy = old.destinations.iter().find(known).cloned().unwrap_or_default();
                    copy.mirror.clone_from(name);
                    if copy.failure.is_none() {
                        fail(&mut copy, &Verdict::from(&error), None, now);
                    }
                    destinations.push(copy);
                    continue;
                }
            };
            let reference = named.reference.to_string();
            let known = |copy: &&CopyStatus| copy.mirror == *name && copy.reference == reference;
            let mut copy = old.destinations.iter().find(known).cloned().unwrap_or_default();
            copy.mirror.clone_from(name);
            copy.reference = reference;
            copy.node_reference = named.node_reference.identity();
            copy.pull_secret_name.clone_from(&destination.pull_secret_name);
            destinations.push(copy);
        }
    }
    destinations.truncate(MAX_COPIES);
    MirroredImageStatus {
        observed_generation: generation,
        destinations,
        used_by: wanted.used_by.clone(),
        unused_since: match old.unused_since {
            _ if wanted.is_used => None,
            None => Some(conditions::time(now)),
            since => since,
        },
        ..old
    }
}

/// What there is to look at, and to copy, of these Mirrors.
pub(super) fn targets(
    wanted: &Wanted,
    mirrors: &[std::sync::Arc<Mirror>],
    status: &MirroredImageStatus,
    now: Timestamp,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for mirror in mirrors {
        for (index, destination) in mirror.spec.destinations.iter().enumerate() {
            let Ok(named) = names(destination, &wanted.image) else {
                continue;
            };
            let copy = find(status, &mirror.name_any(), &named.reference.to_string());
            let failure = copy.and_then(|copy| copy.failure.as_ref());
            let next = failure.and_then(|failure| failure.next_attempt_time.as_ref());
            targets.push(Target {
                mirror: std::sync::Arc::clone(mirror),
                index,
                reference: named.reference,
                digest: copy.and_then(|copy| copy.digest.clone()),
                waits: next.is_some_and(|next| next.0 > now),
            });
        }
    }
    targets
}

fn find<'a>(status: &'a MirroredImageStatus, mirror: &str, reference: &str) -> Option<&'a CopyStatus> {
    let mut copies = status.destinations.iter();
    copies.find(|copy| copy.mirror == mirror && copy.reference == reference)
}

fn find_mut<'a>(status: &'a mut MirroredImageStatus, target: &Target) -> Option<&'a mut CopyStatus> {
    let (mirror, reference) = (target.mirror.name_any(), target.reference.to_string());
    let mut copies = status.destinations.iter_mut();
    copies.find(|copy| copy.mirror == mirror && copy.reference == reference)
}

/// Takes in what a look has shown. Returns what is to be copied.
pub(super) fn looked(
    status: &mut MirroredImageStatus,
    looked: &Looked,
    interval: Option<SignedDuration>,
    now: Timestamp,
) -> Vec<Target> {
    match &looked.origin {
        Some(Ok(digest)) => {
            status.digest = Some(digest.clone());
            status.origin = Some(OriginStatus {
                state: OriginState::Available,
                checked_at: conditions::time(now),
                message: String::new(),
            });
        }
        Some(Err(verdict)) => {
            status.origin = Some(OriginStatus {
                state: verdict.origin(),
                checked_at: conditions::time(now),
                message: verdict.message.clone(),
            });
        }
        None => {}
    }
    let known = status.digest.clone();
    let mut to_copy = Vec::new();
    for (target, seen) in &looked.copies {
        let Some(copy) = find_mut(status, target) else { continue };
        match (seen, &looked.origin) {
            (Seen::Equal, Some(Ok(digest))) => {
                copy.state = CopyState::Present;
                copy.digest = Some(digest.clone());
                copy.last_copy_time = Some(conditions::time(now));
                copy.failure = None;
            }
            // The copy is what matters; how the original is stands beside it.
            (Seen::Unchanged | Seen::Equal, _) => {
                copy.state = CopyState::Present;
                copy.failure = None;
                if copy.digest.is_some() && copy.digest == known {
                    copy.last_copy_time = Some(conditions::time(now));
                }
            }
            (Seen::Missing, Some(Ok(digest))) => {
                // One that is to be replaced may still be there; one that was this very digest is not.
                if copy.state != CopyState::Present || copy.digest.as_ref() == Some(digest) {
                    copy.state = CopyState::Copying;
                }
                to_copy.push(target.clone());
            }
            (Seen::Missing, Some(Err(verdict))) => {
                copy.digest = None;
                copy.state = CopyState::Failed;
                fail(copy, verdict, interval, now);
            }
            (Seen::Missing, None) => {}
            (Seen::Unknown(verdict), _) => {
                copy.state = CopyState::Failed;
                fail(copy, verdict, interval, now);
            }
        }
    }
    to_copy
}

/// Takes in how a copy ended.
pub(super) fn copied(
    status: &mut MirroredImageStatus,
    copied: &Copied,
    interval: Option<SignedDuration>,
    now: Timestamp,
) {
    if let Err(verdict) = &copied.result
        && verdict.is_about_original
        && let Some(origin) = &mut status.origin
    {
        origin.state = verdict.origin();
        origin.message.clone_from(&verdict.message);
    }
    let Some(copy) = find_mut(status, &copied.target) else {
        return;
    };
    match &copied.result {
        Ok(result) => {
            copy.state = CopyState::Present;
            copy.digest = Some(result.digest.clone());
            copy.copied_bytes = i64::try_from(result.sent_bytes).unwrap_or(i64::MAX);
            copy.last_copy_time = Some(conditions::time(now));
            copy.failure = None;
            status.digest = Some(result.digest.clone());
        }
        Err(verdict) => {
            // The one that was there is there still: its tag moves when the new one is whole.
            if copy.state != CopyState::Present {
                copy.state = CopyState::Failed;
            }
            fail(copy, verdict, interval, now);
        }
    }
}

fn fail(copy: &mut CopyStatus, verdict: &Verdict, interval: Option<SignedDuration>, now: Timestamp) {
    let attempts = copy
        .failure
        .as_ref()
        .map_or(0, |failure| failure.attempts)
        .saturating_add(1);
    let pause = pause(attempts, verdict.reason, verdict.retry_after, interval, &copy.reference);
    // Whole seconds, and never before the pause is over.
    let next = now.checked_add(pause).unwrap_or(Timestamp::MAX);
    let next = Timestamp::from_second(next.as_second().saturating_add(1)).unwrap_or(next);
    copy.failure = Some(CopyFailure {
        reason: verdict.reason,
        message: verdict.message.clone(),
        attempts,
        next_attempt_time: Some(conditions::time(next)),
    });
}

/// Whether somebody waits for this difference, or it may be told with the next.
pub(super) fn is_news(old: Option<&MirroredImageStatus>, new: &MirroredImageStatus) -> bool {
    let Some(old) = old else { return true };
    let told = |status: &MirroredImageStatus| {
        let mut status = status.clone();
        status.used_by.sample = Vec::new();
        status.used_by.count = status.used_by.count.min(1);
        status
    };
    told(old) != told(new)
}

#[cfg(test)]
mod tests;
