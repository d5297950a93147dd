//! Commands and manifests in the documents are run as they stand there. What is not run says why, in a comment before it:
//! `<!-- not run by a test: … -->`.

use std::{env, fs, path::Path, process::Command};

use coral_tests::{cluster::tools::Checks, progress::Silent};
use serde_json::Value;

use super::{
    instructions, is_of_others, kustomize, repository, strictly,
    support::{Scene, coral::Ran},
};

/// The documents that are looked at here.
const DOCUMENTS: &[&str] = &[
    "charts/coral/README.md",
    "docs/agent.md",
    "docs/concepts.md",
    "docs/controller.md",
    "docs/faq.md",
    "docs/migration-image-clone-controller.md",
    "docs/migration-kube-image-keeper.md",
    "docs/mirroring.md",
    "docs/operations.md",
    "docs/private-registries.md",
    "docs/registry.md",
    "docs/security.md",
    "docs/upgrade.md",
    "SECURITY.md",
];
/// How the documents name a namespace with workloads, which is that of the scene here.
const NAMESPACE: [&str; 2] = ["namespace: shop", "--namespace shop"];

/// Images of the documents that are copied, in whose place the scene has one of its own.
const COPIED: [&str; 3] = [
    "nginx:1.29",
    "ghcr.io/acme/app:v7",
    "localhost:5000/docker.io/library/gone:1",
];
/// The registry of the documents, in whose place the scene has an open one.
const REGISTRY: &str = "registry.example";

/// A fenced block of a document.
struct Block {
    /// Document and line.
    place: String,
    language: String,
    text: String,
    /// Why it is not run, if it says so.
    reason: Option<String>,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(repository(document)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let mut number = 0;
        while number < lines.len() {
            // In a list they are indented.
            if let Some(language) = lines[number].trim_start().strip_prefix("```") {
                let before = lines[..number].iter().rev().find(|line| !line.is_empty());
                let reason = before
                    .and_then(|line| line.trim_start().strip_prefix("<!-- not run by a test: "))
                    .and_then(|rest| rest.strip_suffix(" -->"));
                let end = (number + 1..lines.len()).find(|end| lines[*end].trim_start() == "```");
                let (end, indent) = (end.unwrap(), lines[number].find('`').unwrap());
                let text = lines[number + 1..end]
                    .iter()
                    .map(|line| line.get(indent..).unwrap_or_default());
                blocks.push(Block {
                    place: format!("{document}:{}", number + 1),
                    language: language.to_owned(),
                    text: text.collect::<Vec<_>>().join("\n"),
                    reason: reason.map(str::to_owned),
                });
                number = end;
            }
            number += 1;
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documents_show_works() {
    let scene = Scene::new("documents").await;
    let helm = Checks::build(&Silent).await.unwrap().helm();
    let (mut ran, mut left_out) = (0, 0);
    for mut block in blocks() {
        for named in NAMESPACE {
            block.text = block
                .text
                .replace(named, &named.replace("shop", scene.namespace.name()));
        }
        if let Some(reason) = &block.reason {
            assert!(reason.len() > 15, "{}: that is no reason: {reason}", block.place);
            left_out += 1;
            continue;
        }
        println!("{}", block.place);
        match block.language.as_str() {
            "yaml" => applies(&scene, &block),
            "sh" => {
                let text: Vec<String> = commands(&block.text)
                    .iter()
                    .map(|command| tried(&scene, command))
                    .collect();
                let shell = shell(&scene, &helm, &text.join("\n"));
                assert_eq!(shell.code, Some(0), "{}: {}{}", block.place, shell.stdout, shell.stderr);
            }
            "text" => continue,
            other => panic!("{}: {other:?} is neither sh, yaml nor text", block.place),
        }
        ran += 1;
    }
    assert!(ran > 10, "{ran} blocks were run, {left_out} left out");
}

/// Manifests are taken by the API server, and kustomizations make such.
fn applies(scene: &Scene, block: &Block) {
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
    for object in objects {
        let mut objects = vec![object];
        if objects[0]["kind"] == "Kustomization" {
            // The documents say where a checkout is beside one's own manifests.
            let text = block.text.replace("../coral/deploy", "DEPLOY");
            assert!(text.contains("DEPLOY"), "{}", block.place);
            objects = kustomize(&scene.cluster, instructions(&text).path());
        }
        assert!(
            objects[0]["spec"].is_object() || objects.len() > 1,
            "{}: it is a part only",
            block.place
        );
        objects.retain(|object| !is_of_others(object));
        let answer = strictly(&scene.cluster, None, &objects);
        assert_eq!(answer.code, Some(0), "{}: {}", block.place, answer.stderr);
    }
}

/// The lines of a block, those that go on in the next one with it.
fn commands(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    whole.lines().map(str::to_owned).collect()
}

/// A command as it is run on a cluster that others use, too, and in which there is no mirror controller: what would make something there for
/// good is checked by the API server, or by the command itself, and copies are those of an image that there is.
fn tried(scene: &Scene, command: &str) -> String {
    let words = command.split_whitespace().collect::<Vec<_>>();
    match words.as_slice() {
        ["kubectl", "coral", "install", ..] => {
            let (command, _) = command.split_once(" #").unwrap_or((command, ""));
            format!("{command} --image registry.example/coral:v1 --dry-run=client")
        }
        ["kubectl", "coral", "mirror", "copy", ..] => {
            let registry = scene.cluster.registry();
            let mut command = command.replace(REGISTRY, &format!("{registry}/{}", scene.namespace.name()));
            for (number, image) in COPIED.iter().enumerate() {
                if command.contains(image) {
                    command = command.replace(image, &scene.image(&format!("copied-{number}")));
                }
            }
            format!("{command} --plain-http {registry}")
        }
        ["kubectl", "coral", "mirror", ..] if command.contains(" --to ") => {
            let mut words = words;
            // Nobody would act on what is not kept.
            words.retain(|word| *word != "--wait");
            if let Some(position) = words.iter().position(|word| *word == "--timeout") {
                words.drain(position..=position + 1);
            }
            format!("{} --dry-run=server", words.join(" "))
        }
        ["kubectl", "-n", "coral-system", "create", "secret", ..] => format!("{command} --dry-run=server"),
        _ => command.to_owned(),
    }
}

#[test]
fn commands_are_tried_without_harm_to_others() {
    let text = "kubectl coral mirror --discover --to r.lan \\\n  --wait --timeout 1h --rewrite always\n\n# and\nkubectl get pods";
    let commands = commands(text);
    assert_eq!(commands.len(), 4, "{commands:?}");
    assert_eq!(commands[3], "kubectl get pods");
    assert!(commands[0].ends_with("--rewrite always"), "{commands:?}");
}

/// Runs a block line by line in the checkout, with kubectl, the plugin and Helm on the PATH; the first line that fails ends it.
fn shell(scene: &Scene, helm: &Path, text: &str) -> Ran {
    let tests = env::current_exe().unwrap();
    let plugin = tests.ancestors().nth(2).unwrap().to_owned();
    let kubectl = scene.cluster.tools().control_plane("kubectl");
    let folders = [
        plugin,
        kubectl.parent().unwrap().to_owned(),
        helm.parent().unwrap().to_owned(),
    ];
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(folders.into_iter().chain(env::split_paths(&others))).unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", text])
        .current_dir(repository(""))
        .env("PATH", path)
        .env("KUBECONFIG", scene.cluster.kubeconfig())
        .output()
        .unwrap();
    output.into()
}
