//! Whether a record batch can have the rows that its header says: what is made for each row would be made for as many.
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::root_as_message;

use super::{Block, IpcIndex, guarded, malformed};
use crate::error::Result;

impl IpcIndex {
    /// Checks the rows of every batch against its columns' and, where they are not compressed, against their bytes.
    ///
    /// # Errors
    /// More or fewer rows than the columns have.
    pub(super) fn check_rows(&self, name: &str) -> Result<()> {
        for block in &self.batches {
            if !guarded(name, || self.has_its_rows(block))? {
                return Err(malformed(name, "has a record batch with another number of rows than its columns have"));
            }
        }
        Ok(())
    }

    fn has_its_rows(&self, block: &Block) -> Result<bool, ArrowError> {
        let message = root_as_message(&block.message).map_err(|error| ArrowError::ParseError(error.to_string()))?;
        let Some(header) = message.header_as_record_batch() else { return Ok(false) };
        let mut nodes = header.nodes().into_iter().flatten();
        for field in self.schema.fields() {
            let Some(node) = nodes.next() else { return Ok(false) };
            if u64::try_from(node.length()) != Ok(block.rows) {
                return Ok(false);
            }
            for _ in 1..nodes_of(field.data_type()) {
                nodes.next();
            }
        }
        if header.compression().is_some() {
            return Ok(true);
        }
        let wanted: u128 = self.schema.fields().iter().map(|field| least_bytes(field.data_type(), block.rows)).sum();
        let buffers = header.buffers().into_iter().flatten();
        Ok(buffers.map(|buffer| buffer.length().max(0) as u128).sum::<u128>() >= wanted)
    }
}

/// A column's own node and those of its children, as the format lays them down.
fn nodes_of(data_type: &DataType) -> usize {
    1 + match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| nodes_of(field.data_type())).sum(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| nodes_of(field.data_type())).sum(),
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => nodes_of(inner.data_type()),
        DataType::RunEndEncoded(ends, values) => nodes_of(ends.data_type()) + nodes_of(values.data_type()),
        _ => 0,
    }
}

/// Bytes that so many rows of a column take at least.
fn least_bytes(data_type: &DataType, rows: u64) -> u128 {
    let rows = u128::from(rows);
    match data_type {
        DataType::Boolean => rows.div_ceil(8),
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(_, _) => rows * 4,
        DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) | DataType::ListView(_) => rows * 8,
        DataType::Utf8View | DataType::BinaryView | DataType::LargeListView(_) => rows * 16,
        DataType::FixedSizeBinary(width) => rows * u128::from(width.unsigned_abs()),
        DataType::FixedSizeList(inner, count) => {
            let values = rows * u128::from(count.unsigned_abs());
            least_bytes(inner.data_type(), u64::try_from(values).unwrap_or(u64::MAX))
        }
        DataType::Dictionary(keys, _) => least_bytes(keys, rows as u64),
        DataType::Struct(fields) => fields.iter().map(|field| least_bytes(field.data_type(), rows as u64)).sum(),
        other => rows * other.primitive_width().unwrap_or(0) as u128,
    }
}
