//! What a selection holds, and how two of them differ, shard by shard. No shard need be at hand.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use datafusion::arrow::array::{Array, RecordBatch, UInt64Array};
use datafusion::arrow::compute::kernels::cmp::distinct;
use datafusion::arrow::compute::take;
use serde::Serialize;

use super::combine::{copies, groups_by_key, rewritten};
use super::report::extra_columns;
use super::selection::{Provenance, SelectedGroup, Selection};
use super::selection_file::{SavedSelection, columns_of};
use super::shards::hex;
use super::twins::doubtful;
use crate::error::{Context, Result, Stage};

/// Digits of a fingerprint or digest in a table for people.
const SHORT: usize = 16;

/// `diptych selection show`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The file.
    pub file: String,
    /// Digest of the selection, hexadecimal.
    pub digest: String,
    /// Kept rows with their repeats.
    pub items: u64,
    /// Kept rows.
    pub samples: u64,
    /// Rows of the set from which they were selected.
    pub of: u64,
    /// Columns that travel with the items, as `name type`.
    pub extra_columns: Vec<String>,
    /// Blobs that are not in the columns of their names, and where they are.
    pub blobs_from: BTreeMap<String, String>,
    /// The query and the tables it read.
    pub provenance: Provenance,
    /// The shards that have items.
    pub shards: Vec<ShownShard>,
}

/// What a selection keeps of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownShard {
    /// As it was named then.
    pub name: String,
    /// Fingerprint, hexadecimal.
    pub fingerprint: String,
    /// Kept rows with their repeats.
    pub items: u64,
    /// Kept rows.
    pub samples: u64,
    /// Row groups that hold items.
    pub row_groups: usize,
}

impl Shown {
    /// Counts what `saved` holds.
    pub fn of(saved: &SavedSelection) -> Self {
        let selection = saved.selection();
        let shards = selection.shards().iter().map(|shard| {
            let own = || selection.groups.iter().filter(|group| group.shard == shard.ordinal);
            ShownShard {
                name: shard.name.clone(),
                fingerprint: hex(&shard.fingerprint),
                items: own().map(SelectedGroup::items).sum(),
                samples: own().map(|group| group.rows.len()).sum(),
                row_groups: own().count(),
            }
        });
        Self {
            file: saved.place().to_owned(),
            digest: hex(&selection.digest()),
            items: selection.items(),
            samples: selection.groups.iter().map(|group| group.rows.len()).sum(),
            of: selection.total_rows,
            extra_columns: selection.extra().map_or_else(Vec::new, extra_columns),
            blobs_from: selection.blobs_from().clone(),
            provenance: selection.provenance().clone(),
            shards: shards.collect(),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "items            {} of {} samples, selected from {} rows", self.items, self.samples, self.of)?;
        writeln!(f, "digest           {}", self.digest)?;
        if !self.extra_columns.is_empty() {
            writeln!(f, "extra columns    {}", self.extra_columns.join(", "))?;
        }
        if !self.blobs_from.is_empty() {
            writeln!(f, "blobs            {}", columns_of(&self.blobs_from))?;
        }
        writeln!(f, "written by       {}", self.provenance.written_by)?;
        writeln!(f, "query            {}", self.provenance.sql.trim().replace('\n', "\n                 "))?;
        for table in &self.provenance.tables {
            writeln!(f, "table            {}: {}, BLAKE3 {}", table.name, table.files.join(", "), table.blake3)?;
        }
        write!(f, "{:>12} {:>12} {:>10}  {:SHORT$}  shard", "items", "samples", "row groups", "fingerprint")?;
        for ShownShard { name, fingerprint, items, samples, row_groups } in &self.shards {
            write!(f, "\n{items:>12} {samples:>12} {row_groups:>10}  {}  {name}", &fingerprint[..SHORT])?;
        }
        Ok(())
    }
}

/// `diptych selection diff`, in samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whether both hold the same items with the same values: then their digests are equal.
    pub same: bool,
    /// Digests, hexadecimal.
    pub digests: [String; 2],
    /// Samples in both.
    pub in_both: u64,
    /// Those of them that repeat otherwise or have other extra values.
    pub otherwise: u64,
    /// Samples of the first alone.
    pub only_in_first: u64,
    /// Samples of the second alone.
    pub only_in_second: u64,
    /// The shards of either.
    pub shards: Vec<ShardDifference>,
    /// What the counts do not say.
    pub notes: Vec<String>,
}

/// The same for one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct ShardDifference {
    /// As the first, or else the second, names it.
    pub name: String,
    /// Fingerprint, hexadecimal.
    pub fingerprint: String,
    /// Samples in both.
    pub in_both: u64,
    /// Those of them that repeat otherwise or have other extra values.
    pub otherwise: u64,
    /// Samples of the first alone.
    pub only_in_first: u64,
    /// Samples of the second alone.
    pub only_in_second: u64,
}

/// Compares two selections.
///
/// # Errors
/// Ours.
pub fn difference(a: &SavedSelection, b: &SavedSelection) -> Result<Difference> {
    let (one, two) = (a.selection(), b.selection());
    let mut shards: BTreeMap<([u8; 32], u32), ShardDifference> = BTreeMap::new();
    for selection in [one, two] {
        let copies = copies(selection);
        for shard in selection.shards() {
            shards.entry(copies[&shard.ordinal]).or_insert_with(|| ShardDifference {
                name: shard.name.clone(),
                fingerprint: hex(&shard.fingerprint),
                ..ShardDifference::default()
            });
        }
    }
    let (of_a, of_b) = (groups_by_key(one), groups_by_key(two));
    let keys: BTreeSet<_> = of_a.keys().chain(of_b.keys()).copied().collect();
    for key in keys {
        let Some(shard) = shards.get_mut(&(key.0, key.1)) else { continue };
        match (of_a.get(&key), of_b.get(&key)) {
            (Some(&first), Some(&second)) => {
                let (rows, others) = (&one.groups[first].rows, &two.groups[second].rows);
                let both = rows & others;
                shard.in_both += both.len();
                shard.only_in_first += rows.len() - both.len();
                shard.only_in_second += others.len() - both.len();
                shard.otherwise += otherwise(one, two, first, second)?;
            }
            (Some(&first), None) => shard.only_in_first += one.groups[first].rows.len(),
            (None, Some(&second)) => shard.only_in_second += two.groups[second].rows.len(),
            (None, None) => {}
        }
    }
    let sum = |of: &dyn Fn(&ShardDifference) -> u64| shards.values().map(of).sum::<u64>();
    Ok(Difference {
        same: one.digest() == two.digest(),
        digests: [hex(&one.digest()), hex(&two.digest())],
        in_both: sum(&|shard| shard.in_both),
        otherwise: sum(&|shard| shard.otherwise),
        only_in_first: sum(&|shard| shard.only_in_first),
        only_in_second: sum(&|shard| shard.only_in_second),
        notes: notes(one, two),
        shards: shards.into_values().collect(),
    })
}

fn notes(a: &Selection, b: &Selection) -> Vec<String> {
    let mut notes: Vec<String> = rewritten(a, b);
    for note in &mut notes {
        note.push_str(": its rows are counted as different samples");
    }
    if a.blobs_from() != b.blobs_from() {
        notes.push(format!("blobs differ: {} and {}", columns_of(a.blobs_from()), columns_of(b.blobs_from())));
    }
    for pair in doubtful(a, b) {
        notes.push(format!("{pair}: taken for one shard where both were the same among those"));
    }
    let known = |shard: &super::selection::SelectedShard| b.shards().iter().any(|s| s.fingerprint == shard.fingerprint);
    if !a.shards().is_empty() && !b.shards().is_empty() && !a.shards().iter().any(known) {
        notes.push("the selections have no shard in common".into());
    }
    let columns = |selection: &Selection| selection.extra().map_or_else(Vec::new, extra_columns);
    let (one, two) = (columns(a), columns(b));
    for (columns, others, which) in [(&one, &two, "first"), (&two, &one, "second")] {
        for column in columns.iter().filter(|column| !others.contains(column)) {
            notes.push(format!("only the {which} has the extra column {column}"));
        }
    }
    notes
}

/// Samples of both groups that repeat otherwise or whose values in common columns differ.
fn otherwise(a: &Selection, b: &Selection, first: usize, second: usize) -> Result<u64> {
    let (one, two) = (&a.groups[first], &b.groups[second]);
    let times = |group: &SelectedGroup, row: u32| group.repeats.get(&row).copied().unwrap_or(1);
    let both = &one.rows & &two.rows;
    let mut differing: BTreeSet<u32> = both.iter().filter(|&row| times(one, row) != times(two, row)).collect();
    let values = a.extra().and_then(|extra| extra.group(first)).zip(b.extra().and_then(|extra| extra.group(second)));
    if let Some((values, others)) = values {
        let alike = |row: &u32| both.contains(*row) && !differing.contains(row);
        let places = |group: &SelectedGroup| -> (Vec<u32>, UInt64Array) {
            let numbered = (0_u64..).zip(group.iter_items());
            let kept: Vec<(u32, u64)> =
                numbered.filter(|(_, (row, _))| alike(row)).map(|(nth, (row, _))| (row, nth)).collect();
            (kept.iter().map(|kept| kept.0).collect(), kept.iter().map(|kept| kept.1).collect())
        };
        let ((rows, mine), (_, theirs)) = (places(one), places(two));
        let found = other_values(values, &mine, others, &theirs)?;
        differing.extend(found.into_iter().map(|at| rows[at]));
    }
    Ok(differing.len() as u64)
}

/// Positions at which a common column differs.
fn other_values(a: &RecordBatch, mine: &UInt64Array, b: &RecordBatch, theirs: &UInt64Array) -> Result<BTreeSet<usize>> {
    let broken = "cannot compare extra values";
    let mut differing = BTreeSet::new();
    for (field, column) in a.schema().fields().iter().zip(a.columns()) {
        let Some(other) = b.column_by_name(field.name()).filter(|other| other.data_type() == column.data_type()) else {
            continue;
        };
        let one = take(column, mine, None).context(Stage::Select, "", broken)?;
        let two = take(other, theirs, None).context(Stage::Select, "", broken)?;
        let differs = distinct(&one, &two).context(Stage::Select, "", broken)?;
        differing.extend(differs.values().set_indices());
    }
    Ok(differing)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_both, otherwise, only_in_first, only_in_second, digests, .. } = self;
        writeln!(f, "{}", if self.same { "the same items" } else { "different items" })?;
        writeln!(f, "digests          {}\n                 {}", digests[0], digests[1])?;
        writeln!(f, "in both          {in_both} samples, {otherwise} of them with other repeats or values")?;
        writeln!(f, "only in first    {only_in_first}")?;
        writeln!(f, "only in second   {only_in_second}")?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        write!(
            f,
            "{:>12} {:>12} {:>12} {:>12}  {:SHORT$}  shard",
            "both", "otherwise", "first", "second", "fingerprint"
        )?;
        for shard in &self.shards {
            let ShardDifference { name, fingerprint, in_both, otherwise, only_in_first, only_in_second } = shard;
            let short = &fingerprint[..SHORT];
            write!(f, "\n{in_both:>12} {otherwise:>12} {only_in_first:>12} {only_in_second:>12}  {short}  {name}")?;
        }
        Ok(())
    }
}
