//! `diptych embed`
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use tokio::runtime::Builder;

use super::{
    clip_model::ClipModel,
    embedded_rows::{CAPTION, IMAGE, is_text},
    embedding_shards::{self, Written},
    output,
    progress::{self, Progress},
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    ingest::{ImportReport, ImportSettings, holds_images, into_folder},
    schema::Schema,
    select::{
        provider::SAMPLE_ID,
        sql::{Query, SqlSession, SqlSettings},
    },
};

/// What sorts, joins and groups of the query may hold.
const MEMORY_BYTES: usize = 2_048 << 20;

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// What embeds.
    pub model: ClipModel,
    /// What is the table `shards`.
    pub shards: Vec<String>,
    /// What the files of `shards` call the schema's columns, where they call them otherwise.
    pub columns: BTreeMap<String, String>,
    /// Which rows, and what is embedded of them; none: images and captions of all.
    pub sql: Option<String>,
    /// Folder for the embeddings.
    pub to: PathBuf,
    /// Replaces a data set that is there.
    pub overwrite: bool,
    /// Share of bad images above which it stops.
    pub max_bad_share: f64,
    /// Ends with a JSON line.
    pub json: bool,
}

/// Embeds the images and captions of a query into Parquet files.
///
/// # Errors
/// The model's, the query's; neither images nor captions in its rows; too many bad images; a folder that cannot be written.
pub fn run(request: &Request) -> Result<()> {
    let runtime = Builder::new_multi_thread().thread_name("sql").enable_all().build().context(
        Stage::Internal,
        "sql",
        "the system gives no threads",
    )?;
    let settings = SqlSettings {
        shards: request.shards.clone(),
        schema: Schema::named("image_text")?.with_names_in_files(&request.columns)?,
        stores: Arc::default(),
        memory_bytes: MEMORY_BYTES,
    };
    let (query, shards, rows) = runtime.block_on(async {
        let session = SqlSession::open(&settings).await?;
        session.keep_order();
        let sql = match &request.sql {
            Some(sql) => sql.clone(),
            None => everything(&session.plan("SELECT * FROM shards", &[]).await?.schema()),
        };
        let query = session.plan(&sql, &[]).await?;
        let names: Option<Vec<String>> =
            session.shards().map(|set| set.shards.iter().map(|shard| shard.name.clone()).collect());
        // A query of the user's own keeps nobody knows how many.
        let rows = session.shards().filter(|_| request.sql.is_none()).map_or(0, |set| set.rows());
        Ok::<_, Error>((query, names.unwrap_or_default(), rows))
    })?;
    check(&query)?;
    query.warnings.iter().for_each(|warning| progress::log(&format!("warning: {warning}")));
    let embedder = request.model.open()?;
    let folder = ImportSettings { overwrite: request.overwrite, ..ImportSettings::default() };
    let mut bar = Progress::new("embed", rows, "rows");
    let mut written = Written::default();
    let report = into_folder(&request.to, &folder, |destination| {
        destination.clear()?;
        let note = |rows: u64| bar.at(rows, "");
        let writing = embedding_shards::write(&query, &embedder, &shards, destination, request.max_bad_share, note);
        let (manifest, counts) = runtime.block_on(writing)?;
        written = counts;
        let report = ImportReport {
            kind: "embeddings".to_owned(),
            samples: "rows".to_owned(),
            rows: manifest.rows,
            quarantined: written.bad,
            ..ImportReport::default()
        };
        Ok((manifest, report))
    });
    bar.finish();
    let report = report.map_err(as_output)?;
    output::line(&summary(&report, &written, &request.to.display().to_string()))?;
    if request.json { output::json(&report) } else { Ok(()) }
}

/// What is asked where nobody asks: what there is to embed.
fn everything(schema: &SchemaRef) -> String {
    let there = |name: &&str| schema.field_with_name(name).is_ok();
    let columns: Vec<&str> = [SAMPLE_ID, IMAGE, CAPTION].into_iter().filter(there).collect();
    format!("SELECT {} FROM shards", columns.join(", "))
}

/// # Errors
/// Rows without an id, or with nothing to embed; all at once.
fn check(query: &Query) -> Result<()> {
    let schema = query.schema();
    let has = |name: &str, is: fn(&DataType) -> bool| {
        schema.field_with_name(name).ok().map(|field| (is(field.data_type()), field.data_type().to_string()))
    };
    let mut wrong = Vec::new();
    if !has(SAMPLE_ID, DataType::is_integer).is_some_and(|(is, _)| is) {
        wrong.push(format!("returns no {SAMPLE_ID}; add that of `shards`"));
    }
    let (image, caption) = (has(IMAGE, holds_images), has(CAPTION, is_text));
    if let Some((false, data_type)) = &image {
        wrong.push(format!("returns {IMAGE} as {data_type}; it must be the encoded image"));
    }
    if let Some((false, data_type)) = &caption {
        wrong.push(format!("returns {CAPTION} as {data_type}; it must be text"));
    }
    if image.is_none() && caption.is_none() {
        wrong.push(format!("returns neither {IMAGE} nor {CAPTION}; name one with AS {IMAGE} or AS {CAPTION}"));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::at(Stage::Sql, "the query", wrong.join("\n  "))),
    }
}

fn summary(report: &ImportReport, written: &Written, to: &str) -> String {
    let mut text = format!(
        "{to}: {} in {} of width {} in {:.1} s",
        output::counted(report.rows, "row"),
        output::counted(report.shards.len() as u64, "Parquet file"),
        written.width,
        report.seconds
    );
    if written.bad > 0 {
        let bad = output::counted(written.bad, "bad image");
        text.push_str(&format!("; {bad} without an embedding, listed in quarantine.parquet"));
    }
    if written.without_caption > 0 {
        text.push_str(&format!("; {} without a caption", output::counted(written.without_caption, "row")));
    }
    text
}

/// The importer's folder is used, but nobody has imported anything.
fn as_output(error: Error) -> Error {
    match error {
        Error::Stage { stage: Stage::Import, place, reason, source } => {
            Error::Stage { stage: Stage::Output, place, reason, source }
        }
        other => other,
    }
}
