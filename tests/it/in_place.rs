//! Files of others, read where they are: columns under any name, images plain or beside a path, Parquet of every codec and
//! geometry, Arrow IPC.
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BinaryArray, DictionaryArray, Int64Array, LargeBinaryArray, RecordBatch,
            StringArray, StructArray,
        },
        buffer::NullBuffer,
        datatypes::{DataType, Field, Int32Type, Schema as ArrowSchema, UInt8Type, UInt64Type},
        ipc::{
            CompressionType,
            writer::{FileWriter, IpcWriteOptions, StreamWriter},
        },
    },
    object_store::ObjectStore,
    parquet::{
        arrow::ArrowWriter,
        basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel},
        file::properties::{EnabledStatistics, WriterProperties},
    },
};
use diptych::{
    batch::digested_items,
    pair::{Encoded, SampleKernel},
    scan::{
        World,
        budget::ByteBudget,
        epoch::EpochPlan,
        fetch::{Fetcher, Reading},
        order::Order,
        quarantine::Quarantine,
    },
    schema::Schema,
    seed::draws,
    select::{
        combine::{Combination, combine},
        difference::{Shown, difference},
        select::{select, verify},
        selection::Selection,
        selection_file::SavedSelection,
        shards::ShardSet,
    },
};
use futures::TryStreamExt;
use serde_json::Value;

use crate::scan::{self, Content, Stamp, runtime};

const ROWS: usize = 96;
const SIDE: u32 = 28;

/// A PNG of its own for every row; noise, so that no codec makes it smaller.
fn png(row: usize) -> Vec<u8> {
    let mut noise = vec![0; (SIDE * SIDE * 3) as usize];
    blake3::Hasher::new().update(&row.to_le_bytes()).finalize_xof().fill(&mut noise);
    let mut encoded = std::io::Cursor::new(vec![]);
    let image = image::RgbImage::from_raw(SIDE, SIDE, noise).unwrap();
    image.write_to(&mut encoded, image::ImageFormat::Png).unwrap();
    encoded.into_inner()
}

fn pngs() -> Vec<Vec<u8>> {
    (0..ROWS).map(png).collect()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = ArrowSchema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

/// `struct<bytes: binary, path: string>`; rows without bytes have a path alone.
fn hugging_face(images: &[Option<Vec<u8>>]) -> ArrayRef {
    let bytes = BinaryArray::from_iter(images.iter().map(Option::as_deref));
    let paths = StringArray::from_iter_values((0..images.len()).map(|row| format!("photos/{row}.png")));
    let fields = vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)];
    Arc::new(StructArray::new(fields.into(), vec![Arc::new(bytes), Arc::new(paths)], None))
}

/// As `datasets` writes: an image struct, class numbers, and its own description in the schema's metadata.
fn hugging_face_rows(images: &[Option<Vec<u8>>]) -> RecordBatch {
    let labels = Int64Array::from_iter_values((0..images.len()).map(|row| row as i64 % 7));
    let rows = batch(vec![("image", hugging_face(images)), ("label", Arc::new(labels))]);
    let described = r#"{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel"}}}}"#;
    let metadata = HashMap::from([("huggingface".to_owned(), described.to_owned())]);
    let schema = rows.schema().as_ref().clone().with_metadata(metadata);
    rows.with_schema(Arc::new(schema)).unwrap()
}

/// Under names of their own, with a column that no schema knows.
fn renamed_rows(images: &[Vec<u8>]) -> RecordBatch {
    let rows = 0..images.len();
    batch(vec![
        ("TEXT", Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("picture {row}"))))),
        ("jpg", Arc::new(LargeBinaryArray::from_iter_values(images))),
        ("class", Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("{}", row % 7))))),
        ("score", Arc::new(Int64Array::from_iter_values(rows.map(|row| row as i64)))),
    ])
}

const RENAMED: [(&str, &str); 3] = [("image", "jpg"), ("caption", "TEXT"), ("label", "class")];

/// Other writers' defaults: compressed, dictionaries tried first, no page index.
fn foreign(compression: Compression) -> WriterProperties {
    WriterProperties::builder()
        .set_compression(compression)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // Else a page of this writer holds a thousand rows, however large they are.
        .set_write_batch_size(16)
        .build()
}

fn write_parquet(path: &Path, rows: &RecordBatch, properties: WriterProperties) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

fn write_ipc(path: &Path, rows: &RecordBatch, rows_a_batch: usize, options: IpcWriteOptions) {
    let file = File::create(path).unwrap();
    let mut writer = FileWriter::try_new_with_options(file, &rows.schema(), options).unwrap();
    for start in (0..rows.num_rows()).step_by(rows_a_batch) {
        writer.write(&rows.slice(start, rows_a_batch.min(rows.num_rows() - start))).unwrap();
    }
    writer.finish().unwrap();
}

fn write_stream(path: &Path, rows: &RecordBatch, rows_a_batch: usize) {
    let mut writer = StreamWriter::try_new(File::create(path).unwrap(), &rows.schema()).unwrap();
    for start in (0..rows.num_rows()).step_by(rows_a_batch) {
        writer.write(&rows.slice(start, rows_a_batch.min(rows.num_rows() - start))).unwrap();
    }
    writer.finish().unwrap();
}

/// One file, and what `[scan.columns]` must say to read it.
struct Kind {
    name: &'static str,
    columns: &'static [(&'static str, &'static str)],
    path: PathBuf,
}

/// The same images in every layout that is read in place.
fn kinds(folder: &Path) -> Vec<Kind> {
    let images = pngs();
    let some: Vec<Option<Vec<u8>>> = images.iter().cloned().map(Some).collect();
    let mut kinds = vec![];
    let mut add = |name, columns, file: &str| {
        let path = folder.join(name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        kinds.push(Kind { name, columns, path: path.clone() });
        path
    };
    let path = add("hugging-face", &[], "train-00000-of-00001.parquet");
    write_parquet(&path, &hugging_face_rows(&some), foreign(Compression::SNAPPY));
    let path = add("renamed", &RENAMED, "part.parquet");
    write_parquet(&path, &renamed_rows(&images), foreign(Compression::ZSTD(ZstdLevel::default())));
    let path = add("ipc-stream", &[], "data-00000-of-00001.arrow");
    write_stream(&path, &hugging_face_rows(&some), 10);
    let path = add("ipc-file", &[], "part.arrow");
    // Labels by dictionary; the whole column is one array, as writers of files demand.
    let labels: DictionaryArray<Int32Type> =
        (0..ROWS).map(|row| Some((row % 7).to_string())).collect::<Vec<_>>().iter().map(|l| l.as_deref()).collect();
    let image: ArrayRef = Arc::new(BinaryArray::from_iter_values(&images));
    write_ipc(&path, &batch(vec![("image", image), ("label", Arc::new(labels))]), 25, IpcWriteOptions::default());
    let path = add("feather", &RENAMED, "part.feather");
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
    write_ipc(&path, &renamed_rows(&images), 40, options);
    kinds
}

fn schema(columns: &[(&str, &str)]) -> Schema {
    let names: BTreeMap<String, String> = columns.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    Schema::named("image_text").unwrap().with_names_in_files(&names).unwrap()
}

fn open(path: &Path, columns: &[(&str, &str)]) -> diptych::Result<scan::Data> {
    let shards = runtime().block_on(ShardSet::open(&[path.display().to_string()], &schema(columns)))?;
    Ok(scan::Data { folder: tempfile::tempdir().unwrap(), shards: Arc::new(shards) })
}

/// What a query keeps of a file, and the bytes of blobs that it cost.
fn kept(data: &scan::Data, columns: &[(&str, &str)], sql: &str) -> (Vec<u64>, u64) {
    let schema = schema(columns);
    let (selection, report) = runtime()
        .block_on(select(&data.shards, &schema, sql))
        .unwrap_or_else(|error| panic!("{sql}: {}", error.report()));
    runtime().block_on(verify(&data.shards, &schema, sql, selection.digest())).unwrap();
    let rows = selection.groups.iter().flat_map(|g| g.iter_items().map(|(row, _)| g.first_row + u64::from(row)));
    (rows.collect(), report.blob_bytes_read)
}

fn all(data: &scan::Data) -> EpochPlan {
    scan::plan(data, &scan::selection(&data.shards, |_, _| 1))
}

#[test]
fn every_layout_gives_the_rows_that_it_holds_under_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    for Kind { name, columns, path } in kinds(folder.path()) {
        let data = open(path.parent().unwrap(), columns).unwrap_or_else(|error| panic!("{name}: {}", error.report()));
        assert_eq!(data.shards.rows(), ROWS as u64, "{name}");
        let plan = EpochPlan { drop_last: false, ..all(&data) };
        let mut seen = vec![];
        runtime().block_on(async {
            let mut stream = plan.execute(0, 0).unwrap();
            while let Some(batch) = stream.try_next().await.unwrap_or_else(|error| panic!("{name}: {error}")) {
                let items = digested_items(&batch, &data.shards.shards).unwrap();
                let labels = batch.column_by_name("label").unwrap();
                let labels = datafusion::arrow::compute::cast(labels, &DataType::Utf8).unwrap();
                let pixels = batch.column_by_name("views").unwrap().as_fixed_size_list();
                let rows = batch.column_by_name("row").unwrap().as_primitive::<UInt64Type>();
                for (at, item) in items.iter().enumerate() {
                    let row = rows.value(at) as usize;
                    // The digest covers these keys: a pure function of fingerprint and row.
                    assert_eq!(item.key, data.shards.shards[0].item_key(row as u64, 0), "{name}");
                    assert!(!item.replaced, "{name} row {row}");
                    let mut expected = [0; 96];
                    Stamp::default().apply(Encoded::image(&png(row)), plan.seed, 0, item.key, &mut expected).unwrap();
                    let found = pixels.value(at);
                    assert_eq!(&found.as_primitive::<UInt8Type>().values()[..], &expected[..], "{name} row {row}");
                    assert_eq!(labels.as_string::<i32>().value(at), (row % 7).to_string(), "{name} row {row}");
                    seen.push(row);
                }
            }
        });
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..ROWS), "{name}");
    }
}

#[test]
fn sql_sees_every_layout_under_the_names_of_the_schema_and_reads_no_blob() {
    let folder = tempfile::tempdir().unwrap();
    for Kind { name, columns, path } in kinds(folder.path()) {
        let data = open(&path, columns).unwrap();
        let expected: Vec<u64> = (0..ROWS as u64).filter(|row| row % 7 == 3).collect();
        let (rows, blob_bytes) =
            kept(&data, columns, "SELECT sample_id FROM shards WHERE CAST(label AS VARCHAR) = '3'");
        assert_eq!((rows, blob_bytes), (expected, 0), "{name}");
        // What a schema allows to be null and the file lacks is null.
        let (rows, _) = kept(&data, columns, "SELECT sample_id FROM shards WHERE split IS DISTINCT FROM 'test'");
        assert_eq!(rows.len(), ROWS, "{name}");
        if columns.is_empty() {
            continue;
        }
        let sql = "SELECT sample_id FROM shards WHERE caption LIKE 'picture 1%' AND score < 12";
        assert_eq!(kept(&data, columns, sql), (vec![1, 10, 11], 0), "{name}");
    }
}

#[test]
fn images_and_fields_beside_them_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Option<Vec<u8>>> = pngs().into_iter().map(Some).collect();
    let (parquet, ipc) = (folder.path().join("a.parquet"), folder.path().join("b.arrow"));
    write_parquet(&parquet, &hugging_face_rows(&images), foreign(Compression::SNAPPY));
    write_stream(&ipc, &hugging_face_rows(&images), 10);
    let nested = [("image", "image.bytes"), ("caption", "image.path")];
    for path in [&parquet, &ipc] {
        let data = open(path, &[]).unwrap();
        let (rows, _) = kept(&data, &[], "SELECT sample_id FROM shards WHERE image['path'] = 'photos/5.png'");
        assert_eq!(rows, [5], "{path:?}");
        let data = open(path, &nested).unwrap();
        let sql = "SELECT sample_id FROM shards WHERE encode(sha256(image), 'hex') > '0' AND caption = 'photos/6.png'";
        assert_eq!(kept(&data, &nested, sql).0, [6], "{path:?}");
        let plan = EpochPlan { extra_columns: vec!["caption".to_owned()], ..all(&data) };
        assert_eq!(scan_rows(&plan).len(), ROWS, "{path:?}");
    }
    // Both formats are one table.
    let data = open(folder.path(), &[]).unwrap();
    let sql = "SELECT sample_id FROM shards WHERE label = 3 AND image['path'] LIKE '%/10.png'";
    assert_eq!(kept(&data, &[], sql).0, [10, 10]);
}

#[test]
fn every_codec_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Option<Vec<u8>>> = pngs().into_iter().map(Some).collect();
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        let path = folder.path().join("a.parquet");
        write_parquet(&path, &hugging_face_rows(&images), foreign(codec));
        let plan = all(&open(&path, &[]).unwrap());
        let batches = read(&plan).unwrap_or_else(|error| panic!("{codec}: {error}"));
        assert_eq!(batches, 3, "{codec}");
    }
}

/// Runs an epoch and counts its batches.
fn read(plan: &EpochPlan) -> Result<usize, String> {
    runtime().block_on(async {
        let mut stream = plan.execute(0, 0).map_err(|error| error.report())?;
        let mut batches = 0;
        while stream.try_next().await.map_err(|error| error.to_string())?.is_some() {
            batches += 1;
        }
        Ok(batches)
    })
}

#[test]
fn an_image_that_is_not_embedded_is_a_bad_sample_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut images: Vec<Option<Vec<u8>>> = pngs().into_iter().map(Some).collect();
    images[17] = None;
    for (file, is_ipc) in [("a.parquet", false), ("b.arrow", true)] {
        let path = folder.path().join(file);
        match is_ipc {
            true => write_stream(&path, &hugging_face_rows(&images), 20),
            false => write_parquet(&path, &hugging_face_rows(&images), foreign(Compression::SNAPPY)),
        }
        let data = open(&path, &[]).unwrap();
        let table = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(table.path(), Default::default()).unwrap();
        let plan = EpochPlan {
            order: Order::Sequential,
            drop_last: false,
            quarantine: Some(quarantine.clone()),
            ..all(&data)
        };
        let rows: Vec<u64> = scan_rows(&plan);
        assert_eq!(rows.len(), ROWS - 1, "{file}");
        assert!(!rows.contains(&17));
        assert_eq!((quarantine.state().bad, quarantine.state().rows), (1, 1), "{file}");
        let message = quarantined(table.path());
        assert!(message.contains("\"photos/17.png\" is not embedded in the shard"), "{file}: {message}");
    }
}

#[test]
fn a_number_of_another_meaning_under_our_name_verifies_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = Int64Array::from_iter_values((0..ROWS).map(|row| row as i64));
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(pngs()));
    let path = folder.path().join("a.parquet");
    let rows = batch(vec![("image", images), ("image_bytes", Arc::new(numbers))]);
    write_parquet(&path, &rows, foreign(Compression::SNAPPY));
    let data = open(&path, &[]).unwrap();
    let plan = EpochPlan { order: Order::Sequential, drop_last: false, extra_columns: vec![], ..all(&data) };
    assert_eq!(scan_rows(&plan).len(), ROWS);
}

fn scan_rows(plan: &EpochPlan) -> Vec<u64> {
    runtime().block_on(async {
        let mut stream = plan.execute(0, 0).unwrap();
        let mut rows = vec![];
        while let Some(batch) = stream.try_next().await.unwrap() {
            rows.extend_from_slice(batch.column_by_name("row").unwrap().as_primitive::<UInt64Type>().values());
        }
        rows
    })
}

fn quarantined(folder: &Path) -> String {
    let part = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let reader =
        datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(File::open(part).unwrap());
    let rows = reader.unwrap().build().unwrap().next().unwrap().unwrap();
    rows.column_by_name("message").unwrap().as_string::<i32>().value(0).to_owned()
}

#[test]
fn a_missing_image_column_comes_with_the_line_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, &renamed_rows(&pngs()), foreign(Compression::SNAPPY));
    let text = open(&path, &[]).err().expect("no image").report();
    assert!(
        text.contains("a.parquet")
            && text.contains("write under [scan.columns], or as --column of sql and lint: image = \"jpg\""),
        "{text}"
    );
    let data = open(&path, &[("image", "jpg")]).unwrap();
    let text = all(&data).physical_plan(0, 0).unwrap_err().report();
    assert!(text.contains("has no column \"label\"") && text.contains("label = \"TEXT\" (or \"class\""), "{text}");
    let text = open(&path, &[("image", "jpg"), ("caption", "text")]).err().expect("no such caption").report();
    assert!(text.contains("no column \"text\"") && text.contains("caption = \"TEXT\" (or \"class\")"), "{text}");
}

#[test]
fn a_huge_row_group_without_page_index_is_read_page_by_page_within_the_windows_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let images = Content::new("huge", 4_000, 20_000, 1).images;
    let some: Vec<Option<Vec<u8>>> = images.into_iter().map(Some).collect();
    // One row group of 80 MB with pages of a megabyte.
    write_parquet(&path, &hugging_face_rows(&some), foreign(Compression::SNAPPY));
    let data = open(&path, &[]).unwrap();
    assert_eq!((data.shards.row_groups(), data.shards.shards[0].has_offset_index()), (1, false));
    let mut plan = all(&data);
    plan.scan.lanes = 2;
    plan.scan.shuffle_window_megabytes = 8;
    plan.scan.shuffle_window_rows = 100_000;
    let before = data.shards.store.wire();
    let physical = plan.physical_plan(0, 0).unwrap();
    runtime().block_on(async {
        let mut stream = physical.execute(0, Arc::new(Default::default())).unwrap();
        while stream.try_next().await.unwrap().is_some() {}
    });
    let wire = data.shards.store.wire().since(before);
    let peak = physical.children()[0].metrics().unwrap().sum_by_name("peak_window_bytes").unwrap().as_usize();
    eprintln!("80 MB in one row group without page index: {} bytes read, {peak} held at most", wire.bytes);
    // Current and next windows of every lane, pages that two windows share, and pages as they are decompressed.
    assert!(peak <= 5 * (8 << 20), "{peak} bytes of windows");
    // Pages at the borders of windows are read twice, and the dictionary that the writer tried first by every window.
    assert!(wire.bytes < 150_000_000, "{} bytes for 80 MB", wire.bytes);

    // Few rows cost their pages, not the chunk.
    let few = scan::selection(&data.shards, |_, row| u32::from(row % 800 == 7));
    let before = data.shards.store.wire();
    let batches = scan_rows(&EpochPlan { batch_rows: 5, ..scan::plan(&data, &few) });
    let wire = data.shards.store.wire().since(before);
    assert_eq!(batches.len(), 5);
    assert!(wire.bytes < 20_000_000, "{} bytes for five rows", wire.bytes);
}

#[test]
fn rows_that_share_pages_with_others_do_not_hold_on_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let images = Content::new("sparse", 1_000, 20_000, 1).images;
    let some: Vec<Option<Vec<u8>>> = images.into_iter().map(Some).collect();
    for (file, is_ipc) in [("a.parquet", false), ("b.arrow", true)] {
        let path = folder.path().join(file);
        match is_ipc {
            true => write_stream(&path, &hugging_face_rows(&some), 100),
            false => write_parquet(&path, &hugging_face_rows(&some), foreign(Compression::SNAPPY)),
        }
        let data = open(&path, &[]).unwrap();
        let few = scan::selection(&data.shards, |_, row| u32::from(row % 50 == 7));
        let plan = EpochPlan { batch_rows: 20, ..scan::plan(&data, &few) };
        let store: Arc<dyn ObjectStore> = Arc::clone(&data.shards.store) as _;
        let budget = ByteBudget::new(1 << 30);
        let fetcher = Fetcher::new(&data.shards.shards, store, "image", &[], Arc::clone(&budget)).unwrap();
        let group = &few.groups[0];
        let rows: Vec<u32> = group.rows.iter().collect();
        let reading = Reading::now();
        let fetched = runtime().block_on(fetcher.rows(0, group.row_group, &rows, &reading)).unwrap();
        let wanted = rows.len() as u64 * 20_000;
        assert!(
            budget.used_bytes() >= wanted && budget.used_bytes() < wanted * 11 / 10,
            "{file}: {}",
            budget.used_bytes()
        );
        drop(fetched);
        assert_eq!(budget.used_bytes(), 0, "{file}");
        assert_eq!(read(&plan).unwrap(), 1);
    }
}

#[test]
fn a_tenth_of_our_own_rows_costs_a_tenth_of_the_bytes_from_the_first_footer_on() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        scan::write_shard(&folder.path().join(format!("{name}.parquet")), &Content::new(name, 1_024, 20_000, 256));
    }
    let data = open(folder.path(), &[]).unwrap();
    let sql = "SELECT sample_id FROM shards WHERE sample_uniform(sample_id, 3) < 0.1";
    let (selection, report) = runtime().block_on(select(&data.shards, &schema(&[]), sql)).unwrap();
    assert_eq!(report.blob_bytes_read, 0);
    let plan = EpochPlan { drop_last: false, batch_rows: 16, ..scan::plan(&data, &Arc::new(selection.clone())) };
    assert_eq!(scan_rows(&plan).len() as u64, selection.items());
    // Nothing is cached outside of the set: footers, page index, narrow columns and blobs, all of them.
    let wire = data.shards.store.wire();
    let wanted = selection.items() * 20_000;
    eprintln!("a tenth: {} bytes on the wire for {wanted} of blobs", wire.bytes);
    assert!(wire.bytes as f64 <= 1.2 * wanted as f64, "{} bytes for {wanted}", wire.bytes);
}

#[test]
fn ranks_together_read_what_one_process_reads() {
    let data = scan::data(&["a", "b", "c"].map(|name| Content::new(name, 1_024, 10_000, 64)));
    let plan = EpochPlan { drop_last: false, ..all(&data) };
    let cost = |size: u32| {
        let ranks = (0..size).map(|rank| {
            let before = data.shards.store.wire();
            scan_rows(&EpochPlan { world: World { rank, size }, ..plan.clone() });
            data.shards.store.wire().since(before).bytes
        });
        ranks.collect::<Vec<u64>>()
    };
    let (one, two, four) = (cost(1), cost(2), cost(4));
    eprintln!("bytes on the wire of worlds of 1, 2 and 4: {one:?} {two:?} {four:?}");
    // Pages hold a blob each, so that not even lane borders cost anything twice; narrow pages do.
    for world in [&two, &four] {
        let sum: u64 = world.iter().sum();
        assert!(sum as f64 <= 1.05 * one[0] as f64, "{sum} of {}", one[0]);
        let (most, least) = (world.iter().max().unwrap(), world.iter().min().unwrap());
        assert!(most - least < most / 10, "{world:?}");
    }
}

#[test]
fn damaged_ipc_files_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    for Kind { name, columns, path } in kinds(folder.path()).into_iter().filter(|kind| kind.name.contains("ipc")) {
        let whole = fs::read(&path).unwrap();
        for length in [0, 3, 9, 100, whole.len() / 2, whole.len() - 30] {
            fs::write(&path, &whole[..length]).unwrap();
            // A stream that ends between two messages is one; anything else is cut short.
            let file = path.file_name().unwrap().to_str().unwrap();
            if let Err(error) = open(&path, columns) {
                assert!(error.report().contains(file), "{name} cut to {length}: {}", error.report());
            } else {
                assert!(name == "ipc-stream" && length > 100, "{name} cut to {length} was opened");
            }
        }
        let mut draws = draws(5, "damage", &[]);
        for _ in 0..200 {
            let mut damaged = whole.clone();
            for _ in 0..6 {
                // Headers and footer, mostly: bodies are pixels.
                let span = damaged.len().min(600);
                let from = if draws.below(2) == 0 { 0 } else { damaged.len() - span };
                let at = from + draws.below(span as u64) as usize;
                damaged[at] = draws.next_u32() as u8;
            }
            fs::write(&path, &damaged).unwrap();
            if let Ok(data) = open(&path, columns)
                && data.shards.rows() > 0
            {
                let file = path.file_name().unwrap().to_str().unwrap();
                assert!(data.shards.rows() < 100_000, "{name}: {} rows", data.shards.rows());
                // Columns that are stored, and those that are made for as many rows as a header says.
                for sql in [
                    "SELECT sample_id FROM shards WHERE label IS NOT NULL",
                    "SELECT sample_id FROM shards WHERE sample_id % 2 = 0",
                ] {
                    if let Err(error) = runtime().block_on(select(&data.shards, &schema(columns), sql)) {
                        assert!(error.report().contains(file), "{name}: {sql}: {}", error.report());
                    }
                }
                drop(read(&EpochPlan { batch_rows: 1, ..all(&data) }));
            }
        }
    }
    for (bytes, part) in
        [(&b"FEA1 and more of it"[..], "Feather version 1"), (&b"PAR1 and more of it"[..], "is Parquet")]
    {
        let path = folder.path().join("old.feather");
        fs::write(&path, bytes).unwrap();
        let text = open(&path, &[]).err().expect("refused").report();
        assert!(text.contains(part), "{text}");
    }
}

/// A stream of forty rows whose header says that they are `rows`.
fn claiming(rows: i64, compression: Option<CompressionType>) -> Vec<u8> {
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..40).map(|row| [row; 10])));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(1_000..1_040));
    let batch = batch(vec![("image", images), ("label", labels)]);
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut written = vec![];
    let mut writer = StreamWriter::try_new_with_options(&mut written, &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let mut replaced = 0;
    for at in 0..written.len() - 8 {
        if written[at..at + 8] == 40_i64.to_le_bytes() {
            written[at..at + 8].copy_from_slice(&rows.to_le_bytes());
            replaced += 1;
        }
    }
    assert_eq!(replaced, 3, "the batch's rows and those of both columns");
    written
}

#[test]
fn rows_that_a_header_makes_up_are_refused_or_cost_no_memory() {
    crate::confined::confined("in_place::rows_that_a_header_makes_up_are_refused_or_cost_no_memory", 600, |cases| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bomb.arrow");
        cases.now("plain");
        fs::write(&path, claiming(4_000_000_000, None)).unwrap();
        let text = open(&path, &[]).err().expect("refused").report();
        assert!(text.contains("bomb.arrow") && text.contains("another number of rows"), "{text}");
        fs::write(&path, claiming(40, None)).unwrap();
        let sql = "SELECT sample_id FROM shards WHERE sample_id >= 37";
        assert_eq!(kept(&open(&path, &[]).unwrap(), &[], sql).0, [37, 38, 39]);

        // How much a compressed buffer holds is not known before it is read.
        cases.now("compressed");
        fs::write(&path, claiming(150_000_000, Some(CompressionType::LZ4_FRAME))).unwrap();
        let data = open(&path, &[]).unwrap();
        let sql = "SELECT sample_id FROM shards WHERE sample_id < 3";
        let (selection, _) = runtime().block_on(select(&data.shards, &schema(&[]), sql)).unwrap();
        assert_eq!(selection.items(), 3);
        let sql = "SELECT sample_id FROM shards WHERE label = 1003";
        let text = runtime().block_on(select(&data.shards, &schema(&[]), sql)).unwrap_err().report();
        assert!(text.contains("bomb.arrow"), "{text}");
    });
}

#[test]
fn a_file_rewritten_with_other_values_of_equal_lengths_is_another_shard() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |first: i64| {
        let images: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..2_000).map(|_| [7; 100])));
        let labels: ArrayRef = Arc::new(Int64Array::from_iter_values((0..2_000).map(|row| (row * 7 + first) % 10)));
        batch(vec![("image", images), ("label", labels)])
    };
    let plain = || WriterProperties::builder().set_dictionary_enabled(false).set_compression(Compression::UNCOMPRESSED);
    let unknown = || plain().set_statistics_enabled(EnabledStatistics::None).build();
    let write = |file: &str, rows: &RecordBatch| {
        let path = folder.path().join(file);
        match file {
            "file.arrow" => write_ipc(&path, rows, 300, IpcWriteOptions::default()),
            "stream.arrow" => write_stream(&path, rows, 300),
            _ => write_parquet(&path, rows, unknown()),
        }
        path
    };
    for file in ["file.arrow", "stream.arrow", "a.parquet"] {
        let data = open(&write(file, &rows(0)), &[]).unwrap();
        let fingerprint = data.shards.shards[0].fingerprint;
        let sql = "SELECT sample_id FROM shards WHERE label = 3";
        let (selection, _) = runtime().block_on(select(&data.shards, &schema(&[]), sql)).unwrap();
        let saved = folder.path().join("kept.selection");
        selection.save(&saved).unwrap();
        let length = fs::metadata(folder.path().join(file)).unwrap().len();

        let again = open(&write(file, &rows(0)), &[]).unwrap();
        assert_eq!(again.shards.shards[0].fingerprint, fingerprint, "{file}");
        let other = open(&write(file, &rows(1)), &[]).unwrap();
        assert_eq!(fs::metadata(folder.path().join(file)).unwrap().len(), length, "{file}: lengths tell nothing");
        assert_ne!(other.shards.shards[0].fingerprint, fingerprint, "{file}");
        let text = Selection::load(&saved, &other.shards).unwrap_err().report();
        assert!(text.contains("has changed since"), "{file}: {text}");
        fs::remove_file(folder.path().join(file)).unwrap();
    }
}

#[test]
fn opening_reads_a_bounded_sample_of_a_large_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrow");
    let images = Content::new("large", 1_500, 20_000, 1).images;
    let some: Vec<Option<Vec<u8>>> = images.into_iter().map(Some).collect();
    write_stream(&path, &hugging_face_rows(&some), 100);
    let wire = open(&path, &[]).unwrap().shards.store.wire();
    // 30 MB in 15 batches: two requests for each, its header and its end, where blobs lie between narrow buffers.
    assert!(wire.bytes < 400_000 && wire.requests < 100, "{wire:?}");
}

#[test]
fn another_blob_column_is_another_selection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(pngs()));
    let reversed: ArrayRef = Arc::new(BinaryArray::from_iter_values(pngs().into_iter().rev()));
    write_parquet(&path, &batch(vec![("jpg", images), ("thumb", reversed)]), foreign(Compression::SNAPPY));
    let sql = "SELECT sample_id FROM shards";
    let selections = ["jpg", "thumb"].map(|column| {
        let columns = [("image", column)];
        let data = open(&path, &columns).unwrap();
        let (selection, _) = runtime().block_on(select(&data.shards, &schema(&columns), sql)).unwrap();
        let file = folder.path().join(format!("{column}.selection"));
        selection.save(&file).unwrap();
        assert_eq!(Selection::load(&file, &data.shards).unwrap(), selection);
        (SavedSelection::read(&file).unwrap(), data)
    });
    let [(one, data), (two, _)] = selections;
    assert_ne!(one.selection().digest(), two.selection().digest());
    assert!(Shown::of(&two).to_string().contains("image = \"thumb\""));
    let difference = difference(&one, &two).unwrap();
    assert!(!difference.same && difference.notes.iter().any(|note| note.contains("jpg")), "{:?}", difference.notes);
    let text = combine(&one, &two, Combination::Union).unwrap_err().to_string();
    assert!(text.contains("image = \"jpg\" and image = \"thumb\""), "{text}");
    let text = two.bind(&data.shards).unwrap_err().to_string();
    assert!(text.contains("selected with image = \"thumb\"") && text.contains("means image = \"jpg\""), "{text}");

    // The bytes of the column itself are no other place.
    write_parquet(
        &path,
        &hugging_face_rows(&pngs().into_iter().map(Some).collect::<Vec<_>>()),
        foreign(Compression::SNAPPY),
    );
    let own: [&[(&str, &str)]; 2] = [&[], &[("image", "image.bytes")]];
    for columns in own {
        assert!(open(&path, columns).unwrap().shards.blobs_from.is_empty(), "{columns:?}");
    }
}

#[test]
fn a_file_of_the_same_layout_and_other_lengths_is_another_shard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrow");
    let labels = |first: &str, second: &str| {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![first, second]));
        let images: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"x", b"y"]));
        batch(vec![("image", images), ("label", texts)])
    };
    let fingerprint = |rows: &RecordBatch| {
        write_ipc(&path, rows, 2, IpcWriteOptions::default());
        open(&path, &[]).unwrap().shards.shards[0].fingerprint
    };
    let one = fingerprint(&labels("cat", "dog"));
    assert_eq!(one, fingerprint(&labels("cat", "dog")));
    assert_ne!(one, fingerprint(&labels("cat", "a dog")));
}

#[test]
fn structs_that_are_null_have_no_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrow");
    let images: Vec<Option<Vec<u8>>> = pngs().into_iter().map(Some).collect();
    let whole = hugging_face(&images);
    let (fields, columns, _) = whole.as_struct().clone().into_parts();
    // Below a null there may be anything.
    let nulls = NullBuffer::from_iter((0..ROWS).map(|row| row != 9));
    let masked: ArrayRef = Arc::new(StructArray::new(fields, columns, Some(nulls)));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    write_stream(&path, &batch(vec![("image", masked), ("label", labels)]), 50);
    let plan = EpochPlan { order: Order::Sequential, drop_last: false, ..all(&open(&path, &[]).unwrap()) };
    let rows = scan_rows(&plan);
    assert!(rows.len() == ROWS - 1 && !rows.contains(&9));
}

#[test]
fn fields_of_structs_that_are_null_are_null_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Option<Vec<u8>>> = pngs().into_iter().map(Some).collect();
    let masked = |column: &ArrayRef, is_null: fn(usize) -> bool| -> ArrayRef {
        let (fields, columns, _) = column.as_struct().clone().into_parts();
        let nulls = NullBuffer::from_iter((0..ROWS).map(|row| !is_null(row)));
        Arc::new(StructArray::new(fields, columns, Some(nulls)))
    };
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("text {}", row % 4))));
    // Zero below the nulls too.
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| (row % 4) as i64)));
    let inner = StructArray::from(vec![(Arc::new(Field::new("deep", DataType::Int64, false)), Arc::clone(&numbers))]);
    let inner = masked(&(Arc::new(inner) as ArrayRef), |row| row % 3 == 0);
    let fields = vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("y", DataType::Int64, false),
        Field::new("inner", inner.data_type().clone(), true),
    ];
    let meta: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![texts, numbers, inner], None));
    let rows = batch(vec![
        ("image", masked(&hugging_face(&images), |row| row % 5 == 0)),
        ("meta", masked(&meta, |row| row % 4 == 0)),
    ]);
    let (parquet, file, stream) =
        (folder.path().join("a.parquet"), folder.path().join("b.arrow"), folder.path().join("c.arrow"));
    write_parquet(&parquet, &rows, foreign(Compression::SNAPPY));
    write_ipc(&file, &rows, 25, IpcWriteOptions::default());
    write_stream(&stream, &rows, 25);
    let columns = [("caption", "meta.text"), ("label", "meta.y")];
    type Keep = fn(usize) -> bool;
    let wanted = |keep: Keep| (0..ROWS).filter(|&row| keep(row)).map(|row| row as u64).collect::<Vec<_>>();
    for path in [&parquet, &file, &stream] {
        let data = open(path, &columns).unwrap();
        let conditions: [(&str, Keep); 8] = [
            ("caption IS NULL", |row| row % 4 == 0),
            ("caption = 'text 0'", |_| false),
            ("caption = 'text 1'", |row| row % 4 == 1),
            ("label = 0", |_| false),
            ("label IS NULL", |row| row % 4 == 0),
            ("image['bytes'] IS NULL", |row| row % 5 == 0),
            ("image['path'] IS NOT NULL", |row| row % 5 != 0),
            ("(SELECT count(image['bytes']) FROM shards) = 76 AND label = 1", |row| row % 4 == 1),
        ];
        for (condition, keep) in conditions {
            let sql = format!("SELECT sample_id FROM shards WHERE {condition}");
            assert_eq!(kept(&data, &columns, &sql).0, wanted(keep), "{path:?}: {condition}");
        }
        // Over Parquet DataFusion's own access to a field does not look at the struct, where the field is never NULL.
        if path == &parquet {
            continue;
        }
        let data = open(path, &[]).unwrap();
        let sql = "SELECT sample_id FROM shards WHERE meta['inner']['deep'] IS NULL";
        assert_eq!(kept(&data, &[], sql).0, wanted(|row| row % 3 == 0 || row % 4 == 0), "{path:?}");
    }
}

#[test]
fn every_command_reads_every_layout_in_place() {
    let folder = tempfile::tempdir().unwrap();
    for Kind { name, columns, path } in kinds(folder.path()) {
        let columns: Vec<String> = columns.iter().map(|(ours, theirs)| format!("{ours}={theirs:?}")).collect();
        let sets = [
            format!("scan.shards=[{:?}]", path.parent().unwrap().display().to_string()),
            format!("scan.columns={{{}}}", columns.join(",")),
            "prefetch.batch_rows=32".to_owned(),
            "prefetch.capacity_megabytes=2".to_owned(),
            "scan.lanes=2".to_owned(),
            "method.simclr.encoder.convnet.base_width=4".to_owned(),
            "train.report_every_steps=1".to_owned(),
            "train.max_steps=2".to_owned(),
            "augment.decode_threads=2".to_owned(),
        ];
        let run = |command: &str, rest: &[&str]| {
            let mut process = Command::new(env!("CARGO_BIN_EXE_diptych"));
            process
                .args([command, "simclr_small"])
                .args(sets.iter().flat_map(|set| ["--set", set.as_str()]))
                .args(rest);
            let output = process.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{name}: {command}: {said}");
            String::from_utf8(output.stdout).unwrap()
        };
        let selected = run("select", &["--json", "--verify"]);
        let report: Value = serde_json::from_str(selected.lines().last().unwrap()).unwrap();
        assert_eq!((&report["items"], &report["blob_bytes_read"]), (&Value::from(ROWS), &Value::from(0)), "{name}");
        assert!(report["expected_amplification"].as_f64().unwrap() >= 0.9, "{name}: {report}");
        assert!(run("explain", &[]).contains("bytes read per byte of these blobs"), "{name}");
        let sheet = folder.path().join(format!("{name}.png"));
        run("preview", &["--to", sheet.to_str().unwrap(), "--pairs", "4"]);
        assert!(sheet.is_file());
        let trained = folder.path().join(format!("{name}-run"));
        run("train", &["--run", trained.to_str().unwrap()]);
        let metrics = fs::read_to_string(trained.join("metrics.jsonl")).unwrap();
        assert_eq!(metrics.lines().count(), 2, "{name}: {metrics}");
        assert!(metrics.lines().all(|line| line.contains("batch_digest")), "{name}");
    }
}
