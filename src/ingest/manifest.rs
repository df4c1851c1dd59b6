//! `diptych.json`: the list of a data set's shards, written after all of them.
use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{MANIFEST_FILE, fingerprint};
use crate::error::{Context, Error, Result, Stage};

/// The format this version writes and reads.
const FORMAT: u32 = 1;

/// A data set: shards of one schema in one folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's format.
    pub format: u32,
    /// Name of the schema.
    pub schema: String,
    /// Its version.
    pub schema_version: u32,
    /// Rows of all shards.
    pub rows: u64,
    /// Images in `quarantine.parquet`.
    pub quarantined: u64,
    /// `keyed` or `kept`.
    pub order: String,
    /// Seed of a keyed order.
    pub seed: u64,
    /// By ordinal. Shards are only ever appended, so that a `sample_id` keeps its meaning.
    pub shards: Vec<ManifestShard>,
}

/// One shard of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestShard {
    /// Position in the list, and the upper bits of `sample_id` where the set is read alone.
    #[serde(default)]
    pub ordinal: u32,
    /// File name, in the manifest's folder; of lists that others wrote also a path below it, parts separated by `/`.
    pub file: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// 64 lower-case hexadecimal digits; see [`fingerprint`].
    pub fingerprint: String,
}

impl Manifest {
    /// Of these shards.
    pub fn new(schema: &crate::schema::Schema, shards: Vec<ManifestShard>) -> Self {
        Self {
            format: FORMAT,
            schema: schema.name.clone(),
            schema_version: schema.version,
            rows: shards.iter().map(|shard| shard.rows).sum(),
            quarantined: 0,
            order: "kept".to_owned(),
            seed: 0,
            shards,
        }
    }

    /// The manifest of a folder; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or lists something other than files of its own folder in the order of their ordinals.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let Some(text) = text_in(folder, Stage::Import)? else { return Ok(None) };
        let place = folder.join(MANIFEST_FILE).display().to_string();
        let manifest: Self = serde_json::from_str(&text).context(
            Stage::Import,
            &place,
            "is no manifest of this version; import again, or remove it and name the shards themselves",
        )?;
        match manifest.problem() {
            Some(problem) => Err(Error::at(Stage::Import, &place, format!("{problem}; import again"))),
            None => Ok(Some(manifest)),
        }
    }

    fn problem(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("has format {}, this version reads {FORMAT}", self.format));
        }
        let mut files = BTreeSet::new();
        for (position, shard) in self.shards.iter().enumerate() {
            // The names are joined to the folder, and overwriting removes them: nothing may lead elsewhere.
            if !is_plain_name(&shard.file) {
                return Some(format!("lists {:?}, which is no plain file name", shard.file));
            }
            if shard.ordinal as usize != position || !files.insert(&shard.file) {
                return Some(format!("lists {:?} out of order or twice", shard.file));
            }
        }
        None
    }

    /// As it is written.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context(Stage::Internal, MANIFEST_FILE, "cannot be written as JSON")
    }
}

impl ManifestShard {
    /// Of a complete file in `folder`.
    ///
    /// # Errors
    /// It cannot be read or is no Parquet.
    pub fn of_file(folder: &Path, file: &str, ordinal: u32, rows: u64) -> Result<Self> {
        let path = folder.join(file);
        let metadata = std::fs::metadata(&path).context(Stage::Import, path.display().to_string(), "is gone")?;
        let fingerprint = fingerprint::hex(&fingerprint::of_file(&path)?);
        Ok(Self { ordinal, file: file.to_owned(), rows, bytes: metadata.len(), fingerprint })
    }
}

/// The manifest of a folder as it is written there, for `stage`; `None` where there is none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn text_in(folder: &Path, stage: Stage) -> Result<Option<String>> {
    let path = folder.join(MANIFEST_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(stage, path.display().to_string(), "cannot be read; check its permissions"),
    }
}

/// Whether a name stays in the folder it is joined to.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    fn shard(ordinal: u32, file: &str) -> ManifestShard {
        ManifestShard { ordinal, file: file.to_owned(), rows: 5, bytes: 9, fingerprint: "00".repeat(32) }
    }

    fn round_trip(shards: Vec<ManifestShard>) -> Result<Option<Manifest>> {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest::new(&Schema::named("image_text").unwrap(), shards);
        std::fs::write(folder.path().join(MANIFEST_FILE), manifest.to_json().unwrap()).unwrap();
        Manifest::load(folder.path())
    }

    #[test]
    fn a_manifest_reads_as_it_was_written() {
        let manifest = round_trip(vec![shard(0, "a.parquet"), shard(1, "b.parquet")]).unwrap().unwrap();
        assert_eq!((manifest.rows, manifest.schema.as_str(), manifest.schema_version), (10, "image_text", 1));
        assert_eq!(manifest.shards[1], shard(1, "b.parquet"));
        assert_eq!(Manifest::load(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }

    #[test]
    fn names_that_lead_elsewhere_and_ordinals_out_of_order_are_refused() {
        for file in ["../a.parquet", "/etc/passwd", "", "..", "a/b", "a\\b"] {
            assert!(round_trip(vec![shard(0, file)]).unwrap_err().to_string().contains("plain file name"), "{file}");
        }
        assert!(round_trip(vec![shard(1, "a"), shard(0, "b")]).is_err());
        assert!(round_trip(vec![shard(0, "a"), shard(1, "a")]).is_err());
    }
}
