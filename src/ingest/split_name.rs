//! The split that a file of many samples is named after: `train-00000-of-00012.parquet`, `val/000.tar`.
use std::path::Path;

use super::class_folders::{is_split, split_of};

/// The first folder if that is named like a split, else the one word of the file's name that is.
pub(super) fn split_of_file(path: &Path) -> Option<String> {
    split_of(path).or_else(|| {
        let name = path.file_name()?.to_string_lossy();
        let mut splits = name.split(['-', '_', '.']).filter(|word| is_split(word));
        let split = splits.next()?;
        // Two are no split but a sentence.
        splits.next().is_none().then(|| split.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_names_and_two_words_say_nothing() {
        let split = |path: &str| split_of_file(Path::new(path));
        assert_eq!(split("train-00000-of-00001-0a1b.parquet").as_deref(), Some("train"));
        assert_eq!(split("imagenet_val.000.tar").as_deref(), Some("val"));
        assert_eq!(split("test/train-0.tar").as_deref(), Some("test"));
        assert_eq!(split("data/Validation-0.tar").as_deref(), Some("Validation"));
        assert_eq!(split("train-test-0.tar"), None);
        assert_eq!(split("training_set.tar").as_deref(), Some("training"));
        assert_eq!(split("00000.tar"), None);
    }
}
