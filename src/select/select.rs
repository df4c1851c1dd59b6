//! SQL, once, into a selection.
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, StreamExt};

use super::blob_reads;
use super::collect::Collector;
use super::columns::is_binary;
use super::ignored;
use super::precedence;
use super::provider::SAMPLE_ID;
use super::report::{SelectReport, report};
use super::reproducible;
use super::selection::{Provenance, Selection};
use super::session::{default_partitions, session};
use super::shards::{ShardSet, hex};
use super::warning::Warning;
use crate::error::{Context, Error, Result, Stage};
use crate::schema::{Role, Schema};

/// What messages call the SQL.
const QUERY: &str = "the query";
/// Partition counts under which `--verify` runs a query again.
pub const VERIFY_PARTITIONS: [usize; 3] = [1, 3, 8];

/// Runs `sql` over the table `shards` and keeps the samples whose `sample_id` it returns, each as often as it occurs.
///
/// ```no_run
/// # async fn selects() -> diptych::Result<()> {
/// use diptych::schema::Schema;
/// use diptych::select::{select::select, shards::ShardSet};
///
/// let schema = Schema::named("image_text")?;
/// let shards = ShardSet::open(&["data".to_owned()], &schema).await?;
/// let (selection, report) = select(&shards, &schema, "SELECT sample_id FROM shards WHERE width >= 64").await?;
/// assert_eq!(selection.items(), report.items);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// SQL that DataFusion does not accept or that would not give the same answer again, output without `sample_id`, with
/// blobs or with further columns, ids that are NULL or name no row, shards that cannot be read.
pub async fn select(shards: &ShardSet, schema: &Schema, sql: &str) -> Result<(Selection, SelectReport)> {
    run(shards, schema, sql, default_partitions()).await
}

/// Runs `sql` again with other numbers of partitions and compares the digests with `expected`.
///
/// # Errors
/// Any run that gives another selection; the error says which.
pub async fn verify(shards: &ShardSet, schema: &Schema, sql: &str, expected: [u8; 32]) -> Result<()> {
    let mut differing = Vec::new();
    for partitions in VERIFY_PARTITIONS {
        let (selection, _) = run(shards, schema, sql, partitions).await?;
        if selection.digest() != expected {
            let (items, digest) = (selection.items(), hex(&selection.digest()));
            differing.push(format!("with {partitions} partitions: {items} items, digest {digest}"));
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let expected = hex(&expected);
    let reason = format!(
        "does not give the same selection in every run; expected digest {expected}\n  {}\n\
         look for ties, sums of floats and orders that decide nothing",
        differing.join("\n  ")
    );
    Err(Error::at(Stage::Select, QUERY, reason))
}

/// A checked query, ready to run; `diptych explain` prints `physical`.
#[derive(Debug)]
pub struct SelectPlan {
    /// What DataFusion runs.
    pub physical: Arc<dyn ExecutionPlan>,
    /// The session that runs it.
    pub state: SessionState,
    /// About the shards and the query.
    pub warnings: Vec<Warning>,
}

/// Plans `sql` with `partitions` parallel parts, and refuses what makes no selection. No shard is read.
///
/// # Errors
/// As [`select`], as far as the text of the query tells.
pub async fn plan(shards: &ShardSet, schema: &Schema, sql: &str, partitions: usize) -> Result<SelectPlan> {
    ignored::check(sql)?;
    precedence::check(sql)?;
    let state = session(shards, partitions)?.state();
    let refused = match shards.shards.iter().any(|shard| shard.is_reference()) {
        false => "is not accepted (the table is `shards`); correct what the cause says",
        true => {
            "is not accepted (the table is `shards`); some shards refer to their images, so SQL has no column image: use \
             width, height and format, import the data set, or correct what the cause says"
        }
    };
    let plan = state.create_logical_plan(sql).await.context(Stage::Sql, QUERY, refused)?;
    let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_queries.verify_plan(&plan).context(Stage::Sql, QUERY, "must be one SELECT, which changes nothing")?;
    check_output(&plan, shards, schema)?;
    let mut warnings = shards.warnings.clone();
    warnings.extend(reproducible::check(&plan)?);
    let optimized = state.optimize(&plan).context(Stage::Sql, QUERY, refused)?;
    warnings.extend(blob_reads::of_shards(&optimized).context(Stage::Internal, QUERY, "cannot walk its plan")?);
    let planner = Arc::clone(state.query_planner());
    let physical = planner.create_physical_plan(&optimized, &state).await.context(Stage::Sql, QUERY, refused)?;
    Ok(SelectPlan { physical, state, warnings })
}

async fn run(shards: &ShardSet, schema: &Schema, sql: &str, partitions: usize) -> Result<(Selection, SelectReport)> {
    let started = Instant::now();
    let wire_before = shards.store.wire();
    let SelectPlan { physical, state, warnings } = plan(shards, schema, sql, partitions).await?;
    let failed = "cannot be run to its end; see the cause";
    let mut rows = execute_stream(Arc::clone(&physical), state.task_ctx()).context(Stage::Select, QUERY, failed)?;
    let mut collector = Collector::new(shards);
    // Malformed pages can make the Parquet reader panic; the tasks of a plan pass that on to whoever polls it.
    let collecting = AssertUnwindSafe(async {
        while let Some(batch) = rows.next().await {
            add(&mut collector, &batch.context(Stage::Select, QUERY, failed)?)?;
        }
        Ok(())
    });
    collecting.catch_unwind().await.unwrap_or_else(|_| {
        let reason = "met a malformed page in a shard, on which the Parquet reader gave up; write that shard again";
        Err(Error::at(Stage::Select, QUERY, reason))
    })?;

    let selection = Selection::new(shards, collector.finish(), Provenance::of(sql))?;
    let wire = shards.store.wire().since(wire_before);
    let seconds = started.elapsed().as_secs_f64();
    let report = report(shards, &selection, physical.as_ref(), wire, seconds, warnings);
    Ok((selection, report))
}

fn add(collector: &mut Collector<'_>, batch: &RecordBatch) -> Result<()> {
    let ids = batch.column(0);
    if let Some(ids) = ids.as_primitive_opt::<UInt64Type>() {
        return collector.add(ids);
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let reason = "returns a sample_id below 0; return the sample_id of `shards` unchanged";
    let ids = cast_with_options(ids, &DataType::UInt64, &strict).context(Stage::Select, QUERY, reason)?;
    collector.add(ids.as_primitive::<UInt64Type>())
}

/// Exactly one column, `sample_id`, of integers.
fn check_output(plan: &LogicalPlan, shards: &ShardSet, schema: &Schema) -> Result<()> {
    let fields = plan.schema().fields();
    let mut problems = Vec::new();
    let ids: Vec<_> = fields.iter().filter(|field| field.name() == SAMPLE_ID).collect();
    match ids[..] {
        [] => problems.push(format!("returns no column {SAMPLE_ID}; add it to the SELECT list")),
        [id] if id.data_type().is_integer() => {}
        [id] => problems.push(format!("returns {SAMPLE_ID} as {}; return that of `shards` unchanged", id.data_type())),
        _ => problems.push(format!("returns {} columns {SAMPLE_ID}; keep one, or rename the others", ids.len())),
    }
    for field in fields.iter().filter(|field| field.name() != SAMPLE_ID) {
        let name = field.name();
        let is_blob = is_binary(field.data_type())
            || shards.blob_columns.contains(name)
            || schema.columns.iter().any(|column| column.role == Role::Blob && column.name == *name);
        problems.push(if is_blob {
            format!("returns the blob {name:?}; leave it out: training reads it for the selected rows")
        } else {
            format!("returns {name:?} beside {SAMPLE_ID}; leave it out: a selection holds samples only")
        });
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::at(Stage::Sql, QUERY, problems.join("\n  "))) }
}
