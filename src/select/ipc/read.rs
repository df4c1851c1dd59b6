//! Some columns of one record batch.
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::{DataType, UnionMode};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::{RecordBatchDecoder, read_dictionary};
use datafusion::arrow::ipc::{Message, MetadataVersion, root_as_message};

use super::{Block, Dictionaries, IpcIndex, guarded, malformed};
use crate::error::{Error, Result};

/// Buffers that lie closer are read together: padding, and small columns between those that are wanted.
const MERGE_GAP_BYTES: u64 = 4_096;

impl IpcIndex {
    /// Where the values of columns `roots` lie in the file, for one record batch.
    pub(crate) fn ranges(&self, batch: usize, roots: &[usize]) -> Vec<Range<u64>> {
        let Some(block) = self.batches.get(batch) else { return vec![] };
        let buffers = self.buffers(block, roots);
        let mut ranges: Vec<Range<u64>> = buffers.into_iter().filter(|buffer| !buffer.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end + MERGE_GAP_BYTES => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged.iter().map(|range| block.body.start + range.start..block.body.start + range.end).collect()
    }

    /// Buffers of these columns within the body, empty ones too.
    fn buffers(&self, block: &Block, roots: &[usize]) -> Vec<Range<u64>> {
        let wanted = self.all_buffers(block).into_iter().filter(|(root, _)| roots.contains(root));
        wanted.map(|(_, buffer)| buffer).collect()
    }

    /// Buffers of all columns within the body, empty ones too, each with the position of its column. Headers were checked
    /// when the file was loaded.
    pub(super) fn all_buffers(&self, block: &Block) -> Vec<(usize, Range<u64>)> {
        let Ok(message) = root_as_message(&block.message) else { return vec![] };
        let Some(header) = message.header_as_record_batch() else { return vec![] };
        let mut counting =
            Counting { version: message.version(), variadic: header.variadicBufferCounts().into_iter().flatten() };
        let mut left = header.buffers().into_iter().flatten();
        let mut buffers = Vec::new();
        for (root, field) in self.schema.fields().iter().enumerate() {
            for _ in 0..counting.buffers_of(field.data_type()) {
                let Some(buffer) = left.next() else { return buffers };
                buffers.push((root, buffer.offset() as u64..(buffer.offset() + buffer.length()) as u64));
            }
        }
        buffers
    }

    /// The columns `roots` of a record batch, in that order. `fetch` reads ranges of the file, which messages call `name`;
    /// `own` takes what holds the values, so that its memory can be accounted for.
    ///
    /// # Errors
    /// What `fetch` meets, and malformed values.
    pub(crate) async fn read<F>(
        self: &Arc<Self>,
        batch: usize,
        roots: &[usize],
        name: &str,
        fetch: impl Fn(Vec<Range<u64>>) -> F + Send,
        own: impl FnOnce(Vec<u8>) -> Buffer + Send,
    ) -> Result<RecordBatch>
    where
        F: Future<Output = Result<Vec<Bytes>>> + Send,
    {
        let Some(block) = self.batches.get(batch) else {
            return Err(Error::internal(format!("{name} has no record batch {batch}")));
        };
        let dictionaries = match roots.iter().any(|&root| has_dictionary(self.schema.field(root).data_type())) {
            true => self.dictionaries(block.dictionaries, name, &fetch).await?,
            false => Arc::default(),
        };
        let ranges = self.ranges(batch, roots);
        let parts = if ranges.is_empty() { vec![] } else { fetch(ranges.clone()).await? };
        // Positions in the body must stay, what is not wanted is never touched: untouched zeroed memory costs nothing.
        let length = self.buffers(block, roots).iter().map(|buffer| buffer.end).max().unwrap_or(0);
        let mut body = vec![0; length as usize];
        for (range, part) in ranges.iter().zip(parts) {
            let start = (range.start - block.body.start) as usize;
            let Some(slot) = body.get_mut(start..start + part.len()) else {
                return Err(malformed(name, "has values outside of a message's body"));
            };
            slot.copy_from_slice(&part);
        }
        let body = own(body);
        let (index, roots, name) = (Arc::clone(self), roots.to_vec(), name.to_owned());
        // Values may be compressed.
        let decoding = tokio::task::spawn_blocking(move || {
            guarded(&name, || index.decode(&index.batches[batch], &body, &roots, &dictionaries))
        });
        decoding.await.map_err(|error| Error::internal("a record batch was not decoded").caused_by(error))?
    }

    fn decode(
        &self,
        block: &Block,
        body: &Buffer,
        roots: &[usize],
        dictionaries: &Dictionaries,
    ) -> Result<RecordBatch, ArrowError> {
        let message = parse(&block.message)?;
        let header = message.header_as_record_batch().ok_or_else(|| ArrowError::IpcError("no record batch".into()))?;
        let version = message.version();
        let schema = Arc::clone(&self.schema);
        RecordBatchDecoder::try_new(body, header, schema, dictionaries, &version)?
            .with_projection(Some(roots))
            .read_record_batch()
    }

    /// The values that the first `count` dictionary messages leave.
    async fn dictionaries<F>(
        &self,
        count: usize,
        name: &str,
        fetch: &(impl Fn(Vec<Range<u64>>) -> F + Send),
    ) -> Result<Arc<Dictionaries>>
    where
        F: Future<Output = Result<Vec<Bytes>>> + Send,
    {
        let mut decoded = self.decoded.lock().await;
        let (known, mut values) = match decoded.0 <= count {
            true => (decoded.0, decoded.1.as_ref().clone()),
            false => (0, Dictionaries::new()),
        };
        for block in &self.dictionaries[known..count] {
            let body = match block.body.is_empty() {
                true => Buffer::from_vec(Vec::<u8>::new()),
                // Copied: the values outlive the fetch's share of the memory.
                false => Buffer::from(fetch(vec![block.body.clone()]).await?.concat()),
            };
            guarded(name, || {
                let message = parse(&block.message)?;
                let header = message.header_as_dictionary_batch();
                let header = header.ok_or_else(|| ArrowError::IpcError("no dictionary".into()))?;
                read_dictionary(&body, header, &self.schema, &mut values, &message.version())
            })?;
        }
        if known < count {
            *decoded = (count, Arc::new(values.clone()));
        }
        Ok(Arc::new(values))
    }
}

fn parse(message: &[u8]) -> Result<Message<'_>, ArrowError> {
    root_as_message(message).map_err(|error| ArrowError::ParseError(error.to_string()))
}

fn has_dictionary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, _) => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_dictionary(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| has_dictionary(field.data_type())),
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => has_dictionary(inner.data_type()),
        DataType::RunEndEncoded(_, values) => has_dictionary(values.data_type()),
        _ => false,
    }
}

/// How many buffers each column has, as the format lays them down.
struct Counting<I> {
    version: MetadataVersion,
    variadic: I,
}

impl<I: Iterator<Item = i64>> Counting<I> {
    fn buffers_of(&mut self, data_type: &DataType) -> usize {
        match data_type {
            DataType::Null => 0,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 3,
            DataType::Utf8View | DataType::BinaryView => {
                2 + self.variadic.next().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
            }
            DataType::List(inner) | DataType::LargeList(inner) | DataType::Map(inner, _) => {
                2 + self.buffers_of(inner.data_type())
            }
            DataType::ListView(inner) | DataType::LargeListView(inner) => 3 + self.buffers_of(inner.data_type()),
            DataType::FixedSizeList(inner, _) => 1 + self.buffers_of(inner.data_type()),
            DataType::Struct(fields) => {
                1 + fields.iter().map(|field| self.buffers_of(field.data_type())).sum::<usize>()
            }
            DataType::RunEndEncoded(ends, values) => {
                self.buffers_of(ends.data_type()) + self.buffers_of(values.data_type())
            }
            DataType::Union(fields, mode) => {
                let own = 1 + usize::from(self.version < MetadataVersion::V5) + usize::from(*mode == UnionMode::Dense);
                own + fields.iter().map(|(_, field)| self.buffers_of(field.data_type())).sum::<usize>()
            }
            // Validity and values; of a dictionary, its keys.
            _ => 2,
        }
    }
}
