//! `cargo xtask bench report`: the page `docs/benchmarks.md`, from what the benches have written.
//!
//! The results that the page shows are kept beside it, in `docs/benchmarks/`, so that it can be made again, and checked, without
//! measuring anything.

mod plot;

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::plot::{Panel, Series};
use super::{figures::short, footprint, machine};
use crate::cluster::target_dir;

/// Where the results are kept that the page shows.
const FOLDER: &str = "docs/benchmarks";
const PAGE: &str = "docs/benchmarks.md";
const SCALE_PLOT: &str = "docs/benchmarks/scale.svg";
const REGISTRY_PLOT: &str = "docs/benchmarks/registry.svg";
/// Why targets were missed, by bench and figure: what a program cannot know.
const REASONS: &str = "docs/benchmarks/reasons.json";

const HEAD: &str = "\
<!-- Written by `cargo xtask bench report` from docs/benchmarks/*.json. Run that; do not change this. -->

# Benchmarks

What Coral costs, measured, with the command that measures it again. Targets were set before; those that are missed stand here with the
reason. Each table says on what machine it was made: seconds are those of that machine, ratios and counts travel better. Where several samples
were taken the value is the median, and the spread is from the least to the most. `cargo xtask bench all` measures everything again and writes this page. How the figures are made is in
[development/benchmarks.md](development/benchmarks.md).
";

struct Section {
    /// Name of the bench and of its file.
    name: &'static str,
    title: &'static str,
    text: &'static str,
}

const SECTIONS: &[Section] = &[
    Section {
        name: "pull",
        title: "A Prefetch, from beginning to end",
        text: "Real containerds, kubelets and a registry on one machine; the controller and the agents as they are shipped. A Prefetch is timed from \
               its creation to the event of a watch that says `Ready`; the bare pull is a CRI `PullImage` of the same images by the same containerd. \
               The two take turns.",
    },
    Section {
        name: "agent",
        title: "The agent alone",
        text: "From the write of a node's `NodeImages` to the status that says `Present`, beside the same pull without Coral; and what the agent \
               takes when it has nothing to do.",
    },
    Section {
        name: "scale",
        title: "Thousands of nodes",
        text: "Hollow nodes: the real agent of each node, a thousand of them in one process, on container runtimes whose pulls take no time; a real API \
               server and etcd; the controller as it is shipped, as a process of its own; agents and controller with the accounts and rights of the \
               manifests. All of it shares the processors of one machine, so that the agents, which would be on machines of their own, slow the rest down. \
               Writes are counted by the API server itself. The nodes come Ready: Kubernetes' taint of nodes that are not is not put on them \
               (`--disable-admission-plugins=TaintNodesByCondition`), for it would take minutes to be taken away again, one node after the other, and has \
               nothing to do with Coral.",
    },
    Section {
        name: "webhook",
        title: "Admission",
        text: "The webhook on one processor, its clients on the other, over TLS as the API server speaks it.",
    },
    Section {
        name: "mirror",
        title: "Copies of images",
        text: "20 images of 50 to 500 MB that share layers, from one real registry (the CNCF's `distribution`) to another that is empty, and once more when nothing \
               has changed: by `kubectl coral mirror copy`, by `crane copy`, and by `regsync once`. The ways take turns, and the ratio is that to the fastest other way of the \
               same round. Bytes are counted by relays, in a round of its own; requests are those of the registries' logs.",
    },
    Section {
        name: "plugin",
        title: "The command",
        text: "`kubectl coral`, as it is shipped.",
    },
    Section {
        name: "profiles",
        title: "Profiles of the hot paths",
        text: "By criterion, without an API server: what the controller's plan costs for each node of a cluster, with 10 Prefetches of 20 images each on all of \
               them; what a review takes from bytes to bytes; and what `status` makes of the nodes once it has read them. Times of the plan are those of its thread on a processor.",
    },
];

/// Takes what the benches have written for what the page shows, and writes the page.
pub(crate) fn run(root: &Path) -> Result<()> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    for Section { name, .. } in SECTIONS {
        let file = format!("{name}.json");
        let measured = target_dir().join("bench").join(&file);
        if measured.exists() {
            fs::copy(&measured, folder.join(&file))
                .with_context(|| format!("failed to copy {}", measured.display()))?;
            println!("{}", measured.display());
        }
    }
    for (path, text) in pages(root)? {
        fs::write(root.join(path), text).with_context(|| format!("failed to write {path}"))?;
    }
    println!("{PAGE}");
    Ok(())
}

/// The files that this makes, whether there is something to make them from or not.
pub(crate) const PAGES: &[&str] = &[PAGE, SCALE_PLOT, REGISTRY_PLOT];

/// What is derived from the results that are kept: paths from the folder of the workspace, and texts.
pub(crate) fn pages(root: &Path) -> Result<Vec<(&'static str, String)>> {
    let read = |path: &str| -> Result<Option<Value>> {
        let text = match fs::read_to_string(root.join(path)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("failed to read {path}"))?,
        };
        let value = serde_json::from_str(&text).with_context(|| format!("failed to understand {path}"))?;
        Ok(Some(value))
    };
    let reasons = read(REASONS)?.unwrap_or_default();
    let mut page = HEAD.to_owned();
    let mut files = Vec::new();
    for Section { name, title, text } in SECTIONS {
        let Some(result) = read(&format!("{FOLDER}/{name}.json"))? else {
            continue;
        };
        let _ = writeln!(page, "\n## {title}\n\n```sh\ncargo xtask bench {name}\n```\n\n{text}");
        match *name {
            "scale" => {
                page += &scale_table(&result);
                page += "\n![Time, processor time and memory against the number of nodes](benchmarks/scale.svg)\n";
                files.push((SCALE_PLOT, plot::svg(&scale_panels(&result))));
            }
            "pull" => {
                page += &figure_table(&result);
                page += &peer_table(&result);
                page +=
                    "\n![Megabytes per second from the registry, with and without a budget](benchmarks/registry.svg)\n";
                files.push((REGISTRY_PLOT, plot::svg(&registry_panels(&result))));
            }
            _ => page += &figure_table(&result),
        }
        page += &missed(&result, &reasons[name]);
        let _ = writeln!(page, "\nMeasured on: {}.", machine::line(&result["machine"]));
    }
    page += &footprint::section(root)?;
    files.push((PAGE, page));
    Ok(files)
}

fn figures(result: &Value) -> impl Iterator<Item = &Value> {
    result["figures"].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn value(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// The median with its unit. What has none is a count.
fn amount(figure: &Value) -> String {
    let (median, unit) = (value(&figure["median"]), text(&figure["unit"]));
    match unit {
        "" if median.fract() == 0.0 => format!("{median:.0}"),
        _ => format!("{} {unit}", short(median)).trim_end().to_owned(),
    }
}

/// The target of a figure, whichever form its bench has written it in.
fn target(figure: &Value) -> String {
    match &figure["target"] {
        Value::String(text) => text.clone(),
        Value::Number(most) => format!("≤ {most}"),
        _ => String::new(),
    }
}

fn verdict(figure: &Value) -> &'static str {
    match figure["met"].as_bool() {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    }
}

fn figure_table(result: &Value) -> String {
    let mut table = "\n| figure | value | spread | target | |\n|---|---:|---|---|---|\n".to_owned();
    for figure in figures(result) {
        let samples = figure["samples"].as_array().map_or(0, Vec::len);
        let spread = if samples > 1 {
            format!("{} … {}", short(value(&figure["least"])), short(value(&figure["most"])))
        } else {
            String::new()
        };
        let indent = if text(&figure["name"]).starts_with(' ') {
            "– "
        } else {
            ""
        };
        let _ = writeln!(
            table,
            "| {indent}{} | {} | {spread} | {} | {} |",
            text(&figure["name"]).trim(),
            amount(figure),
            target(figure),
            verdict(figure),
        );
    }
    table
}

/// One row for each number of nodes.
fn scale_table(result: &Value) -> String {
    let idle = value(&result["idle_seconds"]);
    let images = value(&result["images"]);
    let mut table = format!(
        "\nA Prefetch of {images:.0} images on all nodes, with the parallelism that is the default (25 % of the nodes at a time):\n\n\
         | nodes | created → Ready | → all labels | writes per node | controller: memory | controller: processor | \
         API server: processor | etcd: processor | idle: requests per minute and node | idle: controller |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    for row in result["rows"].as_array().into_iter().flatten() {
        let of = |key: &str| short(value(&row[key]));
        let _ = writeln!(
            table,
            "| {} | {} s | {} s | {} | {} MiB | {} s | {} s | {} s | {} | {} % |",
            row["nodes"],
            of("ready_seconds"),
            of("labelled_seconds"),
            of("writes_per_node"),
            of("controller_mebibytes"),
            of("controller_seconds"),
            of("api_server_seconds"),
            of("etcd_seconds"),
            of("idle_requests"),
            of("idle_controller_percent"),
        );
    }
    let _ = writeln!(
        table,
        "\nProcessor times are of the whole roll-out, until nothing is written any more; in those of the API server and etcd is what hollow kubelets do to \
         keep their Leases. Idle is {idle:.0} s in which nothing happens; watches are not counted. Targets: Ready on 1000 nodes within 30 s, at most 5 \
         writes per node, at most 0.1 idle requests per minute and node."
    );
    table
}

fn scale_panels(result: &Value) -> Vec<Panel> {
    let panel = |title: &str, key: &str| Panel {
        title: title.to_owned(),
        x_label: "nodes",
        series: vec![Series {
            name: String::new(),
            points: result["rows"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|row| (value(&row["nodes"]), value(&row[key])))
                .collect(),
            has_dots: true,
        }],
    };
    vec![
        panel("Created → Ready (s)", "ready_seconds"),
        panel("Writes per node", "writes_per_node"),
        panel("Controller: memory (MiB)", "controller_mebibytes"),
        panel("Controller: processor time (s)", "controller_seconds"),
    ]
}

fn peer_table(result: &Value) -> String {
    let mut table = "\nThe same 20 images on two nodes with kubelets, by other means, each in its smallest form: a DaemonSet whose init containers are the images, \
                     and one Job for each image and node. Medians; memory is what is on the two nodes for it at most (shims and containers; for Coral the agents \
                     and the controller), with shared pages by share. Writes are all to the API server, by whomever.\n\n\
                     | way | all images there | its status says so | API writes | pods | memory |\n|---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for way in result["peers"].as_array().into_iter().flatten() {
        let of = |key: &str| value(&way[key]);
        let _ = writeln!(
            table,
            "| {} | {} s | {} s | {:.0} | {:.0} | {} MiB |",
            text(&way["way"]),
            short(of("there_seconds")),
            short(of("told_seconds")),
            of("writes"),
            of("pods"),
            short(of("mebibytes")),
        );
    }
    table
}

fn registry_panels(result: &Value) -> Vec<Panel> {
    let series = result["registry"].as_array().into_iter().flatten().map(|line| {
        let step = value(&line["sample_seconds"]);
        let rates = line["megabytes_per_second"].as_array().into_iter().flatten();
        let points = rates
            .zip(1_u32..)
            .map(|(rate, number)| (step * f64::from(number), value(rate)));
        Series {
            name: text(&line["budget"]).to_owned(),
            points: points.collect(),
            has_dots: false,
        }
    });
    vec![Panel {
        title: "4 nodes pull one image: MB/s from the registry".to_owned(),
        x_label: "seconds",
        series: series.collect(),
    }]
}

/// What was missed, and why.
fn missed(result: &Value, reasons: &Value) -> String {
    let is_missed = |figure: &&Value| figure["met"].as_bool() == Some(false);
    let lines: Vec<String> = figures(result)
        .filter(is_missed)
        .map(|figure| {
            let name = text(&figure["name"]).trim();
            let reason = reasons[name].as_str().unwrap_or("the reason is not known yet");
            let (amount, target) = (amount(figure), target(figure));
            format!("- {name}: {amount}, wanted {target}. Why: {reason}\n")
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("\nMissed:\n\n{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missed_has_its_reason() {
        let result = json!({"figures": [
            {"name": "  time", "unit": "s", "median": 2.0, "target": "≤ 1", "met": false},
            {"name": "size", "unit": "MB", "median": 2.0, "target": 8.0, "met": true},
            {"name": "other", "unit": "s", "median": 2.0, "target": null, "met": null},
        ]});
        let text = missed(&result, &json!({"time": "the disk."}));
        assert_eq!(text, "\nMissed:\n\n- time: 2.000 s, wanted ≤ 1. Why: the disk.\n");
        assert!(missed(&result, &Value::Null).contains("not known yet"));
        let table = figure_table(&result);
        assert!(table.contains("| – time | 2.000 s |  | ≤ 1 | **missed** |"), "{table}");
        assert!(table.contains("| size | 2.000 MB |  | ≤ 8.0 | met |"), "{table}");
    }

    #[test]
    fn the_page_is_made_from_what_there_is() {
        let folder = std::env::temp_dir().join(format!("coral-report-{}", std::process::id()));
        fs::create_dir_all(folder.join(FOLDER)).unwrap();
        let scale = json!({
            "machine": {}, "figures": [], "images": 20, "idle_seconds": 60,
            "rows": [{"nodes": 1000, "ready_seconds": 12.5}, {"nodes": 2000, "ready_seconds": 25.0}],
        });
        fs::write(folder.join(FOLDER).join("scale.json"), scale.to_string()).unwrap();
        let files = pages(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.0).collect();
        assert_eq!(names, [SCALE_PLOT, PAGE]);
        assert!(files[1].1.contains("| 1000 | 12.5 s |") && !files[1].1.contains("cargo xtask bench pull"));
    }
}
