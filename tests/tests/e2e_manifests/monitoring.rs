//! Alerts and dashboard, read by what reads them in a cluster. Of Grafana no part can be had here: of the dashboard the expressions are read.

use std::{fs, path::Path, process::Command};

use coral_tests::{cluster::tools::Checks, progress::Silent};
use serde_json::{Value, json};

use super::{repository, support::coral::Ran};

/// What Prometheus' reader says to these groups of rules.
fn read(program: &Path, groups: &Value) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, groups.to_string()).unwrap();
    Command::new(program).arg(&file).output().unwrap().into()
}

#[tokio::test]
async fn prometheus_reads_every_alert_and_every_expression_of_the_dashboard() {
    let program = Checks::build(&Silent).await.unwrap().rules();
    let text = fs::read_to_string(repository("deploy/components/monitoring/prometheus-rule.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let ran = read(&program, &rules["spec"]).succeeded();
    let alerts: usize = rules["spec"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["rules"].as_array().unwrap().len())
        .sum();
    assert!(ran.stdout.contains(&format!(" {alerts} rules")), "{}", ran.stdout);

    let text = fs::read_to_string(repository("deploy/components/monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let recorded: Vec<Value> = targets
        .map(|target| {
            // Grafana's own, which it replaces by a time.
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            json!({"record": "coral:panel", "expr": expression})
        })
        .collect();
    assert!(recorded.len() > 10, "{}", recorded.len());
    // The reader takes no rule twice.
    let groups: Vec<Value> = recorded
        .into_iter()
        .enumerate()
        .map(|(index, rule)| json!({"name": format!("panel-{index}"), "rules": [rule]}))
        .collect();
    read(&program, &json!({"groups": groups})).succeeded();

    // What is read is understood.
    for (field, broken) in [("expr", "sum by (node (x)"), ("for", "5 minutes")] {
        let mut rules = rules["spec"].clone();
        rules["groups"][0]["rules"][0][field] = broken.into();
        let ran = read(&program, &rules);
        assert_eq!(ran.code, Some(1), "{broken}: {}", ran.stderr);
    }
}
