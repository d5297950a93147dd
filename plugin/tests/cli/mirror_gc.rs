//! `kubectl coral mirror gc`: what goes, and what stays because somebody may need it.

use coral_api::mirrored_image;
use coral_registry::fake::{Behaviour, Fault, Image, Registry};
use serde_json::{Value, json};

use crate::{
    mirror_objects::{empty, put, put_mirror},
    support::fake_api::FakeApi,
};

/// Stores images that a Mirror has copied to this destination, and that nobody has used for long, in a cluster with a name.
fn put_unused(api: &FakeApi, destination: &Value, images: &[&str]) {
    let spec = json!({"discover": {}, "destinations": [destination], "retention": {"unusedFor": "1m"}});
    put_mirror(api, "all", &spec, &json!({}));
    let cluster = json!({"metadata": {"uid": "cluster-1"}});
    api.put_at("api/v1/namespaces/kube-system", cluster);
    for image in images {
        put(api, image, "Never", &json!({"unusedSince": "2026-01-01T00:00:00Z"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_shows_what_goes_and_removes_it_when_somebody_agrees() {
    let registry = Registry::start(Behaviour::default()).await;
    for name in ["old", "new"] {
        Image::new(name, &[1000]).push(&registry, &format!("mirror/docker.io/library/{name}"), Some("1"));
    }
    let (api, home) = empty();
    put_unused(
        &api,
        &json!({"registry": registry.host(), "repositoryPrefix": "mirror"}),
        &["old:1", "new:1"],
    );
    // The status is not the last word: a pod has begun to use it.
    let pod = json!({"metadata": {"namespace": "shop"}, "spec": {"containers": [{"name": "app", "image": "new:1"}]}});
    api.put_at("api/v1/namespaces/shop/pods/web", pod);

    let dry = home.run(&["mirror", "gc", "--dry-run", "-o", "json"]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    let plan: Value = serde_json::from_str(&dry.stdout).unwrap();
    let copy = format!("{}/mirror/docker.io/library/old:1", registry.host());
    assert_eq!(plan["removals"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(
        (&plan["removals"][0]["copy"], &plan["kept"]),
        (&json!(copy), &json!([]))
    );
    let shown = home.run(&["mirror", "gc", "--dry-run"]).stdout;
    assert!(
        shown.contains("unused since 2026-01-01 00:00") && shown.ends_with("1 tag to remove, 0 to keep\n"),
        "{shown}"
    );

    let nobody = home.run(&["mirror", "gc"]);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stderr.ends_with("hint: --yes agrees to it\n"),
        "{}",
        nobody.stderr
    );
    assert!(registry.manifest("mirror/docker.io/library/old", "1").is_some());

    let agreed = home.run(&["mirror", "gc", "--yes", "-o", "name"]);
    assert_eq!(
        (agreed.code, agreed.stdout),
        (Some(0), format!("{copy}\n")),
        "{}",
        agreed.stderr
    );
    assert!(registry.manifest("mirror/docker.io/library/old", "1").is_none());
    assert!(registry.manifest("mirror/docker.io/library/new", "1").is_some());
    let object = |image: &str| {
        api.at(&format!(
            "mirroredimages/{}",
            mirrored_image::name(&image.parse().unwrap())
        ))
    };
    assert!(object("old:1").is_none() && object("new:1").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_removes_nothing_where_it_cannot_see_everything() {
    let registry = Registry::start(Behaviour::default()).await;
    Image::new("old", &[1000]).push(&registry, "docker.io/library/old", Some("1"));
    let (api, home) = empty();
    put_unused(&api, &json!({"registry": registry.host()}), &["old:1"]);

    // Nobody can tell what other clusters need.
    registry.fail(|asked| asked.target.contains("coral-marks").then_some(Fault::Status(403, None)));
    let hidden = home.run(&["mirror", "gc", "--yes", "-o", "json"]);
    assert_eq!(hidden.code, Some(0), "{}", hidden.stderr);
    let plan: Value = serde_json::from_str(&hidden.stdout).unwrap();
    assert_eq!(plan["removals"], json!([]));
    assert!(
        plan["kept"][0]["why"].as_str().unwrap().contains("cannot be read"),
        "{plan}"
    );

    registry.fail(|_| None);
    let forbidden = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no pods for you", "details": {}});
    api.refuse("GET /api/v1/pods", usize::MAX, 403, &forbidden);
    let blind = home.run(&["mirror", "gc", "--yes"]);
    assert_eq!((blind.code, blind.stdout.as_str()), (Some(1), ""));
    assert!(blind.stderr.contains("no pods for you"), "{}", blind.stderr);
    assert!(registry.manifest("docker.io/library/old", "1").is_some());
}
