//! The hot paths alone, by criterion: what a plan, an admission and a table cost.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    figures::{Figure, table, to_json},
    machine, write_result,
};
use crate::{cluster::target_dir, command::cargo};

/// What cargo is told, for each bench.
const BENCHES: &[&[&str]] = &[
    &["--package", "coral-controller", "--bench", "plan"],
    &["--package", "coral-admission", "--bench", "review"],
    &["--package", "kubectl-coral", "--features", "bench", "--bench", "status"],
];
const PLAN: &str = "plan, time per node";
/// What the cost per node of a plan may grow by, from 100 nodes to 5000.
const GROWTH: f64 = 1.2;

/// Runs every bench and keeps what criterion has found.
pub(super) async fn run(root: &Path) -> Result<()> {
    let folder = target_dir().join("criterion");
    // What an older bench has left there is not measured by this one.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    let machine = machine::facts("no runtime");
    for bench in BENCHES {
        cargo(root, &[&["bench", "--locked"], *bench].concat(), &[]).await?;
    }
    let mut measured = read(&folder)?;
    ensure!(
        !measured.is_empty(),
        "criterion has left nothing in {}",
        folder.display()
    );
    measured.sort_by(|a, b| a.place.cmp(&b.place));
    let mut figures: Vec<Figure> = measured.iter().map(Measured::figure).collect();
    figures.extend(growth(&measured));
    println!("\n{}", table(&figures));
    write_result("profiles", &to_json(&machine, &figures))
}

/// What criterion says of one case.
#[derive(Debug, PartialEq)]
struct Measured {
    /// Group, case and, where the case has one, number.
    place: (String, String, Option<u64>, String),
    /// In nanoseconds.
    median: f64,
}

impl Measured {
    fn parse(benchmark: &Value, estimates: &Value) -> Option<Self> {
        let text = |key: &str| benchmark[key].as_str().unwrap_or_default().to_owned();
        let value = text("value_str");
        Some(Self {
            place: (text("group_id"), text("function_id"), value.parse().ok(), value),
            median: estimates["median"]["point_estimate"].as_f64()?,
        })
    }

    fn figure(&self) -> Figure {
        let (group, case, _, value) = &self.place;
        let parts = [group, case, value].map(String::as_str);
        let name: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let (unit, time) = match self.median {
            median if median >= 1e6 => ("ms", median / 1e6),
            median => ("µs", median / 1e3),
        };
        Figure::new(name.join(": "), unit, time)
    }
}

/// How much more a plan costs for each node when there are more of them.
fn growth(measured: &[Measured]) -> Vec<Figure> {
    let median = |case: &str, nodes: u64| {
        let is_it = |measured: &&Measured| {
            let (group, its_case, its_nodes, _) = &measured.place;
            group == PLAN && its_case == case && *its_nodes == Some(nodes)
        };
        measured.iter().find(is_it).map(|measured| measured.median)
    };
    let grown = |case: &str| {
        let ratio = median(case, 5000)? / median(case, 100)?;
        Some(Figure::new(format!("{PLAN}: {case}: 5000 nodes / 100 nodes"), "×", ratio).at_most(GROWTH))
    };
    ["at rest", "in a rollout"].into_iter().filter_map(grown).collect()
}

/// What is in criterion's folder: for each case, a folder with what it is and what was found.
fn read(folder: &Path) -> Result<Vec<Measured>> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        let json = |name: &str| -> Option<Value> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            serde_json::from_str(&text).ok()
        };
        if folder.ends_with("new")
            && let (Some(benchmark), Some(estimates)) = (json("benchmark.json"), json("estimates.json"))
        {
            found.extend(Measured::parse(&benchmark, &estimates));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured(case: &str, nodes: &str, median: f64) -> Measured {
        let benchmark = json!({"group_id": PLAN, "function_id": case, "value_str": nodes});
        Measured::parse(&benchmark, &json!({"median": {"point_estimate": median}})).unwrap()
    }

    #[test]
    fn growth_is_from_the_smallest_to_the_largest() {
        let all = [
            measured("at rest", "100", 20_000.0),
            measured("at rest", "1000", 90_000.0),
            measured("at rest", "5000", 22_000.0),
            measured("in a rollout", "100", 20_000.0),
            measured("in a rollout", "5000", 30_000.0),
        ];
        let met: Vec<_> = growth(&all).iter().map(Figure::is_met).collect();
        assert_eq!(met, [Some(true), Some(false)]);
        assert!(growth(&all[..2]).is_empty());
    }

    #[test]
    fn figures_are_named_for_their_case() {
        let figure = measured("at rest", "50 × 100 in turn", 19_000.0).figure();
        assert_eq!(figure.name, "plan, time per node: at rest: 50 × 100 in turn");
        assert_eq!((figure.unit, figure.samples.median().round()), ("µs", 19.0));
        // A case without a number has only its name.
        let benchmark = json!({"group_id": "mutate", "function_id": "bare", "value_str": null});
        let figure = Measured::parse(&benchmark, &json!({"median": {"point_estimate": 2e6}}));
        let figure = figure.unwrap().figure();
        assert_eq!((figure.name.as_ref(), figure.unit), ("mutate: bare", "ms"));
    }

    #[test]
    fn only_the_newest_of_each_case_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let benchmark = json!({"group_id": "mutate", "function_id": "bare"}).to_string();
        for (name, median) in [("base", 1.0), ("new", 2.0)] {
            let folder = folder.path().join("mutate/bare").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("benchmark.json"), &benchmark).unwrap();
            let estimates = json!({"median": {"point_estimate": median}}).to_string();
            fs::write(folder.join("estimates.json"), estimates).unwrap();
        }
        let found = read(folder.path()).unwrap();
        let medians: Vec<f64> = found.iter().map(|measured| measured.median).collect();
        assert_eq!(medians, [2.0]);
    }
}
