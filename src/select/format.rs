//! How the rows of a shard lie in its file: Parquet by row group, or Arrow IPC by record batch.
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema as ArrowSchema;
use datafusion::object_store::path::Path;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::basic::{ConvertedType, Type as PhysicalType};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::page_index::offset_index::PageLocation;

use super::counting_store::CountingStore;
use super::footer;
use super::ipc::{self, IpcIndex};
use super::selection::SelectedGroup;
use super::shards::Shard;
use crate::error::Result;
use crate::schema::in_files::InFile;

/// Endings of the files that a folder is searched for: Parquet.
const PARQUET_SUFFIX: &str = ".parquet";
/// The same: Arrow IPC, of which `datasets` saves the stream format under the first.
const IPC_SUFFIXES: [&str; 3] = [".arrow", ".feather", ".ipc"];

/// What a lane's window holds unless a pipeline says otherwise: an eighth of 512 MB.
const USUAL_WINDOW_BYTES: u64 = 64_000_000;

/// A file's layout, as its footer or its message headers tell it.
#[derive(Debug, Clone)]
pub enum Format {
    /// Footer with column and offset index loaded where the file has them.
    Parquet(Arc<ParquetMetaData>),
    /// Headers of all record batches, each of which stands for a row group.
    Ipc(Arc<IpcIndex>),
}

/// Whether a folder that is searched for shards means this file.
pub(crate) fn is_shard(file: &str) -> bool {
    file.ends_with(PARQUET_SUFFIX) || is_ipc(file)
}

fn is_ipc(file: &str) -> bool {
    IPC_SUFFIXES.iter().any(|suffix| file.ends_with(suffix))
}

impl Format {
    /// Reads what a file says about itself, and its fingerprint. The ending of `location` decides between the formats.
    pub(crate) async fn load(
        store: &CountingStore,
        location: &Path,
        name: &str,
        bytes: u64,
    ) -> Result<(Self, [u8; 32])> {
        if is_ipc(location.as_ref()) {
            let (index, fingerprint) = ipc::load(store, location, name, bytes).await?;
            return Ok((Self::Ipc(Arc::new(index)), fingerprint));
        }
        let footer = footer::load(store, location, name, bytes).await?;
        Ok((Self::Parquet(Arc::new(footer.metadata)), footer.fingerprint))
    }

    /// The file's columns.
    pub(crate) fn arrow_schema(&self, name: &str) -> Result<ArrowSchema> {
        match self {
            Self::Parquet(metadata) => {
                let file = metadata.file_metadata();
                footer::guarded(name, || parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()))
            }
            Self::Ipc(index) => Ok(index.schema().as_ref().clone()),
        }
    }

    /// Row groups, or record batches.
    pub fn row_groups(&self) -> usize {
        match self {
            Self::Parquet(metadata) => metadata.num_row_groups(),
            Self::Ipc(index) => index.batches().len(),
        }
    }

    /// Rows of a row group; 0 where there is no such group.
    pub fn group_rows(&self, row_group: usize) -> u64 {
        match self {
            Self::Parquet(metadata) => metadata.row_groups().get(row_group).map_or(0, |group| group.num_rows() as u64),
            Self::Ipc(index) => index.batches().get(row_group).map_or(0, |batch| batch.rows),
        }
    }

    /// Rows of the file.
    pub fn rows(&self) -> u64 {
        (0..self.row_groups()).map(|group| self.group_rows(group)).sum()
    }

    /// Bytes that all this takes in memory.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Parquet(metadata) => metadata.memory_size(),
            Self::Ipc(index) => index.memory_bytes(),
        }
    }
}

impl Shard {
    /// The footer, where the shard is Parquet.
    pub fn parquet(&self) -> Option<&Arc<ParquetMetaData>> {
        match &self.format {
            Format::Parquet(metadata) => Some(metadata),
            Format::Ipc(_) => None,
        }
    }

    /// Whether selected rows can be read page by page instead of chunk by chunk.
    pub fn has_offset_index(&self) -> bool {
        self.parquet().is_some_and(|metadata| metadata.offset_index().is_some_and(|index| !index.is_empty()))
    }

    /// Numbers of the Parquet leaves below a place: one for plain binary, more for a struct.
    pub(crate) fn leaves_at(&self, place: &InFile) -> Vec<usize> {
        let Some(metadata) = self.parquet() else { return vec![] };
        let leaves = metadata.file_metadata().schema_descr().columns().iter().enumerate();
        let is_below = |parts: &[String]| {
            let mut parts = parts.iter();
            place.parts().all(|wanted| parts.next().is_some_and(|part| part == wanted))
        };
        leaves.filter(|(_, leaf)| is_below(leaf.path().parts())).map(|(number, _)| number).collect()
    }

    /// The same for the column that SQL calls so.
    pub fn leaves(&self, column: &str) -> Vec<usize> {
        self.columns.get(column).map(|place| self.leaves_at(place)).unwrap_or_default()
    }

    /// The leaves of a column that hold blobs: of an image with a path beside it, only the bytes; of a series its numbers.
    fn blob_leaves(&self, column: &str) -> Vec<usize> {
        let Some(metadata) = self.parquet() else { return vec![] };
        let leaves = self.leaves(column);
        let bytes: Vec<usize> = leaves.iter().copied().filter(|&leaf| is_blob(metadata, leaf)).collect();
        if bytes.is_empty() { leaves } else { bytes }
    }

    /// Where the blobs of a column lie, for every row group.
    pub fn chunk_ranges(&self, column: &str) -> Vec<Range<u64>> {
        match &self.format {
            Format::Parquet(metadata) => {
                let leaves = self.blob_leaves(column);
                let range = |(start, length): (u64, u64)| start..start + length;
                let groups = metadata.row_groups().iter();
                groups
                    .flat_map(|group| leaves.iter().map(move |&leaf| range(group.column(leaf).byte_range())))
                    .collect()
            }
            Format::Ipc(index) => {
                let roots: Vec<usize> = self.root(index, column).into_iter().collect();
                (0..index.batches().len()).flat_map(|batch| index.ranges(batch, &roots)).collect()
            }
        }
    }

    fn root(&self, index: &IpcIndex, column: &str) -> Option<usize> {
        index.schema().index_of(&self.columns.get(column)?.root).ok()
    }

    /// Bytes that a row group's values of these columns take: narrow ones in the file, blobs once they are read.
    pub(crate) fn group_bytes(&self, row_group: usize, columns: &[&str]) -> u64 {
        let referenced: u64 = columns.iter().map(|column| self.referenced_bytes(row_group, column)).sum();
        let held = match &self.format {
            Format::Parquet(metadata) => {
                let Some(group) = metadata.row_groups().get(row_group) else { return 0 };
                let leaves = columns.iter().flat_map(|column| self.leaves(column));
                let bytes = |leaf: usize| {
                    let chunk = group.column(leaf);
                    let read = if is_blob(metadata, leaf) { chunk.uncompressed_size() } else { 0 };
                    chunk.byte_range().1.max(u64::try_from(read).unwrap_or(0))
                };
                leaves.map(bytes).sum::<u64>()
            }
            Format::Ipc(index) => {
                let roots: Vec<usize> = columns.iter().filter_map(|column| self.root(index, column)).collect();
                index.ranges(row_group, &roots).iter().map(|range| range.end - range.start).sum()
            }
        };
        held + referenced
    }

    /// Bytes of the blobs of one row group's selected rows, by the mean over the group, and bytes of the pages that hold
    /// them: all of the column's where pages are not known.
    pub(crate) fn blob_bytes_of(&self, group: &SelectedGroup, columns: &[String]) -> BlobBytes {
        let row_group = group.row_group as usize;
        let rows = self.format.group_rows(row_group).max(1);
        let of_selected = |stored: u64| (u128::from(stored) * u128::from(group.rows.len()) / u128::from(rows)) as u64;
        match &self.format {
            Format::Parquet(metadata) => {
                let Some(footer) = metadata.row_groups().get(row_group) else { return BlobBytes::default() };
                // Blobs in other files are read alone.
                let referenced =
                    columns.iter().map(|column| of_selected(self.referenced_bytes(row_group, column))).sum();
                let mut bytes = BlobBytes { wanted: referenced, read: referenced };
                // A field of a struct and the struct are two columns of SQL and one leaf.
                let leaves: BTreeSet<usize> = columns.iter().flat_map(|column| self.blob_leaves(column)).collect();
                for leaf in leaves {
                    let whole = footer.column(leaf).byte_range().1;
                    let pages = metadata.offset_index().and_then(|index| index.get(row_group)?.get(leaf));
                    let pages = pages.map(|pages| pages.page_locations().as_slice()).unwrap_or_default();
                    let known = bytes_of_pages(pages, rows, group);
                    let known = known.unwrap_or(BlobBytes { wanted: of_selected(whole), read: whole });
                    bytes.wanted += known.wanted;
                    bytes.read += known.read;
                }
                bytes
            }
            Format::Ipc(index) => {
                let roots: Vec<usize> = columns.iter().filter_map(|column| self.root(index, column)).collect();
                let whole = index.ranges(row_group, &roots).iter().map(|range| range.end - range.start).sum();
                // Every window that cuts a record batch reads all of it.
                BlobBytes { wanted: of_selected(whole), read: whole * whole.div_ceil(USUAL_WINDOW_BYTES).max(1) }
            }
        }
    }
}

/// Whether a leaf holds bytes that are no text.
pub(super) fn is_blob(metadata: &ParquetMetaData, leaf: usize) -> bool {
    let leaf = metadata.file_metadata().schema_descr().column(leaf);
    leaf.physical_type() == PhysicalType::BYTE_ARRAY && leaf.converted_type() == ConvertedType::NONE
}

/// What a selection costs in one row group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlobBytes {
    /// Bytes of the selected rows' blobs.
    pub(crate) wanted: u64,
    /// Bytes that must be read to have them.
    pub(crate) read: u64,
}

/// Bytes of the pages that hold selected rows, and of these rows in them; `None` where no pages are known.
fn bytes_of_pages(pages: &[PageLocation], rows: u64, group: &SelectedGroup) -> Option<BlobBytes> {
    if pages.is_empty() {
        return None;
    }
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    let first = |page: &PageLocation| u32::try_from(page.first_row_index).unwrap_or(rows);
    let bytes = |page: &PageLocation| u64::try_from(page.compressed_page_size).unwrap_or(0);
    let ends = pages.iter().skip(1).map(first).chain([rows]);
    let mut sum = BlobBytes::default();
    for (page, end) in pages.iter().zip(ends).filter(|(page, end)| first(page) < *end) {
        let items = group.rows.range_cardinality(first(page)..end);
        if items > 0 {
            sum.read += bytes(page);
            sum.wanted += (u128::from(bytes(page)) * u128::from(items) / u128::from(end - first(page))) as u64;
        }
    }
    Some(sum)
}
