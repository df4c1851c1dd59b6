//! SQL, once, into a selection.
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{ArrayRef, AsArray, UInt64Array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, SchemaRef, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, StreamExt};

use super::blob_reads;
use super::collect::Collector;
use super::culprit::culprit;
use super::extra::{ExtraColumns, Gatherer, columns_of};
use super::functions::clip_score::ClipScores;
use super::ignored;
use super::precedence;
use super::provider::SAMPLE_ID;
use super::report::{SelectReport, report};
use super::reproducible;
use super::selection::{Provenance, SelectedGroup, Selection};
use super::session::{default_partitions, session};
use super::shards::{ShardSet, hex};
use super::sql::BLOB_BATCH_ROWS;
use super::tables::Tables;
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
/// Further columns travel with the samples and override the shards' columns of the same names.
///
/// # Errors
/// SQL that DataFusion does not accept or that would not give the same answer again, output without `sample_id`, with
/// blobs or with values that are not narrow, ids that are NULL or name no row, shards that cannot be read.
pub async fn select(shards: &ShardSet, schema: &Schema, sql: &str) -> Result<(Selection, SelectReport)> {
    Query::new(shards, schema, sql).select().await
}

/// Runs `sql` again with other numbers of partitions and compares the digests with `expected`.
///
/// # Errors
/// As [`Query::verify`].
pub async fn verify(shards: &ShardSet, schema: &Schema, sql: &str, expected: [u8; 32]) -> Result<()> {
    Query::new(shards, schema, sql).verify(expected).await
}

/// Plans `sql` with `partitions` parallel parts.
///
/// # Errors
/// As [`Query::plan`].
pub async fn plan(shards: &ShardSet, schema: &Schema, sql: &str, partitions: usize) -> Result<SelectPlan> {
    Query::new(shards, schema, sql).plan(partitions).await
}

/// A query and all that it may read.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// The table `shards`.
    pub shards: &'a ShardSet,
    /// What the shards were checked against.
    pub schema: &'a Schema,
    /// One SELECT.
    pub sql: &'a str,
    /// The tables beside `shards`.
    pub tables: Tables,
    /// What `clip_score` asks, where the query may call it.
    pub model: Option<ClipScores>,
}

/// A checked query, ready to run; `diptych explain` prints `physical`.
#[derive(Debug)]
pub struct SelectPlan {
    /// What DataFusion runs.
    pub physical: Arc<dyn ExecutionPlan>,
    /// The session that runs it.
    pub state: SessionState,
    /// The columns that travel with the samples.
    pub extra: SchemaRef,
    /// About the shards and the query.
    pub warnings: Vec<Warning>,
}

impl<'a> Query<'a> {
    /// A query over `shards` alone.
    pub fn new(shards: &'a ShardSet, schema: &'a Schema, sql: &'a str) -> Self {
        Self { shards, schema, sql, tables: Tables::none(), model: None }
    }

    /// Runs it into a selection.
    ///
    /// # Errors
    /// As [`select`].
    pub async fn select(&self) -> Result<(Selection, SelectReport)> {
        self.run(default_partitions()).await
    }

    /// Runs it again with other numbers of partitions and compares the digests with `expected`.
    ///
    /// # Errors
    /// Any run that gives another selection; the error says which.
    pub async fn verify(&self, expected: [u8; 32]) -> Result<()> {
        let mut differing = Vec::new();
        for partitions in VERIFY_PARTITIONS {
            let (selection, _) = self.run(partitions).await?;
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

    /// Plans it with `partitions` parallel parts, and refuses what makes no selection. No shard is read.
    ///
    /// # Errors
    /// As [`select`], as far as the text of the query tells.
    pub async fn plan(&self, partitions: usize) -> Result<SelectPlan> {
        ignored::check(self.sql)?;
        precedence::check(self.sql)?;
        let context = session(self.shards, partitions)?;
        self.tables.register(&context).await?;
        self.model.iter().cloned().for_each(|model| context.register_udf(model.into_udf()));
        let mut state = context.state();
        let tables: Vec<String> = self.tables.provenance().into_iter().map(|table| table.name).collect();
        let refused = match tables.join(", ") {
            none if none.is_empty() => {
                "is not accepted (the table is `shards`); correct what the cause says".to_owned()
            }
            names => format!("is not accepted (the tables are shards, {names}); correct what the cause says"),
        };
        let plan = state.create_logical_plan(self.sql).await.context(Stage::Sql, QUERY, refused.as_str())?;
        let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        only_queries.verify_plan(&plan).context(Stage::Sql, QUERY, "must be one SELECT, which changes nothing")?;
        let extra = self.check_output(&plan)?;
        let mut warnings = self.shards.warnings.clone();
        warnings.extend(reproducible::check(&plan)?);
        let optimized = state.optimize(&plan).context(Stage::Sql, QUERY, refused.as_str())?;
        let blobs = blob_reads::of_shards(&optimized).context(Stage::Internal, QUERY, "cannot walk its plan")?;
        if blobs.is_some() {
            // As queries that print: 8,192 photographs at once would be a gigabyte.
            *state.config_mut() = state.config().clone().with_batch_size(BLOB_BATCH_ROWS);
        }
        warnings.extend(blobs);
        let planner = Arc::clone(state.query_planner());
        let physical = planner.create_physical_plan(&optimized, &state).await.context(Stage::Sql, QUERY, refused)?;
        Ok(SelectPlan { physical, state, extra, warnings })
    }

    async fn run(&self, partitions: usize) -> Result<(Selection, SelectReport)> {
        let started = Instant::now();
        let wire_before = self.shards.store.wire();
        let planned = self.plan(partitions).await?;
        let Collected { groups, extra } = match collect(self.shards, &planned).await {
            Ok(collected) => collected,
            Err(Unfinished::Answer(error)) => return Err(error),
            Err(Unfinished::Reading(error)) => return Err(culprit(self).await.unwrap_or(error)),
        };
        let mut tables = self.tables.provenance();
        tables.extend(self.model.iter().map(|model| model.provenance().clone()));
        let provenance = Provenance { tables, ..Provenance::of(self.sql) };
        let selection = Selection::with_extra(self.shards, groups, extra, provenance)?;
        let wire = self.shards.store.wire().since(wire_before);
        let seconds = started.elapsed().as_secs_f64();
        let report = report(self.shards, &selection, planned.physical.as_ref(), wire, seconds, planned.warnings);
        Ok((selection, report))
    }

    /// One column `sample_id` of integers; the others travel with the samples.
    fn check_output(&self, plan: &LogicalPlan) -> Result<SchemaRef> {
        let fields = plan.schema().fields();
        let mut problems = Vec::new();
        let ids: Vec<_> = fields.iter().filter(|field| field.name() == SAMPLE_ID).collect();
        match ids[..] {
            [] => problems.push(format!("returns no column {SAMPLE_ID}; add it to the SELECT list")),
            [id] if id.data_type().is_integer() => {}
            [id] => {
                problems.push(format!("returns {SAMPLE_ID} as {}; return that of `shards` unchanged", id.data_type()));
            }
            _ => problems.push(format!("returns {} columns {SAMPLE_ID}; keep one, or rename the others", ids.len())),
        }
        let is_blob = |name: &str| {
            self.shards.blob_columns.iter().any(|blob| blob == name)
                || self.schema.columns.iter().any(|column| column.role == Role::Blob && column.name == *name)
        };
        match columns_of(plan.schema().as_arrow(), is_blob) {
            Ok(extra) if problems.is_empty() => return Ok(extra),
            Ok(_) => {}
            Err(more) => problems.extend(more),
        }
        Err(Error::at(Stage::Sql, QUERY, problems.join("\n  ")))
    }
}

/// Why a query did not come to its end.
pub(crate) enum Unfinished {
    /// It returned ids or values that are none.
    Answer(Error),
    /// A shard could not be read, or the query failed over what was read.
    Reading(Error),
}

/// What a query returned.
pub(crate) struct Collected {
    groups: Vec<SelectedGroup>,
    extra: Option<ExtraColumns>,
}

/// Runs a planned query and gathers what it keeps.
pub(crate) async fn collect(shards: &ShardSet, planned: &SelectPlan) -> Result<Collected, Unfinished> {
    let failed = "cannot be run to its end; see the cause";
    let rows = execute_stream(Arc::clone(&planned.physical), planned.state.task_ctx());
    let mut rows = rows.context(Stage::Select, QUERY, failed).map_err(Unfinished::Reading)?;
    let mut collector = Collector::new(shards);
    let mut gatherer = match planned.extra.fields().is_empty() {
        true => None,
        false => Some(Gatherer::new(Arc::clone(&planned.extra)).map_err(Unfinished::Answer)?),
    };
    // Malformed pages can make the Parquet reader panic; the tasks of a plan pass that on to whoever polls it.
    let collecting = AssertUnwindSafe(async {
        while let Some(batch) = rows.next().await {
            let batch = batch.context(Stage::Select, QUERY, failed).map_err(Unfinished::Reading)?;
            add(&mut collector, gatherer.as_mut(), &batch).map_err(Unfinished::Answer)?;
        }
        Ok::<_, Unfinished>(())
    });
    collecting.catch_unwind().await.unwrap_or_else(|_| {
        let reason = "met a malformed page in a shard, on which the Parquet reader gave up; write that shard again";
        Err(Unfinished::Reading(Error::at(Stage::Select, QUERY, reason)))
    })?;
    let groups = collector.finish();
    let extra = gatherer.map(|gatherer| gatherer.finish(&groups)).transpose().map_err(Unfinished::Answer)?;
    Ok(Collected { groups, extra })
}

fn add(collector: &mut Collector<'_>, gatherer: Option<&mut Gatherer>, batch: &RecordBatch) -> Result<()> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let schema = batch.schema();
    let mut ids: Option<UInt64Array> = None;
    let mut extra: Vec<ArrayRef> = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.name() != SAMPLE_ID {
            extra.push(Arc::clone(column));
            continue;
        }
        let reason = "returns a sample_id below 0; return the sample_id of `shards` unchanged";
        let column = cast_with_options(column, &DataType::UInt64, &strict).context(Stage::Select, QUERY, reason)?;
        ids = Some(column.as_primitive::<UInt64Type>().clone());
    }
    let Some(ids) = ids else { return Err(Error::internal("a batch of a checked query has no sample_id")) };
    collector.add(&ids)?;
    match gatherer {
        Some(gatherer) => gatherer.add(&ids, &extra),
        None => Ok(()),
    }
}
