//! `explain`: each of the causes for which a Pod waits, or does not.

use coral_api::{FailureReason, ImageReference};
use coral_tests::wait::{Look, eventually};
use serde_json::{Map, Value, json};

use crate::{
    shown::both,
    support::{LABELS_FOLLOW, PATIENCE, Scene, coral::coral, on},
};

fn key(image: &str) -> String {
    image.parse::<ImageReference>().unwrap().label_key()
}

/// A Pod that goes only where these images are, with a container of the first of them.
fn placed(name: &str, image: &str, labels: &[&str]) -> Value {
    let selector: Map<String, Value> = labels.iter().map(|image| (key(image), "available".into())).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": selector,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "Never"}],
        },
    })
}

impl Scene {
    /// Makes a Pod, and returns when Kubernetes has said what it waits for, or that it runs.
    async fn pod(&self, pod: &Value) {
        self.create(pod);
        let name = format!("pod/{}", pod["metadata"]["name"].as_str().unwrap());
        eventually(
            &format!("Kubernetes to say something of {name}"),
            PATIENCE,
            async || {
                let pod = self.get(&name);
                let is_scheduled = pod["status"]["conditions"][0]["reason"].is_string();
                let container = &pod["status"]["containerStatuses"][0]["state"];
                let waits = container["waiting"]["reason"]
                    .as_str()
                    .is_some_and(|reason| reason != "ContainerCreating");
                let said =
                    waits || container["running"].is_object() || (pod["spec"]["nodeName"].is_null() && is_scheduled);
                Ok(if said {
                    Look::Done(())
                } else {
                    Look::NotYet(pod["status"].clone())
                })
            },
        )
        .await
        .unwrap();
    }

    fn explained(&self, name: &str) -> String {
        let text = both(self, &coral(self, &["explain", name]).succeeded());
        // The scheduler counts nodes, of which other tests have some.
        let lines = text.lines().map(|line| match line.split_once("the scheduler says: ") {
            Some((before, after)) if !after.is_empty() => format!("{before}the scheduler says: …"),
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_node_is_told_which_image_is_missing_where() {
    let scene = Scene::new("verbs").await;
    let (one, two, nowhere) = (scene.image("one"), scene.image("two"), scene.image("nowhere"));
    let missing = format!("{}/{}/missing:v1", scene.cluster.registry(), scene.namespace.name());
    let held = scene.image("held");
    for (name, image, node, suspend) in [
        ("one", &one, "node-1", false),
        ("two", &two, "node-2", false),
        ("missing", &missing, "node-1", false),
        ("held", &held, "node-1", true),
    ] {
        let spec = json!({"images": [image], "nodeSelector": on(&[node]), "suspend": suspend, "mode": "Once", "backoffLimit": 1});
        scene.prefetch(name, spec).await;
    }
    scene.ready("one").await;
    scene.ready("two").await;
    scene.fails_with("missing", FailureReason::NotFound).await;
    scene.label("node-1", &one, true, LABELS_FOLLOW).await;
    scene.label("node-2", &two, true, LABELS_FOLLOW).await;

    scene.pod(&placed("unwanted", &nowhere, &[&nowhere])).await;
    insta::assert_snapshot!(scene.explained("pod/unwanted"), @r"
    pod shop/unwanted: Pending, on no node

    no Prefetch asks for registry/shop/nowhere:v1 on a node that the pod could go to: `kubectl coral prefetch registry/shop/nowhere:v1`
    ");
    scene.pod(&placed("broken", &missing, &[&missing])).await;
    insta::assert_snapshot!(scene.explained("pods/broken"), @r"
    pod shop/broken: Pending, on no node

    NODE registry/shop/missing:v1
    node-1 failed NotFound

    registry/shop/missing:v1 is on no node yet: node-1 (failed: NotFound)

    registry/shop/missing:v1 failed on node-1: NotFound
      registry/shop/missing:v1: not found
      SOME attempts, the next SOME time
      hint: check the name and the tag: registry has no such image
    ");
    scene.pod(&placed("held", &held, &[&held])).await;
    insta::assert_snapshot!(scene.explained("po/held"), @r"
    pod shop/held: Pending, on no node

    NODE registry/shop/held:v1
    node-1 held

    registry/shop/held:v1 is on no node yet: node-1 (held until its turn comes, or its Prefetch is resumed)
    ");
    scene.pod(&placed("stale", &one, &["nginx:1.28"])).await;
    insta::assert_snapshot!(scene.explained("stale"), @r"
    pod shop/stale: Pending, on no node

    NODE registry/shop/one:v1
    node-1 present

    it asks for the node label image.stvz.io/HASH, which no node has and which is of no image in this pod: its selector is left over from another image; the annotation image.stvz.io/inject puts the right one there, and `kubectl coral uninject` takes it away
    ");
    let mut apart = placed("apart", &one, &[&one, &two]);
    apart["spec"]["containers"] = json!([
        {"name": "one", "image": one, "imagePullPolicy": "Never"},
        {"name": "two", "image": two, "imagePullPolicy": "Never"},
    ]);
    scene.pod(&apart).await;
    insta::assert_snapshot!(scene.explained("pod/apart"), @r"
    pod shop/apart: Pending, on no node

    NODE registry/shop/one:v1 registry/shop/two:v1
    node-1 present -
    node-2 - present

    no node has all of its images: registry/shop/one:v1 is on node-1; registry/shop/two:v1 is on node-2
    ");
    let mut greedy = placed("greedy", &one, &[&one]);
    greedy["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1000"}});
    scene.pod(&greedy).await;
    insta::assert_snapshot!(scene.explained("pod/greedy"), @r"
    pod shop/greedy: Pending, on no node

    NODE registry/shop/one:v1
    node-1 present

    node-1 has every image that it asks for, so it waits for something else; the scheduler says: …
    ");
    let mut elsewhere = placed("elsewhere", &one, &[&one]);
    elsewhere["spec"]["nodeSelector"]["zone"] = "nowhere".into();
    scene.pod(&elsewhere).await;
    insta::assert_snapshot!(scene.explained("pod/elsewhere"), @r"
    pod shop/elsewhere: Pending, on no node

    NODE registry/shop/one:v1
    node-1 present

    registry/shop/one:v1 is needed, and no node has the other labels that the pod asks for
    ");
    let mut indifferent = placed("indifferent", &one, &[]);
    indifferent["spec"]["nodeSelector"] = json!({"zone": "nowhere"});
    scene.pod(&indifferent).await;
    insta::assert_snapshot!(scene.explained("pod/indifferent"), @r"
    pod shop/indifferent: Pending, on no node

    NODE registry/shop/one:v1
    node-1 present

    it does not choose its node by image; the scheduler says: …
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_a_node_is_told_what_its_containers_wait_for() {
    let scene = Scene::new("verbs").await;
    let (one, nowhere) = (scene.image("one"), scene.image("nowhere"));
    let missing = format!("{}/{}/missing:v1", scene.cluster.registry(), scene.namespace.name());
    scene
        .prefetch("one", json!({"images": [one], "nodeSelector": on(&["node-1"])}))
        .await;
    let spec = json!({"images": [missing], "nodeSelector": on(&["node-1"]), "mode": "Once", "backoffLimit": 1});
    scene.prefetch("missing", spec).await;
    scene.ready("one").await;
    scene.fails_with("missing", FailureReason::NotFound).await;
    let here = |name: &str, image: &str| {
        let mut pod = placed(name, image, &[]);
        pod["spec"]["nodeName"] = "node-1".into();
        pod
    };
    scene.pod(&here("unwanted", &nowhere)).await;
    insta::assert_snapshot!(scene.explained("pod/unwanted"), @r#"
    pod shop/unwanted: Pending, on node-1

    container app waits for registry/shop/nowhere:v1: no Prefetch asks for it on node-1; the kubelet may not pull it (imagePullPolicy Never), so prefetch it: `kubectl coral prefetch registry/shop/nowhere:v1`; the kubelet says ErrImageNeverPull (Container image "registry/shop/nowhere:v1" is not present with pull policy of Never)
    "#);
    scene.pod(&here("broken", &missing)).await;
    insta::assert_snapshot!(scene.explained("pod/broken"), @r#"
    pod shop/broken: Pending, on node-1

    NODE registry/shop/missing:v1
    node-1 failed NotFound

    container app waits for registry/shop/missing:v1: on node-1 it failed: NotFound; the kubelet waits for it (imagePullPolicy Never); the kubelet says ErrImageNeverPull (Container image "registry/shop/missing:v1" is not present with pull policy of Never)

    registry/shop/missing:v1 failed on node-1: NotFound
      registry/shop/missing:v1: not found
      SOME attempts, the next SOME time
      hint: check the name and the tag: registry has no such image
    "#);
    scene.pod(&here("runs", &one)).await;
    insta::assert_snapshot!(scene.explained("pod/runs"), @r"
    pod shop/runs: Running, on node-1

    NODE registry/shop/one:v1
    node-1 present

    nothing in it waits for an image
    ");
    let refused = coral(&scene, &["explain", "pod/rnus"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &refused), @r#"
    ! error: pods "rnus" not found
    ! hint: `kubectl get pods -A` lists those that are there, of all namespaces
    "#);
    let refused = coral(&scene, &["explain", "deploy/web"]).failed(2, &[]);
    insta::assert_snapshot!(both(&scene, &refused), @r#"
    ! error: invalid value 'deploy/web' for '<pod/NAME>...': "deploy" is not a Pod; write pod/NAME
    !
    ! For more information, try '--help'.
    "#);
}
