//! Folders in Hugging Face's `imagefolder` and `audiofolder` layout: a `metadata.csv`, `.jsonl` or `.parquet` whose `file_name` lies below it.
//!
//! `caption` (or, where there is none, `text`), `label` and `split` go to the schema's columns; a row without a split has
//! that of its first folder (`train/…`). Further columns of plain types are carried into the shards under their own names.
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, new_null_array};
use datafusion::arrow::compute::{cast, concat, take};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};

use super::class_folders::{source_name, split_of};
use super::columns::{ColumnName, Filled, find};
use super::metadata_table::{self, TEXT_COLUMNS, value};
use super::modality::Modality;
use super::source::{Place, Source};
use super::split_name;
use super::start_times;
use super::walk::Listed;
use crate::error::{Context, Error, Result, Stage};
use crate::schema::{Schema, alike};

/// How many mistakes of one kind an error spells out.
const SPELLED_OUT: usize = 5;

/// Rows of metadata tables with their images.
#[derive(Debug)]
pub(super) struct MetadataFolder {
    kind: &'static str,
    modality: Modality,
    root: PathBuf,
    /// One per row of the tables; an image with two captions is there twice.
    files: Vec<Listed>,
    captions: StringArray,
    labels: StringArray,
    splits: StringArray,
    groups: StringArray,
    start_times: Vec<Option<i64>>,
    further: BTreeMap<String, ArrayRef>,
    /// Images below the folder that no table lists.
    pub(super) unlisted: u64,
    /// Columns that are not carried, and why.
    pub(super) ignored_columns: Vec<String>,
}

impl MetadataFolder {
    /// Reads the tables at `paths` below `root` and finds the images they list.
    ///
    /// # Errors
    /// A table is damaged or has no `file_name`; a name is missing, leads out of the table's folder, or is not there.
    pub(super) fn new(
        root: &Path,
        paths: &[PathBuf],
        images: &[Listed],
        columns: &[ColumnName],
        modality: Modality,
    ) -> Result<Self> {
        let series_columns: &[&str] = if modality == Modality::Image { &[] } else { &["group"] };
        let text_columns: Vec<&str> = TEXT_COLUMNS
            .into_iter()
            .chain(series_columns.iter().copied())
            .chain(columns.iter().map(|column| column.name.as_str()))
            .collect();
        let (mut tables, mut files, mut ignored) = (vec![], vec![], vec![]);
        for path in paths {
            let place = root.join(path).display().to_string();
            let mut table = metadata_table::read(&root.join(path), &text_columns)?;
            for filled in Filled::ALL {
                let schema = table.batch.schema();
                let present: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                if let Some(given) = find(columns, filled, &[], &present, &place)? {
                    let name = if filled == Filled::Image { "file_name" } else { filled.name() };
                    table.rename(given, name, &place)?;
                }
            }
            files.extend(files_of(root, path, &table.batch)?);
            ignored.extend(table.ignored.into_iter().map(|why| format!("{}: {why}", path.display())));
            tables.push(table.batch);
        }
        let files = with_sizes(root, files)?;
        let listed: HashSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
        let unlisted = images.iter().filter(|image| !listed.contains(image.path.as_path())).count() as u64;
        let splits = files.iter().map(|file| split_of(&file.path)).collect();
        let place = ("metadata_folder", modality, root);
        Ok(Self { unlisted, ..Self::from_rows(place, files, splits, &tables, ignored)? })
    }

    /// From tables whose rows are `files`, one each; `splits` are for rows that have none of their own.
    ///
    /// # Errors
    /// Columns of one name do not go together.
    pub(super) fn from_rows(
        (kind, modality, root): (&'static str, Modality, &Path),
        files: Vec<Listed>,
        splits: Vec<Option<String>>,
        tables: &[RecordBatch],
        ignored_columns: Vec<String>,
    ) -> Result<Self> {
        let text =
            |name: &str| Ok::<_, Error>(stacked(tables, name, Some(&DataType::Utf8))?.as_string::<i32>().clone());
        let has_caption = tables.iter().any(|table| table.column_by_name("caption").is_some());
        let caption_column = if has_caption { "caption" } else { "text" };
        let own = text("split")?;
        let splits = splits.into_iter().zip(&own).map(|(other, own)| own.map(str::to_owned).or(other)).collect();
        let start_times = match modality {
            Modality::Image | Modality::Text => vec![],
            _ => start_times::of_column(&stacked(tables, "start_time", None)?)?,
        };
        let mut found = Self {
            kind,
            modality,
            groups: text("group")?,
            start_times,
            root: root.to_owned(),
            splits,
            captions: text(caption_column)?,
            labels: text("label")?,
            further: BTreeMap::new(),
            unlisted: 0,
            ignored_columns,
            files,
        };
        found.gather_further(tables, caption_column)?;
        Ok(found)
    }

    fn gather_further(&mut self, tables: &[RecordBatch], caption_column: &str) -> Result<()> {
        let schema = Schema::named(self.modality.schema())?;
        let is_taken = |name: &str| match self.modality {
            Modality::Image => ["file_name", "label", "split", caption_column].contains(&name),
            Modality::Text => ["file_name", "label", "split", "group"].contains(&name),
            _ => ["file_name", "label", "split", "group", "start_time"].contains(&name),
        };
        let mut names: Vec<String> =
            tables.iter().flat_map(|table| table.schema_ref().fields().iter().map(|f| f.name().clone())).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if is_taken(&name) {
                continue;
            }
            if schema.column(&name).is_ok() {
                self.ignored_columns.push(format!("{name}: import makes this column itself"));
                continue;
            }
            self.further.insert(name.clone(), stacked(tables, &name, None)?);
        }
        Ok(())
    }
}

/// One column of all tables below each other: null where a table lacks it, text where the tables disagree on its type.
fn stacked(tables: &[RecordBatch], name: &str, wanted: Option<&DataType>) -> Result<ArrayRef> {
    let mut types = tables.iter().filter_map(|table| table.column_by_name(name)).map(|column| column.data_type());
    let first = types.next().unwrap_or(&DataType::Utf8);
    let agreed = if types.all(|other| other == first) { first } else { &DataType::Utf8 };
    let wanted = wanted.unwrap_or(agreed);
    let cannot = || format!("column {name:?} cannot be {wanted}");
    let mut parts = Vec::with_capacity(tables.len());
    for table in tables {
        parts.push(match table.column_by_name(name) {
            Some(column) => cast(column, wanted).context(Stage::Import, "metadata", cannot())?,
            None => new_null_array(wanted, table.num_rows()),
        });
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    if parts.is_empty() {
        return Ok(new_null_array(wanted, 0));
    }
    concat(&parts).context(Stage::Import, "metadata", cannot())
}

/// Paths of one table's rows below `root`, checked to stay below the table's folder.
fn files_of(root: &Path, table_path: &Path, batch: &RecordBatch) -> Result<Vec<PathBuf>> {
    let place = root.join(table_path).display().to_string();
    let Some(names) = batch.column_by_name("file_name") else {
        let schema = batch.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let remedy = alike("file_name", names).map(|meant| format!("rename {meant:?}?"));
        let remedy = remedy.unwrap_or_else(|| "add it, with each image's path relative to this table".to_owned());
        return Err(Error::at(Stage::Import, place, format!("has no column \"file_name\"; {remedy}")));
    };
    let folder = table_path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::with_capacity(batch.num_rows());
    let mut wrong = Vec::new();
    for (row, name) in names.as_string::<i32>().iter().enumerate() {
        match name {
            Some(name) if stays_below(Path::new(name)) => files.push(folder.join(clean(Path::new(name)))),
            Some(name) => wrong.push(format!("row {row}: {name:?} leads out of the folder")),
            None => wrong.push(format!("row {row} has no file_name")),
        }
    }
    if wrong.is_empty() { Ok(files) } else { Err(Error::at(Stage::Import, place, first_few(&wrong))) }
}

/// Judged by the name alone; links that the owner of the folder laid are followed like everywhere else.
fn stays_below(path: &Path) -> bool {
    let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    path.components().all(is_inside) && path.file_name().is_some() && !path.as_os_str().as_encoded_bytes().contains(&0)
}

fn clean(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn with_sizes(root: &Path, paths: Vec<PathBuf>) -> Result<Vec<Listed>> {
    let mut files = Vec::with_capacity(paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        match std::fs::metadata(root.join(&path)) {
            Ok(metadata) if metadata.is_file() => files.push(Listed { path, bytes: metadata.len() }),
            Ok(_) => wrong.push(format!("{} is no file", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                wrong.push(format!("{} is not there", path.display()));
            }
            Err(error) => {
                let place = root.join(&path).display().to_string();
                return Err(error).context(Stage::Import, place, "cannot be looked at; check permissions");
            }
        }
    }
    if wrong.is_empty() {
        return Ok(files);
    }
    let reason =
        format!("metadata lists what it does not hold; correct the table or add the files:\n  {}", first_few(&wrong));
    Err(Error::at(Stage::Import, root.display().to_string(), reason))
}

fn first_few(wrong: &[String]) -> String {
    let mut text = wrong.iter().take(SPELLED_OUT).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    if wrong.len() > SPELLED_OUT {
        text.push_str(&format!("\n  and {} more", wrong.len() - SPELLED_OUT));
    }
    text
}

impl Source for MetadataFolder {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn modality(&self) -> Modality {
        self.modality
    }

    fn images(&self) -> usize {
        self.files.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        source_name(&self.files[image].path)
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        self.files[image].bytes
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        self.files[image].read(&self.root)
    }

    fn place(&self, image: usize) -> Option<Place> {
        Some(self.files[image].place(&self.root))
    }

    fn split(&self, image: usize) -> Option<&str> {
        value(&self.splits, image).map(split_name::stored)
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        value(&self.labels, image).map(Cow::Borrowed)
    }

    fn group(&self, image: usize) -> Option<&str> {
        value(&self.groups, image)
    }

    fn start_time(&self, image: usize) -> Option<i64> {
        self.start_times.get(image).copied().flatten()
    }

    fn caption(&self, image: usize) -> Option<&str> {
        value(&self.captions, image)
    }

    fn further_fields(&self) -> Vec<FieldRef> {
        self.further.iter().map(|(name, column)| Arc::new(Field::new(name, column.data_type().clone(), true))).collect()
    }

    fn further_columns(&self, images: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = UInt32Array::from(images.to_vec());
        let gather = |(name, column): (&String, &ArrayRef)| {
            take(column, &rows, None).context(Stage::Internal, name.as_str(), "rows cannot be gathered")
        };
        self.further.iter().map(gather).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    fn open(folder: &tempfile::TempDir, tables: &[&str]) -> Result<MetadataFolder> {
        let images = super::super::walk::walk(folder.path(), Path::new(""), &mut |_| Ok(())).unwrap().images;
        let tables: Vec<PathBuf> = tables.iter().map(PathBuf::from).collect();
        MetadataFolder::new(folder.path(), &tables, &images, &[], Modality::Image)
    }

    #[test]
    fn tables_of_several_splits_are_stacked() {
        let folder = folder(&[
            ("train/metadata.csv", "file_name,text,stars\n./a/1.png,one,5\na/1.png,uno,6\n"),
            ("train/a/1.png", "1"),
            ("train/a/2.png", "2"),
            ("test/metadata.jsonl", "{\"file_name\": \"3.png\", \"label\": 4, \"width\": 9, \"stars\": \"many\"}\n"),
            ("test/3.png", "333"),
        ]);
        let source = open(&folder, &["train/metadata.csv", "test/metadata.jsonl"]).unwrap();
        let all: Vec<_> = (0..3)
            .map(|i| (source.name(i), source.split(i), source.caption(i), source.label(i).map(Cow::into_owned)))
            .collect();
        assert_eq!(
            all,
            [
                ("train/a/1.png".into(), Some("train"), Some("one"), None),
                ("train/a/1.png".into(), Some("train"), Some("uno"), None),
                ("test/3.png".into(), Some("test"), None, Some("4".to_owned())),
            ]
        );
        assert_eq!(source.read(2).unwrap(), b"333");
        assert_eq!(source.unlisted, 1);
        assert_eq!(source.ignored_columns, ["width: import makes this column itself"]);
        let stars = source.further_columns(&[2, 0]).unwrap();
        assert_eq!(stars[0].as_string::<i32>(), &StringArray::from(vec!["many", "5"]));
        assert_eq!(source.further_fields()[0].name(), "stars");
    }

    #[test]
    fn a_split_column_wins_over_folders() {
        let folder = folder(&[
            (
                "metadata.csv",
                "file_name,split,caption,text\ntrain/1.png,held_out,c,t\ntrain/2.png,,,\ntrain/2.png,Test,,\n",
            ),
            ("train/1.png", "1"),
            ("train/2.png", "2"),
        ]);
        let source = open(&folder, &["metadata.csv"]).unwrap();
        assert_eq!((source.split(0), source.split(1)), (Some("held_out"), Some("train")));
        assert_eq!(source.split(2), Some("test"), "`Test` is no other split than `test`");
        assert_eq!(source.caption(0), Some("c"));
        assert_eq!(source.further_fields()[0].name(), "text");
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused_all_at_once() {
        let folder = folder(&[
            ("in/metadata.csv", "file_name,x\n../secret.png,1\n/etc/passwd,2\na/../../secret.png,3\n,4\n1.png,5\n"),
            ("in/1.png", "1"),
            ("secret.png", "s"),
        ]);
        let error = open(&folder, &["in/metadata.csv"]).unwrap_err().to_string();
        for part in
            ["row 0: \"../secret.png\" leads out", "row 1: \"/etc/passwd\"", "row 2: ", "row 3 has no file_name"]
        {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    #[test]
    fn listed_files_that_are_not_there_are_named() {
        let folder = folder(&[("metadata.csv", "file_name,x\na.png,1\nb,2\n"), ("b/c.png", "")]);
        let error = open(&folder, &["metadata.csv"]).unwrap_err().to_string();
        assert!(error.contains("a.png is not there") && error.contains("b is no file"), "{error}");
    }

    #[test]
    fn a_table_without_file_names_says_what_to_rename() {
        let folder = folder(&[("metadata.csv", "filename,x\na.png,1\n"), ("a.png", "")]);
        let error = open(&folder, &["metadata.csv"]).unwrap_err().to_string();
        assert!(error.contains("no column \"file_name\"; rename \"filename\"?"), "{error}");
    }
}
