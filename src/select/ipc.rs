//! Arrow IPC files as shards: where each record batch lies, read once from the message headers.
//!
//! Both layouts are read: the file format, whose footer lists the batches, and the stream format that `datasets` saves
//! under the same ending, whose headers are found one after the other without reading a body. A record batch stands for a
//! row group. It is the least that can be read of a column; there are no statistics and no pages.
mod load;
mod read;
mod rows;
mod sample;
mod scan;

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::root_as_message;
pub(crate) use load::load;
pub(crate) use scan::{IPC_SCAN, IpcScanExec, MadeColumns};
use tokio::sync::Mutex;

use crate::error::{Error, Result, Stage};

/// Values of dictionaries by their id.
type Dictionaries = HashMap<i64, ArrayRef>;

/// One message that has a body.
#[derive(Debug)]
pub struct Block {
    /// The message without the bytes in front of it, aligned.
    message: Buffer,
    /// Its body in the file.
    body: Range<u64>,
    /// Rows of the batch.
    pub rows: u64,
    /// How many of the file's dictionary messages are valid for it: all those before.
    dictionaries: usize,
}

/// Where the record batches of one file are.
#[derive(Debug)]
pub struct IpcIndex {
    schema: SchemaRef,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
    /// Those last read, and of how many messages.
    decoded: Mutex<(usize, Arc<Dictionaries>)>,
}

impl IpcIndex {
    /// The file's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Its record batches.
    pub fn batches(&self) -> &[Block] {
        &self.batches
    }

    /// Whether the values of a record batch are compressed.
    pub(crate) fn is_compressed(&self, batch: usize) -> bool {
        let message = self.batches.get(batch).and_then(|block| root_as_message(&block.message).ok());
        let header = message.and_then(|message| message.header_as_record_batch());
        header.is_some_and(|header| header.compression().is_some())
    }

    /// Bytes of the headers in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.batches.iter().chain(&self.dictionaries).map(|block| block.message.len() + size_of::<Block>()).sum()
    }
}

/// Runs a step of the IPC reader, which may panic on malformed files.
fn guarded<T>(name: &str, step: impl FnOnce() -> Result<T, ArrowError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(malformed(name, "is no Arrow IPC file, or is malformed").caused_by(error)),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(malformed(name, "is malformed; the Arrow reader gave up on it").caused_by(said))
        }
    }
}

fn malformed(name: &str, problem: &str) -> Error {
    Error::at(Stage::Select, name, format!("{problem}; write the shard again or leave it out"))
}
