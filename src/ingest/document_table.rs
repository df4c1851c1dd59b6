//! Tables with a document per row: `.csv`, `.tsv` and `.jsonl` with a column of text.
//!
//! Tables are read whole: an import of them needs memory for all their texts.
use std::borrow::Cow;
use std::path::Path;

use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};

use super::class_folders::source_name;
use super::metadata_table;
use super::modality::Modality;
use super::source::Source;
use super::split_name::{self, split_of_file};
use super::walk::Listed;
use crate::error::{Error, Result, Stage};

/// What columns of documents are called, in the order in which they are tried.
const TEXTS: [&str; 4] = ["text", "content", "body", "document"];
/// What goes to columns of the schema beside them.
const GIVEN: [&str; 3] = ["label", "split", "group"];

/// Rows of tables.
#[derive(Debug)]
pub(super) struct DocumentTable {
    tables: Vec<Table>,
    /// Table and row of each document.
    rows: Vec<(u32, u32)>,
    /// Columns that are not carried, and why.
    pub(super) ignored_columns: Vec<String>,
}

#[derive(Debug)]
struct Table {
    name: String,
    texts: StringArray,
    /// In the order of [`GIVEN`].
    given: [Option<StringArray>; 3],
    split: Option<String>,
}

impl DocumentTable {
    /// Reads the tables `files` below `root`.
    ///
    /// # Errors
    /// A table cannot be read, or has no column of documents.
    pub(super) fn open(root: &Path, files: &[Listed]) -> Result<Self> {
        let mut found = Self { tables: vec![], rows: vec![], ignored_columns: vec![] };
        files.iter().try_for_each(|file| found.add(root, file))?;
        Ok(found)
    }

    fn add(&mut self, root: &Path, file: &Listed) -> Result<()> {
        let path = root.join(&file.path);
        let place = path.display().to_string();
        let read = metadata_table::read(&path, &[&TEXTS[..], &GIVEN].concat())?;
        let column = |name: &str| text_column(&read.batch, name);
        let Some((text, texts)) = TEXTS.iter().find_map(|name| Some((*name, column(name)?))) else {
            let schema = read.batch.schema();
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let reason = format!(
                "has no column of documents, which is called {}; rename one of {}",
                TEXTS.join(", "),
                names.join(", ")
            );
            return Err(Error::at(Stage::Import, place, reason));
        };
        let name = source_name(&file.path).into_owned();
        let is_taken = |other: &str| other == text || GIVEN.contains(&other);
        let further = read.batch.schema();
        let further = further.fields().iter().map(|field| field.name()).filter(|other| !is_taken(other));
        let further =
            further.map(|other| format!("{other} of {name}: documents have label, split and group beside text"));
        self.ignored_columns.extend(further);
        self.ignored_columns.extend(read.ignored.into_iter().map(|why| format!("{name}: {why}")));
        let number = self.tables.len() as u32;
        self.rows.extend((0..texts.len() as u32).map(|row| (number, row)));
        self.tables.push(Table { name, texts, given: GIVEN.map(column), split: split_of_file(&file.path) });
        Ok(())
    }

    fn given(&self, document: usize, column: usize) -> Option<&str> {
        let (table, row) = self.rows[document];
        metadata_table::value(self.tables[table as usize].given[column].as_ref()?, row as usize)
    }

    fn text(&self, document: usize) -> &str {
        let (table, row) = self.rows[document];
        metadata_table::value(&self.tables[table as usize].texts, row as usize).unwrap_or_default()
    }
}

fn text_column(batch: &RecordBatch, name: &str) -> Option<StringArray> {
    Some(batch.column_by_name(name)?.as_string_opt::<i32>()?.clone())
}

impl Source for DocumentTable {
    fn kind(&self) -> &'static str {
        "document_table"
    }

    fn modality(&self) -> Modality {
        Modality::Text
    }

    fn images(&self) -> usize {
        self.rows.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        let (table, row) = self.rows[image];
        format!("{}#{row}", self.tables[table as usize].name).into()
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        self.text(image).len() as u64
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        Ok(self.text(image).as_bytes().to_vec())
    }

    fn split(&self, image: usize) -> Option<&str> {
        let own = self.given(image, 1);
        own.or(self.tables[self.rows[image].0 as usize].split.as_deref()).map(split_name::stored)
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        self.given(image, 0).map(Cow::Borrowed)
    }

    fn group(&self, image: usize) -> Option<&str> {
        self.given(image, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, content: &str) -> Result<DocumentTable> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        DocumentTable::open(folder.path(), &[Listed { path: name.into(), bytes: content.len() as u64 }])
    }

    #[test]
    fn rows_are_documents_with_their_words() {
        let lines = "{\"body\": \"One. Two.\", \"label\": 3, \"group\": \"anna\", \"stars\": 5}\n{\"body\": null}\n";
        let table = open("news_test.jsonl", lines).unwrap();
        assert_eq!((table.images(), table.modality()), (2, Modality::Text));
        assert_eq!(table.read(0).unwrap(), b"One. Two.");
        assert!(table.read(1).unwrap().is_empty() && table.label(1).is_none());
        assert_eq!((table.label(0).unwrap(), table.group(0)), ("3".into(), Some("anna")));
        assert_eq!((table.split(1), table.name(1)), (Some("test"), "news_test.jsonl#1".into()));
        assert!(table.ignored_columns[0].starts_with("stars of news_test.jsonl"), "{:?}", table.ignored_columns);
    }

    #[test]
    fn a_split_column_wins_and_a_table_without_documents_says_what_it_has() {
        let table = open("train.csv", "text,split\n\"One.\nTwo.\",held_out\nThree.,\nFour.,Dev\n").unwrap();
        assert_eq!((table.split(1), table.split(2)), (Some("train"), Some("validation")));
        assert_eq!((table.split(0), table.read(0).unwrap()), (Some("held_out"), b"One.\nTwo.".to_vec()));
        let error = open("a.csv", "title,words\na,b\n").unwrap_err().to_string();
        assert!(error.contains("rename one of title, words"), "{error}");
    }
}
