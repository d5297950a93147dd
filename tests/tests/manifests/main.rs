//! What must hold of the manifests of `deploy/` without a cluster, and what the documents say of them. `e2e_manifests` has what takes a
//! real API server.
#![expect(clippy::unwrap_used, reason = "this is a test")]

mod monitoring;
mod pods;
mod rights;
mod runbooks;
mod stored;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A file or folder of this checkout.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every manifest below a folder of `deploy/`: the file, and an object of it.
fn objects(folder: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(repository(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            found.extend(objects(&path));
        } else if entry.path().extension().is_some_and(|extension| extension == "yaml")
            && !path.ends_with("/kustomization.yaml")
        {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            found.extend(documents.into_iter().map(|object| (path.clone(), object)));
        }
    }
    found
}

/// The objects of these kinds in the base.
fn of_kind(kinds: &[&str]) -> Vec<Value> {
    let base = objects("deploy/base").into_iter().map(|(_, object)| object);
    let found: Vec<Value> = base
        .filter(|object| kinds.iter().any(|kind| object["kind"] == *kind))
        .collect();
    assert!(!found.is_empty(), "{kinds:?}");
    found
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The strings of a list.
fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Every file with this ending below a folder, but for what was built.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// A document that names a test says "test `name`", or "tests `name`, `other`".
#[test]
fn tests_that_documents_name_are_there() {
    let code: String = files(&repository(""), ".rs")
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut named = 0;
    for document in [
        "charts/coral/README.md",
        "docs/faq.md",
        "docs/operations.md",
        "docs/security.md",
        "docs/upgrade.md",
    ] {
        let text = read(document);
        for mention in text.split("test `").chain(text.split("tests `")).skip(1) {
            let mut rest = mention;
            while let Some((test, after)) = rest.split_once('`') {
                let is_name = |name: &str| {
                    name.chars()
                        .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
                };
                if is_name(test) && test.contains('_') {
                    let (function, case) = (format!("fn {test}("), format!("\"{test}\""));
                    assert!(
                        code.contains(&function) || code.contains(&case),
                        "{document} names {test}"
                    );
                    named += 1;
                }
                let Some(next) = after.strip_prefix(", `").or_else(|| after.strip_prefix(" and `")) else {
                    break;
                };
                rest = next;
            }
        }
    }
    assert!(named > 15, "{named}");
}

/// Documents whose commands and manifests are run by other tests than `e2e_manifests`, or by none, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("CONTRIBUTING.md", "`cargo xtask test` is what runs everything else"),
    (
        "README.md",
        "a_newcomers_path_ends_with_nothing_left does it, and CI runs the rest",
    ),
    ("docs/benchmarks.md", "it is generated from what was measured"),
    (
        "docs/development",
        "they start clusters and measure, as the tests and the benches do",
    ),
    ("docs/faults.md", "`cargo xtask test faults` is what it shows"),
    (
        "docs/plugin.md",
        "e2e_plugin, e2e_plugin_verbs and e2e_plugin_doctor do each with images of their own",
    ),
    ("docs/webhook.md", "e2e_webhook takes its examples from there by name"),
    ("docs/reference", "it is generated from the command lines"),
];

/// No document is forgotten: what it shows is run by `e2e_manifests`, or it is told here who does so.
#[test]
fn what_documents_show_is_run_or_it_is_said_why_not() {
    let run = read("tests/tests/e2e_manifests/documents.rs");
    let mut shown = 0;
    for path in files(&repository(""), ".md") {
        let path = path
            .strip_prefix(repository(""))
            .unwrap()
            .to_string_lossy()
            .into_owned();
        if !read(&path).lines().any(|line| line == "```sh" || line == "```yaml") {
            continue;
        }
        shown += 1;
        let is_run = run.contains(&format!("    \"{path}\",\n"));
        let is_excepted = ELSEWHERE.iter().any(|(start, _)| path.starts_with(start));
        assert!(is_run != is_excepted, "{path}: is it run by e2e_manifests, or why not?");
    }
    assert!(shown > 10, "{shown}");
}
