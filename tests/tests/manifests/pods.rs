//! What every pod of Coral's keeps to, and which exceptions there are.

use serde_json::{Value, json};

use super::{name, of_kind, strings};

const WORKLOADS: &[&str] = &["DaemonSet", "Deployment"];

fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

fn containers(workload: &Value) -> Vec<&Value> {
    let all = [&pod(workload)["containers"], &pod(workload)["initContainers"]];
    all.into_iter().filter_map(Value::as_array).flatten().collect()
}

#[test]
fn containers_can_do_no_more_than_their_user() {
    for workload in of_kind(WORKLOADS) {
        let who = name(&workload);
        let pod = pod(&workload);
        assert_eq!(
            pod["securityContext"]["seccompProfile"],
            json!({"type": "RuntimeDefault"}),
            "{who}"
        );
        for field in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(pod[field].is_null(), "{who} has {field}");
        }
        for container in containers(&workload) {
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(container["securityContext"], expected, "{who}");
            assert!(
                container["ports"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|port| port["hostPort"].is_null())
            );
        }
    }
}

/// The agent speaks with a socket that belongs to root, and that is all.
#[test]
fn only_the_agent_is_root_and_has_a_folder_of_the_node() {
    for workload in of_kind(WORKLOADS) {
        let pod = pod(&workload);
        let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
        if name(&workload) == "coral-agent" {
            assert_eq!(pod["securityContext"]["runAsUser"], 0);
            assert_eq!(
                volumes,
                [json!({"name": "run", "hostPath": {"path": "/run", "type": "Directory"}})]
            );
            let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
            assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
        } else {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{}", name(&workload));
            assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()));
        }
    }
}

#[test]
fn containers_say_what_they_need_and_how_they_are() {
    for workload in of_kind(WORKLOADS) {
        let who = name(&workload);
        for container in containers(&workload) {
            let resources = &container["resources"];
            for (what, value) in [
                ("requests.cpu", &resources["requests"]["cpu"]),
                ("requests.memory", &resources["requests"]["memory"]),
                ("limits.memory", &resources["limits"]["memory"]),
                ("livenessProbe", &container["livenessProbe"]),
                ("readinessProbe", &container["readinessProbe"]),
            ] {
                assert!(!value.is_null(), "{who} has no {what}");
            }
            // Throttled, it would be late where it is needed most; what it may take is bounded by what it does.
            assert!(resources["limits"]["cpu"].is_null(), "{who}");
            // The overlay, or `install`, says which image; a tag that moves is never meant.
            assert_eq!(container["image"], "coral", "{who}");
            assert!(container["imagePullPolicy"].is_null(), "{who}");
        }
    }
}

#[test]
fn pods_go_where_they_are_needed_and_come_back_in_turn() {
    let budgets = of_kind(&["PodDisruptionBudget"]);
    for workload in of_kind(WORKLOADS) {
        let who = name(&workload);
        let (spec, pod) = (&workload["spec"], pod(&workload));
        let label = json!({"app.kubernetes.io/name": who});
        assert_eq!(workload["metadata"]["labels"], label);
        assert_eq!(spec["selector"]["matchLabels"], label);
        assert_eq!(spec["template"]["metadata"]["labels"], label);
        assert_eq!(pod["nodeSelector"]["kubernetes.io/os"], "linux", "{who}");
        assert!(pod["terminationGracePeriodSeconds"].is_u64(), "{who}");
        let priority = pod["priorityClassName"].as_str().unwrap();
        if workload["kind"] == "DaemonSet" {
            assert_eq!(priority, "system-node-critical");
            assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
            assert!(!spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"].is_null());
        } else {
            assert_eq!(priority, "system-cluster-critical");
            assert_eq!(spec["replicas"], 2);
            assert!(!pod["topologySpreadConstraints"].is_null(), "{who}");
            let budget = budgets.iter().find(|budget| name(budget) == who).unwrap();
            assert_eq!(budget["spec"]["selector"]["matchLabels"], label);
            assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow", "{who}");
            // Preferred, or a cluster with one node would have one replica.
            let spread = pod["topologySpreadConstraints"].as_array().unwrap();
            let by_node = spread
                .iter()
                .find(|spread| spread["topologyKey"] == "kubernetes.io/hostname");
            assert_eq!(by_node.unwrap()["whenUnsatisfiable"], "ScheduleAnyway", "{who}");
        }
    }
}

#[test]
fn each_part_has_an_account_of_its_own_whose_token_only_its_pods_have() {
    let mut accounts: Vec<String> = Vec::new();
    for workload in of_kind(WORKLOADS) {
        let account = pod(&workload)["serviceAccountName"].as_str().unwrap().to_owned();
        assert_eq!(account, name(&workload));
        assert_eq!(pod(&workload)["automountServiceAccountToken"], true);
        accounts.push(account);
    }
    let mut objects = of_kind(&["ServiceAccount"]);
    objects.retain(|object| object["automountServiceAccountToken"] == false);
    let mut names: Vec<&str> = objects.iter().map(name).collect();
    names.sort_unstable();
    accounts.sort_unstable();
    assert_eq!(names, accounts);
}

#[test]
fn the_network_reaches_the_ports_that_pods_name_and_no_others() {
    let policies = of_kind(&["NetworkPolicy"]);
    assert_eq!(policies.len(), of_kind(WORKLOADS).len());
    for workload in of_kind(WORKLOADS) {
        let who = name(&workload);
        let policy = policies.iter().find(|policy| name(policy) == who).unwrap();
        let spec = &policy["spec"];
        assert_eq!(
            spec["podSelector"]["matchLabels"],
            workload["spec"]["selector"]["matchLabels"]
        );
        assert_eq!(strings(&spec["policyTypes"]), ["Ingress"]);
        let named = |ports: &Value, field: &str| -> Vec<String> {
            let ports = ports.as_array().unwrap().iter();
            let mut names: Vec<String> = ports.map(|port| port[field].as_str().unwrap().to_owned()).collect();
            names.sort_unstable();
            names
        };
        let open = named(&spec["ingress"][0]["ports"], "port");
        let listening: Vec<String> = containers(&workload)
            .iter()
            .flat_map(|container| named(&container["ports"], "name"))
            .collect();
        assert_eq!(open, listening, "{who}");
    }
}
