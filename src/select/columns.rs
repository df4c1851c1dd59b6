//! The columns of all shards as one table's.
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};

use crate::error::{Error, Result, Stage};
use crate::schema::Schema;
use crate::schema::in_files::{ColumnsInFile, InFile};

/// Gathers the columns of shard after shard.
#[derive(Debug, Default)]
pub(crate) struct ColumnsOfAll {
    /// The files' columns in the order in which they were met.
    stored: Met<FieldRef>,
    /// What SQL calls them, or fields of them.
    named: Met<InFile>,
    shards: usize,
}

/// Things by name in the order in which they were met, each with the shard that had it first and how many have it.
#[derive(Debug)]
struct Met<T> {
    all: Vec<(T, String, usize)>,
    positions: BTreeMap<String, usize>,
}

impl<T> Default for Met<T> {
    fn default() -> Self {
        Self { all: Vec::new(), positions: BTreeMap::new() }
    }
}

impl<T> Met<T> {
    fn get(&mut self, name: &str) -> Option<&mut (T, String, usize)> {
        self.positions.get(name).map(|&at| &mut self.all[at])
    }

    fn push(&mut self, name: &str, value: T, shard: &str, count: usize) {
        self.positions.insert(name.to_owned(), self.all.len());
        self.all.push((value, shard.to_owned(), count));
    }
}

/// The columns of a set of shards under the names of the files.
#[derive(Debug, Clone)]
pub struct StoredColumns {
    /// All that SQL can see something of.
    pub columns: SchemaRef,
    /// For each column of the table the one of `columns`, and the field of it that is meant.
    pub sources: Vec<(usize, Option<String>)>,
}

impl StoredColumns {
    /// No columns.
    pub fn none() -> Self {
        Self { columns: Arc::new(ArrowSchema::empty()), sources: vec![] }
    }
}

impl ColumnsOfAll {
    /// Adds one shard's columns: those of its file, and what SQL calls them.
    ///
    /// # Errors
    /// Columns that an earlier shard stores as another type or at another place, all of them.
    pub(crate) fn add(&mut self, file: &ArrowSchema, columns: &ColumnsInFile, shard: &str) -> Result<()> {
        let mut conflicts = Vec::new();
        for field in file.fields() {
            let mut names = columns.iter().filter(|(_, place)| place.root == *field.name()).peekable();
            if names.peek().is_none() {
                continue;
            }
            let field = Field::new(field.name(), in_flight(field.data_type()), field.is_nullable());
            match self.stored.get(field.name()) {
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
                None => self.stored.push(&field.name().clone(), Arc::new(field), shard, 1),
            }
            for (name, place) in names {
                match self.named.get(name) {
                    Some((known, _, count)) if known.parts().eq(place.parts()) => *count += 1,
                    Some((known, first, _)) => {
                        let path = |place: &InFile| place.parts().collect::<Vec<_>>().join(" → ");
                        let (here, there) = (path(place), path(known));
                        conflicts.push(format!("{name:?} is column {here} here and {there} in {first}"));
                    }
                    None => self.named.push(name, place.clone(), shard, 1),
                }
            }
        }
        self.shards += 1;
        if conflicts.is_empty() {
            return Ok(());
        }
        let reason = format!("{}; give it one type in all shards", conflicts.join("\n  "));
        Err(Error::at(Stage::Schema, shard, reason))
    }

    /// The table's columns, the names of those with binary values inside, and where all are stored. Columns of the schema
    /// that may be null and that no shard has are null in every row.
    pub(crate) fn finish(mut self, schema: &Schema) -> (SchemaRef, Vec<String>, StoredColumns) {
        for column in schema.stored().filter(|column| column.nullable) {
            if self.named.get(&column.name).is_none() && self.stored.get(&column.name).is_none() {
                let field = Field::new(&column.name, in_flight(&column.data_type), true);
                let place = InFile { root: column.name.clone(), field: None, data_type: column.data_type.clone() };
                self.stored.push(&column.name, Arc::new(field), "", 0);
                self.named.push(&column.name, place, "", 0);
            }
        }
        let shards = self.shards;
        let positions = self.stored.positions;
        let stored: Vec<Field> = self
            .stored
            .all
            .into_iter()
            .map(|(field, _, count)| {
                let is_nullable = field.is_nullable() || count < shards;
                field.as_ref().clone().with_nullable(is_nullable)
            })
            .collect();
        let mut names: Vec<(&String, usize)> = self.named.positions.iter().map(|(name, &at)| (name, at)).collect();
        names.sort_by_key(|(_, at)| *at);
        let (mut table, mut sources) = (Vec::new(), Vec::new());
        for (name, at) in names {
            let (place, _, count) = &self.named.all[at];
            let Some(&root) = positions.get(&place.root) else { continue };
            let root_field = &stored[root];
            table.push(match (&place.field, root_field.data_type()) {
                (Some(inner), DataType::Struct(fields)) => {
                    let data_type = fields.find(inner).map_or(&DataType::Null, |(_, field)| field.data_type());
                    Field::new(name, data_type.clone(), true)
                }
                _ => root_field.clone().with_name(name).with_nullable(root_field.is_nullable() || *count < shards),
            });
            sources.push((root, place.field.clone()));
        }
        let binary = table.iter().filter(|field| is_binary(field.data_type()));
        let binary = binary.map(|field| field.name().clone()).collect();
        let stored = StoredColumns { columns: Arc::new(ArrowSchema::new(stored)), sources };
        (Arc::new(ArrowSchema::new(table)), binary, stored)
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

    fn schema(names: &[(&str, &str)]) -> Schema {
        let names = names.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Schema::named("image_text").unwrap().with_names_in_files(&names).unwrap()
    }

    fn add(columns: &mut ColumnsOfAll, schema: &Schema, fields: Vec<Field>, name: &str) -> Result<()> {
        let file = ArrowSchema::new(fields);
        columns.add(&file, &schema.columns_in(&file, name)?, name)
    }

    #[test]
    fn columns_that_some_shards_lack_are_nullable() {
        let mut columns = ColumnsOfAll::default();
        let a = Field::new("a", DataType::Utf8, false);
        let image = Field::new("image", DataType::Binary, false);
        let large = a.clone().with_data_type(DataType::LargeUtf8);
        add(&mut columns, &schema(&[]), vec![a, image.clone()], "1").unwrap();
        add(&mut columns, &schema(&[]), vec![image], "2").unwrap();
        let mut with_a = ColumnsOfAll::default();
        add(&mut with_a, &schema(&[]), vec![large, Field::new("image", DataType::LargeBinary, false)], "1").unwrap();
        let (table, binary, _) = columns.finish(&schema(&[]));
        let view = |name: &str, is_nullable| Field::new(name, DataType::Utf8View, is_nullable);
        let image = Field::new("image", DataType::BinaryView, false);
        let expected = [view("a", true), image, view("caption", true), view("label", true), view("split", true)];
        assert_eq!(table.as_ref(), &ArrowSchema::new(expected.to_vec()));
        assert_eq!(binary, ["image"]);
        assert!(!with_a.finish(&schema(&[])).0.field(0).is_nullable());
    }

    #[test]
    fn every_conflict_names_both_shards() {
        let mut columns = ColumnsOfAll::default();
        let fields = |data_type: DataType| {
            let image = Field::new("image", DataType::Binary, false);
            vec![image, Field::new("a", data_type.clone(), false), Field::new("b", data_type, false)]
        };
        add(&mut columns, &schema(&[]), fields(DataType::Int32), "1").unwrap();
        let text = add(&mut columns, &schema(&[]), fields(DataType::Int64), "2").unwrap_err().to_string();
        assert!(text.contains("2: column \"a\" is Int64 here and Int32 in 1"), "{text}");
        assert!(text.contains("column \"b\""), "{text}");
    }

    #[test]
    fn sql_sees_our_names_and_the_scan_those_of_the_files() {
        let inner = vec![Field::new("bytes", DataType::Binary, true), Field::new("tag", DataType::Utf8, true)];
        let fields = vec![
            Field::new("TEXT", DataType::Utf8, true),
            Field::new("img", DataType::Struct(inner.into()), true),
            Field::new("class", DataType::Int64, false),
        ];
        let mut columns = ColumnsOfAll::default();
        let schema = schema(&[("image", "img"), ("caption", "TEXT"), ("label", "class"), ("split", "img.tag")]);
        add(&mut columns, &schema, fields, "1").unwrap();
        let (table, binary, stored) = columns.finish(&schema);
        let names: Vec<&str> = table.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["caption", "image", "split", "label"]);
        let sources = [(0, None), (1, None), (1, Some("tag".to_owned())), (2, None)];
        assert_eq!(stored.sources, sources);
        assert_eq!(stored.columns.field(2).name(), "class");
        assert_eq!(table.field(3).data_type(), &DataType::Int64);
        assert_eq!(binary, ["image"]);
    }
}
