//! What goes because nobody needs it, and what stays, as text.

use coral_mirror::retention::Plan;
use serde_json::{Value, json};

use super::overview::familiar;
use crate::{human, table::Table};

/// The copies that go and those that stay, each with the reason.
pub(crate) fn text(plan: &Plan, colour: bool) -> String {
    if plan.removals.is_empty() && plan.kept.is_empty() {
        return "nothing is to be removed".to_owned();
    }
    let mut table = Table::new(["COPY", "IMAGE", "ACTION", "WHY"]);
    for removal in &plan.removals {
        table.rows.push(vec![
            removal.reference.to_string().into(),
            familiar(&removal.image).into(),
            "remove".into(),
            format!("unused since {}", removal.unused_since.strftime("%F %R")).into(),
        ]);
    }
    for kept in &plan.kept {
        table.rows.push(vec![
            kept.reference.to_string().into(),
            familiar(&kept.image).into(),
            "keep".into(),
            kept.why.to_string().into(),
        ]);
    }
    format!(
        "{}\n\n{} to remove, {} to keep",
        table.render(true, colour),
        human::counted(plan.removals.len(), "tag"),
        human::count(plan.kept.len())
    )
}

/// The names of the copies that go.
pub(crate) fn names(plan: &Plan) -> String {
    let names = plan.removals.iter().map(|removal| removal.reference.to_string());
    names.collect::<Vec<_>>().join("\n")
}

/// The same for programs.
pub(crate) fn json(plan: &Plan) -> Value {
    let removals = plan.removals.iter().map(|removal| {
        json!({
            "copy": removal.reference.to_string(),
            "image": removal.image,
            "mirrors": removal.mirrors,
            "unusedSince": removal.unused_since.to_string(),
        })
    });
    let kept = plan
        .kept
        .iter()
        .map(|kept| json!({"copy": kept.reference.to_string(), "image": kept.image, "why": kept.why.to_string()}));
    json!({"removals": removals.collect::<Vec<_>>(), "kept": kept.collect::<Vec<_>>()})
}
