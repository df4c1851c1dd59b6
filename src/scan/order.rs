//! The order of an epoch: a pure function of counts, never of data.
//!
//! ```text
//! row groups, permuted   g7 g2 g9 g0 g4 …                       keyed by seed, epoch, selection
//! lanes                  ├── lane 0 ──┼── lane 1 ──┼── … ──┤    equal lengths ± 1, counted in items
//! windows                ├──┼───┼──┤                            a lane's share of shuffle_window_rows / _megabytes
//! items                  mixed inside a window                  keyed by lane and window too
//! epoch                  item j is the next one of lane j mod lanes
//! ```
//!
//! Memory is O(row groups), never O(samples); any item is found in one binary search and one window's shuffle, so that
//! resuming costs the same at every step.

use crate::{
    error::{Error, Result, Stage},
    scan::{ScanSettings, World},
    seed::draws,
};

/// Changes whenever the same numbers would give another order: a checkpoint of another version is refused.
pub const ORDER_VERSION: u32 = 1;

/// Bytes of a megabyte in settings.
const MEGABYTE: u64 = 1 << 20;

/// How an epoch walks through its selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Keyed, in lanes and windows: for training.
    Shuffled,
    /// By `sample_id`, in one lane, nothing mixed: for evaluation.
    Sequential,
}

/// What is known of a row group before any of its data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSize {
    /// Selected items.
    pub items: u64,
    /// Compressed bytes of the selected items, estimated from the footer.
    pub bytes: u64,
}

/// What the permutations are keyed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderKey {
    /// The run's seed.
    pub seed: u64,
    /// Which epoch, from 0.
    pub epoch: u64,
    /// Digest of the selection.
    pub selection: [u8; 32],
}

impl OrderKey {
    /// The numbers of one draw under this key.
    pub(crate) fn numbers(&self, more: &[u64]) -> Vec<u64> {
        let digest =
            self.selection.chunks_exact(8).map(|word| word.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)));
        [u64::from(ORDER_VERSION), self.epoch].into_iter().chain(digest).chain(more.iter().copied()).collect()
    }
}

/// A stretch of one lane whose items are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Which lane.
    pub lane: u32,
    /// Which window of the lane, from 0.
    pub index: u32,
    /// Items of the lane before it.
    pub first: u64,
    /// Its items.
    pub items: u64,
}

/// One item: the n-th of a row group of the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Index into the selection's groups.
    pub group: u32,
    /// Which of the group's items, in the order of rows and their repeats.
    pub nth: u64,
}

/// The order of one epoch.
#[derive(Debug, Clone)]
pub struct EpochOrder {
    order: Order,
    key: OrderKey,
    /// Groups with items, permuted.
    sequence: Vec<u32>,
    /// Items before each group of `sequence`, and all items at the end.
    starts: Vec<u64>,
    lanes: Vec<Lane>,
}

#[derive(Debug, Clone)]
struct Lane {
    /// Items of the sequence before the lane.
    first: u64,
    items: u64,
    /// Items of the lane before each window, and all its items at the end.
    windows: Vec<u64>,
}

/// What a window may hold.
#[derive(Debug, Clone, Copy)]
struct Share {
    rows: u64,
    bytes: u64,
}

impl EpochOrder {
    /// Plans an epoch over `groups`, in the order of the selection.
    ///
    /// # Errors
    /// No lanes.
    pub fn new(groups: &[GroupSize], scan: &ScanSettings, order: Order, key: OrderKey) -> Result<Self> {
        let lanes = match order {
            Order::Shuffled => scan.lanes,
            Order::Sequential => 1,
        };
        if lanes == 0 {
            return Err(Error::at(Stage::Scan, "scan.lanes", "an epoch needs at least one lane; write `lanes = 8`"));
        }
        let mut sequence: Vec<u32> = (0..).zip(groups).filter(|(_, size)| size.items > 0).map(|(g, _)| g).collect();
        if order == Order::Shuffled {
            draws(key.seed, "order of row groups", &key.numbers(&[])).shuffle(&mut sequence);
        }
        let mut starts = Vec::with_capacity(sequence.len() + 1);
        let mut total = 0;
        for &group in &sequence {
            starts.push(total);
            total += groups[group as usize].items;
        }
        starts.push(total);

        let share = Share {
            rows: (scan.shuffle_window_rows / u64::from(lanes)).max(1),
            bytes: (scan.shuffle_window_megabytes.saturating_mul(MEGABYTE) / u64::from(lanes)).max(1),
        };
        let count = u64::from(lanes);
        let mut planned = Self { order, key, sequence, starts, lanes: Vec::with_capacity(lanes as usize) };
        for lane in 0..count {
            // The longer lanes come first, so that item j is always the next one of lane j mod lanes.
            let first = lane * (total / count) + lane.min(total % count);
            let items = total / count + u64::from(lane < total % count);
            let windows = planned.pack(groups, first, items, share);
            planned.lanes.push(Lane { first, items, windows });
        }
        Ok(planned)
    }

    /// Cuts a lane into windows: consecutive groups until the share is full; a group larger than a share is cut evenly.
    fn pack(&self, groups: &[GroupSize], first: u64, items: u64, share: Share) -> Vec<u64> {
        let end = first + items;
        let mut windows = vec![0];
        let (mut at, mut rows, mut bytes) = (first, 0, 0_u64);
        let mut group = self.index_of(at);
        while at < end {
            let until = self.starts[group + 1].min(end);
            let part = until - at;
            let size = groups[self.sequence[group] as usize];
            let part_bytes = (u128::from(size.bytes) * u128::from(part) / u128::from(size.items)) as u64;
            if rows > 0 && (rows + part > share.rows || bytes.saturating_add(part_bytes) > share.bytes) {
                windows.push(at - first);
                (rows, bytes) = (0, 0);
            }
            let pieces = part.div_ceil(share.rows).max(part_bytes.div_ceil(share.bytes)).clamp(1, part);
            if pieces > 1 {
                let cut = |piece: u64| at - first + (u128::from(part) * u128::from(piece) / u128::from(pieces)) as u64;
                windows.extend((1..=pieces).map(cut));
            } else {
                rows += part;
                bytes = bytes.saturating_add(part_bytes);
            }
            at = until;
            group += 1;
        }
        if windows.last() != Some(&items) {
            windows.push(items);
        }
        windows
    }

    /// Index into `sequence` of the group that holds this item of the sequence.
    fn index_of(&self, item: u64) -> usize {
        self.starts.partition_point(|&start| start <= item).saturating_sub(1)
    }

    /// Items of the epoch.
    pub fn items(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Lanes of the epoch.
    pub fn lanes(&self) -> u32 {
        self.lanes.len() as u32
    }

    /// Which way it walks.
    pub fn order(&self) -> Order {
        self.order
    }

    /// What it is keyed on.
    pub fn key(&self) -> &OrderKey {
        &self.key
    }

    /// Lane of item `position` of the epoch, and the item's index within the lane.
    pub fn lane_of(&self, position: u64) -> (u32, u64) {
        let lanes = self.lanes.len() as u64;
        ((position % lanes) as u32, position / lanes)
    }

    /// How many of the first `positions` items of the epoch are of this lane.
    pub fn lane_items_before(&self, lane: u32, positions: u64) -> u64 {
        let lanes = self.lanes.len() as u64;
        (positions / lanes + u64::from(positions % lanes > u64::from(lane))).min(self.lanes[lane as usize].items)
    }

    /// Windows of a lane.
    pub fn windows(&self, lane: u32) -> u32 {
        (self.lanes[lane as usize].windows.len() - 1) as u32
    }

    /// The window that holds item `nth` of a lane; `None` past the lane's end.
    pub fn window_at(&self, lane: u32, nth: u64) -> Option<Window> {
        let slice = &self.lanes[lane as usize];
        if nth >= slice.items {
            return None;
        }
        let index = slice.windows.partition_point(|&start| start <= nth) - 1;
        let first = slice.windows[index];
        Some(Window { lane, index: index as u32, first, items: slice.windows[index + 1] - first })
    }

    /// The items of a window in the order of the epoch.
    pub fn places(&self, window: &Window) -> Vec<Place> {
        let first = self.lanes[window.lane as usize].first + window.first;
        let mut group = self.index_of(first);
        let mut places = Vec::with_capacity(window.items as usize);
        for item in first..first + window.items {
            while self.starts[group + 1] <= item {
                group += 1;
            }
            places.push(Place { group: self.sequence[group], nth: item - self.starts[group] });
        }
        if self.order == Order::Shuffled {
            let numbers = self.key.numbers(&[u64::from(window.lane), u64::from(window.index)]);
            draws(self.key.seed, "order in window", &numbers).shuffle(&mut places);
        }
        places
    }
}

/// Lanes that a rank reads.
///
/// # Errors
/// The world does not divide the lanes, or an epoch in sequential order has more than one process.
pub fn lanes_of(lanes: u32, order: Order, world: World) -> Result<Vec<u32>> {
    if order == Order::Sequential && world.size != 1 {
        return Err(Error::at(Stage::Scan, "", "sequential order has one lane: run it in one process"));
    }
    if world.size == 0 || !lanes.is_multiple_of(world.size) || world.rank >= world.size {
        let World { rank, size } = world;
        return Err(Error::at(
            Stage::Scan,
            "scan.lanes",
            format!(
                "rank {rank} of {size} processes cannot share {lanes} lanes; choose lanes as a multiple of the \
                 number of processes"
            ),
        ));
    }
    Ok((0..lanes).filter(|lane| lane % world.size == world.rank).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn settings(lanes: u32, rows: u64, megabytes: u64) -> ScanSettings {
        ScanSettings {
            shuffle_window_rows: rows,
            shuffle_window_megabytes: megabytes,
            lanes,
            ..ScanSettings::default()
        }
    }

    fn plan(groups: &[GroupSize], lanes: u32, rows: u64, seed: u64, epoch: u64) -> EpochOrder {
        let key = OrderKey { seed, epoch, selection: [7; 32] };
        EpochOrder::new(groups, &settings(lanes, rows, 1), Order::Shuffled, key).expect("lanes")
    }

    fn groups(sizes: &[u64]) -> Vec<GroupSize> {
        sizes.iter().map(|&items| GroupSize { items, bytes: items * 1000 }).collect()
    }

    fn walk(order: &EpochOrder) -> Vec<Place> {
        (0..order.items())
            .map(|position| {
                let (lane, nth) = order.lane_of(position);
                let window = order.window_at(lane, nth).expect("inside");
                order.places(&window)[(nth - window.first) as usize]
            })
            .collect()
    }

    #[test]
    fn every_item_comes_once_whatever_the_sizes() {
        for (sizes, lanes) in [
            (vec![5, 0, 3, 250, 1, 1, 40], 8),
            (vec![1, 1], 8),
            (vec![3], 8),
            (vec![], 8),
            (vec![256; 20], 1),
            (vec![256; 20], 7),
            (vec![10_000], 4),
        ] {
            let order = plan(&groups(&sizes), lanes, 64, 1, 0);
            let places = walk(&order);
            assert_eq!(places.len() as u64, sizes.iter().sum::<u64>());
            assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len(), "{sizes:?} in {lanes} lanes");
            assert!(places.iter().all(|place| place.nth < sizes[place.group as usize]));
            let lengths: Vec<u64> = (0..lanes).map(|lane| order.lanes[lane as usize].items).collect();
            assert!(lengths.iter().max().expect("lanes") - lengths.iter().min().expect("lanes") <= 1, "{lengths:?}");
            assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        }
    }

    #[test]
    fn seed_epoch_selection_and_settings_change_the_order_and_nothing_else_does() {
        let sizes = groups(&[100; 30]);
        let base = walk(&plan(&sizes, 4, 400, 1, 0));
        assert_eq!(base, walk(&plan(&sizes, 4, 400, 1, 0)));
        assert_ne!(base, walk(&plan(&sizes, 4, 400, 2, 0)));
        assert_ne!(base, walk(&plan(&sizes, 4, 400, 1, 1)));
        assert_ne!(base, walk(&plan(&sizes, 2, 400, 1, 0)));
        assert_ne!(base, walk(&plan(&sizes, 4, 800, 1, 0)));
        let key = OrderKey { seed: 1, epoch: 0, selection: [8; 32] };
        let other = EpochOrder::new(&sizes, &settings(4, 400, 1), Order::Shuffled, key).expect("lanes");
        assert_ne!(base, walk(&other));
    }

    #[test]
    fn the_order_of_version_1_is_pinned() {
        let places = walk(&plan(&groups(&[3, 2, 4]), 2, 8, 42, 3));
        let text: Vec<String> = places.iter().map(|place| format!("{}.{}", place.group, place.nth)).collect();
        assert_eq!(text.join(" "), PINNED, "another order needs another ORDER_VERSION");
    }
    const PINNED: &str = "2.0 0.1 2.1 0.2 2.2 1.1 2.3 0.0 1.0";

    #[test]
    fn windows_keep_their_share_of_rows_and_bytes() {
        // 1 MiB over two lanes: 524 items of 1,000 bytes; the 3,000 items of the last group are cut.
        let mut sizes = vec![100; 40];
        sizes.push(3_000);
        for (rows, largest) in [(64, 32), (4_000, 524)] {
            let order = plan(&groups(&sizes), 2, rows, 1, 0);
            for lane in 0..2 {
                let windows = &order.lanes[lane].windows;
                let lengths: Vec<u64> = windows.windows(2).map(|pair| pair[1] - pair[0]).collect();
                assert!(lengths.iter().all(|&items| items <= largest && items > 0), "{lengths:?}");
                assert_eq!(lengths.iter().sum::<u64>(), order.lanes[lane].items);
            }
        }
    }

    #[test]
    fn an_item_larger_than_the_share_still_gets_a_window() {
        let huge = [GroupSize { items: 3, bytes: 30_000_000 }];
        let order = plan(&huge, 2, 100, 1, 0);
        assert_eq!(walk(&order).len(), 3);
        assert_eq!((order.windows(0), order.windows(1)), (2, 1));
    }

    #[test]
    fn sequential_order_is_the_order_of_sample_ids() {
        let key = OrderKey { seed: 1, epoch: 5, selection: [0; 32] };
        let order = EpochOrder::new(&groups(&[2, 0, 3]), &settings(8, 2, 1), Order::Sequential, key).expect("lanes");
        let expected = [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)].map(|(group, nth)| Place { group, nth });
        assert_eq!(walk(&order), expected);
        assert!(lanes_of(order.lanes(), order.order(), World { rank: 0, size: 2 }).is_err());
    }

    #[test]
    fn lane_counts_follow_the_epoch() {
        let order = plan(&groups(&[11, 9, 3]), 4, 100, 1, 0);
        for positions in 0..=order.items() {
            for lane in 0..4 {
                let counted = (0..positions).filter(|&position| order.lane_of(position).0 == lane).count() as u64;
                assert_eq!(order.lane_items_before(lane, positions), counted);
            }
        }
    }

    #[test]
    fn ranks_must_divide_the_lanes() {
        let order = plan(&groups(&[100]), 8, 100, 1, 0);
        let lanes = |world| lanes_of(order.lanes(), order.order(), world);
        let error = lanes(World { rank: 0, size: 3 }).expect_err("3 does not divide 8");
        assert!(error.to_string().contains("multiple"), "{error}");
        assert_eq!(lanes(World { rank: 1, size: 4 }).expect("divides"), [1, 5]);
    }

    #[test]
    fn only_lane_borders_split_a_group_between_lanes() {
        let order = plan(&groups(&[100; 33]), 4, 200, 9, 0);
        let mut lanes_of_group = vec![HashSet::new(); 33];
        for (position, place) in walk(&order).into_iter().enumerate() {
            lanes_of_group[place.group as usize].insert(position % 4);
        }
        assert!(lanes_of_group.iter().filter(|lanes| lanes.len() > 1).count() <= 3);
    }
}
