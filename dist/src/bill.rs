//! A bill of materials: which crates are in a binary, in the format `CycloneDX`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{cargo, output};

/// Name and version.
type Crate = (String, String);

/// The crates in the binaries of these packages. It has no number and no time, so the same sources give the same bill.
pub(crate) fn of(root: &Path, target: &str, name: &str, version: &str, packages: &[&str]) -> anyhow::Result<String> {
    let mut arguments = vec![
        "tree",
        "--locked",
        "--target",
        target,
        // Neither what tests need, nor what is there only while the compiler runs.
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    let crates = crates(&output(&mut cargo(root, &arguments))?)?;
    let metadata = output(&mut cargo(root, &["metadata", "--locked", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("failed to read what cargo metadata says")?;
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("failed to read Cargo.lock")?;
    let bill = bill(name, version, &crates, &licences(&metadata), &checksums(&lock))?;
    Ok(format!("{}\n", serde_json::to_string_pretty(&bill)?))
}

/// Lines such as `tokio v1.54.1` and `coral-api v0.1.0 (/path)`, each perhaps more than once.
fn crates(tree: &str) -> anyhow::Result<BTreeSet<Crate>> {
    let lines = tree.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next();
            let version = words.next().and_then(|word| word.strip_prefix('v'));
            let found = name.zip(version).with_context(|| format!("cargo tree says {line:?}"))?;
            Ok((found.0.to_owned(), found.1.to_owned()))
        })
        .collect()
}

/// The licence of each crate, as an SPDX expression.
fn licences(metadata: &Value) -> BTreeMap<Crate, String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter_map(|package| {
            let text = |field: &str| package[field].as_str().map(str::to_owned);
            // Older crates write MIT/Apache-2.0.
            Some(((text("name")?, text("version")?), text("license")?.replace('/', " OR ")))
        })
        .collect()
}

/// What Cargo.lock says each crate of a registry is: SHA-256 of its archive.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let packages = lock.split("[[package]]").skip(1);
    packages
        .filter_map(|package| {
            let field = |name: &str| {
                let start = format!("{name} = \"");
                let value = package.lines().find_map(|line| line.strip_prefix(&start))?;
                Some(value.trim_end_matches('"').to_owned())
            };
            Some(((field("name")?, field("version")?), field("checksum")?))
        })
        .collect()
}

fn bill(
    name: &str,
    version: &str,
    crates: &BTreeSet<Crate>,
    licences: &BTreeMap<Crate, String>,
    checksums: &BTreeMap<Crate, String>,
) -> anyhow::Result<Value> {
    ensure!(!crates.is_empty(), "{name} has no crates");
    let components: Vec<Value> = crates
        .iter()
        .map(|found| {
            let (name, version) = found;
            let purl = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
            let mut component = json!({
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
            });
            if let Some(licence) = licences.get(found) {
                component["licenses"] = json!([{"expression": licence}]);
            }
            if let Some(checksum) = checksums.get(found) {
                component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
            }
            component
        })
        .collect();
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": name, "name": name, "version": version}},
        "components": components,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_tree_is_a_set_of_crates() {
        let found = crates("kubectl-coral v0.1.0 (/somewhere)\nclap v4.6.7\nclap v4.6.7 (*)\n\n").unwrap();
        let expected = [("clap", "4.6.7"), ("kubectl-coral", "0.1.0")];
        assert_eq!(
            found,
            expected
                .map(|(name, version)| (name.to_owned(), version.to_owned()))
                .into()
        );
        assert!(crates("what is this").is_err());
    }

    /// Everything of a registry has a licence and a checksum, or a bill is worth little.
    #[test]
    fn the_bill_of_the_plugin_is_complete_and_the_same_twice() {
        let make = || {
            let target = "x86_64-unknown-linux-gnu";
            of(workspace(), target, "kubectl-coral", "v0.1.0", &["kubectl-coral"]).unwrap()
        };
        let text = make();
        assert_eq!(text, make());
        assert!(
            !text.contains(&workspace().display().to_string()),
            "a path of this machine"
        );
        let bill: Value = serde_json::from_str(&text).unwrap();
        let components = bill["components"].as_array().unwrap();
        let named = |name: &str| components.iter().find(|component| component["name"] == name);
        for component in components {
            let name = component["name"].as_str().unwrap();
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
            let is_ours = name.starts_with("coral-") || name == "kubectl-coral";
            assert_eq!(component["hashes"].is_null(), is_ours, "{component}");
        }
        assert_eq!(
            named("clap").unwrap()["hashes"][0]["content"].as_str().unwrap().len(),
            64
        );
        assert!(named("kube").is_some() && named("coral-api").is_some());
        // Only tests have it; only the compiler runs it; only the server of the webhook has it.
        for absent in ["insta", "serde_derive", "axum"] {
            assert!(named(absent).is_none(), "{absent} is in the bill");
        }
    }
}
