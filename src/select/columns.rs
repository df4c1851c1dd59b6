//! The columns of all shards as one table's.
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};

use crate::error::{Error, Result, Stage};

/// Gathers the columns of shard after shard.
#[derive(Debug, Default)]
pub(crate) struct ColumnsOfAll {
    /// In the order in which they were met, each with the shard that had it first and how many have it.
    columns: Vec<(FieldRef, String, usize)>,
    positions: BTreeMap<String, usize>,
    shards: usize,
}

impl ColumnsOfAll {
    /// Adds one shard's columns.
    ///
    /// # Errors
    /// Columns that an earlier shard stores as another type, all of them.
    pub(crate) fn add(&mut self, shard: &ArrowSchema, name: &str) -> Result<()> {
        let mut conflicts = Vec::new();
        for field in shard.fields() {
            let field = Field::new(field.name(), in_flight(field.data_type()), field.is_nullable());
            match self.positions.get(field.name()).map(|&at| &mut self.columns[at]) {
                Some((known, _, count)) if known.data_type() == field.data_type() => {
                    *count += 1;
                    if field.is_nullable() && !known.is_nullable() {
                        *known = Arc::new(field);
                    }
                }
                Some((known, first, _)) => {
                    let (column, got, wanted) = (field.name(), field.data_type(), known.data_type());
                    conflicts.push(format!("column {column:?} is {got} here and {wanted} in {first}"));
                }
                None => {
                    self.positions.insert(field.name().clone(), self.columns.len());
                    self.columns.push((Arc::new(field), name.to_owned(), 1));
                }
            }
        }
        self.shards += 1;
        if conflicts.is_empty() {
            return Ok(());
        }
        let reason = format!("{}; give it one type in all shards", conflicts.join("\n  "));
        Err(Error::at(Stage::Schema, name, reason))
    }

    /// The table's columns, and the names of those with binary values inside.
    pub(crate) fn finish(self) -> (SchemaRef, Vec<String>) {
        let shards = self.shards;
        let field = |(field, _, count): (FieldRef, String, usize)| {
            let is_nullable = field.is_nullable() || count < shards;
            field.as_ref().clone().with_nullable(is_nullable)
        };
        let fields: Vec<Field> = self.columns.into_iter().map(field).collect();
        let binary = fields.iter().filter(|field| is_binary(field.data_type()));
        let binary = binary.map(|field| field.name().clone()).collect();
        (Arc::new(ArrowSchema::new(fields)), binary)
    }
}

/// Text and binary travel as views: no copy out of a page, no 2 GiB limit of a buffer.
fn in_flight(stored: &DataType) -> DataType {
    match stored {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Dictionary(_, values) => in_flight(values),
        other => other.clone(),
    }
}

/// Whether values of this type hold bytes of unbounded length.
pub(crate) fn is_binary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Struct(fields) => fields.iter().any(|field| is_binary(field.data_type())),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_binary(item.data_type())
        }
        DataType::Map(entries, _) => is_binary(entries.data_type()),
        DataType::Dictionary(_, values) => is_binary(values),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_some_shards_lack_are_nullable() {
        let mut columns = ColumnsOfAll::default();
        let a = Field::new("a", DataType::Utf8, false);
        let image = Field::new("image", DataType::Binary, false);
        columns.add(&ArrowSchema::new(vec![a.clone(), image]), "1").unwrap();
        columns.add(&ArrowSchema::new(vec![a.with_data_type(DataType::LargeUtf8)]), "2").unwrap();
        let (schema, binary) = columns.finish();
        let expected = [Field::new("a", DataType::Utf8View, false), Field::new("image", DataType::BinaryView, true)];
        assert_eq!(schema.as_ref(), &ArrowSchema::new(expected.to_vec()));
        assert_eq!(binary, ["image"]);
    }

    #[test]
    fn every_conflict_names_both_shards() {
        let mut columns = ColumnsOfAll::default();
        let schema = |data_type: DataType| {
            ArrowSchema::new(vec![Field::new("a", data_type.clone(), false), Field::new("b", data_type, false)])
        };
        columns.add(&schema(DataType::Int32), "1").unwrap();
        let text = columns.add(&schema(DataType::Int64), "2").unwrap_err().to_string();
        assert!(text.contains("2: column \"a\" is Int64 here and Int32 in 1"), "{text}");
        assert!(text.contains("column \"b\""), "{text}");
    }
}
