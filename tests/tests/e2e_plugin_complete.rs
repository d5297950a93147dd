//! Completion of `kubectl coral`, asked for as a shell does: through the real kubectl, with names of a real cluster.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use support::{Scene, coral::coral, on};
use tempfile::TempDir;

/// A folder with the plugin and the script that `kubectl coral completion` prints.
fn folder(scene: &Scene) -> TempDir {
    let folder = TempDir::new().unwrap();
    let tests = env::current_exe().unwrap();
    let plugin = tests.ancestors().nth(2).unwrap().join("kubectl-coral");
    assert!(
        plugin.exists(),
        "build kubectl-coral first: cargo build --package kubectl-coral"
    );
    symlink(plugin, folder.path().join("kubectl-coral")).unwrap();
    let script = folder.path().join("kubectl_complete-coral");
    fs::write(&script, coral(scene, &["completion"]).succeeded().stdout).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// What kubectl offers behind `kubectl coral` for these words.
fn offered(scene: &Scene, folder: &Path, words: &[&str]) -> Vec<String> {
    let system = ["/usr/bin", "/bin"].map(PathBuf::from);
    let path = env::join_paths([folder.to_owned()].into_iter().chain(system)).unwrap();
    let output = Command::new(scene.cluster.tools().control_plane("kubectl"))
        .args(["__complete", "coral"])
        .args(words)
        .env("PATH", path)
        .env("KUBECONFIG", scene.cluster.kubeconfig())
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_offers_names_of_the_cluster() {
    let scene = Scene::new("complete").await;
    let folder = folder(&scene);
    let namespace = scene.namespace.name();
    let offered = |words: &[&str]| offered(&scene, folder.path(), words);
    let image = scene.image("app");
    for name in ["web", "worker"] {
        let spec = json!({"images": [image], "nodeSelector": on(&["node-1"]), "suspend": true});
        scene.prefetch(name, spec).await;
    }

    assert_eq!(
        offered(&["suspe"]),
        ["suspend\tLet Prefetches begin no further pulls", ":4"]
    );
    // As a shell asks: the word that is being typed is there, and empty.
    assert_eq!(offered(&["status", "-n", namespace, ""]), ["web", "worker", ":4"]);
    assert_eq!(offered(&["delete", "-n", namespace, "web", ""]), ["worker", ":4"]);
    assert_eq!(offered(&["status", "--node", "node-"])[..2], ["node-1", "node-2"]);
    assert_eq!(offered(&["status", "-n", namespace]), [namespace, ":4"]);
    let of_registry = image.split('/').next().unwrap();
    assert_eq!(
        offered(&["prefetch", "-n", namespace, of_registry]),
        [image.as_str(), ":4"]
    );
    assert_eq!(
        offered(&["inject", "-n", "coral-system", "deploy/"]),
        ["deploy/coral-controller", "deploy/coral-webhook", ":4"]
    );
    assert_eq!(offered(&["inject", "daem"]), ["daemonset/", ":6"]);
    assert_eq!(offered(&["status", "--output", "w"]), ["wide", ":4"]);
    assert_eq!(offered(&["prefetch", "-f", ""]), [":0"]);
    assert_eq!(offered(&["status", "--as", "nobody", "-n", namespace, ""]), [":4"]);
}
