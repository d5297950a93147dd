//! What the conditions of a Prefetch say.

use coral_api::prefetch::NodeFailure;

use super::Survey;
use crate::plan::Wish;

/// What the three conditions say.
pub(super) struct Verdict {
    pub(super) is_ready: bool,
    pub(super) is_reconciling: bool,
    pub(super) is_stalled: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What the conditions say, all with one reason and one sentence.
pub(super) fn verdict(wish: &Wish<'_>, survey: &Survey<'_>, failures: &[NodeFailure]) -> Verdict {
    let nodes = survey.nodes;
    let have = format!(
        "{} of {} have {}",
        nodes.ready,
        nodes_of(nodes.desired),
        images_of(wish)
    );
    let first_failure = failures.first().map_or_else(String::new, |failure| {
        let place = if failure.node.is_empty() {
            String::new()
        } else {
            format!(" on {}", failure.node)
        };
        format!(": {}{place}: {}", failure.image, failure.reason)
    });
    if let Err(error) = &wish.selector {
        let message = format!("spec.nodeSelector cannot be read, so it selects no node: {error}");
        return stalled("InvalidNodeSelector", message);
    }
    if !wish.invalid.is_empty() {
        let bad = match wish.invalid.len() {
            1 => "1 entry of spec.images is".to_owned(),
            number => format!("{number} entries of spec.images are"),
        };
        let message = format!("{bad} not an image reference{first_failure}");
        let is_reconciling = survey.done < nodes.desired && !wish.is_at_rest();
        return Verdict {
            is_reconciling,
            ..stalled("InvalidReference", message)
        };
    }
    if nodes.desired == 0 {
        let matching = match survey.ineligible {
            0 => "no node matches the node selector".to_owned(),
            1 => "the node that matches the node selector is not eligible".to_owned(),
            number => format!("none of the {number} nodes that match the node selector is eligible"),
        };
        let message = format!("{matching}: eligible are Linux nodes that are Ready, not cordoned and not about to go");
        return ready("NoNodes", message);
    }
    if nodes.ready == nodes.desired {
        let verb = if nodes.desired == 1 { "has" } else { "have" };
        let message = format!("{} {verb} {}", nodes_of(nodes.desired), images_of(wish));
        return ready("AllPresent", message);
    }
    if survey.is_done(wish) {
        return stalled(
            "ImagesFailed",
            format!("{have}; {} failed{first_failure}", nodes.failed),
        );
    }
    if wish.prefetch.spec.suspend {
        return Verdict {
            is_ready: false,
            is_reconciling: false,
            is_stalled: false,
            reason: "Suspended",
            message: format!("{have}; the Prefetch is suspended"),
        };
    }
    let waiting = match survey.held {
        0 => String::new(),
        1 => "; 1 waits for its turn".to_owned(),
        number => format!("; {number} wait for their turn"),
    };
    Verdict {
        is_ready: false,
        is_reconciling: true,
        is_stalled: false,
        reason: "Pulling",
        message: format!("{have}{waiting}"),
    }
}

fn ready(reason: &'static str, message: String) -> Verdict {
    Verdict {
        is_ready: true,
        is_reconciling: false,
        is_stalled: false,
        reason,
        message,
    }
}

fn stalled(reason: &'static str, message: String) -> Verdict {
    Verdict {
        is_ready: false,
        is_reconciling: false,
        is_stalled: true,
        reason,
        message,
    }
}

fn nodes_of(number: i32) -> String {
    match number {
        1 => "1 node".to_owned(),
        number => format!("{number} nodes"),
    }
}

fn images_of(wish: &Wish<'_>) -> String {
    match wish.images.len() {
        1 => "the image".to_owned(),
        number => format!("all {number} images"),
    }
}
