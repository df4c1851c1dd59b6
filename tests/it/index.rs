//! Reference shards: blobs stay in tars and loose files, and every command reads them there.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use datafusion::arrow::{array::AsArray, datatypes::UInt64Type};
use diptych::{
    ingest::{ImportReport, ImportSettings, import},
    scan::{
        budget::ByteBudget,
        fetch::{BLOB, BLOB_XXH3, FIRST_EXTRA, Fetcher, Reading, declared},
    },
    schema::Schema,
    select::{select::select, shards::ShardSet},
    stores::{StoreSettings, routing_store::Stores},
    synthetic,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    s3_server::{BUCKET, KEY, S3Server, SECRET, web},
    scan::runtime,
};

const PER_CLASS: usize = 12;

/// Images in class folders, and the same in tars of about fifty.
struct Workshop {
    folder: tempfile::TempDir,
    /// By their path below `images`.
    images: BTreeMap<PathBuf, Vec<u8>>,
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("images");
        synthetic::write_class_folders(&root, PER_CLASS, 28, 5).unwrap();
        let mut images = BTreeMap::new();
        for split in ["train", "test"] {
            for class in fs::read_dir(root.join(split)).unwrap().flatten() {
                for file in fs::read_dir(class.path()).unwrap().flatten() {
                    let path = file.path();
                    images.insert(path.strip_prefix(&root).unwrap().to_owned(), fs::read(&path).unwrap());
                }
            }
        }
        let workshop = Self { folder, images };
        fs::create_dir(workshop.path("tars")).unwrap();
        for (number, part) in workshop.images.iter().collect::<Vec<_>>().chunks(50).enumerate() {
            let file = fs::File::create(workshop.path("tars").join(format!("{number:03}.tar"))).unwrap();
            let mut tar = tar::Builder::new(file);
            for (at, (path, bytes)) in part.iter().enumerate() {
                let class = path.iter().nth(1).unwrap().to_str().unwrap();
                add(&mut tar, &format!("{at:04}.png"), bytes);
                add(&mut tar, &format!("{at:04}.txt"), format!("a {class}").as_bytes());
            }
            tar.finish().unwrap();
        }
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn index(&self, from: &str, to: &str) -> ImportReport {
        let settings = ImportSettings { reference: true, row_group_rows: 32, ..ImportSettings::default() };
        import(&self.path(from), &self.path(to), &settings, &mut |_| Ok(())).unwrap()
    }

    fn open(&self, name: &str) -> Arc<ShardSet> {
        let patterns = [self.path(name).display().to_string()];
        let set = runtime().block_on(ShardSet::open(&patterns, &Schema::named("image_text").unwrap()));
        Arc::new(set.unwrap_or_else(|error| panic!("{}", error.report())))
    }
}

fn add(tar: &mut tar::Builder<fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// Every image of a set with its caption, as training fetches them.
fn fetched(set: &ShardSet, extra: &str) -> Vec<(Vec<u8>, Option<String>)> {
    let budget = ByteBudget::new(64 << 20);
    let fetcher = Fetcher::new(&set.shards, Arc::clone(&set.reads), "image", &[extra.to_owned()], budget).unwrap();
    let mut found = Vec::new();
    for shard in &set.shards {
        for group in 0..shard.format.row_groups() {
            let rows: Vec<u32> = (0..shard.format.group_rows(group) as u32).collect();
            let reading = Reading::now();
            let batch = runtime().block_on(fetcher.rows(shard.ordinal, group as u32, &rows, &reading)).unwrap();
            for row in 0..batch.num_rows() {
                let image = batch.column(BLOB).as_binary_view().value(row).to_vec();
                assert_eq!(declared(&batch, BLOB_XXH3, row), Some(xxh3_64(&image)));
                let words = batch.column(FIRST_EXTRA).as_string::<i32>();
                found.push((image, words.iter().nth(row).unwrap().map(str::to_owned)));
            }
        }
    }
    found
}

fn diptych(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_diptych")).stdin(Stdio::null()).args(words).output().unwrap()
}

fn sets(shards: &Path) -> Vec<String> {
    let sets = [
        &format!("scan.shards=[{:?}]", shards.to_str().unwrap()),
        "prefetch.batch_rows=16",
        "prefetch.capacity_megabytes=2",
        "scan.lanes=2",
        "scan.shuffle_window_rows=64",
        "scan.sql=SELECT sample_id FROM shards WHERE width >= 20",
        "method.simclr.encoder.convnet.base_width=4",
        "train.report_every_steps=1",
        "train.max_steps=2",
    ];
    sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect()
}

fn command(command: &str, shards: &Path, rest: &[&str]) -> Output {
    let sets = sets(shards);
    let mut words = vec![command, "simclr_small"];
    words.extend(sets.iter().map(String::as_str));
    words.extend(rest);
    diptych(&words)
}

fn ok(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout.into_owned()
}

#[test]
fn references_lead_to_the_same_bytes_as_an_import() {
    let workshop = Workshop::new();
    let total = workshop.images.len();
    let mut expected: Vec<Vec<u8>> = workshop.images.values().cloned().collect();
    expected.sort();
    for (from, to) in [("images", "of_folders"), ("tars", "of_tars")] {
        let report = workshop.index(from, to);
        assert_eq!((report.rows, report.quarantined), (total as u64, 0), "{from}");
        let set = workshop.open(to);
        assert!(set.shards.iter().all(|shard| shard.referenced.is_some()));
        assert_eq!(set.blob_bytes(), report.image_bytes);
        let size: u64 = fs::read_dir(workshop.path(to)).unwrap().flatten().map(|e| e.metadata().unwrap().len()).sum();
        assert!(size < report.image_bytes, "{from}: shards of {size} bytes hold no images");
        let mut found: Vec<Vec<u8>> = fetched(&set, "source").into_iter().map(|(image, _)| image).collect();
        found.sort();
        assert!(found == expected, "{from}");
    }
    let captions = fetched(&workshop.open("of_tars"), "caption");
    assert!(captions.iter().all(|(_, caption)| caption.as_deref().is_some_and(|caption| caption.starts_with("a "))));
}

#[test]
fn neighbours_in_a_tar_are_read_in_one_request_and_count_as_blobs() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tars")).unwrap();
    let mut archive = tar::Builder::new(fs::File::create(folder.path().join("tars/000.tar")).unwrap());
    for number in 0..24_u64 {
        // Noise does not compress: about 49 KB each, between captions of 2 KB with their headers.
        let mut noise = vec![0; 128 * 128 * 3];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut noise);
        let mut png = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::from_raw(128, 128, noise).unwrap();
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        add(&mut archive, &format!("{number:03}.png"), png.get_ref());
        add(&mut archive, &format!("{number:03}.txt"), b"noise");
    }
    archive.finish().unwrap();
    let settings = ImportSettings { reference: true, ..ImportSettings::default() };
    let to = folder.path().join("shards");
    import(&folder.path().join("tars"), &to, &settings, &mut |_| Ok(())).unwrap();
    let schema = Schema::named("image_text").unwrap();
    let set = runtime().block_on(ShardSet::open(&[to.display().to_string()], &schema)).unwrap();
    let set = Arc::new(set);
    let (selection, report) =
        runtime().block_on(select(&set, &schema, "SELECT sample_id FROM shards WHERE width >= 20")).unwrap();
    assert_eq!((report.blob_bytes_read, report.blob_bytes_selected), (0, set.blob_bytes()));
    assert_eq!(selection.items(), 24);
    let before = set.store.wire();
    assert_eq!(fetched(&set, "caption").len(), 24);
    let wire = set.store.wire().since(before);
    assert!(wire.requests < 12, "{wire:?}");
    let blobs = set.blob_bytes();
    assert!((blobs..=blobs * 17 / 16).contains(&wire.blob_bytes), "{wire:?} of {blobs}");
}

#[test]
fn every_command_takes_references() {
    let workshop = Workshop::new();
    let (tars, shards) = (workshop.path("tars"), workshop.path("shards"));
    ok(&diptych(&["index", tars.to_str().unwrap(), shards.to_str().unwrap(), "--row-group-rows", "16"]));
    assert!(ok(&command("select", &shards, &["--verify", "--json"])).contains("\"blob_bytes_read\":0"));
    let sql = "SELECT sample_id FROM shards WHERE image_decodes(image)";
    let selected = ok(&diptych(&["select", sql, "--shards", shards.to_str().unwrap(), "--json"]));
    let selected: serde_json::Value = serde_json::from_str(selected.lines().last().unwrap()).unwrap();
    let bytes = |key: &str| selected[key].as_u64();
    assert_eq!(bytes("items"), Some(workshop.images.len() as u64));
    assert_eq!(bytes("blob_bytes_read"), bytes("blob_bytes_selected"), "{selected}");
    assert_eq!(bytes("blob_bytes_never_read"), Some(0), "{selected}");
    ok(&command("preview", &shards, &["--to", workshop.path("views.png").to_str().unwrap(), "--pairs", "4"]));
    let bench: serde_json::Value =
        serde_json::from_str(ok(&command("bench", &shards, &["--batches", "4", "--json"])).lines().last().unwrap())
            .unwrap();
    assert_eq!((bench["samples"].as_u64(), bench["bad_rows"].as_u64()), (Some(64), Some(0)));
    ok(&command("train", &shards, &["--run", workshop.path("run").to_str().unwrap()]));

    let shards = shards.to_str().unwrap();
    let hostile = "SELECT sample_id FROM shards WHERE octet_length(encode(image, 'hex')) <> 2 * blob_length OR NOT image_decodes(image)";
    assert_eq!(ok(&diptych(&["sql", hostile, "--shards", shards, "--csv"])), "sample_id\n");
    let linted = ok(&diptych(&["lint", "--shards", shards, "--json", "--fail-on", "bad"]));
    let linted: serde_json::Value = serde_json::from_str(linted.lines().last().unwrap()).unwrap();
    let (statistics, bad) = (&linted["statistics"], linted["bad_images"].as_u64());
    assert_eq!((statistics["rows"].as_u64(), bad), (Some(workshop.images.len() as u64), Some(0)));
    assert_eq!(statistics["nulls"]["image"].as_u64(), Some(0), "{statistics}");
}

#[test]
fn sql_has_the_images_of_references_as_it_has_those_of_shards() {
    let workshop = Workshop::new();
    workshop.index("images", "referring");
    let settings = ImportSettings { row_group_rows: 32, ..ImportSettings::default() };
    import(&workshop.path("images"), &workshop.path("holding"), &settings, &mut |_| Ok(())).unwrap();
    let rows = |names: &[&str], sql: &str| {
        let paths: Vec<String> = names.iter().map(|name| workshop.path(name).display().to_string()).collect();
        let mut words = vec!["sql", sql, "--csv"];
        words.extend(paths.iter().flat_map(|path| ["--shards", path]));
        let text = ok(&diptych(&words));
        let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let sql = "SELECT source, label, split, image_sha256(image) AS sha, image_phash(image) AS hash, encode(image, 'hex') LIKE '89504e47%' AS png, \
               image IS NULL AS none FROM shards WHERE label <> 'disk' AND image_luma_mean(image) > 1";
    let held = rows(&["holding"], sql);
    assert!(held.len() > 20 && held.len() < workshop.images.len(), "{}", held.len());
    assert_eq!(rows(&["referring"], sql), held);
    // Both together, and with the image in no column of the result.
    assert_eq!(rows(&["holding", "referring"], sql).len(), 2 * held.len());
    let twice =
        "SELECT source FROM shards GROUP BY source HAVING count(DISTINCT image_sha256(image)) = 1 AND count(*) = 2";
    assert_eq!(rows(&["holding", "referring"], twice).len(), workshop.images.len());

    // Rows that hold their images again are what import would have made.
    let again = workshop.path("again");
    let all = "SELECT image, caption, label, split, source FROM shards";
    let referring = workshop.path("referring").display().to_string();
    ok(&diptych(&["sql", all, "--shards", &referring, "--to", again.to_str().unwrap()]));
    assert_eq!(rows(&["again"], sql), held);
}

#[test]
fn narrow_filters_decide_before_images_are_read() {
    let workshop = Workshop::new();
    workshop.index("tars", "shards");
    let set = workshop.open("shards");
    let read = |sql: &str| {
        let before = set.store.wire();
        let (selection, _) = runtime().block_on(select(&set, &Schema::named("image_text").unwrap(), sql)).unwrap();
        (selection.items(), set.store.wire().since(before).blob_bytes)
    };
    let few = "source LIKE '000.tar#%' AND image_bytes % 2 = 0";
    let (items, narrow) = read(&format!("SELECT sample_id FROM shards WHERE {few}"));
    assert_eq!(narrow, 0);
    let (decoded, bytes) = read(&format!("SELECT sample_id FROM shards WHERE {few} AND image_decodes(image)"));
    assert!(items > 3 && decoded == items, "{decoded} of {items}");
    assert!(bytes > 0 && bytes < set.blob_bytes() / 3, "{bytes} of {}", set.blob_bytes());
    let (all, bytes) = read("SELECT sample_id FROM shards WHERE image_decodes(image)");
    assert_eq!((all, bytes), (workshop.images.len() as u64, set.blob_bytes()));
}

#[test]
fn references_that_sql_rewrote_lead_to_a_web_server() {
    let workshop = Workshop::new();
    workshop.index("tars", "shards");
    let address = web(&workshop.path("tars"), || None);
    let tars = workshop.path("tars").display().to_string();
    let sql = format!(
        "SELECT * EXCLUDE (sample_id, image) REPLACE (replace(blob_uri, '{tars}', 'http://{address}') AS blob_uri) FROM shards"
    );
    let (from, to) = (workshop.path("shards").display().to_string(), workshop.path("remote"));
    let written = diptych(&["sql", &sql, "--shards", &from, "--to", to.to_str().unwrap(), "--row-group-rows", "40"]);
    let log = String::from_utf8_lossy(&written.stderr).into_owned();
    assert!(!log.contains("training cannot read"), "{log}");
    ok(&written);
    let (local, remote) = (workshop.open("shards"), workshop.open("remote"));
    assert!(remote.shards[0].format.row_groups() > 2);
    assert!(remote.blob_bytes() >= local.blob_bytes(), "bounds of sizes are no less than the sizes");
    let sorted = |set: &ShardSet| {
        let mut found = fetched(set, "caption");
        found.sort();
        found
    };
    assert!(sorted(&local) == sorted(&remote));
    let count = "SELECT count(*) AS n FROM shards WHERE image_decodes(image)";
    let counted = ok(&diptych(&["sql", count, "--shards", to.to_str().unwrap(), "--csv"]));
    assert_eq!(counted, format!("n\n{}\n", workshop.images.len()));
}

#[test]
fn a_changed_blob_is_a_bad_sample_and_a_missing_file_an_error() {
    let workshop = Workshop::new();
    workshop.index("tars", "shards");
    let first = workshop.path("tars").join("000.tar");
    let mut bytes = fs::read(&first).unwrap();
    // In the body of the first image, whose header has 512 bytes.
    bytes[600] ^= 1;
    fs::write(&first, &bytes).unwrap();
    // Every item of the epoch.
    let all = ["--batches", "10", "--json", "--set", "prefetch.batch_rows=15"];
    let output = command("bench", &workshop.path("shards"), &all);
    let bench: serde_json::Value = serde_json::from_str(ok(&output).lines().last().unwrap()).unwrap();
    assert!(bench["bad_rows"].as_u64() >= Some(1), "{bench}");

    fs::write(&first, &bytes[..bytes.len() / 2]).unwrap();
    let output = command("bench", &workshop.path("shards"), &["--batches", "9"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("000.tar"), "cut short: {text}");
    fs::remove_file(&first).unwrap();
    let output = command("bench", &workshop.path("shards"), &["--batches", "9"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("000.tar: cannot be read"), "gone: {text}");
}

#[test]
fn what_no_reference_can_name_is_refused() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path("packed")).unwrap();
    let tar = fs::read(workshop.path("tars").join("000.tar")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(
        fs::File::create(workshop.path("packed").join("000.tar.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    gz.finish().unwrap();
    let output = diptych(&["index", workshop.path("packed").to_str().unwrap(), workshop.path("to").to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("no reference can name its bytes; unpack"), "{text}");
}

#[test]
fn files_of_a_table_are_found_behind_parents_and_odd_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("lists")).unwrap();
    fs::create_dir_all(path("pictures")).unwrap();
    let names = ["plain.png", "a b.png", "p%20q.png", "h#1.png", "ü?.png", "st*r{1}.png"];
    let mut table = "path,caption\n".to_owned();
    for (number, name) in names.iter().enumerate() {
        let light = number as u8 * 40;
        image::RgbImage::from_pixel(20 + number as u32, 20, image::Rgb([light; 3]))
            .save(path("pictures").join(name))
            .unwrap();
        table += &format!("../pictures/{name},{name}\n");
    }
    fs::write(path("lists/all.csv"), table).unwrap();
    let settings = ImportSettings { reference: true, ..ImportSettings::default() };
    import(&path("lists/all.csv"), &path("shards"), &settings, &mut |_| Ok(())).unwrap();
    let schema = Schema::named("image_text").unwrap();
    let set = runtime().block_on(ShardSet::open(&[path("shards").display().to_string()], &schema)).unwrap();
    let mut found = fetched(&set, "caption");
    found.sort_by(|a, b| a.1.cmp(&b.1));
    let mut expected: Vec<(Vec<u8>, Option<String>)> =
        names.iter().map(|name| (fs::read(path("pictures").join(name)).unwrap(), Some((*name).to_owned()))).collect();
    expected.sort_by(|a, b| a.1.cmp(&b.1));
    assert!(found == expected);

    // No store has such a name.
    fs::create_dir_all(path("broken/class")).unwrap();
    fs::copy(path("pictures/plain.png"), path("broken/class/a\nb.png")).unwrap();
    let refused = import(&path("broken"), &path("none"), &settings, &mut |_| Ok(())).unwrap_err().report();
    assert!(refused.contains("has a name that no reference can have; rename it"), "{refused}");
}

#[test]
fn blobs_of_references_may_lie_in_a_bucket() {
    use datafusion::{
        arrow::{
            array::{ArrayRef, RecordBatch, StringArray},
            datatypes::Schema as ArrowSchema,
        },
        parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    };
    let workshop = Workshop::new();
    workshop.index("tars", "shards");
    let server = S3Server::start();
    server.fill(&workshop.path("tars"), "tars");
    // The same shards with URLs instead of paths.
    fs::create_dir(workshop.path("remote")).unwrap();
    for entry in fs::read_dir(workshop.path("shards")).unwrap().flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(entry.path()).unwrap()).unwrap();
        let schema = Arc::clone(reader.schema());
        let to = fs::File::create(workshop.path("remote").join(entry.file_name())).unwrap();
        let mut writer = ArrowWriter::try_new(to, Arc::clone(&schema), None).unwrap();
        for batch in reader.build().unwrap() {
            let batch: RecordBatch = batch.unwrap();
            let uris = batch.column_by_name("blob_uri").unwrap().as_string::<i32>();
            let moved = |uri: Option<&str>| {
                format!("s3://{BUCKET}/tars/{}", Path::new(uri.unwrap()).file_name().unwrap().to_str().unwrap())
            };
            let moved: ArrayRef = Arc::new(StringArray::from_iter_values(uris.iter().map(moved)));
            let at = batch.schema().index_of("blob_uri").unwrap();
            let mut columns = batch.columns().to_vec();
            columns[at] = moved;
            writer.write(&RecordBatch::try_new(Arc::new(ArrowSchema::clone(&schema)), columns).unwrap()).unwrap();
        }
        writer.close().unwrap();
    }
    let stores = Stores::new(&StoreSettings::default()).with_options(&[
        ("AWS_ENDPOINT_URL", &format!("http://{}", server.address)),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
    ]);
    let io = runtime();
    let patterns = [workshop.path("remote").display().to_string()];
    let set = io
        .block_on(ShardSet::open_through(&patterns, &Schema::named("image_text").unwrap(), Arc::new(stores)))
        .map_err(|error| error.report())
        .unwrap();
    let shard = Arc::clone(&set.shards[0]);
    let budget = ByteBudget::new(64 << 20);
    let fetcher = Fetcher::new(&set.shards, Arc::clone(&set.reads), "image", &[], budget).unwrap();
    let rows: Vec<u32> = (0..shard.format.group_rows(0) as u32).collect();
    let batch = io.block_on(fetcher.rows(shard.ordinal, 0, &rows, &Reading::now())).map_err(|e| e.report()).unwrap();
    let hashes = batch.column(BLOB_XXH3).as_primitive::<UInt64Type>();
    let images = batch.column(BLOB).as_binary_view();
    assert!(
        !rows.is_empty() && rows.iter().all(|&row| xxh3_64(images.value(row as usize)) == hashes.value(row as usize))
    );
}
