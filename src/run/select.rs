//! `diptych select "SQL or pipeline"`
use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use tokio::runtime::Runtime;

use super::{
    Named,
    choose::{choose, save_to},
    data::Data,
    output, progress,
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    schema::Schema,
    select::{
        functions::clip_score::ClipScores, report::SelectReport, select::Query, shards::ShardSet, tables::Tables,
    },
};

/// Whose samples are selected.
#[derive(Debug, Clone)]
pub enum What {
    /// Those of `[scan]`.
    Pipeline(Named),
    /// Those that a query returns.
    Sql {
        /// One SELECT over `shards`.
        sql: String,
        /// Files, globs or folders.
        shards: Vec<String>,
        /// Files or globs by the names of the tables.
        tables: BTreeMap<String, String>,
    },
}

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to select.
    pub what: What,
    /// Ends with a JSON line.
    pub json: bool,
    /// Runs the query again with other partition counts.
    pub verify: bool,
    /// Where to save the selection.
    pub to: Option<PathBuf>,
    /// What `clip_score` asks, where a model is named.
    pub model: Option<ClipScores>,
}

/// Sorts out the words: SQL has shards, a pipeline has its own.
///
/// # Errors
/// SQL without shards, changes to a pipeline that is none, tables without a name.
pub fn what(words: &str, sets: &[String], shards: &[String], tables: &[String]) -> Result<What> {
    let wrong = |reason: &str| Error::at(Stage::CommandLine, "", reason.to_owned());
    let is_sql = !PathBuf::from(words).is_file() && words.trim().contains(char::is_whitespace);
    if !is_sql {
        if !shards.is_empty() || !tables.is_empty() {
            let reason = format!(
                "--shards and --tables go with SQL, and {words:?} is a pipeline, which names its own in [scan]: use --set \
                 'scan.shards=[\"…\"]'"
            );
            return Err(wrong(&reason));
        }
        return Ok(What::Pipeline(Named { pipeline: words.to_owned(), sets: sets.to_vec() }));
    }
    if shards.is_empty() {
        return Err(wrong("SQL needs shards; add --shards with files, globs or folders"));
    }
    if !sets.is_empty() {
        return Err(wrong("--set changes a pipeline, and this is SQL"));
    }
    let mut named = BTreeMap::new();
    for table in tables {
        let Some((name, path)) = table.split_once('=') else {
            return Err(wrong("a table is written NAME=FILE, such as --tables scores=scores.csv"));
        };
        named.insert(name.trim().to_owned(), path.trim().to_owned());
    }
    Ok(What::Sql { sql: words.to_owned(), shards: shards.to_vec(), tables: named })
}

/// Selects, prints what is kept and what will never be read, and saves it where asked.
///
/// # Errors
/// Mistakes of the pipeline, the query's, or the digests of `--verify` differ.
pub fn run(request: &Request) -> Result<()> {
    match &request.what {
        What::Pipeline(_) if request.model.is_some() => {
            let reason = "goes with SQL, and this is a pipeline, which names its model itself: --set scan.clip_score.weights=FILE";
            Err(Error::at(Stage::CommandLine, "--weights", reason))
        }
        What::Pipeline(named) => of_pipeline(named, request),
        What::Sql { sql, shards, tables } => of_sql(sql, shards, tables, request),
    }
}

const VERIFIED: &str = "verified: other numbers of partitions select the same items";

fn of_sql(sql: &str, shards: &[String], tables: &BTreeMap<String, String>, request: &Request) -> Result<()> {
    // Whatever the columns are called: a query names those that it needs.
    let schema = Schema { name: "any".into(), version: 0, columns: Vec::new() };
    let runtime = Runtime::new().context(Stage::Internal, "io", "the system gives no threads")?;
    let shards = runtime.block_on(ShardSet::open(shards, &schema))?;
    let model = request.model.clone();
    let query = Query { tables: Tables::open(tables)?, model, ..Query::new(&shards, &schema, sql) };
    let (selection, report) = runtime.block_on(query.select())?;
    report.warnings.iter().for_each(|warning| progress::log(&format!("warning: {warning}")));
    if request.verify {
        runtime.block_on(query.verify(selection.digest()))?;
        progress::log(VERIFIED);
    }
    if let Some(path) = &request.to {
        selection.save(path)?;
        progress::log(&format!("saved to {}", path.display()));
    }
    if report.items == 0 {
        progress::log(&format!("warning: the query keeps none of {} rows", report.of));
    }
    output::line(&report.to_string())?;
    if request.json { output::json(&report) } else { Ok(()) }
}

fn of_pipeline(named: &Named, request: &Request) -> Result<()> {
    let plan = named.plan()?;
    let data = Data::open(&plan)?;
    let choice = choose(&data, &plan)?;
    if request.verify {
        choice.verify(&data)?;
        progress::log(VERIFIED);
    }
    if let Some(path) = &request.to {
        save_to(path, &choice.mixture)?;
        progress::log(&format!("saved to {}", path.display()));
    }
    let lanes = plan.pipeline.scan.lanes;
    let counts = choice.mixture.counts(lanes);
    let mut sources = BTreeMap::new();
    for (chosen, epoch_items) in choice.sources.iter().zip(counts) {
        if chosen.name.is_empty() {
            output::line(&chosen.report.to_string())?;
            return if request.json { output::json(&chosen.report) } else { Ok(()) };
        }
        output::line(&format!("source {}", chosen.name))?;
        output::line(&chosen.report.to_string())?;
        sources.insert(chosen.name.clone(), SourceReport { epoch_items, selected: chosen.report.clone() });
    }
    choice.mixture.describe(lanes).iter().try_for_each(|line| output::line(line))?;
    let epoch_items = choice.mixture.items(lanes);
    let digest = blake3::Hash::from_bytes(choice.mixture.digest()).to_hex().to_string();
    if request.json { output::json(&MixtureReport { digest, epoch_items, sources }) } else { Ok(()) }
}

#[derive(Debug, Serialize)]
struct MixtureReport {
    digest: String,
    epoch_items: u64,
    sources: BTreeMap<String, SourceReport>,
}

#[derive(Debug, Serialize)]
struct SourceReport {
    /// Items of an epoch that it gives.
    epoch_items: u64,
    #[serde(flatten)]
    selected: SelectReport,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &str, sets: &[&str], shards: &[&str], tables: &[&str]) -> Result<What> {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        what(words, &owned(sets), &owned(shards), &owned(tables))
    }

    #[test]
    fn sql_and_pipelines_are_told_apart() {
        assert!(matches!(told("simclr", &["seed=1"], &[], &[]), Ok(What::Pipeline(_))));
        let sql = "SELECT sample_id FROM shards";
        assert!(
            matches!(told(sql, &[], &["data"], &["s=s.csv"]), Ok(What::Sql { tables, .. }) if tables["s"] == "s.csv")
        );
        for (words, sets, shards, tables, part) in [
            (sql, &[][..], &[][..], &[][..], "--shards"),
            (sql, &["seed=1"], &["data"], &[], "--set"),
            (sql, &[], &["data"], &["s.csv"], "NAME=FILE"),
            ("simclr", &[], &[], &["s=s.csv"], "[scan]"),
        ] {
            let error = told(words, sets, shards, tables).unwrap_err();
            assert!(error.to_string().contains(part) && error.exit_code() == 2, "{error}");
        }
    }
}
