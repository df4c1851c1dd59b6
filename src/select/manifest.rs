//! What reading needs of a data set's manifest: its shards, in the order in which they were added.
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use crate::ingest::{MANIFEST_FILE, manifest::ManifestShard};
use crate::{
    error::{Context, Result, Stage},
    ingest::manifest,
};

/// The shards that `diptych.json` lists. Only ever appended to, so the ordinals of those before stay.
///
/// More lenient than import's own [`manifest::Manifest`]: lists of other tools say no more than this, and may name files in
/// folders below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardList {
    /// In the order of their ordinals.
    pub shards: Vec<ManifestShard>,
}

impl ShardList {
    /// The list in `folder`, if it has one.
    ///
    /// # Errors
    /// The file cannot be read or is no manifest.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let place = folder.join(MANIFEST_FILE).display().to_string();
        let text = manifest::text_in(folder, Stage::Select)?;
        text.map(|text| Self::read(text.as_bytes(), &place)).transpose()
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
        assert_eq!(ShardList::of_folder(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join(MANIFEST_FILE), "{\"shards\": 3}").unwrap();
        let text = ShardList::of_folder(folder.path()).unwrap_err().to_string();
        assert!(text.contains("diptych.json: is no manifest"), "{text}");
    }

    #[test]
    fn keys_of_later_versions_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"version": 9, "shards": [{"file": "a", "rows": 1, "bytes": 2, "fingerprint": "00", "x": 1}]}"#;
        std::fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
        assert_eq!(ShardList::of_folder(folder.path()).unwrap().unwrap().shards[0].file, "a");
    }
}
