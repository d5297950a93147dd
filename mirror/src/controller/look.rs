//! Looks at an original and at its copies.

use std::{collections::BTreeMap, sync::Arc};

use coral_api::{FailureReason, ImageReference, Mirror};
use kube::ResourceExt as _;

use super::{
    access::{Access, Accesses, Way},
    turn::Turn,
    verdict::Verdict,
};

/// One copy that is looked at.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) mirror: Arc<Mirror>,
    /// The place of the destination in the Mirror's list.
    pub(super) index: usize,
    pub(super) reference: ImageReference,
    /// What the copy is known to be.
    pub(super) digest: Option<String>,
    /// Whether it failed, and its next attempt has not come.
    pub(super) waits: bool,
}

impl Target {
    pub(super) fn way(&self) -> Way {
        (self.mirror.name_any(), self.index)
    }

    /// The Mirror, and the name of the copy.
    fn key(&self) -> (String, String) {
        (self.mirror.name_any(), self.reference.to_string())
    }
}

/// What a look has shown.
pub(super) struct Looked {
    /// The object's name.
    pub(super) name: String,
    pub(super) image: ImageReference,
    /// The digest of the original. `None`: it was not its turn, or nobody could ask, for want of a Secret.
    pub(super) origin: Option<Result<String, Verdict>>,
    /// The copies that were looked at.
    pub(super) copies: Vec<(Target, Seen)>,
}

/// How a copy is.
#[derive(Debug)]
pub(super) enum Seen {
    /// It is what the original is.
    Equal,
    /// It is what it was; what the original is now was not to be had, or not asked.
    Unchanged,
    /// It is not there, or something else.
    Missing,
    /// It cannot be told.
    Unknown(Verdict),
}

impl Seen {
    const fn is_there(&self) -> bool {
        matches!(self, Self::Equal | Self::Unchanged)
    }
}

impl Looked {
    /// Whether everybody who was asked had an answer.
    pub(super) fn is_success(&self) -> bool {
        match &self.origin {
            Some(origin) => origin.is_ok(),
            None => self.copies.iter().all(|(_, seen)| seen.is_there()),
        }
    }
}

/// The copies that may be looked at, and the means to.
type Ways = Vec<(Target, Result<Arc<Access>, Verdict>)>;

/// Looks at those whose turn it is, and at everybody if one of them is not what is known.
pub(super) async fn look(
    accesses: Accesses,
    name: String,
    image: ImageReference,
    targets: Vec<Target>,
    turn: Turn,
) -> Looked {
    let mut ways: Ways = Vec::with_capacity(targets.len());
    for target in targets {
        let access = accesses.get(&target.mirror, target.index).await;
        ways.push((target, access));
    }
    let (origin, copies) = ask(&image, &ways, turn).await;
    let refused = |verdict: &Verdict| verdict.is_about_access || verdict.reason == FailureReason::PullSecretUnreadable;
    for (target, seen) in &copies {
        let is_refused = matches!(seen, Seen::Unknown(verdict) if refused(verdict))
            || matches!(&origin, Some(Err(verdict)) if refused(verdict));
        if is_refused {
            accesses.forget(&target.way().0).await;
        }
    }
    Looked {
        name,
        image,
        origin,
        copies,
    }
}

type Answers = (Option<Result<String, Verdict>>, Vec<(Target, Seen)>);

async fn ask(image: &ImageReference, ways: &Ways, turn: Turn) -> Answers {
    let mut origin = None;
    if let Turn::Some(few) = &turn {
        if few.original {
            origin = original(image, ways).await;
        }
        let is_as_known = match &origin {
            None => !few.original,
            Some(Ok(digest)) => *digest == few.digest,
            Some(Err(_)) => few.is_away,
        };
        if is_as_known {
            let copies = see(ways, origin.as_ref(), |target| few.copies.contains(&target.key())).await;
            if copies.iter().all(|(_, seen)| seen.is_there()) {
                return (origin, copies);
            }
        }
    }
    if origin.is_none() {
        origin = original(image, ways).await;
    }
    let is_spared = |target: &Target| match turn {
        Turn::Awake { is_away } => target.waits && !(is_away && matches!(origin, Some(Ok(_)))),
        Turn::Everybody | Turn::Some(_) => false,
    };
    let copies = see(ways, origin.as_ref(), |target| !is_spared(target)).await;
    (origin, copies)
}

/// Looks at copies, one after the other.
async fn see(
    ways: &Ways,
    origin: Option<&Result<String, Verdict>>,
    is_asked: impl Fn(&Target) -> bool,
) -> Vec<(Target, Seen)> {
    let mut copies = Vec::new();
    for (target, access) in ways.iter().filter(|(target, _)| is_asked(target)) {
        let (expected, is_known) = match origin {
            Some(Ok(digest)) => (Some(digest.clone()), true),
            _ => (target.digest.clone(), false),
        };
        let seen = match (access, expected) {
            (Err(verdict), _) => Seen::Unknown(verdict.clone()),
            (Ok(_), None) => Seen::Missing,
            (Ok(access), Some(digest)) => match access.copier.has(&target.reference, &digest).await {
                Ok(true) if is_known => Seen::Equal,
                Ok(true) => Seen::Unchanged,
                Ok(false) => Seen::Missing,
                Err(error) => Seen::Unknown(Verdict::from(&error)),
            },
        };
        copies.push((target.clone(), seen));
    }
    copies
}

/// Asks with the credentials of one Mirror after the other, as long as other credentials may help.
async fn original(image: &ImageReference, ways: &Ways) -> Option<Result<String, Verdict>> {
    let mut asked = BTreeMap::new();
    for (target, access) in ways {
        if let Ok(access) = access {
            asked.entry(target.way().0).or_insert(access);
        }
    }
    let mut failure: Option<Verdict> = None;
    for access in asked.into_values() {
        let told = match access.unknown(image) {
            Some(verdict) => Err(verdict.clone()),
            None => access
                .copier
                .original(image)
                .await
                .map_err(|error| Verdict::from(&error)),
        };
        match told {
            Ok(digest) => return Some(Ok(digest)),
            Err(mut verdict) => {
                let goes_on = verdict.is_about_access;
                if let Some(missing) = access.missing.clone().filter(|_| goes_on) {
                    verdict = missing;
                }
                failure = Some(verdict);
                if !goes_on {
                    break;
                }
            }
        }
    }
    failure.map(Err)
}

#[cfg(test)]
mod tests;
