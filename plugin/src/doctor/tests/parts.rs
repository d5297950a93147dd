//! Cases of the parts of Coral: versions, resource types, the controller and the agents.

use super::*;

#[test]
fn versions_and_resource_types_are_looked_at() {
    assert_cases(&[
        ("all is well", |_| (), &[]),
        (
            "an older installation",
            |facts| facts.client_version = "v0.2.0".to_owned(),
            &[
                "warning versions: the cluster has Coral v0.1.0, and this command is v0.2.0 | `kubectl coral upgrade`, or",
            ],
        ),
        (
            "half an upgrade",
            |facts| parts(facts)[0]["metadata"]["labels"]["app.kubernetes.io/version"] = "v0.0.9".into(),
            &["warning versions: the parts are of different versions: v0.0.9, v0.1.0 | kubectl coral upgrade"],
        ),
        (
            "a tag that moved",
            |facts| pods(facts)[0].image_ids = vec!["coral@sha256:2".to_owned()],
            &["note versions: pods of coral-agent run 2 different images"],
        ),
        (
            "an old Kubernetes, and a kubelet that is ahead of it",
            |facts| {
                facts.server_version = Ok("v1.27.1".to_owned());
                facts.nodes.as_mut().unwrap()[1].kubelet_version = "v1.27.9".to_owned();
            },
            &[
                "problem versions: Kubernetes v1.27.1 is older than 1.28",
                "warning versions: node/node-1: the kubelet is v1.36.3",
            ],
        ),
        (
            "a resource type is missing",
            |facts| facts.types[0].found = Ok(None),
            &[
                "problem resource types: crd/prefetches.image.stvz.io: this resource type is missing | kubectl coral upgrade",
            ],
        ),
        (
            "a resource type of another version",
            |facts| facts.types[0].expected = json!({"spec": {"group": "image.stvz.io", "scope": "Namespaced"}}),
            &[
                "warning resource types: crd/prefetches.image.stvz.io: it is not what this command, v0.1.0, has: spec.scope is missing",
            ],
        ),
        (
            "a resource type is not served",
            |facts| facts.types[0].found.as_mut().unwrap().as_mut().unwrap()["status"] = json!({}),
            &["problem resource types: crd/prefetches.image.stvz.io: this resource type is not served yet"],
        ),
    ]);
}

#[test]
fn the_controller_and_its_lease_are_looked_at() {
    assert_cases(&[
        (
            "one controller of two",
            |facts| {
                parts(facts)[1] = deployment("coral-controller", 1);
                pods(facts)[3].trouble = Some(("ErrImagePull".to_owned(), "no such image\nat all".to_owned()));
                pods(facts)[3].is_ready = false;
            },
            &[
                "warning controller: deployment/coral-system/coral-controller: 1 of 2 ready: ErrImagePull (no such image) | kubectl -n coral-system describe pods -l",
            ],
        ),
        (
            "no controller",
            |facts| {
                parts(facts)[1]["spec"]["replicas"] = 0.into();
                pods(facts).truncate(2);
            },
            &[
                "problem controller: deployment/coral-system/coral-controller: it is scaled to zero | kubectl -n coral-system scale deployment coral-controller --replicas 2",
            ],
        ),
        (
            "a controller that hangs",
            |facts| {
                facts.lease = Ok(Some(LeaseFacts {
                    holder: Some("a".to_owned()),
                    moved: Some(false),
                }));
            },
            &["problem controller: lease/coral-system/coral-controller: a leads and does not renew the Lease"],
        ),
        (
            "clocks that differ",
            |facts| {
                facts.lease = Ok(Some(LeaseFacts {
                    holder: Some("a".to_owned()),
                    moved: Some(true),
                }));
            },
            &[],
        ),
        (
            "nobody has ever led",
            |facts| facts.lease = Ok(None),
            &["problem controller: lease/coral-system/coral-controller: there is no Lease"],
        ),
        (
            "too little memory",
            |facts| {
                pods(facts)[2].restarts = 7;
                pods(facts)[2].last_end = Some(("OOMKilled".to_owned(), before(5)));
            },
            &[
                "warning controller: pod/coral-system/coral-controller-a: it was started again and again in the last hour, lately after OOMKilled",
            ],
        ),
        (
            "restarts of long ago",
            |facts| {
                pods(facts)[2].restarts = 7;
                pods(facts)[2].last_end = Some(("Error".to_owned(), before(500)));
            },
            &[],
        ),
    ]);
}

#[test]
fn a_node_without_an_agent_has_a_reason() {
    assert_cases(&[
        (
            "a node selector leaves nodes out on which images are wanted",
            |facts| {
                parts(facts)[0]["spec"]["template"]["spec"]["nodeSelector"]["disk"] = "ssd".into();
                pods(facts).retain(|pod| pod.part != "coral-agent");
            },
            &[
                "problem agents: 2 nodes (node-1, node-2): no agent runs there, because the DaemonSet asks for the label disk=ssd, and Prefetches want images there",
            ],
        ),
        (
            "a node selector leaves a node out on which nothing is wanted",
            |facts| {
                parts(facts)[0]["spec"]["template"]["spec"]["nodeSelector"]["disk"] = "ssd".into();
                first_node(facts).labels.insert("disk".to_owned(), "ssd".to_owned());
                pods(facts).remove(1);
                facts.reports.as_mut().unwrap().remove("node-2");
            },
            &[
                "warning agents: node/node-2: no agent runs there, because the DaemonSet asks for the label disk=ssd | if it should",
            ],
        ),
        (
            "a taint",
            |facts| {
                parts(facts)[0]["spec"]["template"]["spec"]["tolerations"] =
                    json!([{"key": "gpu", "operator": "Equal", "value": "no"}]);
                taint(facts, "gpu");
                pods(facts).remove(0);
            },
            &[
                "problem agents: node/node-1: no agent runs there, because the DaemonSet does not tolerate the taint gpu:NoSchedule",
            ],
        ),
        (
            "no Pod, and no reason for that",
            |facts| drop(pods(facts).remove(0)),
            &[
                "problem agents: node/node-1: no agent runs there, though the DaemonSet selects the node: Kubernetes has made no Pod, or could not | kubectl -n coral-system describe daemonset coral-agent",
            ],
        ),
        (
            "a new node",
            |facts| {
                first_node(facts).created = Some(before(1));
                pods(facts).remove(0);
            },
            &["note agents: node/node-1: the node is new"],
        ),
    ]);
}

#[test]
fn an_agent_that_does_not_work_says_why() {
    assert_cases(&[
        (
            "an agent that crashes",
            |facts| {
                pods(facts)[0].trouble = Some(("CrashLoopBackOff".to_owned(), "no socket".to_owned()));
                pods(facts)[0].is_ready = false;
            },
            &[
                "problem agents: node/node-1: its agent does not run: CrashLoopBackOff (no socket) | kubectl -n coral-system describe pod coral-agent-1",
            ],
        ),
        (
            "agents that crash without last words",
            |facts| {
                for pod in &mut pods(facts)[..2] {
                    let message = format!("back-off 5m0s restarting failed container=agent pod={}_x", pod.name);
                    pod.trouble = Some(("CrashLoopBackOff".to_owned(), message));
                }
            },
            &["problem agents: 2 nodes (node-1, node-2): its agent does not run: CrashLoopBackOff |"],
        ),
        (
            "an agent that is not ready",
            |facts| pods(facts)[0].is_ready = false,
            &[
                "problem agents: node/node-1: its agent runs and is not ready | kubectl -n coral-system logs coral-agent-1",
            ],
        ),
        (
            "an agent that has just been started",
            |facts| {
                pods(facts)[0].is_ready = false;
                pods(facts)[0].created = Some(before(1));
            },
            &["note agents: node/node-1: its agent starts"],
        ),
        (
            "an agent that does not listen",
            |facts| first_report(facts).observed = Some(1),
            &["problem agents: node/node-1: its agent has not taken up what the controller asks for"],
        ),
        (
            "an agent that was asked just now",
            |facts| {
                first_report(facts).observed = None;
                first_report(facts).asked = Some(before(1));
            },
            &[],
        ),
        (
            "a runtime that is not reached, and one that cannot pin",
            |facts| {
                first_report(facts).conditions = conditions(&[
                    condition("Ready", "False", "RuntimeUnavailable", "no socket"),
                    condition("Pinning", "False", "Unsupported", "CRI-O has no pins"),
                ]);
            },
            &[
                "problem runtimes: node/node-1: the agent does not reach the container runtime: no socket",
                "warning runtimes: node/node-1: images cannot be pinned there: CRI-O has no pins",
            ],
        ),
        (
            "a node that is not Ready is no matter of its agent",
            |facts| {
                first_node(facts).is_ready = false;
                pods(facts).remove(0);
            },
            &["warning nodes: node/node-1: it is not Ready"],
        ),
    ]);
}
