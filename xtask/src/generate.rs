//! `cargo xtask generate`: writes what is derived from code, so that a person can read it and `kubectl` can apply it.

use std::{fs, path::Path};

use anyhow::Context as _;
use coral_api::{NodeImages, Prefetch};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

const HEADER: &str = "# Written by `cargo xtask generate` from the types in api/. Change those.\n";

/// Paths of the derived files, from the folder of the workspace.
pub(crate) fn paths() -> Vec<String> {
    crds().iter().map(path).collect()
}

/// Writes every derived file below `root`, the folder of the workspace.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    for crd in crds() {
        let path = path(&crd);
        let text = format!("{HEADER}{}", yaml(&crd)?);
        fs::write(root.join(&path), text).with_context(|| format!("failed to write {path}"))?;
    }
    Ok(())
}

fn crds() -> [CustomResourceDefinition; 2] {
    [Prefetch::crd(), NodeImages::crd()]
}

fn path(crd: &CustomResourceDefinition) -> String {
    format!("deploy/crds/{}.yaml", crd.metadata.name.as_deref().unwrap_or_default())
}

fn yaml(crd: &CustomResourceDefinition) -> anyhow::Result<String> {
    // By way of a value: its maps are sorted.
    let value = serde_json::to_value(crd)?;
    serde_saphyr::to_string(&value).context("failed to write a CustomResourceDefinition as YAML")
}
