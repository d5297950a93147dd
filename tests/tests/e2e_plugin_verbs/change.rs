//! `refresh`, `suspend`, `resume`, `delete`, `allow-secret`, `version`.

use coral_api::keys;
use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use serde_json::json;

use crate::{
    shown::both,
    support::{PATIENCE, Scene, coral::coral, on},
};

#[tokio::test(flavor = "multi_thread")]
async fn prefetches_are_suspended_resumed_and_refreshed() {
    let scene = Scene::new("verbs").await;
    let image = scene.image("one");
    let spec = json!({"images": [image], "nodeSelector": on(&["node-1"])});
    scene.prefetch("web", spec.clone()).await;
    scene.prefetch("api", spec).await;
    let shown = |arguments: &[&str]| both(&scene, &coral(&scene, arguments).succeeded());
    insta::assert_snapshot!(shown(&["suspend", "web"]), @"prefetch.image.stvz.io/web suspended");
    insta::assert_snapshot!(shown(&["suspend", "--all"]), @r"
    prefetch.image.stvz.io/api suspended
    prefetch.image.stvz.io/web unchanged
    ");
    insta::assert_snapshot!(shown(&["refresh", "prefetch/web"]), @r"
    prefetch.image.stvz.io/web refreshed
    ! warning: prefetch.image.stvz.io/web is suspended: nothing is pulled until it is resumed
    ");
    insta::assert_snapshot!(shown(&["resume", "pf/web", "prefetches.image.stvz.io/api"]), @r"
    prefetch.image.stvz.io/web resumed
    prefetch.image.stvz.io/api resumed
    ");
    assert_eq!(scene.json(&["resume", "web", "-o", "json"])["spec"]["suspend"], false);
    let refreshed = scene.json(&["refresh", "web", "-o", "json"]);
    let time = refreshed["metadata"]["annotations"][keys::REFRESH_ANNOTATION].as_str();
    assert!(time.is_some_and(|time| time.ends_with('Z')), "{refreshed}");
    let missing = coral(&scene, &["suspend", "wep", "web"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &missing), @r#"
    prefetch.image.stvz.io/web suspended
    ! error: prefetch "wep" not found in namespace shop
    ! hint: did you mean web?
    "#);
    insta::assert_snapshot!(shown(&["refresh", "-l", "team=nobody"]), @"! No resources found in shop namespace.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_takes_its_images_along_if_asked_to() {
    let scene = Scene::new("verbs").await;
    let (kept, removed) = (scene.image("kept"), scene.image("removed"));
    for (name, image) in [("keep", &kept), ("remove", &removed), ("other", &kept)] {
        scene
            .prefetch(name, json!({"images": [image], "nodeSelector": on(&["node-1"])}))
            .await;
    }
    for name in ["keep", "remove", "other"] {
        scene.ready(name).await;
    }
    let shown = |arguments: &[&str]| both(&scene, &coral(&scene, arguments).succeeded());
    insta::assert_snapshot!(shown(&["delete", "keep", "--dry-run=client"]), @"prefetch.image.stvz.io/keep deleted (dry run)");
    insta::assert_snapshot!(shown(&["delete", "keep", "--dry-run=server"]), @"prefetch.image.stvz.io/keep deleted (server dry run)");
    insta::assert_snapshot!(shown(&["delete", "remove", "--remove-images"]), @"prefetch.image.stvz.io/remove deleted");
    insta::assert_snapshot!(shown(&["delete", "pf/keep", "-o", "name"]), @"prefetch.image.stvz.io/keep");
    eventually("the image to leave the node", PATIENCE, async || {
        let is_there = scene.holds("node-1", &removed);
        Ok(if is_there { Look::NotYet(()) } else { Look::Done(()) })
    })
    .await
    .unwrap();
    assert!(scene.holds("node-1", &kept), "another Prefetch wants it");
    let again = coral(&scene, &["delete", "keep", "--ignore-not-found"]).succeeded();
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("", ""));
    let again = coral(&scene, &["delete", "keep"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &again), @r#"
    ! error: prefetch "keep" not found in namespace shop
    ! hint: `kubectl coral status -n shop` lists those that are there, -A those of all namespaces
    "#);
    insta::assert_snapshot!(shown(&["delete", "--all"]), @"prefetch.image.stvz.io/other deleted");
    insta::assert_snapshot!(shown(&["delete", "--all"]), @"! No resources found in shop namespace.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_allowed_by_name() {
    let scene = Scene::new("verbs").await;
    let shown = |arguments: &[&str]| both(&scene, &coral(&scene, arguments).succeeded());
    insta::assert_snapshot!(shown(&["allow-secret", "regcred"]), @r#"
    role.rbac.authorization.k8s.io/coral-agent-regcred created
    rolebinding.rbac.authorization.k8s.io/coral-agent-regcred created
    ! warning: there is no Secret "regcred" in namespace shop yet
    "#);
    scene
        .kubectl(
            &[
                "create",
                "secret",
                "docker-registry",
                "regcred",
                "--docker-username=u",
                "--docker-password=p",
            ],
            "",
        )
        .succeeded();
    insta::assert_snapshot!(shown(&["allow-secret", "regcred"]), @r"
    role.rbac.authorization.k8s.io/coral-agent-regcred unchanged
    rolebinding.rbac.authorization.k8s.io/coral-agent-regcred unchanged
    ");
    let roles: Api<Role> = scene.namespace.api();
    let role = roles.get("coral-agent-regcred").await.unwrap();
    let granted = serde_json::to_value(role.rules).unwrap();
    assert_eq!(
        granted,
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["regcred"], "verbs": ["get"]}])
    );
    let bindings: Api<RoleBinding> = scene.namespace.api();
    let binding = bindings.get("coral-agent-regcred").await.unwrap();
    assert_eq!(binding.subjects.unwrap()[0].name, keys::AGENT_SERVICE_ACCOUNT);
    // What the grant is for: the agents may read it, and nothing else there.
    let agent = format!(
        "system:serviceaccount:{}:{}",
        keys::SYSTEM_NAMESPACE,
        keys::AGENT_SERVICE_ACCOUNT
    );
    for (secret, code) in [("secret/regcred", 0), ("secret/other", 1)] {
        let may = scene.kubectl(&["auth", "can-i", "get", secret, "--as", &agent], "");
        assert_eq!(may.code, Some(code), "{secret}: {}", may.stdout);
    }

    // The mirror controller is somebody else, who is allowed by himself.
    let mirror = format!(
        "system:serviceaccount:{}:{}",
        keys::SYSTEM_NAMESPACE,
        keys::MIRROR_SERVICE_ACCOUNT
    );
    let may_read = |secret: &str| {
        let may = scene.kubectl(&["auth", "can-i", "get", secret, "--as", &mirror], "");
        may.code == Some(0)
    };
    assert!(!may_read("secret/regcred"));
    insta::assert_snapshot!(shown(&["allow-secret", "regcred", "--mirror"]), @r"
    role.rbac.authorization.k8s.io/coral-mirror-regcred created
    rolebinding.rbac.authorization.k8s.io/coral-mirror-regcred created
    ");
    assert!(may_read("secret/regcred") && !may_read("secret/other"));
    let [role, binding] = ["role/coral-agent-regcred", "rolebinding/coral-agent-regcred"];
    scene.kubectl(&["delete", role, binding], "").succeeded();
    assert!(may_read("secret/regcred"), "that of the agents was another");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_both_sides_are_told() {
    let scene = Scene::new("verbs").await;
    let both_versions = coral(&scene, &["version"]).succeeded();
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let mut lines = both_versions.stdout.lines();
    assert_eq!(lines.next(), Some(format!("Client Version: {version}").as_str()));
    assert!(lines.next().is_some_and(|line| line.starts_with("Server Version: ")));
    let json = scene.json(&["version", "-o", "json"]);
    assert_eq!(json["clientVersion"]["gitVersion"], version);
    assert_eq!(json["serverVersion"]["namespace"], keys::SYSTEM_NAMESPACE);
    let only = coral(&scene, &["version", "--client"]).succeeded();
    assert_eq!(only.stdout, format!("Client Version: {version}\n"));
}
