//! `diptych check PIPELINE`: every mistake, without touching data or a device.
use super::{Named, output};
use crate::error::Result;

/// Prints what the pipeline resolves to, in one line or as a whole file.
///
/// # Errors
/// All mistakes.
pub fn run(named: &Named, resolved: bool) -> Result<()> {
    let plan = named.plan()?;
    if resolved {
        return output::line(plan.to_toml()?.trim_end());
    }
    let pipeline = &plan.pipeline;
    output::line(&format!(
        "{}: no mistakes. {} rows a batch of two {}-pixel views ({:.1} MB), {} epochs, peak learning rate {}, on {}.",
        plan.named,
        pipeline.prefetch.batch_rows,
        plan.side_pixels,
        (plan.item_bytes() * pipeline.prefetch.batch_rows as u64) as f64 / 1e6,
        pipeline.train.epochs,
        plan.peak_rate,
        pipeline.device,
    ))
}
