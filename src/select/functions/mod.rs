//! Functions for SQL, one per file, named as the user types them.
//!
//! | function | gives |
//! |---|---|
//! | [`sample_uniform`] | a random number per sample, the same in every run |
use datafusion::logical_expr::ScalarUDF;

use super::shards::ShardSet;

pub mod sample_uniform;

/// All of them, for a session over `set`.
pub fn all(set: &ShardSet) -> Vec<ScalarUDF> {
    let fingerprints = set.shards.iter().map(|shard| shard.fingerprint);
    vec![ScalarUDF::from(sample_uniform::SampleUniform::new(fingerprints))]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use datafusion::arrow::datatypes::Schema as ArrowSchema;

    use super::*;
    use crate::select::counting_store::CountingStore;

    #[test]
    fn names_are_unique_and_shadow_nothing() {
        let set = ShardSet {
            shards: Vec::new(),
            store: Arc::new(CountingStore::local()),
            reads: Arc::new(CountingStore::local()),
            columns: Arc::new(ArrowSchema::empty()),
            blob_columns: Vec::new(),
            warnings: Vec::new(),
        };
        let ours: Vec<String> = all(&set).iter().map(|function| function.name().to_owned()).collect();
        assert_eq!(ours.iter().collect::<BTreeSet<_>>().len(), ours.len());
        let theirs = datafusion::functions::all_default_functions();
        assert!(theirs.iter().all(|function| !ours.contains(&function.name().to_owned())));
    }
}
