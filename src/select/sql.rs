//! Any query over shards and files: what `diptych sql` runs.
use std::{fmt, ops::ControlFlow, panic::AssertUnwindSafe, sync::Arc};

use datafusion::{
    arrow::{datatypes::SchemaRef, record_batch::RecordBatch},
    execution::{TaskContext, context::SQLOptions, runtime_env::RuntimeEnvBuilder},
    logical_expr::{LogicalPlan, LogicalPlanBuilder, ident},
    physical_plan::{ExecutionPlan, execute_stream},
    prelude::{SessionConfig, SessionContext},
};
use futures::{FutureExt as _, StreamExt as _};

use super::{
    blob_reads, files_as_tables::allow_files, functions, functions::clip_score::ClipScores, ignored, precedence,
    session, shards::ShardSet, spilling_pool::SpillingPool, tables::Tables, warning::Warning,
};
use crate::{
    error::{Cause, Context as _, Error, Result, Stage},
    schema::Schema,
    stores::routing_store::Stores,
};

/// What messages call the SQL.
const QUERY: &str = "the query";
/// Rows of a batch where a query reads blobs: 8,192 photographs at once would be a gigabyte.
pub(super) const BLOB_BATCH_ROWS: usize = 256;
/// Memory below which a query has fewer parallel parts.
const SMALLEST_PART_BYTES: usize = 32 << 20;
/// Memory of a part below which its batches are small.
const WHOLE_BATCH_PART_BYTES: usize = 128 << 20;
const SMALL_BATCH_ROWS: usize = 1_024;

/// What a session may use.
#[derive(Debug, Clone)]
pub struct SqlSettings {
    /// Files, globs and folders that are the table `shards`; none: there is no such table.
    pub shards: Vec<String>,
    /// What `shards` are checked against.
    pub schema: Schema,
    /// What shards and files are read from.
    pub stores: Arc<Stores>,
    /// Bytes that sorts, joins and groups may hold together: sorts and groups spill to temporary files at three quarters of
    /// them, hash joins fail. Little memory makes for fewer parallel parts and smaller batches. Scans are not among them.
    pub memory_bytes: usize,
}

/// Tables and functions for queries.
pub struct SqlSession {
    context: SessionContext,
    shards: Option<ShardSet>,
}

impl fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlSession").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// Every parallel part of a query holds a few batches that cannot wait on disk.
fn config_within(memory_bytes: usize) -> SessionConfig {
    let parts = session::default_partitions().min(memory_bytes / SMALLEST_PART_BYTES).max(1);
    let mut config = session::config(parts).with_information_schema(true);
    let part_bytes = memory_bytes / parts;
    if part_bytes < WHOLE_BATCH_PART_BYTES {
        config = config.with_batch_size(SMALL_BATCH_ROWS);
    }
    let merge_bytes = config.options().execution.sort_spill_reservation_bytes;
    config.with_sort_spill_reservation_bytes(merge_bytes.min(part_bytes / 8))
}

impl SqlSession {
    /// Opens the shards, if there are any.
    ///
    /// # Errors
    /// As [`ShardSet::open`].
    pub async fn open(settings: &SqlSettings) -> Result<Self> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(SpillingPool::new(settings.memory_bytes)))
            .build_arc()
            .context(Stage::Select, "", "cannot make room for queries; see the cause")?;
        let context = SessionContext::new_with_config_rt(config_within(settings.memory_bytes), runtime);
        allow_files(&context, Arc::clone(&settings.stores)).context(
            Stage::Internal,
            "",
            "cannot name the local root",
        )?;
        let shards = match settings.shards.is_empty() {
            true => None,
            false => {
                let stores = Arc::clone(&settings.stores);
                Some(ShardSet::open_through(&settings.shards, &settings.schema, stores).await?)
            }
        };
        match &shards {
            Some(set) => session::register(&context, set)?,
            None => {
                functions::over([]).into_iter().for_each(|function| context.register_udf(function));
                context.register_udf(functions::clip_score::without_weights());
            }
        }
        Ok(Self { context, shards })
    }

    /// What the table `shards` is, where there is one.
    pub fn shards(&self) -> Option<&ShardSet> {
        self.shards.as_ref()
    }

    /// Lets queries call `clip_score` of a model.
    pub fn give_model(&self, model: ClipScores) {
        self.context.register_udf(model.into_udf());
    }

    /// Lets queries name further tables.
    ///
    /// # Errors
    /// As [`Tables::register`].
    pub async fn give_tables(&self, tables: &Tables) -> Result<()> {
        tables.register(&self.context).await
    }

    /// Runs scans in one part, so that rows of `shards` come in the order of their ids where the query keeps it.
    pub fn keep_order(&self) {
        self.context.state_ref().write().config_mut().options_mut().execution.target_partitions = 1;
    }

    /// With the remedy where a table is not there.
    fn refused(&self, cause: Cause, otherwise: &str) -> Error {
        let said = cause.to_string();
        let reason = match said.contains("table '") && said.contains("' not found") {
            true if said.contains("shards' not found") && self.shards.is_none() => {
                "is not accepted: there is no table `shards`; name its files with --shards"
            }
            true => {
                "is not accepted: it names a table that is not there; quote a file, folder or glob, as in \
                 FROM 'tables/*.csv'; --shards names what `shards` is"
            }
            false => otherwise,
        };
        Error::at(Stage::Sql, QUERY, reason).caused_by(cause)
    }

    /// Plans one statement that changes nothing; its rows are sorted by `sort_by` where that names columns.
    ///
    /// # Errors
    /// SQL that is not accepted, statements that write, columns to sort by that are not there.
    pub async fn plan(&self, sql: &str, sort_by: &[String]) -> Result<Query> {
        let refused = "is not accepted; correct what the cause says";
        ignored::check(sql)?;
        precedence::check(sql)?;
        let mut state = self.context.state();
        let plan = state.create_logical_plan(sql).await;
        let plan = plan.map_err(|error| self.refused(error.into(), refused))?;
        let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let remedy = "must change nothing: SELECT, EXPLAIN, SHOW or DESCRIBE; to write shards use --to";
        only_queries.verify_plan(&plan).context(Stage::Sql, QUERY, remedy)?;
        let kind = match &plan {
            LogicalPlan::Explain(_) | LogicalPlan::DescribeTable(_) => QueryKind::Description,
            LogicalPlan::Analyze(_) => QueryKind::Analysis,
            _ => QueryKind::Rows,
        };
        let plan = sorted(plan, sort_by)?;
        let optimized = state.optimize(&plan).context(Stage::Sql, QUERY, refused)?;
        let planner = Arc::clone(state.query_planner());
        let physical = planner.create_physical_plan(&optimized, &state).await.context(Stage::Sql, QUERY, refused)?;
        let mut blobs = Vec::new();
        if kind != QueryKind::Description {
            let walk = "cannot walk its plan";
            blobs.extend(blob_reads::of_shards(&optimized).context(Stage::Internal, QUERY, walk)?);
            blobs.extend(blob_reads::of_files(&optimized, &physical).context(Stage::Internal, QUERY, walk)?);
        }
        if !blobs.is_empty() {
            *state.config_mut() = state.config().clone().with_batch_size(BLOB_BATCH_ROWS);
        }
        let warnings = self.shards.iter().flat_map(|set| set.warnings.clone()).chain(blobs).collect();
        Ok(Query { physical, task: state.task_ctx(), kind, warnings, shards: self.shards.clone() })
    }
}

/// Whether a query prints rows or is about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// Rows of tables.
    Rows,
    /// EXPLAIN and DESCRIBE, which read nothing.
    Description,
    /// EXPLAIN ANALYZE, which reads and shows what that cost.
    Analysis,
}

/// A statement that is ready to run.
#[derive(Debug)]
pub struct Query {
    physical: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    /// What it prints.
    pub kind: QueryKind,
    /// About the shards, and the blobs that it is going to read.
    pub warnings: Vec<Warning>,
    shards: Option<ShardSet>,
}

impl Query {
    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        self.physical.schema()
    }

    /// Bytes of blobs that have been read from `shards` so far; nothing where there is no such table.
    pub fn blob_bytes_read(&self) -> Option<u64> {
        self.shards.as_ref().map(|set| set.store.wire().blob_bytes)
    }

    /// Runs the query and hands over batch after batch until there are no more, or `take` has seen enough.
    ///
    /// # Errors
    /// Files that cannot be read, memory that does not suffice, and those of `take`.
    pub async fn run(&self, mut take: impl FnMut(RecordBatch) -> Result<ControlFlow<()>>) -> Result<()> {
        let mut rows = execute_stream(Arc::clone(&self.physical), Arc::clone(&self.task)).map_err(failed)?;
        // Malformed pages can make the Parquet reader panic; the tasks of a plan pass that on to whoever polls it.
        let running = AssertUnwindSafe(async {
            while let Some(batch) = rows.next().await {
                if take(batch.map_err(failed)?)?.is_break() {
                    break;
                }
            }
            Ok(())
        });
        running.catch_unwind().await.unwrap_or_else(|_| {
            let reason = "met a malformed page in a file, on which the Parquet reader gave up; write that file again";
            Err(Error::at(Stage::Select, QUERY, reason))
        })
    }
}

fn failed(error: datafusion::error::DataFusionError) -> Error {
    let is_memory = matches!(error.find_root(), datafusion::error::DataFusionError::ResourcesExhausted(_));
    let reason = match is_memory {
        true => "needs more memory than it may have; raise --memory-megabytes, or group and join less at once",
        false => "cannot be run to its end; see the cause",
    };
    Error::at(Stage::Select, QUERY, reason).caused_by(error)
}

fn sorted(plan: LogicalPlan, columns: &[String]) -> Result<LogicalPlan> {
    if columns.is_empty() {
        return Ok(plan);
    }
    let names: Vec<&str> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(unknown) = columns.iter().find(|column| !names.contains(&column.as_str())) {
        let reason = format!("no column {unknown:?} to sort by; the query returns {}", names.join(", "));
        return Err(Error::at(Stage::CommandLine, "--sort-by", reason));
    }
    let keys = columns.iter().map(|column| ident(column).sort(true, false));
    LogicalPlanBuilder::from(plan).sort(keys).and_then(LogicalPlanBuilder::build).context(
        Stage::CommandLine,
        "--sort-by",
        "these columns have no order",
    )
}
