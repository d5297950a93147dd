//! What the statuses come to, for the metrics. People name registries, so that their number is bounded here; no image is told apart.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coral_api::{
    ImageReference, Mirror, MirrorStatus, MirroredImageStatus,
    conditions::{self, READY, STALLED},
    mirrored_image::{CopyState, CopyStatus, OriginState},
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::Controller;

/// Most registries that are told apart, of originals and of copies.
const MAX_REGISTRIES: usize = 32;
/// What the others are called together; no registry has such a name.
const OTHERS: &str = "other";

/// Numbers by a registry and a word about it.
pub(super) type ByRegistry = BTreeMap<(String, &'static str), i64>;

/// How originals and copies are.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Tally {
    /// Originals, by their registry and how they were when they were last looked at.
    pub(super) originals: ByRegistry,
    /// Copies, by where they stand.
    pub(super) copies: BTreeMap<&'static str, i64>,
    /// Copies that could not be made or renewed although their original was to be had, by their registry and why.
    pub(super) failing: ByRegistry,
}

impl Controller {
    /// Tells the metrics how things are.
    pub(super) fn count(&self, mirrors: &[Arc<Mirror>], now: Timestamp) {
        let office = &self.office;
        let images = office.wanted.iter();
        let images = images.filter_map(|(name, wanted)| Some((&wanted.image, office.statuses.get(name)?)));
        self.metrics.images_are(tally(images));
        let mirrors = mirrors.iter();
        let mirrors = mirrors.filter_map(|mirror| Some((&**mirror, office.mirrors.get(&mirror.name_any())?)));
        self.metrics.mirrors_are(mirrors);
        self.metrics.count_bytes();
        self.metrics.planned(now);
    }
}

/// Counts images: each is the original and what is known of it.
pub(super) fn tally<'a>(images: impl Iterator<Item = (&'a ImageReference, &'a MirroredImageStatus)> + Clone) -> Tally {
    let from = most_frequent(images.clone().map(|(image, _)| image.registry()));
    let to = most_frequent(
        images
            .clone()
            .flat_map(|(_, status)| status.destinations.iter().map(registry)),
    );
    let mut tally = Tally::default();
    for (copies, state) in [
        (CopyState::Pending, "Pending"),
        (CopyState::Copying, "Copying"),
        (CopyState::Present, "Present"),
        (CopyState::Failed, "Failed"),
    ] {
        let of_image = |(_, status): (_, &MirroredImageStatus)| {
            let number = status.destinations.iter().filter(|copy| copy.state == copies).count();
            i64::try_from(number).unwrap_or(i64::MAX)
        };
        tally.copies.insert(state, images.clone().map(of_image).sum());
    }
    for (image, status) in images {
        let state = status.origin.as_ref().map(|origin| origin.state);
        let host = named(&from, image.registry());
        *tally.originals.entry((host, origin_word(state))).or_default() += 1;
        if !matches!(state, None | Some(OriginState::Available)) {
            continue;
        }
        for copy in &status.destinations {
            if let Some(failure) = &copy.failure {
                let key = (named(&to, registry(copy)), failure.reason.as_str());
                *tally.failing.entry(key).or_default() += 1;
            }
        }
    }
    tally
}

/// Where a copy is; nothing where it cannot even be named.
fn registry(copy: &CopyStatus) -> &str {
    copy.reference.split('/').next().unwrap_or_default()
}

const fn origin_word(state: Option<OriginState>) -> &'static str {
    match state {
        None => "Unknown",
        Some(OriginState::Available) => "Available",
        Some(OriginState::NotFound) => "NotFound",
        Some(OriginState::Unauthorized) => "Unauthorized",
        Some(OriginState::RateLimited) => "RateLimited",
        Some(OriginState::Unreachable) => "Unreachable",
    }
}

/// The registries that are named most often.
fn most_frequent<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut order: Vec<(&str, usize)> = counts.into_iter().collect();
    order.sort_by_key(|&(name, count)| (Reverse(count), name));
    order.into_iter().take(MAX_REGISTRIES).map(|(name, _)| name).collect()
}

fn named(known: &BTreeSet<&str>, name: &str) -> String {
    let name = if known.contains(name) { name } else { OTHERS };
    name.to_owned()
}

/// The word for how a Mirror is: `Ready`, `Reconciling`, `Stalled` or `Suspended`.
pub(super) fn mirror_word(mirror: &Mirror, status: &MirrorStatus) -> &'static str {
    let is = |kind| conditions::is_true(&status.conditions, kind);
    if is(STALLED) {
        "Stalled"
    } else if is(READY) {
        "Ready"
    } else if mirror.spec.suspend {
        "Suspended"
    } else {
        "Reconciling"
    }
}

#[cfg(test)]
mod tests {
    use coral_api::{FailureReason, mirror::CopyFailure, mirrored_image::OriginStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn copy(reference: &str, state: CopyState, reason: Option<FailureReason>) -> CopyStatus {
        CopyStatus {
            reference: reference.to_owned(),
            state,
            failure: reason.map(|reason| CopyFailure {
                reason,
                message: String::new(),
                attempts: 1,
                next_attempt_time: None,
            }),
            ..CopyStatus::default()
        }
    }

    fn status(origin: Option<OriginState>, destinations: Vec<CopyStatus>) -> MirroredImageStatus {
        MirroredImageStatus {
            destinations,
            origin: origin.map(|state| OriginStatus {
                state,
                checked_at: Time(Timestamp::UNIX_EPOCH),
                message: String::new(),
            }),
            ..MirroredImageStatus::default()
        }
    }

    fn counted(images: &[(&str, MirroredImageStatus)]) -> Tally {
        let images: Vec<(ImageReference, &MirroredImageStatus)> = images
            .iter()
            .map(|(image, status)| (image.parse().unwrap(), status))
            .collect();
        tally(images.iter().map(|(image, status)| (image, *status)))
    }

    #[test]
    fn originals_that_are_away_are_no_fault_of_where_copies_are_put() {
        use CopyState::{Failed, Present};
        use FailureReason::{InvalidReference, NoSpace, RegistryUnavailable, Unauthorized};
        let tally = counted(&[
            (
                "r.lan/a",
                status(
                    Some(OriginState::Available),
                    vec![
                        copy("one.lan/a:1", Present, None),
                        copy("two.lan/a:1", Failed, Some(NoSpace)),
                    ],
                ),
            ),
            // A newer one cannot be had, and where it would go, nobody knows.
            (
                "r.lan/b",
                status(
                    Some(OriginState::Unreachable),
                    vec![copy("two.lan/b:1", Present, Some(RegistryUnavailable))],
                ),
            ),
            // The Secret of the destination cannot be read: nobody has asked for the original.
            (
                "r.lan/c",
                status(None, vec![copy("two.lan/c:1", Failed, Some(Unauthorized))]),
            ),
            (
                "nginx",
                status(
                    Some(OriginState::NotFound),
                    vec![copy("", Failed, Some(InvalidReference))],
                ),
            ),
        ]);
        let entry = |host: &str, word, number| ((host.to_owned(), word), number);
        assert_eq!(
            tally,
            Tally {
                originals: [
                    entry("r.lan", "Available", 1),
                    entry("r.lan", "Unreachable", 1),
                    entry("r.lan", "Unknown", 1),
                    entry("docker.io", "NotFound", 1),
                ]
                .into(),
                copies: [("Pending", 0), ("Copying", 0), ("Present", 2), ("Failed", 3)].into(),
                failing: [entry("two.lan", "NoSpace", 1), entry("two.lan", "Unauthorized", 1)].into(),
            }
        );
    }

    #[test]
    fn registries_that_are_named_most_are_told_apart() {
        let mut images: Vec<(String, MirroredImageStatus)> = (0..MAX_REGISTRIES + 8)
            .map(|number| (format!("r{number:02}.lan/a"), status(None, Vec::new())))
            .collect();
        // The last by its name, and the first by how often it is named.
        images.push(("r39.lan/b".to_owned(), status(None, Vec::new())));
        let images: Vec<(&str, MirroredImageStatus)> = images
            .iter()
            .map(|(image, status)| (image.as_str(), status.clone()))
            .collect();
        let tally = counted(&images);
        assert_eq!(tally.originals.len(), MAX_REGISTRIES + 1);
        let of = |host: &str| tally.originals.get(&(host.to_owned(), "Unknown")).copied();
        assert_eq!(
            (of("r39.lan"), of("r30.lan"), of("r31.lan"), of(OTHERS)),
            (Some(2), Some(1), None, Some(8))
        );
    }
}
