//! Where files lie: local disks, object stores and web servers behind one [`ObjectStore`].
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | `s3://bucket/key` and its relatives, taken apart |
//! | `connect` | an address's store, with credentials from the environment |
//! | `remote_store` | reads whose length is checked, and that are repeated where the network failed |
//! | [`routing_store`] | every store of a data set behind one |
//! | [`cache_folder`], [`caching_store`] | what was read from afar, kept on a local disk |
//! | [`refusal`] | what a store's error means and what to do about it |
//!
//! **Never a wrong byte.** A server may answer 503, close a connection in the middle of a body, or send less than it
//! announced. `object_store` repeats requests that failed and goes on with bodies that broke off where the object has an
//! e-tag; it does not notice a body that merely ends early. So every answer is read whole, its length compared with the
//! range that was asked for, and its version and size with those of earlier answers, and what came short is asked for
//! again.
//!
//! [`ObjectStore`]: datafusion::object_store::ObjectStore
pub mod address;
pub mod cache_folder;
pub mod caching_store;
mod connect;
pub mod refusal;
mod remote_store;
pub mod routing_store;

use datafusion::object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

/// `[scan.store]` of a pipeline: how patient reads from object stores and web servers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// How often a failed request is repeated.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// No request is repeated later than this after its first attempt.
    #[serde(default = "default_retry_seconds")]
    pub retry_seconds: u64,
    /// A request that took longer, its body included, has failed. Reads are at most 8 MiB, unless one image is larger.
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: u64,
    /// A connection that took longer to open has failed.
    #[serde(default = "default_connect_timeout_seconds")]
    pub connect_timeout_seconds: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            retries: default_retries(),
            retry_seconds: default_retry_seconds(),
            timeout_seconds: default_timeout_seconds(),
            connect_timeout_seconds: default_connect_timeout_seconds(),
        }
    }
}

fn default_retries() -> u32 {
    5
}
fn default_retry_seconds() -> u64 {
    60
}
fn default_timeout_seconds() -> u64 {
    30
}
fn default_connect_timeout_seconds() -> u64 {
    10
}

/// What tells one state of an object from another of the same size: its e-tag or, where the server gives none that holds for
/// all of its copies, the time of its last change. `None` where it tells neither.
pub(crate) fn version_of(meta: &ObjectMeta) -> Option<String> {
    strong_tag(meta).or_else(|| changed_at(meta).map(|changed| format!("changed {changed}")))
}

/// A weak e-tag may differ between servers that hold the same bytes.
fn strong_tag(meta: &ObjectMeta) -> Option<String> {
    meta.e_tag.clone().filter(|e_tag| !e_tag.starts_with("W/"))
}

/// Microseconds; a header that is missing is read as the beginning of time.
fn changed_at(meta: &ObjectMeta) -> Option<i64> {
    Some(meta.last_modified.timestamp_micros()).filter(|changed| *changed > 0)
}
