//! `mirror`, `mirror status`, `mirror check` and `mirror gc`, without a mirror controller: the objects that it would write are written here.

use coral_api::{Mirror, MirroredImage, MirroredImageSpec, mirror::Rewrite, mirrored_image};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::support::{Scene, coral::coral};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_made_and_shown_and_explained() {
    let scene = Scene::new("verbs").await;
    let name = format!("verbs-{}", scene.namespace.name());
    let image = format!("registry.example/{}/web:v1", scene.namespace.name());
    let add = [
        "mirror",
        &image,
        "--to",
        "copies.example:5000/mirror",
        "--rewrite",
        "on-failure",
        "--name",
        &name,
    ];
    let full_name = format!("mirror.image.stvz.io/{name}");
    let told = |verb: &str| format!("{full_name} {verb}\n");

    let dry = coral(&scene, &[&add[..], &["--dry-run=server"]].concat()).succeeded();
    assert_eq!(dry.stdout, told("created (server dry run)"));
    assert_eq!(coral(&scene, &add).succeeded().stdout, told("created"));
    assert_eq!(coral(&scene, &add).succeeded().stdout, told("unchanged"));
    let more = [&add[..], &["--remove-unused-after", "720h"]].concat();
    assert_eq!(coral(&scene, &more).succeeded().stdout, told("configured"));
    let spec = &scene.get(&format!("mirror/{name}"))["spec"];
    assert_eq!(spec["retention"], json!({"unusedFor": "720h"}));
    assert_eq!(spec["destinations"][0]["repositoryPrefix"], "mirror");
    // The API server itself refuses what makes no sense, in words for people.
    let wrong = [&add[..], &["--discover", "--exclude", "a b"]].concat();
    coral(&scene, &wrong).failed(1, &["must be the name of an image without tag and digest"]);
    let late = [&more[..], &["--wait", "--timeout", "1s"]].concat();
    coral(&scene, &late).failed(
        4,
        &["nobody has looked at it", &format!("mirror status --mirror {name}")],
    );

    let check = |image: &str| coral(&scene, &["mirror", "check", image]).succeeded().stdout;
    let unseen = check(&image);
    assert!(
        unseen.contains(&format!("{name} names it, but nobody has acted on that")),
        "{unseen}"
    );

    let images: Api<MirroredImage> = Api::all(scene.cluster.client());
    let object_name = mirrored_image::name(&image.parse().unwrap());
    let object = MirroredImage::new(
        &object_name,
        MirroredImageSpec {
            image: image.clone(),
            requested_by: vec![name.clone()],
            rewrite: Rewrite::OnFailure,
        },
    );
    images.create(&PostParams::default(), &object).await.unwrap();
    let copy = format!("copies.example:5000/mirror/{image}");
    let status = json!({"status": {
        "digest": DIGEST,
        "destinations": [{"mirror": name, "reference": copy, "nodeReference": copy, "state": "Present", "digest": DIGEST, "copiedBytes": 0}],
        "origin": {"state": "Unreachable", "checkedAt": "2026-01-01T00:00:00Z", "message": "connection refused"},
        "usedBy": {"count": 3},
    }});
    images
        .patch_status(&object_name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();

    let shown = coral(&scene, &["mirror", "status", &image]).succeeded().stdout;
    let row = shown.lines().nth(1).unwrap();
    let columns: Vec<&str> = row.split_whitespace().take(5).collect();
    assert_eq!(
        columns,
        [
            image.as_str(),
            &DIGEST[7..19],
            "copies.example:5000",
            "unreachable",
            "3"
        ]
    );
    assert!(shown.contains("connection refused"), "{shown}");
    assert_eq!(
        scene.json(&["mirror", "status", &image, "-o", "json"])["spec"]["image"],
        image
    );
    let verdict = scene.json(&["mirror", "check", &image, "-o", "json"]);
    let gone = &verdict["conditions"][4];
    assert_eq!(
        (&gone["condition"], &gone["holds"]),
        (&json!("the original is not to be had"), &json!(true))
    );

    let plan = scene.json(&["mirror", "gc", "--dry-run", "-o", "json"]);
    let is_ours = |entry: &serde_json::Value| entry["image"].as_str() == Some(image.as_str());
    let all = [&plan["removals"], &plan["kept"]].map(|list| list.as_array().unwrap());
    assert!(
        !all.into_iter().flatten().any(is_ours),
        "it is in spec.images of a Mirror: {plan}"
    );

    images.delete(&object_name, &DeleteParams::default()).await.unwrap();
    let mirrors: Api<Mirror> = Api::all(scene.cluster.client());
    mirrors.delete(&name, &DeleteParams::default()).await.unwrap();
}
