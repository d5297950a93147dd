//! The Helm chart, made from what `kubectl coral install` applies: the same objects, with the places in them that values change.
//!
//! ```text
//!   install --dry-run=client ──► tree (what optional parts add, change and take) ──► slots (values) ──► write (templates)
//!                                                                                └─► values (defaults and schema)
//! ```

mod slots;
mod tree;
mod values;
mod write;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use self::tree::{Condition, Node};
use crate::{
    cluster::target_dir,
    command::{cargo, output},
};

/// Where the chart is.
pub(crate) const FOLDER: &str = "charts/coral";
/// The folders with files that are derived.
pub(crate) const FOLDERS: &[&str] = &["charts/coral", "charts/coral/templates", "charts/coral/crds"];

/// At the top of each template.
const HEADER: &str = "\
{{- /* Written by `cargo xtask generate` from the manifests in deploy/. Change those, which also say why things are as they are. */ -}}
";
/// What is written into the image's place, so that it can be found.
pub(crate) const IMAGE: &str = "coral";

/// An optional part.
struct Component {
    /// As it is called in `deploy/components`.
    name: String,
    /// The first sentence of its instructions.
    summary: String,
    /// All objects of an installation with it.
    objects: Vec<Value>,
}

impl Component {
    /// As it is called in the values: `cert-manager` is `certManager`.
    fn key(&self) -> String {
        camel_case(&self.name)
    }
}

/// Writes the derived files of the chart below `root`, the folder of the workspace.
pub(crate) async fn run(root: &Path) -> anyhow::Result<()> {
    cargo(
        root,
        &["build", "--locked", "--quiet", "--package", "kubectl-coral"],
        &[],
    )
    .await?;
    let command = target_dir().join("debug/kubectl-coral");
    let base = installation(&command, None)?;
    let mut components = Vec::new();
    for name in names_of_components(root)? {
        let path = format!("deploy/components/{name}/kustomization.yaml");
        let instructions = fs::read_to_string(root.join(&path)).with_context(|| format!("failed to read {path}"))?;
        let objects = installation(&command, Some(&name))?;
        if objects.iter().any(is_made_for_one) {
            continue;
        }
        components.push(Component {
            summary: summary(&instructions).with_context(|| format!("{path} does not begin with what it is"))?,
            objects,
            name,
        });
    }
    let files = files(&base, &components)?;
    let mut kept: Vec<_> = files.keys().map(|name| root.join(FOLDER).join(name)).collect();
    for (name, text) in &files {
        let path = root.join(FOLDER).join(name);
        let parent = path.parent().unwrap_or(root);
        fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    for entry in yaml_files(&root.join("deploy/crds"))? {
        let path = root.join(FOLDER).join("crds").join(&entry);
        let parent = path.parent().unwrap_or(root);
        fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
        fs::copy(root.join("deploy/crds").join(&entry), &path)
            .with_context(|| format!("failed to write {}", path.display()))?;
        kept.push(path);
    }
    // A part that is gone has no template.
    for folder in ["templates", "crds"] {
        let folder = root.join(FOLDER).join(folder);
        for path in yaml_files(&folder)?.into_iter().map(|name| folder.join(name)) {
            if !kept.contains(&path) {
                fs::remove_file(&path).with_context(|| format!("failed to delete {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// What `kubectl coral install` would apply, with this optional part.
fn installation(command: &Path, component: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut install = Command::new(command);
    install.args(["install", "--dry-run=client", "--output=json", "--image", IMAGE]);
    install.args(component.iter().flat_map(|name| ["--component", name]));
    let printed = output(&mut install)?;
    let mut list: Value = serde_json::from_str(&printed).context("failed to read what `install` would apply")?;
    let Value::Array(objects) = list["items"].take() else {
        anyhow::bail!("`install` gave no list");
    };
    // Helm makes the namespace, and takes resource types from a folder of their own.
    let is_meant = |object: &Value| object["kind"] != "Namespace" && object["kind"] != "CustomResourceDefinition";
    Ok(objects.into_iter().filter(is_meant).collect())
}

/// Whether an object is a Secret that `install` makes anew for each cluster. A chart is the same for all, and whoever has it would have the
/// secret, so that such an optional part is in no chart.
fn is_made_for_one(object: &Value) -> bool {
    object["kind"] == "Secret" && (!object["data"].is_null() || !object["stringData"].is_null())
}

fn names_of_components(root: &Path) -> anyhow::Result<Vec<String>> {
    let folder = root.join("deploy/components");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("kustomization.yaml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn yaml_files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(names);
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "yaml")
            && name != "kustomization.yaml"
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// The first sentence of the comment that a file begins with.
fn summary(instructions: &str) -> Option<String> {
    let lines = instructions.lines().map_while(|line| line.strip_prefix("# "));
    let comment = lines.collect::<Vec<_>>().join(" ");
    let end = comment.find(". ").map_or(comment.len(), |end| end + 1);
    (end > 0).then(|| comment[..end].trim_end_matches(':').to_owned())
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut text, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        text.push_str(&head.to_ascii_uppercase());
        text.push_str(tail);
        text
    })
}

/// An object on its way into a template.
struct Templated<'a> {
    base: &'a Value,
    conditions: Vec<Condition>,
    node: Node,
}

/// The derived files by their paths in the chart, but for the resource types.
fn files(base: &[Value], components: &[Component]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut objects: Vec<Templated<'_>> = base
        .iter()
        .map(|object| Templated {
            base: object,
            conditions: Vec::new(),
            node: object.into(),
        })
        .collect();
    let mut files = BTreeMap::new();
    let mut workloads: Vec<&Value> = base.iter().filter(|object| slots::is_workload(object)).collect();
    for component in components {
        let key = component.key();
        for templated in &mut objects {
            match component.objects.iter().find(|object| is_same(object, templated.base)) {
                Some(with) => templated.node.merge(templated.base, with, &key),
                None => templated.conditions.push(Condition {
                    component: key.clone(),
                    on: false,
                }),
            }
        }
        let is_new = |object: &&Value| !base.iter().any(|other| is_same(object, other));
        let mut text = String::new();
        for object in component.objects.iter().filter(is_new) {
            let mut node = Node::from(object);
            slots::cut(&mut node, object)?;
            let _ = write!(text, "---\n{}", write::object(&node));
            workloads.extend(slots::is_workload(object).then_some(object));
        }
        if !text.is_empty() {
            let template = format!("{HEADER}{{{{- if .Values.components.{key} }}}}\n{text}{{{{- end }}}}\n");
            files.insert(format!("templates/{}.yaml", component.name), template);
        }
    }
    let parts: Vec<String> = base
        .iter()
        .filter(|object| slots::is_workload(object))
        .map(slots::part)
        .collect();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for mut templated in objects {
        slots::cut(&mut templated.node, templated.base)?;
        let file = parts
            .iter()
            .find(|part| belongs(templated.base, part))
            .map_or("coral", String::as_str);
        let text = texts.entry(format!("templates/{file}.yaml")).or_default();
        write::conditional(text, &templated.conditions, 0, |text| {
            let _ = write!(text, "---\n{}", write::object(&templated.node));
        });
    }
    for (name, text) in texts {
        ensure!(
            files.insert(name.clone(), format!("{HEADER}{text}")).is_none(),
            "{name} is of a part and of an optional part"
        );
    }
    files.insert("Chart.yaml".to_owned(), values::chart());
    files.insert("values.yaml".to_owned(), values::defaults(&workloads, components)?);
    files.insert("values.schema.json".to_owned(), values::schema(&workloads, components)?);
    Ok(files)
}

fn is_same(one: &Value, other: &Value) -> bool {
    let identity = |object: &Value| {
        (
            object["kind"].clone(),
            object["metadata"]["namespace"].clone(),
            object["metadata"]["name"].clone(),
        )
    };
    identity(one) == identity(other)
}

/// Whether an object's name begins with that of a part.
fn belongs(object: &Value, part: &str) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let rest = name.strip_prefix("coral-").and_then(|name| name.strip_prefix(part));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_become_one() {
        assert_eq!(camel_case("cluster-wide-pull-secrets"), "clusterWidePullSecrets");
        assert_eq!(camel_case("monitoring"), "monitoring");
    }

    #[test]
    fn secrets_are_in_no_chart() {
        assert!(is_made_for_one(&json!({"kind": "Secret", "data": {"tls.key": "x"}})));
        assert!(is_made_for_one(
            &json!({"kind": "Secret", "stringData": {"password": "x"}})
        ));
        // The webhook fills this one itself.
        assert!(!is_made_for_one(&json!({"kind": "Secret", "type": "Opaque"})));
        assert!(!is_made_for_one(&json!({"kind": "ConfigMap", "data": {"a": "b"}})));
    }

    #[test]
    fn the_first_sentence_says_what_a_component_is() {
        let text = "# Metrics, alerts\n# and more, for x.y and z:\n#\n#   resources\nkind: Component\n";
        assert_eq!(summary(text).unwrap(), "Metrics, alerts and more, for x.y and z");
        assert_eq!(summary("# One. Two.\n").unwrap(), "One.");
        assert_eq!(summary("kind: Component\n"), None);
    }

    /// A component that somebody adds later, with a workload of its own, needs nothing here.
    #[test]
    fn a_component_with_a_workload_gets_its_template_and_its_values() {
        let workload = |name: &str, kind: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": kind,
                "metadata": {"name": name, "namespace": "coral-system", "labels": {"app.kubernetes.io/version": "v0"}},
                "spec": {"replicas": 2, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "priorityClassName": "system-cluster-critical",
                    "containers": [{"name": "x", "image": IMAGE, "env": [{"name": "A", "value": "b"}],
                        "resources": {"limits": {"memory": "1Mi"}}}],
                }}},
            })
        };
        let role =
            json!({"kind": "Role", "metadata": {"name": "coral-one", "namespace": "coral-system"}, "rules": [1]});
        let base = [workload("coral-one", "Deployment"), role];
        let component = Component {
            name: "new-thing".to_owned(),
            summary: "A new thing.".to_owned(),
            objects: vec![base[0].clone(), workload("coral-two-parts", "Deployment")],
        };
        let files = files(&base, &[component]).unwrap();
        let names: Vec<&String> = files.keys().collect();
        let expected = [
            "Chart.yaml",
            "templates/new-thing.yaml",
            "templates/one.yaml",
            "values.schema.json",
            "values.yaml",
        ];
        assert_eq!(names, expected);
        assert!(files["templates/new-thing.yaml"].contains("{{- if .Values.components.newThing }}\n---\napiVersion"));
        assert!(files["templates/one.yaml"].contains("{{- if not .Values.components.newThing }}\n---\nkind: Role"));
        assert!(
            files["values.yaml"].contains("\ntwoParts:\n"),
            "{}",
            files["values.yaml"]
        );
        assert!(
            files["values.yaml"].contains("\n  newThing: false\n"),
            "{}",
            files["values.yaml"]
        );
        let schema: Value = serde_json::from_str(&files["values.schema.json"]).unwrap();
        assert!(schema["properties"]["twoParts"].is_object() && schema["additionalProperties"] == false);
    }
}
