//! Tables with a document per row: `.csv`, `.tsv` and `.jsonl` with a column of text.
//!
//! Tables may be larger than memory, and rows are written in a random order: pass 1 reads them piece by piece and keeps the
//! texts in the [`Spool`], about 60 bytes per document stay in memory. Labels, splits and groups are kept once each.
use std::borrow::Cow;
use std::path::Path;

use datafusion::arrow::array::{AsArray as _, StringArray};

use super::Progress;
use super::class_folders::source_name;
use super::metadata_table::{MetadataTable, Pieces, value};
use super::modality::Modality;
use super::samples::Shared;
use super::source::Source;
use super::split_name::{self, split_of_file};
use super::spool::{Span, Spool};
use super::walk::Listed;
use crate::error::{Error, Result, Stage};

/// What columns of documents are called, in the order in which they are tried.
const TEXTS: [&str; 4] = ["text", "content", "body", "document"];
/// What goes to columns of the schema beside them.
const GIVEN: [&str; 3] = ["label", "split", "group"];

/// Rows in memory at once: a document may have half a gigabyte.
const PIECE_ROWS: usize = 16;
/// How often a long listing says how far it is.
const DOCUMENTS_PER_PROGRESS: u64 = 10_000;

/// Rows of tables.
#[derive(Debug)]
pub(super) struct DocumentTable {
    tables: Vec<Table>,
    documents: Vec<Document>,
    texts: Spool,
    words: Shared,
    /// Columns that are not carried, and why.
    pub(super) ignored_columns: Vec<String>,
}

#[derive(Debug)]
struct Table {
    name: String,
    split: Option<String>,
}

#[derive(Debug)]
struct Document {
    table: u32,
    row: u32,
    text: Span,
    /// In the order of [`GIVEN`].
    given: [Option<u32>; 3],
}

impl DocumentTable {
    /// Reads the tables `files` below `root`.
    ///
    /// # Errors
    /// A table cannot be read, or has no column of documents; the spool cannot be written; `progress` says stop.
    pub(super) fn open(
        root: &Path,
        files: &[Listed],
        texts: Spool,
        progress: &mut dyn FnMut(&Progress) -> Result<()>,
    ) -> Result<Self> {
        let mut found =
            Self { tables: vec![], documents: vec![], texts, words: Shared::default(), ignored_columns: vec![] };
        files.iter().try_for_each(|file| found.add(root, file, progress))?;
        found.texts.seal()?;
        Ok(found)
    }

    fn add(&mut self, root: &Path, file: &Listed, progress: &mut dyn FnMut(&Progress) -> Result<()>) -> Result<()> {
        let path = root.join(&file.path);
        let text_columns = [&TEXTS[..], &GIVEN].concat();
        let mut pieces = Pieces::open(&path, &text_columns, PIECE_ROWS)?;
        let schema = pieces.schema.clone();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let Some(text) = TEXTS.into_iter().find(|text| names.contains(text)) else {
            let reason = format!(
                "has no column of documents, which is called {}; rename one of {}",
                TEXTS.join(", "),
                names.join(", ")
            );
            return Err(Error::at(Stage::Import, path.display().to_string(), reason));
        };
        let name = source_name(&file.path).into_owned();
        let further = names.iter().filter(|other| **other != text && !GIVEN.contains(other));
        let further =
            further.map(|other| format!("{other} of {name}: documents have label, split and group beside text"));
        self.ignored_columns.extend(further);
        let table = self.tables.len() as u32;
        self.tables.push(Table { name, split: split_of_file(&file.path) });
        let mut row = 0;
        while let Some(MetadataTable { batch, .. }) = pieces.next_piece()? {
            let column = |name: &str| -> Option<StringArray> {
                Some(batch.column_by_name(name)?.as_string_opt::<i32>()?.clone())
            };
            let texts = column(text).ok_or_else(|| Error::internal("a column of documents that is no text"))?;
            let given = GIVEN.map(column);
            for at in 0..batch.num_rows() {
                let mut word = |words: &Option<StringArray>| Some(self.words.number(value(words.as_ref()?, at)?));
                let given = [word(&given[0]), word(&given[1]), word(&given[2])];
                let text = self.texts.append(value(&texts, at).unwrap_or_default().as_bytes())?;
                self.documents.push(Document { table, row, text, given });
                row += 1;
                let seen = self.documents.len() as u64;
                if seen.is_multiple_of(DOCUMENTS_PER_PROGRESS) {
                    progress(&Progress::Listing { files: seen })?;
                }
            }
        }
        Ok(())
    }

    fn given(&self, document: usize, column: usize) -> Option<&str> {
        self.documents[document].given[column].map(|number| self.words.text(number))
    }

    fn table(&self, document: usize) -> &Table {
        &self.tables[self.documents[document].table as usize]
    }
}

impl Source for DocumentTable {
    fn kind(&self) -> &'static str {
        "document_table"
    }

    fn modality(&self) -> Modality {
        Modality::Text
    }

    fn images(&self) -> usize {
        self.documents.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        format!("{}#{}", self.table(image).name, self.documents[image].row).into()
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        u64::from(self.documents[image].text.bytes)
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        self.texts.read(self.documents[image].text)
    }

    fn split(&self, image: usize) -> Option<&str> {
        self.given(image, 1).or(self.table(image).split.as_deref()).map(split_name::stored)
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
        let listed = Listed { path: name.into(), bytes: content.len() as u64 };
        DocumentTable::open(folder.path(), &[listed], Spool::new(folder.path())?, &mut |_| Ok(()))
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
    fn rows_of_all_pieces_are_numbered_on_and_keep_their_words() {
        let rows = 5 * PIECE_ROWS + 3;
        let line = |row: usize| format!("{{\"text\": \"Number {row}.\", \"label\": {}}}\n", row % 3);
        let table = open("a.jsonl", &(0..rows).map(line).collect::<String>()).unwrap();
        assert_eq!(table.images(), rows);
        for row in 0..rows {
            assert_eq!(table.read(row).unwrap(), format!("Number {row}.").as_bytes());
            assert_eq!(table.expected_bytes(row), table.read(row).unwrap().len() as u64);
            assert_eq!(
                (table.name(row), table.label(row)),
                (format!("a.jsonl#{row}").into(), Some((row % 3).to_string().into()))
            );
        }
        assert_eq!(open("none.csv", "text,label\n").unwrap().images(), 0);
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
