//! `cargo xtask generate`: writes what is derived from code, so that a person can read it and `kubectl` can apply it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use coral_api::{Mirror, MirroredImage, NodeImages, Prefetch};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use crate::{bench, command::cargo};

const HEADER: &str = "# Written by `cargo xtask generate` from the types in api/. Change those.\n";
/// Resource types.
const CRDS: &str = "deploy/crds";
/// Pages about command lines.
const REFERENCE: &str = "docs/reference";

/// The derived files that are there, by their paths from `root`, the folder of the workspace.
pub(crate) fn derived(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for path in bench::PAGES {
        files.insert(
            (*path).to_owned(),
            fs::read_to_string(root.join(path)).unwrap_or_default(),
        );
    }
    for folder in [CRDS.to_owned(), REFERENCE.to_owned(), format!("{REFERENCE}/man")] {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("failed to read {folder}"))?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_file() {
                let text = fs::read_to_string(entry.path()).with_context(|| format!("failed to read {path}"))?;
                files.insert(path, text);
            }
        }
    }
    Ok(files)
}

/// Writes every derived file below `root`, the folder of the workspace.
pub(crate) async fn run(root: &Path) -> anyhow::Result<()> {
    for crd in crds() {
        let path = path(&crd);
        let text = format!("{HEADER}{}", yaml(&crd)?);
        fs::write(root.join(&path), text).with_context(|| format!("failed to write {path}"))?;
    }
    // From what benches have measured once, and what is kept of it: nothing is measured here.
    for (path, text) in bench::pages(root)? {
        fs::write(root.join(path), text).with_context(|| format!("failed to write {path}"))?;
    }
    let write = [
        "run",
        "--locked",
        "--quiet",
        "--package",
        "coral-reference",
        "--",
        REFERENCE,
    ];
    cargo(root, &write, &[]).await
}

fn crds() -> [CustomResourceDefinition; 4] {
    [Prefetch::crd(), NodeImages::crd(), Mirror::crd(), MirroredImage::crd()]
}

fn path(crd: &CustomResourceDefinition) -> String {
    format!("{CRDS}/{}.yaml", crd.metadata.name.as_deref().unwrap_or_default())
}

fn yaml(crd: &CustomResourceDefinition) -> anyhow::Result<String> {
    // By way of a value: its maps are sorted.
    let value = serde_json::to_value(crd)?;
    serde_saphyr::to_string(&value).context("failed to write a CustomResourceDefinition as YAML")
}
