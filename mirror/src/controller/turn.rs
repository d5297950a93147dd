//! Whom a look asks.
//!
//! When nothing has changed a look costs one request. Most looks ask the original: a tag that moves, or an image that goes, is noticed
//! there. Every so often a copy is asked instead, the one that was seen longest ago. As soon as somebody says something else than what is
//! known, everybody is asked.

use std::collections::BTreeSet;

use coral_api::{
    Mirror, MirroredImageStatus,
    mirrored_image::{CopyState, CopyStatus, OriginState},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::schedule::{interval, refresh};

/// One look of so many asks a copy, as long as there are no more copies than every second look can ask.
const COPY_TURN: i32 = 4;

/// Whom a look asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// The original, and every copy.
    Everybody,
    /// The same without those copies that failed and whose next attempt has not come. Where the original was away and is back, with them.
    Awake {
        /// Whether it is known that the original is not to be had.
        is_away: bool,
    },
    /// Those whose turn it is, as long as they say what is known.
    Some(Few),
}

/// Those whose turn it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Few {
    /// Whether the original is one of them.
    pub(super) original: bool,
    /// The copies among them: the Mirror, and the name of the copy.
    pub(super) copies: BTreeSet<(String, String)>,
    /// Digest that all of them are known to have.
    pub(super) digest: String,
    /// Whether it is known that the original is not to be had.
    pub(super) is_away: bool,
}

/// Whom to ask at a look that is due. `keepers` are the Mirrors that keep the copies up to date.
pub(super) fn turn(status: &MirroredImageStatus, keepers: &[&Mirror], now: Timestamp) -> Turn {
    let (Some(interval), Some(origin), Some(digest)) = (interval(keepers), &status.origin, &status.digest) else {
        return Turn::Everybody;
    };
    let copies: Vec<&CopyStatus> = kept(status, keepers)
        .filter(|copy| !copy.reference.is_empty())
        .collect();
    let is_settled = |copy: &&CopyStatus| {
        copy.state == CopyState::Present && copy.failure.is_none() && copy.digest.as_ref() == Some(digest)
    };
    let is_away = origin.state != OriginState::Available;
    let checked_at = origin.checked_at.0;
    let is_wanted = |mirror: &&Mirror| refresh(mirror, checked_at).is_some_and(|time| time <= now);
    if copies.is_empty() || keepers.iter().any(is_wanted) {
        return Turn::Everybody;
    }
    if !copies.iter().all(is_settled) {
        return Turn::Awake { is_away };
    }
    let is_due = |copy: &CopyStatus, pause: SignedDuration| now.duration_since(seen_at(copy)) >= pause;
    let key = |copy: &CopyStatus| (copy.mirror.clone(), copy.reference.clone());
    let mut few = Few {
        original: true,
        copies: BTreeSet::new(),
        digest: digest.clone(),
        is_away,
    };
    if is_away {
        // Pods may have been sent to the copies.
        let due = copies.iter().filter(|copy| is_due(copy, interval));
        few.copies = due.map(|copy| key(copy)).collect();
        return Turn::Some(few);
    }
    // Half an interval less, because looks are not on the second. And the original has at least every second look.
    let pause = interval * COPY_TURN - interval / 2;
    let newest = copies.iter().map(|copy| seen_at(copy)).max();
    let oldest = copies.iter().min_by_key(|copy| seen_at(copy));
    if let Some(copy) = oldest.filter(|copy| is_due(copy, pause) && newest <= Some(checked_at)) {
        few.original = false;
        few.copies.insert(key(copy));
    }
    Turn::Some(few)
}

/// When an image was last looked at: its original, or one of its copies.
pub(super) fn looked_at(status: &MirroredImageStatus, keepers: &[&Mirror]) -> Option<Timestamp> {
    let checked_at = status.origin.as_ref()?.checked_at.0;
    let copies = kept(status, keepers).map(seen_at);
    Some(copies.fold(checked_at, Timestamp::max))
}

/// The registries where a copy was that is there no more, or cannot be told to be there. What is true of one copy may be true of all.
pub(super) fn lost(before: &MirroredImageStatus, after: &MirroredImageStatus) -> BTreeSet<String> {
    let was_there = |copy: &CopyStatus| {
        let mut all = before.destinations.iter();
        let old = all.find(|old| old.mirror == copy.mirror && old.reference == copy.reference);
        old.is_some_and(|old| old.state == CopyState::Present)
    };
    let copies = after.destinations.iter();
    copies
        .filter(|copy| copy.state != CopyState::Present && was_there(copy))
        .map(|copy| registry(copy).to_owned())
        .collect()
}

/// The registry of a copy.
pub(super) fn registry(copy: &CopyStatus) -> &str {
    copy.reference.split('/').next().unwrap_or_default()
}

/// The copies of these Mirrors.
pub(super) fn kept<'a>(
    status: &'a MirroredImageStatus,
    keepers: &[&Mirror],
) -> impl Iterator<Item = &'a CopyStatus> + use<'a> {
    let names: BTreeSet<String> = keepers.iter().map(|mirror| mirror.name_any()).collect();
    let copies = status.destinations.iter();
    copies.filter(move |copy| names.contains(&copy.mirror))
}

fn seen_at(copy: &CopyStatus) -> Timestamp {
    copy.last_copy_time
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

#[cfg(test)]
mod tests;
