//! Order, windows and augmentation over real Parquet files.
//!
//! Most tests use a kernel that stamps pixels from bytes and key without decoding: what is tested is which item comes
//! when, and that does not depend on what an image shows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array},
        datatypes::{DataType, Field, Schema as ArrowSchema, UInt32Type, UInt64Type},
    },
    config::ConfigOptions,
    execution::TaskContext,
    parquet::{
        arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
        basic::Compression,
        file::properties::WriterProperties,
    },
    physical_optimizer::optimizer::PhysicalOptimizer,
    physical_plan::display::DisplayableExecutionPlan,
};
use diptych::{
    Error,
    augment::{BadClass, BadSample},
    batch::{batch_digest, digested_items},
    error::Stage,
    pair::{Encoded, SampleKernel},
    scan::{
        ScanSettings, World,
        epoch::{EpochPlan, HandedOn},
        failure::from_datafusion,
        order::Order,
        quarantine::{Quarantine, QuarantineState},
    },
    schema::Schema,
    seed::ItemKey,
    select::{
        selection::{Provenance, SelectedGroup, Selection},
        shards::ShardSet,
    },
};
use futures::TryStreamExt;
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

/// Pixels as a hash of everything that may decide them. Bytes that begin with `BAD` cannot be decoded.
#[derive(Debug, Default)]
pub(crate) struct Stamp {
    /// Calls so far.
    pub(crate) calls: AtomicUsize,
}

impl SampleKernel for Stamp {
    fn name(&self) -> &str {
        "stamp"
    }

    fn column(&self) -> &str {
        "image"
    }

    fn shape(&self) -> &[usize] {
        &[2, 3, 4, 4]
    }

    fn describe(&self) -> String {
        "stamp v1".to_owned()
    }

    fn apply(
        &self,
        encoded: Encoded<'_>,
        seed: u64,
        pass: u64,
        item: ItemKey,
        out: &mut [u8],
    ) -> Result<(), BadSample> {
        let encoded = encoded.bytes;
        self.calls.fetch_add(1, Ordering::Relaxed);
        if encoded.starts_with(b"BAD") {
            return Err(BadSample { class: BadClass::Decode, message: "cut off".to_owned() });
        }
        assert!(!encoded.starts_with(b"PANIC"), "a decoder met what it never expected");
        for (view, half) in out.chunks_mut(48).enumerate() {
            let mut hasher = blake3::Hasher::new();
            hasher.update(encoded);
            hasher.update(format!("{seed} {pass} {item:?} {view}").as_bytes());
            hasher.finalize_xof().fill(half);
        }
        Ok(())
    }
}

/// Rows of a shard to be written.
pub(crate) struct Content {
    /// Encoded images.
    pub(crate) images: Vec<Vec<u8>>,
    /// Rows whose bytes are not those their hash was taken of.
    pub(crate) flipped: Vec<usize>,
    /// Rows of a row group.
    pub(crate) group_rows: usize,
}

impl Content {
    /// `rows` images of `bytes` bytes, no two alike.
    pub(crate) fn new(name: &str, rows: usize, bytes: usize, group_rows: usize) -> Self {
        let image = |row: usize| {
            let mut image = vec![0; bytes];
            blake3::Hasher::new().update(format!("{name} {row}").as_bytes()).finalize_xof().fill(&mut image);
            image
        };
        Self { images: (0..rows).map(image).collect(), flipped: vec![], group_rows }
    }
}

pub(crate) fn write_shard(path: &Path, content: &Content) {
    let rows = content.images.len();
    let hashes: Vec<u64> = content.images.iter().map(|image| xxh3_64(image)).collect();
    let mut stored = content.images.clone();
    for &row in &content.flipped {
        let last = stored[row].len() - 1;
        stored[row][last] ^= 1;
    }
    let text = |of: &dyn Fn(usize) -> String| Arc::new(StringArray::from_iter_values((0..rows).map(of))) as ArrayRef;
    let side = || Arc::new(UInt32Array::from(vec![4; rows])) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("image", Arc::new(BinaryArray::from_iter_values(&stored))),
        ("width", side()),
        ("height", side()),
        ("format", text(&|_| "png".to_owned())),
        ("caption", text(&|row| format!("image {row}"))),
        ("label", text(&|row| format!("class {}", row % 7))),
        ("split", text(&|_| "train".to_owned())),
        ("source", text(&|row| format!("{row}.png"))),
        ("image_bytes", Arc::new(UInt64Array::from_iter_values(stored.iter().map(|image| image.len() as u64)))),
        ("image_xxh3", Arc::new(UInt64Array::from(hashes))),
    ];
    let nullable = ["caption", "label", "split"];
    let fields =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), nullable.contains(name)));
    let schema = Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(schema, columns.into_iter().map(|(_, array)| array).collect()).expect("columns");
    // As import writes: a page per blob, blobs as they are.
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(content.group_rows))
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_column_data_page_size_limit("image".into(), 1)
        .set_write_batch_size(1)
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).expect("file"), batch.schema(), Some(properties)).expect("writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("footer");
}

/// Shards in a folder of their own.
pub(crate) struct Data {
    pub(crate) folder: TempDir,
    pub(crate) shards: Arc<ShardSet>,
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

pub(crate) fn data(contents: &[Content]) -> Data {
    let folder = tempfile::tempdir().expect("folder");
    for (number, content) in contents.iter().enumerate() {
        write_shard(&folder.path().join(format!("shard-{number:03}.parquet")), content);
    }
    let schema = Schema::named("image_text").expect("embedded");
    let pattern = format!("{}/*.parquet", folder.path().display());
    let shards = runtime().block_on(ShardSet::open(&[pattern], &schema)).expect("shards");
    Data { folder, shards: Arc::new(shards) }
}

/// Three shards of 300 small images in row groups of 20.
pub(crate) fn small() -> Data {
    data(&["a", "b", "c"].map(|name| Content::new(name, 300, 200, 20)))
}

/// The rows that `keep` keeps, each as often as it says.
pub(crate) fn selection(shards: &ShardSet, keep: impl Fn(u32, u64) -> u32) -> Arc<Selection> {
    let mut groups = vec![];
    for shard in &shards.shards {
        let mut first_row = 0;
        for row_group in 0..shard.format.row_groups() {
            let rows = shard.format.group_rows(row_group) as u32;
            let times: Vec<(u32, u32)> =
                (0..rows).map(|row| (row, keep(shard.ordinal, first_row + u64::from(row)))).collect();
            let group = SelectedGroup {
                shard: shard.ordinal,
                row_group: row_group as u32,
                first_row,
                rows: times.iter().filter(|(_, times)| *times > 0).map(|(row, _)| *row).collect(),
                repeats: times.into_iter().filter(|(_, times)| *times > 1).collect(),
            };
            if !group.rows.is_empty() {
                groups.push(group);
            }
            first_row += u64::from(rows);
        }
    }
    Arc::new(Selection::new(shards, groups, Provenance::of("by hand")).expect("selection"))
}

pub(crate) fn settings() -> ScanSettings {
    ScanSettings {
        shuffle_window_rows: 320,
        shuffle_window_megabytes: 8,
        max_bad_share: 0.1,
        ..ScanSettings::default()
    }
}

pub(crate) fn plan(data: &Data, selection: &Arc<Selection>) -> EpochPlan {
    plan_of(&data.shards, selection)
}

pub(crate) fn plan_of(shards: &Arc<ShardSet>, selection: &Arc<Selection>) -> EpochPlan {
    EpochPlan {
        shards: Arc::clone(shards),
        selection: selection.into(),
        scan: settings(),
        kernel: Arc::new(Stamp::default()),
        extra_columns: vec!["label".to_owned()],
        seed: 7,
        order: Order::Shuffled,
        batch_rows: 32,
        drop_last: true,
        world: World::ONE,
        decode_threads: 2,
        pixel_digest: true,
        memory_bytes: 64 << 20,
        quarantine: None,
        handed_on: HandedOn::default(),
    }
}

fn all(data: &Data) -> EpochPlan {
    plan(data, &selection(&data.shards, |_, _| 1))
}

/// One item of a batch, with everything a trainer gets of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) position: u64,
    pub(crate) shard: u32,
    pub(crate) row: u64,
    pub(crate) occurrence: u32,
    pub(crate) replaced: bool,
    pub(crate) label: String,
    pub(crate) pass: u64,
    pub(crate) pixels: Vec<u8>,
}

fn seen(batch: &RecordBatch) -> Vec<Seen> {
    let column = |name: &str| batch.column_by_name(name).expect("column");
    let pixels = column("views").as_fixed_size_list();
    (0..batch.num_rows())
        .map(|index| Seen {
            position: column("position").as_primitive::<UInt64Type>().value(index),
            shard: column("shard").as_primitive::<UInt32Type>().value(index),
            row: column("row").as_primitive::<UInt64Type>().value(index),
            occurrence: column("occurrence").as_primitive::<UInt32Type>().value(index),
            replaced: column("replaced").as_boolean().value(index),
            label: column("label").as_string::<i32>().value(index).to_owned(),
            pass: column("pass").as_primitive::<UInt64Type>().value(index),
            pixels: pixels.value(index).as_primitive::<datafusion::arrow::datatypes::UInt8Type>().values().to_vec(),
        })
        .collect()
}

/// Runs an epoch; `take` sees each batch, which is dropped before the next: memory is bounded.
pub(crate) fn try_run<T>(
    plan: &EpochPlan,
    epoch: u64,
    first: u64,
    mut take: impl FnMut(RecordBatch) -> T,
) -> Result<Vec<T>, Error> {
    runtime().block_on(async {
        let mut stream = plan.execute(epoch, first)?;
        let mut taken = vec![];
        while let Some(batch) = stream.try_next().await.map_err(|error| from_datafusion(error, Stage::Scan))? {
            taken.push(take(batch));
        }
        Ok(taken)
    })
}

pub(crate) fn run(plan: &EpochPlan, epoch: u64, first: u64) -> Vec<Vec<Seen>> {
    try_run(plan, epoch, first, |batch| seen(&batch)).expect("epoch")
}

pub(crate) fn items(batches: &[Vec<Seen>]) -> Vec<(u32, u64, u32)> {
    batches.iter().flatten().map(|seen| (seen.shard, seen.row, seen.occurrence)).collect()
}

#[test]
fn every_item_comes_once_and_ranks_together_see_what_one_process_sees() {
    let data = small();
    // Every third row thrice, every fourth not at all.
    let selection = selection(&data.shards, |_, row| if row % 4 == 0 { 0 } else { 1 + 2 * u32::from(row % 3 == 0) });
    let plan = EpochPlan { drop_last: false, ..plan(&data, &selection) };
    let whole = run(&plan, 3, 0);
    let seen_items = items(&whole);
    assert_eq!(seen_items.len() as u64, selection.items());
    assert_eq!(seen_items.iter().collect::<HashSet<_>>().len(), seen_items.len());
    assert_eq!(whole.len() as u64, plan.batches_per_epoch());
    assert!(whole.iter().flatten().map(|seen| seen.position).eq(0..selection.items()));
    for size in [2, 4, 8] {
        let ranks: Vec<_> =
            (0..size).map(|rank| run(&EpochPlan { world: World { rank, size }, ..plan.clone() }, 3, 0)).collect();
        for (number, batch) in whole.iter().enumerate() {
            let mut union: Vec<Seen> = ranks.iter().flat_map(|rank| rank[number].clone()).collect();
            union.sort();
            assert_eq!(&union, batch, "batch {number} of {size} ranks");
        }
    }
}

#[test]
fn ranks_read_disjoint_row_groups_but_for_lane_borders() {
    let data = small();
    let plan = all(&data);
    let groups = |rank| {
        let world = World { rank, size: 2 };
        let batches = run(&EpochPlan { world, drop_last: false, ..plan.clone() }, 0, 0);
        batches.iter().flatten().map(|seen| (seen.shard, seen.row / 20)).collect::<BTreeSet<_>>()
    };
    let (zero, one) = (groups(0), groups(1));
    assert_eq!(zero.union(&one).count(), 45);
    assert!(zero.intersection(&one).count() < plan.scan.lanes as usize, "{:?}", zero.intersection(&one));
}

#[test]
fn another_epoch_or_seed_gives_another_order_and_other_pixels() {
    let data = small();
    let plan = all(&data);
    let base = run(&plan, 0, 0);
    assert_eq!(base, run(&plan, 0, 0));
    let other_epoch = run(&plan, 1, 0);
    let other_seed = run(&EpochPlan { seed: 8, ..plan.clone() }, 0, 0);
    let find = |batches: &[Vec<Seen>], item: &Seen| {
        batches.iter().flatten().find(|seen| (seen.shard, seen.row) == (item.shard, item.row)).cloned()
    };
    for other in [&other_epoch, &other_seed] {
        assert_ne!(items(&base), items(other));
        let item = base.iter().flatten().find(|item| find(other, item).is_some()).expect("a common item");
        assert_ne!(find(other, item).expect("common").pixels, item.pixels);
    }
    let first = &base[0][0];
    assert_ne!(first.pixels[..48], first.pixels[48..], "the views of a pair differ");
}

#[test]
fn an_epoch_mixes_row_groups() {
    let data = small();
    let batches = run(&all(&data), 0, 0);
    let groups = |batch: &Vec<Seen>| batch.iter().map(|s| (s.shard, s.row / 20)).collect::<HashSet<_>>().len();
    // Eight lanes of windows with two groups each: a full shuffle of 45 groups would show about 23.
    assert!(batches.iter().map(groups).sum::<usize>() / batches.len() >= 10);
    let neighbours = batches.iter().flat_map(|batch| batch.windows(2)).filter(|pair| pair[0].row + 1 == pair[1].row);
    assert!(neighbours.count() < 30);
}

#[test]
fn resuming_at_any_batch_gives_the_same_suffix() {
    let data = small();
    let plan = all(&data);
    let whole = run(&plan, 2, 0);
    for first in 0..=plan.batches_per_epoch() {
        assert_eq!(run(&plan, 2, first), whole[first as usize..], "from batch {first}");
    }
    assert!(plan.execute(2, plan.batches_per_epoch() + 1).is_err());
}

#[test]
fn resuming_late_costs_no_more_than_starting() {
    let data = data(&["a", "b"].map(|name| Content::new(name, 1_000, 4_000, 20)));
    let plan = all(&data);
    let bytes_of_first_batch = |first: u64| {
        let before = data.shards.store.wire();
        runtime().block_on(async {
            let mut stream = plan.execute(0, first).expect("plan");
            stream.try_next().await.expect("no failure").expect("a batch");
        });
        data.shards.store.wire().since(before).bytes
    };
    let start = bytes_of_first_batch(0);
    let late = bytes_of_first_batch(plan.batches_per_epoch() - 2);
    assert!(late <= start, "{late} bytes to resume, {start} to start");
}

#[test]
fn a_world_of_two_resumed_as_one_loses_and_repeats_nothing() {
    let data = small();
    let plan = EpochPlan { drop_last: false, ..all(&data) };
    let stop = 11;
    let mut before = vec![];
    for rank in 0..2 {
        let rank = run(&EpochPlan { world: World { rank, size: 2 }, ..plan.clone() }, 1, 0);
        before.extend(items(&rank[..stop]));
    }
    before.extend(items(&run(&plan, 1, stop as u64)));
    let once: HashSet<_> = before.iter().collect();
    assert_eq!((before.len(), once.len()), (900, 900));
}

#[test]
fn tiny_selections_and_more_lanes_than_items_are_complete() {
    let data = small();
    for (kept, batch_rows) in [(1, 1), (3, 2), (5, 5), (9, 4)] {
        let selection = selection(&data.shards, |shard, row| u32::from(shard == 1 && row % 60 == 7 && row / 60 < kept));
        let selection_items = selection.items();
        for drop_last in [false, true] {
            let plan = EpochPlan { batch_rows, drop_last, ..plan(&data, &selection) };
            let batches = run(&plan, 0, 0);
            let expected =
                if drop_last { selection_items / batch_rows as u64 * batch_rows as u64 } else { selection_items };
            assert_eq!(items(&batches).iter().collect::<HashSet<_>>().len() as u64, expected);
            assert_eq!(plan.items_dropped(), selection_items - expected);
        }
    }
    let nothing = selection(&data.shards, |_, _| 0);
    let error = plan(&data, &nothing).execute(0, 0).err().expect("nothing to do");
    assert!(error.to_string().contains("0 items"), "{error}");
}

#[test]
fn a_tenth_of_the_rows_reads_a_tenth_of_the_bytes() {
    let data = data(&["a", "b"].map(|name| Content::new(name, 1_024, 10_000, 256)));
    let selection = selection(&data.shards, |shard, row| u32::from((row * 7 + u64::from(shard)) % 10 == 0));
    let plan = EpochPlan { drop_last: false, batch_rows: 16, ..plan(&data, &selection) };
    let before = data.shards.store.wire();
    let batches = run(&plan, 0, 0);
    let wire = data.shards.store.wire().since(before);
    let wanted = items(&batches).len() as u64 * 10_000;
    assert!(wire.bytes as f64 <= 1.2 * wanted as f64, "{} bytes for {wanted}", wire.bytes);
    assert!(wire.bytes >= wanted);
}

#[test]
fn windows_stay_within_their_bytes() {
    let data = data(&["a", "b"].map(|name| Content::new(name, 1_024, 10_000, 16)));
    let mut plan = all(&data);
    plan.scan.shuffle_window_megabytes = 4;
    plan.scan.shuffle_window_rows = 100_000;
    let physical = plan.physical_plan(0, 0).expect("plan");
    runtime().block_on(async {
        let mut stream = physical.execute(0, Arc::new(TaskContext::default())).expect("stream");
        while stream.try_next().await.expect("no failure").is_some() {}
    });
    let metrics = physical.children()[0].metrics().expect("metrics");
    let metric = |name: &str| metrics.sum_by_name(name).expect("metric").as_usize();
    let peak = metric("peak_window_bytes");
    // Current and next windows of every lane; batches under way keep fetches of the windows before alive.
    assert!(peak <= 3 * (4 << 20), "{peak} bytes of windows");
    assert!(metric("bytes_fetched") > 20_000_000 && metric("windows") >= 5, "{metrics}");
}

#[test]
fn the_same_pixels_with_one_thread_or_four() {
    let data = small();
    let plan = all(&data);
    let one = run(&EpochPlan { decode_threads: 1, ..plan.clone() }, 0, 0);
    let four = run(&EpochPlan { decode_threads: 4, ..plan }, 0, 0);
    assert_eq!(one, four);
}

/// Shards with bad rows of every kind, and the rows as the quarantine must list them.
fn damaged(every: usize) -> (Data, BTreeMap<(String, u64), &'static str>) {
    let mut contents = ["a", "b", "c"].map(|name| Content::new(name, 400, 200, 20));
    let mut bad = BTreeMap::new();
    for (number, content) in contents.iter_mut().enumerate() {
        for row in (number..400).step_by(every) {
            let kind = row / every % 4;
            match kind {
                0 => content.images[row][..3].copy_from_slice(b"BAD"),
                1 => content.images[row][..5].copy_from_slice(b"PANIC"),
                2 => content.images[row].clear(),
                _ => content.flipped.push(row),
            }
            bad.insert((number.to_string(), row as u64), ["decode", "decode", "empty", "checksum"][kind]);
        }
    }
    let data = data(&contents);
    let named = |((shard, row), class): ((String, u64), _)| {
        let shard = &data.shards.shards[shard.parse::<usize>().expect("number")];
        ((shard.name.clone(), row), class)
    };
    let bad = bad.into_iter().map(named).collect();
    (data, bad)
}

fn table(folder: &Path) -> Vec<(String, u64, String)> {
    let mut rows = vec![];
    for part in std::fs::read_dir(folder).expect("folder") {
        let file = File::open(part.expect("entry").path()).expect("part");
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).expect("parquet").build().expect("reader") {
            let batch = batch.expect("rows");
            let text = |name: &str| batch.column_by_name(name).expect("column").as_string::<i32>().clone();
            let row = batch.column_by_name("row").expect("column").as_primitive::<UInt64Type>().clone();
            rows.extend(
                (0..batch.num_rows())
                    .map(|n| (text("shard").value(n).to_owned(), row.value(n), text("class").value(n).to_owned())),
            );
        }
    }
    rows
}

#[test]
fn bad_rows_are_replaced_alike_by_any_threads_and_ranks_and_listed_once() {
    let (data, bad) = damaged(40);
    let folder = tempfile::tempdir().expect("folder");
    let base = EpochPlan { drop_last: false, ..all(&data) };
    let mut runs = vec![];
    for threads in [1, 4] {
        let folder = folder.path().join(threads.to_string());
        let quarantine = Quarantine::open(&folder, QuarantineState::default()).expect("new");
        let plan = EpochPlan { decode_threads: threads, quarantine: Some(quarantine.clone()), ..base.clone() };
        runs.push((run(&plan, 0, 0), run(&plan, 1, 0)));
        // Not flushed: the end of an epoch writes the table.
        let state = quarantine.state();
        assert_eq!((state.items, state.bad, state.rows), (2_400, 2 * bad.len() as u64, bad.len() as u64));
        let listed = table(&folder);
        assert_eq!(listed.len(), bad.len(), "each once");
        for (shard, row, class) in listed {
            assert_eq!(bad.get(&(shard.clone(), row)).copied(), Some(class.as_str()), "{shard} row {row}");
        }
    }
    assert_eq!(runs[0], runs[1]);

    let (batches, _) = &runs[0];
    let is_bad = |seen: &Seen| bad.contains_key(&(data.shards.shards[seen.shard as usize].name.clone(), seen.row));
    assert_eq!(batches.iter().flatten().filter(|seen| seen.replaced).count(), bad.len());
    for batch in batches {
        let once: HashSet<_> = batch.iter().map(|seen| (seen.shard, seen.row)).collect();
        assert_eq!(once.len(), batch.len(), "a substitute is never an item of its batch");
        assert!(!batch.iter().any(is_bad));
        // A substitute comes with its own label.
        assert!(batch.iter().all(|seen| seen.label == format!("class {}", seen.row % 7)));
    }
    let mut ranks: Vec<Seen> = vec![];
    for rank in 0..2 {
        ranks.extend(run(&EpochPlan { world: World { rank, size: 2 }, ..base.clone() }, 0, 0).concat());
    }
    ranks.sort();
    assert_eq!(ranks, batches.concat());
}

#[test]
fn resuming_replaces_bad_rows_by_the_same_items() {
    let (data, _) = damaged(40);
    let plan = all(&data);
    assert_eq!(run(&plan, 0, 17), run(&plan, 0, 0)[17..]);
}

#[test]
fn a_run_stops_above_the_share_of_bad_rows() {
    let (data, _) = damaged(5);
    let mut plan = all(&data);
    let batches = AtomicUsize::new(0);
    let error = try_run(&plan, 0, 0, |_| batches.fetch_add(1, Ordering::Relaxed)).expect_err("a fifth is bad");
    assert!(error.to_string().contains("max_bad_share"), "{error}");
    // 1,000 items are 31.25 batches: the 32nd is the first that can be judged.
    assert_eq!(batches.into_inner(), 31);
    plan.scan.max_bad_share = 0.5;
    assert_eq!(run(&plan, 0, 0).len(), 37);
}

#[test]
fn a_bad_row_without_any_other_batch_is_a_clear_error() {
    let mut content = Content::new("a", 16, 50, 8);
    content.images[3] = b"BAD".to_vec();
    let data = data(&[content]);
    let folder = tempfile::tempdir().expect("folder");
    let quarantine = Quarantine::open(folder.path(), QuarantineState::default()).expect("new");
    let plan = EpochPlan { batch_rows: 16, quarantine: Some(quarantine), ..all(&data) };
    let error = try_run(&plan, 0, 0, |_| ()).expect_err("nothing to replace it");
    assert!(error.to_string().contains("no other batch"), "{error}");
    assert_eq!(table(folder.path()).len(), 1, "the table that the error speaks of names the row");
}

/// One shard of these many rows, some of them bad, in batches of 16.
fn one_batch_and_a_rest(rows: usize, bad: &[usize]) -> (Data, EpochPlan) {
    let mut content = Content::new("a", rows, 50, 8);
    bad.iter().for_each(|&row| content.images[row] = b"BAD".to_vec());
    let data = data(&[content]);
    let plan = EpochPlan { batch_rows: 16, ..all(&data) };
    (data, plan)
}

#[test]
fn two_bad_slots_of_a_batch_never_get_the_same_row() {
    let (_data, plan) = one_batch_and_a_rest(20, &[3, 9, 14]);
    let mut replaced = 0;
    for seed in 0..40 {
        let batches = run(&EpochPlan { seed, ..plan.clone() }, 0, 0);
        assert_eq!(batches.len(), 1);
        let once: HashSet<_> = batches[0].iter().map(|seen| (seen.shard, seen.row)).collect();
        assert_eq!(once.len(), 16, "seed {seed}");
        replaced += batches[0].iter().filter(|seen| seen.replaced).count();
    }
    assert!(replaced > 80, "{replaced} are too few to meet by chance");
}

#[test]
fn too_few_rows_to_give_every_bad_slot_one_of_its_own_are_a_clear_error() {
    let (_data, plan) = one_batch_and_a_rest(17, &[3, 9, 14]);
    let error = try_run(&plan, 0, 0, |_| ()).expect_err("two slots, one row");
    assert!(error.to_string().contains("no row may stand in a batch twice"), "{error}");
}

#[test]
fn a_row_that_a_join_repeats_never_replaces_two_slots_of_a_batch() {
    let mut content = Content::new("a", 100, 50, 20);
    (0..40).for_each(|row| content.images[row] = b"BAD".to_vec());
    let data = data(&[content]);
    // Bad rows once, the others twice: 160 items in ten batches of 16.
    let selection = selection(&data.shards, |_, row| if row < 40 { 1 } else { 2 });
    for seed in 0..20 {
        let plan = EpochPlan { batch_rows: 16, seed, ..plan(&data, &selection) };
        for batch in run(&plan, 0, 0) {
            let (substitutes, others): (Vec<_>, Vec<_>) = batch.iter().partition(|seen| seen.replaced);
            let rows: HashSet<u64> = substitutes.iter().map(|seen| seen.row).collect();
            assert_eq!(rows.len(), substitutes.len(), "seed {seed}");
            assert!(others.iter().all(|seen| !rows.contains(&seen.row)), "seed {seed}");
        }
    }
}

#[test]
fn evaluation_walks_by_sample_id_and_leaves_bad_rows_out() {
    let (data, bad) = damaged(40);
    let plan = EpochPlan { order: Order::Sequential, drop_last: false, ..all(&data) };
    let batches = run(&plan, 0, 0);
    assert_eq!(batches.len(), 38);
    let seen_items = items(&batches);
    assert_eq!(seen_items.len(), 1_200 - bad.len());
    assert!(seen_items.is_sorted());
    assert!(batches.iter().flatten().all(|seen| !seen.replaced && seen.label == format!("class {}", seen.row % 7)));
    // The pixels moved up with their rows.
    let pixels: HashMap<_, _> = run(&all(&data), 0, 0)
        .concat()
        .into_iter()
        .filter(|seen| !seen.replaced)
        .map(|seen| ((seen.shard, seen.row), seen.pixels))
        .collect();
    assert!(batches.iter().flatten().all(|s| pixels.get(&(s.shard, s.row)).is_none_or(|p| *p == s.pixels)));
}

#[test]
fn an_evaluation_batch_of_bad_rows_only_is_left_out() {
    let mut content = Content::new("a", 12, 50, 8);
    for image in &mut content.images[4..8] {
        *image = b"BAD".to_vec();
    }
    let data = data(&[content]);
    let mut plan = EpochPlan { order: Order::Sequential, batch_rows: 4, drop_last: false, ..all(&data) };
    plan.scan.max_bad_share = 1.0;
    let rows: Vec<Vec<u64>> =
        run(&plan, 0, 0).iter().map(|batch| batch.iter().map(|seen| seen.row).collect()).collect();
    assert_eq!(rows, [vec![0, 1, 2, 3], vec![8, 9, 10, 11]]);
}

/// Decodes what the `image` crate decodes; both views are the image itself.
#[derive(Debug)]
struct Decode;

impl SampleKernel for Decode {
    fn name(&self) -> &str {
        "decode"
    }

    fn column(&self) -> &str {
        "image"
    }

    fn shape(&self) -> &[usize] {
        &[2, 3, 4, 4]
    }

    fn describe(&self) -> String {
        "decode v1".to_owned()
    }

    fn apply(&self, encoded: Encoded<'_>, _: u64, _: u64, _: ItemKey, out: &mut [u8]) -> Result<(), BadSample> {
        let decoded = image::load_from_memory(encoded.bytes)
            .map_err(|error| BadSample { class: BadClass::Decode, message: error.to_string() })?;
        let pixels = decoded.to_rgb8().into_raw();
        out[..48].copy_from_slice(&pixels);
        out[48..].copy_from_slice(&pixels);
        Ok(())
    }
}

#[test]
fn encoded_images_come_through_and_one_percent_of_broken_ones_is_replaced() {
    let colour = |row: usize| [(row % 251) as u8, (row / 251 * 40) as u8, 77];
    let image = |row: usize| {
        let format = if row.is_multiple_of(2) { image::ImageFormat::Png } else { image::ImageFormat::Jpeg };
        let mut encoded = std::io::Cursor::new(vec![]);
        image::RgbImage::from_pixel(4, 4, image::Rgb(colour(row))).write_to(&mut encoded, format).expect("encoded");
        encoded.into_inner()
    };
    let broken = [17, 200, 313, 418, 501];
    let mut content = Content { images: (0..600).map(image).collect(), flipped: vec![], group_rows: 25 };
    for (kind, row) in broken.into_iter().enumerate() {
        let image = &mut content.images[row];
        match kind % 3 {
            0 => image.truncate(20),
            1 => image[..8].fill(0),
            _ => image.truncate(image.len() / 3),
        }
    }
    let data = data(&[content]);
    let folder = tempfile::tempdir().expect("folder");
    let quarantine = Quarantine::open(folder.path(), QuarantineState::default()).expect("new");
    let plan = EpochPlan { kernel: Arc::new(Decode), quarantine: Some(quarantine), ..all(&data) };
    let plan = EpochPlan { drop_last: false, ..plan };
    let batches = run(&plan, 0, 0);
    let listed: BTreeSet<u64> = table(folder.path()).into_iter().map(|(_, row, _)| row).collect();
    assert_eq!(listed, BTreeSet::from(broken.map(|row| row as u64)));
    assert_eq!(batches.iter().flatten().filter(|seen| seen.replaced).count(), broken.len());
    for seen in batches.iter().flatten() {
        let wanted = colour(seen.row as usize);
        let near = |pixel: &[u8]| pixel.iter().zip(wanted).all(|(&found, wanted)| found.abs_diff(wanted) <= 4);
        assert!(seen.pixels.chunks(3).all(near), "row {}", seen.row);
    }
}

#[test]
fn a_shard_that_vanishes_is_an_error_and_no_bad_data() {
    let data = small();
    let quarantine = Quarantine::in_memory();
    let plan = EpochPlan { quarantine: Some(quarantine.clone()), ..all(&data) };
    std::fs::remove_file(data.folder.path().join("shard-001.parquet")).expect("removed");
    let error = try_run(&plan, 0, 0, |_| ()).expect_err("a third of the data is gone");
    assert!(matches!(error, Error::Stage { stage: Stage::Scan, .. }), "{error}");
    assert!(error.to_string().contains("shard-001"), "{error}");
    assert_eq!(quarantine.state().bad, 0);
}

#[test]
fn a_shard_overwritten_with_noise_is_an_error_that_names_it() {
    let data = small();
    let path = data.folder.path().join("shard-002.parquet");
    let bytes = std::fs::metadata(&path).expect("file").len();
    let mut noise = vec![0; bytes as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let plan = all(&data);
    std::fs::write(&path, noise).expect("overwritten");
    let error = try_run(&plan, 0, 0, |_| ()).expect_err("noise is no Parquet");
    assert!(error.to_string().contains("shard-002"), "{error}");
}

#[test]
fn nothing_comes_after_augment_and_the_plan_shows_its_metrics() {
    let data = small();
    let plan = all(&data);
    let mut physical = plan.physical_plan(0, 0).expect("plan");
    let mut config = ConfigOptions::new();
    config.execution.target_partitions = 8;
    config.set("datafusion.execution.batch_size", "16").expect("an option");
    for rule in PhysicalOptimizer::new().rules {
        physical = rule.optimize(physical, &config).expect("optimized");
    }
    // No rule may put a node that takes, filters, concatenates or repartitions above the tensors.
    assert_eq!(physical.name(), "AugmentExec");
    let mut below = Arc::clone(physical.children()[0]);
    while let Some(child) = below.children().first().map(|child| Arc::clone(child)) {
        below = child;
    }
    assert_eq!(below.name(), "OrderedScanExec");
    let batches = runtime().block_on(async {
        let stream = physical.execute(0, Arc::new(TaskContext::default())).expect("stream");
        stream.map_ok(|batch| batch.num_rows()).try_collect::<Vec<_>>().await.expect("no failure")
    });
    assert_eq!(batches, [32; 28]);
    let text = DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(true).to_string();
    for part in [
        "AugmentExec: stamp v1",
        "kernel_time_all_threads",
        "bad_items",
        "OrderedScanExec: order=shuffled",
        "bytes_fetched",
        "window_wait",
        "windows",
        "output_rows=896",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_column_that_shards_lack_is_named() {
    let data = small();
    let plan = EpochPlan { extra_columns: vec!["lable".to_owned()], ..all(&data) };
    let error = plan.execute(0, 0).err().expect("no such column");
    assert!(error.to_string().contains("\"lable\"") && error.to_string().contains("label"), "{error}");
}

#[test]
fn memory_for_fewer_than_two_batches_is_refused() {
    let data = small();
    let plan = EpochPlan { memory_bytes: 6_000, ..all(&data) };
    let error = plan.execute(0, 0).err().expect("too small");
    assert!(error.to_string().contains("two batches"), "{error}");
}

#[test]
fn an_image_beside_its_path_is_read_as_hugging_face_stores_it() {
    let data = small();
    let path = data.folder.path().join("shard-000.parquet");
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).expect("shard")).expect("parquet");
    let batch = reader.build().expect("reader").next().expect("a batch").expect("rows");
    let images = batch.column_by_name("image").expect("image").clone();
    let paths: ArrayRef = Arc::new(StringArray::from(vec!["somewhere.png"; batch.num_rows()]));
    let fields = [Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)];
    let nested = datafusion::arrow::array::StructArray::from(vec![
        (Arc::new(fields[0].clone()), images),
        (Arc::new(fields[1].clone()), paths),
    ]);
    let schema = ArrowSchema::new(vec![Field::new("image", nested.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(nested)]).expect("columns");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("foreign.parquet");
    let mut writer = ArrowWriter::try_new(File::create(&path).expect("file"), batch.schema(), None).expect("writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("footer");

    let schema = Schema::parse(FOREIGN, "foreign").expect("schema");
    let pattern = path.display().to_string();
    let shards = Arc::new(runtime().block_on(ShardSet::open(&[pattern], &schema)).expect("shards"));
    let foreign = Data { folder, shards };
    let selection = selection(&foreign.shards, |_, _| 1);
    let plan = EpochPlan { extra_columns: vec![], batch_rows: 5, ..plan(&foreign, &selection) };
    let digests = try_run(&plan, 0, 0, |batch| {
        let items = digested_items(&batch, &foreign.shards.shards).expect("items");
        assert!(items.iter().all(|item| !item.replaced));
        batch_digest("stamp v1", &items)
    });
    assert_eq!(digests.expect("epoch").len() as u64, plan.batches_per_epoch());
}
const FOREIGN: &str = r#"
name = "foreign"
version = 1
column = []
"#;
