//! Shards of any schema, opened, and the epochs that tests run over them.
use std::{collections::BTreeMap, sync::Arc};

use diptych::{
    pair::SampleKernel,
    scan::{
        ScanSettings, World,
        epoch::{EpochPlan, HandedOn},
        order::Order,
    },
    schema::Schema,
    select::{select::select, shards::ShardSet},
};

use super::scan::runtime;

pub(crate) struct Opened {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) shards: Arc<ShardSet>,
    pub(crate) schema: Schema,
}

impl Opened {
    /// What `pattern` means in `folder`; `names` are ours and the files'.
    pub(crate) fn new(schema: &str, folder: tempfile::TempDir, pattern: &str, names: &[(&str, &str)]) -> Self {
        let names: BTreeMap<String, String> =
            names.iter().map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned())).collect();
        let schema = Schema::named(schema).expect("embedded").with_names_in_files(&names).expect("columns");
        let pattern = folder.path().join(pattern).display().to_string();
        let shards = Arc::new(runtime().block_on(ShardSet::open(&[pattern], &schema)).expect("shards"));
        Self { folder, shards, schema }
    }

    /// Shuffled epochs of 16 samples a batch, with small windows.
    pub(crate) fn epochs(&self, sql: &str, kernel: Arc<dyn SampleKernel>, group: Option<String>) -> EpochPlan {
        let (selection, _) = runtime().block_on(select(&self.shards, &self.schema, sql)).expect("a selection");
        EpochPlan {
            shards: Arc::clone(&self.shards),
            selection: (&Arc::new(selection)).into(),
            scan: ScanSettings {
                schema: self.schema.name.clone(),
                shuffle_window_rows: 32,
                shuffle_window_megabytes: 8,
                max_bad_share: 0.5,
                lanes: 4,
                ..ScanSettings::default()
            },
            kernel,
            extra_columns: group.into_iter().collect(),
            seed: 11,
            order: Order::Shuffled,
            batch_rows: 16,
            drop_last: true,
            world: World::ONE,
            decode_threads: 2,
            pixel_digest: true,
            memory_bytes: 64 << 20,
            quarantine: None,
            handed_on: HandedOn::default(),
        }
    }
}
