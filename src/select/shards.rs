//! The shards of a data set as one numbered set, with fingerprints and footers.
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use datafusion::object_store::ObjectStore;
use datafusion::object_store::path::Path;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::file::metadata::ParquetMetaData;
use futures::StreamExt;

use super::columns::ColumnsOfAll;
use super::counting_store::CountingStore;
use super::faults::Faults;
use super::footer;
use super::locate::{Located, locate};
use super::reference;
use super::warning::Warning;
use crate::error::{Error, Result, Stage};
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

/// One Parquet file of the set.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Position in the set: the upper bits of `sample_id`.
    pub ordinal: u32,
    /// Path inside [`ShardSet::store`].
    pub location: Path,
    /// As messages name it.
    pub name: String,
    /// BLAKE3 of size and footer bytes.
    pub fingerprint: [u8; 32],
    /// Bytes of the file.
    pub bytes: u64,
    /// Footer with column and offset index loaded where the file has them.
    pub metadata: Arc<ParquetMetaData>,
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
        self.metadata.row_groups().iter().map(|group| group.num_rows() as u64).sum()
    }

    /// First row of every row group, and after the last the number of rows.
    pub fn group_starts(&self) -> Vec<u64> {
        let mut start = 0;
        let mut starts = vec![0];
        for group in self.metadata.row_groups() {
            start += group.num_rows() as u64;
            starts.push(start);
        }
        starts
    }

    /// Numbers of the Parquet leaves below a column: one for plain binary, more for a struct.
    pub fn leaves(&self, column: &str) -> Vec<usize> {
        let leaves = self.metadata.file_metadata().schema_descr().columns().iter().enumerate();
        leaves.filter(|(_, leaf)| leaf.path().parts().first().is_some_and(|root| root == column)).map(|l| l.0).collect()
    }

    /// Where the chunks of a column lie, for every row group.
    pub fn chunk_ranges(&self, column: &str) -> Vec<Range<u64>> {
        let leaves = self.leaves(column);
        let groups = self.metadata.row_groups().iter();
        let range = |(start, length): (u64, u64)| start..start + length;
        groups.flat_map(|group| leaves.iter().map(move |&leaf| range(group.column(leaf).byte_range()))).collect()
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
    /// What every shard stores, as SQL sees it: text and binary as views, columns that some shards lack as nullable.
    pub columns: SchemaRef,
    /// Columns whose values are read only for selected rows: those of the schema and further binary ones.
    pub blob_columns: Vec<String>,
    /// What to tell the user.
    pub warnings: Vec<Warning>,
}

impl ShardSet {
    /// Opens every shard that `patterns` (files, globs, folders) mean and checks it against `schema`.
    ///
    /// Ordinals follow the manifest `diptych.json` of a folder that has one, else sorted relative paths.
    ///
    /// # Errors
    /// A pattern without match, shards that are no Parquet, cut short or changed since the manifest was written, and all
    /// differences of all shards from the schema at once.
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
        let loaded: Vec<Result<Arc<Shard>>> = futures::stream::iter(loads).buffered(FOOTERS_IN_FLIGHT).collect().await;

        let mut faults = Faults::default();
        let mut columns = ColumnsOfAll::default();
        let mut has_references = false;
        let mut shards = Vec::with_capacity(loaded.len());
        for shard in loaded {
            let Some(shard) = faults.take(shard) else { continue };
            let Some(arrow) = faults.take(arrow_schema(&shard)) else { continue };
            let is_reference = reference::is_reference(&arrow);
            has_references |= is_reference;
            faults.take(match is_reference {
                true => reference::check(schema, &arrow, &shard.name),
                false => schema.check(&arrow, &shard.name),
            });
            faults.take(columns.add(&arrow, &shard.name));
            shards.push(shard);
        }
        faults.into_result()?;

        let (columns, binary_columns) = columns.finish();
        let declared =
            schema.columns.iter().filter(|column| column.role == Role::Blob).map(|column| column.name.clone());
        let mut blob_columns: Vec<String> = declared.chain(binary_columns).collect();
        blob_columns.sort_unstable();
        blob_columns.dedup();
        // Of referenced blobs SQL would see nulls.
        let columns = if has_references { without(&columns, &blob_columns) } else { columns };
        for shard in &shards {
            let ranges = blob_columns.iter().flat_map(|column| shard.chunk_ranges(column)).collect();
            store.declare_blobs(shard.location.clone(), ranges);
        }
        warnings.extend(warnings_about(&shards));
        let reads = cached(&stores, &store, shards.iter().zip(&located));
        Ok(Self { shards, store, reads, columns, blob_columns, warnings })
    }

    /// Rows of all shards.
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows()).sum()
    }

    /// Row groups of all shards.
    pub fn row_groups(&self) -> usize {
        self.shards.iter().map(|shard| shard.metadata.num_row_groups()).sum()
    }

    /// Bytes that the blobs of all shards take in their files.
    pub fn blob_bytes(&self) -> u64 {
        let ranges = |shard: &Arc<Shard>| {
            let ranges = self.blob_columns.iter().flat_map(|column| shard.chunk_ranges(column));
            let referenced = (0..shard.metadata.num_row_groups()).map(|group| shard.referenced_bytes(group));
            ranges.map(|range| range.end - range.start).chain(referenced).sum::<u64>()
        };
        self.shards.iter().map(ranges).sum()
    }

    /// Bytes that footers and page indexes take in memory: about 50 per blob page above a constant per column chunk.
    pub fn metadata_memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.metadata.memory_size()).sum()
    }

    /// The shard and row that a `sample_id` names, if the set has them.
    pub fn locate(&self, sample_id: u64) -> Option<(&Arc<Shard>, u64)> {
        let shard = self.shards.get((sample_id >> ROW_BITS) as usize)?;
        let row = sample_id & (MAX_ROWS - 1);
        (row < shard.rows()).then_some((shard, row))
    }
}

fn without(columns: &ArrowSchema, names: &[String]) -> SchemaRef {
    let kept = columns.fields().iter().filter(|field| !names.contains(field.name())).cloned();
    Arc::new(ArrowSchema::new(kept.collect::<Vec<_>>()))
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
        // The footer alone would not tell two states apart whose blobs differ and are equally long.
        let e_tag = located.e_tag.as_deref().unwrap_or_default();
        caching.declare(shard.location.clone(), &format!("{} {} {e_tag}", shard.name, hex(&shard.fingerprint)));
    }
    Arc::new(caching)
}

async fn load(store: &CountingStore, ordinal: u32, located: &Located) -> Result<Arc<Shard>> {
    let name = &located.name;
    let location = located.location.clone();
    // Known as a shard before anything is read of it; its blobs follow.
    store.declare_blobs(location.clone(), vec![]);
    let footer = footer::load(store, &location, name, located.bytes).await?;
    let shard = Shard {
        ordinal,
        location,
        name: name.clone(),
        fingerprint: footer.fingerprint,
        bytes: located.bytes,
        metadata: Arc::new(footer.metadata),
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
    Ok(Arc::new(shard))
}

fn arrow_schema(shard: &Shard) -> Result<ArrowSchema> {
    let file = shard.metadata.file_metadata();
    footer::guarded(&shard.name, || parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()))
}

fn warnings_about(shards: &[Arc<Shard>]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut seen: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| shard.rows() > 0) {
        if !shard.has_offset_index() {
            let text = "has no offset index: reading some of its rows reads whole column chunks; write it with one";
            warnings.push(Warning { place: shard.name.clone(), text: text.into() });
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
