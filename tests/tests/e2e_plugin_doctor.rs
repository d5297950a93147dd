//! `kubectl coral doctor` on an installation that is well, on one that is broken in many ways at once, and when it is mended again.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use serde_json::json;
use support::{PATIENCE, Scene, coral::coral};

/// How long everything may take to be as it was.
const MENDED: Duration = Duration::from_mins(3);
/// A printer column of a resource type.
const COLUMN: &str = "/spec/versions/0/additionalPrinterColumns/0/name";
/// A label that no node has.
const NOWHERE: &str = "coral-tests~1doctor";

/// Commands that put things right again, also when the test fails; the last first.
struct Mending {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    commands: Vec<Vec<String>>,
}

impl Mending {
    fn new(scene: &Scene) -> Self {
        Self {
            kubectl: scene.cluster.tools().control_plane("kubectl"),
            kubeconfig: scene.cluster.kubeconfig(),
            commands: Vec::new(),
        }
    }

    /// Breaks something, and remembers how it is put right.
    fn break_it(&mut self, broken: &[&str], mended: &[&str]) {
        self.commands
            .push(mended.iter().map(|word| (*word).to_owned()).collect());
        assert!(self.kubectl(broken), "{broken:?}");
    }

    fn break_webhook(&mut self) {
        let scale = |replicas| ["-n", "coral-system", "scale", "deployment", "coral-webhook", replicas];
        self.break_it(&scale("--replicas=0"), &scale("--replicas=2"));
    }

    fn break_resource_type(&mut self) {
        let column = |name: &str| json!([{"op": "replace", "path": COLUMN, "value": name}]).to_string();
        let name = "prefetches.image.stvz.io";
        let (other, right) = (column("Knoten"), column("Nodes"));
        let patch = |operations| ["patch", "crd", name, "--type", "json", "-p", operations];
        self.break_it(&patch(&other), &patch(&right));
    }

    fn break_agents(&mut self) {
        let label = format!("/spec/template/spec/nodeSelector/{NOWHERE}");
        let added = json!([{"op": "add", "path": label, "value": "nowhere"}]).to_string();
        let removed = json!([{"op": "remove", "path": label}]).to_string();
        let agents = ["-n", "coral-system", "patch", "daemonset", "coral-agent"];
        let patch = |operations| [&agents[..], &["--type", "json", "-p", operations]].concat();
        self.break_it(&patch(&added), &patch(&removed));
    }

    /// Asks for copies where nothing makes any.
    fn break_mirror(&mut self, scene: &Scene) {
        self.commands
            .push(["delete", "mirror", "doctor"].map(str::to_owned).to_vec());
        let ask = ["mirror", "nginx", "--to", "registry.example", "--name", "doctor"];
        coral(scene, &ask).succeeded();
    }

    fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> bool {
        let mut command = Command::new(&self.kubectl);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Puts everything right.
    fn mend(&mut self) -> bool {
        let commands: Vec<Vec<String>> = self.commands.drain(..).rev().collect();
        // Each is tried, whatever came of the others.
        let mended: Vec<bool> = commands.iter().map(|command| self.kubectl(command)).collect();
        mended.into_iter().all(|is_mended| is_mended)
    }
}

impl Drop for Mending {
    fn drop(&mut self) {
        self.mend();
    }
}

/// Waits until the command ends with this code and says all of this.
async fn says(scene: &Scene, code: i32, said: &[&str], patience: Duration) {
    let what = format!("the doctor to say {said:?}");
    eventually(&what, patience, async || {
        let ran = coral(scene, &["doctor"]);
        let is_said = said.iter().all(|words| ran.stdout.contains(words));
        Ok(if ran.code == Some(code) && is_said {
            Look::Done(())
        } else {
            Look::NotYet((ran.code, ran.stdout, ran.stderr))
        })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_found_with_its_remedy_and_what_is_mended_is_not() {
    let scene = Scene::new("doctor").await;
    let image = scene.image("app");
    let well = [
        "versions         ok ",
        "resource types   ok ",
        "controller       ok ",
        "agents           ok ",
        "webhook          ok ",
        "certificates     ok ",
        "kubelets         ok ",
        "rights           ok ",
    ];
    says(&scene, 0, &well, PATIENCE).await;
    let quiet = coral(&scene, &["doctor", "--quiet"]).succeeded();
    assert!(!quiet.stdout.contains("problem"), "{}", quiet.stdout);
    let blind = coral(&scene, &["doctor", "--as", "nobody"]).succeeded();
    assert!(
        blind.stdout.contains("could not look at nodes: you may not list nodes"),
        "{}",
        blind.stdout
    );

    scene.prefetch("web", json!({"images": [image]})).await;
    scene.ready("web").await;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("regcred".to_owned()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    scene
        .namespace
        .api::<Secret>()
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    let mut mending = Mending::new(&scene);
    let namespace = scene.namespace.name();
    let named = r#"{"spec": {"imagePullSecrets": [{"name": "regcred"}]}}"#;
    assert!(mending.kubectl(&[
        "-n", namespace, "patch", "prefetch", "web", "--type", "merge", "-p", named
    ]));
    mending.break_webhook();
    mending.break_resource_type();
    mending.break_agents();
    mending.break_mirror(&scene);

    let allow = format!("hint: kubectl coral allow-secret regcred -n {namespace}");
    let broken = [
        "problem: deployment/coral-system/coral-webhook: it is scaled to zero",
        "hint: kubectl -n coral-system scale deployment coral-webhook --replicas 2",
        "no Pod of the webhook is ready behind it",
        "was admitted unchanged",
        "warning: crd/prefetches.image.stvz.io: it is not what this command",
        "additionalPrinterColumns[0].name differs",
        "no agent runs there, because the DaemonSet asks for the label coral-tests/doctor=nowhere, and Prefetches want images there",
        "Coral's agents may not read this pull secret, which prefetch web names",
        &allow,
        "mirror/doctor: nothing makes its copies: there is no mirror controller",
        "hint: kubectl coral upgrade --component mirror",
    ];
    says(&scene, 1, &broken, PATIENCE).await;
    // Nobody puts this right while the webhook is away.
    let bundle = r#"[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]"#;
    let configuration = [
        "patch",
        "mutatingwebhookconfiguration",
        "coral-webhook",
        "--type",
        "json",
        "-p",
        bundle,
    ];
    assert!(mending.kubectl(&configuration));
    says(&scene, 1, &["its caBundle is empty"], PATIENCE).await;

    assert!(mending.mend());
    // The remedy that it names for the pull secret is one.
    coral(&scene, &["allow-secret", "regcred"]).succeeded();
    says(&scene, 0, &well, MENDED).await;
    for part in ["daemonset/coral-agent", "deployment/coral-webhook"] {
        assert!(mending.kubectl(&["-n", "coral-system", "rollout", "status", part, "--timeout=120s"]));
    }
    scene.ready("web").await;
}
