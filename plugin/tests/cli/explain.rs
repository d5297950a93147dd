//! `explain`: why a Pod waits.

use serde_json::json;

use crate::support::{
    Home,
    fake_api::FakeApi,
    objects::{node, not_found},
};

#[test]
fn a_pod_that_waits_for_an_image_says_where_it_is_missing() {
    let api = FakeApi::start();
    let image = "docker.io/library/nginx:1.99";
    api.put_at(
        "api/v1/namespaces/shop/pods/web-1",
        json!({
            "metadata": {"namespace": "shop"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "a", "image": "nginx:1.99", "imagePullPolicy": "Never"}]},
            "status": {"phase": "Pending", "containerStatuses": [
                {"name": "a", "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "not present with pull policy of Never"}}}]},
        }),
    );
    api.put_at("api/v1/nodes/node-1", json!({}));
    api.put_node("node-1", node("web", &[not_found(image)]));
    let home = Home::with_server(&api.url);
    let outcome = home.run(&["explain", "pod/web-1"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(outcome.stdout, @r"
    pod shop/web-1: Pending, on node-1

    NODE     nginx:1.99
    node-1   failed NotFound

    container a waits for nginx:1.99: on node-1 it failed: NotFound; the kubelet waits for it (imagePullPolicy Never); the kubelet says ErrImageNeverPull (not present with pull policy of Never)

    nginx:1.99 failed on node-1: NotFound
      manifest unknown
      3 attempts, and no more will be made
      hint: check the name and the tag: docker.io has no such image
    ");
}

#[test]
fn only_pods_are_explained() {
    let outcome = Home::empty().run(&["explain", "deploy/web"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("\"deploy\" is not a Pod"), "{}", outcome.stderr);
    let api = FakeApi::start();
    let missing = Home::with_server(&api.url).run(&["explain", "web-1"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), ""));
    assert!(missing.stderr.contains("\"web-1\" not found"), "{}", missing.stderr);
}
