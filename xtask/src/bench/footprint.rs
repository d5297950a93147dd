//! How big the programs are, and how much memory they take: a file that says what is accepted, and what was measured beside it.
//!
//! Sizes are exact, and so they are compared whenever the end-to-end tests build the programs. Memory comes from what the other benches have
//! measured, and is compared by `cargo xtask bench footprint` alone.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{cluster::target_dir, image};

/// What is accepted.
const FILE: &str = "xtask/footprint.json";
/// By how much something may grow, in percent, until somebody accepts it.
const GROWTH: f64 = 10.0;
const BINARIES: &str = "binaries_bytes";
const MEMORY: &str = "memory_mebibytes";
/// The program that is not in the image.
const PLUGIN: &str = "kubectl-coral";
/// What a program may have, in bytes, of which nothing is accepted yet.
const MOST_BYTES: f64 = 8e6;
/// Memory: what it is called here, the bench that measures it, and the name of the figure there.
const MEASURED: &[(&str, &str, &str)] = &[
    ("agent, small cluster", "pull", "memory (RSS) of an agent"),
    (
        "agent, 50 images after much work",
        "agent",
        "memory (RSS) with 50 images after the work",
    ),
    ("controller, small cluster", "pull", "memory (RSS) of the controller"),
    (
        "controller, 1000 nodes, at most",
        "scale",
        "1000 nodes: memory of the controller (most)",
    ),
    (
        "controller, 5000 nodes, at most",
        "scale",
        "5000 nodes: memory of the controller (most)",
    ),
    (
        "webhook, under load, at most",
        "webhook",
        "memory (RSS) under this load, at most",
    ),
    (
        "kubectl coral status, 5000 nodes, at most",
        "plugin",
        "memory of status at most",
    ),
    ("kubectl coral mirror copy, at most", "mirror", "memory (RSS) at most"),
];

/// Compare sizes and memory with what is accepted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Accept what there is now.
    #[arg(long)]
    accept: bool,
}

type Footprint = BTreeMap<String, f64>;

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args { accept } = args;
    // Those of the image together, as the image is made.
    let folder = image::build(root, image::PACKAGES).await?;
    image::build(root, &[PLUGIN]).await?;
    let names: Vec<&str> = image::PACKAGES.iter().copied().chain([PLUGIN]).collect();
    let now = BTreeMap::from([(BINARIES, sizes(&folder, &names)?), (MEMORY, memory())]);
    let mut accepted = accepted(root)?;
    let mut has_grown = false;
    for (kind, now) in &now {
        let before = accepted.get(*kind).cloned().unwrap_or_default();
        has_grown |= !grown(&before, now).is_empty();
        println!("\n{kind}\n{}", table(&before, now));
    }
    if accept {
        for (kind, now) in now {
            // What was not measured this time stays.
            accepted.entry(kind.to_owned()).or_default().extend(now);
        }
        let text = format!("{:#}\n", json!(accepted));
        return fs::write(root.join(FILE), text).with_context(|| format!("failed to write {FILE}"));
    }
    ensure!(!has_grown, "{}", refusal());
    Ok(())
}

/// Compares the programs in `folder` with what is accepted. Fails with the table when one has grown.
pub(crate) fn check_sizes(root: &Path, folder: &Path) -> Result<()> {
    let before = accepted(root)?.remove(BINARIES).unwrap_or_default();
    // Others that lie there may be as old as the hills.
    let now = sizes(folder, image::PACKAGES)?;
    println!("{}", table(&before, &now));
    ensure!(
        grown(&before, &now).is_empty(),
        "{}\n{}",
        refusal(),
        table(&before, &now)
    );
    Ok(())
}

fn refusal() -> String {
    format!("something has grown by more than {GROWTH} %; `cargo xtask bench footprint --accept` accepts it")
}

/// The sizes of these programs.
fn sizes(folder: &Path, names: &[&str]) -> Result<Footprint> {
    let mut sizes = Footprint::new();
    for name in names {
        let path = folder.join(name);
        let metadata = fs::metadata(&path).with_context(|| format!("failed to look at {}", path.display()))?;
        #[expect(clippy::cast_precision_loss, reason = "a few million")]
        sizes.insert((*name).to_owned(), metadata.len() as f64);
    }
    Ok(sizes)
}

/// What the benches have measured last.
fn memory() -> Footprint {
    let of = |(name, bench, figure): &(&str, &str, &str)| {
        let text = fs::read_to_string(target_dir().join(format!("bench/{bench}.json"))).ok()?;
        let result: Value = serde_json::from_str(&text).ok()?;
        let mut figures = result["figures"].as_array()?.iter();
        let found = figures.find(|one| one["name"].as_str().is_some_and(|name| name.trim() == *figure))?;
        Some(((*name).to_owned(), (found["median"].as_f64()? * 10.0).round() / 10.0))
    };
    MEASURED.iter().filter_map(of).collect()
}

fn accepted(root: &Path) -> Result<BTreeMap<String, Footprint>> {
    let text = fs::read_to_string(root.join(FILE)).with_context(|| format!("failed to read {FILE}"))?;
    serde_json::from_str(&text).with_context(|| format!("failed to understand {FILE}"))
}

/// What has grown by more than it may.
fn grown<'a>(before: &Footprint, now: &'a Footprint) -> Vec<&'a str> {
    let is_grown = |(name, now): &(&String, &f64)| {
        let most = before
            .get(*name)
            .map_or(MOST_BYTES, |before| before * (1.0 + GROWTH / 100.0));
        // What people download has no target; it is compared once it is accepted.
        **now > most && (name.as_str() != PLUGIN || before.contains_key(PLUGIN))
    };
    now.iter().filter(is_grown).map(|(name, _)| name.as_str()).collect()
}

fn table(before: &Footprint, now: &Footprint) -> String {
    let grown = grown(before, now);
    let row = |(name, now): (&String, &f64)| {
        let was = before.get(name).copied();
        let change = was.map_or_else(
            || "new".to_owned(),
            |was| format!("{:+.1} %", 100.0 * (now - was) / was),
        );
        let verdict = if grown.contains(&name.as_str()) { "GROWN" } else { "" };
        let was = was.map_or_else(String::new, |was| was.to_string());
        format!("{name:<34} {was:>10} {now:>10} {change:>9} {verdict}")
            .trim_end()
            .to_owned()
    };
    let head = format!("{:<34} {:>10} {:>10} {:>9}", "FOOTPRINT", "ACCEPTED", "NOW", "CHANGE");
    std::iter::once(head)
        .chain(now.iter().map(row))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The section of the page about benches.
pub(super) fn section(root: &Path) -> Result<String> {
    if !root.join(FILE).exists() {
        return Ok(String::new());
    }
    let accepted = accepted(root)?;
    let of = |kind: &str| accepted.get(kind).into_iter().flatten();
    let mut text = format!(
        "\n## Footprint\n\n```sh\ncargo xtask bench footprint\n```\n\n\
         Stripped, static programs, with the target of 8 MB for each that runs in the cluster. The tests fail when one has grown by more than {GROWTH} % of what is accepted \
         in `{FILE}`.\n\n| program | size | target | |\n|---|---:|---|---|\n"
    );
    for (name, size) in of(BINARIES) {
        let (target, verdict) = match name.as_str() {
            PLUGIN => ("", ""),
            _ if *size <= MOST_BYTES => ("≤ 8 MB", "met"),
            _ => ("≤ 8 MB", "**missed**"),
        };
        let _ = writeln!(text, "| `{name}` | {:.2} MB | {target} | {verdict} |", size / 1e6);
    }
    if of(MEMORY).next().is_some() {
        text += "\n| resident memory | |\n|---|---:|\n";
    }
    for (name, size) in of(MEMORY) {
        let _ = writeln!(text, "| {name} | {size:.1} MiB |");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(values: &[(&str, f64)]) -> Footprint {
        values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn growth_by_more_than_a_tenth_is_refused() {
        let before = footprint(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("unbuilt", 5.0)]);
        let now = footprint(&[
            ("a", 110.0),
            ("b", 111.0),
            ("c", 50.0),
            ("new", 1.0),
            ("new and big", 9e6),
        ]);
        assert_eq!(grown(&before, &now), ["b", "new and big"]);
        let table = table(&before, &now);
        assert!(
            table.contains("+11.0 % GROWN") && table.contains("-50.0 %\n"),
            "{table}"
        );
    }

    #[test]
    fn the_command_grows_only_beside_what_is_accepted() {
        let now = footprint(&[(PLUGIN, 2e7)]);
        assert!(grown(&footprint(&[]), &now).is_empty());
        assert_eq!(grown(&footprint(&[(PLUGIN, 1e7)]), &now), [PLUGIN]);
    }

    #[test]
    fn memory_is_that_of_figures_that_the_benches_have() {
        for (name, bench, figure) in MEASURED {
            let path = crate::workspace().join(format!("docs/benchmarks/{bench}.json"));
            let Ok(text) = fs::read_to_string(path) else { continue };
            let result: Value = serde_json::from_str(&text).unwrap();
            // Whatever number of nodes was measured.
            let of_any = figure.rsplit(": ").next().unwrap();
            let has = |one: &Value| one["name"].as_str().is_some_and(|name| name.trim().ends_with(of_any));
            assert!(result["figures"].as_array().unwrap().iter().any(has), "{name}");
        }
    }

    #[test]
    fn what_is_accepted_can_be_read() {
        let binaries = accepted(crate::workspace()).unwrap().remove(BINARIES).unwrap();
        assert!(binaries.values().all(|size| *size > 1e5), "{binaries:?}");
    }
}
