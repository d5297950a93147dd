//! How what was found is told.

use super::*;
use crate::doctor::{Finding, report::Report};

/// A large cluster in which some things are wrong.
fn findings() -> Vec<Finding> {
    let mut facts = healthy();
    let nodes: Vec<NodeFacts> = (0..5_000).map(|number| node(&format!("node-{number:04}"))).collect();
    let with_agent = nodes.iter().enumerate().filter(|(number, _)| number % 137 != 0);
    let agents = with_agent.map(|(number, node)| pod("coral-agent", &format!("coral-agent-{number}"), &node.name));
    let controllers = pods(&mut facts).split_off(2);
    facts.pods = Ok(agents.chain(controllers).collect());
    facts.reports = Ok(nodes.iter().map(|node| (node.name.clone(), agent_report())).collect());
    facts.nodes = Ok(nodes);
    facts.kubelets.of = 5_000;
    facts.webhook.endpoints = Ok(0);
    facts.access.grants = grant(Ok(false), None);
    *kubelet(&mut facts, "serializeImagePulls") = true.into();
    diagnose(&facts)
}

#[test]
fn a_report_is_legible_on_narrow_terminals_and_wide_ones() {
    let report = Report::new(findings());
    assert!(report.has_problems());
    let narrow = report.text(false, Some(80), false);
    let is_command = |line: &str| line.contains('`');
    assert!(
        narrow
            .lines()
            .all(|line| line.chars().count() <= 80 || is_command(line)),
        "{narrow}"
    );
    insta::assert_snapshot!(narrow, @r"
    CHECK            RESULT    DETAILS
    versions         ok        Coral v0.1.0, as this command; Kubernetes v1.36.3
    resource types   ok        1 resource type, served as this command knows them
    controller       ok        runs with 2 replicas; coral-controller-a leads
    agents           problem   37 nodes: no agent runs there, though the DaemonSet…
    runtimes         ok        containerd 2.4.2 on 5,000 nodes
    webhook          problem   coral-webhook: no Pod of the webhook is ready behind…
    certificates     ok        last for 61d, and are renewed before
    kubelets         ok        settings of 2 of 5,000 kubelets looked at
    nodes            ok        5,000 Linux nodes Ready and without pressure
    prefetches       problem   regcred: Coral's agents may not read this pull secre…
    rights           ok        Coral's parts have theirs, and you have what the com…

    problem: 37 nodes (node-0000, node-0137, node-0274 and 34 more): no agent runs
      there, though the DaemonSet selects the node: Kubernetes has made no Pod, or
      could not
      hint: kubectl -n coral-system describe daemonset coral-agent
    problem: service/coral-system/coral-webhook: no Pod of the webhook is ready
      behind it
      hint: kubectl -n coral-system get pods -l app.kubernetes.io/name=coral-webhook
    problem: secret/shop/regcred: Coral's agents may not read this pull secret,
      which prefetch web names
      hint: kubectl coral allow-secret regcred -n shop
    note: kubelets pull one image after another (serializeImagePulls, on 1 of 2
      looked at): what is not prefetched waits for what is before it; Coral's own
      pulls do not

    3 problems, 1 note
    ");
    insta::assert_snapshot!(report.text(true, None, false), @r"
    problem: 37 nodes (node-0000, node-0137, node-0274 and 34 more): no agent runs there, though the DaemonSet selects the node: Kubernetes has made no Pod, or could not
      hint: kubectl -n coral-system describe daemonset coral-agent
    problem: service/coral-system/coral-webhook: no Pod of the webhook is ready behind it
      hint: kubectl -n coral-system get pods -l app.kubernetes.io/name=coral-webhook
    problem: secret/shop/regcred: Coral's agents may not read this pull secret, which prefetch web names
      hint: kubectl coral allow-secret regcred -n shop
    ");
    assert!(report.text(false, Some(80), true).contains("\u{1b}["));
    insta::assert_snapshot!(Report::new(diagnose(&healthy())).text(false, None, false), @r"
    CHECK            RESULT   DETAILS
    versions         ok       Coral v0.1.0, as this command; Kubernetes v1.36.3
    resource types   ok       1 resource type, served as this command knows them
    controller       ok       runs with 2 replicas; coral-controller-a leads
    agents           ok       ready on 2 nodes
    runtimes         ok       containerd 2.4.2 on 2 nodes
    webhook          ok       runs with 2 replicas, and the API server reaches it
    certificates     ok       last for 61d, and are renewed before
    kubelets         ok       settings of 2 kubelets looked at
    nodes            ok       2 Linux nodes Ready and without pressure
    prefetches       ok       1 Prefetch; it selects nodes and is not stalled
    rights           ok       Coral's parts have theirs, and you have what the command needs

    no problems found
    ");
    assert_eq!(Report::new(diagnose(&healthy())).text(true, None, false), "");
}

#[test]
fn programs_get_the_checks_and_the_findings() {
    let value = Report::new(findings()).value(true).unwrap();
    let check = |name: &str| {
        let mut checks = value["checks"].as_array().unwrap().iter();
        checks.find(|check| check["check"] == name).unwrap()["result"].clone()
    };
    assert_eq!(
        (check("agents"), check("webhook"), check("kubelets")),
        ("problem".into(), "problem".into(), "ok".into())
    );
    let agents = &value["findings"][0];
    assert_eq!(
        (&agents["check"], &agents["severity"]),
        (&"agents".into(), &"problem".into())
    );
    assert_eq!(agents["subjects"].as_array().unwrap().len(), 37);
    assert_eq!(agents["subjects"][0], json!({"kind": "node", "name": "node-0000"}));
    assert_eq!(value["findings"].as_array().unwrap().len(), 3);
}
