//! Footers and message headers of Arrow IPC files.
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::convert::fb_to_schema;
use datafusion::arrow::ipc::reader::read_footer_length;
use datafusion::arrow::ipc::{
    Block as FooterBlock, MessageHeader, Schema as FlatSchema, root_as_footer, root_as_message,
};
use datafusion::object_store::path::Path;
use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::Mutex;

use super::super::counting_store::CountingStore;
use super::super::shards::MAX_ROWS;
use super::{Block, IpcIndex, guarded, malformed};
use crate::error::{Context, Error, Result, Stage};

/// Ends a file of the file format, after the footer's length; also begins it.
const MAGIC: &[u8] = b"ARROW1";
/// Bytes behind the footer: its length and [`MAGIC`].
const TRAILER_BYTES: u64 = 10;
/// Begins a message of the present format, before its length.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes that are read where a message of a stream begins: most headers are shorter.
const HEADER_GUESS_BYTES: u64 = 2_048;
/// Headers that are asked for in one call.
const HEADERS_PER_CALL: usize = 64;
/// A longer header describes no columns that anybody has.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Where the file is.
struct File<'a> {
    store: &'a CountingStore,
    location: &'a Path,
    name: &'a str,
    bytes: u64,
}

/// What was found so far.
struct Found {
    schema: Option<SchemaRef>,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
    hash: blake3::Hasher,
}

/// Reads where the record batches of a file are, which messages call `name`, and its fingerprint: BLAKE3 of its size (u64,
/// little endian), its footer where it has one, all message headers, which hold the length of every buffer, and a sample
/// of the values, of which headers say nothing.
///
/// # Errors
/// The file cannot be read, is neither format, is cut short, or contradicts itself.
pub(crate) async fn load(
    store: &CountingStore,
    location: &Path,
    name: &str,
    bytes: u64,
) -> Result<(IpcIndex, [u8; 32])> {
    let file = File { store, location, name, bytes };
    let mut hash = blake3::Hasher::new();
    hash.update(&bytes.to_le_bytes());
    let mut found = Found { schema: None, dictionaries: vec![], batches: vec![], hash };
    let trailer = file.read(bytes.saturating_sub(TRAILER_BYTES)..bytes).await?;
    match <[u8; 10]>::try_from(trailer.as_ref()) {
        Ok(trailer) if &trailer[4..] == MAGIC => file.of_footer(trailer, &mut found).await?,
        _ => file.of_stream(&mut found).await?,
    }
    let Some(schema) = found.schema else { return Err(malformed(name, "has no schema: it was cut short")) };
    let rows = found.batches.iter().try_fold(0_u64, |rows, batch| rows.checked_add(batch.rows));
    if rows.is_none_or(|rows| rows > MAX_ROWS) {
        return Err(malformed(name, "has more rows than a shard may have"));
    }
    let decoded = Mutex::new((0, Arc::default()));
    let index = IpcIndex { schema, dictionaries: found.dictionaries, batches: found.batches, decoded };
    index.check_rows(name)?;
    index.values().hash_sample(store, location, name, bytes, &mut found.hash).await?;
    Ok((index, *found.hash.finalize().as_bytes()))
}

impl File<'_> {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() || range.end > self.bytes {
            return Err(malformed(self.name, "is empty, was cut short, or names bytes outside of it"));
        }
        self.store.get_range(self.location, range).await.context(Stage::Select, self.name, "cannot be read")
    }

    /// The file format: the footer lists all messages.
    async fn of_footer(&self, trailer: [u8; 10], found: &mut Found) -> Result<()> {
        let length = guarded(self.name, || read_footer_length(trailer))? as u64;
        let end = self.bytes - TRAILER_BYTES;
        let start = end.checked_sub(length).ok_or_else(|| malformed(self.name, "has a footer longer than itself"))?;
        let footer = Buffer::from_slice_ref(self.read(start..end).await?.as_ref());
        found.hash.update(&footer);
        let (schema, dictionaries, batches) = guarded(self.name, || {
            let footer = root_as_footer(&footer).map_err(|error| ArrowError::ParseError(error.to_string()))?;
            let schema = footer.schema().ok_or_else(|| ArrowError::ParseError("no schema".into()))?;
            let blocks = |list: Option<Vec<FooterBlock>>| list.unwrap_or_default();
            Ok((
                native(schema)?,
                blocks(footer.dictionaries().map(|list| list.iter().copied().collect())),
                blocks(footer.recordBatches().map(|list| list.iter().copied().collect())),
            ))
        })?;
        found.schema = Some(schema);
        for block in dictionaries.chunks(HEADERS_PER_CALL).chain(batches.chunks(HEADERS_PER_CALL)) {
            self.headers(block, found).await?;
        }
        // Every dictionary of a file is valid for all of its batches, wherever it stands.
        let all = found.dictionaries.len();
        found.batches.iter_mut().for_each(|batch| batch.dictionaries = all);
        Ok(())
    }

    async fn headers(&self, blocks: &[FooterBlock], found: &mut Found) -> Result<()> {
        let outside = || malformed(self.name, "has a footer that names bytes outside of it");
        let mut ranges = Vec::with_capacity(blocks.len());
        for block in blocks {
            let (Ok(start), Ok(length)) = (u64::try_from(block.offset()), u64::try_from(block.metaDataLength())) else {
                return Err(outside());
            };
            let end = start.checked_add(length).filter(|&end| end <= self.bytes && length > 8).ok_or_else(outside)?;
            ranges.push(start..end);
        }
        let read = self.store.get_ranges(self.location, &ranges).await;
        let read = read.context(Stage::Select, self.name, "cannot be read")?;
        for ((bytes, range), block) in read.iter().zip(ranges).zip(blocks) {
            let prefix = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
            let header = bytes.get(prefix..).ok_or_else(outside)?;
            let length = self.message(header, range.end, found)?;
            if i64::try_from(length) != Ok(block.bodyLength()) {
                return Err(malformed(self.name, "has a footer that is not of its messages"));
            }
        }
        Ok(())
    }

    /// The stream format: each header tells where the next one begins.
    async fn of_stream(&self, found: &mut Found) -> Result<()> {
        let mut at = 0;
        while at < self.bytes {
            let guess = self.read(at..self.bytes.min(at + HEADER_GUESS_BYTES)).await?;
            if at == 0 {
                self.is_a_stream(&guess)?;
            }
            let word = |from: usize| {
                let bytes: Option<[u8; 4]> = guess.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map(u32::from_le_bytes).map(u64::from)
            };
            let prefix = if guess.starts_with(&CONTINUATION) { 8 } else { 4 };
            let length = word(prefix - 4).ok_or_else(|| malformed(self.name, "was cut short"))?;
            if length == 0 {
                break;
            }
            let (start, end) = (at + prefix as u64, at + prefix as u64 + length);
            if length > MAX_HEADER_BYTES || end > self.bytes {
                return Err(malformed(self.name, "was cut short in a message's header, or is no Arrow IPC stream"));
            }
            let header = match guess.get(prefix..prefix + length as usize) {
                Some(header) => Bytes::copy_from_slice(header),
                None => self.read(start..end).await?,
            };
            at = end + self.message(&header, end, found)?;
        }
        Ok(())
    }

    fn is_a_stream(&self, head: &[u8]) -> Result<()> {
        let reason = if head.starts_with(MAGIC) {
            "is an Arrow IPC file without its footer: it was cut short; write it again"
        } else if head.starts_with(b"FEA1") {
            "is Feather version 1; write it again as version 2 (pyarrow.feather.write_feather does by default)"
        } else if head.starts_with(b"PAR1") {
            "is Parquet; give it the ending .parquet"
        } else {
            return Ok(());
        };
        Err(Error::at(Stage::Select, self.name, reason))
    }

    /// Notes one message whose body begins at `body`; gives the body's length.
    fn message(&self, header: &[u8], body: u64, found: &mut Found) -> Result<u64> {
        found.hash.update(header);
        // Flatbuffers are read where they lie, which must be aligned.
        let message = Buffer::from_slice_ref(header);
        let (kind, length, rows, last, schema) = guarded(self.name, || {
            let header = root_as_message(&message).map_err(|error| ArrowError::ParseError(error.to_string()))?;
            let schema = header.header_as_schema().map(native).transpose()?;
            let dictionary = header.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
            let batch = header.header_as_record_batch().or(dictionary);
            let buffers = batch.and_then(|batch| batch.buffers());
            let ends = buffers.iter().flatten().map(|buffer| (buffer.offset(), buffer.length()));
            let last = ends.map(
                |(offset, length)| if offset < 0 || length < 0 { i64::MAX } else { offset.saturating_add(length) },
            );
            Ok((header.header_type(), header.bodyLength(), batch.map(|batch| batch.length()), last.max(), schema))
        })?;
        let Some(length) = u64::try_from(length).ok().filter(|&length| body.saturating_add(length) <= self.bytes)
        else {
            return Err(malformed(self.name, "was cut short: a message's body ends after it"));
        };
        if last.is_some_and(|last| last as u64 > length) {
            return Err(malformed(self.name, "has a message whose values lie outside of its body"));
        }
        match (kind, rows.map(u32::try_from)) {
            (MessageHeader::Schema, _) if found.schema.is_none() => found.schema = schema,
            (MessageHeader::RecordBatch, Some(Ok(rows))) => {
                let (rows, dictionaries) = (u64::from(rows), found.dictionaries.len());
                found.batches.push(Block { message, body: body..body + length, rows, dictionaries });
            }
            (MessageHeader::DictionaryBatch, Some(Ok(rows))) => {
                let (rows, dictionaries) = (u64::from(rows), 0);
                found.dictionaries.push(Block { message, body: body..body + length, rows, dictionaries });
            }
            _ => return Err(malformed(self.name, "has a message that is neither schema nor record batch")),
        }
        Ok(length)
    }
}

fn native(schema: FlatSchema<'_>) -> Result<SchemaRef, ArrowError> {
    if !schema.endianness().equals_to_target_endianness() {
        return Err(ArrowError::NotYetImplemented("written on a machine of the other byte order".into()));
    }
    Ok(Arc::new(fb_to_schema(schema)))
}
