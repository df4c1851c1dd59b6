//! Which columns of a file are meant by the names of a schema.
//!
//! The rule: the blob must be there and hold bytes; what `[scan.columns]` names must be there and fit; all else may be
//! absent, and a column that merely bears the name of one of ours is left as the file has it.
use std::collections::BTreeMap;

use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema};

use super::{Column, Role, Schema, alike};
use crate::error::{Error, Result, Stage};

/// Field of a struct that holds the bytes, and the one beside it that names a file, as Hugging Face's `Image` has them.
pub const BYTES_FIELD: &str = "bytes";
/// See [`BYTES_FIELD`].
pub const PATH_FIELD: &str = "path";
/// Column that is made while reading.
const MADE_WHILE_READING: &str = "sample_id";

/// Where a column is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFile {
    /// Name of the file's column.
    pub root: String,
    /// Field of it, where the column is a struct and one field is meant.
    pub field: Option<String>,
    /// The file's type: of the field, where one is meant.
    pub data_type: DataType,
}

impl InFile {
    /// Where the bytes of a blob are: the field `bytes` of a struct.
    pub fn bytes(&self) -> Self {
        match &self.data_type {
            DataType::Struct(fields) if self.field.is_none() => match fields.find(BYTES_FIELD) {
                Some((_, field)) => Self {
                    root: self.root.clone(),
                    field: Some(BYTES_FIELD.to_owned()),
                    data_type: field.data_type().clone(),
                },
                None => self.clone(),
            },
            _ => self.clone(),
        }
    }

    /// The names from the file's column down.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.root.as_str()).chain(self.field.as_deref())
    }
}

/// The columns of one file by the names that SQL has for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnsInFile {
    by_name: BTreeMap<String, InFile>,
    /// The file's columns that SQL cannot see, since another is meant by their name.
    pub hidden: Vec<String>,
    /// Columns of the schema that the file lacks, and what could be meant by them.
    absent: BTreeMap<String, String>,
}

impl ColumnsInFile {
    /// Where the column is that SQL calls `name`.
    pub fn get(&self, name: &str) -> Option<&InFile> {
        self.by_name.get(name)
    }

    /// What to write where the file lacks a column of the schema.
    pub fn remedy(&self, name: &str) -> Option<&str> {
        self.absent.get(name).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &InFile)> {
        self.by_name.iter().map(|(name, place)| (name.as_str(), place))
    }
}

impl Schema {
    /// Finds the columns in the file `place`, whose columns are `file`.
    ///
    /// # Errors
    /// What must be there and is not, or cannot be what it must be: all at once, with the columns that could be meant.
    pub fn columns_in(&self, file: &ArrowSchema, place: &str) -> Result<ColumnsInFile> {
        let mut problems = Vec::new();
        let mut found = ColumnsInFile::default();
        for column in self.stored() {
            let wanted = column.mapped_to.as_deref().unwrap_or(&column.name);
            match find(file, wanted) {
                Some(place) if column.role == Role::Blob || column.mapped_to.is_some() => {
                    if column.fits(&place.bytes().data_type) {
                        found.by_name.insert(column.name.clone(), place);
                    } else {
                        let is = place.data_type.to_string().to_lowercase();
                        let problem = format!("column {wanted:?} is {is} and cannot be {:?}", column.name);
                        problems.push(format!("{problem}; {}", column.remedy(file)));
                    }
                }
                Some(place) => {
                    found.by_name.insert(column.name.clone(), place);
                }
                None if column.mapped_to.is_some() => {
                    let names = file.fields().iter().map(|field| field.name().as_str());
                    let meant = alike(wanted, names).map(|name| format!(" (did you mean {name:?}?)"));
                    let meant = meant.unwrap_or_default();
                    problems.push(format!("no column {wanted:?}{meant}; {}", column.remedy(file)));
                }
                None if column.role == Role::Blob => {
                    problems.push(format!("no column {wanted:?} ({}); {}", column.doc, column.remedy(file)));
                }
                None => {
                    found.absent.insert(column.name.clone(), column.remedy(file));
                }
            }
        }
        if !problems.is_empty() {
            let reason = format!("is no {self}: {}", problems.join("\n  "));
            return Err(Error::at(Stage::Schema, place, reason));
        }
        let mapped: Vec<&str> = self.stored().filter_map(|column| column.mapped_to.as_deref()).collect();
        for field in file.fields() {
            let name = field.name();
            if name == MADE_WHILE_READING {
                found.hidden.push(name.clone());
            } else if let Some(taken) = found.by_name.get(name) {
                if taken.root != *name {
                    found.hidden.push(name.clone());
                }
            } else if !mapped.contains(&name.as_str()) {
                let place = InFile { root: name.clone(), field: None, data_type: field.data_type().clone() };
                found.by_name.insert(name.clone(), place);
            }
        }
        Ok(found)
    }
}

impl Column {
    /// Whether values of that type can be this column's.
    fn fits(&self, found: &DataType) -> bool {
        match &self.data_type {
            DataType::BinaryView => is_binary(found),
            DataType::Utf8View => is_text(found) || is_binary(found),
            DataType::Utf8 => is_text(found) || (self.accepts_integers && (found.is_integer() || is_boolean(found))),
            DataType::List(_) => is_list_of_numbers(found),
            wanted if wanted.is_integer() => found.is_integer(),
            wanted if wanted.is_floating() => found.is_numeric(),
            wanted => wanted == found,
        }
    }

    /// The lines that could be written, or what kind of column would do.
    fn remedy(&self, file: &ArrowSchema) -> String {
        let candidates: Vec<String> = file.fields().iter().flat_map(|field| self.candidates(field)).collect();
        let kind = match (&self.data_type, self.accepts_integers) {
            (DataType::BinaryView, _) => "binary or struct<bytes, path>".to_owned(),
            (DataType::List(_), _) => "lists of numbers".to_owned(),
            (DataType::Utf8View, _) => "text".to_owned(),
            (DataType::Utf8, true) => "text or whole numbers".to_owned(),
            (DataType::Utf8, false) => "text".to_owned(),
            (other, _) => other.to_string().to_lowercase(),
        };
        match candidates.split_first() {
            None => format!("it has no column of {kind} that could be it"),
            Some((first, rest)) => {
                let others = match rest {
                    [] => String::new(),
                    _ => format!(" (or {})", rest.join(", ")),
                };
                format!("write under [scan.columns], or as --column of sql and lint: {} = {first}{others}", self.name)
            }
        }
    }

    /// Names, quoted, under which values for this column could be in a file's column.
    fn candidates(&self, field: &Field) -> Vec<String> {
        let quoted = |name: &str| format!("{name:?}");
        match field.data_type() {
            data_type if self.fits(data_type) => vec![quoted(field.name())],
            DataType::Struct(fields) if self.role == Role::Blob => {
                let fits = |name: &str| fields.find(name).is_some_and(|(_, field)| self.fits(field.data_type()));
                if fits(BYTES_FIELD) {
                    return vec![quoted(field.name())];
                }
                let nested = fields.iter().filter(|inner| self.fits(inner.data_type()));
                nested.map(|inner| quoted(&format!("{}.{}", field.name(), inner.name()))).collect()
            }
            _ => vec![],
        }
    }
}

/// A column of that name, dots included; else the field behind the first dot.
fn find(file: &ArrowSchema, path: &str) -> Option<InFile> {
    if let Ok(field) = file.field_with_name(path) {
        return Some(InFile { root: path.to_owned(), field: None, data_type: field.data_type().clone() });
    }
    let (root, inner) = path.split_once('.')?;
    let DataType::Struct(fields) = file.field_with_name(root).ok()?.data_type() else { return None };
    let (_, field) = fields.find(inner)?;
    Some(InFile { root: root.to_owned(), field: Some(inner.to_owned()), data_type: field.data_type().clone() })
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_list_of_numbers(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().is_numeric()
        }
        _ => false,
    }
}

/// Whether values of this type are text, in whatever layout.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_boolean(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Boolean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(names: &[(&str, &str)]) -> Schema {
        let names = names.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Schema::named("image_text").unwrap().with_names_in_files(&names).unwrap()
    }

    fn hugging_face(name: &str) -> Field {
        let fields = vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)];
        Field::new(name, DataType::Struct(fields.into()), true)
    }

    fn file(fields: Vec<Field>) -> ArrowSchema {
        ArrowSchema::new(fields)
    }

    #[test]
    fn what_import_writes_is_found_under_its_own_names() {
        let schema = schema(&[]);
        let found = schema.columns_in(&schema.arrow_schema(), "a.parquet").unwrap();
        assert!(schema.stored().all(|column| found.get(&column.name).unwrap().root == column.name));
        assert!(found.hidden.is_empty());
    }

    #[test]
    fn a_file_needs_the_blob_and_nothing_else() {
        let found = schema(&[]).columns_in(&file(vec![hugging_face("image")]), "a.parquet").unwrap();
        let image = found.get("image").unwrap();
        assert_eq!(image.bytes().parts().collect::<Vec<_>>(), ["image", "bytes"]);
        assert!(found.get("width").is_none());
        let class = file(vec![hugging_face("image"), Field::new("class", DataType::Int64, true)]);
        let found = schema(&[]).columns_in(&class, "a.parquet").unwrap();
        assert_eq!(
            found.remedy("label"),
            Some("write under [scan.columns], or as --column of sql and lint: label = \"class\"")
        );
    }

    #[test]
    fn a_series_is_any_list_of_numbers() {
        let list = |name: &str, numbers: DataType| {
            Field::new(name, DataType::List(Field::new("item", numbers, true).into()), true)
        };
        let schema = Schema::named("time_series").unwrap();
        for numbers in [DataType::Float32, DataType::Int16, DataType::Float64] {
            let found = schema.columns_in(&file(vec![list("samples", numbers.clone())]), "a.parquet").unwrap();
            assert_eq!(found.get("samples").unwrap().root, "samples", "{numbers}");
        }
        let columns = file(vec![list("samples", DataType::Utf8), list("audio", DataType::Float32)]);
        let text = schema.columns_in(&columns, "a.parquet").unwrap_err().to_string();
        assert!(text.contains("samples = \"audio\""), "{text}");
        let none = schema.columns_in(&file(vec![Field::new("n", DataType::Int64, true)]), "a").unwrap_err();
        assert!(none.to_string().contains("no column of lists of numbers"), "{none}");
    }

    #[test]
    fn a_missing_blob_comes_with_the_lines_that_could_be_meant() {
        let nested = Field::new("raw", DataType::Struct(vec![Field::new("jpg", DataType::Binary, true)].into()), true);
        let columns = file(vec![
            Field::new("jpg", DataType::LargeBinary, true),
            hugging_face("picture"),
            nested,
            Field::new("TEXT", DataType::Utf8, true),
        ]);
        let text = schema(&[]).columns_in(&columns, "a.parquet").unwrap_err().to_string();
        let expected =
            "write under [scan.columns], or as --column of sql and lint: image = \"jpg\" (or \"picture\", \"raw.jpg\")";
        assert!(text.starts_with("schema: a.parquet: is no image_text v1: no column \"image\""), "{text}");
        assert!(text.contains(expected), "{text}");
        let none = schema(&[]).columns_in(&file(vec![Field::new("n", DataType::Int64, true)]), "a").unwrap_err();
        assert!(none.to_string().contains("no column of binary or struct<bytes, path>"), "{none}");
    }

    #[test]
    fn what_is_mapped_must_be_there_and_fit() {
        let columns = file(vec![
            Field::new("jpg", DataType::Binary, true),
            Field::new("TEXT", DataType::Utf8, true),
            Field::new("score", DataType::Float64, true),
            Field::new("class", DataType::Int64, true),
        ]);
        let wrong = schema(&[("image", "TEXT"), ("caption", "TXT"), ("label", "score")]);
        let text = wrong.columns_in(&columns, "a.parquet").unwrap_err().to_string();
        for part in [
            "column \"TEXT\" is utf8 and cannot be \"image\"; write under [scan.columns], or as --column of sql and lint: image = \"jpg\"",
            "no column \"TXT\" (did you mean \"TEXT\"?); write under [scan.columns], or as --column of sql and lint: caption = \"TEXT\"",
            "column \"score\" is float64 and cannot be \"label\"; write under [scan.columns], or as --column of sql and lint: label = \"TEXT\" (or \"class\")",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let right = schema(&[("image", "jpg"), ("caption", "TEXT"), ("label", "class")]);
        let found = right.columns_in(&columns, "a.parquet").unwrap();
        assert_eq!(found.get("label").unwrap().data_type, DataType::Int64);
        assert!(found.get("TEXT").is_none() && found.get("score").is_some());
    }

    #[test]
    fn columns_whose_name_another_has_taken_are_hidden() {
        let columns = file(vec![
            Field::new("image", DataType::Utf8, true),
            Field::new("jpg", DataType::Binary, true),
            Field::new("sample_id", DataType::Utf8, true),
        ]);
        let found = schema(&[("image", "jpg")]).columns_in(&columns, "a.parquet").unwrap();
        assert_eq!(found.hidden, ["image", "sample_id"]);
        assert_eq!(found.get("image").unwrap().root, "jpg");
    }

    #[test]
    fn fields_of_structs_and_names_with_dots_are_found() {
        let meta = Field::new("meta", DataType::Struct(vec![Field::new("text", DataType::Utf8, true)].into()), true);
        let columns = file(vec![hugging_face("image"), meta, Field::new("a.b", DataType::Utf8, true)]);
        let found = schema(&[("image", "image.bytes"), ("caption", "meta.text"), ("label", "a.b")])
            .columns_in(&columns, "a.parquet")
            .unwrap();
        let parts = |name: &str| found.get(name).unwrap().parts().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parts("image"), ["image", "bytes"]);
        assert_eq!(parts("caption"), ["meta", "text"]);
        assert_eq!(parts("label"), ["a.b"]);
        assert_eq!(parts("meta"), ["meta"]);
    }
}
