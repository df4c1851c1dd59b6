//! `diptych sql` and `diptych functions`: queries over shards and files, and their rows as shards.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray},
        datatypes::{DataType, Field},
        ipc::writer::{FileWriter, StreamWriter},
    },
    parquet::arrow::ArrowWriter,
};
use diptych::{
    schema::Schema,
    select::{
        select::select,
        shards::ShardSet,
        sql::{SqlSession, SqlSettings},
    },
};
use serde_json::Value;

/// Sides of the images: (width, height).
const SIDES: [(u32, u32); 6] = [(40, 30), (64, 64), (120, 40), (200, 150), (33, 90), (128, 100)];

struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    /// A folder with imported shards: two classes, one image of each size in either, and one broken file.
    fn new() -> Self {
        let workshop = Self { folder: tempfile::tempdir().unwrap() };
        for class in ["cat", "dog"] {
            let folder = workshop.path("images").join(class);
            fs::create_dir_all(&folder).unwrap();
            for (number, (width, height)) in SIDES.into_iter().enumerate() {
                let light = if class == "cat" { 30 } else { 90 };
                let pixel = |x: u32, y: u32| image::Rgb([(x + light) as u8, (y * 2) as u8, (number * 9) as u8]);
                image::RgbImage::from_fn(width, height, pixel).save(folder.join(format!("{number}.png"))).unwrap();
            }
        }
        fs::write(workshop.path("images/cat/broken.png"), b"\x89PNG\r\n\x1a\n").unwrap();
        ok(&["import", &workshop.text("images"), &workshop.text("shards"), "--row-group-rows", "4"]);
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The rows of a query over the shards.
    fn rows(&self, sql: &str) -> Vec<Value> {
        let printed = ok(&["sql", sql, "--shards", &self.text("shards"), "--json"]);
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn session(&self) -> SqlSession {
        let settings = SqlSettings {
            shards: vec![self.text("shards")],
            schema: Schema::named("image_text").unwrap(),
            stores: Arc::default(),
            memory_bytes: 100 << 20,
        };
        SqlSession::open(&settings).await.unwrap()
    }
}

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_diptych")).stdin(Stdio::null()).args(words).output().unwrap()
}

fn ok(words: &[&str]) -> String {
    let output = run(words);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

fn fails(code: i32, words: &[&str]) -> String {
    let output = run(words);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
    stderr
}

async fn shards(folder: &Path) -> ShardSet {
    let schema = Schema::named("image_text").unwrap();
    ShardSet::open(&[folder.to_str().unwrap().to_owned()], &schema).await.unwrap()
}

#[tokio::test]
async fn header_functions_over_our_shards_read_no_blob_byte() {
    let workshop = Workshop::new();
    let set = shards(&workshop.path("shards")).await;
    let schema = Schema::named("image_text").unwrap();
    let wide = "SELECT sample_id FROM shards WHERE image_width(image) > 100";
    for (sql, items) in [
        (wide, 6),
        ("SELECT s.sample_id FROM shards s JOIN shards t ON s.source = t.source WHERE image_height(t.image) = 64", 2),
        ("SELECT sample_id FROM (SELECT * FROM shards WHERE label = 'cat') WHERE image_format(image) = 'png'", 6),
        ("SELECT sample_id FROM shards WHERE image_aspect(image) <= 2 AND image_megapixels(image) > 0.004", 6),
        (
            "WITH ranked AS (SELECT sample_id, label, image_width(image) AS w, row_number() OVER \
             (PARTITION BY label ORDER BY image_width(image) DESC, sample_id) AS place FROM shards) \
             SELECT sample_id FROM ranked WHERE place = 1",
            2,
        ),
        (
            "SELECT max(sample_id) AS sample_id FROM shards GROUP BY image_width(image) HAVING min(image_height(image)) > 50",
            4,
        ),
        ("SELECT sample_id FROM shards WHERE image_width(image) = (SELECT max(image_width(image)) FROM shards)", 2),
    ] {
        let (selection, report) = select(&set, &schema, sql).await.unwrap();
        assert_eq!((selection.items(), report.blob_bytes_read), (items, 0), "{sql}");
        assert!(report.warnings.is_empty(), "{report}");
    }
    // The same answer where images are read.
    let read =
        "SELECT sample_id FROM (SELECT sample_id, image AS picture FROM shards) WHERE image_width(picture) > 100";
    let (selection, report) = select(&set, &schema, read).await.unwrap();
    assert_eq!(selection.digest(), select(&set, &schema, wide).await.unwrap().0.digest());
    assert!(report.blob_bytes_read > 0);
    assert!(report.warnings[0].text.contains("reads up to") && report.warnings[0].text.contains("image"), "{report}");
}

#[tokio::test]
async fn images_of_one_side_of_a_join_are_never_measured_by_the_other() {
    let workshop = Workshop::new();
    let set = shards(&workshop.path("shards")).await;
    let schema = Schema::named("image_text").unwrap();
    // t.image is a's and t.width is b's: no column of t says how wide the image is.
    let sql = "SELECT sample_id FROM (SELECT a.sample_id, a.image, b.width FROM shards a JOIN shards b \
               ON a.label = b.label WHERE a.width = 200 AND b.width = 40) AS t WHERE image_width(image) = 200";
    let (selection, _) = select(&set, &schema, sql).await.unwrap();
    assert_eq!(selection.items(), 2);
}

#[tokio::test]
async fn what_sql_will_read_of_blobs_is_said_before() {
    let workshop = Workshop::new();
    let session = workshop.session().await;
    let free = session.plan("SELECT image_width(image), count(*) FROM shards GROUP BY 1", &[]).await.unwrap();
    assert!(free.warnings.is_empty(), "{:?}", free.warnings);
    let costly = session.plan("SELECT image_phash(image) FROM shards", &[]).await.unwrap();
    assert!(costly.warnings[0].text.contains("image"), "{:?}", costly.warnings);
    let files = format!("SELECT image_width(image) FROM '{}'", workshop.text("shards"));
    let foreign = session.plan(&files, &[]).await.unwrap();
    assert!(foreign.warnings[0].text.contains("image"), "{:?}", foreign.warnings);
    let filtered = format!("SELECT source FROM '{}' WHERE image_decodes(image)", workshop.text("shards"));
    let filtered = session.plan(&filtered, &[]).await.unwrap();
    assert!(filtered.warnings[0].text.contains("reads image"), "a filter reads: {:?}", filtered.warnings);
    let explained = session.plan("EXPLAIN SELECT image_phash(image) FROM shards", &[]).await.unwrap();
    assert!(explained.warnings.is_empty());
}

#[test]
fn tables_are_printed_with_short_blobs_and_bounded_rows() {
    let workshop = Workshop::new();
    let (shards, sql) = (workshop.text("shards"), "SELECT label, image, width FROM shards ORDER BY width, label");
    let output = run(&["sql", sql, "--shards", &shards, "--rows", "3"]);
    let (table, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("| cat   | <") && table.contains(" bytes>") && table.contains("| 33 "), "{table}");
    assert_eq!(table.lines().count(), 3 + 3 + 1, "{table}");
    assert!(log.contains("the first 3 rows; --rows N shows more"), "{log}");
    assert!(log.contains("reads up to"), "{log}");

    let rows = workshop.rows("SELECT sample_id, width, X'00ff' AS b, caption FROM shards ORDER BY width, sample_id");
    assert_eq!(rows.len(), 12);
    assert_eq!((&rows[0]["width"], &rows[0]["b"], &rows[0]["caption"]), (&33.into(), &"00ff".into(), &Value::Null));

    let csv = ok(&[
        "sql",
        "SELECT label, [1, 2] AS l, count(*) AS n FROM shards GROUP BY label ORDER BY label",
        "--shards",
        &shards,
        "--csv",
    ]);
    assert_eq!(csv, "label,l,n\ncat,\"[1, 2]\",6\ndog,\"[1, 2]\",6\n");
    assert_eq!(ok(&["sql", "SELECT 1 AS one WHERE false", "--csv"]), "one\n");
    assert!(ok(&["sql", "SELECT 1 AS one WHERE false"]).contains("| one |"));
}

#[test]
fn files_globs_and_folders_are_tables() {
    let workshop = Workshop::new();
    let write = |name: &str, text: &str| {
        let path = workshop.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("tables/a.csv", "name,score\nx,1\ny,2\n");
    write("tables/b.csv", "name,score\nz,3\n");
    write("scores.jsonl", "{\"source\": \"cat/1.png\", \"score\": 0.5}\n{\"source\": \"dog/1.png\", \"score\": 0.1}\n");
    write("by_day/day=1/a.csv", "n\n1\n");
    write("by_day/day=2/a.csv", "n\n2\n");
    write("deep/a.csv", "n\n1\n");
    write("deep/x/y/a.csv", "n\n2\n3\n");
    write("deep/.hidden/a.csv", "n\n4\n");
    write("mixed/a.csv", "n\n1\n");
    write("mixed/a.tsv", "n\tm\n1\t2\n");
    let count = |from: &str| {
        let printed = ok(&["sql", &format!("SELECT count(*) AS n FROM '{}'", workshop.text(from)), "--json"]);
        serde_json::from_str::<Value>(printed.trim()).unwrap()["n"].as_u64().unwrap()
    };
    assert_eq!((count("tables/a.csv"), count("tables/*.csv"), count("tables")), (2, 3, 3));
    assert_eq!(
        (count("shards"), count("shards/*.parquet"), count("mixed/a.tsv"), count("scores.jsonl")),
        (12, 12, 1, 2)
    );
    assert_eq!((count("by_day"), count("shards/quarantine.parquet")), (2, 1));
    let days = format!("SELECT sum(CAST(day AS INT) * n) AS s FROM '{}'", workshop.text("by_day"));
    assert_eq!(ok(&["sql", &days, "--json"]).trim(), "{\"s\":5}");

    assert_eq!((count("by_day"), count("by_day/day=1/*.csv"), count("shards/quarantine.parquet")), (2, 1, 1));
    let all_days = days.replace("by_day'", "by_day/**/*.csv'");
    assert_eq!(ok(&["sql", &all_days, "--json"]).trim(), "{\"s\":5}");
    assert_eq!((count("deep"), count("deep/**/*.csv"), count("deep/*.csv"), count("deep/*/*/a.csv")), (3, 3, 1, 2));

    let joined = format!(
        "SELECT s.label, t.score FROM shards s JOIN '{}' t ON s.source = t.source WHERE t.score > 0.3",
        workshop.text("scores.jsonl")
    );
    let rows = workshop.rows(&joined);
    assert_eq!(rows, [serde_json::json!({ "label": "cat", "score": 0.5 })]);

    for (from, part) in [
        ("mixed", "holds CSV and TSV"),
        ("images/cat", ".png, which is no Parquet"),
        ("nothing.parquet", "is no file, no folder"),
        ("tables/*.parquet", "no glob that matches any"),
    ] {
        let text = fails(2, &["sql", &format!("SELECT * FROM '{}'", workshop.text(from))]);
        assert!(text.contains(part), "{from}: {text}");
    }
    let unknown = fails(2, &["sql", "SELECT * FROM shrads"]);
    assert!(unknown.contains("shrads") && unknown.contains("quote a file"), "{unknown}");
    assert!(fails(2, &["sql", "SELECT * FROM shards"]).contains("name its files with --shards"));
}

#[test]
fn arrow_files_and_streams_in_one_table_are_told_apart_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let create = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
    let mut file = FileWriter::try_new(create("file.arrow"), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    file.finish().unwrap();
    let mut stream = StreamWriter::try_new(create("stream.arrow"), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    stream.finish().unwrap();
    let sql = format!("SELECT * FROM '{}/*.arrow'", folder.path().display());
    let text = fails(2, &["sql", &sql]);
    assert!(text.contains("streams such as") && text.contains("stream.arrow") && text.contains("--shards"), "{text}");
}

#[test]
fn hugging_face_structs_are_images() {
    let folder = tempfile::tempdir().unwrap();
    let mut png = Vec::new();
    let picture = image::RgbImage::from_pixel(7, 5, image::Rgb([9, 9, 9]));
    picture.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(&png), Some(b"no image"), None]));
    let paths: ArrayRef = Arc::new(StringArray::from(vec!["a.png", "b.png", "c.png"]));
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let fields = vec![field("bytes", DataType::Binary), field("path", DataType::Utf8)];
    let image: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![bytes, paths], None));
    let batch = RecordBatch::try_from_iter([("image", image)]).unwrap();
    let path = folder.path().join("hf.parquet");
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let path = path.to_str().unwrap();
    let sql = format!("SELECT image_width(image) AS w, image_decodes(image) AS d FROM '{path}'");
    let rows = ok(&["sql", &sql, "--json"]);
    assert_eq!(rows, "{\"w\":7,\"d\":true}\n{\"w\":null,\"d\":false}\n{\"w\":null,\"d\":null}\n");
    let shown = ok(&["sql", &format!("SELECT image FROM '{path}'")]);
    assert!(shown.contains("path: a.png") && shown.contains("bytes: <8 bytes>"), "{shown}");

    let to = folder.path().join("shards");
    let words = ["sql", &format!("SELECT image, 'a caption' AS caption FROM '{path}'"), "--to", to.to_str().unwrap()];
    assert!(ok(&words).contains("1 row in 1 shard,"));
}

#[tokio::test]
async fn rows_with_images_become_a_data_set_that_selects_and_trains() {
    let workshop = Workshop::new();
    let (from, to) = (workshop.text("shards"), workshop.text("small"));
    let sql = "SELECT sample_id, resize_jpeg(image, 32, 90) AS image, upper(label) AS label, caption, split, source, \
               image_luma_mean(image) AS brightness FROM shards WHERE width > 35";
    let written = ok(&["sql", sql, "--shards", &from, "--to", &to, "--row-group-rows", "4", "--json"]);
    let report: Value = serde_json::from_str(written.lines().last().unwrap()).unwrap();
    assert_eq!((&report["rows"], &report["quarantined"]), (&10.into(), &0.into()));
    let names: Vec<String> =
        fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.starts_with('.') && !name.ends_with(".tmp")), "{names:?}");

    let set = shards(Path::new(&to)).await;
    assert_eq!(set.rows(), 10);
    let schema = Schema::named("image_text").unwrap();
    let checks = "SELECT sample_id FROM shards WHERE label = 'CAT' AND least(width, height) BETWEEN 30 AND 32 \
                  AND format = 'jpeg' AND brightness > 10 AND width >= height";
    let (selection, report) = select(&set, &schema, checks).await.unwrap();
    assert_eq!((selection.items(), report.blob_bytes_read), (5, 0));
    // Blobs lie as import writes them: one row costs about its own bytes.
    let one = "SELECT sample_id FROM shards WHERE image_decodes(image) AND source = 'cat/0.png'";
    let (_, report) = select(&set, &schema, one).await.unwrap();
    assert!(report.blob_bytes_read > 0 && report.blob_bytes_read < set.blob_bytes(), "{report}");

    // Shuffled by name: the same query writes the same files, whatever the threads do.
    let again = workshop.text("again");
    ok(&["sql", sql, "--shards", &from, "--to", &again, "--row-group-rows", "4"]);
    assert_eq!(
        fs::read(Path::new(&to).join("diptych.json")).unwrap(),
        fs::read(Path::new(&again).join("diptych.json")).unwrap()
    );
    let text = fails(1, &["sql", sql, "--shards", &from, "--to", &to]);
    assert!(text.contains("--overwrite") && text.contains("error: output: "), "{text}");
    ok(&["sql", "SELECT * FROM shards LIMIT 3", "--shards", &to, "--to", &to, "--overwrite"]);
    assert_eq!(shards(Path::new(&to)).await.rows(), 3);
}

#[test]
fn sorted_shards_keep_their_order_and_rows_without_images_are_plain() {
    let workshop = Workshop::new();
    let (from, to, plain) = (workshop.text("shards"), workshop.text("sorted"), workshop.text("plain"));
    ok(&["sql", "SELECT * FROM shards", "--shards", &from, "--to", &to, "--sort-by", "width,source"]);
    let sorted = ok(&["sql", "SELECT width FROM shards ORDER BY sample_id", "--shards", &to, "--csv"]);
    let widths: Vec<u32> = sorted.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    assert!(widths.is_sorted() && widths.len() == 12, "{widths:?}");
    assert!(fails(2, &["sql", "SELECT 1 AS a", "--sort-by", "b"]).contains("no column \"b\""));

    let output = run(&[
        "sql",
        "SELECT sample_id, image_phash(image) AS phash FROM shards ORDER BY sample_id",
        "--shards",
        &from,
        "--to",
        &plain,
    ]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("training cannot read this"), "{output:?}");
    let back = ok(&["sql", &format!("SELECT count(*) AS n, count(phash) AS p FROM '{plain}'"), "--csv"]);
    assert_eq!(back, "n,p\n12,12\n");
    let text = fails(
        1,
        &["sql", "SELECT sample_id FROM shards WHERE false", "--shards", &from, "--to", &workshop.text("none")],
    );
    assert!(text.contains("no rows") && !workshop.path("none").exists(), "{text}");
}

#[test]
fn statements_that_write_are_refused_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.csv");
    let target = target.to_str().unwrap();
    for sql in [
        format!("COPY (SELECT 1) TO '{target}' STORED AS CSV"),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}' STORED AS CSV"),
        format!("CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '{target}'"),
        "CREATE TABLE t AS SELECT 1".into(),
        "SET datafusion.execution.batch_size = 1".into(),
        "SELECT 1; SELECT 2".into(),
        "SELEC 1".into(),
        String::new(),
    ] {
        fails(2, &["sql", &sql]);
    }
    let workshop = Workshop::new();
    for sql in ["INSERT INTO shards SELECT * FROM shards", "DROP TABLE shards", "DELETE FROM shards"] {
        let refusal = fails(2, &["sql", sql, "--shards", &workshop.text("shards")]);
        assert!(refusal.contains("must change nothing"), "{refusal}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(ok(&["sql", "EXPLAIN SELECT 1"]).contains("physical_plan"));
    assert!(ok(&["sql", "SHOW TABLES"]).contains("information_schema"));
    let fixture = folder.path().join("a.csv");
    fs::write(&fixture, "name,score\nx,1\n").unwrap();
    assert!(ok(&["sql", &format!("DESCRIBE '{}'", fixture.to_str().unwrap())]).contains("score"));
}

#[test]
fn sorts_beyond_the_memory_spill() {
    // 75 MB of text that a window wants in order.
    let sql = "SELECT count(*) AS n FROM (SELECT row_number() OVER (ORDER BY v) AS place FROM \
               (SELECT repeat(CAST(value AS VARCHAR), 20) AS v FROM range(0, 600000))) WHERE place % 2 = 0";
    assert_eq!(ok(&["sql", sql, "--memory-megabytes", "64", "--csv"]), "n\n300000\n");
    assert!(fails(1, &["sql", sql, "--memory-megabytes", "1", "--csv"]).contains("raise --memory-megabytes"));
}

#[test]
fn a_condition_that_the_parser_binds_otherwise_is_refused_as_in_selections() {
    let sql = "SELECT value FROM range(0, 3) WHERE value IS DISTINCT FROM 1 AND value < 2";
    assert!(fails(2, &["sql", sql]).contains("put parentheses around the comparison"));
    let sql = "SELECT value FROM range(0, 3) WHERE (value IS DISTINCT FROM 1) AND value < 2";
    assert_eq!(ok(&["sql", sql, "--csv"]), "value\n0\n");
}

#[test]
fn functions_are_listed_and_documented() {
    let list = ok(&["functions"]);
    for part in ["image\n  image_width(image)", "\ntext\n", "\nseries\n", "\nsampling\n", "\npairing\n"] {
        assert!(list.contains(part), "{part} is not in {list}");
    }
    let page = ok(&["functions", "hamming"]);
    assert!(page.contains("> SELECT hamming(5, 6)") && page.contains("different_bits"), "{page}");
    let json: Value = serde_json::from_str(ok(&["functions", "--json"]).trim()).unwrap();
    let functions = json["functions"].as_array().unwrap();
    assert_eq!(functions.len(), 30);
    assert!(functions.iter().all(|f| f["arguments"].as_array().is_some_and(|arguments| !arguments.is_empty())));
    assert!(fails(2, &["functions", "image_widht"]).contains("image_width"));
}
