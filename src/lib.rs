//! # Diptych: contrastive pre-training, from web-scale shards to a trained encoder
//!
//! ```text
//!  shards ──▶ select ──▶ scan ──▶ augment ──▶ pair ──▶ prefetch ──▶ train ──▶ evaluate
//!  Parquet    SQL: which  rows in   pixels,     which    bounded      loss and   frozen
//!             samples     epoch     samples,    rows     in bytes     optimizer  embeddings
//!                         order     tokens      meet
//!  └───────────────────── DataFusion ──────────────────┘└─ queue ─┘└────────── Burn ──────────┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`stores`] | local files, buckets and web servers behind one store |
//! | [`ingest`] | foreign data (folders, archives, Parquet, tables of paths, IDX, audio and other series) into shards |
//! | [`select`] | SQL over the narrow columns, once, into a selection with a digest |
//! | [`scan`] | the selection's rows in the order of an epoch: a pure function |
//! | [`augment`] | encoded images into pixels, stretches of series into windows, one keyed op per file |
//! | [`tokenize`] | captions into the ids of a text tower |
//! | [`lint`] | what is odd about a data set, as findings |
//! | [`pair`] | what meets in a batch: two views of one image, windows of series |
//! | [`prefetch`] | the queue between both halves, bounded in bytes |
//! | [`batch`] | Arrow tensors into device tensors: the one file that knows both halves |
//! | [`loss`], [`model`] | the mathematics, on Burn alone |
//! | [`method`] | encoder, head and loss of one published method |
//! | [`train`], [`evaluate`] | the loop and its checkpoints; frozen embeddings and their scores |
//! | [`pipeline`] | the pipeline file as written and as resolved |
//! | [`run`] | one function per command |
//!
//! Imports go one way: `run → pipeline → {train, evaluate} → method → batch →
//! {prefetch | stores, ingest, select, scan, augment, pair, lint} → {schema, device, loss, model, tokenize} → {error, seed}`; a test enforces it.
//!
//! ## Why not a map-style data set?
//!
//! A map-style data set (`__getitem__(index)`) answers random reads, so it wants every sample at hand and shuffles by
//! touching all of them; its state is the sampler's, the workers' and the queue's. Here the order of an epoch is a pure
//! function of a few numbers, reads are long and sequential, and the state to resume is the number of batches consumed.

pub mod augment;
pub mod batch;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod ingest;
pub mod lint;
pub mod loss;
pub mod method;
pub mod model;
pub mod pair;
pub mod pipeline;
pub mod prefetch;
pub mod run;
pub mod scan;
pub mod schema;
pub mod seed;
pub mod select;
pub mod stores;
pub mod synthetic;
pub mod tokenize;
pub mod train;

pub use error::{Error, Result};
