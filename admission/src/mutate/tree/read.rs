//! Trees from text. What nobody asks for is skipped.

use std::{borrow::Cow, cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;

use super::{Entries, Interest, Part, Tree};

/// Values in a tree. An object that the API server stores, 1.5 MiB at most, comes nowhere near it.
const MOST_VALUES: u32 = 100_000;

impl<'a> Tree<'a> {
    /// What is of interest of a text.
    pub(crate) fn read(text: &'a [u8], part: &'static Part) -> serde_json::Result<Self> {
        let left = Cell::new(MOST_VALUES);
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let tree = Reader { part, left: &left }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(tree)
    }
}

#[derive(Clone, Copy)]
struct Reader<'l> {
    part: &'static Part,
    /// How many values may still be made.
    left: &'l Cell<u32>,
}

impl Reader<'_> {
    fn below(self, part: &'static Part) -> Self {
        Self { part, ..self }
    }

    fn made<E: Error>(self, tree: Tree<'_>) -> Result<Tree<'_>, E> {
        let left = self.left.get().checked_sub(1);
        self.left
            .set(left.ok_or_else(|| E::custom("the object has more values than any that can be stored"))?);
        Ok(tree)
    }
}

impl<'a> DeserializeSeed<'a> for Reader<'_> {
    type Value = Tree<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Tree<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Reader<'_> {
    type Value = Tree<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree<'a>, E> {
        self.made(Tree::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree<'a>, E> {
        self.made(Tree::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree<'a>, E> {
        self.made(Tree::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree<'a>, E> {
        self.made(Tree::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree<'a>, E> {
        self.made(Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'a str) -> Result<Tree<'a>, E> {
        self.made(Tree::text(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree<'a>, E> {
        self.made(Tree::Text(value.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut access: A) -> Result<Tree<'a>, A::Error> {
        let mut entries = Vec::new();
        if let Some(part) = self.part.each() {
            while let Some(entry) = access.next_element_seed(self.below(part))? {
                entries.push(entry);
            }
        } else {
            while access.next_element::<IgnoredAny>()?.is_some() {}
        }
        self.made(Tree::List(entries))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut access: A) -> Result<Tree<'a>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key_seed(Key(self.part))? {
            match key {
                Found::Nothing => {
                    access.next_value::<IgnoredAny>()?;
                }
                Found::Key(key) => {
                    access.next_value::<IgnoredAny>()?;
                    entries.push((key, self.made(Tree::Null)?));
                }
                Found::Part(key, part) => entries.push((key, access.next_value_seed(self.below(part))?)),
            }
        }
        self.made(Tree::Map(entries.into_iter().collect::<Entries<'_>>()))
    }
}

/// Finds out whether a key is of interest.
struct Key(&'static Part);

enum Found<'a> {
    Nothing,
    /// The key, but not its value.
    Key(Cow<'a, str>),
    Part(Cow<'a, str>, &'static Part),
}

impl Key {
    fn find<'a>(&self, key: &str, whole: impl FnOnce() -> Cow<'a, str>) -> Found<'a> {
        match self.0.below(key) {
            Interest::None => Found::Nothing,
            Interest::InTheKeyAlone => Found::Key(whole()),
            Interest::In(part) => Found::Part(whole(), part),
        }
    }
}

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Found<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Found<'a>, D::Error> {
        match self.0 {
            // Of these, there is no need to know whether they are text.
            Part::Keys(_) => deserializer.deserialize_bytes(self),
            _ => deserializer.deserialize_str(self),
        }
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Found<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Found<'a>, E> {
        let Part::Keys(keys) = self.0 else {
            return Ok(Found::Nothing);
        };
        let found = keys.iter().find(|(known, _)| known.as_bytes() == key);
        Ok(found.map_or(Found::Nothing, |(known, part)| Found::Part(Cow::Borrowed(known), part)))
    }

    fn visit_borrowed_str<E: Error>(self, key: &'a str) -> Result<Found<'a>, E> {
        Ok(self.find(key, || Cow::Borrowed(key)))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Found<'a>, E> {
        Ok(self.find(key, || Cow::Owned(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mutate::OBJECT;

    fn read(text: &str) -> Value {
        Value::from(&Tree::read(text.as_bytes(), &OBJECT).unwrap())
    }

    #[test]
    fn what_nobody_asks_for_is_left_out() {
        let object = json!({
            "kind": "Deployment",
            "metadata": {
                "name": "web", "annotations": {"a": "b", "image.stvz.io/inject": "selectors"}, "managedFields": [{"x": {}}],
                "ownerReferences": [{"name": "shop", "controller": true}, null],
            },
            "spec": {"replicas": 2, "template": {"metadata": {"labels": {}}, "spec": {
                "nodeSelector": {"disk": "ssd"},
                "containers": [{"name": "web", "image": "nginx", "env": [{"name": "A", "value": "B"}]}, 7],
                "volumes": [{"name": "data"}],
            }}},
            "status": {"replicas": 2},
        });
        let expected = json!({
            "kind": "Deployment",
            "metadata": {
                "annotations": {"a": null, "image.stvz.io/inject": "selectors"},
                "ownerReferences": [{"controller": true}, null],
            },
            "spec": {"template": {"metadata": {}, "spec": {
                "nodeSelector": {"disk": "ssd"},
                "containers": [{"name": "web", "image": "nginx"}, 7],
            }}},
        });
        assert_eq!(read(&object.to_string()), expected);
        assert_eq!(read(&format!("{object:#}")), expected);
    }

    #[test]
    fn what_is_of_another_type_is_of_another_type_still() {
        for odd in [
            json!(null),
            json!(true),
            json!(-1),
            json!(0.5),
            json!("text"),
            json!([]),
        ] {
            let object = json!({"metadata": odd, "spec": odd});
            assert_eq!(read(&object.to_string()), object);
            assert_eq!(read(&odd.to_string()), odd);
        }
        let containers = json!({"spec": {"containers": {"a": 1}}});
        assert_eq!(read(&containers.to_string()), json!({"spec": {"containers": {}}}));
    }

    #[test]
    fn of_a_key_that_comes_twice_the_last_counts() {
        let text = r#"{"kind": "a", "spec": {"nodeName": "z", "affinity": {"b": 1, "a": 2, "b": 3, "a": 4, "b": 5}, "nodeName": 1}, "\u006bind": "c"}"#;
        let expected = json!({"kind": "c", "spec": {"nodeName": 1, "affinity": {"a": 4, "b": 5}}});
        assert_eq!(read(text), expected);
        assert_eq!(
            serde_json::from_str::<Value>(text).unwrap(),
            expected,
            "as others read it"
        );
    }

    #[test]
    fn rubbish_takes_no_memory() {
        let zeros = format!("[{}0]", "0,".repeat(500_000));
        assert_eq!(read(&format!(r#"{{"status": {zeros}}}"#)), json!({}));
        let text = format!(r#"{{"spec": {{"affinity": {zeros}}}}}"#);
        let error = Tree::read(text.as_bytes(), &OBJECT).unwrap_err();
        assert!(error.to_string().starts_with("the object has more values"), "{error}");
        let deep = format!(r#"{{"spec": {{"affinity": {}"#, "[".repeat(1_000_000));
        assert!(Tree::read(deep.as_bytes(), &OBJECT).is_err());
    }
}
