//! Integration tests: one topic per file.
mod architecture;
mod augment;
mod cli;
mod evaluate;
mod gradients;
mod import;
mod import_sources;
mod index;
mod loss;
mod optimizers;
mod pipeline;
mod prefetch;
mod resume;
mod s3_server;
mod scan;
mod select;
mod stores;
