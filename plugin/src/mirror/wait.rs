//! Waits until every registry of a Mirror has every image.

use std::time::{Duration, Instant};

use coral_api::{
    Mirror,
    conditions::{self, READY, STALLED},
};
use kube::{Api, ResourceExt as _};
use tokio::time::sleep;

use super::{Error, overview};
use crate::{client::Cluster, human, printer::Printer};

/// Pause between two looks. One person does not overrun a server.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A controller that is there acts within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// How it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Verdict {
    /// The controller has not looked at what was applied.
    Unseen,
    /// So many of so many images are copied.
    Waiting(String),
    Ready(String),
    /// Nothing will change without help; the controller says why.
    Stalled(String),
}

/// Judges a Mirror by the status of this generation, or a newer one.
fn judge(mirror: &Mirror, generation: i64) -> Verdict {
    let Some(status) = &mirror.status else {
        return Verdict::Unseen;
    };
    if status.observed_generation.is_none_or(|observed| observed < generation) {
        return Verdict::Unseen;
    }
    let counts = status.images;
    let progress = format!("{} of {} images are copied", counts.copied, counts.desired);
    if conditions::is_true(&status.conditions, READY) {
        return Verdict::Ready(progress);
    }
    let stalled = status.conditions.iter().find(|condition| condition.type_ == STALLED);
    match stalled.filter(|condition| condition.status == "True") {
        Some(condition) => Verdict::Stalled(condition.message.clone()),
        None => Verdict::Waiting(progress),
    }
}

/// Waits for a Mirror as it was applied. Without a timeout there is no end to it.
pub(crate) async fn until_ready(
    cluster: &Cluster,
    applied: &Mirror,
    timeout: Option<Duration>,
    printer: &Printer,
) -> Result<(), crate::error::Error> {
    let end = timeout.unwrap_or(human::YEAR);
    tokio::select! {
        result = look(cluster, applied, end, printer) => result,
        result = tokio::signal::ctrl_c() => {
            result.map_err(crate::error::Error::Runtime)?;
            Err(Error::Interrupted { name: applied.name_any() }.into())
        }
    }
}

async fn look(
    cluster: &Cluster,
    applied: &Mirror,
    end: Duration,
    printer: &Printer,
) -> Result<(), crate::error::Error> {
    let name = applied.name_any();
    let generation = applied.metadata.generation.unwrap_or_default();
    let began = Instant::now();
    let (mut told, mut is_patient) = (String::new(), true);
    loop {
        let api = |client| Api::<Mirror>::all(client);
        let mirror = cluster.request(async |client| api(client).get(&name).await).await?;
        let waiting = match judge(&mirror, generation) {
            Verdict::Ready(progress) => {
                printer.note(format_args!(
                    "mirror {name} is ready: {progress}, {}",
                    human::elapsed(began.elapsed())
                ));
                return Ok(());
            }
            Verdict::Stalled(message) => {
                let failures = overview::failures_of(&mirror);
                return Err(Error::Stalled {
                    name,
                    why: if failures.is_empty() { message } else { failures },
                }
                .into());
            }
            Verdict::Waiting(progress) => progress,
            Verdict::Unseen => {
                if is_patient && began.elapsed() > PATIENCE {
                    is_patient = false;
                    printer.warning(format_args!("nobody has looked at mirror {name} yet; waiting on"));
                    printer.hint(super::UNSEEN_HINT);
                }
                "nobody has looked at it".to_owned()
            }
        };
        if began.elapsed() > end {
            return Err(Error::TimedOut {
                name,
                after: end,
                waiting,
            }
            .into());
        }
        if waiting != told {
            printer.note(format_args!("mirror {name}: {waiting}"));
            told = waiting;
        }
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mirror(status: &Value) -> Mirror {
        serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1", "kind": "Mirror", "metadata": {"name": "web"},
            "spec": {"destinations": [{"registry": "r.lan"}], "images": ["a"]}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn only_the_status_of_what_was_applied_counts() {
        let condition = |kind: &str, status: &str, message: &str| {
            json!({"type": kind, "status": status, "reason": "R", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let images = json!({"desired": 3, "copied": 2, "copying": 1, "failed": 0});
        let progress = || "2 of 3 images are copied".to_owned();
        for (observed, conditions, expected) in [
            (json!(1), json!([condition("Ready", "True", "")]), Verdict::Unseen),
            (json!(null), json!([]), Verdict::Unseen),
            (json!(2), json!([]), Verdict::Waiting(progress())),
            (
                json!(2),
                json!([condition("Ready", "True", "")]),
                Verdict::Ready(progress()),
            ),
            (
                json!(3),
                json!([condition("Stalled", "False", "")]),
                Verdict::Waiting(progress()),
            ),
            (
                json!(2),
                json!([
                    condition("Ready", "False", ""),
                    condition("Stalled", "True", "no credentials")
                ]),
                Verdict::Stalled("no credentials".to_owned()),
            ),
        ] {
            let status = json!({"observedGeneration": observed, "conditions": conditions, "images": images});
            assert_eq!(judge(&mirror(&status), 2), expected, "{status}");
        }
        assert_eq!(judge(&mirror(&json!(null)), 1), Verdict::Unseen);
    }
}
