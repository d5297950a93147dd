//! Writes an object as a template of Helm's that reads like a manifest.

use std::fmt::Write as _;

use serde_json::Value;

use super::tree::{Condition, DEEPER, Field, INDENT, Item, Node};

/// The namespace in the manifests, and what stands for it in a template.
const NAMESPACE: [&str; 2] = [coral_api::keys::SYSTEM_NAMESPACE, "{{ .Release.Namespace }}"];

/// The object, with a newline at its end.
pub(super) fn object(node: &Node) -> String {
    let mut text = String::new();
    block(&mut text, node, 0, false);
    text
}

/// Lines that are there under these conditions only.
pub(super) fn conditional(text: &mut String, conditions: &[Condition], indent: usize, write: impl FnOnce(&mut String)) {
    let spaces = " ".repeat(indent);
    if !conditions.is_empty() {
        let _ = writeln!(text, "{spaces}{{{{- if {} }}}}", expression(conditions));
    }
    write(text);
    if !conditions.is_empty() {
        let _ = writeln!(text, "{spaces}{{{{- end }}}}");
    }
}

fn expression(conditions: &[Condition]) -> String {
    let one = |condition: &Condition| {
        let value = format!(".Values.components.{}", condition.component);
        if condition.on { value } else { format!("not {value}") }
    };
    match conditions {
        [single] => one(single),
        several => {
            let several: Vec<String> = several
                .iter()
                .map(|condition| format!("({})", one(condition)))
                .collect();
            format!("and {}", several.join(" "))
        }
    }
}

/// A map or list on lines of its own. `continues`: the first line is indented already.
fn block(text: &mut String, node: &Node, indent: usize, continues: bool) {
    match node {
        Node::Map(fields) => {
            for (index, field) in fields.iter().enumerate() {
                let here = if continues && index == 0 { 0 } else { indent };
                conditional(text, &field.conditions, indent, |text| {
                    write_field(text, field, here, indent);
                });
            }
        }
        Node::List(items) => {
            for item in items {
                conditional(text, &item.conditions, indent, |text| write_item(text, item, indent));
            }
        }
        Node::Lines(lines) => text.push_str(&indented(lines, indent)),
        Node::Value(_) | Node::Expression(_) => {
            let _ = writeln!(text, "{}{}", " ".repeat(indent), inline(node));
        }
    }
}

fn write_field(text: &mut String, field: &Field, here: usize, indent: usize) {
    let Some(key) = &field.key else {
        block(text, &field.node, indent, false);
        return;
    };
    let _ = write!(text, "{}{}:", " ".repeat(here), scalar(key));
    match &field.node {
        Node::Value(Value::String(long)) if long.contains('\n') && !long.starts_with([' ', '\n']) => {
            literal(text, long, indent + 2);
        }
        Node::Value(_) | Node::Expression(_) => {
            let _ = writeln!(text, " {}", inline(&field.node));
        }
        Node::Map(_) | Node::List(_) | Node::Lines(_) => {
            text.push('\n');
            block(text, &field.node, indent + 2, false);
        }
    }
}

fn write_item(text: &mut String, item: &Item, indent: usize) {
    if let Node::Lines(_) = item.node {
        block(text, &item.node, indent, false);
        return;
    }
    let _ = write!(text, "{}- ", " ".repeat(indent));
    match &item.node {
        // A condition of the first field would stand behind the dash.
        Node::Map(fields)
            if fields
                .first()
                .is_some_and(|field| field.conditions.is_empty() && field.key.is_some()) =>
        {
            block(text, &item.node, indent + 2, true);
        }
        Node::Map(_) | Node::List(_) | Node::Lines(_) => {
            text.truncate(text.trim_end().len());
            text.push('\n');
            block(text, &item.node, indent + 2, false);
        }
        node => {
            let _ = writeln!(text, "{}", inline(node));
        }
    }
}

/// Several lines as they are.
fn literal(text: &mut String, long: &str, indent: usize) {
    let end = if long.ends_with("\n\n") {
        "+"
    } else if long.ends_with('\n') {
        ""
    } else {
        "-"
    };
    let _ = writeln!(text, " |{end}");
    let spaces = " ".repeat(indent);
    for line in long.strip_suffix('\n').unwrap_or(long).split('\n') {
        let indent = if line.is_empty() { "" } else { &spaces };
        let _ = writeln!(text, "{indent}{}", escaped(line));
    }
}

fn indented(lines: &str, indent: usize) -> String {
    let spaces = " ".repeat(indent);
    lines
        .replace(INDENT, &indent.to_string())
        .replace(DEEPER, &(indent + 2).to_string())
        .lines()
        .fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{spaces}{line}");
            text
        })
}

fn inline(node: &Node) -> String {
    match node {
        Node::Expression(expression) => expression.clone(),
        Node::Value(Value::String(text)) => scalar(text),
        Node::Value(other) => other.to_string(),
        Node::Map(_) | Node::List(_) | Node::Lines(_) => String::new(),
    }
}

/// A text as YAML has it: in quotes where it could be anything else than a text.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_'))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
        && !text.contains(NAMESPACE[0]);
    if is_plain || text == NAMESPACE[0] {
        escaped(text)
    } else {
        escaped(&Value::from(text).to_string())
    }
}

/// What looks like a template in a text is none, and the namespace is that of the release.
fn escaped(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}").replace(NAMESPACE[0], NAMESPACE[1])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_read_like_manifests() {
        let base = json!({
            "kind": "Thing",
            "metadata": {"name": "x", "namespace": "coral-system", "labels": {}},
            "spec": {"args": ["{{ $labels.pod }} is off", "on", "1", "a.coral-system.svc"], "n": 3, "empty": []},
            "text": "{\n  \"a\": {{x}}\n}\n",
        });
        let mut with = base.clone();
        with["spec"]["args"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "more", "value": true}));
        let mut node = Node::from(&base);
        node.merge(&base, &with, "extra");
        node.at(&["spec", "args"])
            .unwrap()
            .append("{{- with .Values.args }}\n{{- toYaml . | nindent %INDENT% }}\n{{- end }}");
        *node.at(&["metadata", "name"]).unwrap() = Node::Expression("{{ .Release.Name }}".to_owned());
        let expected = r#"kind: Thing
metadata:
  labels: {}
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
spec:
  args:
    - "{{ "{{" }} $labels.pod }} is off"
    - "on"
    - "1"
    - "a.{{ .Release.Namespace }}.svc"
    {{- if .Values.components.extra }}
    - name: more
      value: true
    {{- end }}
    {{- with .Values.args }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  empty: []
  "n": 3
text: |
  {
    "a": {{ "{{" }}x}}
  }
"#;
        assert_eq!(object(&node), expected);
    }
}
