//! Copies of images as a table, and what went wrong with them.

use std::{collections::BTreeMap, fmt::Write as _};

use coral_api::{
    FailureReason, ImageReference, Mirror, MirroredImage,
    mirror::CopyFailure,
    mirrored_image::{CopyState, CopyStatus, MirroredImageStatus, OriginState},
};
use jiff::Timestamp;

use super::advice::advice;
use crate::{
    human,
    table::{Table, Text, Tone},
};

/// Hex digits of a digest that tell it from others.
const SHORT_DIGEST: usize = 12;
/// Images that are named before the rest is counted.
const IMAGES_NAMED: usize = 5;
/// Columns of a terminal that the name of an image has at least, whatever does not fit then.
const LEAST_NAME: usize = 16;
/// What stands where there is nothing to say.
const NOTHING: &str = "-";

/// The images, one a row.
pub(crate) fn table(images: &[MirroredImage], wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["IMAGE", "DIGEST", "DESTINATIONS", "ORIGIN", "USED BY", "AGE"];
    if wide {
        header.extend(["REWRITE", "MIRRORS", "COPIES"]);
    }
    let mut table = Table::new(header);
    for image in images {
        let status = image.status.clone().unwrap_or_default();
        let mut row = vec![
            familiar(&image.spec.image).into(),
            digest(&status, wide).into(),
            destinations(&status),
            origin(&status),
            users(&status, wide, now).into(),
            age(image, now).into(),
        ];
        if wide {
            let copies: Vec<&str> = status.destinations.iter().map(|copy| copy.reference.as_str()).collect();
            let or_nothing = |text: String| if text.is_empty() { NOTHING.to_owned() } else { text };
            row.extend([
                format!("{:?}", image.spec.rewrite).into(),
                or_nothing(image.spec.requested_by.join(",")).into(),
                or_nothing(copies.join(",")).into(),
            ]);
        }
        table.rows.push(row);
    }
    table
}

/// The images, one a row, with as much of each as fits into so many columns: where lines are broken nobody finds anything.
pub(crate) fn fitted(images: &[MirroredImage], width: Option<usize>, now: Timestamp) -> Table {
    let mut table = table(images, false, now);
    let Some(width) = width.filter(|width| table.width() > *width) else {
        return table;
    };
    // In which registries images are is much the same for all of them.
    for (row, image) in table.rows.iter_mut().zip(images) {
        let copies = image.status.iter().flat_map(|status| &status.destinations);
        row[2].text = counted(&copies.collect::<Vec<_>>());
    }
    if table.width() > width {
        table.header.remove(1);
        for row in &mut table.rows {
            row.remove(1);
        }
    }
    let excess = table.width().saturating_sub(width);
    let longest = table.rows.iter().map(|row| row[0].text.chars().count()).max();
    if let Some(longest) = longest.filter(|_| excess > 0) {
        let room = longest.saturating_sub(excess).max(LEAST_NAME);
        for row in &mut table.rows {
            row[0].text = end_of(&row[0].text, room);
        }
    }
    table
}

/// `2 of 3 (retrying)`
fn counted(copies: &[&CopyStatus]) -> String {
    let there = copies.iter().filter(|copy| copy_state(copy).is_empty()).count();
    let states = copies.iter().map(|copy| copy_state(copy));
    match states.filter(|state| !state.is_empty()).max() {
        _ if copies.is_empty() => NOTHING.to_owned(),
        None => format!("{there} of {there}"),
        Some(state) => format!("{there} of {} ({state})", copies.len()),
    }
}

/// The end of a name, where images differ.
fn end_of(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let kept = name.chars().skip(length + 1 - room);
    std::iter::once('…').chain(kept).collect()
}

/// The name that people know.
pub(crate) fn familiar(image: &str) -> String {
    image
        .parse()
        .map_or_else(|_| image.to_owned(), |reference: ImageReference| reference.familiar())
}

/// Whether something about the image failed, also where it is tried again.
pub(crate) fn has_failed(image: &MirroredImage) -> bool {
    let status = image.status.as_ref();
    status.is_some_and(|status| {
        let is_gone = status
            .origin
            .as_ref()
            .is_some_and(|origin| origin.state != OriginState::Available);
        is_gone || status.destinations.iter().any(|copy| copy.failure.is_some())
    })
}

fn digest(status: &MirroredImageStatus, wide: bool) -> String {
    match &status.digest {
        None => NOTHING.to_owned(),
        Some(digest) if wide => digest.clone(),
        Some(digest) => {
            let (_, hex) = digest.split_once(':').unwrap_or(("", digest));
            hex.chars().take(SHORT_DIGEST).collect()
        }
    }
}

/// The registries that have it, and how it stands with the others.
fn destinations(status: &MirroredImageStatus) -> Text {
    if status.destinations.is_empty() {
        return NOTHING.into();
    }
    let one = |copy: &CopyStatus| {
        let registry = registry(&copy.reference);
        match copy_state(copy) {
            "" => registry.to_owned(),
            state => format!("{registry} ({state})"),
        }
    };
    // Two Mirrors may have copies in one registry.
    let mut texts: Vec<String> = Vec::with_capacity(status.destinations.len());
    for text in status.destinations.iter().map(one) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let tone = |copy: &CopyStatus| match (copy.state, &copy.failure) {
        (CopyState::Failed, _) => Tone::Bad,
        (CopyState::Present, None) => Tone::Good,
        _ => Tone::Busy,
    };
    let tones: Vec<Tone> = status.destinations.iter().map(tone).collect();
    let worst = [Tone::Bad, Tone::Busy]
        .into_iter()
        .find(|tone| tones.contains(tone))
        .unwrap_or(Tone::Good);
    Text {
        text: texts.join(","),
        tone: worst,
    }
}

/// What there is to say beyond that it is there.
pub(crate) fn copy_state(copy: &CopyStatus) -> &'static str {
    match (copy.state, &copy.failure) {
        (CopyState::Present, None) => "",
        (CopyState::Present, Some(_)) => "older",
        (CopyState::Pending, None) => "waiting",
        (CopyState::Copying, _) => "copying",
        (CopyState::Pending, Some(_)) => "retrying",
        (CopyState::Failed, Some(failure)) if failure.next_attempt_time.is_some() => "retrying",
        (CopyState::Failed, _) => "failed",
    }
}

fn origin(status: &MirroredImageStatus) -> Text {
    let Some(origin) = &status.origin else {
        return NOTHING.into();
    };
    Text {
        text: origin_state(origin.state).to_owned(),
        tone: if origin.state == OriginState::Available {
            Tone::Good
        } else {
            Tone::Bad
        },
    }
}

/// The state of an original in words.
pub(crate) fn origin_state(state: OriginState) -> &'static str {
    match state {
        OriginState::Available => "available",
        OriginState::NotFound => "not found",
        OriginState::Unauthorized => "unauthorized",
        OriginState::RateLimited => "rate limited",
        OriginState::Unreachable => "unreachable",
    }
}

fn users(status: &MirroredImageStatus, wide: bool, now: Timestamp) -> String {
    match (&status.unused_since, status.used_by.count) {
        (Some(since), _) => format!("nobody for {}", human::age(since.0, now)),
        (None, 0) => NOTHING.to_owned(),
        (None, count) if wide && !status.used_by.sample.is_empty() => {
            let more = usize::try_from(count).unwrap_or_default();
            let named = status.used_by.sample.join(", ");
            match more.saturating_sub(status.used_by.sample.len()) {
                0 => named,
                more => format!("{named} and {} more", human::count(more)),
            }
        }
        (None, count) => count.to_string(),
    }
}

fn age(image: &MirroredImage, now: Timestamp) -> String {
    let created = image.metadata.creation_timestamp.as_ref();
    created.map_or_else(|| NOTHING.to_owned(), |created| human::age(created.0, now))
}

/// Host, with the port if there is one.
fn registry(reference: &str) -> &str {
    reference.split('/').next().unwrap_or_default()
}

/// One reason at one registry, and the images that it keeps from being there.
struct Group {
    images: Vec<String>,
    first: CopyFailure,
}

/// What failed, put together by registry and reason, with what to do about it.
pub(crate) fn failures(images: &[MirroredImage], now: Timestamp) -> String {
    let all = images.iter().flat_map(|image| {
        let copies = image.status.iter().flat_map(|status| &status.destinations);
        copies.filter_map(|copy| {
            let failure = copy.failure.clone()?;
            Some((
                familiar(&image.spec.image),
                registry(&copy.reference).to_owned(),
                failure,
            ))
        })
    });
    let mut text = render(all, Some(now));
    for image in images {
        let Some(origin) = image.status.as_ref().and_then(|status| status.origin.as_ref()) else {
            continue;
        };
        if origin.state != OriginState::Available {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{}: the original was {} {} ago",
                familiar(&image.spec.image),
                match origin.state {
                    OriginState::Unauthorized => "refused",
                    state => origin_state(state),
                },
                human::age(origin.checked_at.0, now)
            );
            if !origin.message.is_empty() {
                let _ = writeln!(text, "  {}", origin.message);
            }
        }
    }
    text
}

/// What failed of one Mirror, from its own status.
pub(crate) fn failures_of(mirror: &Mirror) -> String {
    let failures = mirror.status.iter().flat_map(|status| &status.failures);
    let all = failures.map(|failure| {
        (
            familiar(&failure.image),
            failure.registry.clone(),
            failure.failure.clone(),
        )
    });
    render(all, None).trim_end().to_owned()
}

fn render(failures: impl Iterator<Item = (String, String, CopyFailure)>, now: Option<Timestamp>) -> String {
    let mut groups: BTreeMap<(String, FailureReason), Group> = BTreeMap::new();
    for (image, registry, failure) in failures {
        groups
            .entry((registry, failure.reason))
            .or_insert_with(|| Group {
                images: Vec::new(),
                first: failure,
            })
            .images
            .push(image);
    }
    let mut text = String::new();
    for ((registry, reason), Group { images, first }) in groups {
        let place = if registry.is_empty() {
            String::new()
        } else {
            format!(" to {registry}")
        };
        let _ = writeln!(
            text,
            "{} not copied{place}: {reason}",
            human::some_of(&images, IMAGES_NAMED)
        );
        for line in first.message.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(text, "  {}", line.trim_end());
        }
        if let (Some(next), Some(now)) = (&first.next_attempt_time, now) {
            let attempts = usize::try_from(first.attempts).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {}, the next in {}",
                human::counted(attempts, "attempt"),
                human::duration(human::between(now, next.0))
            );
        }
        let image = images.first().map(String::as_str).unwrap_or_default();
        let _ = writeln!(text, "  hint: {}", advice(reason, image, &registry));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn image(name: &str, status: &Value) -> MirroredImage {
        serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "MirroredImage",
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"image": name, "requestedBy": ["all"], "rewrite": "OnFailure"},
            "status": status,
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T02:00:00Z".parse().unwrap()
    }

    fn images() -> Vec<MirroredImage> {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let failure = json!({"reason": "Unauthorized", "message": "denied", "attempts": 3, "nextAttemptTime": "2026-01-01T02:05:00Z"});
        let copy = |registry: &str, state: &str| json!({"mirror": "all", "reference": format!("{registry}/m/x:1"), "nodeReference": format!("{registry}/m/x:1"), "state": state});
        let mut failed = copy("s.lan:5000", "Failed");
        failed["failure"] = failure;
        vec![
            image(
                "docker.io/library/nginx:1.29",
                &json!({"digest": digest, "destinations": [copy("r.lan", "Present"), failed],
                    "origin": {"state": "Available", "checkedAt": "2026-01-01T01:00:00Z"},
                    "usedBy": {"count": 12, "sample": ["Pod shop/web-1"]}}),
            ),
            image(
                "ghcr.io/acme/app:v7",
                &json!({"digest": digest, "destinations": [copy("r.lan", "Present")],
                    "origin": {"state": "Unreachable", "checkedAt": "2026-01-01T01:00:00Z", "message": "connection refused"},
                    "usedBy": {"count": 0}, "unusedSince": "2026-01-01T01:30:00Z"}),
            ),
            image("ghcr.io/acme/new:v1", &json!(null)),
        ]
    }

    #[test]
    fn images_stand_in_rows() {
        insta::assert_snapshot!(table(&images(), false, now()).render(true, false), @"
        IMAGE                 DIGEST         DESTINATIONS                  ORIGIN        USED BY          AGE
        nginx:1.29            0123456789ab   r.lan,s.lan:5000 (retrying)   available     12               120m
        ghcr.io/acme/app:v7   0123456789ab   r.lan                         unreachable   nobody for 30m   120m
        ghcr.io/acme/new:v1   -              -                             -             -                120m
        ");
        insta::assert_snapshot!(
            table(&images()[..1], true, now()).render(false, false),
            @"nginx:1.29   sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef   r.lan,s.lan:5000 (retrying)   available   Pod shop/web-1 and 11 more   120m   OnFailure   all   r.lan/m/x:1,s.lan:5000/m/x:1"
        );
    }

    #[test]
    fn a_registry_that_two_mirrors_name_stands_once() {
        let copy = |mirror: &str, state: &str| json!({"mirror": mirror, "reference": format!("r.lan/{mirror}/x:1"), "nodeReference": "r.lan/x:1", "state": state});
        let cases = [
            ([copy("all", "Present"), copy("web", "Present")], "r.lan"),
            (
                [copy("all", "Present"), copy("web", "Copying")],
                "r.lan,r.lan (copying)",
            ),
        ];
        for (copies, expected) in cases {
            let image = image("x:1", &json!({"destinations": copies}));
            assert_eq!(destinations(image.status.as_ref().unwrap()).text, expected);
        }
    }

    #[test]
    fn rows_are_not_longer_than_a_terminal_is_wide() {
        let shown = |width| fitted(&images(), width, now()).render(true, false);
        let all = table(&images(), false, now()).render(true, false);
        assert_eq!((shown(None), shown(Some(102))), (all.clone(), all));
        insta::assert_snapshot!(shown(Some(92)), @"
        IMAGE                 DIGEST         DESTINATIONS        ORIGIN        USED BY          AGE
        nginx:1.29            0123456789ab   1 of 2 (retrying)   available     12               120m
        ghcr.io/acme/app:v7   0123456789ab   1 of 1              unreachable   nobody for 30m   120m
        ghcr.io/acme/new:v1   -              -                   -             -                120m
        ");
        insta::assert_snapshot!(shown(Some(74)), @"
        IMAGE              DESTINATIONS        ORIGIN        USED BY          AGE
        nginx:1.29         1 of 2 (retrying)   available     12               120m
        ….io/acme/app:v7   1 of 1              unreachable   nobody for 30m   120m
        ….io/acme/new:v1   -                   -             -                120m
        ");
        for width in [74, 80, 92, 101] {
            let lines = shown(Some(width));
            assert!(lines.lines().all(|line| line.chars().count() <= width), "{lines}");
        }
    }

    #[test]
    fn failures_say_what_to_do() {
        insta::assert_snapshot!(failures(&images(), now()), @"
        nginx:1.29 not copied to s.lan:5000: Unauthorized
          denied
          3 attempts, the next in 5m
          hint: the originals' credentials are spec.sourceSecrets of the Mirror, which `kubectl coral allow-secret --mirror` lets Coral read; those of the registry of the copies are secretName of its destination, a Secret in Coral's namespace
        ghcr.io/acme/app:v7: the original was unreachable 60m ago
          connection refused
        ");
        let failed: Vec<bool> = images().iter().map(has_failed).collect();
        assert_eq!(failed, [true, true, false]);
    }
}
