//! Whether new pods use a copy of an image, and why.
//!
//! The last word is [`MirroredImage::replacement`], which the webhook asks, too; the conditions here say which part of it holds.

use coral_api::{
    ImageReference, Mirror, MirroredImage,
    mirror::Rewrite,
    mirrored_image::{CopyState, CopyStatus, OriginState},
};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::overview::{copy_state, familiar, origin_state};
use crate::{
    human,
    table::{Table, Text, Tone},
};

/// Mirrors that are named before the rest is counted.
const MIRRORS_NAMED: usize = 5;

/// What is known.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) image: ImageReference,
    /// The registration by which the API server sends new pods to the webhook. `None` if that cannot be told.
    pub(crate) registration: Option<Registration>,
    /// All Mirrors. `None` if that cannot be told.
    pub(crate) mirrors: Option<Vec<Mirror>>,
    pub(crate) mirrored: Option<MirroredImage>,
}

/// Whether the API server asks the webhook about new pods.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Registration {
    /// By the configuration of this name.
    There(String),
    Missing,
}

/// One condition for a pod to use a copy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Condition {
    what: &'static str,
    /// `None` if that cannot be told.
    holds: Option<bool>,
    details: String,
}

/// All conditions, in the order in which they matter.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    image: String,
    pub(crate) conditions: Vec<Condition>,
    /// What a pod names instead, if all of the conditions hold.
    replacement: Option<String>,
}

/// Judges.
pub(crate) fn judge(facts: &Facts, now: Timestamp) -> Verdict {
    let mirrored = facts.mirrored.as_ref();
    let mut conditions = vec![registered(facts.registration.as_ref()), wanted(facts)];
    if let Some(mirrored) = mirrored {
        conditions.extend([rewritten(mirrored), copied(mirrored)]);
        if mirrored.spec.rewrite == Rewrite::OnFailure {
            conditions.push(gone(mirrored, now));
        }
    }
    let is_refused = conditions.iter().any(|condition| condition.holds == Some(false));
    let replacement = mirrored.and_then(MirroredImage::replacement);
    Verdict {
        image: facts.image.familiar(),
        conditions,
        replacement: replacement
            .filter(|_| !is_refused)
            .map(|copy| copy.node_reference.clone()),
    }
}

fn registered(registration: Option<&Registration>) -> Condition {
    let (holds, details) = match registration {
        Some(Registration::There(name)) => (Some(true), format!("MutatingWebhookConfiguration {name}")),
        Some(Registration::Missing) => (
            Some(false),
            "no webhook is registered for it: install the component mirror".to_owned(),
        ),
        None => (None, "you may not read MutatingWebhookConfigurations".to_owned()),
    };
    Condition {
        what: "the webhook sees new pods",
        holds,
        details,
    }
}

fn wanted(facts: &Facts) -> Condition {
    let names = |mirrors: &[String]| human::some_of(mirrors, MIRRORS_NAMED);
    let of = |mirrors: &[&Mirror]| names(&mirrors.iter().map(|mirror| mirror.name_any()).collect::<Vec<_>>());
    let requested_by = facts.mirrored.as_ref().map(|mirrored| &mirrored.spec.requested_by);
    let (holds, details) = match (requested_by, &facts.mirrors) {
        (Some(mirrors), _) if !mirrors.is_empty() => (true, names(mirrors)),
        (_, None) => (false, "no Mirror does".to_owned()),
        (_, Some(mirrors)) => {
            let name_it: Vec<&Mirror> = mirrors
                .iter()
                .filter(|mirror| names_image(mirror, &facts.image))
                .collect();
            let discover: Vec<&Mirror> = mirrors.iter().filter(|mirror| mirror.spec.discover.is_some()).collect();
            let why = if mirrors.is_empty() {
                "there is no Mirror".to_owned()
            } else if !name_it.is_empty() {
                format!(
                    "{} names it, but nobody has acted on that: does Coral's mirror controller run?",
                    of(&name_it)
                )
            } else if !discover.is_empty() {
                format!(
                    "none names it, and {} found nothing that uses it, or leaves it out",
                    of(&discover)
                )
            } else {
                format!("none of {} names it", human::counted(mirrors.len(), "Mirror"))
            };
            (false, why)
        }
    };
    Condition {
        what: "a Mirror wants copies",
        holds: Some(holds),
        details,
    }
}

fn names_image(mirror: &Mirror, image: &ImageReference) -> bool {
    let mut images = mirror.spec.images.iter();
    images.any(|named| named.parse::<ImageReference>().is_ok_and(|named| named == *image))
}

fn rewritten(mirrored: &MirroredImage) -> Condition {
    let details = match mirrored.spec.rewrite {
        Rewrite::Never => "Never, in all of them",
        Rewrite::OnFailure => "OnFailure",
        Rewrite::Always => "Always",
    };
    Condition {
        what: "spec.rewrite allows it",
        holds: Some(mirrored.spec.rewrite != Rewrite::Never),
        details: details.to_owned(),
    }
}

fn copied(mirrored: &MirroredImage) -> Condition {
    let copies = mirrored
        .status
        .as_ref()
        .map_or(&[][..], |status| status.destinations.as_slice());
    let is_there = |copy: &&CopyStatus| copy.state == CopyState::Present && !copy.node_reference.is_empty();
    let details = match (copies.iter().find(is_there), copies.first()) {
        (Some(copy), _) => match copy_state(copy) {
            "" => copy.node_reference.clone(),
            state => format!("{} ({state})", copy.node_reference),
        },
        (None, Some(copy)) => {
            let why = copy.failure.as_ref().map_or_else(String::new, |failure| {
                let line = failure.message.lines().next().unwrap_or_default();
                format!(": {}: {line}", failure.reason)
            });
            let state = match copy.state {
                CopyState::Present => "nodes have no name for it",
                _ => copy_state(copy),
            };
            format!("{}: {state}{why}", copy.reference)
        }
        (None, None) => "none has been begun".to_owned(),
    };
    Condition {
        what: "a copy is there",
        holds: Some(copies.iter().any(|copy| is_there(&copy))),
        details,
    }
}

fn gone(mirrored: &MirroredImage, now: Timestamp) -> Condition {
    let origin = mirrored.status.as_ref().and_then(|status| status.origin.as_ref());
    let (holds, details) = match origin {
        None => (false, "nobody has looked at it yet".to_owned()),
        Some(origin) => (
            origin.state != OriginState::Available,
            format!(
                "{}, {} ago",
                origin_state(origin.state),
                human::age(origin.checked_at.0, now)
            ),
        ),
    };
    Condition {
        what: "the original is not to be had",
        holds: Some(holds),
        details,
    }
}

impl Verdict {
    /// The conditions, one a row.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(["CONDITION", "HOLDS", "DETAILS"]);
        for condition in &self.conditions {
            let (text, tone) = match condition.holds {
                Some(true) => ("yes", Tone::Good),
                Some(false) => ("no", Tone::Busy),
                None => ("unknown", Tone::Plain),
            };
            let holds = Text {
                text: text.to_owned(),
                tone,
            };
            table
                .rows
                .push(vec![condition.what.into(), holds, condition.details.as_str().into()]);
        }
        table
    }

    /// What follows, as one sentence.
    pub(crate) fn sentence(&self) -> String {
        let image = familiar(&self.image);
        match (&self.replacement, self.decisive()) {
            (Some(replacement), _) => format!("new pods that name {image} use {replacement}"),
            (None, Some(condition)) => {
                format!(
                    "new pods use {image} itself: it is not true that {} ({})",
                    condition.what, condition.details
                )
            }
            (None, None) => format!("new pods use {image} itself"),
        }
    }

    /// The first condition that does not hold.
    fn decisive(&self) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.holds == Some(false))
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let conditions = self.conditions.iter().map(
            |condition| json!({"condition": condition.what, "holds": condition.holds, "details": condition.details}),
        );
        json!({
            "image": self.image,
            "rewritten": self.replacement.is_some(),
            "replacement": self.replacement,
            "conditions": conditions.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrored(rewrite: &str, copy: &str, origin: &str) -> MirroredImage {
        serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "MirroredImage",
            "metadata": {"name": "a"},
            "spec": {"image": "docker.io/library/nginx:1.29", "requestedBy": ["all"], "rewrite": rewrite},
            "status": {
                "destinations": [{"mirror": "all", "reference": "r.lan/nginx:1.29", "nodeReference": "n.lan/nginx:1.29", "state": copy}],
                "origin": {"state": origin, "checkedAt": "2026-01-01T00:00:00Z"},
            },
        }))
        .unwrap()
    }

    fn mirror(images: &[&str], discover: bool) -> Mirror {
        let mut spec = json!({"images": images, "destinations": [{"registry": "r.lan"}]});
        if discover {
            spec["discover"] = json!({});
        }
        serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1", "kind": "Mirror", "metadata": {"name": "web"}, "spec": spec,
        }))
        .unwrap()
    }

    fn facts(mirrored: Option<MirroredImage>) -> Facts {
        Facts {
            image: "nginx:1.29".parse().unwrap(),
            registration: Some(Registration::There("coral-webhook".to_owned())),
            mirrors: Some(Vec::new()),
            mirrored,
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:03:20Z".parse().unwrap()
    }

    #[test]
    fn a_pod_is_rewritten_if_and_only_if_every_condition_holds() {
        for rewrite in ["Never", "OnFailure", "Always"] {
            for copy in ["Pending", "Copying", "Present", "Failed"] {
                for origin in ["Available", "NotFound", "Unauthorized", "RateLimited", "Unreachable"] {
                    let mirrored = mirrored(rewrite, copy, origin);
                    let expected = mirrored.replacement().is_some();
                    let verdict = judge(&facts(Some(mirrored)), now());
                    let case = format!("{rewrite} {copy} {origin}: {verdict:?}");
                    assert_eq!(verdict.replacement.is_some(), expected, "{case}");
                    assert_eq!(verdict.decisive().is_none(), expected, "{case}");
                }
            }
        }
    }

    #[test]
    fn without_a_registration_nothing_is_rewritten() {
        let known = facts(Some(mirrored("Always", "Present", "Available")));
        let unknown = Facts {
            registration: None,
            ..known.clone()
        };
        let missing = Facts {
            registration: Some(Registration::Missing),
            ..known.clone()
        };
        let rewritten = |facts: &Facts| judge(facts, now()).replacement.is_some();
        assert!(rewritten(&known) && rewritten(&unknown) && !rewritten(&missing));
    }

    #[test]
    fn the_first_condition_that_does_not_hold_is_told() {
        let verdict = judge(&facts(Some(mirrored("OnFailure", "Present", "Available"))), now());
        insta::assert_snapshot!(verdict.table().render(true, false), @"
        CONDITION                       HOLDS   DETAILS
        the webhook sees new pods       yes     MutatingWebhookConfiguration coral-webhook
        a Mirror wants copies           yes     all
        spec.rewrite allows it          yes     OnFailure
        a copy is there                 yes     n.lan/nginx:1.29
        the original is not to be had   no      available, 3m20s ago
        ");
        insta::assert_snapshot!(
            verdict.sentence(),
            @"new pods use nginx:1.29 itself: it is not true that the original is not to be had (available, 3m20s ago)"
        );
        let verdict = judge(&facts(Some(mirrored("OnFailure", "Present", "Unreachable"))), now());
        assert_eq!(verdict.sentence(), "new pods that name nginx:1.29 use n.lan/nginx:1.29");
    }

    #[test]
    fn why_nobody_copies_it_depends_on_the_mirrors() {
        for (mirrors, expected) in [
            (Some(vec![]), "there is no Mirror"),
            (
                Some(vec![mirror(&["docker.io/library/nginx:1.29"], false)]),
                "web names it, but nobody has acted on that",
            ),
            (Some(vec![mirror(&[], true)]), "web found nothing that uses it"),
            (Some(vec![mirror(&["redis:8"], false)]), "none of 1 Mirror names it"),
            (None, "no Mirror does"),
        ] {
            let verdict = judge(&Facts { mirrors, ..facts(None) }, now());
            let sentence = verdict.sentence();
            assert!(sentence.contains(expected), "{expected}: {sentence}");
        }
    }
}
