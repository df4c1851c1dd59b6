//! SQL over the narrow columns, once: which samples a run sees.
pub mod selection;
pub mod shards;
