//! What a query keeps: one compressed bitmap per row group.
use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::extra::ExtraColumns;
use super::shards::ShardSet;
use super::tables::TableProvenance;
use super::twins::{self, Twin};
use crate::error::{Error, Result, Stage};

/// Version of what the digest covers and of the file format.
pub const SELECTION_VERSION: u32 = 1;

/// The kept rows of one row group.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectedGroup {
    /// Ordinal of the shard.
    pub shard: u32,
    /// Row group within the shard.
    pub row_group: u32,
    /// First row of the group within the shard.
    pub first_row: u64,
    /// Kept rows, counted from the group's first row.
    pub rows: RoaringBitmap,
    /// Rows kept more than once: row in group → how often (≥ 2).
    pub repeats: BTreeMap<u32, u32>,
}

impl SelectedGroup {
    /// Items of the group: kept rows with their repeats.
    pub fn items(&self) -> u64 {
        self.rows.len() + self.repeats.values().map(|&n| u64::from(n) - 1).sum::<u64>()
    }

    /// Every item of the group in order: row in group and occurrence, from 0.
    pub fn iter_items(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.rows.iter().flat_map(|row| {
            let times = self.repeats.get(&row).copied().unwrap_or(1);
            (0..times).map(move |occurrence| (row, occurrence))
        })
    }
}

/// A shard that has items, as it was when they were selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedShard {
    /// Ordinal in the set that the selection belongs to.
    pub ordinal: u32,
    /// Its absolute path or URL.
    pub name: String,
    /// What the shard is known by.
    pub fingerprint: [u8; 32],
    /// Which of the shards with that fingerprint it was in the set that was selected from.
    pub twin: Twin,
}

/// Where a selection came from. The digest does not cover it, so local and remote copies agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The query.
    pub sql: String,
    /// Program and version.
    pub written_by: String,
    /// The tables it read beside `shards`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableProvenance>,
}

impl Provenance {
    /// This program running `sql`.
    pub fn of(sql: &str) -> Self {
        let written_by = concat!("diptych ", env!("CARGO_PKG_VERSION")).to_owned();
        Self { sql: sql.to_owned(), written_by, tables: Vec::new() }
    }
}

/// The samples that a run sees: the identity of its data set.
///
/// Equal digests mean equal items of equal shards, whatever the query, the paths, the order of the shards and the
/// number of threads were.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Row groups that hold items, by shard and row group.
    pub groups: Vec<SelectedGroup>,
    /// Rows of the set at the time.
    pub total_rows: u64,
    shards: Vec<SelectedShard>,
    blobs_from: BTreeMap<String, String>,
    extra: Option<ExtraColumns>,
    items: u64,
    digest: [u8; 32],
    provenance: Provenance,
}

impl Selection {
    /// The selection of `groups` out of `set`.
    ///
    /// # Errors
    /// Groups that are out of order, empty or not in the set.
    pub fn new(set: &ShardSet, groups: Vec<SelectedGroup>, provenance: Provenance) -> Result<Self> {
        Self::with_extra(set, groups, None, provenance)
    }

    /// The same with values that travel with the items.
    ///
    /// # Errors
    /// As [`Self::new`]; values that are not one per item.
    pub fn with_extra(
        set: &ShardSet,
        groups: Vec<SelectedGroup>,
        extra: Option<ExtraColumns>,
        provenance: Provenance,
    ) -> Result<Self> {
        let shards = Self::shards_of(set, &groups)?;
        Self::unbound(shards, set.blobs_from.clone(), groups, extra, set.rows(), provenance)
    }

    /// The shards that `groups` are of.
    ///
    /// # Errors
    /// Groups that are not in the set.
    pub(crate) fn shards_of(set: &ShardSet, groups: &[SelectedGroup]) -> Result<Vec<SelectedShard>> {
        let twins = twins::of_set(set);
        let mut shards: Vec<SelectedShard> = Vec::new();
        let mut starts = Vec::new();
        for group in groups {
            if shards.last().is_none_or(|shard| shard.ordinal != group.shard) {
                let Some(shard) = set.shards.get(group.shard as usize) else {
                    return Err(Error::internal(format!("shard {} is selected from and not in the set", group.shard)));
                };
                starts = shard.group_starts();
                let (name, fingerprint) = (shard.address.clone(), shard.fingerprint);
                let twin = twins.get(&shard.ordinal).copied().unwrap_or_default();
                shards.push(SelectedShard { ordinal: shard.ordinal, name, fingerprint, twin });
            }
            check(set, group, &starts)?;
        }
        Ok(shards)
    }

    /// A selection whose shards are known by fingerprint alone; ordinals are whatever `shards` says.
    pub(crate) fn unbound(
        shards: Vec<SelectedShard>,
        blobs_from: BTreeMap<String, String>,
        groups: Vec<SelectedGroup>,
        extra: Option<ExtraColumns>,
        total_rows: u64,
        provenance: Provenance,
    ) -> Result<Self> {
        let is_ordered = groups.is_sorted_by(|a, b| (a.shard, a.row_group) < (b.shard, b.row_group));
        if !is_ordered {
            return Err(Error::internal("selected row groups are not in order"));
        }
        if extra.as_ref().is_some_and(|extra| !extra.fit(&groups)) {
            return Err(Error::internal("a selection has not one extra value per item"));
        }
        let items = groups.iter().map(SelectedGroup::items).sum();
        let digest = digest(&shards, &blobs_from, &groups, extra.as_ref());
        Ok(Self { groups, total_rows, shards, blobs_from, extra, items, digest, provenance })
    }

    /// Kept rows with their repeats.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// BLAKE3 over format version, fingerprints of the shards that have items and which of their twins they are, places of
    /// blobs that are not in the columns of their names, items, and extra values.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The shards that have items, by ordinal.
    pub fn shards(&self) -> &[SelectedShard] {
        &self.shards
    }

    /// As in [`ShardSet::blobs_from`].
    pub fn blobs_from(&self) -> &BTreeMap<String, String> {
        &self.blobs_from
    }

    /// The values that travel with the items, where the query returns any.
    pub fn extra(&self) -> Option<&ExtraColumns> {
        self.extra.as_ref()
    }

    /// Where it came from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The items and their extra values.
    pub(crate) fn into_parts(self) -> (Vec<SelectedGroup>, Option<ExtraColumns>) {
        (self.groups, self.extra)
    }

    /// Positions in `groups` in an order that follows from the digest alone: by fingerprint, twin and row group.
    ///
    /// Ordinals may differ between copies of a data set; what is permuted by a seed should start from here.
    pub fn canonical_order(&self) -> Vec<usize> {
        let identities: BTreeMap<u32, (&[u8; 32], u32)> =
            self.shards.iter().map(|shard| (shard.ordinal, (&shard.fingerprint, shard.twin.number))).collect();
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_by_key(|&at| {
            let group = &self.groups[at];
            (identities.get(&group.shard), group.shard, group.row_group)
        });
        order
    }
}

/// Whether the set, whose shard has row groups that start at `starts`, has the rows of `group`.
fn check(set: &ShardSet, group: &SelectedGroup, starts: &[u64]) -> Result<()> {
    let at = group.row_group as usize;
    let (first, end) = (starts.get(at), starts.get(at + 1));
    let last = group.rows.max().map(|last| group.first_row + u64::from(last));
    let fits = first == Some(&group.first_row) && last.zip(end).is_some_and(|(last, &end)| last < end);
    if fits && group.repeats.iter().all(|(row, &times)| times >= 2 && group.rows.contains(*row)) {
        return Ok(());
    }
    let place = set.shards.get(group.shard as usize).map_or_else(String::new, |shard| shard.name.clone());
    let reason = format!("row group {at} of shard {} has not the rows that are selected; select again", group.shard);
    Err(Error::at(Stage::Select, place, reason))
}

/// Of a shard: its fingerprint, number among its twins, the digest of its items and that of the values which travel with them.
type ShardDigests = ([u8; 32], u32, [u8; 32], Option<[u8; 32]>);

fn digest(
    shards: &[SelectedShard],
    blobs_from: &BTreeMap<String, String>,
    groups: &[SelectedGroup],
    extra: Option<&ExtraColumns>,
) -> [u8; 32] {
    let mut parts: Vec<ShardDigests> = Vec::with_capacity(shards.len());
    let mut first = 0;
    for shard in shards {
        let end = first + groups[first..].partition_point(|group| group.shard <= shard.ordinal);
        let values = extra.map(|extra| extra.digest_of_values(first..end));
        parts.push((shard.fingerprint, shard.twin.number, digest_of_items(&groups[first..end]), values));
        first = end;
    }
    // Sorted by content: ordinals follow paths, the digest must not.
    parts.sort_unstable();
    let mut hash = blake3::Hasher::new_derive_key("diptych selection");
    hash.update(&SELECTION_VERSION.to_le_bytes());
    hash.update(&(parts.len() as u64).to_le_bytes());
    if let Some(extra) = extra {
        hash.update(&extra.digest_of_columns());
    }
    for text in blobs_from.iter().flat_map(|(name, place)| [name, place]) {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    for (fingerprint, twin, items, values) in parts {
        hash.update(&fingerprint);
        // Only where there is one before it: all other digests stay as they were.
        if twin > 0 {
            hash.update(&twin.to_le_bytes());
        }
        hash.update(&items);
        values.map(|values| hash.update(&values));
    }
    *hash.finalize().as_bytes()
}

/// Over the longest runs of rows and the repeats: the same however rows are grouped and bitmaps are compressed.
fn digest_of_items(groups: &[SelectedGroup]) -> [u8; 32] {
    let mut runs = blake3::Hasher::new();
    let mut repeats = blake3::Hasher::new();
    let mut open: Option<(u64, u64)> = None;
    let mut write = |(start, end): (u64, u64)| {
        runs.update(&start.to_le_bytes());
        runs.update(&end.to_le_bytes());
    };
    for group in groups {
        let mut rows = group.rows.iter();
        while let Some(range) = rows.next_range() {
            let start = group.first_row + u64::from(*range.start());
            let end = group.first_row + u64::from(*range.end()) + 1;
            open = match open {
                Some((first, last)) if last == start => Some((first, end)),
                other => {
                    other.map(&mut write);
                    Some((start, end))
                }
            };
        }
        for (&row, &times) in &group.repeats {
            repeats.update(&(group.first_row + u64::from(row)).to_le_bytes());
            repeats.update(&times.to_le_bytes());
        }
    }
    open.map(&mut write);
    let mut both = blake3::Hasher::new();
    both.update(runs.finalize().as_bytes());
    both.update(repeats.finalize().as_bytes());
    *both.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(shard: u32, row_group: u32, first_row: u64, rows: &[u32]) -> SelectedGroup {
        SelectedGroup { shard, row_group, first_row, rows: rows.iter().collect(), repeats: BTreeMap::new() }
    }

    fn shard(ordinal: u32, fingerprint: u8) -> SelectedShard {
        SelectedShard { ordinal, name: String::new(), fingerprint: [fingerprint; 32], twin: Twin::ALONE }
    }

    fn digest(shards: &[SelectedShard], groups: &[SelectedGroup]) -> [u8; 32] {
        super::digest(shards, &BTreeMap::new(), groups, None)
    }

    #[test]
    fn repeats_are_items_of_their_own() {
        let mut group = group(0, 0, 0, &[1, 5]);
        group.repeats.insert(5, 3);
        assert_eq!(group.items(), 4);
        assert_eq!(group.iter_items().collect::<Vec<_>>(), [(1, 0), (5, 0), (5, 1), (5, 2)]);
    }

    #[test]
    fn the_digest_ignores_ordinals_and_grouping_but_no_item() {
        let base = digest(&[shard(0, 1), shard(1, 2)], &[group(0, 0, 0, &[0, 1, 2, 3]), group(1, 0, 0, &[7])]);
        let swapped = digest(&[shard(0, 2), shard(1, 1)], &[group(0, 0, 0, &[7]), group(1, 0, 0, &[0, 1, 2, 3])]);
        let regrouped = [group(0, 0, 0, &[0, 1]), group(0, 1, 2, &[0, 1]), group(1, 0, 0, &[7])];
        assert_eq!(base, swapped);
        assert_eq!(base, digest(&[shard(0, 1), shard(1, 2)], &regrouped));

        let other_row = [group(0, 0, 0, &[0, 1, 2, 4]), group(1, 0, 0, &[7])];
        let mut repeated = regrouped.clone();
        repeated[1].repeats.insert(0, 2);
        for other in [&other_row[..], &repeated[..]] {
            assert_ne!(base, digest(&[shard(0, 1), shard(1, 2)], other));
        }
        assert_ne!(base, digest(&[shard(0, 1), shard(1, 3)], &regrouped));
        assert_ne!(digest(&[], &[]), base);
        let second = SelectedShard { twin: Twin { number: 1, of: 2 }, ..shard(1, 2) };
        assert_ne!(base, digest(&[shard(0, 1), second], &regrouped));
    }
}
