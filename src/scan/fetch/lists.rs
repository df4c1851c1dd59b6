//! Lists of i16 or f32 straight from their Parquet pages: each number is decoded once, into the memory that windows are cut
//! from.
//!
//! Parquet's own reader makes two levels of every number, compares them, and copies numbers once more. Here levels are read
//! by runs ([`levels`]) and numbers by encoding ([`numbers`]); pages are found, unpacked and checked by the crate. What is
//! unusual (nulls among the numbers, other encodings, damage) is left to the crate's reader, whose errors are the ones that
//! a user sees.
mod hybrid;
mod levels;
mod numbers;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf, Bytes, buf::Reader};
use datafusion::{
    arrow::{
        array::{BinaryViewArray, BinaryViewBuilder},
        buffer::Buffer,
        datatypes::DataType,
    },
    parquet::{
        basic::{Encoding, Type},
        column::page::{Page, PageReader},
        errors::ParquetError,
        file::{
            metadata::{ColumnChunkMetaData, ParquetMetaData},
            page_index::offset_index::PageLocation,
            reader::{ChunkReader, Length},
            serialized_reader::SerializedPageReader,
        },
    },
};
use levels::ListShape;
use numbers::Number;

use crate::{pair::Numbers, schema::in_files::InFile};

/// Numbers per fetched byte for which memory is asked before they are seen, at most.
const LARGEST_EXPANSION: usize = 16;

/// A list column that is read here.
#[derive(Debug)]
pub(super) struct ListColumn {
    leaf: usize,
    shape: ListShape,
    numbers: Numbers,
    /// Whether something was met that is left to Parquet's reader: it reads the rest of the file as well.
    is_unusual: AtomicBool,
}

/// The pages of some rows of it.
#[derive(Debug)]
pub(super) struct ListPages {
    chunk: ColumnChunkMetaData,
    shape: ListShape,
    numbers: Numbers,
    /// Ascending, counted from the row group's first.
    rows: Vec<u32>,
    rows_of_group: usize,
    /// Of all pages; `None` where the file does not say.
    locations: Option<Vec<PageLocation>>,
    /// Ascending; what [`Self::read`] wants.
    pub(super) ranges: Vec<Range<u64>>,
}

impl ListColumn {
    /// The column at `place`, if it is a list of i16 or f32 at the top of the schema, in the layout that all writers share.
    pub(super) fn find(footer: &ParquetMetaData, place: &InFile, leaf: usize) -> Option<Self> {
        let (DataType::List(item) | DataType::LargeList(item)) = &place.data_type else { return None };
        let schema = footer.file_metadata().schema_descr();
        let column = schema.column(leaf);
        let numbers = match (item.data_type(), column.physical_type()) {
            (DataType::Int16, Type::INT32) => Numbers::I16,
            (DataType::Float32, Type::FLOAT) => Numbers::F32,
            _ => return None,
        };
        let shape = ListShape {
            rows_nullable: schema.get_column_root(leaf).is_optional(),
            numbers_nullable: column.self_type().is_optional(),
        };
        // Name, repeated group, number.
        let is_plain = column.path().parts().len() == 3
            && column.max_rep_level() == 1
            && u32::try_from(column.max_def_level()).is_ok_and(|level| level == shape.number_level());
        (is_plain && place.field.is_none()).then_some(Self { leaf, shape, numbers, is_unusual: AtomicBool::new(false) })
    }

    /// The pages that hold `rows` of a row group; `None` where they are left to Parquet's reader.
    pub(super) fn pages(&self, footer: &ParquetMetaData, group: usize, rows: &[u32]) -> Option<ListPages> {
        if self.is_unusual.load(Ordering::Relaxed) || rows.is_empty() {
            return None;
        }
        let rows_of_group = usize::try_from(footer.row_group(group).num_rows()).ok()?;
        let chunk = footer.row_group(group).column(self.leaf);
        let start = u64::try_from(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset())).ok()?;
        let end = start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?;
        let index = footer.offset_index().and_then(|index| index.get(group)?.get(self.leaf));
        let locations = index.map(|index| index.page_locations().clone()).filter(|pages| !pages.is_empty());
        let ranges = match &locations {
            None => std::iter::once(start..end).collect(),
            Some(pages) => ranges_of(pages, rows, start)?,
        };
        Some(ListPages {
            chunk: chunk.clone(),
            shape: self.shape,
            numbers: self.numbers,
            rows: rows.to_vec(),
            rows_of_group,
            locations,
            ranges,
        })
    }

    /// Leaves the file to Parquet's reader from now on.
    pub(super) fn is_left(&self) {
        self.is_unusual.store(true, Ordering::Relaxed);
    }
}

/// Bytes of the dictionary, if there is one, and of the pages with `rows`.
fn ranges_of(pages: &[PageLocation], rows: &[u32], chunk_start: u64) -> Option<Vec<Range<u64>>> {
    let is_ascending = pages.windows(2).all(|pair| pair[0].first_row_index <= pair[1].first_row_index);
    if !is_ascending || pages[0].first_row_index != 0 {
        return None;
    }
    let mut ranges = vec![];
    let first = u64::try_from(pages[0].offset).ok()?;
    if first < chunk_start {
        return None;
    }
    if first > chunk_start {
        ranges.push(chunk_start..first);
    }
    let mut last = None;
    for &row in rows {
        let page = pages.partition_point(|page| page.first_row_index <= i64::from(row)).checked_sub(1)?;
        if last.replace(page) != Some(page) {
            let offset = u64::try_from(pages[page].offset).ok()?;
            ranges.push(offset..offset + u64::try_from(pages[page].compressed_page_size).ok()?);
        }
    }
    ranges.windows(2).all(|pair| pair[0].end <= pair[1].start).then_some(ranges)
}

impl ListPages {
    /// The rows, each one binary value; `fetched` are the bytes of [`Self::ranges`].
    ///
    /// `None`: they are left to Parquet's reader. Blocks, and panics where that reader would on damaged pages.
    pub(super) fn read(&self, fetched: Vec<Bytes>) -> Option<BinaryViewArray> {
        match self.numbers {
            Numbers::I16 => self.decode::<i16>(fetched),
            Numbers::F32 => self.decode::<f32>(fetched),
        }
    }

    fn decode<T: Number>(&self, fetched: Vec<Bytes>) -> Option<BinaryViewArray> {
        let mut numbers: Vec<T> = Vec::with_capacity(self.expected_numbers());
        let source = Arc::new(Fetched { ranges: self.ranges.clone(), bytes: fetched });
        let mut pages =
            SerializedPageReader::new(source, &self.chunk, self.rows_of_group, self.locations.clone()).ok()?;
        let mut dictionary: Option<Vec<T>> = None;
        let mut found: Vec<Option<usize>> = Vec::with_capacity(self.rows.len());
        let mut wanted = self.rows.iter().map(|&row| row as usize).peekable();
        // The next row to begin, and whether the one before it is wanted.
        let (mut row, mut is_open) = (0, false);
        while let Some(next) = pages.peek_next_page().ok()? {
            // A row ends where the next one begins.
            if wanted.peek().is_none() && !is_open {
                break;
            }
            if let Some(rows) = next.num_rows
                && wanted.peek().is_none_or(|wanted| *wanted >= row + rows)
            {
                // Pages that tell their rows begin with a new one.
                pages.skip_next_page().ok()?;
                (row, is_open) = (row + rows, false);
                continue;
            }
            let page = pages.get_next_page().ok()??;
            if let Page::DictionaryPage { buf, encoding: Encoding::PLAIN | Encoding::PLAIN_DICTIONARY, .. } = &page {
                let mut entries = vec![];
                numbers::plain(buf, &mut entries);
                dictionary = Some(entries);
                continue;
            }
            let Parts { repetition, definition, values, encoding, levels } = parts(&page)?;
            // More than the footer counts are made up, and could be more than memory.
            u64::try_from(self.chunk.num_values()).ok().filter(|all| levels as u64 <= *all)?;
            let rows = levels::rows(repetition, definition, self.shape, levels, self.rows_of_group.checked_sub(row)?)?;
            let begun = rows.iter().filter(|row| !row.continues).count();
            let continues = begun < rows.len();
            if next.num_rows.is_some_and(|rows| rows != begun || continues) || (continues && row == 0) {
                return None;
            }
            let mut ranges: Vec<Range<usize>> = vec![];
            for part in rows {
                if !part.continues {
                    is_open = wanted.next_if_eq(&row).is_some();
                    row += 1;
                    if is_open {
                        found.push((!part.is_null).then_some(0));
                    }
                }
                if !is_open || part.numbers.is_empty() {
                    continue;
                }
                *found.last_mut()?.as_mut()? += part.numbers.len();
                match ranges.last_mut() {
                    Some(last) if last.end == part.numbers.start => last.end = part.numbers.end,
                    _ => ranges.push(part.numbers),
                }
            }
            numbers::append(encoding, values, &ranges, dictionary.as_deref(), &mut numbers)?;
        }
        (found.len() == self.rows.len()).then_some(())?;
        if numbers.capacity() > numbers.len() + numbers.len() / 4 {
            numbers.shrink_to_fit();
        }
        blobs(&Buffer::from_vec(numbers), size_of::<T>(), &found)
    }

    /// Numbers that the fetched pages probably hold, as the footer has it; what memory is asked for is bounded by their bytes.
    fn expected_numbers(&self) -> usize {
        let bytes: u64 = self.ranges.iter().map(|range| range.end - range.start).sum();
        let all = u128::try_from(self.chunk.num_values()).unwrap_or(0);
        let of_chunk = u128::try_from(self.chunk.compressed_size()).unwrap_or(0).max(1);
        let share = (all * u128::from(bytes)).div_ceil(of_chunk).min(all);
        usize::try_from(share).unwrap_or(usize::MAX).min(LARGEST_EXPANSION.saturating_mul(bytes as usize))
    }
}

/// Rows of so many numbers, one behind the other, as views; `None` where they fit none.
fn blobs(numbers: &Buffer, width: usize, rows: &[Option<usize>]) -> Option<BinaryViewArray> {
    let mut blobs = BinaryViewBuilder::with_capacity(rows.len());
    // Offsets within a block have 32 bits.
    let whole = (numbers.len() < u32::MAX as usize).then(|| blobs.append_block(numbers.clone()));
    let mut at = 0;
    for row in rows {
        let Some(count) = row else {
            blobs.append_null();
            continue;
        };
        let length = u32::try_from(count * width).ok()?;
        let (block, offset) = match whole {
            Some(block) => (block, at as u32),
            None if length == u32::MAX => return None,
            None => (blobs.append_block(numbers.slice_with_length(at, length as usize)), 0),
        };
        blobs.try_append_view(block, offset, length).ok()?;
        at += length as usize;
    }
    Some(blobs.finish())
}

/// What a data page consists of.
struct Parts<'a> {
    repetition: &'a [u8],
    definition: &'a [u8],
    values: &'a [u8],
    encoding: Encoding,
    levels: usize,
}

fn parts(page: &Page) -> Option<Parts<'_>> {
    match page {
        Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, .. } => {
            if *def_level_encoding != Encoding::RLE || *rep_level_encoding != Encoding::RLE {
                return None;
            }
            let (repetition, rest) = with_length(buf)?;
            let (definition, values) = with_length(rest)?;
            Some(Parts { repetition, definition, values, encoding: *encoding, levels: *num_values as usize })
        }
        Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
            let (repetition, rest) = buf.split_at_checked(*rep_levels_byte_len as usize)?;
            let (definition, values) = rest.split_at_checked(*def_levels_byte_len as usize)?;
            Some(Parts { repetition, definition, values, encoding: *encoding, levels: *num_values as usize })
        }
        Page::DictionaryPage { .. } => None,
    }
}

/// Bytes behind their length, and what follows.
fn with_length(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// The parts of a file that were fetched.
struct Fetched {
    ranges: Vec<Range<u64>>,
    bytes: Vec<Bytes>,
}

impl Fetched {
    /// From a place on to the end of what was fetched with it.
    fn since(&self, start: u64) -> Result<Bytes, ParquetError> {
        let at = self.ranges.partition_point(|range| range.start <= start).checked_sub(1);
        let found = at.and_then(|at| {
            let offset = usize::try_from(start - self.ranges[at].start).ok()?;
            let bytes = self.bytes.get(at)?;
            (offset <= bytes.len()).then(|| bytes.slice(offset..))
        });
        found.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not fetched")))
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.end)
    }
}

impl ChunkReader for Fetched {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.since(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let rest = self.since(start)?;
        match length <= rest.len() {
            true => Ok(rest.slice(..length)),
            false => Err(ParquetError::EOF(format!("{length} bytes from {start} on were not fetched"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use datafusion::{
        arrow::{
            array::{Array, ArrayRef, AsArray, Float32Array, Int16Array, ListArray, RecordBatch},
            buffer::{NullBuffer, OffsetBuffer},
            datatypes::{Field, Schema},
        },
        parquet::{
            arrow::{
                ArrowWriter,
                arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
            },
            basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel},
            file::{
                metadata::PageIndexPolicy,
                properties::{WriterProperties, WriterVersion},
            },
            schema::types::ColumnPath,
        },
    };

    use super::*;
    use crate::{
        scan::fetch::as_blobs,
        seed::{Draws, draws},
    };

    /// How a file is written.
    #[derive(Debug, Clone, Copy)]
    struct Written {
        item: &'static DataType,
        rows_nullable: bool,
        numbers_nullable: bool,
        version: WriterVersion,
        compression: Compression,
        /// `None`: by dictionary, as long as that pays.
        encoding: Option<Encoding>,
    }

    const RARE: Written = Written {
        item: &DataType::Int16,
        rows_nullable: true,
        numbers_nullable: true,
        version: WriterVersion::PARQUET_1_0,
        compression: Compression::UNCOMPRESSED,
        encoding: Some(Encoding::DELTA_BINARY_PACKED),
    };

    /// Rows of 0 to 700 numbers, some null; `holes` puts nulls among the numbers.
    fn lists(written: Written, rows: usize, holes: bool, draws: &mut Draws) -> ArrayRef {
        let (mut lengths, mut valid) = (vec![], vec![]);
        for _ in 0..rows {
            let is_valid = !(written.rows_nullable && draws.chance(0.15));
            let length = [0, 1, 7, draws.below(60), draws.below(700)][draws.below(5) as usize] as usize;
            lengths.push(if is_valid { length } else { 0 });
            valid.push(is_valid);
        }
        let count: usize = lengths.iter().sum();
        let numbers: Vec<i16> =
            (0..count).map(|at| (at as i16 * 3).wrapping_add(draws.below(900) as i16 - 450)).collect();
        let present = |at: usize| !(holes && at.is_multiple_of(97));
        let values: ArrayRef = match written.item {
            DataType::Int16 => Arc::new(Int16Array::from_iter((0..count).map(|at| present(at).then_some(numbers[at])))),
            // Few values, so that a dictionary pays.
            _ => Arc::new(Float32Array::from_iter(
                (0..count).map(|at| present(at).then_some(f32::from(numbers[at] % 50) / 3.0)),
            )),
        };
        let item = Arc::new(Field::new("element", written.item.clone(), written.numbers_nullable));
        let nulls = written.rows_nullable.then(|| NullBuffer::from(valid));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), values, nulls))
    }

    fn file(written: Written, lists: &ArrayRef) -> Vec<u8> {
        let path = ColumnPath::from(vec!["samples".to_owned(), "list".to_owned(), "element".to_owned()]);
        let mut properties = WriterProperties::builder()
            .set_writer_version(written.version)
            .set_compression(written.compression)
            .set_data_page_size_limit(1_500)
            .set_write_batch_size(100)
            .set_max_row_group_row_count(Some(150))
            .set_dictionary_enabled(written.encoding.is_none());
        if let Some(encoding) = written.encoding {
            properties = properties.set_column_encoding(path, encoding);
        }
        let field = Field::new("samples", lists.data_type().clone(), written.rows_nullable);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::clone(lists)]).unwrap();
        let mut bytes = vec![];
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn footer(bytes: &Bytes, with_index: bool) -> Arc<ParquetMetaData> {
        let policy = if with_index { PageIndexPolicy::Required } else { PageIndexPolicy::Skip };
        let options = ArrowReaderOptions::new().with_page_index_policy(policy);
        Arc::clone(ArrowReaderMetadata::load(bytes, options).unwrap().metadata())
    }

    fn place(lists: &ArrayRef) -> InFile {
        InFile { root: "samples".to_owned(), field: None, data_type: lists.data_type().clone() }
    }

    fn taken(
        bytes: &Bytes,
        footer: &ParquetMetaData,
        list: &ListColumn,
        group: usize,
        rows: &[u32],
    ) -> Option<BinaryViewArray> {
        let pages = list.pages(footer, group, rows)?;
        let fetched = pages.ranges.iter().map(|range| bytes.slice(range.start as usize..range.end as usize)).collect();
        pages.read(fetched)
    }

    /// Some rows of a group: all, one, none of the first page, every seventh, runs.
    fn selections(rows: u32, draws: &mut Draws) -> Vec<Vec<u32>> {
        let mut runs: Vec<u32> = (0..rows).filter(|_| draws.chance(0.4)).collect();
        runs.push(rows - 1);
        runs.dedup();
        vec![
            (0..rows).collect(),
            vec![draws.below(u64::from(rows)) as u32],
            (rows / 2..rows).collect(),
            (0..rows).step_by(7).collect(),
            runs,
        ]
    }

    #[test]
    fn rows_are_those_that_parquets_own_reader_gives() {
        let mut draws = draws(1, "lists", &[]);
        let versions = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0];
        let codecs = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::LZ4_RAW,
            Compression::GZIP(GzipLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
        ];
        let encodings = [
            (&DataType::Int16, Some(Encoding::DELTA_BINARY_PACKED)),
            (&DataType::Int16, Some(Encoding::PLAIN)),
            (&DataType::Int16, None),
            (&DataType::Float32, Some(Encoding::PLAIN)),
            (&DataType::Float32, Some(Encoding::BYTE_STREAM_SPLIT)),
            (&DataType::Float32, None),
        ];
        let mut pages_of_files = 0;
        for (number, (item, encoding)) in encodings.into_iter().enumerate() {
            for (at, compression) in codecs.into_iter().enumerate() {
                for version in versions {
                    let nullable = (number + at) % 4;
                    let (rows_nullable, numbers_nullable) = (nullable & 1 == 1, nullable & 2 == 2);
                    let written = Written { item, rows_nullable, numbers_nullable, version, compression, encoding };
                    let lists = lists(written, 400, false, &mut draws);
                    let bytes = Bytes::from(file(written, &lists));
                    let whole = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().with_batch_size(400);
                    let whole: Vec<RecordBatch> = whole.build().unwrap().map(Result::unwrap).collect();
                    let expected = as_blobs(whole[0].column(0), "a.parquet").unwrap();
                    let expected = expected.as_binary_view();
                    for with_index in [true, false] {
                        let footer = footer(&bytes, with_index);
                        let list = ListColumn::find(&footer, &place(&lists), 0).expect("an ordinary list");
                        for (group, rows) in [(0, 150), (1, 150), (2, 100)] {
                            for selection in selections(rows, &mut draws) {
                                let context = format!("{written:?}, index {with_index}, group {group}, {selection:?}");
                                let found = taken(&bytes, &footer, &list, group, &selection).expect(&context);
                                assert_eq!(found.len(), selection.len(), "{context}");
                                for (at, row) in selection.iter().enumerate() {
                                    let row = 150 * group + *row as usize;
                                    assert_eq!(found.is_null(at), expected.is_null(row), "{context}");
                                    let has_bytes = found.is_valid(at);
                                    assert!(!has_bytes || found.value(at) == expected.value(row), "{context} {row}");
                                }
                                assert!(found.data_buffers().len() <= 1, "one block for all rows");
                            }
                        }
                        pages_of_files += footer.offset_index().map_or(0, |index| index[0][0].page_locations().len());
                    }
                }
            }
        }
        assert!(pages_of_files > 500, "{pages_of_files} pages are few");
    }

    #[test]
    fn a_selection_asks_for_its_own_pages_alone() {
        let mut draws = draws(2, "lists", &[]);
        let lists = lists(RARE, 150, false, &mut draws);
        let bytes = Bytes::from(file(RARE, &lists));
        let footer = footer(&bytes, true);
        let list = ListColumn::find(&footer, &place(&lists), 0).unwrap();
        let asked = |rows: &[u32]| -> u64 {
            list.pages(&footer, 0, rows).unwrap().ranges.iter().map(|range| range.end - range.start).sum()
        };
        let all: Vec<u32> = (0..150).collect();
        // The dictionary comes with every page.
        assert!(asked(&[149]) * 3 < asked(&all), "{} of {}", asked(&[149]), asked(&all));
    }

    #[test]
    fn what_is_unusual_is_left_to_parquets_reader() {
        let mut draws = draws(3, "lists", &[]);
        let with_holes = lists(RARE, 100, true, &mut draws);
        let bytes = Bytes::from(file(RARE, &with_holes));
        let footer = footer(&bytes, true);
        let list = ListColumn::find(&footer, &place(&with_holes), 0).unwrap();
        let all: Vec<u32> = (0..100).collect();
        assert!(taken(&bytes, &footer, &list, 0, &all).is_none(), "nulls among the numbers");
        assert!(list.pages(&footer, 0, &all).is_some());
        list.is_left();
        assert!(list.pages(&footer, 0, &all).is_none(), "and the rest of the file too");
        // Types that the footer does not have, and fields of structs.
        let float = series_of_floats();
        assert!(ListColumn::find(&footer, &float, 0).is_none());
        let inside = InFile { field: Some("samples".to_owned()), ..place(&with_holes) };
        assert!(ListColumn::find(&footer, &inside, 0).is_none());
    }

    fn series_of_floats() -> InFile {
        let data_type = crate::schema::series_of(DataType::Float32);
        InFile { root: "samples".to_owned(), field: None, data_type }
    }

    #[test]
    fn damaged_pages_give_rows_or_are_left_to_parquets_reader() {
        let mut draws = draws(4, "lists", &[]);
        let (mut given, mut left) = (0, 0);
        for encoding in [Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::PLAIN), None] {
            let written = Written { encoding, ..RARE };
            let lists = lists(written, 60, false, &mut draws);
            let whole = file(written, &lists);
            for with_index in [true, false] {
                let footer = footer(&Bytes::from(whole.clone()), with_index);
                let list = ListColumn::find(&footer, &place(&lists), 0).unwrap();
                let chunk = footer.row_group(0).column(0).byte_range();
                for _ in 0..300 {
                    let mut damaged = whole.clone();
                    for _ in 0..=draws.below(3) {
                        let at = (chunk.0 + draws.below(chunk.1)) as usize;
                        damaged[at] = draws.next_u32() as u8;
                    }
                    let damaged = Bytes::from(damaged);
                    let rows: Vec<u32> = (0..60).collect();
                    // A panic of the crate's page reader arrives where its own errors do.
                    match catch_unwind(AssertUnwindSafe(|| taken(&damaged, &footer, &list, 0, &rows))) {
                        Ok(Some(blobs)) => {
                            assert_eq!(blobs.len(), 60);
                            given += 1;
                        }
                        Ok(None) | Err(_) => left += 1,
                    }
                }
            }
        }
        assert!(given > 100 && left > 100, "{given} {left}");
    }
}
