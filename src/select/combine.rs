//! Selections out of selections: union, intersection, difference of their samples.
//!
//! Samples decide: a sample is the same where shard (by fingerprint, and number among its twins) and row are. Where both selections have it, the
//! repeats and extra values of the first are kept. No shard need be at hand.
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::interleave;
use roaring::RoaringBitmap;

use super::extra::ExtraColumns;
use super::selection::{Provenance, SelectedGroup, SelectedShard, Selection};
use super::selection_file::{SavedSelection, columns_of};
use super::shards::hex;
use super::twins::doubtful;
use crate::error::{Context, Error, Result, Stage};

/// How two selections are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// Samples of either.
    Union,
    /// Samples of both.
    Intersection,
    /// Samples of the first that the second has not.
    Difference,
}

impl Combination {
    /// As the command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Union => "union",
            Self::Intersection => "intersect",
            Self::Difference => "minus",
        }
    }

    /// Rows that are kept of the first and, beside them, of the second.
    fn keep(self, a: &RoaringBitmap, b: &RoaringBitmap) -> (RoaringBitmap, RoaringBitmap) {
        match self {
            Self::Union => (a.clone(), b - a),
            Self::Intersection => (a & b, RoaringBitmap::new()),
            Self::Difference => (a - b, RoaringBitmap::new()),
        }
    }
}

/// A row group, whatever the ordinals: fingerprint, number among its twins, row group.
pub(crate) type GroupKey = ([u8; 32], u32, u32);

/// Where the groups of a selection stand.
pub(crate) fn groups_by_key(selection: &Selection) -> BTreeMap<GroupKey, usize> {
    let copies = copies(selection);
    let key = |group: &SelectedGroup| {
        let (fingerprint, copy) = copies[&group.shard];
        (fingerprint, copy, group.row_group)
    };
    selection.groups.iter().enumerate().map(|(at, group)| (key(group), at)).collect()
}

/// Fingerprint and number among its twins, by ordinal.
pub(crate) fn copies(selection: &Selection) -> BTreeMap<u32, ([u8; 32], u32)> {
    selection.shards().iter().map(|shard| (shard.ordinal, (shard.fingerprint, shard.twin.number))).collect()
}

/// Shards that both name and that are not the same files: their rows cannot be compared.
pub(crate) fn rewritten(a: &Selection, b: &Selection) -> Vec<String> {
    let of_b: BTreeMap<&str, &[u8; 32]> =
        b.shards().iter().map(|shard| (shard.name.as_str(), &shard.fingerprint)).collect();
    let known = |shard: &&SelectedShard| b.shards().iter().any(|other| other.fingerprint == shard.fingerprint);
    let mut named = Vec::new();
    for shard in a.shards().iter().filter(|shard| !known(shard)) {
        if let Some(other) = of_b.get(shard.name.as_str()) {
            let (one, two) = (hex(&shard.fingerprint), hex(other));
            named.push(format!("{} was written again in between ({} and {})", shard.name, &one[..16], &two[..16]));
        }
    }
    named
}

/// Combines two selections.
///
/// # Errors
/// Both name a shard that was written again in between, or shards of one fingerprint that cannot be told apart, or have
/// blobs of different columns; a union of selections with different extra columns.
pub fn combine(a: &SavedSelection, b: &SavedSelection, how: Combination) -> Result<SavedSelection> {
    let place = format!("{} {} {}", how.name(), a.place(), b.place());
    let (one, two) = (a.selection(), b.selection());
    if one.blobs_from() != two.blobs_from() {
        let reason = format!(
            "the blobs are from other columns: {} and {}; select both with the same [scan.columns]",
            columns_of(one.blobs_from()),
            columns_of(two.blobs_from())
        );
        return Err(Error::at(Stage::Select, place, reason));
    }
    let doubtful = doubtful(one, two);
    if !doubtful.is_empty() {
        let reason = format!(
            "shards that cannot be told apart cannot be compared:\n  {}\nselect both from the same shards in the same places",
            doubtful.join("\n  ")
        );
        return Err(Error::at(Stage::Select, place, reason));
    }
    let differing = rewritten(one, two);
    if !differing.is_empty() {
        let reason = format!(
            "rows of different files cannot be compared:\n  {}\nselect again from the same shards",
            differing.join("\n  ")
        );
        return Err(Error::at(Stage::Select, place, reason));
    }
    if how == Combination::Union {
        check_columns(one, two, &place)?;
    }
    let (of_a, of_b) = (groups_by_key(one), groups_by_key(two));
    let mut keys: Vec<GroupKey> = of_a.keys().chain(of_b.keys()).copied().collect();
    let listed = listed_shards(one, two);
    keys.sort_unstable_by_key(|key| (listed.get(&(key.0, key.1)).map(|(at, _)| *at), key.2));
    keys.dedup();

    let mut shards: Vec<SelectedShard> = Vec::new();
    let mut last = None;
    let mut groups = Vec::new();
    let mut values = one.extra().map(|_| Vec::new());
    for key in keys {
        let first = of_a.get(&key).copied();
        let second = of_b.get(&key).copied();
        let Some((group, sources)) = merge(one, two, first, second, how, &place)? else { continue };
        if last != Some((key.0, key.1)) {
            last = Some((key.0, key.1));
            let Some((_, shard)) = listed.get(&(key.0, key.1)) else {
                return Err(Error::internal("a selected row group belongs to no shard"));
            };
            shards.push(SelectedShard { ordinal: shards.len() as u32, ..shard.clone() });
        }
        if let (Some(values), Some(extra)) = (&mut values, one.extra()) {
            let parts = [first.and_then(|at| extra.group(at)), second.and_then(|at| two.extra()?.group(at))];
            values.push(gather(extra, parts, &sources)?);
        }
        groups.push(SelectedGroup { shard: shards.len() as u32 - 1, ..group });
    }
    let extra = one.extra().zip(values).map(|(extra, values)| ExtraColumns::new(Arc::clone(extra.schema()), values));
    let (blobs_from, total_rows) = (one.blobs_from().clone(), one.total_rows.max(two.total_rows));
    let selection = Selection::unbound(shards, blobs_from, groups, extra, total_rows, provenance(a, b, how))?;
    Ok(SavedSelection::new(selection, place))
}

fn provenance(a: &SavedSelection, b: &SavedSelection, how: Combination) -> Provenance {
    let told = |saved: &SavedSelection| format!("{} ({})", saved.place(), hex(&saved.selection().digest()));
    let mut provenance = Provenance::of(&format!("-- {}: {}, {}", how.name(), told(a), told(b)));
    let tables = [a, b].into_iter().flat_map(|saved| &saved.selection().provenance().tables);
    for table in tables {
        if !provenance.tables.contains(table) {
            provenance.tables.push(table.clone());
        }
    }
    provenance
}

/// Position and shard, for every shard of either, those of the first before those of the second.
fn listed_shards(a: &Selection, b: &Selection) -> BTreeMap<([u8; 32], u32), (usize, SelectedShard)> {
    let mut listed = BTreeMap::new();
    for selection in [a, b] {
        let copies = copies(selection);
        for shard in selection.shards() {
            let at = listed.len();
            listed.entry(copies[&shard.ordinal]).or_insert_with(|| (at, shard.clone()));
        }
    }
    listed
}

fn check_columns(a: &Selection, b: &Selection, place: &str) -> Result<()> {
    let columns = |selection: &Selection| -> Vec<String> {
        let mut columns = selection.extra().map_or_else(Vec::new, super::report::extra_columns);
        columns.sort_unstable();
        columns
    };
    let (one, two) = (columns(a), columns(b));
    if one == two {
        return Ok(());
    }
    let told = |columns: &[String]| if columns.is_empty() { "none".to_owned() } else { columns.join(", ") };
    let reason = format!(
        "the extra columns differ: {} and {}; select both with the same columns, or there would be items without values",
        told(&one),
        told(&two)
    );
    Err(Error::at(Stage::Select, place, reason))
}

/// Which selection an item comes from (0, 1), and which of its group's items it is.
type Sources = Vec<(usize, usize)>;

fn merge(
    a: &Selection,
    b: &Selection,
    first: Option<usize>,
    second: Option<usize>,
    how: Combination,
    place: &str,
) -> Result<Option<(SelectedGroup, Sources)>> {
    let nothing = RoaringBitmap::new();
    let one = first.map(|at| &a.groups[at]);
    let two = second.map(|at| &b.groups[at]);
    let rows = |group: Option<&SelectedGroup>| group.map_or_else(|| nothing.clone(), |group| group.rows.clone());
    let kept = how.keep(&rows(one), &rows(two));
    let Some(like) = one.or(two).filter(|_| !kept.0.is_empty() || !kept.1.is_empty()) else { return Ok(None) };
    if one.zip(two).is_some_and(|(one, two)| one.first_row != two.first_row) {
        let reason = "row groups of one shard begin at different rows: one of the files is damaged; select again";
        return Err(Error::at(Stage::Select, place, reason));
    }
    let mut repeats = BTreeMap::new();
    // Row, occurrence, which selection, which item there.
    let mut items: Vec<(u32, u32, usize, usize)> = Vec::new();
    for (side, group, kept) in [(0, one, &kept.0), (1, two, &kept.1)] {
        let Some(group) = group else { continue };
        repeats.extend(group.repeats.iter().filter(|(row, _)| kept.contains(**row)));
        let numbered = group.iter_items().enumerate();
        let of_side = numbered.filter(|(_, (row, _))| kept.contains(*row));
        items.extend(of_side.map(|(nth, (row, occurrence))| (row, occurrence, side, nth)));
    }
    items.sort_unstable();
    let mut rows = kept.0 | kept.1;
    rows.optimize();
    let group = SelectedGroup { rows, repeats, ..like.clone() };
    Ok(Some((group, items.into_iter().map(|(_, _, side, nth)| (side, nth)).collect())))
}

/// The extra values of a merged group.
fn gather(extra: &ExtraColumns, parts: [Option<&RecordBatch>; 2], sources: &Sources) -> Result<RecordBatch> {
    let broken = "cannot gather extra values";
    let schema = extra.schema();
    // Sides that have no such group leave no item, but the numbering stays.
    let empty = RecordBatch::new_empty(Arc::clone(schema));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let arrays: Vec<&dyn Array> = parts
            .iter()
            .map(|part| part.and_then(|part| part.column_by_name(field.name())))
            .map(|column| column.or_else(|| empty.column_by_name(field.name())))
            .map(|column| column.map(AsRef::as_ref).ok_or_else(|| Error::internal(broken)))
            .collect::<Result<_>>()?;
        columns.push(interleave(&arrays, sources).context(Stage::Select, "", broken)?);
    }
    RecordBatch::try_new(Arc::clone(schema), columns).context(Stage::Select, "", broken)
}
