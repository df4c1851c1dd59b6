//! The list of a data set's shards, in the order in which they were added.
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result, Stage};

/// File name of the manifest in the folder of a data set.
pub const MANIFEST_FILE: &str = "diptych.json";

/// What `diptych.json` lists. Shards are only ever appended, so the ordinals of those before stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// In the order of their ordinals.
    pub shards: Vec<ManifestShard>,
}

/// One shard as the import that wrote it recorded it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestShard {
    /// Path below the folder of the manifest, parts separated by `/`.
    pub file: String,
    /// Rows of the file.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Fingerprint as 64 lower-case hexadecimal digits.
    pub fingerprint: String,
}

impl Manifest {
    /// The manifest of `folder`, if it has one.
    ///
    /// # Errors
    /// The file cannot be read or is no manifest.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST_FILE);
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(Stage::Select, place, "cannot read the manifest of the data set"),
        };
        Self::read(text.as_bytes(), &place).map(Some)
    }

    /// From the text of the file at `place`.
    pub(super) fn read(text: &[u8], place: &str) -> Result<Self> {
        let reason = "is no manifest of shards; import again, or remove it to use the shards in order of their paths";
        serde_json::from_slice(text).context(Stage::Select, place, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_manifest_has_none_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::of_folder(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join(MANIFEST_FILE), "{\"shards\": 3}").unwrap();
        let text = Manifest::of_folder(folder.path()).unwrap_err().to_string();
        assert!(text.contains("diptych.json: is no manifest"), "{text}");
    }

    #[test]
    fn keys_of_later_versions_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"version": 9, "shards": [{"file": "a", "rows": 1, "bytes": 2, "fingerprint": "00", "x": 1}]}"#;
        std::fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
        assert_eq!(Manifest::of_folder(folder.path()).unwrap().unwrap().shards[0].file, "a");
    }
}
