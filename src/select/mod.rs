//! SQL over the narrow columns, once: which samples a run sees.
//!
//! | module | holds |
//! |---|---|
//! | [`shards`] | the files of a data set, numbered, with fingerprints and footers |
//! | [`manifest`] | the list that fixes their order |
//! | [`reference`] | shards whose blobs lie in other files |
//! | [`counting_store`] | where they are; counts the bytes on the wire |
//! | [`session`], [`provider`], [`footer_cache`] | the table `shards` in DataFusion |
//! | [`functions`] | functions for SQL |
//! | [`sql`], [`materialise`] | any query over shards and files; its rows as shards |
//! | [`select`] | a query into a selection |
//! | [`selection`] | the selection and its digest; saved as one file |
//! | [`report`] | what it keeps, cost and saves |
//! | [`sorted`] | a warning about shards whose order spoils batches |

mod blob_reads;
mod collect;
mod columns;
pub mod counting_store;
mod faults;
mod files_as_tables;
mod footer;
pub mod footer_cache;
pub mod functions;
pub(crate) mod glob;
mod header_columns;
mod ignored;
mod locate;
mod locate_remote;
pub mod manifest;
pub mod materialise;
mod precedence;
pub mod provider;
pub mod reference;
pub mod report;
mod reproducible;
#[expect(clippy::module_inception, reason = "the file is named as the command that it runs")]
pub mod select;
pub mod selection;
mod selection_file;
pub mod session;
pub mod shards;
pub mod sorted;
mod spool;
pub mod sql;
pub mod warning;
