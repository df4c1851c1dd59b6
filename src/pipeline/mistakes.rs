//! Reads on after a mistake, so that a file's mistakes are reported all at once.
//!
//! After each mistake the tree is mended at that spot (an unknown key goes, a value of the wrong type or a missing one is
//! filled in from a pipeline that is right) and read again. What stands under a mended key is never judged by its values.
use serde::de::DeserializeOwned;

use super::{
    document::{KeyPath, Node, Origin, Position, Step, Value},
    reader::{self, Fault, Kind},
};
use crate::error::Mistake;

/// More rounds than any honest file has mistakes; each round mends one.
const MOST_ROUNDS: usize = 1_000;
/// A word this much like a known one (Jaro and Winkler, 0 to 1) is taken for a slip of the fingers.
const ALIKE: f64 = 0.8;

/// A document under examination.
pub(super) struct Reading {
    /// As written: positions come from it.
    original: Node,
    mended: Node,
    /// Pipelines without mistakes, to fill gaps from: the first that has what is missing.
    models: Vec<Node>,
    /// Keys that have had their mistake noted.
    silenced: Vec<KeyPath>,
    mistakes: Vec<Mistake>,
}

impl Reading {
    pub(super) fn new(original: Node, models: Vec<Node>) -> Self {
        Self { mended: original.clone(), original, models, silenced: vec![], mistakes: vec![] }
    }

    /// Reads `T`; `None` where mending did not help.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        for _ in 0..MOST_ROUNDS {
            match reader::read(&self.mended) {
                Ok(value) => return Some(value),
                Err(fault) => {
                    if !self.note_and_mend(fault) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Notes a mistake about a value that could be read. Nothing is said about what was filled in.
    pub(super) fn note(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.note_about(&[key], problem, remedy);
    }

    /// The same for a mistake in how several values fit together; it stands at the first.
    pub(super) fn note_about(&mut self, keys: &[&str], problem: impl Into<String>, remedy: impl Into<String>) {
        let paths: Vec<KeyPath> = keys.iter().map(|key| KeyPath::parse(key)).collect();
        let is_silent =
            |path: &KeyPath| self.silenced.iter().any(|silent| silent.starts_with(path) || path.starts_with(silent));
        if !paths.iter().any(is_silent)
            && let Some(path) = paths.first()
        {
            self.push(path, problem.into(), remedy.into(), false);
        }
    }

    /// Notes what another part already worded.
    pub(super) fn push_mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// All mistakes in the order of the file; those of the command line last.
    pub(super) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|mistake| mistake.position.unwrap_or((usize::MAX, usize::MAX)));
        self.mistakes
    }

    fn push(&mut self, path: &KeyPath, problem: String, remedy: String, at_key: bool) {
        let node = self.original.deepest(path);
        let (position, problem) = match &node.origin {
            Origin::File(key) => (Some(place(node, *key, at_key)), problem),
            Origin::Override(text) => (None, format!("--set {text}: {problem}")),
            Origin::Filler => (None, problem),
        };
        self.mistakes.push(Mistake { key: path.to_string(), position, problem, remedy });
    }

    /// False where the mistake is in what we filled in: there is no way on.
    fn note_and_mend(&mut self, fault: Fault) -> bool {
        let path = fault.path.unwrap_or_default();
        match fault.kind {
            Kind::Missing(field) => {
                let path = path.child(field);
                if !self.silenced.contains(&path) {
                    let inside = match path.parent().to_string() {
                        table if table.is_empty() => "the pipeline".into(),
                        table => format!("`{table}`"),
                    };
                    self.push(&path, format!("missing from {inside}"), example(self.in_models(&path), &path), true);
                }
                self.fill(path)
            }
            Kind::UnknownKey(expected) => {
                let word = last_word(&path);
                self.push(&path, format!("unknown key \"{word}\""), did_you_mean(&word, expected), true);
                self.mended.find_mut(&path.parent()).is_some_and(|table| {
                    table.remove(&word);
                    true
                })
            }
            Kind::UnknownWord { word, expected } => {
                self.push(&path, format!("unknown word \"{word}\""), did_you_mean(&word, expected), true);
                // Where it is a table's key, the table one step up is what has to be replaced.
                let is_key = path.0.last() == Some(&Step::Key(word))
                    && !matches!(self.original.find(&path).map(|node| &node.value), Some(Value::String(_)));
                self.fill(if is_key { path.parent() } else { path })
            }
            Kind::NotOne { found, expected } => {
                let all = expected.join(", ");
                match found.split_first() {
                    None => {
                        self.push(&path, "empty".into(), format!("name exactly one of {all}"), true);
                        self.fill(path)
                    }
                    Some((first, rest)) => {
                        let (problem, remedy) =
                            (format!("{} given", found.join(" and ")), format!("keep exactly one of {all}"));
                        self.push(&path.child(&rest[0]), problem, remedy, true);
                        let keep = first.clone();
                        let Some(Value::Table(entries)) = self.mended.find_mut(&path).map(|node| &mut node.value)
                        else {
                            return false;
                        };
                        entries.retain(|(key, _)| *key == keep);
                        true
                    }
                }
            }
            Kind::Type { found, expected } => {
                self.push(
                    &path,
                    format!("expected {expected}, found {found}"),
                    example(self.in_models(&path), &path),
                    false,
                );
                self.fill(path)
            }
            Kind::WordForTable(word) => {
                let remedy = match path.0.last() {
                    Some(Step::Key(key)) => format!("write `{key}.{word} = {{}}`"),
                    _ => format!("write `{{ {word} = {{}} }}`"),
                };
                self.push(&path, format!("\"{word}\" is a table of settings, not a word"), remedy, false);
                self.fill(path)
            }
            Kind::Other(problem) => {
                self.push(&path, problem, String::new(), false);
                self.fill(path)
            }
        }
    }

    fn in_models(&self, path: &KeyPath) -> Option<&Node> {
        self.models.iter().find_map(|model| model.find(path))
    }

    /// Puts something that can be read at `path` and says nothing more about it.
    fn fill(&mut self, mut path: KeyPath) -> bool {
        // One number of a list of numbers: the list is replaced. One op of a recipe: only the op is.
        if let Some(Step::Index(_)) = path.0.last() {
            let parent = path.parent();
            let is_list_of_tables = match self.mended.find(&parent).map(|node| &node.value) {
                Some(Value::Array(items)) => items.iter().any(|item| matches!(item.value, Value::Table(_))),
                _ => false,
            };
            if !is_list_of_tables {
                path = parent;
            }
        }
        let filled_before = self.mended.find(&path).is_some_and(|node| node.origin == Origin::Filler);
        if filled_before || path.0.is_empty() {
            return false;
        }
        let filler = match (path.0.last(), self.in_models(&path)) {
            (Some(Step::Index(_)), _) => harmless_op(),
            (_, Some(node)) => node.value.clone(),
            // An optional setting that the model does without is left out.
            (Some(Step::Key(key)), None) if self.mended.find(&path).is_some() => {
                let key = key.clone();
                self.silenced.push(path.clone());
                if let Some(table) = self.mended.find_mut(&path.parent()) {
                    table.remove(&key);
                }
                return true;
            }
            // A required number of an op.
            _ => Value::Integer(1),
        };
        self.silenced.push(path.clone());
        self.mended.put(&path, Node::filler(filler))
    }
}

fn place(node: &Node, key: Position, at_key: bool) -> Position {
    match &node.value {
        Value::Table(_) => key,
        _ if at_key => key,
        _ => node.position.unwrap_or(key),
    }
}

fn harmless_op() -> Value {
    let chance = Value::Table(vec![("probability".into(), Node::filler(Value::Float(0.5)))]);
    Value::Table(vec![("horizontal_flip".into(), Node::filler(chance))])
}

fn last_word(path: &KeyPath) -> String {
    match path.0.last() {
        Some(Step::Key(key)) => key.clone(),
        Some(Step::Index(index)) => index.to_string(),
        None => String::new(),
    }
}

/// `write epochs = 5`, from the model pipeline.
fn example(model: Option<&Node>, path: &KeyPath) -> String {
    match model.map(|node| &node.value) {
        Some(Value::Table(entries)) => match (entries.first(), path.0.len()) {
            (_, 1) => format!("add a section [{path}]"),
            (Some((key, _)), _) => format!("for example `{path}.{key} = {{}}`"),
            (None, _) => format!("for example `{path} = {{}}`"),
        },
        Some(value) => match literal(value) {
            Some(text) => format!("for example `{} = {text}`", last_word(path)),
            None => String::new(),
        },
        None => String::new(),
    }
}

fn literal(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(format!("\"{text}\"")),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(x) => Some(format!("{x:?}")),
        Value::Boolean(b) => Some(b.to_string()),
        Value::Array(items) => {
            Some(format!("[{}]", items.iter().map(|item| literal(&item.value)).collect::<Option<Vec<_>>>()?.join(", ")))
        }
        Value::Date | Value::Table(_) => None,
    }
}

/// The remedy for a word that is none of `known`: the one it resembles, else all of them.
pub(super) fn did_you_mean<S: AsRef<str>>(word: &str, known: &[S]) -> String {
    let likeness = |known: &S| strsim::jaro_winkler(word, known.as_ref());
    match known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(best) if likeness(best) >= ALIKE => format!("did you mean \"{}\"?", best.as_ref()),
        Some(_) => format!("known here: {}", known.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")),
        None => "no key is known here".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{augment::recipe::AugmentSettings, train::TrainSettings};

    fn read<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<String>) {
        let model = Node::parse("epochs = 5\noptimizer.adamw = { rate = 2e-3 }\nlist = [1, 2]\n").unwrap();
        let mut reading = Reading::new(Node::parse(text).unwrap(), vec![model]);
        let value = reading.read();
        (value, reading.into_mistakes().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reading_goes_on_after_each_kind_of_mistake() {
        let (value, mistakes) = read::<TrainSettings>(
            "epoch = 3\nrate_scaling = \"squareroot\"\nema_decay = \"much\"\noptimizer = { sgd = { rat = 1 }, lars = {} }\n\
             schedule.cosin = {}\n",
        );
        assert!(value.is_some());
        let expected = [
            "`epochs`: missing from the pipeline; for example `epochs = 5`",
            "line 1, column 1: `epoch`: unknown key \"epoch\"; did you mean \"epochs\"?",
            "line 2, column 1: `rate_scaling`: unknown word \"squareroot\"; did you mean \"square_root\"?",
            "line 3, column 13: `ema_decay`: expected a number, found the string \"much\"",
            "line 4, column 23: `optimizer.sgd.rat`: unknown key \"rat\"; did you mean \"rate\"?",
            "line 4, column 34: `optimizer.lars`: sgd and lars given; keep exactly one of sgd, adamw, lars",
            "line 5, column 10: `schedule.cosin`: unknown word \"cosin\"; did you mean \"cosine\"?",
        ];
        for line in expected {
            assert!(mistakes.iter().any(|mistake| mistake.ends_with(line)), "{line} is not among {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    }

    #[test]
    fn one_broken_op_does_not_hide_the_next() {
        let (value, mistakes) = read::<AugmentSettings>(
            "image = [\n  { random_resized_crop = {} },\n  \"horizontal_flip\",\n  { grayscale = { probability = \"x\" } },\n\
             \x20 { color_jiter = {} },\n  { gaussian_blur = { probability = 1, sigma = [1] } },\n]\n",
        );
        assert!(value.is_some());
        let keys: Vec<_> = mistakes.iter().map(|m| m.split('`').nth(1).unwrap_or_default()).collect();
        let expected = [
            "image[0].random_resized_crop.side_pixels",
            "image[1]",
            "image[2].grayscale.probability",
            "image[3].color_jiter",
            "image[4].gaussian_blur.sigma",
        ];
        assert_eq!(keys, expected, "{mistakes:#?}");
    }

    #[test]
    fn what_was_filled_in_is_not_judged() {
        let model = Node::parse("epochs = 5\n").unwrap();
        let mut reading = Reading::new(Node::parse("epochs = \"x\"\n[optimizer.sgd]\n").unwrap(), vec![model]);
        assert!(reading.read::<TrainSettings>().is_some());
        reading.note("epochs", "too few", "");
        reading.note("optimizer.sgd.rate", "too high", "");
        let mistakes = reading.into_mistakes();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert_eq!(mistakes[1].position, Some((2, 12)));
    }
}
