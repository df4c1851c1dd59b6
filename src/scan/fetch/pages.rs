//! Where the pages of a row group are, read from their headers one after the other: for files without offset index, whose
//! column chunks may be larger than memory.

use std::{
    io::{self, Read},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use datafusion::{
    object_store::{ObjectStore, ObjectStoreExt, path::Path},
    parquet::{
        arrow::{
            ProjectionMask,
            arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
        },
        column::page::PageReader,
        errors::ParquetError,
        file::{
            metadata::{OffsetIndexBuilder, ParquetMetaData, ParquetMetaDataBuilder, RowGroupMetaData},
            page_index::offset_index::OffsetIndexMetaData,
            reader::{ChunkReader, Length},
            serialized_reader::SerializedPageReader,
        },
    },
};
use tokio::runtime::Handle;

use super::{Fetcher, Reading};
use crate::{
    error::{Context, Error, Result, Stage},
    scan::failure::panic_text,
    select::shards::Shard,
};

/// Bytes that are read where a page begins: its header without statistics is shorter.
const HEADER_GUESS_BYTES: u64 = 256;

/// A chunk up to this size is read at once.
const SMALL_CHUNK_BYTES: u64 = 64 << 10;

/// The footer of one row group with an offset index of the columns in `mask`; `None` where headers do not tell the rows.
///
/// # Errors
/// The store cannot be read, or the headers are malformed.
pub(super) async fn find(
    fetcher: &Fetcher,
    shard: &Shard,
    mask: &ProjectionMask,
    options: &ArrowReaderOptions,
    row_group: usize,
    reading: &Reading,
) -> Result<Option<ArrowReaderMetadata>> {
    let Some(footer) = shard.parquet().cloned() else { return Ok(None) };
    let headers = Arc::new(Headers {
        store: Arc::clone(&fetcher.store),
        location: shard.location.clone(),
        reading: reading.clone(),
        runtime: Handle::current(),
        begun_at: AtomicU64::new(0),
        chunk: Mutex::new(0..0),
        held: Mutex::new((0, Bytes::new())),
    });
    let (mask, options) = (mask.clone(), options.clone());
    let finding = tokio::task::spawn_blocking(move || index(&footer, row_group, &mask, &headers, options));
    let broken = "has page headers that cannot be read; write it again or leave the shard out";
    match finding.await {
        Ok(found) => found.context(Stage::Scan, format!("{} row group {row_group}", shard.name), broken),
        Err(failed) => {
            let text = failed.try_into_panic().map_or_else(|e| e.to_string(), |p| panic_text(p.as_ref()));
            Err(Error::at(Stage::Scan, &shard.name, broken).caused_by(text))
        }
    }
}

fn index(
    footer: &ParquetMetaData,
    row_group: usize,
    mask: &ProjectionMask,
    headers: &Arc<Headers>,
    options: ArrowReaderOptions,
) -> Result<Option<ArrowReaderMetadata>, ParquetError> {
    let group = footer.row_group(row_group);
    let mut columns = Vec::with_capacity(group.num_columns());
    for leaf in 0..group.num_columns() {
        if !mask.leaf_included(leaf) {
            columns.push(OffsetIndexBuilder::new().build());
        } else if let Some(pages) = pages(group, leaf, headers)? {
            columns.push(pages);
        } else {
            return Ok(None);
        }
    }
    let alone = ParquetMetaDataBuilder::new(footer.file_metadata().clone())
        .add_row_group(group.clone())
        .set_offset_index(Some(vec![columns]))
        .build();
    ArrowReaderMetadata::try_new(Arc::new(alone), options).map(Some)
}

/// The pages of one column chunk.
fn pages(
    group: &RowGroupMetaData,
    leaf: usize,
    headers: &Arc<Headers>,
) -> Result<Option<OffsetIndexMetaData>, ParquetError> {
    let chunk = group.column(leaf);
    // A row of repeated values may have many, and begin in the page before.
    if chunk.column_descr().max_rep_level() > 0 {
        return Ok(None);
    }
    let (start, length) = chunk.byte_range();
    headers.begin(start..start + length);
    let reader = Arc::new(HeaderReader(Arc::clone(headers)));
    let mut reader = SerializedPageReader::new(reader, chunk, group.num_rows() as usize, None)?;
    let mut pages: Vec<(u64, usize)> = vec![];
    let mut rows = 0;
    while let Some(page) = reader.peek_next_page()? {
        if !page.is_dict {
            let Some(of_page) = page.num_rows.or(page.num_levels) else { return Ok(None) };
            pages.push((headers.begun_at.load(Ordering::Relaxed), of_page));
            rows += of_page;
        }
        reader.skip_next_page()?;
    }
    if rows as i64 != group.num_rows() {
        let problem = format!("{rows} rows in the pages of a column and {} in its row group", group.num_rows());
        return Err(ParquetError::General(problem));
    }
    let mut builder = OffsetIndexBuilder::new();
    let ends = pages.iter().skip(1).map(|(start, _)| *start).chain([start + length]);
    for (&(begin, rows), end) in pages.iter().zip(ends) {
        let size = i32::try_from(end - begin).map_err(|error| ParquetError::External(Box::new(error)))?;
        builder.append_offset_and_size(begin as i64, size);
        builder.append_row_count(rows as i64);
    }
    Ok(Some(builder.build()))
}

/// Small reads of one column chunk.
struct Headers {
    store: Arc<dyn ObjectStore>,
    location: Path,
    reading: Reading,
    runtime: Handle,
    /// Where the header that was last asked for begins.
    begun_at: AtomicU64,
    chunk: Mutex<Range<u64>>,
    /// What was last read, and where it begins.
    held: Mutex<(u64, Bytes)>,
}

impl Headers {
    fn begin(&self, chunk: Range<u64>) {
        *self.chunk.lock().unwrap_or_else(PoisonError::into_inner) = chunk;
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = |held: &(u64, Bytes)| (held.0..held.0 + held.1.len() as u64).contains(&at);
        if !is_held(&held) {
            let chunk = self.chunk.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let range = match chunk.end - chunk.start <= SMALL_CHUNK_BYTES && chunk.contains(&at) {
                true => chunk,
                false => at..chunk.end.min(at + HEADER_GUESS_BYTES),
            };
            if range.is_empty() {
                return Ok(0);
            }
            let reading = self.store.get_range(&self.location, range.clone());
            let bytes = self.runtime.block_on(reading).map_err(io::Error::other)?;
            self.reading.bytes.add(bytes.len());
            self.reading.requests.add(1);
            *held = (range.start, bytes);
        }
        let rest = &held.1[(at - held.0) as usize..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// As Parquet's page reader wants it: it never asks for a page, only for headers.
struct HeaderReader(Arc<Headers>);

/// A header from its first byte on.
struct Header {
    headers: Arc<Headers>,
    at: u64,
}

impl Read for Header {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.headers.read(self.at, into)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Length for HeaderReader {
    fn len(&self) -> u64 {
        self.0.chunk.lock().unwrap_or_else(PoisonError::into_inner).end
    }
}

impl ChunkReader for HeaderReader {
    type T = Header;

    fn get_read(&self, start: u64) -> Result<Header, ParquetError> {
        self.0.begun_at.store(start, Ordering::Relaxed);
        Ok(Header { headers: Arc::clone(&self.0), at: start })
    }

    fn get_bytes(&self, _: u64, _: usize) -> Result<Bytes, ParquetError> {
        Err(ParquetError::General("a page was asked for where only headers are read".into()))
    }
}
