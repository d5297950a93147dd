//! What the API server has of the node's status, and when it is to get a newer one.

use std::time::Duration;

use coral_api::{NodeImages, NodeImagesStatus, keys};
use coral_runtime::{SetBack, spread};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    report::{self, Pace},
    situation::Situation,
};

/// Pause before a status is sent again that was just sent, and the first one after a write that failed.
const AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// The pauses after writes that failed double up to this. An API server that comes back hears of 5,000 nodes within 5 s of one another then.
const LONGEST_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server gave no answer in {} s", WRITE_TIMEOUT.as_secs())]
    Timeout,
}

/// What the API server has, as far as the agent knows, and what the agent sent.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The node's name: no two of them come back in step.
    node: String,
    /// The newest status that the API server is known to have, with its version.
    newest: Option<(u128, NodeImagesStatus)>,
    /// When the last write that succeeded began.
    last_write: Option<Timestamp>,
    /// What was sent last.
    sent: Option<NodeImagesStatus>,
    /// How often to write while images move.
    pace: Option<Pace>,
    /// A write failed: none is begun before this time.
    not_before: Option<Timestamp>,
    /// Writes that failed since the last that did not.
    failures: u32,
}

impl Ledger {
    /// The ledger of that node.
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            ..Self::default()
        }
    }

    /// Takes in a version of the object, unless a newer one is known: the watch and the answers to writes overtake each other.
    /// A status that somebody else changed, or that an earlier agent left, is written again when it differs.
    pub(crate) fn note(&mut self, object: Option<&NodeImages>) {
        let Some(object) = object else {
            self.newest = None;
            return;
        };
        // Resource versions can be compared as numbers (KEP-5504).
        let version = object.metadata.resource_version.as_ref();
        let version = version.and_then(|version| version.parse().ok()).unwrap_or(u128::MAX);
        if self.newest.as_ref().is_none_or(|(known, _)| *known <= version) {
            self.newest = Some((version, object.status.clone().unwrap_or_default()));
        }
    }

    /// The status that describes the situation.
    pub(crate) fn status(&self, situation: &Situation, now: Timestamp) -> NodeImagesStatus {
        report::status(situation, self.conditions(), now)
    }

    /// When the status is to be written; `None` when the API server has it. `moves` says whether the agent is at work on an image.
    pub(crate) fn due(&mut self, status: &NodeImagesStatus, moves: bool, now: Timestamp) -> Option<Timestamp> {
        let last_write = self.last_write.unwrap_or(Timestamp::UNIX_EPOCH);
        let moves = moves || report::moves(status, self.newest.as_ref().map(|(_, status)| status));
        self.pace = moves.then(|| self.pace.unwrap_or_else(|| Pace::new(now)));
        let written = self.newest.as_ref().map(|(_, status)| (last_write, status.clone()));
        let time = report::write_time(status, self.pace.as_ref(), written.as_ref(), now)?;
        // Where the API server has something else although just this was sent, somebody disagrees: no race with them.
        let was_just_sent = self.sent.as_ref() == Some(status);
        let again = was_just_sent.then(|| last_write + AGAIN);
        [Some(time), again, self.not_before].into_iter().flatten().max()
    }

    /// Takes in that this status is being sent.
    pub(crate) fn sending(&mut self, status: NodeImagesStatus) {
        self.sent = Some(status);
    }

    /// Takes in what came of the write that began at `began`.
    pub(crate) fn ended(&mut self, began: Timestamp, result: Result<Box<NodeImages>, WriteError>, now: Timestamp) {
        match result {
            Ok(object) => {
                self.last_write = Some(began);
                self.failures = 0;
                if let Some(pace) = &mut self.pace {
                    pace.wrote(began);
                }
                self.note(Some(&object));
            }
            Err(error) => {
                tracing::warn!(error = %error, "The status could not be written; it will be tried again");
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(now + pause(&self.node, self.failures));
            }
        }
    }

    /// The wall clock was set back: takes the times along.
    pub(crate) fn clock_set_back(&mut self, set_back: SetBack) {
        set_back.shift(&mut self.last_write);
        set_back.shift(&mut self.not_before);
        if let Some(pace) = &mut self.pace {
            pace.clock_set_back(set_back);
        }
    }

    /// The conditions so far: those of the API server or, while it has none, those that are on their way to it.
    fn conditions(&self) -> &[Condition] {
        let known = self.newest.as_ref().map(|(_, status)| status);
        let told = known.into_iter().chain(&self.sent);
        told.map(|status| &*status.conditions)
            .find(|conditions| !conditions.is_empty())
            .unwrap_or_default()
    }
}

/// The pause after that many writes failed in a row.
fn pause(node: &str, failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = AGAIN.saturating_mul(1 << doublings).min(LONGEST_AGAIN);
    spread(pause, &(node, failures))
}

/// Writes the status of a node, and returns the object as the API server then has it.
pub(crate) async fn write(
    api: &Api<NodeImages>,
    node: &str,
    status: &NodeImagesStatus,
) -> Result<Box<NodeImages>, WriteError> {
    let body = json!({
        "apiVersion": NodeImages::api_version(&()),
        "kind": NodeImages::kind(&()),
        "metadata": {"name": node},
        "status": status,
    });
    let parameters = PatchParams::apply(keys::AGENT_FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    let write = api.patch_status(node, &parameters, &patch);
    let object = tokio::time::timeout(WRITE_TIMEOUT, write)
        .await
        .map_err(|_| WriteError::Timeout)??;
    Ok(Box::new(object))
}

#[cfg(test)]
mod tests {
    use coral_api::NodeImagesSpec;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn object(version: &str, generation: i64) -> NodeImages {
        let mut object = NodeImages::new("node-1", NodeImagesSpec::default());
        object.metadata.resource_version = Some(version.to_owned());
        object.status = Some(status(generation));
        object
    }

    fn status(generation: i64) -> NodeImagesStatus {
        NodeImagesStatus {
            observed_generation: Some(generation),
            ..NodeImagesStatus::default()
        }
    }

    #[test]
    fn the_newest_version_counts_in_whatever_order_they_come() {
        let mut ledger = Ledger::default();
        ledger.note(Some(&object("10", 2)));
        ledger.ended(NOW, Ok(Box::new(object("9", 1))), NOW);
        assert_eq!(ledger.due(&status(2), false, NOW), None);
        assert!(ledger.due(&status(1), false, NOW).is_some());
        ledger.note(None);
        ledger.note(Some(&object("3", 1)));
        assert_eq!(ledger.due(&status(1), false, NOW), None);
    }

    #[test]
    fn a_contested_status_is_sent_again_but_not_in_a_race() {
        let mut ledger = Ledger::default();
        ledger.note(Some(&object("1", 0)));
        assert_eq!(ledger.due(&status(1), false, NOW), Some(NOW));
        ledger.sending(status(1));
        ledger.ended(NOW, Ok(Box::new(object("2", 1))), NOW);
        ledger.note(Some(&object("3", 7)));
        assert_eq!(ledger.due(&status(1), false, NOW), Some(NOW + AGAIN));
        assert_eq!(ledger.due(&status(2), false, NOW), Some(NOW));
    }

    #[test]
    fn conditions_hold_since_they_were_first_sent() {
        let mut ledger = Ledger::default();
        ledger.note(Some(&object("1", 0)));
        let situation = Situation::new("node-1".to_owned());
        let first = ledger.status(&situation, NOW);
        ledger.sending(first.clone());
        // The answer has not come yet.
        let second = ledger.status(&situation, NOW + SignedDuration::from_secs(5));
        assert!(!first.conditions.is_empty());
        assert_eq!(second.conditions, first.conditions);
    }

    #[test]
    fn work_is_told_after_a_while_and_its_end_at_once() {
        let mut ledger = Ledger::default();
        ledger.note(Some(&object("1", 0)));
        let later = |seconds| NOW + SignedDuration::from_secs(seconds);
        assert_eq!(ledger.due(&status(0), true, NOW), None);
        assert_eq!(ledger.due(&status(1), true, later(1)), Some(later(2)));
        assert_eq!(ledger.due(&status(1), false, later(1)), Some(later(1)));
        // What is begun then is work of its own.
        assert_eq!(ledger.due(&status(1), true, later(3)), Some(later(5)));
    }

    #[test]
    fn a_write_that_failed_is_tried_again_after_pauses_that_grow_until_one_succeeds() {
        let mut ledger = Ledger::new("node-1");
        ledger.note(Some(&object("1", 0)));
        let fail = |ledger: &mut Ledger| {
            ledger.ended(NOW, Err(WriteError::Timeout), NOW);
            ledger
                .due(&status(1), false, NOW)
                .unwrap()
                .duration_since(NOW)
                .as_secs_f64()
        };
        for seconds in [2.0, 4.0, 8.0, 10.0, 10.0] {
            let pause = fail(&mut ledger);
            assert!(
                (0.75 * seconds..=1.25 * seconds).contains(&pause),
                "{pause} is not about {seconds}"
            );
        }
        ledger.ended(NOW, Ok(Box::new(object("2", 0))), NOW);
        let pause = fail(&mut ledger);
        assert!((1.5..=2.5).contains(&pause), "{pause}");
    }

    #[test]
    fn nodes_do_not_come_back_in_step() {
        let mut pauses: Vec<SignedDuration> = (0..100).map(|node| pause(&format!("node-{node}"), 9)).collect();
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() > 80, "{}", pauses.len());
        assert!(pauses[pauses.len() - 1] - pauses[0] > SignedDuration::from_secs(4));
    }
}
