//! A TOML file as a tree that knows where each value stands and who wrote it.
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::Mistake;

/// Line and column, both from 1.
pub(super) type Position = (usize, usize);

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// From the root to a value: `augment.image[2].color_jitter.hue`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

impl KeyPath {
    /// Reads `a.b[2].c` and, as the command line writes it, `a.b.2.c`.
    pub(super) fn parse(text: &str) -> Self {
        let steps = text.split(['.', '[', ']']).filter(|part| !part.is_empty());
        Self(steps.map(|part| part.parse().map_or_else(|_| Step::Key(part.into()), Step::Index)).collect())
    }

    pub(super) fn child(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.into()));
        Self(steps)
    }

    pub(super) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Who wrote a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file, its key here.
    File(Position),
    /// `--set` with this text.
    Override(String),
    /// We, to read on after a mistake that is already noted.
    Filler,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// Where the value itself begins, if it came from the file.
    pub(super) position: Option<Position>,
}

/// TOML's values; entries keep the order of the file.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Date,
    Array(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Value {
    /// In words, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::Date => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(super) fn filler(value: Value) -> Self {
        Self { value, origin: Origin::Filler, position: None }
    }

    /// The tree of a TOML file.
    ///
    /// # Errors
    /// Every error of syntax.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines::of(text);
        if errors.is_empty() {
            let value = from_table(table.get_ref(), &|at| Some(lines.position(at)), &Origin::Filler);
            return Ok(Self { value, origin: Origin::File((1, 1)), position: Some((1, 1)) });
        }
        let mistakes = errors.iter().map(|error| Mistake {
            key: String::new(),
            position: error.span().map(|span| lines.position(span.start)),
            problem: format!("this is not TOML: {}", error.message()),
            remedy: "mend the syntax, further mistakes are looked for then".into(),
        });
        Err(mistakes.collect())
    }

    pub(super) fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
            (Value::Array(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    pub(super) fn find(&self, path: &KeyPath) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, step| node.child(step))
    }

    pub(super) fn find_mut(&mut self, path: &KeyPath) -> Option<&mut Self> {
        let mut node = self;
        for step in &path.0 {
            node = match (&mut node.value, step) {
                (Value::Table(entries), Step::Key(key)) => {
                    entries.iter_mut().find(|(k, _)| k == key).map(|(_, node)| node)?
                }
                (Value::Array(items), Step::Index(index)) => items.get_mut(*index)?,
                _ => return None,
            };
        }
        Some(node)
    }

    /// The deepest value on the way to `path` that somebody wrote.
    pub(super) fn deepest(&self, path: &KeyPath) -> &Self {
        let mut node = self;
        for step in &path.0 {
            let Some(child) = node.child(step) else { break };
            node = child;
        }
        node
    }

    /// Puts `node` at `path`, making tables on the way; false where a value that is no table stands in the way.
    pub(super) fn put(&mut self, path: &KeyPath, node: Self) -> bool {
        let Some((last, way)) = path.0.split_last() else { return false };
        let mut at = self;
        for step in way {
            at = match (&mut at.value, step) {
                (Value::Table(entries), Step::Key(key)) => {
                    let index = entries.iter().position(|(k, _)| k == key).unwrap_or(entries.len());
                    if index == entries.len() {
                        let origin = node.origin.clone();
                        entries.push((key.clone(), Self { value: Value::Table(vec![]), origin, position: None }));
                    }
                    &mut entries[index].1
                }
                (Value::Array(items), Step::Index(index)) if *index < items.len() => &mut items[*index],
                _ => return false,
            };
        }
        match (&mut at.value, last) {
            (Value::Table(entries), Step::Key(key)) => {
                match entries.iter_mut().find(|(k, _)| k == key) {
                    Some((_, old)) => *old = node,
                    None => entries.push((key.clone(), node)),
                }
                true
            }
            (Value::Array(items), Step::Index(index)) if *index < items.len() => {
                items[*index] = node;
                true
            }
            _ => false,
        }
    }

    /// Takes the entry `key` out of a table.
    pub(super) fn remove(&mut self, key: &str) {
        if let Value::Table(entries) = &mut self.value {
            entries.retain(|(k, _)| k != key);
        }
    }

    /// Applies `key=value`; the value is TOML, or a bare word.
    ///
    /// # Errors
    /// The text has no `=`, the value is broken TOML, or the key leads through a value.
    pub(super) fn set(&mut self, text: &str) -> Result<(), Mistake> {
        let mistake = |key: &str, problem: String, remedy: &str| Mistake {
            key: key.into(),
            position: None,
            problem: format!("--set {text}: {problem}"),
            remedy: remedy.into(),
        };
        let Some((key, written)) = text.split_once('=') else {
            return Err(mistake("", "no `=` in it".into(), "write --set train.epochs=3"));
        };
        let (key, written) = (key.trim(), written.trim());
        let path = KeyPath::parse(key);
        if path.0.is_empty() {
            return Err(mistake("", "no key before the `=`".into(), "write --set train.epochs=3"));
        }
        let origin = Origin::Override(text.into());
        let value = match DeValue::parse(written) {
            Ok(value) => from_value(&value, &|_| None, &origin),
            Err(error) if written.starts_with(['[', '{', '"', '\'']) => {
                return Err(mistake(key, error.message().into(), "write the value as in a pipeline file"));
            }
            Err(_) => Value::String(written.into()),
        };
        if self.put(&path, Self { value, origin, position: None }) {
            return Ok(());
        }
        Err(mistake(key, "there is no such place in the pipeline".into(), "name keys from the top, with dots"))
    }
}

/// `origin` is for what has no position.
fn from_table(table: &DeTable<'_>, position: &dyn Fn(usize) -> Option<Position>, origin: &Origin) -> Value {
    let mut entries: Vec<(usize, String, Node)> = table
        .iter()
        .map(|(key, value)| {
            let origin = position(key.span().start).map_or_else(|| origin.clone(), Origin::File);
            let inner = from_value(value, position, &origin);
            let node = Node { value: inner, origin, position: position(value.span().start) };
            (key.span().start, key.get_ref().to_string(), node)
        })
        .collect();
    entries.sort_by_key(|(start, ..)| *start);
    Value::Table(entries.into_iter().map(|(_, key, node)| (key, node)).collect())
}

fn from_value(value: &Spanned<DeValue<'_>>, position: &dyn Fn(usize) -> Option<Position>, origin: &Origin) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        // More than 128 bits is no setting of ours: the largest number then fails its range check.
        DeValue::Integer(n) => Value::Integer(i128::from_str_radix(n.as_str(), n.radix()).unwrap_or(i128::MAX)),
        DeValue::Float(x) => Value::Float(x.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| {
                    let at = position(item.span().start);
                    let origin = at.map_or_else(|| origin.clone(), Origin::File);
                    Node { value: from_value(item, position, &origin), origin, position: at }
                })
                .collect(),
        ),
        DeValue::Table(table) => from_table(table, position, origin),
    }
}

/// Byte offsets as lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    /// Columns count characters.
    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset.min(self.text.len())).map_or(0, |text| text.chars().count());
        (line, before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_keys_and_values() {
        let node = Node::parse("a = 1\n\n[b.c]\nd = [\n  2, 3]\n\"é\" = { x = true }\n").unwrap();
        let at = |key: &str| node.find(&KeyPath::parse(key)).unwrap();
        assert_eq!(at("b.c").origin, Origin::File((3, 4)));
        assert_eq!((at("b.c.d").origin.clone(), at("b.c.d").position), (Origin::File((4, 1)), Some((4, 5))));
        assert_eq!(at("b.c.d[1]").position, Some((5, 6)));
        assert_eq!(at("b.c.é.x").position, Some((6, 13)));
    }

    #[test]
    fn every_syntax_error_has_its_line() {
        let mistakes = Node::parse("a = \nb = 2\nc = ]\n").unwrap_err();
        let lines: Vec<_> = mistakes.iter().map(|m| m.position.unwrap().0).collect();
        assert!(lines.contains(&1) && lines.contains(&3), "{mistakes:?}");
    }

    #[test]
    fn overrides_replace_values_make_tables_and_reach_into_lists() {
        let mut node = Node::parse("[train]\nepochs = 5\nops = [{ a = 1 }, { b = 2 }]\n").unwrap();
        for text in ["train.epochs=3", "device=cuda:0", "new.table.key = [1, 2]", "train.ops.1.b=7"] {
            node.set(text).unwrap();
        }
        let value = |key: &str| &node.find(&KeyPath::parse(key)).unwrap().value;
        assert!(matches!(value("train.epochs"), Value::Integer(3)));
        assert!(matches!(value("device"), Value::String(word) if word == "cuda:0"));
        assert!(matches!(value("new.table.key[1]"), Value::Integer(2)));
        assert!(matches!(value("train.ops[1].b"), Value::Integer(7)));
    }

    #[test]
    fn broken_overrides_say_so() {
        let mut node = Node::parse("seed = 1\n").unwrap();
        for text in ["train.epochs", "=3", "a=[1, 2", "seed.deeper=1", "list.5.x.y"] {
            let mistake = node.set(text).unwrap_err();
            assert!(mistake.problem.contains(text), "{mistake:?}");
        }
    }
}
