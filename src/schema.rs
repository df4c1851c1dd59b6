//! What shards look like: Arrow columns as data, one file per schema under `schemas/`, embedded in the binary.
//!
//! Import writes all columns of a schema. Files of others are read where they are: `[scan.columns]` says which of their
//! columns is meant by which name, and [`in_files`] checks that each file has what must be there.
pub mod in_files;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use serde::Deserialize;

use crate::error::{Context, Error, Result, Stage};

/// Name and text of every schema in the binary.
const EMBEDDED: [(&str, &str); 3] = [
    ("image_text", include_str!("../schemas/image_text.toml")),
    ("time_series", include_str!("../schemas/time_series.toml")),
    ("documents", include_str!("../schemas/documents.toml")),
];

/// Names this alike are offered as "did you mean": finds a swapped or missing letter, not another word.
const ALIKE: f64 = 0.84;

/// Whether a column is read for SQL or only for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Small values with statistics: what SQL selects by.
    #[default]
    Narrow,
    /// Encoded images, samples or documents: read only for the rows that training asks for.
    Blob,
}

/// One column of a [`Schema`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As SQL writes it.
    pub name: String,
    /// In flight: encoded blobs are `BinaryView` and texts `Utf8View`, so that no buffer of a window meets Arrow's 2 GiB
    /// limit; series are lists, of f32 here and of other numbers in files.
    pub data_type: DataType,
    /// Whether a row may lack it.
    pub nullable: bool,
    /// Made while reading, never stored in a shard.
    pub is_virtual: bool,
    /// Blob or narrow.
    pub role: Role,
    /// Whether a text may also come as a number, such as a class's.
    pub accepts_integers: bool,
    /// What the files call it where `[scan.columns]` says so: a column, or `column.field` of a struct.
    pub mapped_to: Option<String>,
    /// One sentence.
    pub doc: String,
}

/// The declared columns of a kind of shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// As `schema = "…"` in a pipeline writes it.
    pub name: String,
    /// Raised with every change that old shards do not satisfy.
    pub version: u32,
    /// In the order in which shards store them.
    pub columns: Vec<Column>,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaAsWritten {
    name: String,
    version: u32,
    column: Vec<ColumnAsWritten>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnAsWritten {
    name: String,
    r#type: TypeAsWritten,
    #[serde(default)]
    nullable: bool,
    #[serde(default)]
    r#virtual: bool,
    #[serde(default)]
    role: Role,
    #[serde(default)]
    integers: bool,
    doc: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TypeAsWritten {
    Binary,
    Utf8,
    Boolean,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Float32,
    Float64,
    Timestamp,
    Series,
    Text,
}

/// Name of a list's values, as Parquet's specification has it.
pub const LIST_ELEMENT: &str = "element";

/// A list of numbers.
pub fn series_of(numbers: DataType) -> DataType {
    DataType::List(Arc::new(Field::new(LIST_ELEMENT, numbers, false)))
}

impl TypeAsWritten {
    fn resolve(self) -> DataType {
        match self {
            Self::Binary => DataType::BinaryView,
            Self::Utf8 => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Uint32 => DataType::UInt32,
            Self::Uint64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Series => series_of(DataType::Float32),
            Self::Text => DataType::Utf8View,
        }
    }
}

impl Schema {
    /// The embedded schema of that name.
    ///
    /// # Errors
    /// There is none; the error lists those there are.
    pub fn named(name: &str) -> Result<Self> {
        let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) else {
            let names = EMBEDDED.map(|(known, _)| known);
            let meant = alike(name, names).map(|n| format!(", did you mean {n:?}?")).unwrap_or_default();
            let reason = format!("no schema {name:?}{meant}; there are {}", names.join(", "));
            return Err(Error::at(Stage::Schema, "", reason));
        };
        Self::parse(text, &format!("schemas/{name}.toml"))
    }

    /// A schema from the text of a file under `schemas/`; `place` names it in errors.
    ///
    /// # Errors
    /// The text is no TOML, has unknown keys or types, or names a column twice.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let written: SchemaAsWritten =
            toml::from_str(text).context(Stage::Schema, place, "is no schema; correct what the cause points at")?;
        let mut names = BTreeSet::new();
        for column in &written.column {
            if !names.insert(column.name.clone()) {
                let reason = format!("column {:?} stands there twice; remove one", column.name);
                return Err(Error::at(Stage::Schema, place, reason));
            }
        }
        let columns = written.column.into_iter().map(|column| Column {
            name: column.name,
            data_type: column.r#type.resolve(),
            nullable: column.nullable,
            is_virtual: column.r#virtual,
            role: column.role,
            accepts_integers: column.integers,
            mapped_to: None,
            doc: column.doc,
        });
        Ok(Self { name: written.name, version: written.version, columns: columns.collect() })
    }

    /// The columns that shards store: all but the virtual ones.
    pub fn stored(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.is_virtual)
    }

    /// The stored columns as Arrow has them in flight.
    pub fn arrow_schema(&self) -> SchemaRef {
        let field = |c: &Column| Field::new(&c.name, c.data_type.clone(), c.nullable);
        Arc::new(ArrowSchema::new(self.stored().map(field).collect::<Vec<_>>()))
    }

    /// The column that training reads.
    ///
    /// # Errors
    /// Ours: every schema has one.
    pub fn blob(&self) -> Result<&Column> {
        let blob = self.stored().find(|column| column.role == Role::Blob);
        blob.ok_or_else(|| Error::internal(format!("{self} has no blob")))
    }

    /// The column of that name, virtual or stored.
    ///
    /// # Errors
    /// There is none: `no column "captoin" in image_text v1; did you mean "caption"?`
    pub fn column(&self, name: &str) -> Result<&Column> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let names = self.columns.iter().map(|column| column.name.as_str());
            let remedy = match alike(name, names.clone()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("there are {}", names.collect::<Vec<_>>().join(", ")),
            };
            Error::at(Stage::Schema, "", format!("no column {name:?} in {self}; {remedy}"))
        })
    }

    /// The same schema for files that call columns otherwise: `names` are their names by ours, as `[scan.columns]` has
    /// them.
    ///
    /// # Errors
    /// Names of ours that are none, all of them.
    pub fn with_names_in_files(mut self, names: &BTreeMap<String, String>) -> Result<Self> {
        let mut problems = Vec::new();
        for (ours, theirs) in names {
            match self.column(ours) {
                Err(Error::Stage { reason, .. }) => problems.push(reason),
                Err(other) => problems.push(other.to_string()),
                Ok(column) if column.is_virtual => {
                    problems.push(format!("column {ours:?} is made while reading; leave it out of [scan.columns]"));
                }
                Ok(_) if theirs.is_empty() => {
                    problems.push(format!("column {ours:?} is mapped to no name; name a column of the files"));
                }
                Ok(_) => {}
            }
        }
        if !problems.is_empty() {
            return Err(Error::at(Stage::Schema, "scan.columns", problems.join("\n  ")));
        }
        for column in &mut self.columns {
            column.mapped_to = names.get(&column.name).cloned();
        }
        Ok(self)
    }
}

/// The name most like `wanted`, if one is like it at all.
pub(crate) fn alike<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(wanted, name), name));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_text() -> Schema {
        Schema::named("image_text").unwrap()
    }

    #[test]
    fn image_text_has_the_columns_that_the_design_names() {
        let schema = image_text();
        let names: Vec<&str> = schema.stored().map(|c| c.name.as_str()).collect();
        let expected =
            ["image", "width", "height", "format", "caption", "label", "split", "source", "image_bytes", "image_xxh3"];
        assert_eq!(names, expected);
        assert!(schema.column("sample_id").unwrap().is_virtual);
        assert_eq!(schema.column("image").unwrap().role, Role::Blob);
        assert!(schema.arrow_schema().field_with_name("sample_id").is_err());
    }

    #[test]
    fn every_schema_has_one_blob_and_what_verifies_it() {
        for (name, _) in EMBEDDED {
            let schema = Schema::named(name).unwrap();
            let blob = &schema.blob().unwrap().name;
            assert_eq!(schema.stored().filter(|column| column.role == Role::Blob).count(), 1, "{name}");
            for suffix in ["bytes", "xxh3"] {
                assert_eq!(schema.column(&format!("{blob}_{suffix}")).unwrap().data_type, DataType::UInt64, "{name}");
            }
        }
        assert_eq!(Schema::named("time_series").unwrap().blob().unwrap().data_type, series_of(DataType::Float32));
    }

    #[test]
    fn names_in_files_are_for_stored_columns_alone() {
        let names = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let mapped = image_text().with_names_in_files(&names(&[("caption", "TEXT")])).unwrap();
        assert_eq!(mapped.column("caption").unwrap().mapped_to.as_deref(), Some("TEXT"));
        let wrong = names(&[("captoin", "TEXT"), ("sample_id", "id"), ("label", "")]);
        let text = image_text().with_names_in_files(&wrong).unwrap_err().to_string();
        for part in
            ["did you mean \"caption\"?", "\"sample_id\" is made while reading", "\"label\" is mapped to no name"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn unknown_names_come_with_a_suggestion() {
        let column = image_text().column("captoin").unwrap_err().to_string();
        assert_eq!(column, "schema: no column \"captoin\" in image_text v1; did you mean \"caption\"?");
        let schema = Schema::named("image_txet").unwrap_err().to_string();
        assert!(schema.contains("did you mean \"image_text\"?"), "{schema}");
        assert!(image_text().column("zzz").unwrap_err().to_string().contains("there are sample_id, image"));
    }

    #[test]
    fn unknown_keys_types_and_repeated_columns_are_refused() {
        let column = |rest: &str| format!("name = \"s\"\nversion = 1\n[[column]]\nname = \"a\"\ndoc = \"\"\n{rest}");
        assert!(Schema::parse(&column("type = \"utf8\""), "s").is_ok());
        assert!(Schema::parse(&column("type = \"utf9\""), "s").is_err());
        assert!(Schema::parse(&column("type = \"utf8\"\nnulable = true"), "s").is_err());
        let twice = column("type = \"utf8\"\n[[column]]\nname = \"a\"\ndoc = \"\"\ntype = \"utf8\"");
        assert!(Schema::parse(&twice, "s").unwrap_err().to_string().contains("twice"));
    }
}
