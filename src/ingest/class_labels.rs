//! The names behind the numbers of a Hugging Face `ClassLabel`: they stand in the footer, under the key `huggingface`.
use datafusion::parquet::file::metadata::KeyValue;
use serde_json::Value;

/// The footer's key.
const KEY: &str = "huggingface";

/// Whether a footer is one that Hugging Face's `datasets` wrote.
pub(super) fn is_huggingface(pairs: Option<&Vec<KeyValue>>) -> bool {
    pairs.into_iter().flatten().any(|pair| pair.key == KEY)
}

/// Names of the classes of `column`, by number, where the footer has them.
pub(super) fn names(pairs: Option<&Vec<KeyValue>>, column: &str) -> Option<Vec<String>> {
    let text = pairs?.iter().find(|pair| pair.key == KEY)?.value.as_ref()?;
    let value: Value = serde_json::from_str(text).ok()?;
    let feature = value.get("info")?.get("features")?.get(column)?;
    let names = feature.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_are_and_nowhere_else() {
        let text = r#"{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
                       "image": {"_type": "Image"}}}}"#;
        let pairs = |text: &str| vec![KeyValue::new("huggingface".to_owned(), text.to_owned())];
        assert_eq!(names(Some(&pairs(text)), "label").unwrap(), ["cat", "dog"]);
        assert_eq!(names(Some(&pairs(text)), "image"), None);
        assert_eq!(names(Some(&pairs("{\"info\": 3")), "label"), None);
        assert_eq!(names(None, "label"), None);
        assert!(is_huggingface(Some(&pairs(""))) && !is_huggingface(None));
    }
}
