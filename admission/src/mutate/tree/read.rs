//! Trees from text. What nobody asks for is skipped, and what somebody asks for is read by `serde_json`.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, Error, Number};

use super::{Entries, Interest, Part, Tree, skim};

/// Values in a tree. An object that the API server stores, 1.5 MiB at most, comes nowhere near it.
const MOST_VALUES: u32 = 100_000;

impl<'a> Tree<'a> {
    /// What is of interest of a text.
    pub(crate) fn read(text: &'a [u8], part: &'static Part) -> serde_json::Result<Self> {
        let mut reader = Reader {
            text,
            at: 0,
            left: MOST_VALUES,
        };
        let tree = reader.value(part)?;
        match reader.next() {
            Some(_) => Err(reader.error("nothing more")),
            None => Ok(tree),
        }
    }
}

/// Goes through the maps and lists that have something of interest. They are as deep as [`Part`]s are, however deep the text is.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// How many values may still be made.
    left: u32,
}

impl<'a> Reader<'a> {
    fn value(&mut self, part: &'static Part) -> Result<Tree<'a>, Error> {
        let tree = match (self.peek()?, part) {
            (b'{', Part::Keys(_) | Part::Prefixed(_)) => self.map(part)?,
            (b'[', Part::Each(part)) => self.list(part)?,
            (b'{', Part::Each(_)) => {
                self.skip()?;
                Tree::Map(Entries::EMPTY)
            }
            (b'[', Part::Keys(_) | Part::Prefixed(_)) => {
                self.skip()?;
                Tree::List(Vec::new())
            }
            (b'"', _) => self.text()?,
            _ => return self.whole(),
        };
        count(&mut self.left)?;
        Ok(tree)
    }

    /// A text. Most have nothing in them that needs to be looked at twice.
    fn text(&mut self) -> Result<Tree<'a>, Error> {
        let begin = self.at;
        let is_plain = self.skip_text()?;
        let quoted = &self.text[begin..self.at];
        if !is_plain {
            let text: String = serde_json::from_slice(quoted)?;
            return Ok(Tree::Text(text.into()));
        }
        std::str::from_utf8(&quoted[1..quoted.len() - 1])
            .map(Tree::text)
            .map_err(Error::custom)
    }

    fn map(&mut self, part: &'static Part) -> Result<Tree<'a>, Error> {
        let mut entries = Vec::new();
        self.entries(b'}', |reader| {
            let key = reader.key()?;
            match part.below(&key) {
                Interest::None => reader.skip()?,
                Interest::InTheKeyAlone => {
                    reader.skip()?;
                    count(&mut reader.left)?;
                    entries.push((text_of(key)?, Tree::Null));
                }
                Interest::In(part) => entries.push((text_of(key)?, reader.value(part)?)),
                Interest::Of(known, part) => entries.push((Cow::Borrowed(known), reader.value(part)?)),
            }
            Ok(())
        })?;
        Ok(Tree::Map(entries.into_iter().collect()))
    }

    fn list(&mut self, part: &'static Part) -> Result<Tree<'a>, Error> {
        let mut entries = Vec::new();
        self.entries(b']', |reader| {
            entries.push(reader.value(part)?);
            Ok(())
        })?;
        Ok(Tree::List(entries))
    }

    /// Visits what stands between brackets and commas.
    fn entries(&mut self, closing: u8, mut visit: impl FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        self.at += 1;
        if self.peek()? == closing {
            self.at += 1;
            return Ok(());
        }
        loop {
            visit(self)?;
            let separator = self.peek()?;
            self.at += 1;
            if separator == closing {
                return Ok(());
            }
            if separator != b',' {
                self.at -= 1;
                return Err(self.error(if closing == b'}' { "`,` or `}`" } else { "`,` or `]`" }));
            }
        }
    }

    /// A key and the colon behind it.
    fn key(&mut self) -> Result<Cow<'a, [u8]>, Error> {
        if self.peek()? != b'"' {
            return Err(self.error("a key"));
        }
        let begin = self.at;
        let is_plain = self.skip_text()?;
        let quoted = &self.text[begin..self.at];
        if self.peek()? != b':' {
            return Err(self.error("`:`"));
        }
        self.at += 1;
        if !is_plain {
            let key: String = serde_json::from_slice(quoted)?;
            return Ok(Cow::Owned(key.into_bytes()));
        }
        Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
    }

    fn skip(&mut self) -> Result<(), Error> {
        match self.peek()? {
            b'{' | b'[' => {
                let length = skim::length_to_closing(&self.text[self.at + 1..]).ok_or_else(|| self.ended())?;
                self.at += 1 + length;
            }
            b'"' => {
                self.skip_text()?;
            }
            b',' | b':' | b'}' | b']' => return Err(self.error("a value")),
            _ => {
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r');
                let rest = &self.text[self.at..];
                self.at += rest.iter().position(is_end).unwrap_or(rest.len());
            }
        }
        Ok(())
    }

    /// Goes behind a text in quotes, and tells whether it stands for itself.
    fn skip_text(&mut self) -> Result<bool, Error> {
        let begin = self.at + 1;
        let found = skim::length_to_quote(&self.text[begin..]);
        let (length, is_plain) = found.ok_or_else(|| self.ended())?;
        self.at = begin + length + 1;
        Ok(is_plain)
    }

    /// A value that is of interest as a whole, or none that has parts.
    fn whole(&mut self) -> Result<Tree<'a>, Error> {
        let mut deserializer = Deserializer::from_slice(&self.text[self.at..]);
        let tree = deserializer.deserialize_any(Whole { left: &mut self.left })?;
        self.at += deserializer.into_iter::<IgnoredAny>().byte_offset();
        Ok(tree)
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// The same where there must be one.
    fn peek(&mut self) -> Result<u8, Error> {
        self.next().ok_or_else(|| self.ended())
    }

    fn error(&self, expected: &str) -> Error {
        Error::custom(format_args!("expected {expected} at byte {}", self.at))
    }

    fn ended(&self) -> Error {
        Error::custom(format_args!(
            "it ends in the middle of a value, at byte {}",
            self.text.len()
        ))
    }
}

fn text_of(key: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Error> {
    match key {
        Cow::Borrowed(key) => std::str::from_utf8(key).map(Cow::Borrowed).map_err(Error::custom),
        Cow::Owned(key) => String::from_utf8(key).map(Cow::Owned).map_err(Error::custom),
    }
}

/// Counts a value that is made.
fn count<E: serde::de::Error>(left: &mut u32) -> Result<(), E> {
    let fewer = left.checked_sub(1);
    *left = fewer.ok_or_else(|| E::custom("the object has more values than any that can be stored"))?;
    Ok(())
}

/// Takes everything.
struct Whole<'l> {
    /// How many values may still be made.
    left: &'l mut u32,
}

impl Whole<'_> {
    fn made<E: serde::de::Error>(self, tree: Tree<'_>) -> Result<Tree<'_>, E> {
        count(self.left)?;
        Ok(tree)
    }
}

impl<'a> DeserializeSeed<'a> for Whole<'_> {
    type Value = Tree<'a>;

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Tree<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Whole<'_> {
    type Value = Tree<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Tree<'a>, E> {
        self.made(Tree::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Tree<'a>, E> {
        self.made(Tree::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Tree<'a>, E> {
        self.made(Tree::Number(value.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Tree<'a>, E> {
        self.made(Tree::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree<'a>, E> {
        self.made(Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'a str) -> Result<Tree<'a>, E> {
        self.made(Tree::text(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Tree<'a>, E> {
        self.made(Tree::Text(value.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut access: A) -> Result<Tree<'a>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_element_seed(Whole { left: &mut *self.left })? {
            entries.push(entry);
        }
        self.made(Tree::List(entries))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut access: A) -> Result<Tree<'a>, A::Error> {
        let mut entries = Vec::new();
        while let Some(Key(key)) = access.next_key()? {
            entries.push((key, access.next_value_seed(Whole { left: &mut *self.left })?));
        }
        self.made(Tree::Map(entries.into_iter().collect()))
    }
}

/// A key, borrowed where nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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

    /// Values like those of objects: with keys of interest, keys like them, and none.
    fn value() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            4 => prop::sample::select(vec!["metadata", "annotations", "spec", "template", "containers", "name", "affinity", "nam"]),
            1 => prop::sample::select(vec!["", "na\"me", "image.stvz.io/inject", "é\n", "{", "a_long_key_of_more_than_sixteen_bytes\\"]),
        ];
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1000_i16..1000).prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
            r#"([a-z"\\{}\[\]]|\PC|[\x00-\x1f]){0,40}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(8, 64, 5, move |inner| {
            let entry = (key.clone().prop_map(str::to_owned), inner.clone());
            prop_oneof![
                1 => prop::collection::vec(inner, 0..5).prop_map(Value::from),
                3 => prop::collection::vec(entry, 0..6).prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_there(value in value(), is_pretty: bool) {
            let text = if is_pretty { format!("{value:#}") } else { value.to_string() };
            let tree = Tree::read(text.as_bytes(), &OBJECT);
            prop_assert_eq!(tree.unwrap(), Tree::of(&value, &OBJECT));
        }

        #[test]
        fn whatever_others_read_is_read_alike(value in value(), cut in 0..400_usize, flip in 0..400_usize, byte in any::<u8>()) {
            let mut text = value.to_string().into_bytes();
            text.truncate(cut.max(1));
            if let Some(flipped) = text.get_mut(flip) {
                *flipped = byte;
            }
            let tree = Tree::read(&text, &OBJECT);
            if let Ok(value) = serde_json::from_slice::<Value>(&text) {
                prop_assert_eq!(tree.unwrap(), Tree::of(&value, &OBJECT));
            }
        }
    }
}
