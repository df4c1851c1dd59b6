//! SQL over the narrow columns, once: which samples a run sees.
//!
//! | module | holds |
//! |---|---|
//! | [`shards`] | the files of a data set, numbered, with fingerprints and footers |
//! | [`mod@format`], [`ipc`] | how their rows lie in them: Parquet, Arrow IPC |
//! | [`columns`] | their columns as one table's |
//! | [`manifest`] | the list that fixes their order |
//! | [`mod@reference`] | shards whose blobs lie in other files; `referenced` reads these for SQL |
//! | [`counting_store`] | where they are; counts the bytes on the wire |
//! | [`session`], [`provider`], [`footer_cache`] | the table `shards` in DataFusion |
//! | [`functions`] | functions for SQL |
//! | [`sql`], [`materialise`] | any query over shards and files; its rows as shards |
//! | [`select`] | a query into a selection |
//! | [`selection`], [`extra`] | the selection, the values that travel with it, and its digest |
//! | [`twins`] | shards that one fingerprint stands for, told apart |
//! | [`selection_file`] | the same as one file, which needs no shards |
//! | [`combine`], [`difference`] | union, intersection and difference of selections |
//! | [`tables`] | tables beside `shards` |
//! | [`words`] | what a query names, before it is planned |
//! | [`report`] | what it keeps, cost and saves |
//! | [`sorted`] | a warning about shards whose order spoils batches |

mod blob_reads;
pub mod by_value;
mod collect;
pub mod columns;
pub mod combine;
mod content_sample;
pub mod counting_store;
mod culprit;
pub mod difference;
pub mod extra;
mod extra_file;
mod faults;
mod files_as_tables;
mod footer;
pub mod footer_cache;
pub mod format;
pub mod functions;
pub(crate) mod glob;
mod header_columns;
mod ignored;
pub mod ipc;
pub(crate) mod locate;
mod locate_remote;
pub mod long_series;
pub mod manifest;
pub mod materialise;
mod precedence;
pub mod provider;
pub mod reference;
mod referenced;
pub mod report;
mod reproducible;
#[expect(clippy::module_inception, reason = "the file is named as the command that it runs")]
pub mod select;
pub mod selection;
pub mod selection_file;
pub mod session;
pub mod shards;
pub mod sorted;
mod spilling_pool;
mod spool;
pub mod sql;
pub mod tables;
pub mod twins;
pub mod warning;
pub mod words;
