//! The places of an object that values change.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{
    IMAGE, camel_case,
    tree::{DEEPER, INDENT, Node},
};

/// Where a workload has its pod, and there its container.
const POD: [&str; 3] = ["spec", "template", "spec"];
const CONTAINER: [&str; 5] = ["spec", "template", "spec", "containers", "0"];
/// The label with the version.
const VERSION: &str = "app.kubernetes.io/version";
/// The policy whose list is a value.
const ALLOWLIST: &str = "coral-registry-allowlist";

/// Whether an object makes pods of Coral's own that go on, which have values of their own.
pub(super) fn is_workload(object: &Value) -> bool {
    let image = object.pointer("/spec/template/spec/containers/0/image");
    (object["kind"] == "DaemonSet" || object["kind"] == "Deployment") && image.is_some_and(|image| image == IMAGE)
}

/// The part of Coral that a workload is, by which also its values are called when it is one word.
pub(super) fn part(workload: &Value) -> String {
    let name = workload["metadata"]["name"].as_str().unwrap_or_default();
    name.strip_prefix("coral-").unwrap_or(name).to_owned()
}

/// How the values of a workload are called.
pub(super) fn key(workload: &Value) -> String {
    camel_case(&part(workload))
}

/// Whether a workload goes to every node, and so tolerates everything and has no number of replicas.
pub(super) fn is_everywhere(workload: &Value) -> bool {
    workload["kind"] == "DaemonSet"
}

/// Whether a workload speaks with the container runtime.
pub(super) fn is_agent(workload: &Value) -> bool {
    part(workload) == "agent"
}

/// Puts templates into these places.
///
/// # Errors
/// When the object has no such place: then it has changed, and this has to follow.
pub(super) fn cut(node: &mut Node, object: &Value) -> anyhow::Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if is_workload(object) {
        workload(node, object).with_context(|| format!("failed to make a template of {name}"))?;
    }
    node.replace("image", IMAGE, "{{ include \"coral.image\" . | quote }}");
    if name == ALLOWLIST && object["kind"] == "ValidatingAdmissionPolicy" {
        ensure!(object["spec"]["variables"][0]["name"] == "listed", "{name} has no list");
        let expression = place(node, &["spec", "variables", "0", "expression"])?;
        *expression = Node::Expression("{{ toJson .Values.registryAllowlist.registries | quote }}".to_owned());
    }
    Ok(())
}

fn workload(node: &mut Node, object: &Value) -> anyhow::Result<()> {
    let values = format!(".Values.{}", key(object));
    *place(node, &["metadata", "labels", VERSION])? = Node::Expression("{{ .Chart.AppVersion | quote }}".to_owned());
    if !is_everywhere(object) {
        *place(node, &["spec", "replicas"])? = Node::Expression(format!("{{{{ {values}.replicas }}}}"));
    }
    let metadata = place(node, &["spec", "template", "metadata"])?;
    extend(metadata, "annotations", &values, "podAnnotations");

    let pod = place(node, &POD)?;
    *place(pod, &["priorityClassName"])? = Node::Expression(format!("{{{{ {values}.priorityClassName | quote }}}}"));
    extend(pod, "nodeSelector", &values, "nodeSelector");
    if !is_everywhere(object) {
        extend(pod, "tolerations", &values, "tolerations");
    }
    extend(pod, "imagePullSecrets", ".Values", "imagePullSecrets");
    if is_agent(object) {
        place(pod, &["volumes"])?.append(
            "{{- with .Values.agent.runtimeEndpoint }}\n\
             - name: runtime\n  hostPath:\n    path: {{ include \"coral.runtimeFolder\" . | quote }}\n    type: Directory\n\
             {{- end }}",
        );
    }

    let container = place(node, &CONTAINER)?;
    *place(container, &["resources"])? =
        Node::Lines(format!("{{{{- toYaml {values}.resources | nindent {INDENT} }}}}"));
    let environment = place(container, &["env"])?;
    for (value, variable) in [("filter", "CORAL_LOG"), ("format", "CORAL_LOG_FORMAT")] {
        environment.append(&variable_of(&format!(".Values.log.{value}"), variable));
    }
    if is_agent(object) {
        environment.append(&variable_of(
            &format!("{values}.runtimeEndpoint"),
            "CORAL_RUNTIME_ENDPOINT",
        ));
        place(container, &["volumeMounts"])?.append(
            "{{- with .Values.agent.runtimeEndpoint }}\n\
             - name: runtime\n  mountPath: {{ include \"coral.runtimeFolder\" . | quote }}\n  readOnly: true\n\
             {{- end }}",
        );
    }
    extend(container, "env", &values, "extraEnv");
    extend(container, "args", &values, "extraArgs");
    Ok(())
}

/// Adds what a value has to a field of a map, which may not be there without it.
fn extend(parent: &mut Node, field: &str, values: &str, value: &str) {
    match parent.at(&[field]) {
        Some(node) => node.append(&optional(values, value, None)),
        None => parent.append(&optional(values, value, Some(field))),
    }
}

fn place<'a>(node: &'a mut Node, path: &[&str]) -> anyhow::Result<&'a mut Node> {
    node.at(path).with_context(|| format!("there is no {}", path.join(".")))
}

/// What a value adds, if it is not empty, under this field, or to what is there.
fn optional(values: &str, value: &str, field: Option<&str>) -> String {
    let field = field.map(|field| format!("{field}:\n")).unwrap_or_default();
    let indent = if field.is_empty() { INDENT } else { DEEPER };
    format!("{{{{- with {values}.{value} }}}}\n{field}{{{{- toYaml . | nindent {indent} }}}}\n{{{{- end }}}}")
}

/// A variable with a value, if that is not empty.
fn variable_of(value: &str, variable: &str) -> String {
    format!("{{{{- with {value} }}}}\n- name: {variable}\n  value: {{{{ . | quote }}}}\n{{{{- end }}}}")
}
