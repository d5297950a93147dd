//! The component that lets Prefetches name images of listed registries only.

use coral_tests::wait::{Look, eventually};
use serde_json::{Value, json};

use super::{PATIENCE, kubectl, repository, support::Scene};

/// The policy, for the namespace of the scene only: other tests want other registries.
struct Policy<'a> {
    scene: &'a Scene,
    name: String,
}

impl<'a> Policy<'a> {
    fn install(scene: &'a Scene) -> Self {
        let text = std::fs::read_to_string(repository("deploy/components/registry-allowlist/policy.yaml")).unwrap();
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let name = scene.namespace.name().to_owned();
        for object in &mut objects {
            object["metadata"]["name"] = name.as_str().into();
        }
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let spec = &mut objects[1]["spec"];
        spec["policyName"] = name.as_str().into();
        spec["matchResources"] = json!({"namespaceSelector": selector});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        kubectl(&scene.cluster, &["apply", "--filename=-"], &list.to_string()).succeeded();
        Self { scene, name }
    }

    /// Replaces the list, as the patch in the documents does.
    fn allow(&self, registries: &[&str]) {
        let list = format!("['{}']", registries.join("', '"));
        let patch = json!([{"op": "replace", "path": "/spec/variables/0/expression", "value": list}]).to_string();
        let arguments = [
            "patch",
            "validatingadmissionpolicy",
            &self.name,
            "--type=json",
            "--patch",
            &patch,
        ];
        kubectl(&self.scene.cluster, &arguments, "").succeeded();
    }

    /// What a Prefetch of this image is told; nothing when it is taken.
    fn refusal(&self, image: &str) -> Option<String> {
        let prefetch = json!({"apiVersion": "image.stvz.io/v1alpha1", "kind": "Prefetch", "metadata": {"name": "tried"},
            "spec": {"images": [image]}});
        let arguments = ["create", "--dry-run=server", "--namespace", &self.name, "--filename=-"];
        let ran = kubectl(&self.scene.cluster, &arguments, &prefetch.to_string());
        (ran.code != Some(0)).then_some(ran.stderr)
    }

    async fn until(&self, what: &str, image: &str, is_so: impl Fn(Option<&str>) -> bool) {
        eventually(what, PATIENCE, async || {
            let refusal = self.refusal(image);
            Ok(if is_so(refusal.as_deref()) {
                Look::Done(())
            } else {
                Look::NotYet(refusal)
            })
        })
        .await
        .unwrap();
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            kubectl(
                &self.scene.cluster,
                &["delete", kind, &self.name, "--ignore-not-found"],
                "",
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetches_name_images_of_listed_registries_only() {
    let scene = Scene::new("allowlist").await;
    // It was there before the list.
    let earlier = json!({"images": ["quay.io/team/earlier:v1"], "suspend": true});
    scene.prefetch("earlier", earlier).await;
    let policy = Policy::install(&scene);
    let sentence =
        "docker.io/library/nginx is of no registry that Prefetches may name in this cluster; allowed are: none";
    let has_no_list = |refusal: Option<&str>| refusal.is_some_and(|refusal| refusal.contains(sentence));
    policy
        .until("images to be refused while there is no list", "nginx", has_no_list)
        .await;

    policy.allow(&["ghcr.io/acme", "docker.io/library", "localhost:5000/", "[::1]:5000"]);
    policy
        .until("the list to be followed", "nginx", |refusal| refusal.is_none())
        .await;
    for image in [
        "nginx:1.29",
        "library/nginx",
        "docker.io/nginx",
        "docker.io/library/nginx",
        "index.docker.io/library/nginx",
        "index.docker.io/nginx",
        "ghcr.io/acme",
        "ghcr.io/acme:v1",
        "ghcr.io/acme/app/web:v1",
        "localhost:5000/a",
        "[::1]:5000/a",
    ] {
        assert_eq!(policy.refusal(image), None, "{image}");
    }
    for (image, full) in [
        ("team/app", "docker.io/team/app"),
        ("docker.io/team/app", "docker.io/team/app"),
        ("libraryx/nginx", "docker.io/libraryx/nginx"),
        ("ghcr.io/acmeevil/app", "ghcr.io/acmeevil/app"),
        ("ghcr.io/acme.evil/app", "ghcr.io/acme.evil/app"),
        ("ghcr.io/acm/app", "ghcr.io/acm/app"),
        ("ghcr.io.evil.example/acme/app", "ghcr.io.evil.example/acme/app"),
        ("evil.example/ghcr.io/acme/app", "evil.example/ghcr.io/acme/app"),
        (
            "evil.example/docker.io/library/nginx",
            "evil.example/docker.io/library/nginx",
        ),
        ("localhost/a", "localhost/a"),
        ("localhost:50001/a", "localhost:50001/a"),
    ] {
        let sentence = format!(
            "{full} is of no registry that Prefetches may name in this cluster; allowed are: ghcr.io/acme, docker.io/library"
        );
        let refusal = policy.refusal(image);
        assert!(
            refusal.as_deref().is_some_and(|refusal| refusal.contains(&sentence)),
            "{image}: {refusal:?}"
        );
    }

    // What was there before can be changed, but not by another image that is not allowed.
    let change = |images: Value| {
        let patch = json!({"spec": {"priority": 1, "images": images}}).to_string();
        let namespace = scene.namespace.name();
        let arguments = [
            "patch",
            "prefetch",
            "earlier",
            "--namespace",
            namespace,
            "--type=merge",
            "--patch",
            &patch,
        ];
        kubectl(&scene.cluster, &arguments, "")
    };
    change(json!(["quay.io/team/earlier:v1", "nginx"])).succeeded();
    change(json!(["quay.io/team/earlier:v1", "quay.io/team/later:v1"]))
        .failed(1, &["quay.io/team/later:v1 is of no registry"]);
    // As many as there can be, as long as they can be: the API server looks at them all.
    let many: Vec<String> = (0..256)
        .map(|i| format!("ghcr.io/acme/{}/image-{i}:v1", "x".repeat(150)))
        .collect();
    change(json!(many)).succeeded();
}
