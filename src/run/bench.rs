//! `diptych bench PIPELINE`: streams batches without a trainer and measures.
use std::time::Instant;

use serde::Serialize;

use super::{
    Named,
    choose::choose,
    data::Data,
    memory, output,
    progress::{self, Progress},
};
use crate::{
    error::Result,
    pipeline::Plan,
    prefetch::Waits,
    scan::{epoch::EpochPlan, quarantine::Quarantine},
    select::counting_store::Wire,
};

/// Where the command line names neither seconds nor batches.
const DEFAULT_SECONDS: f64 = 20.0;
/// A shorter time is mostly that of starting, or of emptying a queue that was filled meanwhile.
const LEAST_SECONDS: f64 = 2.0;
/// Times the first batch's time that a measurement should take.
const LEAST_STARTS: f64 = 5.0;

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to stream.
    pub pipeline: Named,
    /// When to stop.
    pub seconds: Option<f64>,
    /// Or after how many batches.
    pub batches: Option<u64>,
    /// Ends with a JSON line.
    pub json: bool,
}

/// What was measured. One sample is one image, whatever the number of its views.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    /// Of all samples over all the time, that until the first batch included.
    samples_per_second: f64,
    samples: u64,
    batches: u64,
    epochs: u64,
    seconds: f64,
    first_batch_seconds: f64,
    trainer_waited_seconds: f64,
    data_waited_seconds: f64,
    wire_requests: u64,
    wire_bytes: u64,
    blob_bytes: u64,
    bad_rows: u64,
    peak_memory_bytes: u64,
    batch_rows: usize,
    side_pixels: u32,
    decode_threads: usize,
    pixel_digest: bool,
}

/// Streams and prints.
///
/// # Errors
/// Mistakes of the pipeline, the data's.
pub fn run(request: &Request) -> Result<()> {
    // As training does, so that what is measured is what training gets.
    memory::keep_freed_blocks();
    let plan = request.pipeline.plan()?;
    let data = Data::open(&plan)?;
    let selection = choose(&data, &plan)?.mixture;
    let quarantine = Quarantine::in_memory();
    let epochs = data.training(&plan, selection, Some(quarantine.clone()))?;
    let measured = stream(request, &plan, &data, &epochs, &quarantine)?;
    if let Some(warning) = too_short(measured.seconds, measured.first_batch_seconds) {
        progress::log(&format!("warning: {warning}"));
    }
    output::line(&text(&measured, &plan.row_in_words()))?;
    if request.json { output::json(&measured) } else { Ok(()) }
}

fn stream(
    request: &Request,
    plan: &Plan,
    data: &Data,
    epochs: &EpochPlan,
    quarantine: &Quarantine,
) -> Result<Measured> {
    let most_batches = request.batches.unwrap_or(u64::MAX);
    let limit = match (request.seconds, request.batches) {
        (Some(seconds), _) => seconds,
        (None, Some(_)) => f64::INFINITY,
        (None, None) => DEFAULT_SECONDS,
    };
    let mut bar = Progress::new("bench", request.batches.unwrap_or(0), "batches");
    let (started, before) = (Instant::now(), data.shards.store.wire());
    let (mut samples, mut batches, mut epoch) = (0, 0, 0);
    let mut first_batch = None;
    let mut waits = Waits::default();
    while batches < most_batches && started.elapsed().as_secs_f64() < limit {
        let mut queue = data.queue(plan, epochs, epoch, 0)?;
        epoch += 1;
        while batches < most_batches && started.elapsed().as_secs_f64() < limit {
            let Some(batch) = queue.next_batch()? else { break };
            samples += batch.num_rows() as u64;
            batches += 1;
            first_batch.get_or_insert_with(|| started.elapsed());
            bar.at(batches, &format!("{:.0} samples/s", samples as f64 / started.elapsed().as_secs_f64()));
        }
        let Waits { trainer_waited, data_waited } = queue.waits();
        waits.trainer_waited += trainer_waited;
        waits.data_waited += data_waited;
    }
    let (took, wire) = (started.elapsed(), data.shards.store.wire().since(before));
    bar.finish();
    let Wire { requests, bytes, blob_bytes } = wire;
    let first = first_batch.unwrap_or(took);
    Ok(Measured {
        samples_per_second: samples as f64 / took.as_secs_f64(),
        samples,
        batches,
        epochs: epoch,
        seconds: took.as_secs_f64(),
        first_batch_seconds: first.as_secs_f64(),
        trainer_waited_seconds: waits.trainer_waited.as_secs_f64(),
        data_waited_seconds: waits.data_waited.as_secs_f64(),
        wire_requests: requests,
        wire_bytes: bytes,
        blob_bytes,
        bad_rows: quarantine.state().rows,
        peak_memory_bytes: memory::peak_bytes().unwrap_or(0),
        batch_rows: epochs.batch_rows,
        side_pixels: plan.side_pixels,
        decode_threads: epochs.decode_threads,
        pixel_digest: epochs.pixel_digest,
    })
}

/// What to say of a figure that starting and the queue's first filling decide.
fn too_short(seconds: f64, first_batch_seconds: f64) -> Option<String> {
    let least = LEAST_SECONDS.max(LEAST_STARTS * first_batch_seconds);
    (seconds < least).then(|| {
        format!(
            "{seconds:.2} s are too few for a rate, the first batch alone took {first_batch_seconds:.2} s; \
             measure at least {:.0} s with --seconds",
            least.ceil()
        )
    })
}

fn text(measured: &Measured, row: &str) -> String {
    let Measured { samples_per_second, samples, batches, seconds, decode_threads, .. } = measured;
    format!(
        "{samples_per_second:.1} samples/s, each {row}, on {decode_threads} threads\n\
         samples          {samples} in {batches} batches, {seconds:.1} s, the first after {:.2} s\n\
         waits            reader {:.1} s, data {:.1} s\n\
         read             {:.1} MB in {} requests\n\
         bad rows         {}\n\
         peak memory      {:.0} MB",
        measured.first_batch_seconds,
        measured.trainer_waited_seconds,
        measured.data_waited_seconds,
        measured.wire_bytes as f64 / 1e6,
        measured.wire_requests,
        measured.bad_rows,
        measured.peak_memory_bytes as f64 / 1e6,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_mostly_starting_is_told() {
        assert!(too_short(0.5, 0.01).unwrap().contains("at least 2 s"));
        assert!(too_short(20.0, 5.0).unwrap().contains("at least 25 s"));
        assert!(too_short(20.0, 1.0).is_none());
    }
}
