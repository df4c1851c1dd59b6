//! Places of an order as rows of shards.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::Range,
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    scan::order::{EpochOrder, Place, Window},
    select::selection::SelectedGroup,
};

/// What the order counts: a row of a shard, and which of its repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// Ordinal of the shard.
    pub shard: u32,
    /// Row within the shard.
    pub row: u64,
    /// 0 for the first time the row occurs in the selection, 1 for its first repeat, ….
    pub occurrence: u32,
}

/// An item and where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Located {
    /// Which item.
    pub item: Item,
    /// Row group within the shard.
    pub row_group: u32,
    /// Row within the row group.
    pub row_in_group: u32,
}

/// The groups of a selection in the order that the epoch's order was planned over.
pub trait Groups: Send + Sync {
    /// One of them.
    fn group(&self, index: u32) -> &SelectedGroup;
}

impl Groups for Vec<SelectedGroup> {
    fn group(&self, index: u32) -> &SelectedGroup {
        &self[index as usize]
    }
}

/// The order of an epoch together with the selection it walks through.
#[derive(Clone)]
pub struct EpochItems {
    order: Arc<EpochOrder>,
    groups: Arc<dyn Groups>,
}

impl fmt::Debug for EpochItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochItems").field("items", &self.order.items()).finish_non_exhaustive()
    }
}

impl EpochItems {
    /// `order` must have been planned over the sizes of `groups`.
    pub fn new(order: EpochOrder, groups: Arc<dyn Groups>) -> Self {
        Self { order: Arc::new(order), groups }
    }

    /// The order alone.
    pub fn order(&self) -> &EpochOrder {
        &self.order
    }

    /// The items of a window in the order of the epoch.
    pub fn window(&self, window: &Window) -> Vec<Located> {
        self.locate(&self.order.places(window))
    }

    fn locate(&self, places: &[Place]) -> Vec<Located> {
        let mut by_group: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, place) in places.iter().enumerate() {
            by_group.entry(place.group).or_default().push(index);
        }
        let nowhere = Located { item: Item { shard: 0, row: 0, occurrence: 0 }, row_group: 0, row_in_group: 0 };
        let mut located = vec![nowhere; places.len()];
        for (group, indices) in by_group {
            let group = self.groups.group(group);
            let mut wanted: Vec<(u64, usize)> = indices.into_iter().map(|index| (places[index].nth, index)).collect();
            wanted.sort_unstable();
            for ((_, index), (row, occurrence)) in wanted.iter().zip(rows_of(group, &wanted)) {
                located[*index] = Located {
                    item: Item { shard: group.shard, row: group.first_row + u64::from(row), occurrence },
                    row_group: group.row_group,
                    row_in_group: row,
                };
            }
        }
        located
    }

    /// The items of a stretch of the epoch, such as one global batch.
    ///
    /// # Errors
    /// The stretch ends after the epoch.
    pub fn stretch(&self, positions: Range<u64>) -> Result<Vec<Located>> {
        let mut windows: HashMap<(u32, u32), Vec<Place>> = HashMap::new();
        let mut places = Vec::with_capacity((positions.end - positions.start) as usize);
        for position in positions {
            let (lane, nth) = self.order.lane_of(position);
            let window = self
                .order
                .window_at(lane, nth)
                .ok_or_else(|| Error::internal(format!("position {position} lies after the epoch's last item")))?;
            let mixed = windows.entry((lane, window.index)).or_insert_with(|| self.order.places(&window));
            places.push(mixed[(nth - window.first) as usize]);
        }
        Ok(self.locate(&places))
    }
}

/// Samples of items: repeats of a row are one sample.
pub fn samples(items: &[Located]) -> HashSet<(u32, u64)> {
    items.iter().map(|located| (located.item.shard, located.item.row)).collect()
}

/// Rows and occurrences of the n-th items of a group, for ascending n.
fn rows_of(group: &SelectedGroup, wanted: &[(u64, usize)]) -> Vec<(u32, u32)> {
    let mut rows = Vec::with_capacity(wanted.len());
    if group.repeats.is_empty() {
        // One item per row: the bitmap finds each without walking through the others.
        rows.extend(wanted.iter().filter_map(|&(nth, _)| group.rows.select(nth as u32)).map(|row| (row, 0)));
        return rows;
    }
    let mut wanted = wanted.iter().map(|&(nth, _)| nth).peekable();
    let mut before = 0;
    for row in &group.rows {
        let times = group.repeats.get(&row).copied().unwrap_or(1);
        while let Some(nth) = wanted.next_if(|&nth| nth < before + u64::from(times)) {
            rows.push((row, (nth - before) as u32));
        }
        before += u64::from(times);
        if wanted.peek().is_none() {
            break;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scan::order::{GroupSize, Order, OrderKey};

    fn group(row_group: u32, rows: &[u32], repeats: &[(u32, u32)]) -> SelectedGroup {
        SelectedGroup {
            shard: 1,
            row_group,
            first_row: u64::from(row_group) * 100,
            rows: rows.iter().copied().collect(),
            repeats: repeats.iter().copied().collect::<BTreeMap<_, _>>(),
        }
    }

    fn items(groups: Vec<SelectedGroup>, order: Order) -> EpochItems {
        let sizes: Vec<GroupSize> =
            groups.iter().map(|group| GroupSize { items: group.items(), bytes: group.items() * 10 }).collect();
        let settings: crate::scan::ScanSettings =
            serde_json::from_value(serde_json::json!({ "shards": [], "lanes": 2, "shuffle_window_rows": 6 }))
                .expect("settings");
        let key = OrderKey { seed: 1, epoch: 0, selection: [0; 32] };
        EpochItems::new(EpochOrder::new(&sizes, &settings, order, key).expect("lanes"), Arc::new(groups))
    }

    #[test]
    fn repeats_are_items_of_their_own() {
        let groups = vec![group(0, &[3, 7], &[(7, 3)]), group(2, &[0, 99], &[])];
        let items = items(groups, Order::Sequential);
        let all = items.stretch(0..6).expect("inside");
        let told: Vec<_> = all.iter().map(|l| (l.item.row, l.item.occurrence, l.row_group, l.row_in_group)).collect();
        assert_eq!(told, [(3, 0, 0, 3), (7, 0, 0, 7), (7, 1, 0, 7), (7, 2, 0, 7), (200, 0, 2, 0), (299, 0, 2, 99)]);
        assert_eq!(samples(&all).len(), 4);
        assert!(items.stretch(5..7).is_err());
    }

    #[test]
    fn a_stretch_agrees_with_the_windows() {
        let groups = (0..5).map(|g| group(g, &[1, 5, 9, 11], &[(5, 2)])).collect();
        let items = items(groups, Order::Shuffled);
        let all = items.stretch(0..25).expect("inside");
        let mut by_lane = [vec![], vec![]];
        for lane in 0..2 {
            let mut nth = 0;
            while let Some(window) = items.order().window_at(lane, nth) {
                by_lane[lane as usize].extend(items.window(&window));
                nth = window.first + window.items;
            }
        }
        for (position, located) in all.iter().enumerate() {
            assert_eq!(*located, by_lane[position % 2][position / 2]);
        }
        assert_eq!(all.iter().map(|located| located.item).collect::<HashSet<_>>().len(), 25);
    }
}
