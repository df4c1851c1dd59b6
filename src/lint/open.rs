//! Shards, opened together if they can be; else each for itself, so that one bad file hides nothing about the others.
use std::{collections::BTreeSet, sync::Arc};

use super::{Finding, Kind, Place};
use crate::{
    error::{Error, Result},
    schema::Schema,
    select::{
        locate::locate,
        shards::{Shard, ShardSet},
    },
    stores::routing_store::Stores,
};

/// What could be opened, and what could not.
#[derive(Debug)]
pub(super) struct Opened {
    /// `None` where no shard could be.
    pub(super) set: Option<ShardSet>,
    pub(super) unread: Vec<Finding>,
    /// Columns that some shards lack, one sentence each.
    pub(super) differences: Vec<String>,
}

/// # Errors
/// No file is named, or shards of which each is sound do not go together.
pub(super) async fn open(patterns: &[String], schema: &Schema, stores: &Arc<Stores>) -> Result<Opened> {
    let open =
        |patterns: Vec<String>| async move { ShardSet::open_through(&patterns, schema, Arc::clone(stores)).await };
    let mut unread = vec![];
    let set = match open(patterns.to_vec()).await {
        Ok(set) => Some(set),
        Err(_) => {
            let (located, _) = locate(patterns, stores).await?;
            let mut sound = vec![];
            for file in located {
                match open(vec![file.name.clone()]).await {
                    Ok(_) => sound.push(file.name),
                    Err(error) => unread.push(unreadable(&file.name, &error)),
                }
            }
            if sound.is_empty() { None } else { Some(open(sound).await?) }
        }
    };
    let differences = set.as_ref().map(differences).unwrap_or_default();
    Ok(Opened { set, unread, differences })
}

pub(super) fn unreadable(shard: &str, error: &Error) -> Finding {
    let class = match error {
        Error::Stage { stage: crate::error::Stage::Schema, .. } => "schema",
        _ => "unreadable",
    };
    Finding {
        place: Place { sample_id: None, shard: shard.to_owned(), row: None },
        kind: Kind::Shard,
        class,
        message: error.report(),
        other: None,
    }
}

fn differences(set: &ShardSet) -> Vec<String> {
    // What opened once has a schema.
    let roots = |shard: &Shard| -> BTreeSet<String> {
        let schema = shard.format.arrow_schema(&shard.name).ok();
        schema.iter().flat_map(|schema| schema.fields()).map(|field| field.name().clone()).collect()
    };
    let all: Vec<BTreeSet<String>> = set.shards.iter().map(|shard| roots(shard)).collect();
    let columns: BTreeSet<&String> = all.iter().flatten().collect();
    let lacking = |column: &&String| {
        let without: Vec<usize> = (0..all.len()).filter(|&at| !all[at].contains(*column)).collect();
        let first = without.first().map(|&at| &set.shards[at].name)?;
        Some(format!("column {column:?} is missing in {} of {} shards, such as {first}", without.len(), all.len()))
    };
    columns.iter().filter_map(lacking).collect()
}
