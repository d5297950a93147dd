//! The alerts and the dashboard in `deploy/components/monitoring` ask for metrics that exist.

use std::collections::BTreeSet;

use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::Value;

/// What others count, and who: it is in clusters that have them.
const FOREIGN: [(&str, &str); 8] = [
    ("apiserver_admission_webhook_fail_open_count", "API servers"),
    ("kube_cronjob_status_last_successful_time", "kube-state-metrics"),
    ("kube_daemonset_status_number_ready", "kube-state-metrics"),
    ("kube_daemonset_status_number_unavailable", "kube-state-metrics"),
    ("kube_deployment_spec_replicas", "kube-state-metrics"),
    ("kube_statefulset_status_replicas_ready", "kube-state-metrics"),
    ("kubelet_volume_stats_available_bytes", "kubelets"),
    ("kubelet_volume_stats_capacity_bytes", "kubelets"),
];

fn read(file: &str) -> String {
    super::read(&format!("deploy/components/monitoring/{file}"))
}

/// Names of the samples that a registry gives.
fn samples(registry: &Registry) -> BTreeSet<String> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// Names of the metrics of a registry, as gauges and as counters: those whose labels come with the first event have no sample before.
fn described(registry: &Registry, prefix: &str) -> BTreeSet<String> {
    let text = format!("{registry:?}");
    let names = text.split(r#"Descriptor { name: ""#).skip(1);
    let names = names.map(|rest| format!("{prefix}_{}", rest.split('"').next().unwrap()));
    names.flat_map(|name| [format!("{name}_total"), name]).collect()
}

/// Every value of `key`, however deep.
fn values<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == key => found.push(text),
                    _ => values(field, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| values(item, key, found)),
        _ => {}
    }
}

/// The words of an expression that name a metric.
fn named(expression: &str) -> impl Iterator<Item = &str> {
    let prefixes = ["coral_", "apiserver_", "kube_", "kubelet_"];
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(move |word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
}

fn expressions() -> Vec<(&'static str, String)> {
    let rules: Value = serde_saphyr::from_str(&read("prometheus-rule.yaml")).unwrap();
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut all = Vec::new();
    for (file, value) in [("prometheus-rule.yaml", &rules), ("dashboard.json", &dashboard)] {
        let mut found = Vec::new();
        values(value, "expr", &mut found);
        assert!(found.len() > 8, "{file} has only {} expressions", found.len());
        all.extend(found.into_iter().map(|expression| (file, expression.to_owned())));
    }
    all
}

/// Those of the webhook are looked at in its own tests.
#[test]
fn alerts_and_dashboard_name_only_metrics_that_exist() {
    let mut known = samples(&coral_controller::metrics::Metrics::default().registry());
    for (registry, prefix) in [
        (coral_agent::metrics::Metrics::default().registry(), "coral_agent"),
        (coral_mirror::Metrics::default().registry(), "coral_mirror"),
    ] {
        known.extend(samples(&registry));
        known.extend(described(&registry, prefix));
    }
    known.extend(FOREIGN.map(|(name, _)| name.to_owned()));
    for (file, expression) in expressions() {
        let mut names = named(&expression).peekable();
        assert!(names.peek().is_some(), "{file}: {expression} names no metric");
        for name in names.filter(|name| !name.starts_with("coral_webhook_")) {
            assert!(known.contains(name), "{file}: there is no {name}, in {expression}");
        }
    }
}

#[test]
fn every_alert_says_what_it_is_and_how_bad() {
    let rules: Value = serde_saphyr::from_str(&read("prometheus-rule.yaml")).unwrap();
    let groups = rules["spec"]["groups"].as_array().unwrap();
    let alerts: Vec<&Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert["alert"].as_str().unwrap()).collect();
    assert_eq!(names.len(), alerts.len());
    for alert in alerts {
        let name = &alert["alert"];
        let severity = alert["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}");
        for annotation in ["summary", "description"] {
            assert!(
                alert["annotations"][annotation]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{name}"
            );
        }
    }
}

#[test]
fn panels_of_the_dashboard_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{} lies on another panel", panel["title"]);
        }
    }
}
