//! `kubectl coral` on a cluster that does not have Coral. `cargo xtask test e2e` runs this before it installs Coral.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use support::{Scene, coral::coral};

#[tokio::test(flavor = "multi_thread")]
async fn without_coral_people_learn_how_to_install_it() {
    let scene = Scene::new("bare").await;
    let definitions: Api<CustomResourceDefinition> = Api::all(scene.cluster.client());
    let installed = definitions.get_opt("prefetches.image.stvz.io").await.unwrap();
    assert!(installed.is_none(), "this test needs a cluster without Coral");
    for arguments in [
        &["status"][..],
        &["status", "web"],
        &["prefetch", "nginx"],
        &["prefetch", "nginx", "--wait"],
        &["images"],
        &["refresh", "web"],
        &["suspend", "--all"],
        &["resume", "web"],
        &["delete", "web", "--remove-images"],
    ] {
        let ran = coral(&scene, arguments).failed(
            1,
            &[
                "the server has no resource type prefetches.image.stvz.io",
                "hint: Coral is not installed in this cluster",
            ],
        );
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
    coral(&scene, &["upgrade", "--image", "registry.example/coral:v1"])
        .failed(1, &["nothing to upgrade", "hint: kubectl coral install"]);
    let version = coral(&scene, &["version"]).succeeded();
    assert_eq!(version.stderr, "Coral is not installed in this cluster\n");
    assert!(version.stdout.starts_with("Client Version: "), "{}", version.stdout);
    let nothing = coral(&scene, &["uninstall", "--yes"]).succeeded();
    assert_eq!(nothing.stderr, "nothing of Coral is in this cluster\n");
}
