//! What is said of images that were copied, or would be.

use std::time::Duration;

use coral_mirror::{Copied, Job, Outcome, Placement, Prepared, State, Step};
use serde_json::{Value, json};

use super::{failure::chain, tally::Counts};
use crate::human;

/// One line about an image that the destination has.
pub(crate) fn line(job: &Job, copied: &Copied) -> String {
    let what = match copied.state {
        State::Unchanged => "unchanged",
        State::Copied => "copied",
        State::CopiedForAllPlatforms => "copied for all platforms",
    };
    format!("{} {what} {}", name(job), copied.digest)
}

/// The copy, by the name that people gave it.
pub(crate) fn name(job: &Job) -> String {
    job.destination.to_string()
}

/// What happened, as one sentence.
pub(crate) fn summary(counts: Counts, elapsed: Duration) -> String {
    format!(
        "{} sent ({}), {} mounted, {} there already, {}",
        human::bytes(counts.moved),
        human::counted(usize::try_from(counts.sent).unwrap_or(usize::MAX), "blob"),
        counts.mounted,
        counts.present,
        human::elapsed(elapsed)
    )
}

/// What happened, for programs.
pub(crate) fn json(outcomes: &[Outcome], counts: Counts, elapsed: Duration) -> Value {
    let image = |outcome: &Outcome| match &outcome.result {
        Ok(Copied { digest, state, .. }) => json!({
            "source": outcome.job.source.to_string(),
            "destination": name(&outcome.job),
            "digest": digest,
            "state": match state {
                State::Unchanged => "Unchanged",
                State::Copied => "Copied",
                State::CopiedForAllPlatforms => "CopiedForAllPlatforms",
            },
        }),
        Err(error) => failed(&outcome.job, error),
    };
    json!({
        "images": outcomes.iter().map(image).collect::<Vec<_>>(),
        "blobs": {"sent": counts.sent, "mounted": counts.mounted, "present": counts.present},
        "sentBytes": counts.moved,
        "seconds": elapsed.as_secs_f64(),
    })
}

fn failed(job: &Job, error: &coral_mirror::Error) -> Value {
    json!({
        "source": job.source.to_string(),
        "destination": name(job),
        "state": "Failed",
        "message": chain(error),
    })
}

/// What would be done, one line an image.
pub(crate) fn planned_lines(prepared: &Prepared) -> Vec<String> {
    prepared
        .images()
        .filter_map(|(job, known)| {
            let (digest, is_there) = known.ok()?;
            let what = if is_there { "unchanged" } else { "would be copied" };
            Some(format!("{} {what} {digest}", name(job)))
        })
        .collect()
}

/// What would be sent, as one sentence.
pub(crate) fn planned_summary(prepared: &Prepared) -> String {
    let (sent, mounted, present) = steps(prepared);
    format!(
        "{} would be sent ({}), {mounted} mounted, {present} there already (dry run)",
        human::bytes(prepared.bytes_to_send()),
        human::counted(sent, "blob")
    )
}

/// What would be done, for programs.
pub(crate) fn planned_json(prepared: &Prepared) -> Value {
    let image = |(job, known): (&Job, Result<(&str, bool), &coral_mirror::Error>)| match known {
        Ok((digest, is_there)) => json!({
            "source": job.source.to_string(),
            "destination": name(job),
            "digest": digest,
            "state": if is_there { "Unchanged" } else { "Planned" },
        }),
        Err(error) => failed(job, error),
    };
    let (sent, mounted, present) = steps(prepared);
    json!({
        "images": prepared.images().map(image).collect::<Vec<_>>(),
        "blobs": {"sent": sent, "mounted": mounted, "present": present},
        "sentBytes": prepared.bytes_to_send(),
    })
}

/// Blobs to send, to mount, and that are there.
fn steps(prepared: &Prepared) -> (usize, usize, usize) {
    let count = |is_one: fn(&Placement) -> bool| prepared.placements().iter().filter(|one| is_one(one)).count();
    (
        count(|placement| *placement.step() == Step::Send),
        count(|placement| matches!(placement.step(), Step::Mount { .. })),
        count(|placement| *placement.step() == Step::Present),
    )
}
