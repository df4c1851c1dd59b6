//! Integration tests: one topic per file.
mod architecture;
mod augment;
mod cli;
mod cpc;
mod evaluate;
mod gradients;
mod import;
mod loss;
mod optimizers;
mod pipeline;
mod prefetch;
mod resume;
mod scan;
mod select;
