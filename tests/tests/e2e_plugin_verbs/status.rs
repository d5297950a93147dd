//! `status` and `images`: what is shown of Prefetches, nodes and failures.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use coral_api::FailureReason;
use kube::api::{Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    shown::{both, steady},
    support::{
        Scene,
        coral::{command, coral},
        on,
    },
};

/// A namespace with a Prefetch that is ready on two nodes, and one that fails on the first of them.
async fn scene() -> Scene {
    let scene = Scene::new("verbs").await;
    let (one, two) = (scene.image("one"), scene.image("two"));
    let missing = format!("{}/{}/missing:v1", scene.cluster.registry(), scene.namespace.name());
    scene
        .prefetch(
            "web",
            json!({"images": [one, two], "nodeSelector": on(&["node-1", "node-2"])}),
        )
        .await;
    scene
        .prefetch(
            "broken",
            json!({"images": [missing], "nodeSelector": on(&["node-1"]), "mode": "Once", "backoffLimit": 1}),
        )
        .await;
    let label = json!({"metadata": {"labels": {"team": scene.namespace.name()}}});
    scene
        .prefetches()
        .patch("web", &PatchParams::default(), &Patch::Merge(&label))
        .await
        .unwrap();
    scene.ready("web").await;
    scene.fails_with("broken", FailureReason::NotFound).await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_part_that_is_asked_for() {
    let scene = scene().await;
    let shown = |arguments: &[&str]| both(&scene, &coral(&scene, &[&["status"], arguments].concat()).succeeded());
    insta::assert_snapshot!(shown(&[]), @r"
    PREFETCH NODES READY IMAGES FAILED AGE
    broken 1 0 1 1 AGE
    web 2 2 2 0 AGE

    NODE registry/shop/missing:v1 registry/shop/one:v1 registry/shop/two:v1
    node-1 failed NotFound present present
    node-2 - present present

    registry/shop/missing:v1 failed on node-1: NotFound
      registry/shop/missing:v1: not found
      SOME attempts, the next SOME time
      hint: check the name and the tag: registry has no such image
    ");
    insta::assert_snapshot!(shown(&["--failed"]), @r"
    PREFETCH NODES READY IMAGES FAILED AGE
    broken 1 0 1 1 AGE

    NODE registry/shop/missing:v1
    node-1 failed NotFound

    registry/shop/missing:v1 failed on node-1: NotFound
      registry/shop/missing:v1: not found
      SOME attempts, the next SOME time
      hint: check the name and the tag: registry has no such image
    ");
    insta::assert_snapshot!(shown(&["web", "--image", "/one", "--node", "node-2"]), @r"
    PREFETCH NODES READY IMAGES FAILED AGE
    web 2 2 2 0 AGE

    NODE registry/shop/one:v1
    node-2 present
    ");
    insta::assert_snapshot!(shown(&["pf/web", "-o", "wide", "--node", "node/node-1"]), @r"
    PREFETCH NODES READY IMAGES FAILED AGE STATUS MODE PRIORITY NODE SELECTOR
    web 2 2 2 0 AGE AllPresent Keep 0 kubernetes.io/hostname in (node-1,node-2)

    NODE RUNTIME FREE registry/shop/one:v1 registry/shop/two:v1
    node-1 containerd 2.4.2+unknown SIZE present SIZE DIGEST present SIZE DIGEST
    ");
    insta::assert_snapshot!(shown(&["-A", "-l", &format!("team={}", scene.namespace.name())]), @r"
    NAMESPACE PREFETCH NODES READY IMAGES FAILED AGE
    shop web 2 2 2 0 AGE

    NODE registry/shop/one:v1 registry/shop/two:v1
    node-1 present present
    node-2 present present
    ");
    insta::assert_snapshot!(shown(&["-l", "team=nobody"]), @"! No resources found in shop namespace.");
    insta::assert_snapshot!(shown(&["-o", "name"]), @r"
    prefetch.image.stvz.io/broken
    prefetch.image.stvz.io/web
    ");
    insta::assert_snapshot!(shown(&["web", "--no-headers", "--node", "node-1"]), @r"
    web 2 2 2 0 AGE

    node-1 present present
    ");
    let list: Value = scene.json(&["status", "-o", "json"]);
    assert_eq!(
        (&list["kind"], &list["items"][1]["status"]["nodes"]["ready"]),
        (&json!("List"), &json!(2))
    );
    let yaml = coral(&scene, &["status", "web", "-o", "yaml"]).succeeded().stdout;
    assert!(
        yaml.contains("kind: Prefetch") && !yaml.contains("managedFields"),
        "{yaml}"
    );
    let typo = coral(&scene, &["status", "wbe"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &typo), @r#"
    ! error: prefetch "wbe" not found in namespace shop
    ! hint: did you mean web?
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_shown_by_node() {
    let scene = scene().await;
    let images = coral(&scene, &["images", "--node", "node-2"]).succeeded();
    let ours: Vec<&str> = images
        .stdout
        .lines()
        .filter(|line| line.contains(scene.namespace.name()) || line.starts_with("NODE"))
        .collect();
    insta::assert_snapshot!(steady(&scene, &ours.join("\n")), @r"
    NODE IMAGE SIZE DIGEST PINNED WANTED BY
    node-2 registry/shop/one:v1 SIZE DIGEST no shop/web
    node-2 registry/shop/two:v1 SIZE DIGEST no shop/web
    ");
    let typo = coral(&scene, &["images", "--node", "node1"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &typo), @r#"
    ! error: Coral has nothing on node "node1"
    ! hint: did you mean node-1 or node-2?
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_changes_until_it_is_interrupted() {
    let scene = Scene::new("verbs").await;
    let image = scene.image("one");
    let spec = json!({"images": [image], "nodeSelector": on(&["node-1"]), "suspend": true});
    scene.prefetch("web", spec).await;
    let mut child = command(&scene.cluster, &["status", "--watch"])
        .args(["--namespace", scene.namespace.name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut row_with = |ready: &str| loop {
        let line = lines.next().expect("the watch goes on").unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"web") && words.get(2) == Some(&ready) {
            return;
        }
    };
    row_with("0");
    coral(&scene, &["resume", "web"]).succeeded();
    row_with("1");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(130), &b""[..]));
}
