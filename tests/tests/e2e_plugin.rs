//! `kubectl coral` as people run it: through kubectl, from the PATH, against a real cluster.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use coral_api::FailureReason;
use serde_json::{Value, json};
use support::{Scene, coral::coral, on};

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_waits_until_the_images_are_there_and_status_shows_them() {
    let scene = Scene::new("plugin").await;
    let image = scene.image("app");
    let selector = "kubernetes.io/hostname in (node-1, node-2)";
    let ran = coral(
        &scene,
        &[
            "prefetch",
            &image,
            "--name",
            "web",
            "--node-selector",
            selector,
            "--wait",
        ],
    )
    .succeeded();
    assert_eq!(ran.stdout, "prefetch.image.stvz.io/web created\n");
    assert!(scene.holds("node-1", &image) && scene.holds("node-2", &image));

    let again = coral(
        &scene,
        &["prefetch", &image, "--name", "web", "--node-selector", selector],
    )
    .succeeded();
    assert_eq!(again.stdout, "prefetch.image.stvz.io/web unchanged\n");

    let status = coral(&scene, &["status", "web"]).succeeded();
    for node in ["node-1", "node-2"] {
        let row = status.stdout.lines().find(|line| line.starts_with(node)).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), [node, "present"]);
    }
    let json: Value =
        serde_json::from_str(&coral(&scene, &["status", "web", "-o", "json"]).succeeded().stdout).unwrap();
    assert_eq!(json["status"]["nodes"]["ready"], 2);
    assert_eq!(
        coral(&scene, &["status", "-o", "name"]).succeeded().stdout,
        "prefetch.image.stvz.io/web\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_image_ends_the_wait_with_its_failure() {
    let scene = Scene::new("plugin-unknown").await;
    let image = format!("{}/nothing/here:v1", scene.cluster.registry());
    scene
        .prefetch(
            "web",
            json!({"images": [image], "nodeSelector": on(&["node-1"]), "backoffLimit": 1}),
        )
        .await;
    scene.fails_with("web", FailureReason::NotFound).await;
    let status = coral(&scene, &["status", "web"]).succeeded();
    assert!(status.stdout.contains("failed NotFound"), "{}", status.stdout);
    assert!(status.stdout.contains("hint: "), "{}", status.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_cannot_end_well_ends() {
    let scene = Scene::new("plugin-wait").await;
    let image = format!("{}/nothing/here:v2", scene.cluster.registry());
    let selector = "kubernetes.io/hostname=node-1";
    let arguments = [
        "prefetch",
        &image,
        "--name",
        "web",
        "--node-selector",
        selector,
        "--wait",
        "--timeout",
        "2s",
    ];
    coral(&scene, &arguments).failed(4, &["NotFound", "hint: "]);
    let arguments = [
        "prefetch",
        &image,
        "--name",
        "web",
        "--node-selector",
        selector,
        "--wait",
        "--timeout",
        "90s",
    ];
    coral(&scene, &arguments).failed(3, &["NotFound", "hint: "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_one_sentence_and_a_hint() {
    let scene = Scene::new("plugin-bad").await;
    coral(&scene, &["prefetch", "Nginx"]).failed(2, &["\"Nginx\" is not an image reference", "must be lower case"]);
    coral(&scene, &["prefetch", "nginx", "--node-selector", "a in b"]).failed(2, &["a in b"]);
    coral(&scene, &["prefetch", "nginx", "--name", "Web"]).failed(2, &["Web"]);
    coral(&scene, &["prefech", "nginx"]).failed(2, &["prefetch"]);
    coral(&scene, &["status", "nothing"]).failed(1, &["nothing", "not found"]);
    coral(&scene, &["prefetch", "nginx", "--context", "elsewhere"]).failed(1, &["elsewhere", "hint: "]);
    let ran = coral(&scene, &["status", "--as", "nobody"]).failed(1, &["forbidden", "nobody", "hint: "]);
    assert_eq!(ran.stdout, "");
    coral(&scene, &["prefetch", "nginx", "--as", "nobody"]).failed(1, &["forbidden", "nobody", "hint: "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_does_not_exist_is_named() {
    let mut scene = Scene::new("plugin-namespace").await;
    let gone = scene.cluster.temp_namespace("gone").await.unwrap();
    let name = gone.name().to_owned();
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(scene.cluster.client());
    scene.namespace = gone;
    namespaces
        .delete(&name, &kube::api::DeleteParams::default())
        .await
        .unwrap();
    coral_tests::wait::eventually("the namespace to go", support::PATIENCE, async || {
        let found = namespaces.get_opt(&name).await?;
        Ok(found.map_or(coral_tests::wait::Look::Done(()), |found| {
            coral_tests::wait::Look::NotYet(found.status)
        }))
    })
    .await
    .unwrap();
    coral(&scene, &["prefetch", "nginx"]).failed(1, &[&name, "hint: "]);
}
