//! Tables beside `shards`: scores, captions, lists of what to leave out.
//!
//! ```toml
//! [scan.tables]
//! scores = "scores/*.parquet"     # .parquet .csv .tsv .json .jsonl .arrow
//! ```
//!
//! The hash of their content goes into the provenance of a selection: other scores are told from the same scores.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::execution::options::{ArrowReadOptions, CsvReadOptions, JsonReadOptions};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde::{Deserialize, Serialize};

use super::glob::{Glob, is_glob};
use super::session::SHARDS_TABLE;
use crate::error::{Context, Error, Result, Stage};

/// What a table may be stored as.
const FORMATS: [&str; 7] = ["parquet", "csv", "tsv", "json", "jsonl", "ndjson", "arrow"];

/// A table as a selection remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableProvenance {
    /// As SQL names it.
    pub name: String,
    /// Its files, in the order of their names.
    pub files: Vec<String>,
    /// BLAKE3 over the contents of all files, hexadecimal.
    pub blake3: String,
}

/// Tables by name, found and hashed.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use diptych::select::tables::Tables;
/// # fn main() -> diptych::Result<()> {
/// let folder = tempfile::tempdir().expect("a folder");
/// let scores = folder.path().join("scores.csv");
/// std::fs::write(&scores, "source,score\na.png,0.5\n").expect("a file");
/// let tables = Tables::open(&BTreeMap::from([("scores".to_owned(), scores.display().to_string())]))?;
/// assert_eq!(tables.provenance()[0].name, "scores");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Tables {
    tables: Vec<(TableProvenance, Vec<PathBuf>)>,
}

impl Tables {
    /// No tables.
    pub fn none() -> Self {
        Self::default()
    }

    /// Finds the files of every table and hashes them.
    ///
    /// # Errors
    /// All at once: names that SQL could not use, patterns that match no file, formats that are not read.
    pub fn open(named: &BTreeMap<String, String>) -> Result<Self> {
        let mut tables = Vec::new();
        let mut problems = Vec::new();
        let mut stage = Stage::Select;
        for (name, pattern) in named {
            let checked = check_name(name);
            if checked.is_err() {
                // Whatever is on the disk.
                stage = Stage::CommandLine;
            }
            match checked.and_then(|()| locate(pattern)) {
                Ok(paths) => tables.push((name, paths)),
                Err(problem) => problems.push(format!("table {name:?}: {problem}")),
            }
        }
        if !problems.is_empty() {
            return Err(Error::at(stage, "", problems.join("\n  ")));
        }
        let hashed = tables.into_iter().map(|(name, paths)| {
            let files = paths.iter().map(|path| path.display().to_string()).collect();
            Ok((TableProvenance { name: name.clone(), files, blake3: hash(&paths)? }, paths))
        });
        Ok(Self { tables: hashed.collect::<Result<_>>()? })
    }

    /// What a selection remembers of them.
    pub fn provenance(&self) -> Vec<TableProvenance> {
        self.tables.iter().map(|(provenance, _)| provenance.clone()).collect()
    }

    /// Makes them known to a session.
    ///
    /// # Errors
    /// A file is not what its ending says, or the files of a table differ in their columns.
    pub async fn register(&self, context: &SessionContext) -> Result<()> {
        for (TableProvenance { name, .. }, paths) in &self.tables {
            let mut first: Option<(&PathBuf, SchemaRef)> = None;
            for path in paths {
                let frame = read(context, std::slice::from_ref(path)).await?;
                let schema: ArrowSchema = frame.schema().as_arrow().clone();
                match &first {
                    None => first = Some((path, schema.into())),
                    Some((of, known)) => check_same(path, &schema, of, known)?,
                }
            }
            let table = read(context, paths).await?.into_view();
            let place = name.as_str();
            context.register_table(TableReference::bare(place), table).context(Stage::Select, place, "is no table")?;
        }
        Ok(())
    }
}

/// Whether SQL can name a table so without quotes.
///
/// # Errors
/// Why not.
pub fn check_name(name: &str) -> Result<(), String> {
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|first| first.is_ascii_lowercase() || first == '_');
    if !begins || !letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_') {
        return Err("SQL would need quotes for this name; use a-z, 0-9 and _".into());
    }
    if name == SHARDS_TABLE {
        return Err(format!("`{SHARDS_TABLE}` is the table of the samples; choose another name"));
    }
    Ok(())
}

fn locate(pattern: &str) -> Result<Vec<PathBuf>, String> {
    if pattern.contains("://") {
        return Err(format!("`{pattern}` is a URL; tables are local files"));
    }
    let path = Path::new(pattern);
    let mut paths = match path.is_file() || !is_glob(pattern) {
        true => vec![path.to_owned()],
        false => files_matching(path)?,
    };
    paths.sort();
    if paths.is_empty() || !paths.iter().all(|path| path.is_file()) {
        return Err(format!("`{pattern}` matches no file; name a file or a glob"));
    }
    let endings: Vec<&str> = paths.iter().map(|path| ending(path)).collect();
    match endings.iter().find(|ending| !FORMATS.contains(ending) || **ending != endings[0]) {
        None => Ok(paths),
        Some(other) if FORMATS.contains(other) => Err(format!("`{pattern}` mixes .{} and .{other}", endings[0])),
        Some(other) => Err(format!("`{pattern}` ends in `{other}`; read are .{}", FORMATS.join(" ."))),
    }
}

/// Files whose names match; a table lies in one folder.
fn files_matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let told = || format!("`{}`", pattern.display());
    let name = pattern.file_name().and_then(|name| name.to_str()).ok_or_else(|| format!("{} names no file", told()))?;
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.to_str().is_none_or(is_glob) && !folder.is_dir() {
        return Err(format!("{} has a wildcard in a folder; tables have them in names of files alone", told()));
    }
    let glob = Glob::new(name);
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    let is_match = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| !name.starts_with('.') && glob.matches(&[name]))
    };
    Ok(files.filter(|path| path.is_file() && is_match(path)).collect())
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or("")
}

fn hash(paths: &[PathBuf]) -> Result<String> {
    let mut all = blake3::Hasher::new();
    for path in paths {
        let place = path.display().to_string();
        let mut hasher = blake3::Hasher::new();
        let file = File::open(path).context(Stage::Select, &place, "cannot read this table")?;
        hasher.update_reader(file).context(Stage::Select, &place, "cannot read this table")?;
        all.update(hasher.finalize().as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

fn check_same(path: &Path, schema: &ArrowSchema, first: &Path, known: &ArrowSchema) -> Result<()> {
    let words = |schema: &ArrowSchema| -> Vec<String> {
        schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
    };
    let (found, wanted) = (words(schema), words(known));
    if found == wanted {
        return Ok(());
    }
    let reason = format!(
        "has the columns {}, and {} has {}; give the files of a table the same columns",
        found.join(", "),
        first.display(),
        wanted.join(", ")
    );
    Err(Error::at(Stage::Select, path.display().to_string(), reason))
}

async fn read(context: &SessionContext, paths: &[PathBuf]) -> Result<DataFrame> {
    let Some(first) = paths.first() else { return Err(Error::internal("a table of no files")) };
    let place = || first.display().to_string();
    let urls = paths.iter().map(|path| url(path)).collect::<Result<Vec<String>>>()?;
    let ending = ending(first);
    // Types are those of all rows, not of the first thousand.
    let all = usize::MAX;
    let with_dot = format!(".{ending}");
    let frame = match ending {
        "parquet" => context.read_parquet(urls, ParquetReadOptions::default()).await,
        "csv" | "tsv" => {
            let delimiter = if ending == "tsv" { b'\t' } else { b',' };
            let options = CsvReadOptions::new().delimiter(delimiter).file_extension(&with_dot);
            // A quoted caption may hold a line break.
            let options = options.schema_infer_max_records(all).newlines_in_values(true);
            context.read_csv(urls, options).await
        }
        "arrow" => context.read_arrow(urls, ArrowReadOptions::default()).await,
        _ => {
            let options = JsonReadOptions::default().file_extension(&with_dot).schema_infer_max_records(all);
            context.read_json(urls, options.newline_delimited(!is_array(first)?)).await
        }
    };
    frame.context(Stage::Select, place(), "cannot be read as the table that its ending says; see the cause")
}

/// Whether a JSON file is one list instead of an object per line.
fn is_array(path: &Path) -> Result<bool> {
    let place = path.display().to_string();
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4_096).read_to_end(&mut head));
    read.context(Stage::Select, place, "cannot read this table")?;
    Ok(head.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
}

/// As a URL, so that no letter of a name is taken for a pattern.
fn url(path: &Path) -> Result<String> {
    let place = path.display().to_string();
    let path = std::path::absolute(path).context(Stage::Select, &place, "has no absolute path")?;
    let Some(text) = path.to_str() else {
        return Err(Error::at(Stage::Select, place, "its name is not UTF-8; rename it"));
    };
    let mut url = String::from("file://");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, pattern: &Path) -> Result<Tables> {
        Tables::open(&BTreeMap::from([(name.to_owned(), pattern.display().to_string())]))
    }

    #[test]
    fn names_patterns_and_formats_are_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["a.csv", "b.parquet", "c.xlsx"] {
            std::fs::write(folder.path().join(file), "x\n1\n").unwrap();
        }
        for (name, pattern, part) in [
            ("Scores", "a.csv", "use a-z"),
            ("1st", "a.csv", "use a-z"),
            ("shards", "a.csv", "table of the samples"),
            ("scores", "z.csv", "matches no file"),
            ("scores", "z*.csv", "matches no file"),
            ("scores", "[ab].*", "mixes .csv and .parquet"),
            ("scores", "c.xlsx", "ends in `xlsx`"),
        ] {
            let text = open(name, &folder.path().join(pattern)).unwrap_err().to_string();
            assert!(text.contains(part), "{name} {pattern}: {text}");
        }
    }

    #[test]
    fn the_hash_follows_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.csv");
        let hash = |text: &str| {
            std::fs::write(&file, text).unwrap();
            open("a", &file).unwrap().provenance()[0].blake3.clone()
        };
        let base = hash("x\n1\n");
        assert_ne!(base, hash("x\n2\n"));
        assert_eq!(base, hash("x\n1\n"));
    }

    #[tokio::test]
    async fn every_format_becomes_a_table_and_strange_names_are_names() {
        let folder = tempfile::tempdir().unwrap();
        let tables = [
            ("a [1] %.csv", "source,note\np,\"two\nlines\"\nq,b\n"),
            ("b.tsv", "source\tnote\np\ta\nq\tb\n"),
            ("c.jsonl", "{\"source\": \"p\", \"note\": \"a\"}\n{\"source\": \"q\", \"note\": \"b\"}\n"),
            ("d.json", " [{\"source\": \"p\", \"note\": \"a\"}, {\"source\": \"q\", \"note\": \"b\"}]\n"),
        ];
        for (file, text) in tables {
            let path = folder.path().join(file);
            std::fs::write(&path, text).unwrap();
            let context = SessionContext::new();
            open("t", &path).unwrap().register(&context).await.unwrap();
            let frame = context.sql("SELECT note FROM t WHERE source = 'q'").await.unwrap();
            let batches = frame.collect().await.unwrap();
            assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1, "{file}");
        }
    }

    #[tokio::test]
    async fn files_of_one_table_must_have_the_same_columns() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1.csv"), "a,b\n1,2\n").unwrap();
        std::fs::write(folder.path().join("2.csv"), "b,a\n1,2\n").unwrap();
        let tables = open("t", &folder.path().join("*.csv")).unwrap();
        let text = tables.register(&SessionContext::new()).await.unwrap_err().to_string();
        assert!(text.contains("2.csv") && text.contains("same columns"), "{text}");
    }
}
