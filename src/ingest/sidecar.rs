//! The words beside an image of a WebDataset: its `.json`.
use serde_json::Value;

use super::columns::{ColumnName, Filled, named};

/// What a `.json` says about its image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) caption: Option<String>,
    pub(super) label: Option<String>,
    pub(super) split: Option<String>,
}

/// Reads them from the keys that `columns` names, or from the usual ones; `ignored` hears of every other key.
///
/// # Errors
/// In one sentence: it is no JSON object, or has lists where words belong.
pub(super) fn read(json: &[u8], columns: &[ColumnName], ignored: &mut dyn FnMut(&str)) -> Result<Words, String> {
    let value: Value = serde_json::from_slice(json).map_err(|error| format!("its json is damaged: {error}"))?;
    let Value::Object(object) = value else { return Err("its json is no object".to_owned()) };
    let key = |filled: Filled| match named(columns, filled) {
        Some(name) => object.contains_key(name).then_some(name),
        None => filled.usual().iter().copied().find(|name| object.contains_key(*name)),
    };
    let keys = [Filled::Caption, Filled::Label, Filled::Split].map(key);
    for other in object.keys().filter(|other| !keys.contains(&Some(other.as_str()))) {
        ignored(other);
    }
    let [caption, label, split] = keys.map(|key| key.map_or(Ok(None), |key| text(key, &object[key])));
    Ok(Words { caption: caption?, label: label?, split: split? })
}

fn text(key: &str, value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Bool(_) | Value::Number(_) => Ok(Some(value.to_string())),
        Value::Array(_) => Err(format!("{key:?} in its json is a list")),
        Value::Object(_) => Err(format!("{key:?} in its json is an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(json: &str, columns: &[&str]) -> (Result<Words, String>, Vec<String>) {
        let columns: Vec<ColumnName> = columns.iter().map(|column| column.parse().unwrap()).collect();
        let mut ignored = vec![];
        let words = read(json.as_bytes(), &columns, &mut |key| ignored.push(key.to_owned()));
        (words, ignored)
    }

    #[test]
    fn usual_keys_are_read_and_the_rest_is_named() {
        let (found, ignored) = words(r#"{"text": "a bear", "label": 7, "split": null, "width": 3, "url": "u"}"#, &[]);
        let expected = Words { caption: Some("a bear".into()), label: Some("7".into()), split: None };
        assert_eq!(found.unwrap(), expected);
        assert_eq!(ignored, ["url", "width"]);
        let (found, ignored) = words(r#"{"caption": "a", "alt": "b"}"#, &["caption=alt"]);
        assert_eq!(found.unwrap().caption.unwrap(), "b");
        assert_eq!(ignored, ["caption"]);
    }

    #[test]
    fn what_is_no_object_of_words_has_a_reason() {
        for (json, part) in [
            ("{\"caption\": ", "damaged"),
            ("[1]", "no object"),
            (r#"{"caption": ["a", "b"]}"#, "\"caption\" in its json is a list"),
            (r#"{"label": {"id": 1}}"#, "is an object"),
            (&"[".repeat(100_000), "damaged"),
        ] {
            assert!(words(json, &[]).0.unwrap_err().contains(part), "{part}");
        }
    }
}
