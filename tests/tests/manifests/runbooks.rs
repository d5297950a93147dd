//! Each alert has a runbook in `docs/operations.md`.

use std::collections::BTreeSet;

use super::{objects, read};

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let mut alerts = BTreeSet::new();
    for (_, object) in objects("deploy/components") {
        if object["kind"] != "PrometheusRule" {
            continue;
        }
        for group in object["spec"]["groups"].as_array().unwrap() {
            let rules = group["rules"].as_array().unwrap().iter();
            alerts.extend(rules.filter_map(|rule| rule["alert"].as_str().map(str::to_owned)));
        }
    }
    assert!(alerts.len() > 5, "{alerts:?}");
    let text = read("docs/operations.md");
    let (_, section) = text
        .split_once("\n## Alerts\n")
        .expect("docs/operations.md has a chapter of alerts");
    let section = section.split("\n## ").next().unwrap();
    let mut runbooks = BTreeSet::new();
    for part in section.split("\n### ").skip(1) {
        let (alert, body) = part.split_once('\n').unwrap();
        assert!(
            body.split_whitespace().count() > 15,
            "the runbook of {alert} says too little"
        );
        runbooks.insert(alert.to_owned());
    }
    let missing: Vec<_> = alerts.difference(&runbooks).collect();
    let stale: Vec<_> = runbooks.difference(&alerts).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/operations.md has no runbook for {missing:?}, and one for {stale:?}, which is no alert"
    );
}
