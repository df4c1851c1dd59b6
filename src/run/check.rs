//! `diptych check PIPELINE`: every mistake. Data is opened only where the file has none, and then for its columns alone.
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema as ArrowSchema;

use super::{Named, choose::queries, clip_evaluation, data::Data, output, progress};
use crate::{
    error::{Error, Mistake, Result, Stage},
    pipeline::{Pipeline, Plan},
    select::shards::ShardSet,
};

/// Prints what the pipeline resolves to, in one line or as a whole file, and whether its SQL was checked against shards.
///
/// # Errors
/// All mistakes of the file; where it has none, all of its SQL; shards that are there and cannot be read.
pub fn run(named: &Named, resolved: bool) -> Result<()> {
    let plan = named.plan()?;
    if resolved {
        // A pipeline to start from, whatever shards are there; what does not fit them is told after it.
        output::line(plan.to_toml()?.trim_end())?;
        progress::log(&sql(&plan)?);
        return Ok(());
    }
    let sql = sql(&plan)?;
    let pipeline = &plan.pipeline;
    output::line(&format!(
        "{}: no mistakes. {} rows a batch, each {} ({:.1} MB), {} epochs, peak learning rate {}, on {}.\n{sql}",
        plan.named,
        pipeline.prefetch.batch_rows,
        plan.row_in_words(),
        (plan.item_bytes() * pipeline.prefetch.batch_rows as u64) as f64 / 1e6,
        pipeline.train.epochs,
        plan.peak_rate,
        pipeline.device,
    ))
}

/// Plans every query of the pipeline against the shards; no row is read.
fn sql(plan: &Plan) -> Result<String> {
    let data = match Data::open(plan) {
        Ok(data) => data,
        Err(error @ Error::Stage { stage: Stage::Shards, .. }) => {
            progress::log(&error.report());
            return Ok("shards not found: SQL not checked".to_owned());
        }
        Err(error) => return Err(error),
    };
    let pipeline = &plan.pipeline;
    let mut queries = queries(&data, plan)?;
    if let Some(evaluate) = &pipeline.evaluate {
        for (key, sql) in [("evaluate.bank_sql", &evaluate.bank_sql), ("evaluate.query_sql", &evaluate.query_sql)] {
            if evaluate.classifies() {
                queries.push((key.to_owned(), Arc::clone(&data.shards), sql.clone()));
            }
        }
    }
    let mut mistakes = Vec::new();
    let of_texts = pipeline.evaluate.as_ref().map_or(Ok(0), |evaluate| clip_evaluation::check(evaluate, &data));
    let by_text = match of_texts {
        Ok(checked) => checked,
        Err(error @ Error::Stage { stage: Stage::Sql | Stage::Pipeline | Stage::Select | Stage::Checkpoint, .. }) => {
            mistakes.push(mistake("evaluate", &error));
            0
        }
        Err(error) => return Err(error),
    };
    for (key, shards, sql) in &queries {
        let query = match data.query(shards, sql) {
            Ok(query) => query,
            // The weights that `clip_score` asks, and tables, which are told once.
            Err(error) => {
                let told = mistake(key, &error);
                if mistakes.iter().all(|known| known.problem != told.problem) {
                    mistakes.push(told);
                }
                continue;
            }
        };
        match data.runtime.block_on(query.plan(1)) {
            Ok(planned) => {
                planned.warnings.iter().for_each(|warning| progress::log(&format!("warning: {warning}")));
                mistakes.extend(absent(pipeline, key, shards, &planned.extra));
            }
            Err(error @ Error::Stage { stage: Stage::Sql, .. }) => mistakes.push(mistake(key, &error)),
            Err(error) => return Err(error),
        }
    }
    if !mistakes.is_empty() {
        return Err(Error::Pipeline { file: plan.named.clone(), mistakes });
    }
    let count = queries.len() + by_text;
    Ok(format!(
        "SQL of {} planned over {} in {}.",
        if count == 1 { "1 query".to_owned() } else { format!("{count} queries") },
        output::counted(data.shards.rows(), "row"),
        output::counted(data.shards.shards.len() as u64, "shard")
    ))
}

fn mistake(key: &str, error: &Error) -> Mistake {
    Mistake { key: key.to_owned(), position: None, problem: error.report(), remedy: String::new() }
}

/// Columns that `[pair]` wants of the samples of a query, and neither the shards nor the query has. What an evaluation
/// lacks is a warning: the pipeline can train. Every shard must have the captions, some shard a group.
fn absent(pipeline: &Pipeline, query: &str, shards: &ShardSet, brought: &ArrowSchema) -> Vec<Mistake> {
    let is_brought = |name: &str| brought.field_with_name(name).is_ok();
    let is_there = |name: &str| is_brought(name) || shards.shards.iter().any(|shard| shard.columns.get(name).is_some());
    let (problem, remedy) = (
        |name: &str| format!("no shard has a column {name:?}, and {query} returns none"),
        "name one that is there, return it from the query, or map it in [scan.columns]",
    );
    if let Some(evaluate) = pipeline.evaluate.as_ref().filter(|_| query.starts_with("evaluate.")) {
        let columns = evaluate.columns();
        let lacking = columns.iter().filter(|name| !is_there(name));
        lacking.for_each(|name| progress::log(&format!("warning: `evaluate`: {}; {remedy}", problem(name))));
        return Vec::new();
    }
    let pair = &pipeline.pair;
    let told = |setting: &str, problem: String| Mistake {
        key: format!("pair.{}.{setting}", pair.name()),
        position: None,
        problem,
        remedy: remedy.to_owned(),
    };
    let group = pair.group().filter(|name| !is_there(name)).map(|name| told("group", problem(name)));
    let caption = pair.caption().filter(|name| !is_brought(name)).and_then(|name| {
        let lacking = shards.shards.iter().find(|shard| shard.columns.get(name).is_none())?;
        Some(told(
            "caption",
            match is_there(name) {
                true => format!("{} has no column {name:?}, and {query} returns none", lacking.name),
                false => problem(name),
            },
        ))
    });
    group.into_iter().chain(caption).collect()
}
