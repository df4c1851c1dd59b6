//! The shards of a data set as one numbered set, with fingerprints and footers.
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use datafusion::object_store::ObjectStore;
use datafusion::object_store::path::Path;
use futures::StreamExt;

use super::columns::{ColumnsOfAll, StoredColumns};
use super::counting_store::CountingStore;
use super::faults::Faults;
use super::format::Format;
use super::locate::{Located, locate};
use super::reference::Referenced;
use super::warning::Warning;
use crate::error::{Error, Result, Stage};
use crate::schema::in_files::{BYTES_FIELD, ColumnsInFile};
use crate::schema::{Role, Schema};
use crate::seed::ItemKey;
use crate::stores::{
    caching_store::CachingStore,
    routing_store::{Stores, is_remote},
};

/// Bits of `sample_id` that hold the row; the shard's ordinal is above them.
pub const ROW_BITS: u32 = 40;
/// Rows that one shard may have.
pub const MAX_ROWS: u64 = 1 << ROW_BITS;
/// Shards that one set may have.
const MAX_SHARDS: usize = 1 << (64 - ROW_BITS);
/// Footers that are read side by side.
const FOOTERS_IN_FLIGHT: usize = 16;

/// One file of the set.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Position in the set: the upper bits of `sample_id`.
    pub ordinal: u32,
    /// Path inside [`ShardSet::store`].
    pub location: Path,
    /// As messages name it.
    pub name: String,
    /// Its absolute path or URL, by which selections name it.
    pub address: String,
    /// BLAKE3 of size and footer bytes, or of size and message headers; also of a sample of the values that these say
    /// nothing of.
    pub fingerprint: [u8; 32],
    /// Bytes of the file.
    pub bytes: u64,
    /// How its rows lie in it.
    pub format: Format,
    /// Which of its columns is meant by which name.
    pub columns: ColumnsInFile,
    /// What its rows refer to, where they do not hold their blobs.
    pub referenced: Option<Referenced>,
}

impl Shard {
    /// The key under which draws for an item of this shard are made.
    pub fn item_key(&self, row: u64, occurrence: u32) -> ItemKey {
        let mut first = [0_u8; 16];
        first.copy_from_slice(&self.fingerprint[..16]);
        ItemKey { shard: u128::from_le_bytes(first), row, occurrence }
    }

    /// `sample_id` of one of its rows.
    pub fn sample_id(&self, row: u64) -> u64 {
        (u64::from(self.ordinal) << ROW_BITS) | row
    }

    /// Rows of the file.
    pub fn rows(&self) -> u64 {
        self.format.rows()
    }

    /// First row of every row group, and after the last the number of rows.
    pub fn group_starts(&self) -> Vec<u64> {
        let mut start = 0;
        let mut starts = vec![0];
        for group in 0..self.format.row_groups() {
            start += self.format.group_rows(group);
            starts.push(start);
        }
        starts
    }
}

/// The shards of a data set, numbered.
///
/// ```no_run
/// # async fn open() -> diptych::Result<()> {
/// use diptych::{schema::Schema, select::shards::ShardSet};
///
/// let shards = ShardSet::open(&["data/train/*.parquet".to_owned()], &Schema::named("image_text")?).await?;
/// println!("{} shards, {} rows", shards.shards.len(), shards.rows());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ShardSet {
    /// In the order of their ordinals, which are their positions.
    pub shards: Vec<Arc<Shard>>,
    /// Where they are; counts what goes over the wire.
    pub store: Arc<CountingStore>,
    /// What they are read through: the store itself, or the cache above it.
    pub reads: Arc<dyn ObjectStore>,
    /// What the shards store, as SQL sees it: text and binary as views, columns that some shards lack as nullable.
    pub columns: SchemaRef,
    /// The same as the files name it.
    pub stored: StoredColumns,
    /// Columns whose values are read only for selected rows: those of the schema and further binary ones.
    pub blob_columns: Vec<String>,
    /// Blobs of the schema that are read from another place than the column of their name, and that place: `jpg`,
    /// `photo.bytes`.
    pub blobs_from: BTreeMap<String, String>,
    /// What to tell the user.
    pub warnings: Vec<Warning>,
}

impl ShardSet {
    /// Opens every shard that `patterns` (files, globs, folders) mean and finds the columns of `schema` in it.
    ///
    /// Ordinals follow the manifest `diptych.json` of a folder that has one, else sorted relative paths.
    ///
    /// # Errors
    /// A pattern without match, shards that are neither Parquet nor Arrow IPC, cut short or changed since the manifest was
    /// written, and everything that all shards lack, at once.
    pub async fn open(patterns: &[String], schema: &Schema) -> Result<Self> {
        Self::open_through(patterns, schema, Arc::default()).await
    }

    /// The same, where `patterns` may also be URLs of objects, prefixes, globs and manifests in `stores`.
    ///
    /// # Errors
    /// As [`Self::open`]; a store that cannot be reached.
    pub async fn open_through(patterns: &[String], schema: &Schema, stores: Arc<Stores>) -> Result<Self> {
        let (located, mut warnings) = locate(patterns, &stores).await?;
        if located.len() > MAX_SHARDS {
            let reason = format!("{} shards are more than {MAX_SHARDS}; use larger ones", located.len());
            return Err(Error::at(Stage::Select, "", reason));
        }
        let store = Arc::new(CountingStore::exact(Arc::clone(&stores) as _).with_blobs_elsewhere());
        let loads = located.iter().enumerate().map(|(ordinal, located)| load(&store, ordinal as u32, located));
        let loaded: Vec<Result<Shard>> = futures::stream::iter(loads).buffered(FOOTERS_IN_FLIGHT).collect().await;

        let mut faults = Faults::default();
        let mut columns = ColumnsOfAll::default();
        let mut shards = Vec::with_capacity(loaded.len());
        for shard in loaded {
            let Some(mut shard) = faults.take(shard) else { continue };
            let Some(file) = faults.take(find_columns(&mut shard, schema)) else { continue };
            faults.take(columns.add(&file, &shard.columns, &shard.name));
            shards.push(Arc::new(shard));
        }
        faults.into_result()?;

        let (columns, binary_columns, stored) = columns.finish(schema);
        let declared =
            schema.columns.iter().filter(|column| column.role == Role::Blob).map(|column| column.name.clone());
        let blobs_from = declared.clone().filter_map(|name| Some((elsewhere(shards.first()?, &name)?, name)));
        let blobs_from = blobs_from.map(|(place, name)| (name, place)).collect();
        let mut blob_columns: Vec<String> = declared.chain(binary_columns).collect();
        blob_columns.sort_unstable();
        blob_columns.dedup();
        for shard in &shards {
            let ranges = blob_columns.iter().flat_map(|column| shard.chunk_ranges(column)).collect();
            store.declare_blobs(shard.location.clone(), ranges);
        }
        warnings.extend(warnings_about(&shards));
        let reads = cached(&stores, &store, shards.iter().zip(&located));
        Ok(Self { shards, store, reads, columns, stored, blob_columns, blobs_from, warnings })
    }

    /// Rows of all shards.
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows()).sum()
    }

    /// Row groups of all shards.
    pub fn row_groups(&self) -> usize {
        self.shards.iter().map(|shard| shard.format.row_groups()).sum()
    }

    /// Bytes that the blobs of all shards take in their files, or in those that they refer to.
    pub fn blob_bytes(&self) -> u64 {
        let ranges = |shard: &Arc<Shard>| {
            let ranges = self.blob_columns.iter().flat_map(|column| shard.chunk_ranges(column));
            let referenced = self.blob_columns.iter().map(|column| shard.all_referenced_bytes(column));
            ranges.map(|range| range.end - range.start).chain(referenced).sum::<u64>()
        };
        self.shards.iter().map(ranges).sum()
    }

    /// Bytes that footers and page indexes take in memory: about 50 per blob page above a constant per column chunk.
    pub fn metadata_memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.format.memory_bytes()).sum()
    }

    /// The shard and row that a `sample_id` names, if the set has them.
    pub fn locate(&self, sample_id: u64) -> Option<(&Arc<Shard>, u64)> {
        let shard = self.shards.get((sample_id >> ROW_BITS) as usize)?;
        let row = sample_id & (MAX_ROWS - 1);
        (row < shard.rows()).then_some((shard, row))
    }
}

/// Where a blob is, if it is not in the column of its name. All shards have it in one place.
fn elsewhere(shard: &Shard, name: &str) -> Option<String> {
    let place = shard.columns.get(name)?.bytes();
    let is_own = place.root == name && place.field.as_deref().is_none_or(|field| field == BYTES_FIELD);
    (!is_own).then(|| place.parts().collect::<Vec<_>>().join("."))
}

/// The store, below a cache where there is one.
fn cached<'a>(
    stores: &Stores,
    store: &Arc<CountingStore>,
    shards: impl Iterator<Item = (&'a Arc<Shard>, &'a Located)>,
) -> Arc<dyn ObjectStore> {
    let Some(folder) = stores.cache() else { return Arc::clone(store) as _ };
    let caching = CachingStore::new(Arc::clone(store) as _, Arc::clone(folder));
    for (shard, located) in shards.filter(|(shard, _)| is_remote(&shard.location)) {
        // The footer alone would not tell two states apart whose blobs differ and are equally long; what has no version is
        // not kept.
        let Some(version) = &located.version else { continue };
        caching.declare(shard.location.clone(), &format!("{} {} {version}", shard.name, hex(&shard.fingerprint)));
    }
    Arc::new(caching)
}

/// Notes which columns are meant by which names, and returns the file's: with the blob's, also where it is referred to.
fn find_columns(shard: &mut Shard, schema: &Schema) -> Result<ArrowSchema> {
    let file = shard.format.arrow_schema(&shard.name)?;
    shard.referenced = Referenced::of(shard, &file, schema)?;
    let Some(referenced) = &shard.referenced else {
        shard.columns = schema.columns_in(&file, &shard.name)?;
        return Ok(file);
    };
    let (schema, file) = referenced.as_if_held(schema, &file);
    shard.columns = schema.columns_in(&file, &shard.name)?;
    Ok(file)
}

/// The shard without its columns.
async fn load(store: &CountingStore, ordinal: u32, located: &Located) -> Result<Shard> {
    let name = &located.name;
    let location = located.location.clone();
    // Known as a shard before anything is read of it: all else that is read are blobs.
    store.declare_blobs(location.clone(), vec![]);
    let (format, fingerprint) = Format::load(store, &location, name, located.bytes).await?;
    let shard = Shard {
        ordinal,
        location,
        name: name.clone(),
        address: located.address.clone(),
        fingerprint,
        bytes: located.bytes,
        format,
        columns: ColumnsInFile::default(),
        referenced: None,
    };
    if let Some(listed) = &located.listed {
        let found = hex(&shard.fingerprint);
        if listed.fingerprint != found || listed.bytes != shard.bytes || listed.rows != shard.rows() {
            let reason = format!(
                "is not the file that the manifest lists (fingerprint {found}, listed {}); \
                 restore it, or import the data set again",
                listed.fingerprint
            );
            return Err(Error::at(Stage::Select, name, reason));
        }
    }
    Ok(shard)
}

fn warnings_about(shards: &[Arc<Shard>]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut seen: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| shard.rows() > 0) {
        if shard.parquet().is_some() && !shard.has_offset_index() {
            let text = "has no offset index: training must first find the pages, one small read for each; \
                        write it with one";
            warnings.push(Warning { place: shard.name.clone(), text: text.into() });
        }
        if !shard.columns.hidden.is_empty() {
            let hidden = shard.columns.hidden.join(", ");
            let text = format!("its own column {hidden} cannot be seen: the name stands for another column");
            warnings.push(Warning { place: shard.name.clone(), text });
        }
        if let Some(first) = seen.insert(shard.fingerprint, &shard.name) {
            let text = format!("has the same footer as {first}; if it is a copy, its samples are met twice");
            warnings.push(Warning { place: shard.name.clone(), text });
        }
    }
    warnings
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}
