//! Selections over real shards: what is kept, what it costs, what is refused.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::parquet::schema::types::ColumnPath;
use diptych::Result;
use diptych::schema::Schema;
use diptych::seed::draws;
use diptych::select::manifest::{MANIFEST_FILE, ManifestShard, ShardList};
use diptych::select::report::SelectReport;
use diptych::select::select::{select, verify};
use diptych::select::selection::Selection;
use diptych::select::shards::ShardSet;
use diptych::select::sorted::sorted_by_low_cardinality;
use tempfile::TempDir;

const BLOB_BYTES: usize = 2_000;
const GROUP_ROWS: usize = 50;

/// How a shard of these tests is made.
#[derive(Clone, Copy)]
struct Make {
    seed: u64,
    rows: usize,
    group_rows: usize,
    blob_bytes: usize,
    has_page_index: bool,
    /// Label of row `i` is `i / sorted_run` instead of a random one.
    sorted_run: Option<usize>,
}

impl Default for Make {
    fn default() -> Self {
        Self {
            seed: 0,
            rows: 200,
            group_rows: GROUP_ROWS,
            blob_bytes: BLOB_BYTES,
            has_page_index: true,
            sorted_run: None,
        }
    }
}

fn schema() -> Schema {
    Schema::named("image_text").unwrap()
}

/// Width is the row, label one of ten or none, every tenth row is of the test split; blobs do not compress.
fn batch(make: &Make, rows: std::ops::Range<usize>) -> RecordBatch {
    let mut draws = draws(make.seed, "rows of a test", &[rows.start as u64]);
    let blobs: Vec<Vec<u8>> =
        rows.clone().map(|_| (0..make.blob_bytes).map(|_| draws.next_u32() as u8).collect()).collect();
    let labels: Vec<Option<String>> = rows
        .clone()
        .map(|row| match make.sorted_run {
            Some(run) => Some(format!("class {:03}", row / run)),
            None if row % 7 == 0 => None,
            None => Some(format!("class {}", draws.below(10))),
        })
        .collect();
    let text = |value: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(rows.clone().map(|row| Some(value(row))).collect::<StringArray>())
    };
    let nothing: ArrayRef = Arc::new(StringArray::new_null(rows.len()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(blobs.iter().map(|blob| Some(blob.as_slice())).collect::<BinaryArray>()),
        Arc::new(rows.clone().map(|row| row as u32).collect::<UInt32Array>()),
        Arc::new(UInt32Array::from(vec![64; rows.len()])),
        text(&|row| if row % 3 == 0 { "jpeg".into() } else { "png".into() }),
        nothing,
        Arc::new(StringArray::from(labels)),
        text(&|row| if row % 10 == 9 { "test".into() } else { "train".into() }),
        text(&|row| format!("{}/{row}", make.seed)),
        Arc::new(UInt64Array::from(vec![make.blob_bytes as u64; rows.len()])),
        Arc::new(rows.clone().map(|row| row as u64 * 31 + make.seed).collect::<UInt64Array>()),
    ];
    RecordBatch::try_new(arrow_schema(), columns).unwrap()
}

fn arrow_schema() -> Arc<ArrowSchema> {
    let field = |name: &str, data_type: DataType, is_nullable| Field::new(name, data_type, is_nullable);
    Arc::new(ArrowSchema::new(vec![
        field("image", DataType::Binary, false),
        field("width", DataType::UInt32, false),
        field("height", DataType::UInt32, false),
        field("format", DataType::Utf8, false),
        field("caption", DataType::Utf8, true),
        field("label", DataType::Utf8, true),
        field("split", DataType::Utf8, true),
        field("source", DataType::Utf8, false),
        field("image_bytes", DataType::UInt64, false),
        field("image_xxh3", DataType::UInt64, false),
    ]))
}

fn write(path: &Path, make: &Make) {
    let image = ColumnPath::from("image");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_max_row_group_row_count(Some(make.group_rows))
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_dictionary_enabled(ColumnPath::from("width"), false)
        .set_column_statistics_enabled(image, EnabledStatistics::None)
        .set_data_page_size_limit(1_024)
        .set_write_batch_size(1);
    if !make.has_page_index {
        properties = properties.set_offset_index_disabled(true).set_statistics_enabled(EnabledStatistics::Chunk);
    }
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, arrow_schema(), Some(properties.build())).unwrap();
    let mut start = 0;
    while start < make.rows {
        let end = (start + 10_000).min(make.rows);
        writer.write(&batch(make, start..end)).unwrap();
        start = end;
    }
    writer.close().unwrap();
}

/// Shards `00.parquet`, `01.parquet`, …, each with rows of its own.
fn data(shards: usize, make: Make) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..shards {
        write(&folder.path().join(format!("{number:02}.parquet")), &Make { seed: number as u64, ..make });
    }
    folder
}

async fn open(folder: &Path) -> Result<ShardSet> {
    ShardSet::open(&[folder.display().to_string()], &schema()).await
}

async fn run(folder: &Path, sql: &str) -> Result<(Selection, SelectReport)> {
    select(&open(folder).await?, &schema(), sql).await
}

async fn refusal(folder: &Path, sql: &str) -> String {
    match run(folder, sql).await {
        Ok((selection, _)) => panic!("{sql} was accepted, {} items", selection.items()),
        Err(error) => error.report(),
    }
}

#[tokio::test]
async fn a_filter_on_narrow_columns_reads_no_blob_byte() {
    let folder = data(3, Make::default());
    let sql = "SELECT sample_id FROM shards WHERE width BETWEEN 60 AND 69 AND split = 'train'";
    let set = open(folder.path()).await.unwrap();
    assert_eq!(set.store.wire().blob_bytes, 0, "opening reads footers only");
    let (selection, report) = select(&set, &schema(), sql).await.unwrap();
    assert_eq!((report.items, report.of), (27, 600));
    assert_eq!(report.blob_bytes_read, 0);
    assert!(report.wire_bytes > 0 && report.wire_bytes < 60_000, "{report}");
    // Width grows with the row, so one of four groups per shard can hold such rows.
    assert_eq!((report.row_groups, report.row_groups_pruned, report.row_groups_with_items), (12, 9, 3));
    let blobs = (27 * BLOB_BYTES) as u64;
    assert!((blobs..blobs * 11 / 10).contains(&report.blob_bytes_selected), "{report}");
    assert!(report.blob_bytes_never_read > 570 * BLOB_BYTES as u64, "{report}");
    let times = report.expected_amplification.unwrap();
    assert!((0.95..1.05).contains(&times), "{times}: pages of one blob");
    let rows: Vec<u32> = selection.groups[0].rows.iter().collect();
    assert_eq!(rows, [10, 11, 12, 13, 14, 15, 16, 17, 18]);
    assert_eq!(selection.groups[0].first_row, 50);
}

#[tokio::test]
async fn statistics_of_pages_spare_their_bytes() {
    let folder = data(1, Make { rows: 5_000, group_rows: 5_000, blob_bytes: 1, ..Make::default() });
    let (_, few) = run(folder.path(), "SELECT sample_id FROM shards WHERE width BETWEEN 60 AND 69").await.unwrap();
    let (_, all) = run(folder.path(), "SELECT sample_id FROM shards WHERE width % 2 = 0").await.unwrap();
    assert_eq!((few.items, all.items), (10, 2_500));
    assert!(few.wire_bytes * 2 < all.wire_bytes, "{} of {}", few.wire_bytes, all.wire_bytes);
}

#[tokio::test]
async fn sample_ids_alone_cost_no_byte_at_all() {
    let folder = data(2, Make::default());
    let (selection, report) = run(folder.path(), "SELECT sample_id FROM shards").await.unwrap();
    assert_eq!((selection.items(), report.wire_bytes), (400, 0));
    assert_eq!(selection.groups.len(), 8);
}

#[tokio::test]
async fn blobs_can_be_asked_for_and_are_counted() {
    let folder = data(2, Make::default());
    let (_, all) =
        run(folder.path(), "SELECT sample_id FROM shards WHERE encode(sha256(image), 'hex') > '0'").await.unwrap();
    assert_eq!(all.items, 400);
    assert!(all.blob_bytes_read >= 400 * BLOB_BYTES as u64, "{all}");
    let sql = "SELECT sample_id FROM shards WHERE encode(sha256(image), 'hex') > '0' AND source = '0/7'";
    let (_, one) = run(folder.path(), sql).await.unwrap();
    assert_eq!(one.items, 1);
    let bytes = one.blob_bytes_read;
    assert!(bytes >= BLOB_BYTES as u64 && bytes < 3 * BLOB_BYTES as u64, "narrow filters come first: {one}");
}

#[tokio::test]
async fn the_digest_follows_the_samples_and_nothing_else() {
    let folder = data(3, Make::default());
    let sql = "SELECT sample_id FROM shards WHERE label = 'class 3'";
    let (base, _) = run(folder.path(), sql).await.unwrap();
    verify(&open(folder.path()).await.unwrap(), &schema(), sql, base.digest()).await.unwrap();

    let other_text = "SELECT s.sample_id FROM shards s WHERE s.label LIKE '%3' ORDER BY s.width DESC";
    assert_eq!(run(folder.path(), other_text).await.unwrap().0.digest(), base.digest());

    // Moved, renamed, and in another order.
    let moved = tempfile::tempdir().unwrap();
    for (from, to) in [("00", "z"), ("01", "y"), ("02", "x")] {
        let (from, to) = (folder.path().join(format!("{from}.parquet")), moved.path().join(format!("{to}.parquet")));
        fs::copy(from, to).unwrap();
    }
    let (renamed, _) = run(moved.path(), sql).await.unwrap();
    assert_eq!(renamed.digest(), base.digest());
    let fingerprints = |selection: &Selection| -> Vec<[u8; 32]> {
        let of = |at: usize| {
            let ordinal = selection.groups[at].shard;
            selection.shards().iter().find(|shard| shard.ordinal == ordinal).unwrap().fingerprint
        };
        selection.canonical_order().into_iter().map(of).collect()
    };
    assert_eq!(fingerprints(&renamed), fingerprints(&base));

    let one_more = format!("{sql} UNION ALL SELECT min(sample_id) FROM shards WHERE label = 'class 4'");
    let (more, _) = run(folder.path(), &one_more).await.unwrap();
    assert_eq!(more.items(), base.items() + 1);
    assert_ne!(more.digest(), base.digest());
}

#[tokio::test]
async fn joins_and_repeats_are_counted() {
    let folder = data(2, Make::default());
    let twice = "SELECT sample_id FROM shards WHERE width < 3 UNION ALL SELECT sample_id FROM shards WHERE width = 1";
    let (selection, _) = run(folder.path(), twice).await.unwrap();
    assert_eq!(selection.items(), 8);
    let items: Vec<(u32, u32)> = selection.groups[0].iter_items().collect();
    assert_eq!(items, [(0, 0), (1, 0), (1, 1), (2, 0)]);

    // The same width occurs once in either shard.
    let join = "SELECT a.sample_id FROM shards a JOIN shards b ON a.width = b.width WHERE a.width < 10";
    let (joined, report) = run(folder.path(), join).await.unwrap();
    assert_eq!((joined.items(), report.scans), (40, 2));
    let about_repeats: Vec<_> =
        report.warnings.iter().filter(|warning| warning.text.contains("more than once")).collect();
    assert!(about_repeats.len() == 1 && about_repeats[0].text.contains("20 rows"), "{:?}", report.warnings);
    assert!(about_repeats[0].text.contains("00.parquet row 0, 2 times"), "{about_repeats:?}");
    let (_, once) = run(folder.path(), "SELECT sample_id FROM shards").await.unwrap();
    assert!(!once.warnings.iter().any(|warning| warning.text.contains("more than once")), "{:?}", once.warnings);
    assert!(joined.groups.iter().all(|group| group.repeats.values().all(|&times| times == 2)));
    verify(&open(folder.path()).await.unwrap(), &schema(), join, joined.digest()).await.unwrap();
}

#[tokio::test]
async fn windows_groups_and_sampling_select() {
    let folder = data(2, Make::default());
    let dedup = "SELECT sample_id FROM (
        SELECT sample_id, row_number() OVER (PARTITION BY label ORDER BY width DESC, sample_id) AS n FROM shards
    ) WHERE n = 1";
    let groups = "SELECT max(sample_id) AS sample_id FROM shards GROUP BY label";
    let distinct_on = "SELECT DISTINCT ON (label) sample_id FROM shards ORDER BY label, width, sample_id";
    for sql in [dedup, groups, distinct_on] {
        let (selection, _) = run(folder.path(), sql).await.unwrap();
        assert_eq!(selection.items(), 11, "{sql}");
        verify(&open(folder.path()).await.unwrap(), &schema(), sql, selection.digest()).await.unwrap();
    }
    let sample = "SELECT sample_id FROM shards WHERE sample_uniform(sample_id, 5) < 0.25";
    let (selection, _) = run(folder.path(), sample).await.unwrap();
    assert!((70..130).contains(&selection.items()), "{}", selection.items());
    let first = "SELECT sample_id FROM shards ORDER BY sample_uniform(sample_id, 5), sample_id LIMIT 10";
    assert_eq!(run(folder.path(), first).await.unwrap().0.items(), 10);
    let by_id = "SELECT sample_id FROM shards WHERE sample_id = 7 OR sample_id >= 1099511627776 + 198";
    assert_eq!(run(folder.path(), by_id).await.unwrap().0.items(), 3);
    let threshold = "SELECT sample_id FROM shards WHERE width >=
        (SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY width) FROM shards)";
    assert_eq!(run(folder.path(), threshold).await.unwrap().0.items(), 40);
}

#[tokio::test]
async fn what_is_not_reproducible_is_refused_with_a_remedy() {
    let folder = data(1, Make::default());
    for (sql, part) in [
        ("SELECT sample_id FROM shards WHERE random() < 0.5", "sample_uniform(sample_id, seed)"),
        ("SELECT sample_id FROM shards WHERE uuid() <> 'a'", "`uuid()`"),
        ("SELECT sample_id FROM shards WHERE now() > '2020-01-01'", "literal"),
        ("SELECT sample_id FROM shards LIMIT 5", "ORDER BY sample_id LIMIT"),
        ("SELECT sample_id FROM shards OFFSET 5", "ORDER BY sample_id LIMIT"),
        ("SELECT sample_id FROM shards ORDER BY label LIMIT 5", "ORDER BY …, sample_id LIMIT"),
        ("SELECT DISTINCT ON (label) sample_id FROM shards ORDER BY label", "DISTINCT ON"),
        (
            "SELECT sample_id FROM shards WHERE width > (SELECT approx_percentile_cont(width, 0.5) FROM shards)",
            "`percentile_cont`",
        ),
        (
            "SELECT sample_id FROM (SELECT sample_id, row_number() OVER (PARTITION BY label) AS n FROM shards) WHERE n = 1",
            "`row_number OVER (…)`",
        ),
        ("SELECT first_value(sample_id ORDER BY label) AS sample_id FROM shards", "`first_value`"),
        (
            "SELECT sample_id, first_value(t ORDER BY sample_id) AS tag FROM \
             (SELECT sample_id, unnest(make_array(width, height)) AS t FROM shards) GROUP BY sample_id",
            "`unnest` beside",
        ),
    ] {
        let text = refusal(folder.path(), sql).await;
        assert!(text.contains(part), "{sql}: {text}");
    }
    let both = refusal(folder.path(), "SELECT sample_id FROM shards WHERE random() < 0.5 LIMIT 5").await;
    assert!(both.contains("random") && both.contains("LIMIT"), "all at once: {both}");
}

#[tokio::test]
async fn sums_of_floats_are_warned_about() {
    let folder = data(1, Make::default());
    let sql = "SELECT sample_id FROM shards WHERE width > (SELECT avg(CAST(width AS DOUBLE)) FROM shards)";
    let (_, report) = run(folder.path(), sql).await.unwrap();
    assert!(report.warnings.iter().any(|warning| warning.text.contains("`avg` of floats")), "{report}");
    let whole = "SELECT sample_id FROM shards WHERE width > (SELECT avg(width) FROM shards)";
    let (_, report) = run(folder.path(), whole).await.unwrap();
    assert!(report.warnings.iter().any(|warning| warning.text.contains("`avg` of floats")), "{report}");
    let exact = "SELECT sample_id FROM shards WHERE width > (SELECT avg(CAST(width AS DECIMAL(18, 6))) FROM shards)";
    let (_, report) = run(folder.path(), exact).await.unwrap();
    assert!(report.warnings.iter().all(|warning| !warning.text.contains("avg")), "{report}");
}

#[tokio::test]
async fn output_that_is_no_selection_is_refused() {
    let folder = data(1, Make::default());
    for (sql, part) in [
        ("SELECT width FROM shards", "no column sample_id"),
        ("SELECT sample_id, image FROM shards", "blob \"image\""),
        ("SELECT sample_id, sha256(image) AS digest FROM shards", "blob \"digest\""),
        ("SELECT sample_id, 1 AS \"position\" FROM shards", "a name that every batch uses"),
        ("SELECT sample_id, image_bytes FROM shards", "a name that every batch uses"),
        ("SELECT sample_id, make_array(1, 2) AS pair FROM shards", "cannot travel with a sample"),
        ("SELECT * FROM shards", "blob \"image\""),
        ("SELECT a.sample_id, b.sample_id FROM shards a, shards b", "2 columns sample_id"),
        ("SELECT label AS sample_id FROM shards", "as Utf8View"),
        ("SELECT CAST(NULL AS BIGINT UNSIGNED) AS sample_id", "NULL"),
        (
            "SELECT CAST(sample_id + 1 AS BIGINT UNSIGNED) AS sample_id FROM shards",
            "has 200 rows, and it names row 200",
        ),
        ("SELECT CAST(5e15 AS BIGINT UNSIGNED) AS sample_id", "there are 1 shards"),
        ("SELECT -1 AS sample_id", "below 0"),
        ("SELECT sample_id FROM shard", "the table is `shards`"),
        ("SELECT sample_id FROM", "is not accepted"),
        ("CREATE TABLE t AS SELECT sample_id FROM shards", "one SELECT"),
        ("EXPLAIN SELECT sample_id FROM shards", "no column sample_id"),
    ] {
        let text = refusal(folder.path(), sql).await;
        assert!(text.contains(part), "{sql}: {text}");
    }
}

#[tokio::test]
async fn a_saved_selection_is_loaded_as_it_was() {
    let folder = data(3, Make::default());
    let sql = "SELECT sample_id FROM shards WHERE label = 'class 3' UNION ALL
               SELECT sample_id FROM shards WHERE label = 'class 3' AND width > 100";
    let set = open(folder.path()).await.unwrap();
    let (selection, _) = select(&set, &schema(), sql).await.unwrap();
    let file = folder.path().join("kept.selection");
    selection.save(&file).unwrap();
    assert_eq!(Selection::load(&file, &set).unwrap(), selection);
    assert_eq!(Selection::load(&file, &set).unwrap().provenance().sql, sql);

    // With shards before it, every ordinal is another.
    let more = tempfile::tempdir().unwrap();
    write(&more.path().join("0-new.parquet"), &Make { seed: 99, ..Make::default() });
    for number in 0..3 {
        let name = format!("{number:02}.parquet");
        fs::copy(folder.path().join(&name), more.path().join(format!("{}-moved.parquet", 9 - number))).unwrap();
    }
    let set = open(more.path()).await.unwrap();
    let loaded = Selection::load(&file, &set).unwrap();
    assert_eq!((loaded.digest(), loaded.items()), (selection.digest(), selection.items()));
    assert!(loaded.shards().iter().all(|shard| shard.ordinal > 0));
    let keys = |selection: &Selection, set: &ShardSet| {
        let mut keys: Vec<_> = selection
            .groups
            .iter()
            .flat_map(|group| {
                let shard = &set.shards[group.shard as usize];
                group.iter_items().map(|(row, times)| shard.item_key(group.first_row + u64::from(row), times))
            })
            .collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&loaded, &set), keys(&selection, &open(folder.path()).await.unwrap()));

    fs::remove_file(more.path().join("8-moved.parquet")).unwrap();
    write(&more.path().join("01.parquet"), &Make { seed: 7, ..Make::default() });
    let text = Selection::load(&file, &open(more.path()).await.unwrap()).unwrap_err().to_string();
    assert!(text.contains("01.parquet has changed since"), "{text}");
    fs::remove_file(more.path().join("9-moved.parquet")).unwrap();
    let text = Selection::load(&file, &open(more.path()).await.unwrap()).unwrap_err().to_string();
    assert!(text.contains("00.parquet is missing") && text.contains("01.parquet"), "{text}");
}

#[tokio::test]
async fn a_damaged_selection_file_is_an_error_at_every_byte() {
    let folder = data(1, Make::default());
    let set = open(folder.path()).await.unwrap();
    let (selection, _) = select(&set, &schema(), "SELECT sample_id FROM shards WHERE width < 60").await.unwrap();
    let file = folder.path().join("kept.selection");
    selection.save(&file).unwrap();
    let bytes = fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, &damaged).unwrap();
        let text = Selection::load(&file, &set).unwrap_err().to_string();
        assert!(text.contains("kept.selection"), "byte {at}: {text}");
        fs::write(&file, &bytes[..at]).unwrap();
        Selection::load(&file, &set).unwrap_err();
    }
    fs::write(&file, &bytes).unwrap();
    assert_eq!(Selection::load(&file, &set).unwrap(), selection);
    let left: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none_or(|end| end != "tmp")), "{left:?}");
}

#[tokio::test]
async fn damaged_shards_are_errors_that_name_them() {
    let folder = data(1, Make::default());
    let whole = fs::read(folder.path().join("00.parquet")).unwrap();
    let bad = folder.path().join("01.parquet");
    let footer = whole.len() - 8 - u32::from_le_bytes(whole[whole.len() - 8..][..4].try_into().unwrap()) as usize;
    for length in [0, 3, 8, 100, whole.len() / 2, footer, whole.len() - 9, whole.len() - 1] {
        fs::write(&bad, &whole[..length]).unwrap();
        let text = open(folder.path()).await.unwrap_err().to_string();
        assert!(text.contains("01.parquet"), "cut to {length}: {text}");
    }
    // Whatever a footer says, it is an error or a set, never a panic. The column index ends where the footer begins.
    let mut draws = draws(3, "damage", &[]);
    let mut errors = 0;
    for _ in 0..400 {
        let mut damaged = whole.clone();
        let from = footer.saturating_sub(2_000);
        for _ in 0..4 {
            let at = from + draws.below((damaged.len() - from) as u64) as usize;
            damaged[at] = draws.next_u32() as u8;
        }
        fs::write(&bad, &damaged).unwrap();
        match open(folder.path()).await {
            Err(error) => {
                errors += 1;
                assert!(error.to_string().contains("01.parquet"), "{error}");
            }
            Ok(set) => drop(select(&set, &schema(), "SELECT sample_id FROM shards WHERE width < 60").await),
        }
    }
    assert!(errors > 50, "{errors}");
}

#[tokio::test]
async fn damaged_pages_are_errors_or_other_values_but_no_panic() {
    let folder = data(1, Make { blob_bytes: 10, ..Make::default() });
    let path = folder.path().join("00.parquet");
    let whole = fs::read(&path).unwrap();
    let mut draws = draws(4, "damage", &[]);
    let mut errors = 0;
    for _ in 0..200 {
        let mut damaged = whole.clone();
        for _ in 0..8 {
            let at = draws.below(damaged.len() as u64 * 3 / 4) as usize;
            damaged[at] = draws.next_u32() as u8;
        }
        fs::write(&path, &damaged).unwrap();
        let sql = "SELECT sample_id FROM shards WHERE label = 'class 3' AND source LIKE '%7%' AND image_xxh3 % 3 = 0";
        let result = run(folder.path(), sql).await;
        errors += usize::from(result.is_err());
    }
    assert!(errors > 10, "{errors}");
}

#[tokio::test]
async fn copies_of_a_shard_are_warned_about_and_kept_apart() {
    let folder = data(2, Make::default());
    fs::copy(folder.path().join("00.parquet"), folder.path().join("copy.parquet")).unwrap();
    let set = open(folder.path()).await.unwrap();
    assert!(set.warnings.iter().any(|warning| warning.place.ends_with("copy.parquet")), "{:?}", set.warnings);
    let (selection, _) = select(&set, &schema(), "SELECT sample_id FROM shards WHERE width = 1").await.unwrap();
    assert_eq!((selection.items(), selection.shards().len()), (3, 3));
    let file = folder.path().join("kept.selection");
    selection.save(&file).unwrap();
    assert_eq!(Selection::load(&file, &set).unwrap(), selection);
}

#[tokio::test]
async fn every_fault_of_every_shard_is_reported_at_once() {
    let folder = data(2, Make::default());
    for name in ["02.parquet", "03.parquet"] {
        let schema = Arc::new(ArrowSchema::new(vec![Field::new("image", DataType::Utf8, false)]));
        let file = fs::File::create(folder.path().join(name)).unwrap();
        ArrowWriter::try_new(file, schema, None).unwrap().close().unwrap();
    }
    fs::write(folder.path().join("04.parquet"), "").unwrap();
    let text = open(folder.path()).await.unwrap_err().to_string();
    for part in ["02.parquet", "03.parquet", "04.parquet", "\"image\" is utf8"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn empty_shards_and_a_hundred_shards_are_a_set() {
    let folder = data(100, Make { rows: 20, group_rows: 8, blob_bytes: 20, ..Make::default() });
    write(&folder.path().join("05-empty.parquet"), &Make { rows: 0, ..Make::default() });
    let set = open(folder.path()).await.unwrap();
    assert_eq!((set.shards.len(), set.rows(), set.row_groups()), (101, 2_000, 300));
    assert!(set.shards[5].name.ends_with("05-empty.parquet") && set.shards[5].rows() == 0);
    let sql = "SELECT sample_id FROM shards WHERE width = 17";
    let (selection, _) = select(&set, &schema(), sql).await.unwrap();
    assert_eq!(selection.items(), 100);
    assert!(selection.groups.iter().all(|group| group.row_group == 2 && group.rows.contains(1)));
    verify(&set, &schema(), sql, selection.digest()).await.unwrap();
    let (nothing, _) = select(&set, &schema(), "SELECT sample_id FROM shards WHERE width > 100").await.unwrap();
    assert_eq!((nothing.items(), nothing.groups.len()), (0, 0));
    let file = folder.path().join("none.selection");
    nothing.save(&file).unwrap();
    assert_eq!(Selection::load(&file, &set).unwrap(), nothing);

    let only_empty = tempfile::tempdir().unwrap();
    write(&only_empty.path().join("a.parquet"), &Make { rows: 0, ..Make::default() });
    let (nothing, report) = run(only_empty.path(), "SELECT sample_id FROM shards").await.unwrap();
    assert_eq!((nothing.items(), report.of), (0, 0));
}

#[tokio::test]
async fn the_manifest_orders_and_guards_the_shards() {
    let folder = data(3, Make::default());
    let set = open(folder.path()).await.unwrap();
    let listed = |at: usize| {
        let shard = &set.shards[at];
        let file = Path::new(&shard.name).file_name().unwrap().to_str().unwrap().to_owned();
        let fingerprint = shard.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        ManifestShard { ordinal: 0, file, rows: shard.rows(), bytes: shard.bytes, fingerprint }
    };
    let manifest = ShardList { shards: vec![listed(2), listed(0)] };
    let path = folder.path().join(MANIFEST_FILE);
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let ordered = open(folder.path()).await.unwrap();
    assert_eq!(ordered.shards[0].fingerprint, set.shards[2].fingerprint);
    assert_eq!(ordered.shards.len(), 2);
    assert!(ordered.warnings.iter().any(|warning| warning.place.ends_with("01.parquet")), "{:?}", ordered.warnings);

    write(&folder.path().join("00.parquet"), &Make { seed: 50, rows: 210, ..Make::default() });
    let text = open(folder.path()).await.unwrap_err().to_string();
    assert!(text.contains("00.parquet") && text.contains("manifest"), "{text}");
}

#[tokio::test]
async fn shards_without_offset_index_are_warned_about_and_still_read() {
    let folder = data(1, Make { has_page_index: false, ..Make::default() });
    let (selection, report) = run(folder.path(), "SELECT sample_id FROM shards WHERE width < 5").await.unwrap();
    assert_eq!(selection.items(), 5);
    assert!(report.warnings.iter().any(|warning| warning.text.contains("no offset index")), "{report}");
    assert!(report.blob_bytes_selected >= (GROUP_ROWS * BLOB_BYTES) as u64, "at most a whole chunk: {report}");
    let times = report.expected_amplification.unwrap();
    assert!((9.0..11.0).contains(&times), "{times}: five rows of a chunk of fifty");
    assert!(report.to_string().contains("bytes read per byte of these blobs, since they share pages"), "{report}");
}

#[tokio::test]
async fn shards_sorted_by_class_are_warned_about_and_mixed_ones_are_not() {
    let mixed = open(data(2, Make::default()).path()).await.unwrap();
    assert_eq!(sorted_by_low_cardinality(&mixed, &schema()), []);
    for run in [25, 50, 100] {
        let folder = data(1, Make { sorted_run: Some(run), ..Make::default() });
        let set = open(folder.path()).await.unwrap();
        let warnings = sorted_by_low_cardinality(&set, &schema());
        assert!(warnings.iter().any(|warning| warning.place.contains("label")), "runs of {run}: {warnings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_are_selected_without_a_blob_byte() {
    let folder = data(4, Make { rows: 250_000, group_rows: 10_000, blob_bytes: 1, ..Make::default() });
    let before = peak_memory_bytes();
    let started = Instant::now();
    let set = open(folder.path()).await.unwrap();
    let opened = started.elapsed();
    let sql = "SELECT sample_id FROM shards WHERE split = 'train' AND label IS NOT NULL AND width % 3 = 0";
    let (selection, report) = select(&set, &schema(), sql).await.unwrap();
    let grown = peak_memory_bytes().saturating_sub(before);
    eprintln!(
        "1,000,000 rows: opened in {opened:.2?}, selected {} in {:.2} s, {} bytes read, peak memory grew {:.1} MB, \
         footers {:.1} MB",
        selection.items(),
        report.seconds,
        report.wire_bytes,
        grown as f64 / 1e6,
        set.metadata_memory_bytes() as f64 / 1e6
    );
    // Other tests of this process share its peak, so memory is told and not judged.
    assert_eq!((selection.items(), report.blob_bytes_read), (257_140, 0));
    assert!(report.wire_bytes < 8_000_000, "{report}");
}

/// The most memory this process has held; 0 where the system does not tell.
fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1_024
}
