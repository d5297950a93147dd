//! The operations of RFC 6902 that make one value of another: as few as one would write by hand.

use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, jsonptr::PointerBuf};
use serde_json::Value;

/// Appends what turns `before` into `after` at `path`. `None` is a place with nothing in it.
///
/// Lists are compared from both ends: what is between the equal ends is taken out and put in.
pub(super) fn difference(
    path: &PointerBuf,
    before: Option<&Value>,
    after: Option<&Value>,
    operations: &mut Vec<PatchOperation>,
) {
    match (before, after) {
        (None, None) => {}
        (None, Some(value)) => operations.push(PatchOperation::Add(AddOperation {
            path: path.clone(),
            value: value.clone(),
        })),
        (Some(_), None) => operations.push(PatchOperation::Remove(RemoveOperation { path: path.clone() })),
        (Some(before), Some(after)) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            for (key, value) in before {
                difference(&below(path, key), Some(value), after.get(key), operations);
            }
            for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
                difference(&below(path, key), None, Some(value), operations);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
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
                operations.push(PatchOperation::Remove(RemoveOperation {
                    path: below(path, start + index),
                }));
            }
            for (index, value) in after[..after.len() - end].iter().enumerate() {
                operations.push(PatchOperation::Add(AddOperation {
                    path: below(path, start + index),
                    value: value.clone(),
                }));
            }
        }
        (Some(_), Some(after)) => operations.push(PatchOperation::Replace(ReplaceOperation {
            path: path.clone(),
            value: after.clone(),
        })),
    }
}

/// One step further down.
pub(super) fn below<'a>(path: &PointerBuf, token: impl Into<json_patch::jsonptr::Token<'a>>) -> PointerBuf {
    let mut path = path.clone();
    path.push_back(token);
    path
}

/// A path of keys, escaped.
pub(super) fn pointer(keys: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(keys.iter().copied())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn operations(before: Option<&Value>, after: Option<&Value>) -> Value {
        let mut operations = Vec::new();
        difference(&pointer(&["x"]), before, after, &mut operations);
        serde_json::to_value(operations).unwrap()
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
            let mut operations = Vec::new();
            difference(&pointer(&["x"]), before.as_ref(), after.as_ref(), &mut operations);
            let mut patched = document(&before);
            json_patch::patch(&mut patched, &operations).unwrap();
            prop_assert_eq!(patched, document(&after));
        }
    }
}
