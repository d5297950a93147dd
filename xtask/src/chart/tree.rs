//! An object of Kubernetes with what a chart can change in it: parts that are there only with an optional part of Coral, and places of values.

use serde_json::{Map, Value};

/// Whether a part of an object is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Condition {
    /// The optional part, as it is called in the values.
    pub(super) component: String,
    /// Whether it has to be on, or off.
    pub(super) on: bool,
}

/// An object, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// A text, a number, …, as it is.
    Value(Value),
    /// An expression in the place of a scalar.
    Expression(String),
    /// Lines of a template in the place of a map or list; [`INDENT`] stands for the number of spaces before them.
    Lines(String),
    Map(Vec<Field>),
    List(Vec<Item>),
}

/// In [`Node::Lines`]: how far they are indented.
pub(super) const INDENT: &str = "%INDENT%";
/// In [`Node::Lines`]: how far what is below one of them is indented.
pub(super) const DEEPER: &str = "%DEEPER%";

/// A field of a map, or lines behind its fields when there is no key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) key: Option<String>,
    pub(super) conditions: Vec<Condition>,
    pub(super) node: Node,
}

/// An item of a list, or lines behind its items.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) conditions: Vec<Condition>,
    /// Where it is without any optional part; nothing for what is not there then.
    origin: Option<usize>,
    pub(super) node: Node,
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        match value {
            // Empty ones are scalars in YAML's flow style.
            Value::Object(fields) if !fields.is_empty() => Self::Map(
                fields
                    .iter()
                    // To the API server, null is as good as nothing.
                    .filter(|(_, value)| !value.is_null())
                    .map(|(key, value)| Field::new(key, Vec::new(), value.into()))
                    .collect(),
            ),
            Value::Array(items) if !items.is_empty() => Self::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, value)| Item {
                        conditions: Vec::new(),
                        origin: Some(index),
                        node: value.into(),
                    })
                    .collect(),
            ),
            other => Self::Value(other.clone()),
        }
    }
}

impl Field {
    fn new(key: &str, conditions: Vec<Condition>, node: Node) -> Self {
        Self {
            key: Some(key.to_owned()),
            conditions,
            node,
        }
    }
}

impl Node {
    /// Makes what `component` changes conditional. `self` was made from `base`, and may know of other components already.
    pub(super) fn merge(&mut self, base: &Value, with: &Value, component: &str) {
        if base == with {
            return;
        }
        match (self, base, with) {
            (Self::Map(fields), Value::Object(base), Value::Object(with)) => merge_map(fields, base, with, component),
            (Self::List(items), Value::Array(base), Value::Array(with)) => merge_list(items, base, with, component),
            // Whoever holds this has made it conditional as a whole.
            (_, base, with) => unreachable!("{base} cannot become {with}"),
        }
    }

    /// The part at this path of keys, and of positions in lists. Parts that are there only sometimes are not meant.
    pub(super) fn at(&mut self, path: &[&str]) -> Option<&mut Self> {
        let Some((first, rest)) = path.split_first() else {
            return Some(self);
        };
        let inner = match self {
            Self::Map(fields) => fields
                .iter_mut()
                .find(|field| field.key.as_deref() == Some(first) && field.conditions.is_empty())
                .map(|field| &mut field.node),
            Self::List(items) => {
                let index = first.parse().ok();
                items
                    .iter_mut()
                    .find(|item| item.origin.is_some() && item.origin == index)
                    .map(|item| &mut item.node)
            }
            _ => None,
        };
        inner?.at(rest)
    }

    /// Replaces this text wherever it is the value of a field with this name.
    pub(super) fn replace(&mut self, key: &str, text: &str, expression: &str) {
        match self {
            Self::Map(fields) => {
                for field in fields {
                    if field.key.as_deref() == Some(key) && field.node == Self::Value(text.into()) {
                        field.node = Self::Expression(expression.to_owned());
                    }
                    field.node.replace(key, text, expression);
                }
            }
            Self::List(items) => items
                .iter_mut()
                .for_each(|item| item.node.replace(key, text, expression)),
            _ => {}
        }
    }

    /// Puts lines behind the last field or item.
    pub(super) fn append(&mut self, lines: &str) {
        let node = Self::Lines(lines.to_owned());
        match self {
            Self::Map(fields) => fields.push(Field {
                key: None,
                conditions: Vec::new(),
                node,
            }),
            Self::List(items) => items.push(Item {
                conditions: Vec::new(),
                origin: None,
                node,
            }),
            _ => *self = node,
        }
    }
}

fn can_merge(base: &Value, with: &Value) -> bool {
    matches!((base, with), (Value::Object(a), Value::Object(b)) if !a.is_empty() && !b.is_empty())
        || matches!((base, with), (Value::Array(a), Value::Array(b)) if !a.is_empty() && !b.is_empty())
}

fn condition(component: &str, on: bool) -> Condition {
    Condition {
        component: component.to_owned(),
        on,
    }
}

fn merge_map(fields: &mut Vec<Field>, base: &Map<String, Value>, with: &Map<String, Value>, component: &str) {
    for (key, before) in base {
        // What is there only with another component has the same key, perhaps, but is not meant.
        let is_meant = |field: &&mut Field| {
            field.key.as_deref() == Some(key) && field.conditions.iter().all(|condition| !condition.on)
        };
        let Some(field) = fields.iter_mut().find(is_meant) else {
            continue;
        };
        match with.get(key) {
            Some(after) if after == before => {}
            Some(after) if can_merge(before, after) => field.node.merge(before, after, component),
            after => {
                field.conditions.push(condition(component, false));
                if let Some(after) = after {
                    fields.push(Field::new(key, vec![condition(component, true)], after.into()));
                }
            }
        }
    }
    for (key, value) in with.iter().filter(|(key, _)| !base.contains_key(*key)) {
        fields.push(Field::new(key, vec![condition(component, true)], value.into()));
    }
}

fn merge_list(items: &mut Vec<Item>, base: &[Value], with: &[Value], component: &str) {
    let (mut old, mut new) = (0, 0);
    let position = |items: &[Item], origin: usize| items.iter().position(|item| item.origin == Some(origin));
    while old < base.len() || new < with.len() {
        let (before, after) = (base.get(old), with.get(new));
        let is_same = |a: &Value, b: &Value| a == b || (!a["name"].is_null() && a["name"] == b["name"]);
        match (before, after) {
            (Some(before), Some(after)) if is_same(before, after) => {
                if let Some(index) = position(items, old).filter(|_| before != after) {
                    items[index].node.merge(before, after, component);
                }
                (old, new) = (old + 1, new + 1);
            }
            // It comes later: until then, what is there is new.
            (before, Some(after))
                if before.is_none_or(|before| with[new..].iter().any(|later| is_same(before, later))) =>
            {
                let item = Item {
                    conditions: vec![condition(component, true)],
                    origin: None,
                    node: after.into(),
                };
                let index = position(items, old).unwrap_or(items.len());
                items.insert(index, item);
                new += 1;
            }
            (_, _) => {
                if let Some(index) = position(items, old) {
                    items[index].conditions.push(condition(component, false));
                }
                old += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is left of a node when these components are on.
    fn resolved(node: &Node, on: &[&str]) -> Value {
        let holds = |conditions: &[Condition]| {
            conditions
                .iter()
                .all(|condition| on.contains(&condition.component.as_str()) == condition.on)
        };
        match node {
            Node::Value(value) => value.clone(),
            Node::Expression(text) | Node::Lines(text) => text.as_str().into(),
            Node::Map(fields) => fields
                .iter()
                .filter(|field| holds(&field.conditions))
                .filter_map(|field| Some((field.key.clone()?, resolved(&field.node, on))))
                .collect::<Map<_, _>>()
                .into(),
            Node::List(items) => items
                .iter()
                .filter(|item| holds(&item.conditions))
                .map(|item| resolved(&item.node, on))
                .collect(),
        }
    }

    #[test]
    fn each_component_changes_what_it_changes_and_nothing_else() {
        let base = json!({
            "name": "x", "gone": 1, "replaced": "a", "deep": {"kept": 1, "list": [1, 2, 3]},
            "containers": [{"name": "main", "env": [{"name": "A"}], "image": "i"}],
        });
        let one = json!({
            "name": "x", "replaced": {"b": 1}, "deep": {"kept": 1, "more": [true], "list": [1, 3]},
            "containers": [{"name": "main", "env": [{"name": "A"}, {"name": "B"}], "image": "i", "mounts": [1]}],
        });
        let two = json!({
            "name": "x", "gone": 1, "replaced": "a", "deep": {"kept": 2, "list": [0, 1, 2, 3, 4]},
            "containers": [{"name": "before"}, {"name": "main", "env": [{"name": "A"}, {"name": "C"}], "image": "i"}],
        });
        let mut node = Node::from(&base);
        node.merge(&base, &one, "one");
        node.merge(&base, &two, "two");
        assert_eq!(resolved(&node, &[]), base);
        assert_eq!(resolved(&node, &["one"]), one);
        assert_eq!(resolved(&node, &["two"]), two);
        let both = resolved(&node, &["one", "two"]);
        let names = &both["containers"][1]["env"];
        assert_eq!(names, &json!([{"name": "A"}, {"name": "B"}, {"name": "C"}]));
        assert_eq!(both["deep"]["list"], json!([0, 1, 3, 4]));
    }

    #[test]
    fn places_are_found_by_their_path() {
        let mut node = Node::from(&json!({"a": [{"b": 1}, {"b": 2}]}));
        assert_eq!(node.at(&["a", "1", "b"]), Some(&mut Node::Value(2.into())));
        assert_eq!(node.at(&["a", "2"]), None);
        assert_eq!(node.at(&["a", "0", "b", "c"]), None);
    }
}
