//! What a query returns beside `sample_id`: values that travel with the items.
//!
//! They are held in memory in the order of the items: the bytes of the values, one bit for NULL, and four bytes more for
//! every text. A weight of ten million items is 41 MB.
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use rayon::slice::ParallelSliceMut;

use super::columns::is_binary;
use super::provider::SAMPLE_ID;
use super::selection::SelectedGroup;
use super::shards::ROW_BITS;
use crate::error::{Context, Error, Result, Stage};

/// What messages call the SQL.
const QUERY: &str = "the query";
/// Columns that every batch has: values under these names could not be told from them.
const TAKEN: [&str; 16] = [
    "shard",
    "row",
    "occurrence",
    "position",
    "pass",
    "replaced",
    "views",
    "windows",
    "sequence_ordinal",
    "group_ordinal",
    "caption_tokens",
    "image_hash",
    "pixel_digest",
    "image_bytes",
    "image_xxh3",
    "image.path",
];

/// The extra columns of a selection.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraColumns {
    schema: SchemaRef,
    /// One per group of the selection, a row per item, in the order of the items.
    groups: Vec<RecordBatch>,
}

impl ExtraColumns {
    /// `groups` as they belong to the groups of a selection.
    pub(crate) fn new(schema: SchemaRef, groups: Vec<RecordBatch>) -> Self {
        Self { schema, groups }
    }

    /// Names and types; text is `Utf8`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Names of the columns in the order of the query.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }

    /// The values of a group's items.
    pub fn group(&self, index: usize) -> Option<&RecordBatch> {
        self.groups.get(index)
    }

    /// Of all groups.
    pub(crate) fn groups(&self) -> &[RecordBatch] {
        &self.groups
    }

    /// The same for groups in another order.
    pub(crate) fn permuted(self, order: &[usize]) -> Self {
        Self { groups: order.iter().map(|&at| self.groups[at].clone()).collect(), schema: self.schema }
    }

    /// Bytes that the values take in memory.
    pub fn memory_bytes(&self) -> u64 {
        let columns = self.groups.iter().flat_map(RecordBatch::columns);
        // Groups may be slices of common memory, which would be counted for each of them.
        columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64).sum()
    }

    /// Whether every group has a row per item.
    pub(crate) fn fit(&self, groups: &[SelectedGroup]) -> bool {
        self.groups.len() == groups.len()
            && self.groups.iter().zip(groups).all(|(values, group)| values.num_rows() as u64 == group.items())
    }

    /// Digest of the names and types, whatever the order of the columns.
    pub(crate) fn digest_of_columns(&self) -> [u8; 32] {
        let mut columns: Vec<String> =
            self.schema.fields().iter().map(|field| format!("{}\0{:?}\n", field.name(), field.data_type())).collect();
        columns.sort_unstable();
        *blake3::hash(columns.concat().as_bytes()).as_bytes()
    }

    /// Digest of the values of some groups, the same however rows are grouped.
    pub(crate) fn digest_of_values(&self, groups: std::ops::Range<usize>) -> [u8; 32] {
        let mut order: Vec<usize> = (0..self.schema.fields().len()).collect();
        order.sort_unstable_by_key(|&at| self.schema.field(at).name());
        let mut all = blake3::Hasher::new();
        for column in order {
            let mut hasher = blake3::Hasher::new();
            for group in &self.groups[groups.clone()] {
                hash_values(group.column(column), |_, bytes| {
                    hasher.update(bytes);
                });
            }
            all.update(hasher.finalize().as_bytes());
        }
        *all.finalize().as_bytes()
    }
}

/// Calls `hash` with the row and the bytes of every value: whether it is there, and what it is, little endian.
pub(crate) fn hash_values(column: &ArrayRef, mut hash: impl FnMut(usize, &[u8])) {
    if let Some(texts) = column.as_string_opt::<i32>() {
        return hash_texts(texts, hash);
    }
    if let Some(flags) = column.as_boolean_opt() {
        return hash_flags(flags, hash);
    }
    let data = column.to_data();
    let width = column.data_type().primitive_width().unwrap_or(0);
    let Some(values) = data.buffers().first() else { return };
    let mut bytes = Vec::with_capacity(width + 1);
    for row in 0..column.len() {
        bytes.clear();
        bytes.push(u8::from(column.is_valid(row)));
        if column.is_valid(row) {
            bytes.extend_from_slice(&values[(data.offset() + row) * width..(data.offset() + row + 1) * width]);
        }
        hash(row, &bytes);
    }
}

fn hash_texts(texts: &StringArray, mut hash: impl FnMut(usize, &[u8])) {
    let mut bytes = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        bytes.clear();
        bytes.push(u8::from(text.is_some()));
        if let Some(text) = text {
            // With its length, so that no two lists of texts read the same.
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        hash(row, &bytes);
    }
}

fn hash_flags(flags: &BooleanArray, mut hash: impl FnMut(usize, &[u8])) {
    for (row, flag) in flags.iter().enumerate() {
        hash(row, &[u8::from(flag.is_some()), u8::from(flag == Some(true))]);
    }
}

/// The type under which values travel; `None` for what is not narrow.
fn narrow(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::Dictionary(_, values) => narrow(values),
        DataType::Boolean => Some(DataType::Boolean),
        DataType::Interval(_) => None,
        other if other.is_primitive() => Some(other.clone()),
        _ => None,
    }
}

/// The extra columns among what a query returns, or what is wrong with them.
///
/// `is_blob` knows the names of columns that hold images or samples.
pub(crate) fn columns_of(fields: &ArrowSchema, is_blob: impl Fn(&str) -> bool) -> Result<SchemaRef, Vec<String>> {
    let mut problems = Vec::new();
    let mut narrowed: Vec<Field> = Vec::new();
    for field in fields.fields().iter().filter(|field| field.name() != SAMPLE_ID) {
        let (name, data_type) = (field.name(), field.data_type());
        match narrow(data_type) {
            _ if is_binary(data_type) || is_blob(name) => {
                problems.push(format!(
                    "returns the blob {name:?}; leave it out: training reads it for the selected rows"
                ));
            }
            _ if TAKEN.contains(&name.as_str()) => {
                problems.push(format!("returns {name:?}, a name that every batch uses; write `AS` another"));
            }
            _ if narrowed.iter().any(|known| known.name() == name) => {
                problems.push(format!("returns {name:?} twice; rename one with `AS`"));
            }
            None => problems.push(format!(
                "returns {name:?} as {data_type}, which cannot travel with a sample; cast it to a number or to text, or \
                 `unnest` it"
            )),
            Some(narrow) => narrowed.push(Field::new(name, narrow, true)),
        }
    }
    if problems.is_empty() { Ok(Arc::new(ArrowSchema::new(narrowed))) } else { Err(problems) }
}

/// Gathers the extra values of a query's answer, which comes in any order.
pub(crate) struct Gatherer {
    schema: SchemaRef,
    converter: RowConverter,
    rows: Vec<Rows>,
    /// `sample_id`, and which row of which batch.
    keys: Vec<(u64, u32, u32)>,
}

impl Gatherer {
    pub(crate) fn new(schema: SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).context(Stage::Select, QUERY, "returns values that have no order")?;
        Ok(Self { schema, converter, rows: Vec::new(), keys: Vec::new() })
    }

    /// Adds the rows of a batch, whose extra columns are `columns`.
    pub(crate) fn add(&mut self, ids: &UInt64Array, columns: &[ArrayRef]) -> Result<()> {
        let broken = "returns values that cannot be kept";
        let narrowed = columns.iter().zip(self.schema.fields());
        let narrowed = narrowed.map(|(column, field)| cast(column, field.data_type()));
        let narrowed: Vec<ArrayRef> = narrowed.collect::<Result<_, _>>().context(Stage::Select, QUERY, broken)?;
        let rows = self.converter.convert_columns(&narrowed).context(Stage::Select, QUERY, broken)?;
        let batch = self.rows.len() as u32;
        self.keys.extend((0..).zip(ids.values()).map(|(row, &id)| (id, batch, row)));
        self.rows.push(rows);
        Ok(())
    }

    /// The values in the order of the items of `groups`. A row's repeats are ordered by their values, so that an
    /// occurrence means the same in every run.
    pub(crate) fn finish(mut self, groups: &[SelectedGroup]) -> Result<ExtraColumns> {
        let rows = &self.rows;
        let row_of = |&(_, batch, row): &(u64, u32, u32)| rows[batch as usize].row(row as usize);
        self.keys.par_sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| row_of(a).cmp(&row_of(b))));
        let mut rest = self.keys.as_slice();
        let mut batches = Vec::with_capacity(groups.len());
        for group in groups {
            let Some((own, others)) = rest.split_at_checked(group.items() as usize) else {
                return Err(Error::internal("a selection has more items than extra values"));
            };
            rest = others;
            let first = (u64::from(group.shard) << ROW_BITS) | group.first_row;
            if own.first().is_some_and(|key| key.0 < first) {
                return Err(Error::internal("extra values and items do not agree"));
            }
            let broken = "returns values that cannot be kept";
            let columns = self.converter.convert_rows(own.iter().map(row_of)).context(Stage::Select, QUERY, broken)?;
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
            batches.push(batch.context(Stage::Select, QUERY, broken)?);
        }
        Ok(ExtraColumns::new(self.schema, batches))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::arrow::array::{Float32Array, Int64Array, StringViewArray};

    use super::*;

    fn group(row_group: u32, first_row: u64, rows: &[u32], repeats: &[(u32, u32)]) -> SelectedGroup {
        let repeats: BTreeMap<u32, u32> = repeats.iter().copied().collect();
        SelectedGroup { shard: 0, row_group, first_row, rows: rows.iter().copied().collect(), repeats }
    }

    fn schema() -> SchemaRef {
        let fields = ArrowSchema::new(vec![
            Field::new(SAMPLE_ID, DataType::UInt64, false),
            Field::new("caption", DataType::Utf8View, true),
            Field::new("weight", DataType::Float32, true),
        ]);
        columns_of(&fields, |_| false).unwrap()
    }

    fn gather(parts: &[&[(u64, Option<&str>, f32)]], groups: &[SelectedGroup]) -> ExtraColumns {
        let mut gatherer = Gatherer::new(schema()).unwrap();
        for part in parts {
            let ids = UInt64Array::from_iter_values(part.iter().map(|row| row.0));
            let captions: ArrayRef = Arc::new(part.iter().map(|row| row.1).collect::<StringViewArray>());
            let weights: ArrayRef = Arc::new(Float32Array::from_iter_values(part.iter().map(|row| row.2)));
            gatherer.add(&ids, &[captions, weights]).unwrap();
        }
        gatherer.finish(groups).unwrap()
    }

    #[test]
    fn values_follow_the_items_whatever_the_order_of_the_answer() {
        let groups = [group(0, 0, &[1, 2], &[(2, 3)]), group(1, 10, &[0], &[])];
        let one = gather(
            &[
                &[(10, Some("j"), 1.0), (2, Some("c"), 1.0)],
                &[(2, Some("a"), 2.0), (1, None, 0.5), (2, Some("b"), 0.0)],
            ],
            &groups,
        );
        let other = gather(
            &[&[(2, Some("b"), 0.0), (1, None, 0.5), (2, Some("a"), 2.0), (2, Some("c"), 1.0), (10, Some("j"), 1.0)]],
            &groups,
        );
        assert_eq!(one, other);
        let captions = one.group(0).unwrap().column(0).as_string::<i32>().clone();
        assert_eq!(captions.iter().collect::<Vec<_>>(), [None, Some("a"), Some("b"), Some("c")]);
        assert!(one.fit(&groups) && !one.fit(&groups[..1]));
        assert_eq!(one.digest_of_values(0..2), other.digest_of_values(0..2));
    }

    #[test]
    fn the_digest_covers_values_and_nulls_and_ignores_grouping() {
        let rows: &[(u64, Option<&str>, f32)] = &[(0, Some("a"), 1.0), (1, Some(""), 2.0), (2, None, 3.0)];
        let whole = gather(&[rows], &[group(0, 0, &[0, 1, 2], &[])]);
        let cut = gather(&[rows], &[group(0, 0, &[0], &[]), group(1, 1, &[0, 1], &[])]);
        assert_eq!(whole.digest_of_values(0..1), cut.digest_of_values(0..2));
        for changed in [
            [(0, Some("a"), 1.0), (1, None, 2.0), (2, None, 3.0)],
            [(0, Some("a"), 1.0), (1, Some(""), 2.0), (2, None, -3.0)],
        ] {
            let other = gather(&[&changed], &[group(0, 0, &[0, 1, 2], &[])]);
            assert_ne!(whole.digest_of_values(0..1), other.digest_of_values(0..1));
        }
    }

    #[test]
    fn columns_that_cannot_travel_are_refused_all_at_once() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
        let fields = ArrowSchema::new(vec![
            Field::new("image", DataType::Utf8, true),
            Field::new("bytes", DataType::BinaryView, true),
            Field::new("tags", list, true),
            Field::new("nothing", DataType::Null, true),
            Field::new("row", DataType::Int64, true),
            Field::new("twice", DataType::Int64, true),
            Field::new("twice", DataType::Int64, true),
        ]);
        let problems = columns_of(&fields, |name| name == "image").unwrap_err().join("\n");
        for part in [
            "blob \"image\"",
            "blob \"bytes\"",
            "\"tags\" as List",
            "\"nothing\" as Null",
            "\"row\", a name",
            "\"twice\" twice",
        ] {
            assert!(problems.contains(part), "{part} is not in {problems}");
        }
    }

    #[test]
    fn numbers_are_hashed_as_they_are_stored() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(-1)]).slice(1, 2));
        let mut seen = Vec::new();
        hash_values(&numbers, |row, bytes| seen.push((row, bytes.to_vec())));
        assert_eq!(seen, [(0, vec![0]), (1, [vec![1], vec![0xff; 8]].concat())]);
    }
}
