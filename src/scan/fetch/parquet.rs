//! Rows of a Parquet row group, page by page, in pieces of bounded size.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use datafusion::{
    arrow::{
        array::{BinaryViewArray, RecordBatch},
        compute::concat_batches,
        datatypes::Schema as ArrowSchema,
    },
    parquet::{
        DecodeResult,
        arrow::{
            ProjectionMask,
            arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelectionPolicy},
            push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder},
        },
        basic::Compression,
        errors::ParquetError,
        file::page_index::offset_index::PageLocation,
    },
};
use tokio::sync::OnceCell;

use super::{
    BLOB, BLOB_PATH, Fetcher, Reading, in_flight, is_series,
    lists::{ListColumn, ListPages},
    pages,
};
use crate::{
    error::{Context, Error, Result, Stage},
    scan::failure::panic_text,
    schema::in_files::{InFile, is_text},
    select::shards::Shard,
};

/// Bytes of image pages that are read and decoded at a time, unless one page alone has more.
const LARGEST_PIECE_BYTES: u64 = 64 << 20;

/// How one shard's columns are read: worked out once.
#[derive(Debug)]
pub(super) struct ParquetReader {
    metadata: ArrowReaderMetadata,
    /// Types in flight, of the columns that are read.
    options: ArrowReaderOptions,
    mask: ProjectionMask,
    places: Vec<Option<InFile>>,
    image_leaf: Option<usize>,
    /// A list of numbers that is read past Parquet's reader, and the other columns.
    list: Option<(ListColumn, ProjectionMask)>,
    /// Per row group of a shard without offset index what its page headers tell; `None` inside where they do not.
    found: Vec<OnceCell<Option<ArrowReaderMetadata>>>,
}

impl ParquetReader {
    pub(super) fn new(shard: &Shard, places: &[Option<InFile>]) -> Result<Self> {
        let Some(footer) = shard.parquet() else { return Err(Error::internal("a shard of another format")) };
        let broken = "has a schema that Arrow cannot express";
        let stored = ArrowReaderMetadata::try_new(footer.clone(), ArrowReaderOptions::new());
        let stored = stored.context(Stage::Scan, &shard.name, broken)?;
        let is_read = |name: &String| places.iter().flatten().any(|place| place.root == *name);
        let fields = stored.schema().fields().iter().map(|field| match is_read(field.name()) {
            true => field.as_ref().clone().with_data_type(in_flight(field.data_type())),
            false => field.as_ref().clone(),
        });
        let wanted = ArrowSchema::new_with_metadata(fields.collect::<Vec<_>>(), stored.schema().metadata().clone());
        let options = ArrowReaderOptions::new().with_schema(wanted.into());
        let metadata = ArrowReaderMetadata::try_new(footer.clone(), options.clone());
        let metadata = metadata.context(Stage::Scan, &shard.name, broken)?;

        let image_leaf = places[BLOB].as_ref().and_then(|image| shard.leaves_at(image).first().copied());
        let nulls = |leaf: usize| {
            let groups = footer.row_groups().iter().map(move |group| group.column(leaf).statistics());
            groups.map(|statistics| statistics.and_then(|statistics| statistics.null_count_opt()))
        };
        // Paths are read only where an image may be null, to say which file is missing.
        let has_all_bytes = image_leaf.is_some_and(|leaf| nulls(leaf).all(|count| count == Some(0)));
        let needed = places.iter().enumerate().filter(|&(index, _)| index != BLOB_PATH || !has_all_bytes);
        let leaves: Vec<usize> =
            needed.filter_map(|(_, place)| place.as_ref()).flat_map(|p| shard.leaves_at(p)).collect();
        let mask = ProjectionMask::leaves(metadata.parquet_schema(), leaves.iter().copied());
        let list = places[BLOB].as_ref().zip(image_leaf).filter(|(_, image)| {
            // Nothing else needs it, and its own rows need no other file.
            shard.referenced.is_none() && leaves.iter().filter(|leaf| *leaf == image).count() == 1
        });
        let list = list.and_then(|(place, image)| {
            let others = leaves.iter().copied().filter(|leaf| *leaf != image);
            let others = ProjectionMask::leaves(metadata.parquet_schema(), others);
            ListColumn::find(metadata.metadata(), place, image).map(|list| (list, others))
        });
        let found = footer.row_groups().iter().map(|_| OnceCell::new()).collect();
        Ok(Self { metadata, options, mask, places: places.to_vec(), image_leaf, list, found })
    }

    /// Whether blobs do not lie in the memory that was fetched. Numbers and texts never do: their pages are unpacked into
    /// lists, and into texts without gaps.
    fn is_unpacked(&self, row_group: usize) -> bool {
        if self.places[BLOB].as_ref().is_some_and(|place| is_series(&place.data_type) || is_text(&place.data_type)) {
            return true;
        }
        let group = self.metadata.metadata().row_group(row_group);
        self.image_leaf.is_some_and(|leaf| group.column(leaf).compression() != Compression::UNCOMPRESSED)
    }
}

impl Fetcher {
    pub(super) async fn parquet_rows(
        &self,
        shard: &Shard,
        reader: &ParquetReader,
        row_group: usize,
        rows: &[u32],
        reading: &Reading,
        place: &impl Fn() -> String,
    ) -> Result<RecordBatch> {
        let whole = &reader.metadata;
        let found = match shard.has_offset_index() {
            true => None,
            false => {
                let find = || pages::find(self, shard, &reader.mask, &reader.options, row_group, reading);
                reader.found[row_group].get_or_try_init(find).await?.as_ref()
            }
        };
        // Pages that were found stand in a footer of that row group alone.
        let (metadata, group) = found.map_or((whole, row_group), |found| (found, 0));
        let pages = reader.image_leaf.and_then(|leaf| metadata.metadata().offset_index()?.get(group)?.get(leaf));
        let pages = pages.map(|pages| pages.page_locations().as_slice()).unwrap_or_default();
        let is_charged = !reader.is_unpacked(row_group);
        let mut batches = vec![];
        for piece in pieces(rows, pages) {
            let (read, series) = self.piece(shard, reader, metadata, group, piece, reading, place).await?;
            let mut batch = self.arrange(&read, &reader.places, &place())?;
            if let Some(series) = series {
                let mut columns = batch.columns().to_vec();
                columns[BLOB] = Arc::new(series);
                batch = RecordBatch::try_new(batch.schema(), columns).context(
                    Stage::Scan,
                    place(),
                    "has fewer rows than were selected",
                )?;
            }
            batches.push(match &shard.referenced {
                None => self.compacted(batch, is_charged)?,
                Some(_) => self.with_referenced(&batch, &read, reading, &place()).await?,
            });
        }
        match batches.as_slice() {
            [batch] => Ok(batch.clone()),
            // Views are concatenated without their blobs.
            _ => concat_batches(self.schema(), &batches).context(Stage::Scan, place(), "has batches of two schemas"),
        }
    }

    /// Rows with their series, where these are read past Parquet's reader.
    #[expect(clippy::too_many_arguments, reason = "what a read needs, of one row group")]
    async fn piece(
        &self,
        shard: &Shard,
        reader: &ParquetReader,
        metadata: &ArrowReaderMetadata,
        group: usize,
        rows: &[u32],
        reading: &Reading,
        place: &impl Fn() -> String,
    ) -> Result<(RecordBatch, Option<BinaryViewArray>)> {
        if let Some((list, others)) = &reader.list
            && let Some(pages) = list.pages(metadata.metadata(), group, rows)
        {
            let ranges = pages.ranges.clone();
            let decoder = decoder(metadata, others, group, rows, place)?;
            let (batch, fetched) = self.decoded(shard, decoder, ranges, reading, place).await?;
            if let Some(series) = series(pages, fetched).await {
                return Ok((batch, Some(series)));
            }
            list.is_left();
        }
        let decoder = decoder(metadata, &reader.mask, group, rows, place)?;
        let (batch, _) = self.decoded(shard, decoder, vec![], reading, place).await?;
        Ok((batch, None))
    }

    /// All rows of a decoder, and the bytes in `further` ranges of the file, fetched with what it needs.
    async fn decoded(
        &self,
        shard: &Shard,
        decoder: ParquetPushDecoder,
        mut further: Vec<Range<u64>>,
        reading: &Reading,
        place: &impl Fn() -> String,
    ) -> Result<(RecordBatch, Vec<Bytes>)> {
        let mut step = decode(decoder, vec![], vec![], vec![], place).await?;
        let mut beside = vec![];
        while let Step::Needs { decoder, ranges, batches } = step {
            let all = [ranges.as_slice(), &std::mem::take(&mut further)].concat();
            let mut fetched = self.fetch(&shard.location, &shard.name, &all, reading).await?;
            beside.append(&mut fetched.split_off(ranges.len()));
            step = decode(decoder, ranges, fetched, batches, place).await?;
        }
        let Step::Done(batches) = step else { return Err(Error::internal("a decoder stopped half way")) };
        if !further.is_empty() {
            beside = self.fetch(&shard.location, &shard.name, &further, reading).await?;
        }
        let batch = match batches.as_slice() {
            [batch] => batch.clone(),
            _ => {
                let schema = batches.first().map_or_else(|| ArrowSchema::empty().into(), RecordBatch::schema);
                concat_batches(&schema, &batches).context(Stage::Scan, place(), "has batches of two schemas")?
            }
        };
        Ok((batch, beside))
    }
}

fn decoder(
    metadata: &ArrowReaderMetadata,
    mask: &ProjectionMask,
    group: usize,
    rows: &[u32],
    place: &impl Fn() -> String,
) -> Result<ParquetPushDecoder> {
    let total = metadata.metadata().row_group(group).num_rows() as usize;
    let consecutive = rows.chunk_by(|a, b| a + 1 == *b);
    let selection = RowSelection::from_consecutive_ranges(
        consecutive.map(|run| run[0] as usize..run[0] as usize + run.len()),
        total,
    );
    ParquetPushDecoderBuilder::new_with_metadata(metadata.clone())
        .with_row_groups(vec![group])
        .with_projection(mask.clone())
        .with_row_selection(selection)
        // A mask would need pages between the selected ones.
        .with_row_selection_policy(RowSelectionPolicy::Selectors)
        .with_batch_size(rows.len().max(1))
        .build()
        .context(Stage::Scan, place(), "cannot be read as Parquet; write it again")
}

/// Series on a thread that may block. What is damaged is left to Parquet's reader, and so to its words.
async fn series(pages: ListPages, fetched: Vec<Bytes>) -> Option<BinaryViewArray> {
    tokio::task::spawn_blocking(move || pages.read(fetched)).await.ok().flatten()
}

/// The rows in pieces whose pages have bounded bytes together; a page is in one piece.
fn pieces<'a>(rows: &'a [u32], pages: &[PageLocation]) -> Vec<&'a [u32]> {
    let mut pieces = vec![];
    let (mut first, mut bytes, mut page) = (0, 0, None);
    for (index, &row) in rows.iter().enumerate() {
        let of_row = pages.partition_point(|page| page.first_row_index <= i64::from(row)).checked_sub(1);
        if of_row == page {
            continue;
        }
        page = of_row;
        let next = of_row.map_or(0, |page| u64::try_from(pages[page].compressed_page_size).unwrap_or(0));
        if index > first && bytes + next > LARGEST_PIECE_BYTES {
            pieces.push(&rows[first..index]);
            (first, bytes) = (index, 0);
        }
        bytes += next;
    }
    pieces.push(&rows[first..]);
    pieces
}

/// Where a decoder stands.
enum Step {
    Needs { decoder: ParquetPushDecoder, ranges: Vec<Range<u64>>, batches: Vec<RecordBatch> },
    Done(Vec<RecordBatch>),
}

/// One step on a thread that may block: pages may be compressed, and malformed ones may panic in the reader.
async fn decode(
    decoder: ParquetPushDecoder,
    ranges: Vec<Range<u64>>,
    data: Vec<Bytes>,
    mut batches: Vec<RecordBatch>,
    place: &impl Fn() -> String,
) -> Result<Step> {
    let step = move || -> Result<Step, ParquetError> {
        let mut decoder = decoder;
        if !ranges.is_empty() {
            decoder.push_ranges(ranges, data)?;
        }
        loop {
            match decoder.try_decode()? {
                DecodeResult::NeedsData(ranges) => return Ok(Step::Needs { decoder, ranges, batches }),
                DecodeResult::Data(batch) => batches.push(batch),
                DecodeResult::Finished => return Ok(Step::Done(batches)),
            }
        }
    };
    match tokio::task::spawn_blocking(step).await {
        Ok(step) => step.context(Stage::Scan, place(), "is not valid Parquet; import it again or leave the shard out"),
        Err(failed) => Err(match failed.try_into_panic() {
            Ok(payload) => {
                let reason = "is not valid Parquet: the reader panicked; import it again or leave the shard out";
                Error::at(Stage::Scan, place(), reason).caused_by(panic_text(payload.as_ref()))
            }
            Err(cancelled) => Error::at(Stage::Scan, place(), "reading has stopped").caused_by(cancelled),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_between_pages_and_lose_no_row() {
        let page = |number: i64| PageLocation {
            offset: number * (40 << 20),
            compressed_page_size: 40 << 20,
            first_row_index: number * 10,
        };
        let pages: Vec<PageLocation> = (0..5).map(page).collect();
        let rows: Vec<u32> = vec![0, 3, 9, 20, 21, 22, 30, 31, 49];
        let cut = pieces(&rows, &pages);
        assert_eq!(cut, [&[0, 3, 9][..], &[20, 21, 22], &[30, 31], &[49]]);
        assert_eq!(pieces(&rows, &[]), [&rows[..]]);
        assert_eq!(pieces(&[], &pages), [&[] as &[u32]]);
    }
}
