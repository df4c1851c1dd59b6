//! The method that a plan names, with its initial weights.
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use crate::{
    batch::Input,
    error::Result,
    method::{BatchRows, CLIP, CPC, Embedded, Method, MethodOutput, MethodSettings, SimCLR},
    model::InitOptions,
    pipeline::Plan,
    train::Compat,
};

/// One of the methods. Weights are known by the method's own names: the variant is no part of a path.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a run has one; a box would only add a hop")]
pub enum PlannedMethod {
    /// `[method.simclr]`
    Simclr(SimCLR),
    /// `[method.cpc]`
    Cpc(CPC),
    /// `[method.clip]`
    Clip(CLIP),
}

impl PlannedMethod {
    /// As the plan has it.
    ///
    /// # Errors
    /// Settings that only the method can judge.
    pub fn new(plan: &Plan, device: &Device) -> Result<Self> {
        let compat_torch = plan.pipeline.train.compat == Some(Compat::Torch);
        let init = InitOptions { seed: plan.pipeline.seed, compat_torch };
        match &plan.pipeline.method {
            MethodSettings::Simclr(settings) => SimCLR::new(settings, init, device).map(Self::Simclr),
            MethodSettings::Cpc(settings) => CPC::new(settings, init, device).map(Self::Cpc),
            MethodSettings::Clip(settings) => CLIP::new(settings, init, device).map(Self::Clip),
        }
    }

    /// The method, where it is CLIP.
    pub fn clip(&self) -> Option<&CLIP> {
        match self {
            Self::Clip(method) => Some(method),
            Self::Simclr(_) | Self::Cpc(_) => None,
        }
    }
}

impl Method for PlannedMethod {
    fn name(&self) -> &'static str {
        match self {
            Self::Simclr(method) => method.name(),
            Self::Cpc(method) => method.name(),
            Self::Clip(method) => method.name(),
        }
    }

    fn feature_width(&self) -> usize {
        match self {
            Self::Simclr(method) => method.feature_width(),
            Self::Cpc(method) => method.feature_width(),
            Self::Clip(method) => method.feature_width(),
        }
    }

    fn features_in_words(&self) -> &'static str {
        match self {
            Self::Simclr(method) => method.features_in_words(),
            Self::Cpc(method) => method.features_in_words(),
            Self::Clip(method) => method.features_in_words(),
        }
    }

    fn least_items(&self) -> usize {
        match self {
            Self::Simclr(method) => method.least_items(),
            Self::Cpc(method) => method.least_items(),
            Self::Clip(method) => method.least_items(),
        }
    }

    fn decays_vectors_in_torch(&self) -> bool {
        match self {
            Self::Simclr(method) => method.decays_vectors_in_torch(),
            Self::Cpc(method) => method.decays_vectors_in_torch(),
            Self::Clip(method) => method.decays_vectors_in_torch(),
        }
    }

    fn prepare(self, first: Input) -> Result<Self> {
        match self {
            Self::Simclr(method) => method.prepare(first).map(Self::Simclr),
            Self::Cpc(method) => method.prepare(first).map(Self::Cpc),
            Self::Clip(method) => method.prepare(first).map(Self::Clip),
        }
    }

    fn train_loss(&mut self, input: Input, step: u64) -> Result<MethodOutput> {
        match self {
            Self::Simclr(method) => method.train_loss(input, step),
            Self::Cpc(method) => method.train_loss(input, step),
            Self::Clip(method) => method.train_loss(input, step),
        }
    }

    fn features(&self, input: Input) -> Result<Tensor<2>> {
        match self {
            Self::Simclr(method) => method.features(input),
            Self::Cpc(method) => method.features(input),
            Self::Clip(method) => method.features(input),
        }
    }

    fn refuses_chunks(&self) -> Option<String> {
        match self {
            Self::Simclr(method) => method.refuses_chunks(),
            Self::Cpc(method) => method.refuses_chunks(),
            Self::Clip(method) => method.refuses_chunks(),
        }
    }

    fn embed(&mut self, input: Input, rows: BatchRows) -> Result<Embedded> {
        match self {
            Self::Simclr(method) => method.embed(input, rows),
            Self::Cpc(method) => method.embed(input, rows),
            Self::Clip(method) => method.embed(input, rows),
        }
    }

    fn loss_of(&self, embedded: Embedded) -> Result<MethodOutput> {
        match self {
            Self::Simclr(method) => method.loss_of(embedded),
            Self::Cpc(method) => method.loss_of(embedded),
            Self::Clip(method) => method.loss_of(embedded),
        }
    }

    fn after_step(&mut self) {
        match self {
            Self::Simclr(method) => method.after_step(),
            Self::Cpc(method) => method.after_step(),
            Self::Clip(method) => method.after_step(),
        }
    }
}
