//! Series that stay in memory from pass to pass: what was decoded once is not read again.
//!
//! The first rows that find room stay until the run ends, and none gives way to another: every pass asks for all rows, so
//! a row that is thrown out is wanted before the one that took its place is wanted again.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::arrow::{
    array::{AsArray, RecordBatch},
    compute::interleave_record_batch,
    datatypes::SchemaRef,
};

use super::{BLOB, Fetcher, Reading};
use crate::error::{Context, Error, Result, Stage};

/// Bytes of a row beside its series.
const NARROW_BYTES: u64 = 128;

/// Rows that a run has fetched: how many, and those that stay.
#[derive(Default)]
pub struct KeptRows {
    state: Mutex<State>,
    fetched: AtomicU64,
}

#[derive(Default)]
struct State {
    /// By shard and row group; each part at least twice as long as the next, so that they are few.
    groups: HashMap<(u32, u32), Vec<Rows>>,
    bytes: u64,
}

/// Rows of one row group, ascending, and what was fetched of each.
#[derive(Clone)]
struct Rows {
    numbers: Arc<[u32]>,
    batch: RecordBatch,
}

impl fmt::Debug for KeptRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRows").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl KeptRows {
    fn state(&self) -> MutexGuard<'_, State> {
        // A group is put there whole, so that a panic elsewhere leaves none half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the rows that stay take.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// The number of the first of `rows` rows that have just been fetched; no other row gets one of these.
    pub(super) fn numbered(&self, rows: usize) -> u64 {
        self.fetched.fetch_add(rows as u64, Ordering::Relaxed)
    }

    /// The parts of a group; none of these rows is in two of them.
    fn of_group(&self, group: (u32, u32), schema: &SchemaRef) -> Vec<Rows> {
        let state = self.state();
        let parts = state.groups.get(&group).map_or(&[][..], Vec::as_slice);
        parts.iter().filter(|rows| rows.batch.schema_ref() == schema).cloned().collect()
    }

    /// Keeps a copy of those of a group's rows that fit into `limit_bytes` together with all that stay already.
    fn keep(&self, group: (u32, u32), read: &Rows, limit_bytes: u64) -> Result<()> {
        let mut state = self.state();
        let known = state.groups.get(&group).map_or(&[][..], Vec::as_slice);
        if known.iter().any(|known| known.batch.schema_ref() != read.batch.schema_ref()) {
            return Ok(());
        }
        let blobs = read.batch.column(BLOB).as_binary_view();
        let mut bytes = state.bytes;
        let mut fits = |&(at, row): &(usize, &u32)| {
            let with_it = bytes + blobs.value(at).len() as u64 + NARROW_BYTES;
            // Lanes that read a group side by side may have met in some rows.
            let stays = with_it <= limit_bytes && known.iter().all(|known| known.place(*row).is_none());
            bytes = if stays { with_it } else { bytes };
            stays
        };
        let numbers: Vec<u32> = read.numbers.iter().enumerate().filter(&mut fits).map(|(_, row)| *row).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        // What was read is charged to the windows and holds on to rows that do not stay.
        let copied = Rows::new(numbers.clone(), owned(&gathered(&[read], &numbers)?)?);
        let joined = joined(known, copied)?;
        state.groups.insert(group, joined);
        state.bytes = bytes;
        Ok(())
    }
}

impl Rows {
    fn new(numbers: Vec<u32>, batch: RecordBatch) -> Self {
        Self { numbers: numbers.into(), batch }
    }

    fn place(&self, row: u32) -> Option<usize> {
        self.numbers.binary_search(&row).ok()
    }
}

/// The parts with one more, which takes in those behind it that are not twice as long: every row moves a few times at most.
fn joined(parts: &[Rows], mut last: Rows) -> Result<Vec<Rows>> {
    let mut parts = parts.to_vec();
    while let Some(before) = parts.pop_if(|before| before.numbers.len() < 2 * last.numbers.len()) {
        let mut numbers = [&before.numbers[..], &last.numbers[..]].concat();
        numbers.sort_unstable();
        let batch = gathered(&[&before, &last], &numbers)?;
        last = Rows::new(numbers, batch);
    }
    parts.push(last);
    Ok(parts)
}

/// These rows, each from the first that has it. Series are views: they are not copied.
fn gathered(from: &[&Rows], numbers: &[u32]) -> Result<RecordBatch> {
    let place = |row: &u32| (0..).zip(from).find_map(|(number, rows)| Some((number, rows.place(*row)?)));
    let places: Option<Vec<(usize, usize)>> = numbers.iter().map(place).collect();
    let places = places.ok_or_else(|| Error::internal("a row that was kept is gone"))?;
    let batches: Vec<&RecordBatch> = from.iter().map(|rows| &rows.batch).collect();
    interleave_record_batch(&batches, &places).context(Stage::Scan, "", "cannot gather rows that were kept")
}

/// The same rows, whose series lie in memory of their own.
fn owned(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns[BLOB] = Arc::new(columns[BLOB].as_binary_view().gc());
    RecordBatch::try_new(batch.schema(), columns).context(Stage::Scan, "", "cannot keep rows")
}

impl Fetcher {
    /// These rows of a row group, ascending and each once, counted from the group's first: read, but for those that
    /// were kept.
    ///
    /// # Errors
    /// The store cannot be read, or the file is malformed: neither is bad data of a sample.
    pub async fn rows(&self, shard: u32, row_group: u32, rows: &[u32], reading: &Reading) -> Result<RecordBatch> {
        if self.kept_bytes == 0 {
            return self.read(shard, row_group, rows, reading).await;
        }
        let group = (shard, row_group);
        let kept = self.kept.of_group(group, &self.schema);
        let is_missing = |row: &u32| kept.iter().all(|kept| kept.place(*row).is_none());
        let missing: Vec<u32> = rows.iter().copied().filter(is_missing).collect();
        if !kept.is_empty() && missing.is_empty() {
            return gathered(&kept.iter().collect::<Vec<_>>(), rows);
        }
        let batch = self.read(shard, row_group, &missing, reading).await?;
        let read = Rows::new(missing, batch);
        self.kept.keep(group, &read, self.kept_bytes)?;
        if kept.is_empty() {
            return Ok(read.batch);
        }
        gathered(&kept.iter().chain([&read]).collect::<Vec<_>>(), rows)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{ArrayRef, BinaryViewArray, UInt32Array},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    /// Rows whose series have 100 bytes and whose other column is their number.
    fn read(numbers: &[u32]) -> Rows {
        let blobs: BinaryViewArray = numbers.iter().map(|row| (row % 5 != 4).then_some([*row as u8; 100])).collect();
        let fields = vec![Field::new("samples", DataType::BinaryView, true), Field::new("n", DataType::UInt32, false)];
        let columns: Vec<ArrayRef> = vec![Arc::new(blobs), Arc::new(UInt32Array::from(numbers.to_vec()))];
        Rows::new(numbers.to_vec(), RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap())
    }

    fn kept(rows: &KeptRows, group: (u32, u32)) -> Vec<u32> {
        let parts = rows.of_group(group, read(&[]).batch.schema_ref());
        let mut numbers = vec![];
        for rows in &parts {
            assert_eq!(rows.batch, read(&rows.numbers).batch, "they are what they were, at their places");
            numbers.extend_from_slice(&rows.numbers);
        }
        assert!(parts.windows(2).all(|pair| pair[0].numbers.len() >= 2 * pair[1].numbers.len()));
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn rows_stay_as_long_as_there_is_room_and_each_once() {
        let rows = KeptRows::default();
        // Room for five rows and one more whose series is null.
        let limit = 5 * 228 + 128;
        rows.keep((0, 1), &read(&[3, 7, 8]), limit).unwrap();
        // Another lane read 7 meanwhile.
        rows.keep((0, 1), &read(&[1, 7]), limit).unwrap();
        assert_eq!((kept(&rows, (0, 1)), rows.bytes()), (vec![1, 3, 7, 8], 4 * 228));
        rows.keep((2, 1), &read(&[4, 5, 6]), limit).unwrap();
        assert_eq!((kept(&rows, (2, 1)), rows.bytes()), (vec![4, 5], limit));
        rows.keep((2, 1), &read(&[9]), limit + 127).unwrap();
        assert_eq!(kept(&rows, (2, 1)), [4, 5]);
        rows.keep((2, 1), &read(&[9]), limit + 128).unwrap();
        assert_eq!(kept(&rows, (2, 1)), [4, 5, 9]);
        assert_eq!((kept(&rows, (0, 1)), kept(&rows, (0, 0))), (vec![1, 3, 7, 8], vec![]));
    }

    #[test]
    fn many_small_parts_become_few() {
        let rows = KeptRows::default();
        for first in 0..40 {
            rows.keep((0, 0), &read(&[first, 40 + first, 80 + first]), 1 << 20).unwrap();
        }
        assert!(kept(&rows, (0, 0)).into_iter().eq(0..120));
        assert!(rows.of_group((0, 0), read(&[]).batch.schema_ref()).len() <= 7);
    }

    #[test]
    fn what_stays_holds_on_to_nothing_else() {
        let rows = KeptRows::default();
        let all = read(&[0, 1, 2, 3]);
        rows.keep((0, 0), &all, 228).unwrap();
        let [kept] = &rows.of_group((0, 0), all.batch.schema_ref())[..] else { panic!("one part") };
        let buffers = kept.batch.column(BLOB).as_binary_view().data_buffers().iter().map(|buffer| buffer.len());
        assert_eq!((kept.numbers.to_vec(), buffers.sum::<usize>()), (vec![0], 100));
    }

    #[test]
    fn rows_of_other_columns_are_others() {
        let rows = KeptRows::default();
        let narrow = |read: Rows| Rows { batch: read.batch.project(&[0]).unwrap(), ..read };
        rows.keep((0, 0), &read(&[1]), 10_000).unwrap();
        rows.keep((0, 0), &narrow(read(&[2])), 10_000).unwrap();
        assert_eq!(kept(&rows, (0, 0)), [1]);
        assert!(rows.of_group((0, 0), narrow(read(&[2])).batch.schema_ref()).is_empty());
        assert_eq!([rows.numbered(3), rows.numbered(1), rows.numbered(1)], [0, 3, 4]);
    }
}
