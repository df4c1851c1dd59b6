//! What splits are called: by folders, by files of many samples (`train-00000-of-00012.parquet`, `val/000.tar`), by columns.
//!
//! Queries compare text, so `Test`, `testing` and `test` must not be three splits: shards have one word for each.
use std::path::Path;

use super::class_folders::split_of;

/// Names of splits, in any case, and what shards call them.
const NAMES: [(&str, &str); 8] = [
    ("train", "train"),
    ("training", "train"),
    ("test", "test"),
    ("testing", "test"),
    ("val", "validation"),
    ("valid", "validation"),
    ("validation", "validation"),
    ("dev", "validation"),
];

fn known(name: &str) -> Option<&'static str> {
    let name = name.trim();
    NAMES.iter().find(|(written, _)| name.eq_ignore_ascii_case(written)).map(|(_, stored)| *stored)
}

/// Whether a folder of that name is a part of a data set and no class.
pub(super) fn is_split(name: &str) -> bool {
    known(name).is_some()
}

/// What shards have for a split of that name: other words are kept as they are written.
pub(super) fn stored(name: &str) -> &str {
    known(name).unwrap_or(name)
}

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
    fn one_split_has_one_name_and_other_words_stay() {
        for (written, expected) in [
            ("Train", "train"),
            ("training", "train"),
            (" TEST ", "test"),
            ("Testing", "test"),
            ("val", "validation"),
            ("valid", "validation"),
            ("Validation", "validation"),
            ("dev", "validation"),
            ("held_out", "held_out"),
            ("Fold 3", "Fold 3"),
        ] {
            assert_eq!(stored(written), expected, "{written}");
        }
    }

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
