//! Copies between two real registries: an open one, and one behind TLS and a password.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::{env, fs, process::Command, sync::Mutex, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coral_api::ImageReference;
use coral_registry::{Client, Credential, Error, Keyring, Manifest, Options, Patience, Repository};
use coral_tests::images;
use futures::stream;
use serde_json::{Value, json};
use support::{Scene, coral::Ran};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the command needs to reach both registries.
struct Registries {
    folder: TempDir,
    open: String,
    authenticated: String,
    authority: String,
}

impl Registries {
    fn new(scene: &Scene) -> Self {
        let registry = scene.cluster.registry_auth();
        let folder = TempDir::new().unwrap();
        let login = STANDARD.encode(format!("{}:{}", registry.user, registry.password));
        let config = json!({"auths": {&registry.host: {"auth": login}}});
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        Self {
            folder,
            open: scene.cluster.registry(),
            authenticated: registry.host,
            authority: registry.authority.to_str().unwrap().to_owned(),
        }
    }

    /// Runs `kubectl-coral mirror copy`, without a cluster.
    fn copy(&self, arguments: &[&str]) -> Ran {
        // The plugin lies beside the tests: target/debug/kubectl-coral, target/debug/deps/….
        let tests = env::current_exe().unwrap();
        let plugin = tests.ancestors().nth(2).unwrap().join("kubectl-coral");
        let mut command = Command::new(plugin);
        command
            .env_clear()
            .env("DOCKER_CONFIG", self.folder.path())
            .args([
                "mirror",
                "copy",
                "--plain-http",
                &self.open,
                "--ca-file",
                &self.authority,
            ])
            .args(arguments);
        command.output().unwrap().into()
    }

    /// The client of the tests themselves.
    fn client(&self) -> (Client, Keyring) {
        let options = Options {
            plain_http: [self.open.clone()].into(),
            authorities: fs::read(&self.authority).unwrap(),
            patience: Patience {
                attempts: 3,
                first_pause: std::time::Duration::from_millis(100),
                longest_pause: std::time::Duration::from_secs(2),
            },
            ..Options::default()
        };
        let config = fs::read(self.folder.path().join("config.json")).unwrap();
        (
            Client::new(options).unwrap(),
            Keyring::from_config_json(&config).unwrap(),
        )
    }

    fn repository(&self, image: &str) -> Repository {
        let (client, keyring) = self.client();
        let image: ImageReference = image.parse().unwrap();
        let credential: Option<Credential> = keyring
            .lookup(&format!("{}/x", self.authenticated))
            .first()
            .copied()
            .cloned();
        client.repository(
            &image,
            credential.as_ref().filter(|_| image.registry() == self.authenticated),
        )
    }
}

/// Puts a small artefact there that refers to an image, and gives its digest.
async fn sign(repository: &Repository, subject: &str) -> String {
    let content = b"{}";
    let blob = coral_registry::digest(content);
    let from = |offset| stream::iter([Ok(content.get(usize::try_from(offset).unwrap()..).unwrap().into())]);
    repository
        .send_blob(None, &blob, content.len() as u64, from)
        .await
        .unwrap();
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": blob, "size": content.len()});
    let size = repository.manifest(subject).await.unwrap().bytes.len();
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": empty,
        "layers": [empty],
        "subject": {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": subject, "size": size},
    });
    let bytes = document.to_string();
    let manifest = Manifest {
        media_type: MANIFEST.to_owned(),
        digest: coral_registry::digest(bytes.as_bytes()),
        bytes: bytes.into(),
    };
    if repository.put_manifest(&manifest.digest, &manifest).await.unwrap() {
        return manifest.digest;
    }
    // This registry keeps no list of what refers to a manifest: whoever writes it does.
    let entry = json!({"mediaType": MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len()});
    let list =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
    let bytes = list.to_string();
    let list = Manifest {
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        digest: coral_registry::digest(bytes.as_bytes()),
        bytes: bytes.into(),
    };
    let tag = subject.replacen(':', "-", 1);
    repository.put_manifest(&tag, &list).await.unwrap();
    manifest.digest
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_its_signature_is_copied_whole_and_its_layers_once() {
    let scene = Scene::new("mirror").await;
    let registries = Registries::new(&scene);
    let (open, authenticated) = (
        scene.cluster.open_registry(),
        scene.cluster.authenticated_registry().unwrap(),
    );
    let name = format!("{}/app", scene.namespace.name());
    let parts = ["one", "two"].map(|part| {
        let seed = format!("{name} {part}");
        images::tiny(&open, &format!("{name}-{part}"), "v1", 200_000, &seed).unwrap()
    });
    let index = open.reference(&format!("{name}:v1"));
    open.crane([
        "index",
        "append",
        "-m",
        &parts[0].reference,
        "-m",
        &parts[1].reference,
        "-t",
        &index,
    ])
    .unwrap();
    let digest = open.digest(&index).unwrap();
    let signature = sign(&registries.repository(&index), &digest).await;

    let place = format!("{}/{}/", registries.authenticated, scene.namespace.name());
    let copied = registries
        .copy(&[&index, &parts[0].reference, &place, "-o", "json"])
        .succeeded();
    let report: Value = serde_json::from_str(&copied.stdout).unwrap();
    assert_eq!(report["images"][0]["state"], "Copied", "{report}");
    assert_eq!(report["images"][0]["digest"], digest);
    assert!(report["blobs"]["mounted"].as_u64().unwrap() >= 2, "{report}");
    let copy = report["images"][0]["destination"].as_str().unwrap().to_owned();

    // As somebody else's client sees it: the same digest, and every layer what its digest says.
    assert_eq!(authenticated.digest(&copy).unwrap(), digest);
    authenticated.crane(["validate", "--remote", &copy]).unwrap();
    let there = registries.repository(&copy);
    let referrers = there.referrers(&digest).await.unwrap();
    assert!(
        referrers.iter().any(|referrer| referrer.digest == signature),
        "{referrers:?}"
    );
    assert!(there.manifest(&signature).await.is_ok());

    let again = registries
        .copy(&[&index, &parts[0].reference, &place, "-o", "json"])
        .succeeded();
    let report: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(report["images"][0]["state"], "Unchanged", "{report}");
    assert_eq!(report["sentBytes"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_goes_on_where_an_upload_was_cut() {
    let scene = Scene::new("mirror-cut").await;
    let registries = Registries::new(&scene);
    let content: Vec<u8> = scene.namespace.name().bytes().cycle().take(1_000_003).collect();
    let digest = coral_registry::digest(&content);
    let size = content.len() as u64;
    for registry in [&registries.open, &registries.authenticated] {
        let repository = registries.repository(&format!("{registry}/{}/cut:v1", scene.namespace.name()));
        let offsets = Mutex::new(Vec::new());
        let from = |offset: u64| {
            let is_first = offset == 0;
            offsets.lock().unwrap().push(offset);
            let rest = content.get(usize::try_from(offset).unwrap()..).unwrap();
            let parts = rest.chunks(65_537).map(|part| Ok(part.to_vec().into()));
            let mut parts: Vec<_> = if is_first {
                parts.take(9).collect()
            } else {
                parts.collect()
            };
            if is_first {
                parts.push(Err(Error::Timeout {
                    host: "origin.example".to_owned(),
                    after: Duration::from_secs(1),
                }));
            }
            stream::iter(parts)
        };
        repository.send_blob(None, &digest, size, from).await.unwrap();
        assert_eq!(repository.blob_size(&digest).await.unwrap(), Some(size));
        let offsets = offsets.into_inner().unwrap();
        assert!(matches!(offsets[..], [0, 1..=589_833]), "{registry}: {offsets:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_login_the_hint_says_what_to_do() {
    let scene = Scene::new("mirror-login").await;
    let registries = Registries::new(&scene);
    let image = scene.image("app");
    let destination = format!("{}/{}/refused", registries.authenticated, scene.namespace.name());
    fs::remove_file(registries.folder.path().join("config.json")).unwrap();
    let hint = format!("docker login {}", registries.authenticated);
    registries
        .copy(&[&image, &destination])
        .failed(1, &["refuses access", &hint]);
}
