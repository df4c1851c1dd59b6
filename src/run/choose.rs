//! Which samples `[scan]` of a pipeline means: by SQL, from a file, or from several sources.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    balance::{self, balanced},
    data::{Data, check_some},
    folder::RunFolder,
    progress,
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    pipeline::Plan,
    scan::{
        EVERY_SAMPLE,
        mixture::{Mixture, Source},
    },
    select::{report::SelectReport, selection::Selection, selection_file::SavedSelection, shards::ShardSet},
};

/// How the samples of a source are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// A query is run.
    Sql(String),
    /// A file is read.
    File(PathBuf),
    /// Those of one value of a column, of what `[scan]` keeps: see [`Choice::base`].
    Value {
        /// The column.
        column: String,
        /// As text.
        value: String,
    },
}

/// One source, chosen.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// As the pipeline names it; empty where there is but one.
    pub name: String,
    /// Where its samples come from.
    pub how: How,
    /// Its shards alone, with ordinals of their own.
    pub shards: Arc<ShardSet>,
    /// What it keeps.
    pub report: SelectReport,
}

/// All sources, and what an epoch makes of them.
#[derive(Debug, Clone)]
pub struct Choice {
    /// By number.
    pub sources: Vec<Chosen>,
    /// With the ordinals of all shards together.
    pub mixture: Mixture,
    /// The query whose samples were divided by the values of a column, and the digest of what it keeps.
    pub base: Option<(String, [u8; 32])>,
}

/// Runs or reads what the pipeline names.
///
/// # Errors
/// A query's or a file's; a source without samples, sources that cannot be mixed.
pub fn choose(data: &Data, plan: &Plan) -> Result<Choice> {
    let scan = &plan.pipeline.scan;
    if scan.sources.is_empty() {
        let how = how(scan.sql.as_ref(), scan.selection.as_ref());
        let key = if scan.selection.is_some() { "scan.selection" } else { "scan.sql" };
        let (selection, report) = find(data, &data.shards, &how, key)?;
        if let Some(balance) = &scan.balance {
            return balanced(data, plan, balance, &selection, how);
        }
        let chosen = Chosen { name: String::new(), how, shards: Arc::clone(&data.shards), report };
        return Ok(Choice { sources: vec![chosen], mixture: selection.into(), base: None });
    }
    let (mut sources, mut parts) = (Vec::new(), Vec::new());
    for (name, settings) in &scan.sources {
        let shards = data.open_source(settings)?;
        let how = how(settings.sql.as_ref(), settings.selection.as_ref());
        let (selection, report) = find(data, &shards, &how, &format!("scan.sources.{name}"))?;
        let selection = Arc::new(SavedSelection::of(selection, name.clone())?.bind(&data.shards)?);
        parts.push(Source { name: name.clone(), weight: settings.weight, selection });
        sources.push(Chosen { name: name.clone(), how, shards, report });
    }
    let mixture = Mixture::new(parts, scan.epoch_items)?;
    let mixture = mixture.in_batches(plan.pipeline.prefetch.batch_rows, scan.lanes);
    Ok(Choice { sources, mixture, base: None })
}

/// Every query of `[scan]`: its key, the shards that it is about, and its SQL. A saved selection is read and has none.
///
/// # Errors
/// A saved selection that cannot be read or has other shards; shards of a source that cannot be opened.
pub fn queries(data: &Data, plan: &Plan) -> Result<Vec<(String, Arc<ShardSet>, String)>> {
    let scan = &plan.pipeline.scan;
    let mut found = Vec::new();
    if scan.sources.is_empty() {
        let how = how(scan.sql.as_ref(), scan.selection.as_ref());
        found.push(("scan".to_owned(), Arc::clone(&data.shards), how));
    }
    for (name, source) in &scan.sources {
        let shards = data.open_source(source)?;
        found.push((format!("scan.sources.{name}"), shards, how(source.sql.as_ref(), source.selection.as_ref())));
    }
    let mut queries = Vec::new();
    for (place, shards, how) in found {
        match how {
            How::Sql(sql) => queries.push((format!("{place}.sql"), shards, sql)),
            How::File(path) => drop(Selection::load(&path, &shards)?),
            How::Value { .. } => return Err(Error::internal("a source of a pipeline is a value")),
        }
    }
    Ok(queries)
}

fn how(sql: Option<&String>, selection: Option<&String>) -> How {
    match selection {
        Some(path) => How::File(PathBuf::from(path)),
        None => How::Sql(sql.map_or(EVERY_SAMPLE, String::as_str).to_owned()),
    }
}

fn find(data: &Data, shards: &ShardSet, how: &How, key: &str) -> Result<(Selection, SelectReport)> {
    let (selection, report) = match how {
        How::Sql(sql) => data.select_from(shards, sql)?,
        How::File(path) => {
            let selection = Selection::load(path, shards)?;
            let report = SelectReport::loaded(shards, &selection);
            (selection, report)
        }
        How::Value { .. } => return Err(Error::internal("a source of a pipeline is a value")),
    };
    check_some(key, &report).map(|()| (selection, report))
}

impl Choice {
    /// Runs every query again with other partition counts.
    ///
    /// # Errors
    /// Digests that differ.
    pub fn verify(&self, data: &Data) -> Result<()> {
        let verify = |shards: &ShardSet, sql: &str, digest| -> Result<()> {
            let query = data.query(shards, sql)?;
            data.runtime.block_on(query.verify(digest)).map(drop)
        };
        if let Some((sql, digest)) = &self.base {
            verify(&data.shards, sql, *digest)?;
        }
        for (chosen, source) in self.sources.iter().zip(self.mixture.sources()) {
            if let How::Sql(sql) = &chosen.how {
                verify(&chosen.shards, sql, source.selection.digest())?;
            }
        }
        Ok(())
    }

    /// Logs what is kept, and of several sources how many items each gives.
    pub fn log(&self, lanes: u32) {
        for Chosen { name, report, .. } in &self.sources {
            let from = if name.is_empty() { String::new() } else { format!(" from source {name}") };
            progress::log(&format!("selected {} of {} rows{from}, digest {}", report.items, report.of, report.digest));
        }
        self.mixture.describe(lanes).iter().for_each(|line| progress::log(line));
    }
}

/// Copies the selections into a run's folder: training and resuming never run the SQL again.
///
/// # Errors
/// The disk says no.
pub fn save(folder: &RunFolder, mixture: &Mixture) -> Result<()> {
    for source in mixture.sources() {
        source.selection.save(&folder.selection(&source.name))?;
    }
    Ok(())
}

/// The selections of a run's folder.
///
/// # Errors
/// A file's, or a shard that changed or is gone.
pub fn load(folder: &RunFolder, data: &Data, plan: &Plan) -> Result<Mixture> {
    let scan = &plan.pipeline.scan;
    if scan.balance.is_some() {
        return balance::load(folder, data, plan);
    }
    if scan.sources.is_empty() {
        return Ok(data.load_selection(&folder.selection(""))?.into());
    }
    let source = |(name, settings): (&String, &crate::scan::SourceSettings)| {
        let selection = Arc::new(data.load_selection(&folder.selection(name))?);
        Ok(Source { name: name.clone(), weight: settings.weight, selection })
    };
    let mixture = Mixture::new(scan.sources.iter().map(source).collect::<Result<_>>()?, scan.epoch_items)?;
    Ok(mixture.in_batches(plan.pipeline.prefetch.batch_rows, scan.lanes))
}

/// Writes the selections where the command line says: to one file, or of several sources into a folder.
///
/// # Errors
/// The disk says no.
pub fn save_to(path: &Path, mixture: &Mixture) -> Result<()> {
    if let [source] = mixture.sources() {
        return source.selection.save(path);
    }
    std::fs::create_dir_all(path).context(Stage::Select, path.display().to_string(), "cannot make this folder")?;
    for source in mixture.sources() {
        source.selection.save(&path.join(format!("{}.selection", source.name)))?;
    }
    Ok(())
}
