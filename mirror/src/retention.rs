//! Which copies go because nobody needs them any more.
//!
//! ```text
//!   Mirrors, MirroredImages, who uses what, marks of other clusters ──plan (pure)──► Plan, to be printed ──carry_out──► tags are gone
//! ```
//!
//! A copy goes by its tag. What only that tag named goes after it, so that the registry's own collector gives the space back; what
//! another tag names, or has within it, stays.

mod tag;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use coral_api::{ImageReference, Mirror, MirroredImage, mirror::Destination};
use coral_registry::Repository;
use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::{
    destination::{names, place},
    mark::Mark,
};

/// For how long the mark of a cluster that gives no sign of life counts. Copies that a cluster needs when it is back are worth more than
/// the space of a month.
pub const MARK_LASTS: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Tags that are removed at the same time.
const AT_ONCE: usize = 4;

/// What is known of the marks at a place.
#[derive(Clone, Debug)]
pub enum Marks {
    /// These are there.
    Read(Vec<Mark>),
    /// They could not be read; why.
    Unreadable(String),
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// All Mirrors.
    pub mirrors: &'a [&'a Mirror],
    /// All images that have copies.
    pub images: &'a [&'a MirroredImage],
    /// Identities of the images that something in this cluster uses now, whatever `status` says.
    pub in_use: &'a BTreeSet<String>,
    /// What the marks at each [`place`] say. A place that is not among them was not asked.
    pub marks: &'a BTreeMap<String, Marks>,
    /// This cluster, as its own mark names it.
    pub cluster: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// What goes, and what stays although it is old enough.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Tags that go.
    pub removals: Vec<Removal>,
    /// Copies that nobody here has used for long enough, and that stay all the same.
    pub kept: Vec<Kept>,
}

/// A tag that goes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Removal {
    /// The identity of the original.
    pub image: String,
    /// The copy.
    pub reference: ImageReference,
    /// The Mirrors that made it.
    pub mirrors: BTreeSet<String>,
    /// Since when nobody has used the image.
    pub unused_since: Timestamp,
}

/// A copy that stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// The identity of the original.
    pub image: String,
    /// The copy.
    pub reference: ImageReference,
    /// Why it stays.
    pub why: Reason,
}

/// Why a copy stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Another Mirror has the same copy, and keeps it for longer.
    Mirror(String),
    /// Another cluster says that it needs it.
    Cluster(String),
    /// It cannot be told what other clusters need.
    MarksUnreadable(String),
    /// The Mirror is suspended.
    Suspended(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mirror(mirror) => write!(formatter, "the Mirror {mirror} keeps it for longer"),
            Self::Cluster(cluster) => write!(formatter, "the cluster {cluster} needs it"),
            Self::MarksUnreadable(why) => write!(formatter, "what other clusters need cannot be read: {why}"),
            Self::Suspended(mirror) => write!(formatter, "the Mirror {mirror} is suspended"),
        }
    }
}

/// A copy that some Mirrors have made, each for an image that nobody uses.
struct Claim<'a> {
    image: String,
    place: String,
    unused_since: Timestamp,
    mirrors: BTreeSet<&'a str>,
    /// Why it stays, as far as this cluster knows.
    stays: Option<Reason>,
    /// Whether some Mirror would let it go.
    may_go: bool,
}

/// What goes. Nothing that is in use is in it.
#[must_use]
pub fn plan(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    for (reference, claim) in claims(situation) {
        if !claim.may_go {
            continue;
        }
        let why = claim
            .stays
            .or_else(|| other_cluster(situation, &claim.place, &reference));
        match why {
            Some(why) => plan.kept.push(Kept {
                image: claim.image,
                reference,
                why,
            }),
            None => plan.removals.push(Removal {
                image: claim.image,
                reference,
                mirrors: claim.mirrors.into_iter().map(str::to_owned).collect(),
                unused_since: claim.unused_since,
            }),
        }
    }
    plan
}

/// The places whose marks a plan needs to know: those where something would go, were it not for other clusters.
#[must_use]
pub fn places(situation: &Situation<'_>) -> BTreeSet<String> {
    let claims = claims(situation).into_values();
    claims
        .filter(|claim| claim.may_go && claim.stays.is_none())
        .map(|claim| claim.place)
        .collect()
}

/// All copies of images that nobody uses.
fn claims<'a>(situation: &Situation<'a>) -> BTreeMap<ImageReference, Claim<'a>> {
    let mirrors: BTreeMap<String, &Mirror> = situation
        .mirrors
        .iter()
        .map(|mirror| (mirror.name_any(), *mirror))
        .collect();
    let listed: BTreeSet<String> = situation
        .mirrors
        .iter()
        .flat_map(|mirror| &mirror.spec.images)
        .filter_map(|image| image.parse::<ImageReference>().ok())
        .map(|image| image.identity())
        .collect();
    let mut claims: BTreeMap<ImageReference, Claim<'a>> = BTreeMap::new();
    for mirrored in situation.images {
        let Ok(image) = mirrored.spec.image.parse::<ImageReference>() else {
            continue;
        };
        let identity = image.identity();
        let status = mirrored.status.as_ref();
        let Some(unused_since) = status.and_then(|status| status.unused_since.as_ref()) else {
            continue;
        };
        if situation.in_use.contains(&identity) || listed.contains(&identity) {
            continue;
        }
        for name in &mirrored.spec.requested_by {
            let Some(mirror) = mirrors.get(name) else { continue };
            let stays = stays(mirror, unused_since.0, situation.now);
            for destination in &mirror.spec.destinations {
                let Some(reference) = copy(destination, &image) else {
                    continue;
                };
                let claim = claims.entry(reference).or_insert_with(|| Claim {
                    image: identity.clone(),
                    place: place(destination),
                    unused_since: unused_since.0,
                    mirrors: BTreeSet::new(),
                    stays: None,
                    may_go: false,
                });
                claim.mirrors.insert(name);
                claim.may_go |= stays.is_none();
                claim.stays = claim.stays.take().or_else(|| stays.clone());
            }
        }
    }
    claims
}

/// Why a Mirror keeps an image that nobody has used since then.
fn stays(mirror: &Mirror, unused_since: Timestamp, now: Timestamp) -> Option<Reason> {
    let name = mirror.name_any();
    if mirror.spec.suspend {
        return Some(Reason::Suspended(name));
    }
    let Some(retention) = &mirror.spec.retention else {
        return Some(Reason::Mirror(name));
    };
    let unused_for = SignedDuration::try_from(std::time::Duration::from(retention.unused_for));
    // What makes no sense removes nothing.
    let is_over = unused_for
        .is_ok_and(|unused_for| unused_for > SignedDuration::ZERO && now.duration_since(unused_since) >= unused_for);
    (!is_over).then_some(Reason::Mirror(name))
}

/// Which other cluster needs a copy.
fn other_cluster(situation: &Situation<'_>, place: &str, reference: &ImageReference) -> Option<Reason> {
    let marks = match situation.marks.get(place) {
        Some(Marks::Read(marks)) => marks,
        Some(Marks::Unreadable(why)) => return Some(Reason::MarksUnreadable(why.clone())),
        None => return Some(Reason::MarksUnreadable("nobody has asked".to_owned())),
    };
    let text = crate::mark::spelling(reference);
    let needs = |mark: &&Mark| {
        mark.cluster != situation.cluster
            && situation.now.duration_since(mark.written_at) < MARK_LASTS
            && mark.references.contains(&text)
    };
    let mark = marks.iter().find(needs)?;
    Some(Reason::Cluster(mark.cluster.clone()))
}

/// The copy of an image at a destination, without the digest, which has no part in its removal.
fn copy(destination: &Destination, image: &ImageReference) -> Option<ImageReference> {
    let reference = names(destination, image).ok()?.reference;
    format!("{}:{}", reference.name(), reference.tag()?).parse().ok()
}

/// Removes the tags, through the repositories that `repository` gives, and tells of each how it went.
pub async fn carry_out(
    removals: Vec<Removal>,
    repository: impl Fn(&Removal) -> Option<Repository>,
) -> Vec<(Removal, coral_registry::Result<()>)> {
    stream::iter(removals)
        .filter_map(|removal| {
            let repository = repository(&removal);
            async move { repository.map(|repository| (removal, repository)) }
        })
        .map(|(removal, repository)| async move {
            let tag = removal.reference.tag().unwrap_or_default().to_owned();
            let result = tag::remove(&repository, &tag).await;
            (removal, result)
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// The Mirrors that still want an image when these tags are gone. `None`: the object has done its work and can go.
///
/// A Mirror of which a copy could not be removed is still there, so that it is tried again.
#[must_use]
pub fn left(mirrored: &MirroredImage, removed: &[&Removal], failed: &[&Removal]) -> Option<Vec<String>> {
    let Ok(identity) = mirrored
        .spec
        .image
        .parse::<ImageReference>()
        .map(|image| image.identity())
    else {
        return Some(mirrored.spec.requested_by.clone());
    };
    let names = |removals: &[&Removal]| -> BTreeSet<String> {
        let of_image = removals.iter().filter(|removal| removal.image == identity);
        of_image.flat_map(|removal| removal.mirrors.iter().cloned()).collect()
    };
    let (gone, failed) = (names(removed), names(failed));
    let mut left = mirrored.spec.requested_by.clone();
    left.retain(|mirror| !gone.contains(mirror) || failed.contains(mirror));
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests;
