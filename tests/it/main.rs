//! Integration tests: one topic per file.
mod architecture;
mod augment;
mod bad_data;
mod cli;
mod commands;
mod evaluate;
mod gradients;
mod import;
mod import_sources;
mod loss;
mod memory;
mod optimizers;
mod pipeline;
mod prefetch;
mod resume;
mod scan;
mod select;
