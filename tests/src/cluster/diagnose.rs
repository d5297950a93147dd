//! What to keep of a cluster when a test has failed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Cluster, Layout, process, tools::Tools};

/// What to ask the API server, and the file for the answer.
const QUESTIONS: &[(&str, &[&str])] = &[
    ("nodes.txt", &["get", "nodes", "--output=wide", "--show-labels"]),
    ("nodes.yaml", &["get", "nodes", "--output=yaml"]),
    ("pods.txt", &["get", "pods", "--all-namespaces", "--output=wide"]),
    ("pods.yaml", &["get", "pods", "--all-namespaces", "--output=yaml"]),
    (
        "events.txt",
        &[
            "get",
            "events",
            "--all-namespaces",
            "--sort-by=.metadata.creationTimestamp",
        ],
    ),
    (
        "prefetches.yaml",
        &["get", "prefetches", "--all-namespaces", "--output=yaml"],
    ),
    ("nodeimages.yaml", &["get", "nodeimages", "--output=yaml"]),
];

impl Cluster {
    /// Writes down pods, events, nodes, Coral's own objects and the logs of the pods in the namespaces that are not
    /// Kubernetes' own, beside the logs of the parts, and returns the folder.
    pub fn diagnose(&self) -> Result<PathBuf> {
        diagnose(&self.site.layout, &self.site.tools)
    }

    /// A guard that [diagnoses](Self::diagnose) when the thread panics while it is alive.
    #[must_use]
    pub fn diagnose_on_panic(&self) -> DiagnoseOnPanic {
        DiagnoseOnPanic {
            layout: self.site.layout.clone(),
            tools: self.site.tools.clone(),
        }
    }
}

fn diagnose(layout: &Layout, tools: &Tools) -> Result<PathBuf> {
    let folder = layout.logs();
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for (file, arguments) in QUESTIONS {
        write_answer(layout, tools, &folder.join(file), arguments)?;
    }
    let template = "{range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
    let pods = kubectl(
        layout,
        tools,
        &["get", "pods", "--all-namespaces", "-o", &format!("jsonpath={template}")],
    );
    let pods = pods.unwrap_or_default();
    for pod in pods.lines() {
        let Some((namespace, name)) = pod.split_once(' ') else {
            continue;
        };
        let file = folder.join(format!("pod-{namespace}-{name}.log"));
        let namespace = format!("--namespace={namespace}");
        write_answer(
            layout,
            tools,
            &file,
            &["logs", &namespace, name, "--all-containers", "--timestamps"],
        )?;
    }
    Ok(folder)
}

/// No answer is an answer too: the resource may not be installed, the API server may be down.
fn write_answer(layout: &Layout, tools: &Tools, file: &Path, arguments: &[&str]) -> Result<()> {
    let answer = kubectl(layout, tools, arguments).unwrap_or_else(|error| format!("{error:#}\n"));
    fs::write(file, answer).with_context(|| format!("write {}", file.display()))
}

fn kubectl(layout: &Layout, tools: &Tools, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tools.control_plane("kubectl"));
    command
        .arg("--kubeconfig")
        .arg(layout.kubeconfig())
        .arg("--request-timeout=10s")
        .args(arguments);
    process::run_command(&mut command)
}

/// Writes down the state of the cluster when it goes out of scope in a panic.
pub struct DiagnoseOnPanic {
    layout: Layout,
    tools: Tools,
}

impl Drop for DiagnoseOnPanic {
    #[expect(clippy::print_stderr, reason = "the message belongs beside that of the failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            match diagnose(&self.layout, &self.tools) {
                Ok(folder) => eprintln!("what the cluster looked like is in {}", folder.display()),
                Err(error) => eprintln!("failed to write down what the cluster looked like: {error:#}"),
            }
        }
    }
}
