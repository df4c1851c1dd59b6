//! Tables of paths: CSV, TSV, JSON lines or Parquet with the path of one image file per row, its words and more.
//!
//! Paths are absolute, or relative to the table's folder, or `file://` URLs. Rows whose file is not there go to
//! quarantine. Other URLs are an error: Diptych does not download from the web.
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use datafusion::arrow::array::{Array, AsArray, BooleanArray, StringArray};
use datafusion::arrow::compute::filter_record_batch;

use super::Progress;
use super::class_folders::{source_name, split_of};
use super::columns::{ColumnName, Filled, NO_DOWNLOAD, find, has_urls};
use super::metadata_folder::MetadataFolder;
use super::metadata_table::{self, MetadataTable};
use super::modality::Modality;
use super::rows::Rejected;
use super::split_name::split_of_file;
use super::walk::{IMAGE_EXTENSIONS, Listed};
use crate::augment::{BadClass, BadSample};
use crate::error::{Context, Error, Result, Stage};

/// What columns of paths are called, in the order in which they are tried.
const USUAL_PATHS: [&str; 8] = ["file_name", "filepath", "path", "image", "file", "filename", "image_path", "img"];
/// Values by which a column is judged.
const VALUES_LOOKED_AT: usize = 10;
/// How often a long listing says how far it is.
const ROWS_PER_PROGRESS: u64 = 10_000;

/// Reads the tables at `paths` below `root` and looks at every file they list.
///
/// # Errors
/// A table is damaged, has no column of paths, or lists URLs; a file cannot be looked at; `progress` says stop.
pub(super) fn open(
    root: &Path,
    paths: &[Listed],
    columns: &[ColumnName],
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<(MetadataFolder, Vec<Rejected>)> {
    let (mut tables, mut files, mut splits) = (vec![], vec![], vec![]);
    let (mut rejected, mut ignored, mut seen) = (vec![], vec![], 0);
    for Listed { path, .. } in paths {
        let place = root.join(path).display().to_string();
        let table = read(&root.join(path), columns, &place)?;
        ignored.extend(table.ignored.into_iter().map(|why| format!("{}: {why}", path.display())));
        let table_split = split_of_file(path);
        let names = table.batch.column_by_name("file_name").map(|names| names.as_string::<i32>().clone());
        let names = names.ok_or_else(|| Error::internal("a table of paths without paths"))?;
        refuse_urls(&names, &place)?;
        let mut kept = Vec::with_capacity(names.len());
        for (row, name) in names.iter().enumerate() {
            seen += 1;
            if seen % ROWS_PER_PROGRESS == 0 {
                progress(&Progress::Listing { files: seen })?;
            }
            let looked_at = match name {
                Some(name) => look_at(root, path.parent().unwrap_or(Path::new("")), name)?,
                None => Err((format!("{}#{row}", path.display()), "its row has no path".to_owned())),
            };
            kept.push(looked_at.is_ok());
            match looked_at {
                Ok(file) => {
                    splits.push(table_split.clone().or_else(|| split_of(&file.path)));
                    files.push(file);
                }
                Err((source, message)) => {
                    rejected.push(Rejected { source, reason: BadSample { class: BadClass::Missing, message } });
                }
            }
        }
        let kept = filter_record_batch(&table.batch, &BooleanArray::from(kept));
        tables.push(kept.context(Stage::Internal, place, "rows cannot be left out")?);
    }
    let found = MetadataFolder::from_rows(("paths", Modality::Image, root), files, splits, &tables, ignored)?;
    Ok((found, rejected))
}

/// The table with its columns under the names that the schema and [`MetadataFolder`] have for them.
fn read(path: &Path, columns: &[ColumnName], place: &str) -> Result<MetadataTable> {
    let usual = [Filled::Caption, Filled::Label, Filled::Split].map(Filled::usual).concat();
    let named = columns.iter().map(|column| column.name.as_str());
    let text_columns: Vec<&str> = USUAL_PATHS.into_iter().chain(usual).chain(named).collect();
    let mut table = metadata_table::read(path, &text_columns)?;
    let schema = table.batch.schema();
    let present: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let Some(image) = find(columns, Filled::Image, &USUAL_PATHS, &present, place)? else {
        return Err(no_paths(&table, &present, place));
    };
    if table.batch.column_by_name(image).and_then(|column| column.as_string_opt::<i32>()).is_none() {
        let reason = format!("column {image:?} holds no paths; name another with --column image=NAME");
        return Err(Error::at(Stage::Import, place, reason));
    }
    let found = [Filled::Caption, Filled::Label, Filled::Split]
        .map(|filled| Ok::<_, Error>((filled, find(columns, filled, filled.usual(), &present, place)?)));
    table.rename(image, "file_name", place)?;
    for found in found {
        if let (filled, Some(name)) = found?
            && name != image
        {
            table.rename(name, filled.name(), place)?;
        }
    }
    Ok(table)
}

fn no_paths(table: &MetadataTable, present: &[&str], place: &str) -> Error {
    let usual = USUAL_PATHS.join(", ");
    let reason = if let Some(path) = present.iter().find(|name| looks_like_a_path(name)) {
        format!(
            "has no line with the names of its columns: the first one holds {path}; put one such as image,caption first"
        )
    } else if let [only] = present
        && let Some(delimiter) = [';', '|'].into_iter().find(|delimiter| only.contains(*delimiter))
    {
        format!("has its columns separated by {delimiter:?}; separate them by commas or tabs")
    } else if has_urls(present) {
        format!("lists URLs and no paths; {NO_DOWNLOAD}")
    } else if present.is_empty() {
        format!("has no columns; the first line names them, one of paths ({usual}) among them")
    } else {
        let remedy = match present.iter().find(|name| holds_paths(table, name)) {
            Some(meant) => format!("name the one that looks like it with --column image={meant}"),
            None => "name one with --column image=NAME, if it holds paths".to_owned(),
        };
        format!("has no column of paths ({usual}); there are {}: {remedy}", present.join(", "))
    };
    Error::at(Stage::Import, place, reason)
}

/// Whether the first values of a column are names of images.
fn holds_paths(table: &MetadataTable, name: &str) -> bool {
    let texts = table.batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    texts.is_some_and(|texts| {
        let mut first = texts.iter().flatten().take(VALUES_LOOKED_AT).peekable();
        first.peek().is_some() && first.all(looks_like_a_path)
    })
}

fn looks_like_a_path(text: &str) -> bool {
    let extension = Path::new(text).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()))
}

/// One is enough to see what the table is.
fn refuse_urls(names: &StringArray, place: &str) -> Result<()> {
    let is_url = |name: &str| !name.starts_with("file://") && name.contains("://");
    match names.iter().enumerate().find(|(_, name)| name.is_some_and(is_url)) {
        Some((row, name)) => {
            let shown: String = name.unwrap_or_default().chars().take(80).collect();
            Err(Error::at(Stage::Import, place, format!("row {row} is the URL {shown}; {NO_DOWNLOAD}")))
        }
        None => Ok(()),
    }
}

/// The file of a row; the inner error is its name and why it cannot be imported.
fn look_at(root: &Path, folder: &Path, name: &str) -> Result<std::result::Result<Listed, (String, String)>> {
    let path = match name.strip_prefix("file://") {
        Some(url) => match path_of_url(url) {
            Some(path) => path,
            None => return Ok(Err((name.to_owned(), "is a file URL of another machine or a damaged one".to_owned()))),
        },
        None => clean(&folder.join(name)),
    };
    let missing = |why: &str| Ok(Err((source_name(&path).into_owned(), why.to_owned())));
    match std::fs::metadata(root.join(&path)) {
        Ok(metadata) if metadata.is_file() => Ok(Ok(Listed { bytes: metadata.len(), path })),
        Ok(_) => missing("is no file"),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => missing("is not there"),
            ErrorKind::NotADirectory | ErrorKind::InvalidInput | ErrorKind::InvalidFilename => missing("is no path"),
            _ => Err(error).context(
                Stage::Import,
                root.join(&path).display().to_string(),
                "cannot be looked at; check permissions",
            ),
        },
    }
}

/// Without `./`, which says nothing; `..` stays, since a link may stand before it.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// What follows `file://`: no host or this one, then a path with `%20` and its kin.
fn path_of_url(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("localhost").unwrap_or(url);
    if !path.starts_with('/') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn opened(folder: &tempfile::TempDir, table: &str, columns: &[&str]) -> Result<(MetadataFolder, Vec<Rejected>)> {
        let columns: Vec<ColumnName> = columns.iter().map(|column| column.parse().unwrap()).collect();
        let table = Listed { path: PathBuf::from(table), bytes: 0 };
        open(folder.path(), &[table], &columns, &mut |_| Ok(()))
    }

    #[test]
    fn paths_are_relative_to_the_table_absolute_or_file_urls() {
        let folder = folder(&[("t/a b.png", "1"), ("c.png", "22")]);
        let absolute = folder.path().join("c.png").display().to_string();
        let table = format!(
            "filepath\ttitle\tscore\n./a b.png\tone, two\t0.5\n../c.png\t\t1\n{absolute}\tthree\t2\nfile://{absolute}\tfour\t3\n\
             file://{}/t/a%20b.png\tfive\t4\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("t/list.csv"), table).unwrap();
        let (source, rejected) = opened(&folder, "t/list.csv", &[]).unwrap();
        assert!(rejected.is_empty(), "{rejected:?}");
        let all: Vec<_> = (0..source.images()).map(|i| (source.read(i).unwrap(), source.caption(i))).collect();
        let (one, two) = (b"1".to_vec(), b"22".to_vec());
        let expected = [
            (one.clone(), Some("one, two")),
            (two.clone(), None),
            (two.clone(), Some("three")),
            (two, Some("four")),
            (one, Some("five")),
        ];
        assert_eq!(all, expected);
        assert_eq!((source.name(0), source.name(1)), ("t/a b.png".into(), "t/../c.png".into()));
        assert_eq!(source.further_fields()[0].name(), "score");
    }

    #[test]
    fn missing_files_have_a_reason_and_the_rest_is_kept_in_step() {
        let rows = "path,label\ngone.png,a\n,b\n1.png,c\nfolder,d\n1.png/x,e\nfile://elsewhere/x.png,f\n2.png,007\n";
        let folder = folder(&[("train.csv", rows), ("1.png", "1"), ("2.png", "2"), ("folder/x", "")]);
        let (source, rejected) = opened(&folder, "train.csv", &[]).unwrap();
        let labels: Vec<_> = (0..source.images()).map(|i| source.label(i).unwrap().into_owned()).collect();
        assert_eq!(labels, ["c", "007"]);
        assert_eq!(source.split(0), Some("train"));
        let rejected: Vec<String> = rejected.iter().map(|bad| format!("{}: {}", bad.source, bad.reason)).collect();
        assert_eq!(rejected.len(), 5, "{rejected:?}");
        assert_eq!(rejected[0], "gone.png: missing: is not there");
        assert_eq!(rejected[1], "train.csv#1: missing: its row has no path");
    }

    #[test]
    fn urls_are_refused_with_the_way_to_fetch_them() {
        let folder = folder(&[
            ("urls.csv", "image,caption\n1.png,a\nhttps://x.org/a.jpg,b\n"),
            ("only.csv", "URL,TEXT\nhttp://x.org/a.jpg,b\n"),
            ("none.jsonl", "{\"where\": \"1.png\", \"n\": 1}\n"),
            ("1.png", ""),
        ]);
        let error = |table: &str, columns: &[&str]| opened(&folder, table, columns).unwrap_err().to_string();
        let text = error("urls.csv", &[]);
        assert!(text.contains("row 1 is the URL https://x.org/a.jpg") && text.contains("img2dataset"), "{text}");
        assert!(error("only.csv", &[]).contains("does not download"));
        let text = error("none.jsonl", &[]);
        assert!(text.contains("no column of paths") && text.contains("there are "), "{text}");
        assert!(error("none.jsonl", &["image=were"]).contains("did you mean \"where\"?"));
        assert_eq!(opened(&folder, "none.jsonl", &["image=where"]).unwrap().0.images(), 1);
    }

    #[test]
    fn a_table_without_a_known_column_of_paths_gets_the_hint_that_fits() {
        let folder = folder(&[
            ("paths.jsonl", "{\"alt\": \"a cat\", \"where\": \"x/1.PNG\"}\n"),
            ("nohead.csv", "1.png,cat\n2.png,dog\n"),
            ("semi.csv", "image;caption\n1.png;cat\n"),
        ]);
        for (table, part) in [
            ("paths.jsonl", "--column image=where"),
            ("nohead.csv", "no line with the names of its columns: the first one holds 1.png"),
            ("semi.csv", "separated by ';'"),
        ] {
            let text = opened(&folder, table, &[]).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains(table), "{text}");
        }
    }

    #[test]
    fn urls_of_files_are_decoded_or_refused() {
        assert_eq!(path_of_url("/a%20b/%C3%A9.png"), Some(PathBuf::from("/a b/é.png")));
        assert_eq!(path_of_url("localhost/a"), Some(PathBuf::from("/a")));
        for wrong in ["host/a", "", "/a%2", "/a%zz", "/%+1", "/%ff"] {
            assert_eq!(path_of_url(wrong), None, "{wrong}");
        }
    }
}
