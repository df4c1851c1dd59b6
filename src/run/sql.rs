//! `diptych sql QUERY`
use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use datafusion::arrow::{array::RecordBatch, csv, json, util::pretty::pretty_format_batches_with_schema};
use tokio::runtime::Builder;

use super::{
    import::{summary, with_progress},
    output,
    printable::{nested_as_text, shortened},
    progress,
};
use crate::{
    error::{Cause, Context as _, Error, Result, Stage},
    ingest::{ImportReport, ImportSettings},
    schema::Schema,
    select::{
        functions::clip_score::ClipScores,
        long_series::{SeriesBy, materialise_series},
        materialise::{Shape, materialise},
        sql::{Query, QueryKind, SqlSession, SqlSettings},
    },
};

const MEGABYTE: usize = 1 << 20;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table of the first rows, blobs shortened.
    Table,
    /// A JSON object per line, every row; binary values in hexadecimal.
    JsonLines,
    /// CSV with a header line, every row; binary values in hexadecimal.
    Csv,
}

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// One statement that changes nothing.
    pub sql: String,
    /// What is the table `shards`.
    pub shards: Vec<String>,
    /// Schema of `shards`.
    pub schema: String,
    /// What the files of `shards` call the schema's columns, where they call them otherwise.
    pub columns: BTreeMap<String, String>,
    /// How rows are printed.
    pub format: Format,
    /// Rows of a table.
    pub rows: usize,
    /// Where rows become shards instead of being printed.
    pub to: Option<PathBuf>,
    /// Whose rows are series, where they are to become some.
    pub series: Option<SeriesBy>,
    /// Columns by which rows are sorted.
    pub sort_by: Vec<String>,
    /// How shards are written.
    pub settings: ImportSettings,
    /// What sorts, joins and groups may hold.
    pub memory_megabytes: usize,
    /// What `clip_score` asks, where a model is named.
    pub model: Option<ClipScores>,
}

/// Runs a query and prints its rows, or writes them into shards.
///
/// # Errors
/// The query's; shards that differ from the schema; a folder that cannot be written.
pub fn run(request: &Request) -> Result<()> {
    let runtime = Builder::new_multi_thread().thread_name("sql").enable_all().build().context(
        Stage::Internal,
        "sql",
        "the system gives no threads",
    )?;
    let settings = SqlSettings {
        shards: request.shards.clone(),
        schema: Schema::named(&request.schema)?.with_names_in_files(&request.columns)?,
        stores: Arc::default(),
        memory_bytes: request.memory_megabytes.saturating_mul(MEGABYTE),
    };
    let query = runtime.block_on(async {
        let session = SqlSession::open(&settings).await?;
        request.model.iter().cloned().for_each(|model| session.give_model(model));
        match &request.series {
            Some(by) => session.plan(&request.sql, &by.sort_by()).await.map_err(as_of_series),
            None => session.plan(&request.sql, &request.sort_by).await,
        }
    })?;
    query.warnings.iter().for_each(|warning| progress::log(&format!("warning: {warning}")));
    match &request.to {
        None => runtime.block_on(print(&query, request)),
        Some(to) => {
            if query.kind != QueryKind::Rows {
                let reason = "EXPLAIN and DESCRIBE have no rows to write; leave --to out";
                return Err(Error::at(Stage::CommandLine, "--to", reason));
            }
            if let Some(by) = &request.series {
                let report = with_progress("write", "series", |progress| {
                    materialise_series(runtime.handle(), &query, by, to, &request.settings, progress)
                });
                let report = report.map_err(as_output)?;
                output::line(&summary(&report, &to.display().to_string()))?;
                return if request.format == Format::JsonLines { output::json(&report) } else { Ok(()) };
            }
            let report = with_progress("write", "rows", |progress| {
                materialise(runtime.handle(), &query, to, &request.settings, progress)
            });
            let report = report.map_err(as_output)?;
            let to = to.display().to_string();
            output::line(&match Shape::of(&query) {
                Shape::ImageText => summary(&report, &to),
                Shape::References => in_order(&report, &to),
                Shape::Plain => {
                    progress::log(match query.schema().field_with_name("text") {
                        Ok(_) => "plain Parquet, which scan.schema = \"documents\" reads where it is",
                        Err(_) => {
                            "plain Parquet: there is no binary column `image`, so training cannot read this; name one with \
                             AS image"
                        }
                    });
                    in_order(&report, &to)
                }
            })?;
            if request.format == Format::JsonLines { output::json(&report) } else { Ok(()) }
        }
    }
}

/// What series are cut by is what rows are sorted by.
fn as_of_series(error: Error) -> Error {
    match error {
        Error::Stage { stage: Stage::CommandLine, place, reason, source } if place == "--sort-by" => {
            let place = "--series".to_owned();
            Error::Stage { stage: Stage::CommandLine, place, reason, source }
        }
        other => other,
    }
}

fn in_order(report: &ImportReport, to: &str) -> String {
    let (rows, files, seconds) = (report.rows, report.shards.len(), report.seconds);
    let (rows, files) = (output::counted(rows, "row"), output::counted(files as u64, "Parquet file"));
    format!("{to}: {rows} in {files}, in the order of the query, in {seconds:.1} s")
}

async fn print(query: &Query, request: &Request) -> Result<()> {
    match request.format {
        Format::Table => print_table(query, request.rows).await,
        Format::JsonLines => print_all(query, json_lines).await,
        Format::Csv => print_all(query, csv_lines).await,
    }
}

/// The importer writes the shards, but nobody has imported anything.
fn as_output(error: Error) -> Error {
    match error {
        Error::Stage { stage: Stage::Import, place, reason, source } => {
            Error::Stage { stage: Stage::Output, place, reason, source }
        }
        other => other,
    }
}

/// The first rows, and whether there are more.
async fn print_table(query: &Query, most: usize) -> Result<()> {
    let mut batches: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut more) = (0, false);
    query
        .run(|batch| {
            let kept = batch.num_rows().min(most - rows);
            more |= kept < batch.num_rows();
            rows += kept;
            batches.push(batch.slice(0, kept));
            Ok(if more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await?;
    let short = batches.iter().map(shortened).collect::<Result<Vec<_>>>()?;
    let schema = short.first().map_or_else(|| query.schema(), RecordBatch::schema);
    let table = pretty_format_batches_with_schema(schema, &short).context(
        Stage::Select,
        "the result",
        "has values that cannot be printed; cast them to text",
    )?;
    output::line(&table.to_string())?;
    let (plural, remedy) = (if rows == 1 { "" } else { "s" }, "--rows N shows more, --json and --csv print all");
    progress::log(&match more {
        true => format!("the first {rows} row{plural}; {remedy}"),
        false => format!("{rows} row{plural}"),
    });
    Ok(())
}

type Text = std::result::Result<Vec<u8>, Cause>;

async fn print_all(query: &Query, text: fn(&RecordBatch, bool) -> Text) -> Result<()> {
    let mut is_first = true;
    let mut print = |batch: &RecordBatch| {
        let text = text(batch, std::mem::take(&mut is_first));
        let text = text.context(Stage::Select, "the result", "has values that cannot be printed; cast them to text")?;
        let text = String::from_utf8_lossy(&text);
        if text.is_empty() { Ok(()) } else { output::line(text.trim_end_matches('\n')) }
    };
    query.run(|batch| print(&batch).map(ControlFlow::Continue)).await?;
    // A header even where there are no rows.
    if is_first {
        let batch = RecordBatch::new_empty(query.schema());
        let text = text(&batch, true).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        return if text.is_empty() { Ok(()) } else { output::line(text.trim_end_matches('\n')) };
    }
    Ok(())
}

fn json_lines(batch: &RecordBatch, _is_first: bool) -> Text {
    let builder = json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, json::writer::LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn csv_lines(batch: &RecordBatch, is_first: bool) -> Text {
    let mut text = Vec::new();
    let mut writer = csv::WriterBuilder::new().with_header(is_first).build(&mut text);
    writer.write(&nested_as_text(batch)?)?;
    drop(writer);
    Ok(text)
}
