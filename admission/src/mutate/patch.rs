//! The operations of RFC 6902 that make one value of another: as few as one would write by hand.

use json_patch::PatchOperation;
use serde::Serialize;

use super::{
    lanes::{is, is_special, position},
    tree::Tree,
};

/// Operations, as the JSON that is sent.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    /// All of a list but its closing bracket.
    text: Vec<u8>,
}

impl Patch {
    pub(crate) const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The list of operations, as JSON.
    pub(crate) fn into_json(mut self) -> Vec<u8> {
        let end: &[u8] = if self.is_empty() { b"[]" } else { b"]" };
        self.text.extend_from_slice(end);
        self.text
    }

    pub(crate) fn into_operations(self) -> Vec<PatchOperation> {
        serde_json::from_slice(&self.into_json()).expect("a patch is written as RFC 6902 says")
    }

    fn push(&mut self, operation: &str, path: &Path, value: Option<&Tree<'_>>) {
        if self.text.is_empty() {
            // Most patches are no longer.
            self.text.reserve(1 << 10);
        }
        self.text.push(if self.text.is_empty() { b'[' } else { b',' });
        self.text.extend_from_slice(b"{\"op\":\"");
        self.text.extend_from_slice(operation.as_bytes());
        self.text.extend_from_slice(b"\",\"path\":");
        write_text(&mut self.text, &path.0);
        match value {
            None => {}
            Some(Tree::Text(value)) => {
                self.text.extend_from_slice(b",\"value\":");
                write_text(&mut self.text, value);
            }
            Some(value) => {
                self.text.extend_from_slice(b",\"value\":");
                write_json(&mut self.text, value);
            }
        }
        self.text.push(b'}');
    }
}

/// Appends a value as JSON.
pub(crate) fn write_json<T: Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(text, value).expect("keys are text, and memory takes everything");
}

/// Appends a text as JSON.
fn write_text(json: &mut Vec<u8>, text: &str) {
    let begin = json.len();
    json.reserve(text.len() + 2);
    json.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = position(rest, is_special) {
        let special = rest[at];
        if special < b' ' {
            // Hardly any text has such a thing.
            json.truncate(begin);
            return write_json(json, text);
        }
        json.extend_from_slice(&rest[..at]);
        json.extend_from_slice(&[b'\\', special]);
        rest = &rest[at + 1..];
    }
    json.extend_from_slice(rest);
    json.push(b'"');
}

/// Where something is, as RFC 6901 writes it.
#[derive(Debug)]
pub(crate) struct Path(String);

impl Path {
    /// A path of keys.
    pub(crate) fn of(keys: &[&str]) -> Self {
        // Hardly any path is longer, and to let it grow takes longer than to write it.
        let mut path = Self(String::with_capacity(128));
        for key in keys {
            path.push(key);
        }
        path
    }

    /// Goes one step further down, for as long as `visit` takes.
    pub(crate) fn below<T>(&mut self, key: &str, visit: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.len();
        self.push(key);
        let visited = visit(self);
        self.0.truncate(length);
        visited
    }

    /// The same for an entry of a list.
    pub(crate) fn at<T>(&mut self, index: usize, visit: impl FnOnce(&mut Self) -> T) -> T {
        self.below(itoa::Buffer::new().format(index), visit)
    }

    /// Goes one step further down.
    pub(crate) fn push(&mut self, key: &str) {
        self.0.push('/');
        let mut rest = key;
        while let Some(at) = position(rest.as_bytes(), |lane| is(lane, b'~') | is(lane, b'/')) {
            let (plain, special) = rest.split_at(at);
            self.0.push_str(plain);
            self.0.push_str(if special.starts_with('~') { "~0" } else { "~1" });
            rest = &special[1..];
        }
        self.0.push_str(rest);
    }
}

/// Appends what turns `before` into `after` at `path`. `None` is a place with nothing in it.
///
/// Lists are compared from both ends: what is between the equal ends is taken out and put in.
pub(crate) fn difference(path: &mut Path, before: Option<&Tree<'_>>, after: Option<&Tree<'_>>, operations: &mut Patch) {
    match (before, after) {
        (None, None) => {}
        (None, Some(value)) => operations.push("add", path, Some(value)),
        (Some(_), None) => operations.push("remove", path, None),
        (Some(before), Some(after)) if before == after => {}
        (Some(Tree::Map(before)), Some(Tree::Map(after))) => {
            for (key, value) in before.iter() {
                path.below(key, |path| difference(path, Some(value), after.get(key), operations));
            }
            for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(key)) {
                path.below(key, |path| difference(path, None, Some(value), operations));
            }
        }
        (Some(Tree::List(before)), Some(Tree::List(after))) => {
            let start = before.iter().zip(after).take_while(|(one, other)| one == other).count();
            let (before, after) = (&before[start..], &after[start..]);
            let end = before
                .iter()
                .rev()
                .zip(after.iter().rev())
                .take_while(|(one, other)| one == other)
                .count();
            // From the last to the first, so that indexes stay what they are.
            for index in (0..before.len() - end).rev() {
                path.at(start + index, |path| operations.push("remove", path, None));
            }
            for (index, value) in after[..after.len() - end].iter().enumerate() {
                path.at(start + index, |path| operations.push("add", path, Some(value)));
            }
        }
        (Some(_), Some(after)) => operations.push("replace", path, Some(after)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::mutate::tree::Part;

    fn written(before: Option<&Value>, after: Option<&Value>) -> Vec<u8> {
        let tree = |value| Tree::of(value, &Part::All);
        let (before, after) = (before.map(tree), after.map(tree));
        let mut patch = Patch::default();
        difference(&mut Path::of(&["x"]), before.as_ref(), after.as_ref(), &mut patch);
        assert_eq!(patch.is_empty(), before == after);
        patch.into_json()
    }

    fn operations(before: Option<&Value>, after: Option<&Value>) -> Value {
        serde_json::from_slice(&written(before, after)).unwrap()
    }

    #[test]
    fn patches_are_as_few_as_one_would_write_by_hand() {
        for (before, after, expected) in [
            (None, None, json!([])),
            (
                None,
                Some(json!({"a": 1})),
                json!([{"op": "add", "path": "/x", "value": {"a": 1}}]),
            ),
            (Some(json!({"a": 1})), None, json!([{"op": "remove", "path": "/x"}])),
            (
                Some(json!({"a": 1, "b/c~d": 2})),
                Some(json!({"b/c~d": 3, "image.stvz.io/e": 4})),
                json!([
                    {"op": "remove", "path": "/x/a"},
                    {"op": "replace", "path": "/x/b~1c~0d", "value": 3},
                    {"op": "add", "path": "/x/image.stvz.io~1e", "value": 4},
                ]),
            ),
            (
                Some(json!([1, 2, 3])),
                Some(json!([1, 2, 4, 3])),
                json!([{"op": "add", "path": "/x/2", "value": 4}]),
            ),
            (
                Some(json!([1, 2, 3, 4])),
                Some(json!([1, 5, 4])),
                json!([
                    {"op": "remove", "path": "/x/2"},
                    {"op": "remove", "path": "/x/1"},
                    {"op": "add", "path": "/x/1", "value": 5},
                ]),
            ),
            (
                Some(json!(null)),
                Some(json!({})),
                json!([{"op": "replace", "path": "/x", "value": {}}]),
            ),
        ] {
            assert_eq!(operations(before.as_ref(), after.as_ref()), expected);
        }
    }

    #[test]
    fn every_text_is_written_as_json() {
        for at in 0..20 {
            for char in (0..=0x100).filter_map(char::from_u32) {
                let text = format!("{}{char}{}", "é".repeat(at / 2), "x".repeat(20 - at));
                let mut json = Vec::new();
                write_text(&mut json, &text);
                assert_eq!(String::from_utf8(json).unwrap(), Value::from(text).to_string());
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|bool| json!(bool)),
            (0..3).prop_map(|number| json!(number))
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-c/~]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_other_value(before in prop::option::of(value()), after in prop::option::of(value())) {
            let document = |value: &Option<Value>| value.as_ref().map_or(json!({}), |value| json!({"x": value}));
            let operations: Vec<PatchOperation> = serde_json::from_slice(&written(before.as_ref(), after.as_ref())).unwrap();
            let mut patched = document(&before);
            json_patch::patch(&mut patched, &operations).unwrap();
            prop_assert_eq!(patched, document(&after));
        }
    }
}
