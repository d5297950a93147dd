//! `cargo xtask generate`: writes what is derived from code, so that a person can read it and `kubectl` can apply it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use clap::ValueEnum;
use coral_api::{Mirror, MirroredImage, NodeImages, Prefetch};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use crate::{bench, chart, command::cargo};

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
    let manual = format!("{REFERENCE}/man");
    for folder in [CRDS, REFERENCE, &manual].iter().chain(chart::FOLDERS) {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
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

/// What there is to write, in the order in which it is written: the chart has the resource types.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Part {
    /// The resource types, from the types in api/.
    Crds,
    /// The page of the benchmarks, from what was measured once: nothing is measured here.
    Benchmarks,
    /// The pages about command lines.
    Reference,
    /// The Helm chart, from the manifests.
    Chart,
}

/// Write the files that are derived from code.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to write; everything when nothing is named.
    parts: Vec<Part>,
}

/// Writes derived files below `root`, the folder of the workspace.
pub(crate) async fn run(root: &Path, args: &Args) -> anyhow::Result<()> {
    for part in Part::value_variants() {
        if args.parts.is_empty() || args.parts.contains(part) {
            write(root, *part).await?;
        }
    }
    Ok(())
}

/// Writes every derived file.
pub(crate) async fn all(root: &Path) -> anyhow::Result<()> {
    run(root, &Args { parts: Vec::new() }).await
}

async fn write(root: &Path, part: Part) -> anyhow::Result<()> {
    match part {
        Part::Crds => {
            for crd in crds() {
                let path = path(&crd);
                let text = format!("{HEADER}{}", yaml(&crd)?);
                fs::write(root.join(&path), text).with_context(|| format!("failed to write {path}"))?;
            }
            Ok(())
        }
        Part::Benchmarks => {
            for (path, text) in bench::pages(root)? {
                fs::write(root.join(path), text).with_context(|| format!("failed to write {path}"))?;
            }
            Ok(())
        }
        Part::Reference => {
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
        Part::Chart => chart::run(root).await,
    }
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
