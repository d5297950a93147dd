//! What a chart says of itself: its name and version, its values with their defaults, and which values there can be.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{Component, slots};

/// The version of everything in this workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What is not of one part, before the parts, and after them.
const DEFAULTS: [&str; 2] = [include_str!("values/head.yaml"), include_str!("values/tail.yaml")];
/// Which values there can be, without those of the parts.
const SCHEMA: &str = include_str!("values/schema.json");

/// `Chart.yaml`
pub(super) fn chart() -> String {
    format!(
        "# Written by `cargo xtask generate`.
apiVersion: v2
name: coral
description: Images on nodes before anyone needs them
type: application
version: {VERSION}
appVersion: v{VERSION}
kubeVersion: \">=1.30.0-0\"
"
    )
}

/// `values.yaml`
pub(super) fn defaults(workloads: &[&Value], components: &[Component]) -> anyhow::Result<String> {
    let mut text = DEFAULTS[0].to_owned();
    for workload in workloads {
        let name = workload["metadata"]["name"].as_str().unwrap_or_default();
        let spec = &workload["spec"];
        let pod = &spec["template"]["spec"];
        let _ = write!(
            text,
            "\n# {} {name}.\n{}:\n",
            workload["kind"].as_str().unwrap_or_default(),
            slots::key(workload)
        );
        if !slots::is_everywhere(workload) {
            let _ = writeln!(text, "  replicas: {}", spec["replicas"]);
        }
        let priority = pod["priorityClassName"].as_str().unwrap_or_default();
        let _ = writeln!(text, "  priorityClassName: {priority:?}");
        let resources = serde_saphyr::to_string(&pod["containers"][0]["resources"]);
        let resources = resources.with_context(|| format!("failed to write the resources of {name}"))?;
        let _ = writeln!(text, "  resources:");
        for line in resources.lines() {
            let _ = writeln!(text, "    {line}");
        }
        let _ = writeln!(
            text,
            "  # Nodes that it may run on, beside what it asks for itself.\n  nodeSelector: {{}}"
        );
        if !slots::is_everywhere(workload) {
            let _ = writeln!(text, "  # Beside its own.\n  tolerations: []");
        }
        let _ = writeln!(text, "  podAnnotations: {{}}");
        let _ = writeln!(
            text,
            "  # Flags and variables; docs/reference/{name}.md has them.\n  extraArgs: []\n  extraEnv: []"
        );
        if slots::is_agent(workload) {
            let _ = writeln!(
                text,
                "  # Socket of the container runtime, as unix:///run/x/x.sock; empty: the usual ones are tried.\n  runtimeEndpoint: \"\""
            );
        }
    }
    let _ = writeln!(text, "\n# Optional parts.\ncomponents:");
    for component in components {
        let _ = writeln!(text, "  # {}\n  {}: false", component.summary, component.key());
    }
    text.push_str(DEFAULTS[1]);
    Ok(text)
}

/// `values.schema.json`
pub(super) fn schema(workloads: &[&Value], components: &[Component]) -> anyhow::Result<String> {
    let mut schema: Value = serde_json::from_str(SCHEMA).context("failed to read the schema of the values")?;
    for workload in workloads {
        let mut properties = Map::new();
        let mut field = |name: &str, definition: &str| {
            properties.insert(name.to_owned(), json!({"$ref": format!("#/definitions/{definition}")}));
        };
        field("priorityClassName", "text");
        field("resources", "resources");
        field("nodeSelector", "texts");
        field("podAnnotations", "texts");
        field("extraArgs", "arguments");
        field("extraEnv", "environment");
        if !slots::is_everywhere(workload) {
            field("replicas", "replicas");
            field("tolerations", "tolerations");
        }
        if slots::is_agent(workload) {
            field("runtimeEndpoint", "runtimeEndpoint");
        }
        schema["properties"][slots::key(workload)] =
            json!({"type": "object", "additionalProperties": false, "properties": properties});
    }
    let switches: Map<String, Value> = components
        .iter()
        .map(|component| {
            (
                component.key(),
                json!({"type": "boolean", "description": component.summary}),
            )
        })
        .collect();
    schema["properties"]["components"] =
        json!({"type": "object", "additionalProperties": false, "properties": switches});
    let mut text = serde_json::to_string_pretty(&schema).context("failed to write the schema of the values")?;
    text.push('\n');
    Ok(text)
}
