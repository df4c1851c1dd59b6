//! Rows as a lint sees them: whatever columns a shard has, in one set of types.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryViewArray, RecordBatch, StringViewArray, UInt64Array, new_null_array},
        compute::cast,
        datatypes::{DataType, UInt64Type},
    },
    execution::SendableRecordBatchStream,
};

use crate::{
    error::{Context as _, Result, Stage},
    select::{
        session::session,
        shards::{Shard, ShardSet},
    },
};

/// Rows that are looked at together; their images lie in their row group's memory in any case.
const BATCH_ROWS: usize = 256;
/// Narrow columns and the types they are seen in; `image` is the last.
const COLUMNS: [(&str, DataType); 9] = [
    ("width", DataType::UInt64),
    ("height", DataType::UInt64),
    ("format", DataType::Utf8View),
    ("caption", DataType::Utf8View),
    ("label", DataType::Utf8View),
    ("split", DataType::Utf8View),
    ("image_bytes", DataType::UInt64),
    ("image_xxh3", DataType::UInt64),
    ("image", DataType::BinaryView),
];

/// One row; `None` where the shard has no such column, or the row no value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) sample_id: u64,
    pub(super) width: Option<u64>,
    pub(super) height: Option<u64>,
    pub(super) format: Option<&'a str>,
    pub(super) caption: Option<&'a str>,
    pub(super) label: Option<&'a str>,
    pub(super) split: Option<&'a str>,
    pub(super) image_bytes: Option<u64>,
    pub(super) image_xxh3: Option<u64>,
    pub(super) image: Option<&'a [u8]>,
    /// Columns that are there, by their position in [`COLUMNS`].
    present: u16,
}

impl Row<'_> {
    /// Whether this row lacks a value, for every column that is there.
    pub(super) fn nulls(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let nulls = [
            self.width.is_none(),
            self.height.is_none(),
            self.format.is_none(),
            self.caption.is_none(),
            self.label.is_none(),
            self.split.is_none(),
            self.image_bytes.is_none(),
            self.image_xxh3.is_none(),
            self.image.is_none(),
        ];
        let present = self.present;
        let columns = COLUMNS.into_iter().map(|(name, _)| name).zip(nulls).enumerate();
        columns.filter(move |(at, _)| present >> at & 1 == 1).map(|(_, column)| column)
    }
}

/// All rows of one shard, in order, a few hundred at a time.
///
/// # Errors
/// The query cannot be planned.
pub(super) async fn stream(set: &ShardSet, shard: &Arc<Shard>, images: bool) -> Result<SendableRecordBatchStream> {
    let alone = ShardSet { shards: vec![Arc::clone(shard)], ..set.clone() };
    let context = session(&alone, 1)?;
    let place = &shard.name;
    let failed = "cannot be read; see the cause";
    let sized = format!("SET datafusion.execution.batch_size = {BATCH_ROWS}");
    context.sql(&sized).await.context(Stage::Internal, place, failed)?;
    let has = |name: &str| set.columns.field_with_name(name).is_ok() && (images || name != "image");
    let columns: Vec<String> =
        COLUMNS.iter().filter(|(name, _)| has(name)).map(|(name, _)| format!(", \"{name}\"")).collect();
    let sql = format!("SELECT sample_id{} FROM shards", columns.concat());
    let frame = context.sql(&sql).await.context(Stage::Select, place, failed)?;
    frame.execute_stream().await.context(Stage::Select, place, failed)
}

/// The columns of a batch in the types of [`COLUMNS`].
pub(super) struct Rows {
    ids: UInt64Array,
    columns: Vec<ArrayRef>,
    present: u16,
}

impl Rows {
    /// # Errors
    /// A column of a type that is none of ours.
    pub(super) fn of(batch: &RecordBatch, shard: &str) -> Result<Self> {
        let wrong = "has a column of a type that cannot be read as the schema's";
        let ids = cast(batch.column(0), &DataType::UInt64).context(Stage::Schema, shard, wrong)?;
        let mut present = 0;
        let mut columns = vec![];
        for (at, (name, data_type)) in COLUMNS.iter().enumerate() {
            columns.push(match batch.column_by_name(name) {
                Some(column) => {
                    present |= 1 << at;
                    cast(column, data_type).context(Stage::Schema, shard, wrong)?
                }
                None => new_null_array(data_type, batch.num_rows()),
            });
        }
        Ok(Self { ids: ids.as_primitive::<UInt64Type>().clone(), columns, present })
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn row(&self, row: usize) -> Row<'_> {
        let number = |at: usize| {
            let column: &UInt64Array = self.columns[at].as_primitive();
            column.is_valid(row).then(|| column.value(row))
        };
        let text = |at: usize| {
            let column: &StringViewArray = self.columns[at].as_string_view();
            column.is_valid(row).then(|| column.value(row))
        };
        let image: &BinaryViewArray = self.columns[8].as_binary_view();
        Row {
            sample_id: self.ids.value(row),
            width: number(0),
            height: number(1),
            format: text(2),
            caption: text(3),
            label: text(4),
            split: text(5),
            image_bytes: number(6),
            image_xxh3: number(7),
            image: image.is_valid(row).then(|| image.value(row)),
            present: self.present,
        }
    }
}
