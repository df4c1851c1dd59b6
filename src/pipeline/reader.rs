//! A serde deserializer over [`Node`] whose errors say what kind of mistake stands at which key.
//!
//! toml's own deserializer stops at a message and a span; to read on after a mistake we need its kind, its path and the
//! words that would have been right.
use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};

use super::document::{KeyPath, Node, Step, Value};

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key that must be there is not.
    Missing(&'static str),
    /// A key that no table of this kind has; the path ends with it.
    UnknownKey(&'static [&'static str]),
    /// A word that is none of these: the path ends with it where it is a table's key, else leads to the string.
    UnknownWord { word: String, expected: &'static [&'static str] },
    /// A value of another type, or out of its type's range.
    Type { found: String, expected: String },
    /// A table that must have exactly one entry of these.
    NotOne { found: Vec<String>, expected: &'static [&'static str] },
    /// A word that must be a table, such as `encoder = "resnet50"`.
    WordForTable(String),
    /// Whatever else.
    Other(String),
}

/// One mistake and where.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) path: Option<KeyPath>,
    pub(super) kind: Kind,
}

impl Fault {
    fn new(kind: Kind) -> Self {
        Self { path: None, kind }
    }

    fn at(mut self, track: &Track<'_>) -> Self {
        self.path.get_or_insert_with(|| track.path());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Other(message.to_string()))
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::Type { found: describe(&found), expected: words(&expected.to_string()) })
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }
    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::Type { found: format!("{length} values"), expected: words(&expected.to_string()) })
    }
    fn unknown_variant(word: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownWord { word: word.into(), expected })
    }
    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey(expected))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::Missing(field))
    }
}

fn describe(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Signed(n) => n.to_string(),
        Unexpected::Unsigned(n) => n.to_string(),
        Unexpected::Float(x) => format!("{x:?}"),
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Str(text) => format!("the string \"{text}\""),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

/// serde's names of Rust types in a user's words.
fn words(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        _ if expected.starts_with("struct ") => "a table".into(),
        _ => expected.strip_prefix("an array of length ").map_or_else(|| expected.into(), |n| format!("{n} numbers")),
    }
}

/// The way from the root, on the stack.
#[derive(Clone, Copy)]
enum Track<'a> {
    Root,
    Key(&'a Track<'a>, &'a str),
    Index(&'a Track<'a>, usize),
}

impl Track<'_> {
    fn path(&self) -> KeyPath {
        let (mut path, step) = match self {
            Self::Root => return KeyPath::default(),
            Self::Key(up, key) => (up.path(), Step::Key((*key).into())),
            Self::Index(up, index) => (up.path(), Step::Index(*index)),
        };
        path.0.push(step);
        path
    }
}

/// Reads `T` from the tree.
///
/// # Errors
/// The first mistake.
pub(super) fn read<T: de::DeserializeOwned>(node: &Node) -> Result<T, Fault> {
    T::deserialize(Reader { node, track: Track::Root })
}

struct Reader<'a> {
    node: &'a Node,
    track: Track<'a>,
}

impl<'a> Reader<'a> {
    fn read<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(n) => match (i64::try_from(*n), u64::try_from(*n)) {
                (Ok(n), _) => visitor.visit_i64(n),
                (_, Ok(n)) => visitor.visit_u64(n),
                _ => Err(de::Error::invalid_value(Unexpected::Other("a number beyond 64 bits"), &visitor)),
            },
            Value::Float(x) => visitor.visit_f64(*x),
            Value::Boolean(b) => visitor.visit_bool(*b),
            Value::Date => Err(de::Error::invalid_type(Unexpected::Other("a date"), &visitor)),
            Value::Array(items) => {
                let mut access = Items { items, next: 0, track: &self.track };
                let value = visitor.visit_seq(&mut access)?;
                // A visitor of fixed length leaves the rest unread.
                let expected = access.next;
                if expected < items.len() {
                    let (found, expected) = (format!("{} values", items.len()), format!("{expected} numbers"));
                    return Err(Fault::new(Kind::Type { found, expected }));
                }
                Ok(value)
            }
            Value::Table(entries) => visitor.visit_map(Entries { entries, next: 0, track: &self.track }),
        }
    }
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.read(visitor).map_err(|fault| fault.at(&self.track))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        expected: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let result = match &self.node.value {
            Value::String(word) => visitor.visit_enum(Variant { word, content: None, track: &self.track }),
            Value::Table(entries) => match entries.as_slice() {
                [(word, content)] => {
                    let track = Track::Key(&self.track, word);
                    let read = visitor.visit_enum(Variant { word, content: Some(content), track: &track });
                    read.map_err(|fault| fault.at(&track))
                }
                _ => {
                    let found = entries.iter().map(|(key, _)| key.clone()).collect();
                    Err(Fault::new(Kind::NotOne { found, expected }))
                }
            },
            other => {
                let expected = format!("one of {}", expected.join(", "));
                Err(Fault::new(Kind::Type { found: other.kind().into(), expected }))
            }
        };
        result.map_err(|fault| fault.at(&self.track))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
    track: &'a Track<'a>,
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        let track = Track::Index(self.track, self.next);
        self.next += 1;
        seed.deserialize(Reader { node, track }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Entries<'a> {
    entries: &'a [(String, Node)],
    next: usize,
    track: &'a Track<'a>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        self.next += 1;
        let read = seed.deserialize(key.as_str().into_deserializer());
        read.map(Some).map_err(|fault: Fault| fault.at(&Track::Key(self.track, key)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, node) = &self.entries[self.next - 1];
        seed.deserialize(Reader { node, track: Track::Key(self.track, key) })
    }
}

/// One variant: a word alone, or a word with its content.
struct Variant<'a> {
    word: &'a str,
    content: Option<&'a Node>,
    track: &'a Track<'a>,
}

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let word: de::value::StrDeserializer<'_, Fault> = self.word.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Fault::new(Kind::Type { found: "a table".into(), expected: "a word alone".into() })),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        match self.content {
            Some(node) => seed.deserialize(Reader { node, track: *self.track }),
            None => Err(Fault::new(Kind::WordForTable(self.word.into()))),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        Err(de::Error::invalid_type(Unexpected::TupleVariant, &visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        Err(de::Error::invalid_type(Unexpected::StructVariant, &visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainSettings;

    fn fault<T: de::DeserializeOwned + fmt::Debug>(text: &str) -> (String, Kind) {
        let fault = read::<T>(&Node::parse(text).unwrap()).unwrap_err();
        (fault.path.unwrap().to_string(), fault.kind)
    }

    #[test]
    fn reads_what_toml_reads() {
        let text = "epochs = 5\noptimizer.adamw = { rate = 2e-3, betas = [0.9, 0.95] }\nrate_scaling = 'linear'\n\
                    schedule.constant = {}\nclip_gradient_norm = 1\ncompat = 'torch'\n";
        let settings: TrainSettings = read(&Node::parse(text).unwrap()).unwrap();
        assert_eq!(settings, toml::from_str(text).unwrap());
    }

    #[test]
    fn each_kind_of_mistake_is_told_with_its_path() {
        let of = fault::<TrainSettings>;
        assert_eq!(of("epochs = 1").1, Kind::Missing("optimizer"));
        let (path, kind) = of("epochs = 1\noptimizer.sgd.moment = 3");
        assert!(path == "optimizer.sgd.moment" && matches!(kind, Kind::UnknownKey(keys) if keys.contains(&"momentum")));
        let (path, kind) = of("epochs = 1\noptimizer.sdg = {}");
        assert!(path == "optimizer.sdg" && matches!(kind, Kind::UnknownWord { .. }));
        let (path, kind) = of("epochs = 1\noptimizer = { sgd = {}, lars = {} }");
        assert!(path == "optimizer" && matches!(kind, Kind::NotOne { found, .. } if found.len() == 2));
        assert_eq!(of("optimizer = 'sgd'").1, Kind::WordForTable("sgd".into()));
        let (path, kind) = of("epochs = -3");
        assert_eq!(path, "epochs");
        assert_eq!(kind, Kind::Type { found: "-3".into(), expected: "a whole number, 0 or more".into() });
        let (path, kind) = of("epochs = 1\noptimizer.adamw.betas = [1, 2, 3]");
        assert_eq!(path, "optimizer.adamw.betas");
        assert_eq!(kind, Kind::Type { found: "3 values".into(), expected: "2 numbers".into() });
        assert_eq!(of("epochs = 1\nrate_scaling = 'cubic'\noptimizer.sgd={}").0, "rate_scaling");
    }
}
