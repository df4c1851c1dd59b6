//! The quarantine: which rows could not be used, and why, as a Parquet table that SQL can anti-join.
//!
//! A folder of parts, the last of which grows until it is full; every write replaces a part as a whole, so that a crash
//! leaves the old part or the new one. A checkpoint keeps the [`QuarantineState`]; opening with it forgets what was
//! written after the checkpoint, and the batches that are then computed again report it again.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    arrow::{
        array::{AsArray, RecordBatch, StringArray, UInt64Array},
        datatypes::{DataType, Field, Schema, UInt64Type},
    },
    parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
};
use serde::{Deserialize, Serialize};

use crate::{
    augment::BadSample,
    error::{Context, Error, Result, Stage},
};

/// Rows of a part before the next one begins.
const PART_ROWS: usize = 65_536;

/// Rows that wait in memory before they are written without being asked for.
const LARGEST_PENDING: usize = 1_024;

/// Items before the share of bad ones is judged.
pub const JUDGED_AFTER_ITEMS: u64 = 1_000;

/// One row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The shard as messages name it.
    pub shard: String,
    /// Row within the shard.
    pub row: u64,
    /// `scan` where the stored bytes are not those that were imported, else `augment`.
    pub stage: String,
    /// Class of [`crate::augment::BadClass`].
    pub class: String,
    /// What the decoder said.
    pub message: String,
    /// As SQL sees the row in this run.
    pub sample_id: u64,
}

impl BadRow {
    /// The table's row for a bad sample.
    pub fn new(shard: &str, ordinal: u32, row: u64, stage: Stage, bad: &BadSample) -> Self {
        Self {
            shard: shard.to_owned(),
            row,
            stage: stage.to_string(),
            class: bad.class.name().to_owned(),
            message: bad.message.clone(),
            sample_id: u64::from(ordinal) << 40 | row,
        }
    }
}

/// What a checkpoint keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineState {
    /// Rows of the table.
    pub rows: u64,
    /// Items met.
    pub items: u64,
    /// Items among them that were bad; a row counts each time it is met.
    pub bad: u64,
}

/// Counts and table, shared by all epochs of a run.
#[derive(Debug, Clone, Default)]
pub struct Quarantine {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    folder: Option<PathBuf>,
    known: HashSet<(String, u64)>,
    /// Rows in full parts, and those parts.
    full_rows: u64,
    full_parts: usize,
    /// Rows of the part that still grows; the first `written` of them are on disk.
    open: Vec<BadRow>,
    written: usize,
    exists: bool,
    items: u64,
    bad: u64,
    /// What is met from now on does not count.
    is_closed: bool,
}

impl Quarantine {
    /// Counts, but writes no table.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// The table in `folder`, as it was at `state`: the default for a new run. Later rows are removed.
    ///
    /// # Errors
    /// The folder cannot be written, or the table has fewer rows than `state` says.
    pub fn open(folder: &Path, state: QuarantineState) -> Result<Self> {
        Ok(Self { inner: Arc::new(Mutex::new(Inner::open(folder, state)?)) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends counts and table at `state`, where a trainer stopped: what the data half met ahead of it is forgotten, and
    /// what it still meets does not count.
    ///
    /// # Errors
    /// The table cannot be written, or never had the rows of `state`.
    pub fn close_at(&self, state: QuarantineState) -> Result<()> {
        let mut inner = self.inner();
        inner.write()?;
        if let Some(folder) = inner.folder.clone() {
            *inner = Inner::open(&folder, state)?;
        }
        (inner.items, inner.bad, inner.is_closed) = (state.items, state.bad, true);
        Ok(())
    }

    /// Judges the share of bad items of a run that ended before it had [`JUDGED_AFTER_ITEMS`].
    ///
    /// # Errors
    /// More than `max_bad_share` were bad.
    pub fn judge(&self, max_bad_share: f64) -> Result<()> {
        let inner = self.inner();
        if inner.is_over(max_bad_share) { Err(inner.too_many_bad(max_bad_share)) } else { Ok(()) }
    }

    /// Counts a batch of `items` items, `bad` of them bad, and notes its bad rows; each row comes into the table once.
    ///
    /// # Errors
    /// More than `max_bad_share` of at least 1,000 items were bad, or the table cannot be written.
    pub fn settle(&self, items: u64, bad: u64, rows: Vec<BadRow>, max_bad_share: f64) -> Result<()> {
        let mut inner = self.inner();
        if inner.is_closed {
            return Ok(());
        }
        inner.items += items;
        inner.bad += bad;
        for row in rows {
            if inner.known.insert((row.shard.clone(), row.row)) {
                inner.open.push(row);
            }
        }
        let is_over = inner.items >= JUDGED_AFTER_ITEMS && inner.is_over(max_bad_share);
        if is_over || inner.open.len() - inner.written >= LARGEST_PENDING {
            inner.write()?;
        }
        if is_over { Err(inner.too_many_bad(max_bad_share)) } else { Ok(()) }
    }

    /// Writes what is not on disk yet: before the state goes into a checkpoint, and at the end of a run.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn flush(&self) -> Result<QuarantineState> {
        self.inner().write()?;
        Ok(self.state())
    }

    /// Counts so far.
    pub fn state(&self) -> QuarantineState {
        let inner = self.inner();
        QuarantineState { rows: inner.full_rows + inner.open.len() as u64, items: inner.items, bad: inner.bad }
    }
}

impl Inner {
    fn open(folder: &Path, state: QuarantineState) -> Result<Self> {
        let place = folder.display().to_string();
        fs::create_dir_all(folder).context(Stage::Scan, &place, "cannot make the folder")?;
        let mut rows: Vec<BadRow> = vec![];
        let mut part = 0;
        while part_path(folder, part).exists() {
            rows.extend(read(&part_path(folder, part))?);
            part += 1;
        }
        if (rows.len() as u64) < state.rows {
            let reason = format!(
                "the quarantine table has {} rows and its checkpoint {}; put the folder back as it was",
                rows.len(),
                state.rows
            );
            return Err(Error::at(Stage::Scan, place, reason));
        }
        let is_cut = rows.len() as u64 > state.rows;
        rows.truncate(state.rows as usize);
        let known = rows.iter().map(|row| (row.shard.clone(), row.row)).collect();
        let full_parts = rows.len() / PART_ROWS;
        let open = rows.split_off(full_parts * PART_ROWS);
        // Backwards, so that a crash in between leaves no gap in the numbers.
        for stale in (full_parts + 1..part).rev() {
            let path = part_path(folder, stale);
            fs::remove_file(&path).context(Stage::Scan, path.display().to_string(), "cannot be removed")?;
        }
        let mut inner = Self {
            folder: Some(folder.to_owned()),
            known,
            full_rows: rows.len() as u64,
            full_parts,
            written: open.len(),
            open,
            // A part that holds more than the checkpoint knows counts as none: it is written again.
            exists: part > full_parts && !is_cut,
            items: state.items,
            bad: state.bad,
            is_closed: false,
        };
        if is_cut {
            inner.write()?;
        }
        Ok(inner)
    }

    fn is_over(&self, max_bad_share: f64) -> bool {
        self.bad as f64 > max_bad_share * self.items as f64
    }

    fn too_many_bad(&self, max_bad_share: f64) -> Error {
        let share = self.bad as f64 / self.items as f64;
        let table = self.folder.as_ref().map_or(String::new(), |folder| format!(" that {} lists", folder.display()));
        let last = self.open.last().map_or(String::new(), |row| {
            format!(" (the last new one is {} row {}: {}: {})", row.shard, row.row, row.class, row.message)
        });
        let reason = format!(
            "{} of {} samples cannot be used, a share of {share:.4}{last}; leave out the rows{table} with SQL, \
             or raise max_bad_share",
            self.bad, self.items
        );
        Error::at(Stage::Augment, format!("scan.max_bad_share = {max_bad_share}"), reason)
    }

    fn write(&mut self) -> Result<()> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        while self.open.len() > self.written || !self.exists {
            let end = self.open.len().min(PART_ROWS);
            write_part(&folder, &part_path(&folder, self.full_parts), &self.open[..end])?;
            (self.written, self.exists) = (end, true);
            if end == PART_ROWS {
                self.open.drain(..PART_ROWS);
                self.full_rows += PART_ROWS as u64;
                self.full_parts += 1;
                (self.written, self.exists) = (0, false);
            }
        }
        Ok(())
    }
}

fn part_path(folder: &Path, part: usize) -> PathBuf {
    folder.join(format!("part-{part:05}.parquet"))
}

/// The table as a Parquet file. `place` is for messages.
///
/// # Errors
/// None that a user can cause.
pub fn encode(place: &str, rows: &[BadRow]) -> Result<Vec<u8>> {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    let fields = vec![text("shard"), number("row"), text("stage"), text("class"), text("message"), number("sample_id")];
    let texts = |of: fn(&BadRow) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(of)));
    let numbers = |of: fn(&BadRow) -> u64| Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)));
    let batch = RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        vec![
            texts(|row| &row.shard),
            numbers(|row| row.row),
            texts(|row| &row.stage),
            texts(|row| &row.class),
            texts(|row| &row.message),
            numbers(|row| row.sample_id),
        ],
    )
    .context(Stage::Scan, place, "cannot be built")?;
    let mut encoded = vec![];
    let mut writer =
        ArrowWriter::try_new(&mut encoded, batch.schema(), None).context(Stage::Scan, place, "cannot be encoded")?;
    writer.write(&batch).context(Stage::Scan, place, "cannot be encoded")?;
    writer.close().context(Stage::Scan, place, "cannot be encoded")?;
    Ok(encoded)
}

/// Complete or not at all: temporary name, fsync, rename, fsync of the folder.
fn write_part(folder: &Path, path: &Path, rows: &[BadRow]) -> Result<()> {
    let place = path.display().to_string();
    let encoded = encode(&place, rows)?;

    let temporary = path.with_extension("parquet.tmp");
    let save = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        std::io::Write::write_all(&mut file, &encoded)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    save().context(Stage::Scan, &place, "cannot be written; is the disk full?")
}

fn read(path: &Path) -> Result<Vec<BadRow>> {
    let place = path.display().to_string();
    let broken = "is no quarantine table; remove it to start a new one";
    let file = File::open(path).context(Stage::Scan, &place, "cannot be opened")?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .context(Stage::Scan, &place, broken)?;
    let mut rows = vec![];
    for batch in reader {
        let batch = batch.context(Stage::Scan, &place, broken)?;
        let missing = || Error::at(Stage::Scan, &place, broken);
        let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(missing);
        let number = |name: &str| {
            batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or_else(missing)
        };
        let (shard, stage, class, message) = (text("shard")?, text("stage")?, text("class")?, text("message")?);
        let (row, sample_id) = (number("row")?, number("sample_id")?);
        rows.extend((0..batch.num_rows()).map(|index| BadRow {
            shard: shard.value(index).to_owned(),
            row: row.value(index),
            stage: stage.value(index).to_owned(),
            class: class.value(index).to_owned(),
            message: message.value(index).to_owned(),
            sample_id: sample_id.value(index),
        }));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::BadClass;

    fn bad(row: u64) -> BadRow {
        BadRow::new("a.parquet", 2, row, Stage::Augment, &BadSample { class: BadClass::Decode, message: "cut".into() })
    }

    fn rows_in(folder: &Path) -> Vec<u64> {
        read(&part_path(folder, 0)).expect("table").iter().map(|row| row.row).collect()
    }

    #[test]
    fn each_bad_row_comes_into_the_table_once() {
        let folder = tempfile::tempdir().expect("folder");
        let quarantine = Quarantine::open(folder.path(), QuarantineState::default()).expect("new");
        quarantine.settle(10, 2, vec![bad(4), bad(7)], 0.5).expect("below");
        quarantine.settle(10, 1, vec![bad(4)], 0.5).expect("below");
        assert_eq!(quarantine.flush().expect("written"), QuarantineState { rows: 2, items: 20, bad: 3 });
        assert_eq!(rows_in(folder.path()), [4, 7]);
        assert_eq!(read(&part_path(folder.path(), 0)).expect("table")[0], bad(4));
    }

    #[test]
    fn reopening_forgets_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().expect("folder");
        let quarantine = Quarantine::open(folder.path(), QuarantineState::default()).expect("new");
        quarantine.settle(5, 1, vec![bad(1)], 0.5).expect("below");
        let state = quarantine.flush().expect("written");
        quarantine.settle(5, 1, vec![bad(2)], 0.5).expect("below");
        quarantine.flush().expect("written");
        let again = Quarantine::open(folder.path(), state).expect("reopened");
        assert_eq!((again.state(), rows_in(folder.path())), (state, vec![1]));
        again.settle(5, 1, vec![bad(3), bad(1)], 0.5).expect("below");
        again.flush().expect("written");
        assert_eq!(rows_in(folder.path()), [1, 3]);
        assert!(Quarantine::open(folder.path(), QuarantineState { rows: 9, ..state }).is_err());
    }

    #[test]
    fn a_full_part_is_followed_by_another() {
        let folder = tempfile::tempdir().expect("folder");
        let quarantine = Quarantine::open(folder.path(), QuarantineState::default()).expect("new");
        let rows = PART_ROWS as u64 + 5;
        quarantine.settle(rows, rows, (0..rows).map(bad).collect(), 1.0).expect("below");
        let state = quarantine.flush().expect("written");
        assert_eq!(state.rows, rows);
        let again = Quarantine::open(folder.path(), state).expect("reopened");
        again.settle(1, 1, vec![bad(rows)], 1.0).expect("below");
        assert_eq!(again.flush().expect("written").rows, rows + 1);
        assert_eq!(read(&part_path(folder.path(), 1)).expect("table").len(), 6);
    }

    #[test]
    fn the_share_is_judged_after_a_thousand_items() {
        let quarantine = Quarantine::in_memory();
        quarantine.settle(999, 500, vec![], 0.01).expect("too early to judge");
        let error = quarantine.settle(1, 0, vec![bad(9)], 0.01).expect_err("half is bad");
        assert!(error.to_string().contains("500 of 1000") && error.to_string().contains("row 9"), "{error}");
    }

    #[test]
    fn a_short_run_is_judged_at_its_end() {
        let quarantine = Quarantine::in_memory();
        quarantine.settle(100, 3, vec![bad(9)], 0.02).expect("too early to judge");
        quarantine.judge(0.03).expect("not above");
        let error = quarantine.judge(0.02).expect_err("three of a hundred");
        assert!(error.to_string().contains("3 of 100"), "{error}");
        Quarantine::in_memory().judge(0.0).expect("nothing was met");
    }

    #[test]
    fn closing_forgets_what_was_met_ahead_and_what_comes_after() {
        let folder = tempfile::tempdir().expect("folder");
        let quarantine = Quarantine::open(folder.path(), QuarantineState::default()).expect("new");
        quarantine.settle(5, 1, vec![bad(1)], 0.5).expect("below");
        let trained = quarantine.state();
        quarantine.settle(5, 2, vec![bad(2), bad(3)], 0.5).expect("below");
        quarantine.close_at(trained).expect("closed");
        quarantine.settle(5, 1, vec![bad(4)], 0.5).expect("ignored");
        assert_eq!(quarantine.flush().expect("written"), trained);
        assert_eq!(rows_in(folder.path()), [1]);
    }

    #[test]
    fn a_table_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let quarantine = Quarantine::open(folder.path(), QuarantineState::default()).expect("new");
        quarantine.settle(5, 1, vec![bad(1)], 0.5).expect("below");
        fs::create_dir(part_path(folder.path(), 0).with_extension("parquet.tmp")).expect("in the way");
        assert!(quarantine.flush().is_err() && quarantine.close_at(quarantine.state()).is_err());
    }

    #[test]
    fn an_empty_table_exists_after_a_flush() {
        let folder = tempfile::tempdir().expect("folder");
        Quarantine::open(folder.path(), QuarantineState::default()).expect("new").flush().expect("written");
        assert_eq!(rows_in(folder.path()), Vec::<u64>::new());
    }
}
