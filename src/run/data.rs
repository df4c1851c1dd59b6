//! The data half of a command: shards opened once, selections made of them, epochs planned over those.
use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt as _;
use tokio::runtime::{Builder, Runtime};

use super::{clip_model::ClipModel, progress};
use crate::{
    augment::image::recipe::RecipeProblem,
    error::{Context as _, Error, Result, Stage},
    pair::{
        PairSettings, SampleKernel, context_future::ContextFuture, image_text::ImageText, one_view::OneView,
        past_future::PastFuture, sentences::Sentences, two_views::TwoViews,
    },
    pipeline::Plan,
    prefetch::{Queue, prefetch},
    scan::{
        ScanSettings, SourceSettings, World,
        epoch::{EpochPlan, HandedOn},
        mixture::Mixture,
        order::Order,
        quarantine::Quarantine,
    },
    schema::Schema,
    select::{
        functions::clip_score::{ClipScores, NAME as CLIP_SCORE},
        report::SelectReport,
        select::Query,
        selection::Selection,
        shards::ShardSet,
        sql::{SqlSession, SqlSettings},
        tables::Tables,
        words,
    },
    stores::routing_store::Stores,
};

/// Reads wait most of their time; decoding has threads of its own, so that neither blocks the other.
const IO_THREADS: usize = 2;
const MEGABYTE: u64 = 1 << 20;
/// What sorts, joins and groups of [`Data::sql_session`] may hold.
const SESSION_BYTES: usize = 1 << 30;

/// Shards, opened, and the runtime that reads them.
#[derive(Debug)]
pub struct Data {
    /// Where queries, reads and the queue run.
    pub runtime: Runtime,
    /// What the shards were checked against.
    pub schema: Schema,
    /// The numbered set, of all sources together.
    pub shards: Arc<ShardSet>,
    /// `[scan]`: where tables lie.
    scan: ScanSettings,
    /// With the pipeline's patience and cache.
    stores: Arc<Stores>,
    tables: OnceLock<Tables>,
    /// As the pipeline names it.
    device: String,
    /// What `clip_score` asks; read when the first query calls it.
    model: Mutex<Option<ClipScores>>,
}

impl Data {
    /// Opens the shards of a plan.
    ///
    /// # Errors
    /// No threads; a pattern without shards, shards that differ from their schema.
    pub fn open(plan: &Plan) -> Result<Self> {
        let runtime = io_runtime()?;
        let scan = &plan.pipeline.scan;
        let schema = Schema::named(&scan.schema)?.with_names_in_files(&scan.columns)?;
        let stores = Arc::new(Stores::of_pipeline(&scan.store, scan.cache.as_ref())?);
        let shards =
            Arc::new(runtime.block_on(ShardSet::open_through(&scan.all_shards(), &schema, Arc::clone(&stores)))?);
        let (scan, device, tables) = (scan.clone(), plan.pipeline.device.clone(), OnceLock::new());
        Ok(Self { runtime, schema, shards, scan, stores, tables, device, model: Mutex::default() })
    }

    /// The shards of one source, with ordinals of their own.
    ///
    /// # Errors
    /// As [`ShardSet::open`].
    pub fn open_source(&self, source: &SourceSettings) -> Result<Arc<ShardSet>> {
        let opening = ShardSet::open_through(&source.shards, &self.schema, Arc::clone(&self.stores));
        Ok(Arc::new(self.runtime.block_on(opening)?))
    }

    /// The tables beside `shards`; found and hashed when the first query wants them.
    ///
    /// # Errors
    /// A table is missing, or of a format that is not read.
    pub fn tables(&self) -> Result<&Tables> {
        if let Some(tables) = self.tables.get() {
            return Ok(tables);
        }
        let tables = Tables::open(&self.scan.tables)?;
        Ok(self.tables.get_or_init(|| tables))
    }

    /// The model of `[scan.clip_score]`, where the query calls it.
    fn model(&self, sql: &str) -> Result<Option<ClipScores>> {
        let is_called = |_: &&_| words::calls(sql, CLIP_SCORE);
        let Some(settings) = self.scan.clip_score.as_ref().filter(is_called) else { return Ok(None) };
        let mut kept = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            let (model, variant) = ClipModel::of_pipeline(settings, &self.device)?;
            *kept = Some(model.scores(variant)?);
        }
        Ok(kept.clone())
    }

    /// Frees what [`Self::query`] keeps of the model: a training that has its samples needs the memory.
    pub fn forget_model(&self) {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// A query of the pipeline over some of the shards, with all that it may read.
    ///
    /// # Errors
    /// The tables'; those of the weights that it asks for scores.
    pub fn query<'a>(&'a self, shards: &'a ShardSet, sql: &'a str) -> Result<Query<'a>> {
        Ok(Query { tables: self.tables()?.clone(), model: self.model(sql)?, ..Query::new(shards, &self.schema, sql) })
    }

    /// Runs a selection's SQL and logs what it warns of.
    ///
    /// # Errors
    /// The query's.
    pub fn select(&self, sql: &str) -> Result<(Selection, SelectReport)> {
        self.select_from(&self.shards, sql)
    }

    /// The same over some of the shards.
    ///
    /// # Errors
    /// The query's.
    pub fn select_from(&self, shards: &ShardSet, sql: &str) -> Result<(Selection, SelectReport)> {
        let (selection, report) = self.runtime.block_on(self.query(shards, sql)?.select())?;
        report.warnings.iter().for_each(|warning| progress::log(&format!("warning: {warning}")));
        Ok((selection, report))
    }

    /// A session for these queries, whose rows are looked at as they come, in the order of `sample_id`.
    ///
    /// # Errors
    /// The shards' and the tables'; those of the weights that a query asks for scores.
    pub fn sql_session(&self, queries: &[&str]) -> Result<SqlSession> {
        let settings = SqlSettings {
            shards: self.scan.all_shards(),
            schema: self.schema.clone(),
            stores: Arc::clone(&self.stores),
            memory_bytes: SESSION_BYTES,
        };
        let tables = self.tables()?;
        let models = queries.iter().map(|sql| self.model(sql)).collect::<Result<Vec<_>>>()?;
        self.runtime.block_on(async {
            let session = SqlSession::open(&settings).await?;
            session.give_tables(tables).await?;
            session.keep_order();
            models.into_iter().flatten().take(1).for_each(|model| session.give_model(model));
            Ok(session)
        })
    }

    /// A selection saved by [`Selection::save`].
    ///
    /// # Errors
    /// The file's, or a shard that changed or is gone.
    pub fn load_selection(&self, path: &Path) -> Result<Selection> {
        Selection::load(path, &self.shards)
    }

    /// Shuffled epochs of what `[pair]` makes.
    ///
    /// # Errors
    /// Ours: the recipe was checked before.
    pub fn training(&self, plan: &Plan, selection: Mixture, quarantine: Option<Quarantine>) -> Result<EpochPlan> {
        let augment = &plan.pipeline.augment;
        let kernel: Arc<dyn SampleKernel> = match &plan.pipeline.pair {
            PairSettings::TwoViews(pair) => Arc::new(TwoViews::new(pair, augment).map_err(unresolved)?),
            PairSettings::ImageText(pair) => {
                self.check_caption(&pair.caption, &selection)?;
                Arc::new(ImageText::new(pair, augment).map_err(unresolved)?)
            }
            PairSettings::OneView(pair) => Arc::new(OneView::training(pair, augment).map_err(unresolved)?),
            PairSettings::ContextFuture(pair) => Arc::new(ContextFuture::training(pair, augment).map_err(unresolved)?),
            PairSettings::PastFuture(pair) => Arc::new(PastFuture::training(pair, augment).map_err(unresolved)?),
            PairSettings::Sentences(pair) => Arc::new(Sentences::training(pair)),
        };
        let pair = &plan.pipeline.pair;
        let extra_columns = pair.group().into_iter().chain(pair.caption()).map(str::to_owned).collect();
        let rows_per_item = plan.pipeline.pair.rows_per_item();
        let epochs = self.epochs(plan, selection, kernel);
        Ok(EpochPlan { quarantine, extra_columns, batch_rows: epochs.batch_rows / rows_per_item, ..epochs })
    }

    /// One sequential epoch of one view under the evaluation recipe, with labels.
    ///
    /// # Errors
    /// Ours: the recipe was checked before.
    pub fn evaluation(&self, plan: &Plan, selection: Selection, labels: Vec<String>) -> Result<EpochPlan> {
        let kernel: Arc<dyn SampleKernel> = match &plan.pipeline.pair {
            pair @ (PairSettings::TwoViews(_) | PairSettings::OneView(_) | PairSettings::ImageText(_)) => {
                Arc::new(OneView::new(pair.column(), &plan.pipeline.augment).map_err(unresolved)?)
            }
            PairSettings::ContextFuture(pair) => Arc::new(ContextFuture::evaluation(pair).map_err(unresolved)?),
            PairSettings::PastFuture(pair) => Arc::new(PastFuture::evaluation(pair).map_err(unresolved)?),
            PairSettings::Sentences(pair) => Arc::new(Sentences::evaluation(pair)),
        };
        Ok(EpochPlan {
            extra_columns: labels,
            order: Order::Sequential,
            drop_last: false,
            pixel_digest: false,
            ..self.epochs(plan, selection.into(), kernel)
        })
    }

    /// Whether the texts are in the shards or among the values that the selection brings.
    fn check_caption(&self, name: &str, selection: &Mixture) -> Result<()> {
        let extra = selection.sources().first().and_then(|source| source.selection.extra());
        let is_brought = extra.is_some_and(|extra| extra.names().any(|brought| brought == name));
        let lacking = self.shards.shards.iter().find(|shard| shard.columns.get(name).is_none());
        let Some(shard) = lacking.filter(|_| !is_brought) else { return Ok(()) };
        let names: Vec<&str> = shard.columns.iter().map(|(name, _)| name).collect();
        let reason = format!(
            "there is no column {name:?} in {}, which has {}, and the query brings none of that name; name the column with \
             the captions, or map it in [scan.columns]",
            shard.name,
            names.join(", ")
        );
        Err(Error::at(Stage::Schema, "pair.image_text.caption", reason))
    }

    fn epochs(&self, plan: &Plan, selection: Mixture, kernel: Arc<dyn SampleKernel>) -> EpochPlan {
        let pipeline = &plan.pipeline;
        EpochPlan {
            shards: Arc::clone(&self.shards),
            selection,
            scan: pipeline.scan.clone(),
            kernel,
            extra_columns: vec![],
            seed: pipeline.seed,
            order: Order::Shuffled,
            batch_rows: pipeline.prefetch.batch_rows,
            drop_last: true,
            world: World::ONE,
            decode_threads: decode_threads(pipeline.augment.decode_threads),
            pixel_digest: pipeline.prefetch.pixel_digest,
            memory_bytes: pipeline.memory_megabytes.saturating_mul(MEGABYTE),
            quarantine: None,
            handed_on: HandedOn::default(),
        }
    }

    /// A queue over an epoch from one of its batches on.
    ///
    /// # Errors
    /// The epoch cannot be planned.
    pub fn queue(&self, plan: &Plan, epochs: &EpochPlan, epoch: u64, first_batch: u64) -> Result<Queue> {
        self.queue_noting(plan, epochs, epoch, first_batch, || ())
    }

    /// The same; `note` is called as each batch leaves the data half, before it waits in the queue.
    ///
    /// # Errors
    /// The epoch cannot be planned.
    pub fn queue_noting(
        &self,
        plan: &Plan,
        epochs: &EpochPlan,
        epoch: u64,
        first_batch: u64,
        mut note: impl FnMut() + Send + 'static,
    ) -> Result<Queue> {
        // Some streams spawn as they are made, not as they are polled.
        let _runtime = self.runtime.enter();
        let stream = epochs.execute(epoch, first_batch)?;
        let noting = RecordBatchStreamAdapter::new(stream.schema(), stream.inspect_ok(move |_| note()));
        let capacity = plan.pipeline.prefetch.capacity_megabytes.saturating_mul(MEGABYTE);
        Ok(prefetch(Box::pin(noting), capacity, self.runtime.handle()))
    }
}

/// The runtime that reads.
///
/// # Errors
/// No threads.
pub(super) fn io_runtime() -> Result<Runtime> {
    Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("io").enable_all().build().context(
        Stage::Internal,
        "io",
        "the system gives no threads",
    )
}

/// # Errors
/// A query kept nothing.
pub(super) fn check_some(key: &str, report: &SelectReport) -> Result<()> {
    if report.items > 0 {
        return Ok(());
    }
    let reason = match key.ends_with("selection") {
        true => "the selection holds no sample; select again".to_owned(),
        false => format!("the query keeps none of {} rows; change it, or import such samples", report.of),
    };
    Err(Error::at(Stage::Select, key, reason))
}

/// Threads that decode: 0 in a pipeline means one per core.
pub fn decode_threads(setting: usize) -> usize {
    match setting {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unresolved(problems: Vec<RecipeProblem>) -> Error {
    Error::internal(format!("a resolved recipe has mistakes: {problems:?}"))
}
