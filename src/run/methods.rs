//! The method that a plan names, with its initial weights.
use burn::tensor::Device;

use crate::{
    error::Result,
    method::{MethodSettings, SimCLR},
    model::InitOptions,
    pipeline::Plan,
    train::Compat,
};

/// SimCLR as the plan has it.
///
/// # Errors
/// Settings that only the method can judge.
pub fn simclr(plan: &Plan, device: &Device) -> Result<SimCLR> {
    let MethodSettings::Simclr(settings) = &plan.pipeline.method;
    let compat_torch = plan.pipeline.train.compat == Some(Compat::Torch);
    SimCLR::new(settings, InitOptions { seed: plan.pipeline.seed, compat_torch }, device)
}
