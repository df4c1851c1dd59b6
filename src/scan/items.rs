//! Places of an order as rows of shards.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::Range,
    sync::Arc,
};

use datafusion::arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::interleave,
    datatypes::{Field, Schema, SchemaRef},
};

use crate::{
    error::{Context as _, Error, Result, Stage},
    scan::{
        World,
        order::{EpochOrder, Order, OrderKey, Place, Window, lanes_of},
        streams::Streams,
    },
    select::{extra::ExtraColumns, selection::SelectedGroup},
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
    /// Pass over its source, as draws name it.
    pub pass: u64,
    /// Which source.
    pub source: u32,
    /// Which group of the source's selection, which of the group's items.
    pub place: Place,
}

/// The groups of a selection in the order that the epoch's order was planned over.
pub trait Groups: Send + Sync {
    /// One of them.
    fn group(&self, index: u32) -> &SelectedGroup;

    /// The extra values of its items, where the selection has any.
    fn extra(&self, _index: u32) -> Option<&RecordBatch> {
        None
    }

    /// The columns of [`Self::extra`].
    fn extra_columns(&self) -> Option<&ExtraColumns> {
        None
    }
}

impl Groups for Vec<SelectedGroup> {
    fn group(&self, index: u32) -> &SelectedGroup {
        &self[index as usize]
    }
}

/// A window of one lane of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceWindow {
    /// Which source.
    pub source: u32,
    /// Pass over the source, from 0.
    pub pass: u64,
    /// The window within that pass.
    pub window: Window,
    /// Items of the source's lane before it, over all passes.
    pub first: u64,
}

/// Key in a field's metadata of columns whose values a selection brings.
pub const EXTRA_KEY: &str = "diptych.extra";

/// The order of an epoch together with the selections it walks through.
#[derive(Clone)]
pub struct EpochItems {
    streams: Arc<Streams>,
    extra: SchemaRef,
}

impl fmt::Debug for EpochItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochItems").field("items", &self.items()).finish_non_exhaustive()
    }
}

impl EpochItems {
    /// `order` must have been planned over the sizes of `groups`.
    pub fn new(order: EpochOrder, groups: Arc<dyn Groups>) -> Self {
        Self::of(Streams::one(order, groups))
    }

    /// Of one source or several.
    pub fn of(streams: Streams) -> Self {
        let marked = |field: &Field| {
            field.clone().with_metadata(HashMap::from([(EXTRA_KEY.to_owned(), "selection".to_owned())]))
        };
        let columns = streams.groups(0).extra_columns().map(|extra| Arc::clone(extra.schema()));
        let fields: Vec<Field> = columns.iter().flat_map(|schema| schema.fields()).map(|field| marked(field)).collect();
        Self { streams: Arc::new(streams), extra: Arc::new(Schema::new(fields)) }
    }

    /// Items of the epoch.
    pub fn items(&self) -> u64 {
        self.streams.items()
    }

    /// Lanes of the epoch.
    pub fn lanes(&self) -> u32 {
        self.streams.lanes()
    }

    /// Sources that it mixes.
    pub fn sources(&self) -> u32 {
        self.streams.sources()
    }

    /// Which way it walks.
    pub fn order(&self) -> Order {
        self.streams.order()
    }

    /// What its draws are keyed on.
    pub fn key(&self) -> &OrderKey {
        self.streams.key()
    }

    /// Lanes that a rank reads.
    ///
    /// # Errors
    /// As [`lanes_of`].
    pub fn lanes_of(&self, world: World) -> Result<Vec<u32>> {
        lanes_of(self.lanes(), self.order(), world)
    }

    /// Lane of item `position` of the epoch, and the item's index within the lane.
    pub fn lane_of(&self, position: u64) -> (u32, u64) {
        let lanes = u64::from(self.lanes());
        ((position % lanes) as u32, position / lanes)
    }

    /// How many of the first `positions` items of the epoch are of this lane.
    pub fn lane_items_before(&self, lane: u32, positions: u64) -> u64 {
        let lanes = u64::from(self.lanes());
        let before = positions.min(self.items());
        before / lanes + u64::from(before % lanes > u64::from(lane))
    }

    /// Which source gives item `nth` of a lane, and which of the source's items of that lane it is, over all epochs.
    pub fn source_at(&self, lane: u32, nth: u64) -> (u32, u64) {
        self.streams.source_at(lane, nth)
    }

    /// How many items of a source's lane come before item `nth` of the epoch's lane, over all epochs.
    pub fn source_items_before(&self, lane: u32, source: u32, nth: u64) -> u64 {
        self.streams.source_items_before(lane, source, nth)
    }

    /// The window that holds item `nth` of a source's lane, over all epochs; `None` past the end.
    ///
    /// # Errors
    /// Ours.
    pub fn window_at(&self, source: u32, lane: u32, nth: u64) -> Result<Option<SourceWindow>> {
        self.streams.window_at(source, lane, nth)
    }

    /// The items of a window in the order of the epoch.
    ///
    /// # Errors
    /// Ours.
    pub fn window(&self, window: &SourceWindow) -> Result<Vec<Located>> {
        let places = self.streams.places(window)?;
        Ok(self.locate(window.source, window.pass, &places))
    }

    /// How many windows these lanes have, where an epoch is one pass over one source.
    pub fn windows(&self, lanes: &[u32]) -> Option<u32> {
        self.streams.windows(lanes)
    }

    fn locate(&self, source: u32, pass: u64, places: &[Place]) -> Vec<Located> {
        let groups = self.streams.groups(source);
        let pass = self.streams.draw_pass(source, pass);
        let mut by_group: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, place) in places.iter().enumerate() {
            by_group.entry(place.group).or_default().push(index);
        }
        let nowhere = Located {
            item: Item { shard: 0, row: 0, occurrence: 0 },
            row_group: 0,
            row_in_group: 0,
            pass,
            source,
            place: Place { group: 0, nth: 0 },
        };
        let mut located = vec![nowhere; places.len()];
        for (number, indices) in by_group {
            let group = groups.group(number);
            let mut wanted: Vec<(u64, usize)> = indices.into_iter().map(|index| (places[index].nth, index)).collect();
            wanted.sort_unstable();
            for ((_, index), (row, occurrence)) in wanted.iter().zip(rows_of(group, &wanted)) {
                located[*index] = Located {
                    item: Item { shard: group.shard, row: group.first_row + u64::from(row), occurrence },
                    row_group: group.row_group,
                    row_in_group: row,
                    place: places[*index],
                    ..nowhere
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
        let outside = |position| Error::internal(format!("position {position} lies after the epoch's last item"));
        let mut windows: HashMap<(u32, u32, u64), (SourceWindow, Vec<Place>)> = HashMap::new();
        // By source and pass, with the positions in the answer: located together.
        let mut wanted: HashMap<(u32, u64), (Vec<usize>, Vec<Place>)> = HashMap::new();
        for (at, position) in positions.clone().enumerate() {
            if position >= self.items() {
                return Err(outside(position));
            }
            let (lane, nth) = self.lane_of(position);
            let (source, nth) = self.source_at(lane, nth);
            let window = self.window_at(source, lane, nth)?.ok_or_else(|| outside(position))?;
            let (_, mixed) = match windows.entry((source, lane, window.first)) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert((window, self.streams.places(&window)?)),
            };
            let (places_at, places) = wanted.entry((source, window.pass)).or_default();
            places_at.push(at);
            places.push(mixed[(nth - window.first) as usize]);
        }
        let mut all: Vec<(usize, Located)> = Vec::with_capacity((positions.end - positions.start) as usize);
        for ((source, pass), (at, places)) in wanted {
            all.extend(at.into_iter().zip(self.locate(source, pass, &places)));
        }
        all.sort_unstable_by_key(|(at, _)| *at);
        Ok(all.into_iter().map(|(_, located)| located).collect())
    }

    /// The columns whose values the selections bring.
    pub fn extra_schema(&self) -> &SchemaRef {
        &self.extra
    }

    /// The extra values of items.
    ///
    /// # Errors
    /// Ours.
    pub fn extra_values(&self, items: &[Located]) -> Result<Vec<ArrayRef>> {
        let broken = "extra values and items do not agree";
        if self.extra.fields().is_empty() {
            return Ok(vec![]);
        }
        let mut batches: Vec<&RecordBatch> = vec![];
        let mut known: HashMap<(u32, u32), usize> = HashMap::new();
        let mut indices = Vec::with_capacity(items.len());
        for Located { source, place, .. } in items {
            let batch = match known.get(&(*source, place.group)) {
                Some(&batch) => batch,
                None => {
                    let values = self.streams.groups(*source).extra(place.group);
                    batches.push(values.ok_or_else(|| Error::internal(broken))?);
                    known.insert((*source, place.group), batches.len() - 1);
                    batches.len() - 1
                }
            };
            indices.push((batch, place.nth as usize));
        }
        let column = |field: &Field| {
            if batches.is_empty() {
                return Ok(datafusion::arrow::array::new_empty_array(field.data_type()));
            }
            let of_batch = |batch: &&RecordBatch| batch.column_by_name(field.name()).cloned();
            let arrays: Option<Vec<ArrayRef>> = batches.iter().map(of_batch).collect();
            let arrays = arrays.ok_or_else(|| Error::internal(broken))?;
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            interleave(&arrays, &indices).context(Stage::Internal, field.name(), broken)
        };
        self.extra.fields().iter().map(|field| column(field)).collect()
    }

    /// A fetched batch with the extra values of its items behind its columns.
    ///
    /// # Errors
    /// Ours.
    pub fn with_extra(&self, batch: RecordBatch, items: &[Located]) -> Result<RecordBatch> {
        let extra = self.extra_values(items)?;
        if extra.is_empty() {
            return Ok(batch);
        }
        let fields: Vec<_> = batch.schema().fields().iter().chain(self.extra.fields()).cloned().collect();
        let columns = batch.columns().iter().cloned().chain(extra).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).context(Stage::Internal, "", "cannot join columns")
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
            while let Some(window) = items.window_at(0, lane, nth).expect("planned") {
                by_lane[lane as usize].extend(items.window(&window).expect("planned"));
                nth = window.first + window.window.items;
            }
        }
        for (position, located) in all.iter().enumerate() {
            assert_eq!(*located, by_lane[position % 2][position / 2]);
        }
        assert_eq!(all.iter().map(|located| located.item).collect::<HashSet<_>>().len(), 25);
    }
}
