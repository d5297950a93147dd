//! `prefetch`: where images come from, what is asked for, and what is waited for.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    deployment,
    shown::{both, named, steady, verbatim},
    support::{
        Scene,
        coral::{command, coral, coral_with},
    },
    template,
};

/// A list of manifests: a Deployment, a `CronJob` and something without pods.
fn manifests(scene: &Scene) -> (String, [String; 2]) {
    let images =
        ["web", "job"].map(|name| format!("{}/{}/{name}:v1", scene.cluster.registry(), scene.namespace.name()));
    let mut job = template("job", &images[1]);
    job["spec"]["restartPolicy"] = "Never".into();
    let objects = [
        deployment("web", &images[0]),
        json!({
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "job"},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": job}}},
        }),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}),
    ];
    (objects.map(|object| object.to_string()).join("\n---\n"), images)
}

fn images_of(object: &Value) -> Vec<&str> {
    let images = object["spec"]["images"].as_array().into_iter().flatten();
    images.filter_map(Value::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_come_from_manifests_and_from_the_cluster() {
    let scene = Scene::new("verbs").await;
    let (text, images) = manifests(&scene);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("app.yaml");
    fs::write(&file, &text).unwrap();
    let file = file.to_string_lossy();
    let folder = folder.path().to_string_lossy();
    let dry = ["--dry-run=client", "-o", "json"];
    for source in [["-f", &*file], ["-f", &*folder]] {
        let printed = scene.json(&[&["prefetch"], &source[..], &dry].concat());
        assert_eq!(images_of(&printed), images, "{source:?}");
    }
    let printed = coral_with(&scene, &[&["prefetch", "-f", "-"], &dry[..]].concat(), &text).succeeded();
    assert_eq!(images_of(&serde_json::from_str(&printed.stdout).unwrap()), images);
    let printed = coral(
        &scene,
        &[
            "prefetch",
            "-f",
            &file,
            "--name",
            "app",
            "--dry-run=client",
            "-o",
            "yaml",
        ],
    );
    insta::assert_snapshot!(both(&scene, &printed.succeeded()), @r"
    apiVersion: image.stvz.io/v1alpha1
    kind: Prefetch
    metadata:
      name: app
      namespace: shop
    spec:
      images:
      - registry/shop/web:v1
      - registry/shop/job:v1
    ");

    scene.kubectl(&["create", "--filename", "-"], &text).succeeded();
    let server = |arguments: &[&str]| -> Value {
        let arguments = [
            &["prefetch"],
            arguments,
            &["--name", "app", "--dry-run=server", "-o", "json"],
        ]
        .concat();
        scene.json(&arguments)
    };
    assert_eq!(images_of(&server(&["--from", "deploy/web"])), [&images[0]]);
    assert_eq!(images_of(&server(&["--from", "deploy/web,cronjob/job"])), images);
    assert_eq!(images_of(&server(&["-l", "app=web"])), [&images[0]]);
    let all = server(&["--all-workloads"]);
    let mut all = images_of(&all);
    all.sort_unstable();
    assert_eq!(all, [&images[1], &images[0]]);
    let none = coral(&scene, &["prefetch", "-l", "app=nothing"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &none), @r"
    ! error: there are no images in the workloads of namespace shop
    ! hint: images are those of Pods and of what makes Pods: Deployments, StatefulSets, DaemonSets, Jobs, CronJobs
    ");
    let none = coral(&scene, &["prefetch", "--from", "deploy/wbe"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &none), @r#"
    ! error: deployments.apps "wbe" not found
    ! hint: `kubectl get deployments -A` lists those that are there, of all namespaces
    "#);
    assert_eq!(
        coral(&scene, &["status", "-o", "name"]).succeeded().stdout,
        "",
        "dry runs keep nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_stands_in_the_spec() {
    let scene = Scene::new("verbs").await;
    let image = scene.image("one");
    let asked = [
        "prefetch",
        &image,
        "--name",
        "web",
        "--nodes",
        "node-2,node/node-1",
        "--refresh-interval",
        "15m",
        "--parallelism",
        "1",
        "--priority",
        "-5",
        "--pin",
        "--gate",
        "--remove-on-delete",
    ];
    let dry = scene.json(&[&asked[..], &["--dry-run=server", "-o", "json"]].concat());
    insta::assert_snapshot!(named(&scene, &format!("{:#}", dry["spec"])), @r#"
    {
      "backoffLimit": 6,
      "gate": true,
      "images": [
        "registry/shop/one:v1"
      ],
      "mode": "Keep",
      "nodeSelector": {
        "matchExpressions": [
          {
            "key": "kubernetes.io/hostname",
            "operator": "In",
            "values": [
              "node-1",
              "node-2"
            ]
          }
        ]
      },
      "parallelism": 1,
      "pin": true,
      "priority": -5,
      "pullPolicy": "Always",
      "refreshInterval": "15m",
      "removalPolicy": "Remove",
      "suspend": false,
      "timeout": "10m"
    }
    "#);
    let ran = coral(&scene, &[&asked[..], &["--wait", "--timeout", "90s"]].concat()).succeeded();
    assert_eq!(ran.stdout, "prefetch.image.stvz.io/web created\n");
    // The last line says what there is now.
    insta::assert_snapshot!(steady(&scene, ran.stderr.lines().last().unwrap()), @"prefetch shop/web is ready: 1 image on 2 nodes, AGE");
    assert!(scene.holds("node-1", &image) && scene.holds("node-2", &image));

    let once = coral(
        &scene,
        &[
            "prefetch", &image, "--name", "once", "--once", "--nodes", "node-1", "--wait", "-o", "json",
        ],
    )
    .succeeded();
    let once: Value = serde_json::from_str(&once.stdout).unwrap();
    assert_eq!(once["spec"]["mode"], "Once");
    assert!(once["status"]["completionTime"].is_string(), "{once}");

    let wrong = coral(&scene, &["prefetch", &image, "--nodes", "node1"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &wrong), @r#"
    ! error: node "node1" not found
    ! hint: did you mean node-1 or node-2?
    "#);
    let wrong = coral(&scene, &["prefetch", &image, "--refresh-interval", "5s"]).failed(2, &[]);
    insta::assert_snapshot!(verbatim(&scene, &wrong), @r"
    error: invalid value '5s' for '--refresh-interval <DURATION>': an interval is 10s or longer, or 0

    For more information, try '--help'.
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_wait_leaves_the_prefetch_and_says_how_to_follow_it() {
    let scene = Scene::new("verbs").await;
    let missing = format!("{}/{}/missing:v1", scene.cluster.registry(), scene.namespace.name());
    let arguments = ["prefetch", &missing, "--name", "web", "--nodes", "node-1", "--wait"];
    let mut child = command(&scene.cluster, &arguments)
        .args(["--namespace", scene.namespace.name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // It waits when it tells of the node.
    let mut told = String::new();
    while !told.contains("node-1") {
        assert_ne!(stderr.read_line(&mut told).unwrap(), 0, "{told}");
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}{rest}");
    let last: Vec<&str> = rest.lines().filter(|line| !line.starts_with("node-1")).collect();
    insta::assert_snapshot!(steady(&scene, &last.join("\n")), @r"
    error: interrupted; prefetch shop/web stays, and goes on
    hint: follow it with `kubectl coral status web -n shop`
    ");
    assert_eq!(
        coral(&scene, &["status", "-o", "name"]).succeeded().stdout,
        "prefetch.image.stvz.io/web\n"
    );
}
