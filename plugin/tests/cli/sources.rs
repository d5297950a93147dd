//! `prefetch` with images from manifests and workloads, for nodes by name, and with a policy.

use serde_json::json;

use crate::support::{Home, fake_api::FakeApi, objects::failure};

const MANIFESTS: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {imagePullSecrets: [{name: regcred}], initContainers: [{name: i, image: busybox}], containers: [{name: a, image: nginx:1.29}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: night}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: 'docker.io/library/nginx:1.29'}, {name: b, image: redis:8}]}}}}}
";

/// The spec that a client dry run prints.
fn spec(yaml: &str) -> &str {
    yaml.split_once("spec:\n").map_or("", |(_, spec)| spec)
}

#[test]
fn manifests_give_the_images_of_all_that_has_pods() {
    let home = Home::empty();
    let file = home.path().join("chart.yaml");
    std::fs::write(&file, MANIFESTS).unwrap();
    let arguments = ["prefetch", "--name", "web", "--dry-run=client", "-o", "yaml", "-f"];
    let of_file = home.run(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(of_file.code, Some(0), "{}", of_file.stderr);
    assert_eq!(
        spec(&of_file.stdout),
        "  images:\n  - busybox:latest\n  - nginx:1.29\n  - redis:8\n"
    );
    assert_eq!(
        of_file.stderr,
        "hint: these pods are pulled with the Secret regcred; --pull-secret regcred lets Coral use it, too\n"
    );
    let of_folder = home.run(&[&arguments[..], &[home.path().to_str().unwrap()]].concat());
    assert_eq!(of_folder.stdout, of_file.stdout);
    let of_stdin = home
        .coral(&[&arguments[..], &["-"]].concat())
        .write_stdin(MANIFESTS)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(of_stdin.stdout).unwrap(), of_file.stdout);
}

#[test]
fn manifests_that_cannot_be_used_are_named() {
    let home = Home::empty();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (broken, empty) = (write("broken.yaml", "{a: ["), write("empty.yaml", "kind: Service\n"));
    let upper = write(
        "upper.yaml",
        "{apiVersion: v1, kind: Pod, spec: {containers: [{image: Nginx}]}}",
    );
    for (file, code, sentence) in [
        ("/nowhere.yaml", 1, "failed to read /nowhere.yaml: No such file"),
        (broken.as_str(), 1, "it is neither YAML nor JSON"),
        (empty.as_str(), 1, "there are no images in"),
        (upper.as_str(), 2, "the repository path must be lower case"),
    ] {
        let outcome = home.run(&["prefetch", "--dry-run=client", "-f", file]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{file}");
        assert!(outcome.stderr.contains(sentence), "{file}: {}", outcome.stderr);
    }
}

/// A server with a deployment, a stateful set, and a replica set that belongs to the deployment.
fn workloads() -> (FakeApi, Home) {
    let api = FakeApi::start();
    let pods = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}});
    let mut web = pods("nginx:1.29");
    web["metadata"]["labels"] = json!({"team": "shop"});
    api.put_at("apis/apps/v1/namespaces/shop/deployments/web", web);
    api.put_at("apis/apps/v1/namespaces/shop/statefulsets/db", pods("postgres:18"));
    let mut old = pods("nginx:1.28");
    old["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "1", "controller": true}]);
    api.put_at("apis/apps/v1/namespaces/shop/replicasets/web-1", old);
    let home = Home::with_server(&api.url);
    (api, home)
}

#[test]
fn workloads_of_the_cluster_give_their_images() {
    let (api, home) = workloads();
    let images = |arguments: &[&str]| {
        let fixed = ["prefetch", "--name", "web", "--dry-run=client", "-o", "yaml"];
        let outcome = home.run(&[&fixed[..], arguments].concat());
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
        spec(&outcome.stdout).to_owned()
    };
    assert_eq!(images(&["--from", "deploy/web"]), "  images:\n  - nginx:1.29\n");
    assert_eq!(
        images(&["redis:8", "--from", "sts/db"]),
        "  images:\n  - redis:8\n  - postgres:18\n"
    );
    assert_eq!(images(&["-l", "team=shop"]), "  images:\n  - nginx:1.29\n");
    assert_eq!(
        images(&["--all-workloads"]),
        "  images:\n  - nginx:1.29\n  - postgres:18\n"
    );

    let missing = home.run(&["prefetch", "--from", "deploy/wbe"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("not found"), "{}", missing.stderr);
    let none = home.run(&["prefetch", "--all-workloads", "-n", "empty"]);
    assert_eq!(
        none.stderr,
        "error: there are no images in the workloads of namespace empty\n\
         hint: images are those of Pods and of what makes Pods: Deployments, StatefulSets, DaemonSets, Jobs, CronJobs\n"
    );
    let wrong = home.run(&["prefetch", "--from", "service/web"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("\"service\" has no pods"), "{}", wrong.stderr);
    let message = "statefulsets.apps is forbidden";
    api.refuse(
        "GET /apis/apps/v1/namespaces/shop/statefulsets",
        1,
        403,
        &failure(403, "Forbidden", message),
    );
    let partly = home.run(&["prefetch", "--all-workloads", "--name", "web"]);
    assert_eq!(partly.code, Some(0));
    assert!(
        partly.stderr.contains("so images of these are left out"),
        "{}",
        partly.stderr
    );
}

#[test]
fn nodes_are_selected_by_their_host_names() {
    let api = FakeApi::start();
    api.put_at(
        "api/v1/nodes/node-1",
        json!({"metadata": {"labels": {"kubernetes.io/hostname": "ip-10-0-0-1"}}}),
    );
    api.put_at("api/v1/nodes/node-2", json!({}));
    let home = Home::with_server(&api.url);
    let outcome = home.run(&["prefetch", "a:1", "--name", "web", "--nodes", "node-1,node/node-2"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(
        api.prefetch("web").unwrap()["spec"]["nodeSelector"],
        json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["ip-10-0-0-1", "node-2"]}]})
    );
    let unknown = home.run(&["prefetch", "a:1", "--nodes", "nod-1"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(unknown.stderr, @r#"
    error: node "nod-1" not found
    hint: did you mean node-1 or node-2?
    "#);
}

#[test]
fn a_policy_is_what_was_said_of_it() {
    let arguments = ["prefetch", "a:1", "--name", "web", "--dry-run=client", "-o", "yaml"];
    let said = [
        "--once",
        "--pin",
        "--gate",
        "--remove-on-delete",
        "--parallelism",
        "50%",
        "--priority",
        "-5",
    ];
    insta::assert_snapshot!(spec(&Home::empty().run(&[&arguments[..], &said].concat()).stdout), @r"
    gate: true
    images:
    - a:1
    mode: Once
    parallelism: 50%
    pin: true
    priority: -5
    removalPolicy: Remove
    ");
    let moving = Home::empty().run(&[&arguments[..], &["--refresh-interval", "1h"]].concat());
    insta::assert_snapshot!(spec(&moving.stdout), @r"
    images:
    - a:1
    pullPolicy: Always
    refreshInterval: 1h
    ");
    for (flag, value, sentence) in [
        ("--refresh-interval", "5s", "an interval is 10s or longer"),
        ("--parallelism", "0", "at least 1"),
        ("--priority", "much", "invalid"),
    ] {
        let outcome = Home::empty().run(&["prefetch", "a:1", flag, value]);
        assert_eq!(outcome.code, Some(2), "{flag}");
        assert!(outcome.stderr.contains(sentence), "{flag}: {}", outcome.stderr);
    }
}
