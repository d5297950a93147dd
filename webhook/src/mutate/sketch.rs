//! Reads of an object what [`mutate`](super::mutate) looks at, and skips the rest.
//!
//! Most of an object is none of Coral's business: probes, volumes, what fields were managed by whom. To make values of all that takes many
//! times as long as to skip it, and, where somebody sends rubbish on purpose, many times as much memory as the rubbish itself. A patch speaks
//! of places, and their places in the whole object and in a sketch of it are the same.

use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Values in a sketch. An object that the API server stores, 1.5 MiB at most, comes nowhere near it.
const MOST_VALUES: u32 = 100_000;

/// An object without what nobody asks for. Where something of another type is than belongs there, something of that type is left.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sketch(pub(crate) Value);

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(MOST_VALUES);
        let reader = Reader {
            part: &OBJECT,
            left: &left,
        };
        reader.deserialize(deserializer).map(Self)
    }
}

/// What is of interest below a place.
enum Part {
    /// Everything.
    All,
    /// These keys of a map.
    Keys(&'static [(&'static str, &'static Self)]),
    /// The same of every entry of a list.
    Each(&'static Self),
}

const OBJECT: Part = Part::Keys(&[
    ("apiVersion", &Part::All),
    ("kind", &Part::All),
    ("metadata", &METADATA),
    ("spec", &SPEC),
]);
const METADATA: Part = Part::Keys(&[
    ("annotations", &Part::All),
    ("deletionTimestamp", &Part::All),
    (
        "ownerReferences",
        &Part::Each(&Part::Keys(&[("controller", &Part::All)])),
    ),
]);
/// Of all kinds at once: which one it is may be told last.
const SPEC: Part = Part::Keys(&[
    ("nodeName", &Part::All),
    ("nodeSelector", &Part::All),
    ("affinity", &Part::All),
    ("initContainers", &CONTAINERS),
    ("containers", &CONTAINERS),
    ("template", &TEMPLATE),
    (
        "jobTemplate",
        &Part::Keys(&[
            ("metadata", &TEMPLATE_METADATA),
            ("spec", &Part::Keys(&[("template", &TEMPLATE)])),
        ]),
    ),
]);
const TEMPLATE: Part = Part::Keys(&[("metadata", &TEMPLATE_METADATA), ("spec", &POD)]);
const TEMPLATE_METADATA: Part = Part::Keys(&[("annotations", &Part::All)]);
const POD: Part = Part::Keys(&[
    ("nodeName", &Part::All),
    ("nodeSelector", &Part::All),
    ("affinity", &Part::All),
    ("initContainers", &CONTAINERS),
    ("containers", &CONTAINERS),
]);
const CONTAINERS: Part = Part::Each(&Part::Keys(&[
    ("name", &Part::All),
    ("image", &Part::All),
    ("imagePullPolicy", &Part::All),
]));

#[derive(Clone, Copy)]
struct Reader<'a> {
    part: &'static Part,
    /// How many values may still be made.
    left: &'a Cell<u32>,
}

impl Reader<'_> {
    fn below(self, part: &'static Part) -> Self {
        Self { part, ..self }
    }

    fn value<E: Error>(self, value: impl Into<Value>) -> Result<Value, E> {
        let left = self.left.get().checked_sub(1);
        self.left
            .set(left.ok_or_else(|| E::custom("the object has more values than any that can be stored"))?);
        Ok(value.into())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.value(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.value(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.value(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.value(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.value(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.value(value)
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.value(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let entry = match self.part {
            Part::All => self,
            Part::Each(part) => self.below(part),
            Part::Keys(_) => {
                while access.next_element::<IgnoredAny>()?.is_some() {}
                return self.value(Value::Array(Vec::new()));
            }
        };
        let mut entries = Vec::new();
        while let Some(value) = access.next_element_seed(entry)? {
            entries.push(value);
        }
        self.value(entries)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        match self.part {
            Part::All => {
                while let Some(key) = access.next_key()? {
                    map.insert(key, access.next_value_seed(self)?);
                }
            }
            Part::Keys(keys) => {
                while let Some(found) = access.next_key_seed(Known(keys))? {
                    match found {
                        Some((key, part)) => {
                            map.insert((*key).to_owned(), access.next_value_seed(self.below(part))?);
                        }
                        None => {
                            access.next_value::<IgnoredAny>()?;
                        }
                    }
                }
            }
            Part::Each(_) => while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {},
        }
        self.value(map)
    }
}

/// Finds a key among those of interest.
struct Known(&'static [(&'static str, &'static Part)]);

impl<'de> DeserializeSeed<'de> for Known {
    type Value = Option<&'static (&'static str, &'static Part)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Known {
    type Value = Option<&'static (&'static str, &'static Part)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(known, _)| *known == key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sketch(object: &Value) -> Value {
        let Sketch(sketch) = serde_json::from_str(&object.to_string()).unwrap();
        sketch
    }

    #[test]
    fn what_nobody_asks_for_is_left_out() {
        let object = json!({
            "kind": "Deployment",
            "metadata": {
                "name": "web", "annotations": {"a": "b"}, "managedFields": [{"x": {}}],
                "ownerReferences": [{"name": "shop", "controller": true}, null],
            },
            "spec": {"replicas": 2, "template": {"metadata": {"labels": {}}, "spec": {
                "nodeSelector": {"disk": "ssd"},
                "containers": [{"name": "web", "image": "nginx", "env": [{"name": "A", "value": "B"}]}, 7],
                "volumes": [{"name": "data"}],
            }}},
            "status": {"replicas": 2},
        });
        assert_eq!(
            sketch(&object),
            json!({
                "kind": "Deployment",
                "metadata": {"annotations": {"a": "b"}, "ownerReferences": [{"controller": true}, null]},
                "spec": {"template": {"metadata": {}, "spec": {
                    "nodeSelector": {"disk": "ssd"},
                    "containers": [{"name": "web", "image": "nginx"}, 7],
                }}},
            })
        );
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
            assert_eq!(sketch(&object), object);
            assert_eq!(sketch(&odd), odd);
        }
        let containers = json!({"spec": {"containers": {"a": 1}}});
        assert_eq!(sketch(&containers), json!({"spec": {"containers": {}}}));
    }

    #[test]
    fn rubbish_takes_no_memory() {
        let zeros = format!("[{}0]", "0,".repeat(500_000));
        let read = |text: &str| serde_json::from_str::<Sketch>(text);
        assert_eq!(read(&format!(r#"{{"status": {zeros}}}"#)).unwrap().0, json!({}));
        let error = read(&format!(r#"{{"spec": {{"affinity": {zeros}}}}}"#)).unwrap_err();
        assert!(error.to_string().starts_with("the object has more values"), "{error}");
    }
}
