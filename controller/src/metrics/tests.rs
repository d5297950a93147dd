use serde_json::json;

use super::*;

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

fn prefetch(name: &str, ready: bool) -> Prefetch {
    let status = if ready { "True" } else { "False" };
    let time = "2026-01-01T00:00:00Z";
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "r", "message": "", "lastTransitionTime": time});
    serde_json::from_value(json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"images": ["nginx"]},
        "status": {
            "conditions": [condition("Ready", status), condition("Stalled", "False")],
            "nodes": {"desired": 3, "ready": 2, "pulling": 1, "failed": 0},
            "images": [{"image": "nginx", "desired": 3, "available": 2, "pulling": 1, "failed": 0}],
        },
    }))
    .unwrap()
}

#[test]
fn metrics_have_the_names_that_dashboards_use() {
    let metrics = Metrics::default();
    let registry = metrics.registry();
    metrics.leads(true, "acquired");
    metrics.watch_spoke("Node", Timestamp::UNIX_EPOCH);
    metrics.planned(Duration::from_millis(3), Counts::default(), 5);
    metrics.agents_are(std::iter::empty());
    let objects = [prefetch("web", true), prefetch("db", false)];
    metrics.prefetches_are(objects.iter(), false);
    metrics.became_ready(SignedDuration::from_secs(7));
    metrics.gate_opened(&GateOutcome::Ready, SignedDuration::from_secs(7));
    metrics.write_ended("NodeLabels", Sent::Success);
    metrics.event_ended(Sent::Dropped);
    let text = text(&registry);
    for line in [
        "coral_controller_leader 1",
        r#"coral_controller_lease_changes_total{result="acquired"} 1"#,
        r#"coral_controller_last_watch_event_timestamp_seconds{kind="Node"} 0.0"#,
        "coral_controller_plan_duration_seconds_count 1",
        r#"coral_controller_nodes{state="Eligible"} 0"#,
        r#"coral_controller_agents{state="NotReady"} 0"#,
        r#"coral_controller_prefetches{state="Ready"} 1"#,
        r#"coral_controller_prefetches{state="Stalled"} 0"#,
        r#"coral_controller_images{state="available"} 4"#,
        "coral_controller_prefetch_ready_duration_seconds_sum 7.0",
        r#"coral_controller_gates_total{outcome="Ready"} 1"#,
        "coral_controller_gate_duration_seconds_count 1",
        r#"coral_controller_writes_total{kind="NodeLabels",result="success"} 1"#,
        "coral_controller_writes_due 5",
        r#"coral_controller_events_total{result="dropped"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains("shop"), "{text}");
    assert!(metrics.is_leader());
}

#[test]
fn metrics_of_a_prefetch_come_when_asked_for_and_go_with_it() {
    let metrics = Metrics::default();
    let registry = metrics.registry();
    let objects = [prefetch("web", true), prefetch("db", false)];
    metrics.prefetches_are(objects.iter(), true);
    let web = r#"coral_controller_prefetch_nodes{namespace="shop",name="web",state="ready"} 2"#;
    assert!(text(&registry).contains(web));
    metrics.prefetches_are(objects.iter().skip(1), true);
    let after = text(&registry);
    assert!(!after.contains("web") && after.contains("db"), "{after}");
}

#[test]
fn who_leads_no_more_tells_nothing_of_the_cluster() {
    let metrics = Metrics::default();
    let registry = metrics.registry();
    metrics.leads(true, "acquired");
    metrics.prefetches_are([prefetch("web", true)].iter(), true);
    metrics.leads(false, "lost");
    let text = text(&registry);
    assert!(text.contains("coral_controller_leader 0"), "{text}");
    assert!(
        text.contains(r#"coral_controller_prefetches{state="Ready"} 0"#),
        "{text}"
    );
    assert!(!text.contains("web"), "{text}");
}
