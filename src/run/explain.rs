//! `diptych explain PIPELINE [--analyze]`: the whole plan, scan to trainer.
use std::{sync::Arc, time::Instant};

use datafusion::{
    execution::TaskContext,
    physical_plan::{ExecutionPlan, display::DisplayableExecutionPlan, displayable},
};
use futures::StreamExt as _;

use super::{
    Named,
    choose::{Chosen, How, choose},
    data::Data,
    output,
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    pipeline::Plan,
    scan::epoch::EpochPlan,
    select::{report::SelectReport, sorted::sorted_by_low_cardinality},
    train::schedule::Schedule,
};

/// Batches that `--analyze` runs at most.
const ANALYZED_BATCHES: usize = 32;

/// As settings count: `memory_megabytes` and its parts must add up.
const MEGABYTE: f64 = (1 << 20) as f64;

/// Prints selection, DataFusion's plans, and our stages around them.
///
/// # Errors
/// Mistakes of the pipeline, the data's.
pub fn run(named: &Named, analyze: bool) -> Result<()> {
    let plan = named.plan()?;
    let data = Data::open(&plan)?;
    let choice = choose(&data, &plan)?;
    let epochs = data.training(&plan, choice.mixture.clone(), None)?;
    for chosen in &choice.sources {
        selected(&data, chosen)?;
    }
    for line in choice.mixture.describe(plan.pipeline.scan.lanes) {
        output::line(&line)?;
    }
    for warning in sorted_by_low_cardinality(&data.shards, &data.schema) {
        output::line(&format!("  warning: {warning}"))?;
    }
    let _runtime = data.runtime.enter();
    let physical = epochs.physical_plan(0, 0)?;
    output::line(&ordered(&plan, &epochs)?)?;
    if analyze {
        let analyzed = data.runtime.block_on(run_some(&physical))?;
        output::line(&format!("scan → augment, {analyzed}"))?;
        output::line(&indented(&DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(false).to_string()))?;
    } else {
        output::line("scan → augment:")?;
        output::line(&indented(&displayable(physical.as_ref()).indent(false).to_string()))?;
    }
    output::line(&trained(&plan, &epochs)?)
}

/// One source: its query or file, what it keeps, and the plan that found it.
fn selected(data: &Data, chosen: &Chosen) -> Result<()> {
    let name = if chosen.name.is_empty() { String::new() } else { format!(" {}", chosen.name) };
    match &chosen.how {
        How::Sql(sql) => output::line(&format!("select{name}: {sql}"))?,
        How::Value { column, value } => output::line(&format!("select{name}: those whose {column} is {value}"))?,
        How::File(path) => output::line(&format!("select{name}: as saved in {}", path.display()))?,
    }
    let SelectReport { items, of, row_groups, row_groups_pruned, digest, blob_bytes_selected, .. } = &chosen.report;
    output::line(&format!(
        "  {items} of {of} rows, digest {digest}; {row_groups_pruned} of {row_groups} row groups pruned; {:.1} MB of \
         blobs an epoch{}",
        *blob_bytes_selected as f64 / 1e6,
        match chosen.report.amplification() {
            words if words.is_empty() => words,
            words => format!("; {words}"),
        }
    ))?;
    if !chosen.report.extra_columns.is_empty() {
        output::line(&format!("  with {}", chosen.report.extra_columns.join(", ")))?;
    }
    if let How::Sql(sql) = &chosen.how {
        let query = data.query(&chosen.shards, sql)?;
        let select = data.runtime.block_on(query.plan(1))?;
        output::line(&indented(&displayable(select.physical.as_ref()).indent(false).to_string()))?;
    }
    chosen.report.warnings.iter().try_for_each(|warning| output::line(&format!("  warning: {warning}")))
}

fn ordered(plan: &Plan, epochs: &EpochPlan) -> Result<String> {
    let scan = &plan.pipeline.scan;
    let memory = epochs.memory()?;
    Ok(format!(
        "order: {} lanes, windows of {} rows or {} MB over all lanes; {} batches of {} an epoch, {} items dropped\n\
         memory: at most {} MB = {:.0} MB of encoded images, in the current windows and those read ahead, + {:.0} MB of \
         pixels, at {:.1} MB a batch, in work, in the queue and with the trainer{}",
        scan.lanes,
        scan.shuffle_window_rows,
        scan.shuffle_window_megabytes,
        epochs.batches_per_epoch(),
        epochs.batch_rows,
        epochs.items_dropped(),
        plan.pipeline.memory_megabytes,
        memory.window_bytes as f64 / MEGABYTE,
        memory.tensor_bytes as f64 / MEGABYTE,
        epochs.batch_bytes() as f64 / MEGABYTE,
        match memory.kept_bytes {
            0 => String::new(),
            bytes => format!(", + {:.0} MB of series that stay from pass to pass", bytes as f64 / MEGABYTE),
        },
    ))
}

fn trained(plan: &Plan, epochs: &EpochPlan) -> Result<String> {
    let pipeline = &plan.pipeline;
    let schedule = Schedule::new(&pipeline.train, epochs.batch_rows, epochs.batches_per_epoch());
    let method = toml::to_string(&pipeline.method).map_err(|error| Error::internal("no TOML").caused_by(error))?;
    let method = method.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    Ok(format!(
        "prefetch: at most {} MB of finished batches\ntrain: {schedule}, on {}\n{}",
        pipeline.prefetch.capacity_megabytes,
        pipeline.device,
        indented(&method)
    ))
}

/// Pulls the first batches through, without a trainer.
async fn run_some(plan: &Arc<dyn ExecutionPlan>) -> Result<String> {
    let cannot = "cannot run the plan";
    let started = Instant::now();
    let mut stream = plan.execute(0, Arc::new(TaskContext::default())).context(Stage::Scan, "", cannot)?;
    let (mut batches, mut rows) = (0, 0);
    while batches < ANALYZED_BATCHES
        && let Some(batch) = stream.next().await
    {
        rows += batch.context(Stage::Scan, "", cannot)?.num_rows();
        batches += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!("{batches} batches run without a trainer in {seconds:.2} s, {:.0} samples/s:", rows as f64 / seconds))
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
