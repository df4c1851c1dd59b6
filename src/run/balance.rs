//! `[scan.balance]`: one source per value of a column, all of the same weight.
use std::{fs, sync::Arc};

use super::{
    choose::{Choice, Chosen, How},
    data::Data,
    folder::{RunFolder, SELECTION},
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    pipeline::Plan,
    scan::{
        BalanceSettings,
        mixture::{BLOCK_ITEMS, Mixture, Source},
    },
    select::{by_value::by_value, report::SelectReport, selection::Selection},
};

/// Letters of a value that a source's name shows.
const NAME_LETTERS: usize = 40;

/// The samples that a query or a file keeps, balanced.
///
/// # Errors
/// The column's; groups of fewer samples than there are lanes.
pub(super) fn balanced(
    data: &Data,
    plan: &Plan,
    balance: &BalanceSettings,
    whole: &Selection,
    how: How,
) -> Result<Choice> {
    let column = balance.column.as_str();
    let groups = data.runtime.block_on(by_value(&data.shards, whole, column, BLOCK_ITEMS as usize))?;
    let lanes = u64::from(plan.pipeline.scan.lanes);
    let (mut sources, mut parts, mut small) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (value, selection)) in groups.into_iter().enumerate() {
        let value = value.as_deref().unwrap_or("NULL");
        if selection.items() < lanes {
            small.push(format!("{value:?} has {}", selection.items()));
        }
        let name = format!("{number:04}-{}", shown(value));
        let how = How::Value { column: column.to_owned(), value: value.to_owned() };
        let report = SelectReport::loaded(&data.shards, &selection);
        sources.push(Chosen { name: name.clone(), how, shards: Arc::clone(&data.shards), report });
        parts.push(Source { name, weight: 1.0, selection: Arc::new(selection) });
    }
    if !small.is_empty() {
        let reason = format!(
            "groups have fewer samples than the {lanes} lanes: {}; lower scan.lanes, or leave them out with scan.sql",
            small.join(", ")
        );
        return Err(Error::at(Stage::Select, "scan.balance", reason));
    }
    let base = match how {
        How::Sql(sql) => Some((sql, whole.digest())),
        How::File(_) | How::Value { .. } => None,
    };
    Ok(Choice { sources, mixture: mixture(parts, plan)?, base })
}

/// The sources of a run's folder, as they were when it began.
///
/// # Errors
/// There are none, a file's, or a shard that changed or is gone.
pub(super) fn load(folder: &RunFolder, data: &Data, plan: &Plan) -> Result<Mixture> {
    let place = folder.path().display().to_string();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.path()).context(Stage::Select, &place, "cannot be listed; check permissions")? {
        let name = entry.context(Stage::Select, &place, "cannot be listed; check permissions")?.file_name();
        let name = name.to_string_lossy().into_owned();
        let is_numbered = name.split_once('-').is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        let source = name.strip_suffix(SELECTION).and_then(|name| name.strip_suffix('.'));
        names.extend(source.filter(|_| is_numbered).map(str::to_owned));
    }
    // The order in which they were mixed.
    names.sort_unstable();
    let source = |name: String| {
        let selection = Arc::new(data.load_selection(&folder.selection(&name))?);
        Ok(Source { name, weight: 1.0, selection })
    };
    let parts: Vec<Source> = names.into_iter().map(source).collect::<Result<_>>()?;
    if parts.is_empty() {
        let reason = "holds no selections of its groups; they were taken away, so begin a new run";
        return Err(Error::at(Stage::Select, place, reason));
    }
    mixture(parts, plan)
}

fn mixture(parts: Vec<Source>, plan: &Plan) -> Result<Mixture> {
    let scan = &plan.pipeline.scan;
    Ok(Mixture::new(parts, scan.epoch_items)?.in_batches(plan.pipeline.prefetch.batch_rows, scan.lanes))
}

/// A value as a part of a file's name.
fn shown(value: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    value.chars().take(NAME_LETTERS).map(letter).collect()
}
