//! Shards in buckets and on web servers: the same data set as on disk, or an error, whatever the network does.
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use datafusion::arrow::array::RecordBatch;
use diptych::{
    Error,
    scan::{epoch::EpochPlan, failure::from_datafusion},
    schema::Schema,
    select::{select::select, selection::Selection, shards::ShardSet},
    stores::{
        StoreSettings,
        cache_folder::{CacheFolder, CacheSettings},
        routing_store::Stores,
    },
    synthetic,
};
use futures::TryStreamExt;
use tokio::runtime::Runtime;

use crate::{
    s3_server::{BUCKET, Fault, KEY, S3Server, SECRET, faulty, web},
    scan::{Content, Data, plan, runtime, write_shard},
};

const SQL: &str = "SELECT sample_id FROM shards WHERE label IN ('class 1', 'class 2', 'class 5')";

/// A data set on disk and in a bucket, each test with a server of its own.
struct Place {
    local: tempfile::TempDir,
    server: S3Server,
}

impl Place {
    fn new() -> Self {
        let local = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            write_shard(&local.path().join(format!("{name}.parquet")), &Content::new(name, 120, 3_000, 20));
        }
        let server = S3Server::start();
        server.fill(local.path(), "sets/train");
        Self { local, server }
    }

    fn expected(&self) -> Seen {
        let set = open(&self.local.path().display().to_string(), Stores::default()).unwrap();
        epoch(&set).unwrap()
    }
}

/// Everything a trainer gets of a selection and its first epoch.
#[derive(PartialEq)]
struct Seen {
    digest: [u8; 32],
    batches: Vec<RecordBatch>,
}

/// One for all tests: connections live on the runtime that opened them.
fn io() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(runtime)
}

fn patience() -> StoreSettings {
    StoreSettings { retries: 5, retry_seconds: 20, timeout_seconds: 10, connect_timeout_seconds: 2 }
}

fn stores(address: SocketAddr, settings: &StoreSettings) -> Stores {
    Stores::new(settings).with_options(&[
        ("AWS_ENDPOINT_URL", &format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
    ])
}

fn schema() -> Schema {
    Schema::named("image_text").unwrap()
}

fn open(pattern: &str, stores: Stores) -> Result<Arc<ShardSet>, Error> {
    io().block_on(ShardSet::open_through(&[pattern.to_owned()], &schema(), Arc::new(stores))).map(Arc::new)
}

fn epochs(set: &Arc<ShardSet>, selection: Selection) -> EpochPlan {
    let data = Data { folder: tempfile::tempdir().unwrap(), shards: Arc::clone(set) };
    plan(&data, &Arc::new(selection))
}

fn batches(plan: &EpochPlan, epoch: u64) -> Result<Vec<RecordBatch>, Error> {
    io().block_on(async {
        let stream = plan.execute(epoch, 0)?;
        stream.try_collect().await.map_err(|error| from_datafusion(error, diptych::error::Stage::Scan))
    })
}

fn epoch(set: &Arc<ShardSet>) -> Result<Seen, Error> {
    let (selection, _) = io().block_on(select(set, &schema(), SQL))?;
    let digest = selection.digest();
    Ok(Seen { digest, batches: batches(&epochs(set, selection), 0)? })
}

fn refusal(pattern: &str, stores: Stores) -> String {
    open(pattern, stores).map(|_| ()).unwrap_err().report()
}

fn prefix() -> String {
    format!("s3://{BUCKET}/sets/train")
}

#[test]
fn a_bucket_holds_the_same_data_set_as_the_disk() {
    let place = Place::new();
    let expected = place.expected();
    assert!(expected.batches.len() > 2);
    let address = place.server.address;
    for pattern in [prefix(), format!("s3://{BUCKET}/sets/*/[a-c].parquet"), format!("s3a://{BUCKET}/sets/train/")] {
        let set = open(&pattern, stores(address, &patience())).unwrap();
        assert_eq!(set.shards.len(), 3, "{pattern}");
        assert_eq!(set.shards[1].name, pattern.split("sets").next().unwrap().to_owned() + "sets/train/b.parquet");
        assert!(epoch(&set).unwrap() == expected, "{pattern}");
    }
    let one = open(&format!("{}/b.parquet", prefix()), stores(address, &patience())).unwrap();
    assert_eq!((one.shards.len(), one.rows()), (1, 120));
}

/// What is asked for in listings until the shards of a glob are known.
fn folders_listed(place: &Place, pattern: &str) -> Vec<String> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let proxy = faulty(place.server.address, move |_, line| {
        if line.contains("list-type=2") {
            let prefix = line.split(['?', '&', ' ']).find_map(|word| word.strip_prefix("prefix=")).unwrap_or_default();
            seen.lock().unwrap().push(prefix.replace("%2F", "/"));
        }
        Fault::Pass
    });
    open(&format!("s3://{BUCKET}/{pattern}"), stores(proxy, &patience())).unwrap();
    let asked = asked.lock().unwrap();
    asked.clone()
}

#[test]
fn a_glob_lists_the_folders_that_it_reaches_and_no_other() {
    let place = Place::new();
    let other = place.server.bucket().join("sets/other/deep");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("a.parquet"), "no Parquet").unwrap();
    let store = stores(place.server.address, &patience());
    let listed = Arc::new(store);
    let asked = |pattern: String| io().block_on(ShardSet::open_through(&[pattern], &schema(), listed.clone()));
    for pattern in ["sets/t*/*.parquet", "se?s/train/{a,b,c}.parquet", "*/train/*.parquet", "sets/train/*"] {
        assert_eq!(asked(format!("s3://{BUCKET}/{pattern}")).unwrap().shards.len(), 3, "{pattern}");
    }
    assert!(asked(format!("s3://{BUCKET}/sets/*.parquet")).unwrap_err().report().contains("sets/*.parquet"));
    let found = asked(format!("s3://{BUCKET}/sets/*/*/*.parquet")).unwrap_err().report();
    assert!(found.contains("sets/other/deep/a.parquet"), "{found}");
    let requests = folders_listed(&place, "sets/t*/*.parquet");
    assert_eq!(requests, ["sets/", "sets/train/"]);
    assert_eq!(folders_listed(&place, "sets/**/b.parquet"), ["sets/"], "one flat listing");
}

#[test]
fn a_filter_on_narrow_columns_reads_no_blob_byte_from_a_bucket() {
    let place = Place::new();
    let set = open(&prefix(), stores(place.server.address, &patience())).unwrap();
    let (selection, report) = io().block_on(select(&set, &schema(), SQL)).unwrap();
    assert!(selection.items() > 100);
    let wire = set.store.wire();
    assert_eq!((report.blob_bytes_read, wire.blob_bytes), (0, 0), "{report}");
    assert!(report.wire_bytes > 0 && wire.bytes < 360 * 3_000 / 4, "{wire:?}");
}

#[test]
fn buckets_and_disks_mix_and_manifests_decide_the_order() {
    let place = Place::new();
    let local = open(&place.local.path().display().to_string(), Stores::default()).unwrap();
    let entry = |number: usize| {
        let shard = &local.shards[number];
        let fingerprint: String = shard.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = Path::new(&shard.name).file_name().unwrap().to_str().unwrap();
        serde_json::json!({ "file": file, "rows": shard.rows(), "bytes": shard.bytes, "fingerprint": fingerprint })
    };
    let manifest = place.server.bucket().join("sets/train/diptych.json");
    fs::write(&manifest, serde_json::json!({ "shards": [entry(2), entry(0)] }).to_string()).unwrap();
    let names = |pattern: String| -> Vec<String> {
        let set = open(&pattern, stores(place.server.address, &patience())).unwrap();
        set.shards.iter().map(|shard| shard.name.rsplit_once('/').unwrap().1.to_owned()).collect()
    };
    assert_eq!(names(prefix()), ["c.parquet", "a.parquet"], "the prefix");
    assert_eq!(names(format!("{}/diptych.json", prefix())), ["c.parquet", "a.parquet"], "the manifest itself");
    assert_eq!(names(format!("s3://{BUCKET}/**/*.parquet")), ["c.parquet", "a.parquet"], "a glob");

    let patterns = [place.local.path().join("b.parquet").display().to_string(), prefix()];
    let all = Arc::new(stores(place.server.address, &patience()));
    let set = io().block_on(ShardSet::open_through(&patterns, &schema(), all)).unwrap();
    assert_eq!(set.rows(), 360);
    assert_eq!(epoch(&Arc::new(set)).unwrap().digest, place.expected().digest, "order of shards is no part of it");

    fs::write(&manifest, serde_json::json!({ "shards": [entry(2), { "file": "gone.parquet", "rows": 1, "bytes": 1, "fingerprint": "00" }] }).to_string()).unwrap();
    let text = refusal(&prefix(), stores(place.server.address, &patience()));
    assert!(text.contains("gone.parquet: diptych.json lists it"), "{text}");
}

#[test]
fn whatever_the_network_does_batches_are_those_of_the_disk() {
    let place = Place::new();
    let expected = place.expected();
    let faults =
        [Fault::Unavailable, Fault::CloseInBody, Fault::CloseInBodyWithoutTag, Fault::Truncate, Fault::TruncateRange];
    for fault in faults {
        // Every fourth answer, listings and footers included.
        let proxy = faulty(place.server.address, move |n, _| if n % 4 == 1 { fault } else { Fault::Pass });
        let patient = StoreSettings { retries: 12, retry_seconds: 60, ..patience() };
        let set =
            open(&prefix(), stores(proxy, &patient)).unwrap_or_else(|error| panic!("{fault:?}: {}", error.report()));
        let seen = epoch(&set).unwrap_or_else(|error| panic!("{fault:?}: {}", error.report()));
        assert!(seen == expected, "{fault:?}");
    }
}

#[test]
fn a_network_that_never_works_is_an_error_in_time() {
    let place = Place::new();
    let hasty = StoreSettings { retries: 2, retry_seconds: 4, timeout_seconds: 1, connect_timeout_seconds: 1 };
    let faults = [
        (Fault::Unavailable, "503"),
        (Fault::CloseInBodyWithoutTag, "does not answer as it should"),
        (Fault::Truncate, "ended after"),
        (Fault::TruncateRange, "does not answer as it should"),
        (Fault::Stall, "did not answer in time"),
    ];
    for (fault, said) in faults {
        // What select needs passes; blobs never do: the second and later shards' pages are asked for after the listing.
        let proxy =
            faulty(place.server.address, move |_, line| if line.contains("list-type") { Fault::Pass } else { fault });
        let started = Instant::now();
        let text = refusal(&prefix(), stores(proxy, &hasty));
        assert!(started.elapsed() < Duration::from_secs(25), "{fault:?} took {:?}", started.elapsed());
        assert!(text.contains(said) && text.contains("sets/train/a.parquet"), "{fault:?}: {text}");
    }
}

#[test]
fn answers_that_stay_short_during_an_epoch_end_it() {
    let place = Place::new();
    let set = open(&prefix(), stores(place.server.address, &patience())).unwrap();
    let (selection, _) = io().block_on(select(&set, &schema(), SQL)).unwrap();
    let hasty = StoreSettings { retries: 2, retry_seconds: 4, ..patience() };
    // The sixth and later requests: the listing and the footers pass.
    let proxy = faulty(place.server.address, |n, _| if n < 12 { Fault::Pass } else { Fault::Truncate });
    let spoiled = open(&prefix(), stores(proxy, &hasty)).unwrap();
    let again = Selection::new(&spoiled, selection.groups.clone(), selection.provenance().clone()).unwrap();
    let mut failed = None;
    for number in 0..3 {
        match batches(&epochs(&spoiled, again.clone()), number) {
            Ok(_) => {}
            Err(error) => failed = Some(error.report()),
        }
    }
    let text = failed.expect("half answers made whole batches");
    assert!(text.contains("ended after") && text.contains(".parquet"), "{text}");
}

#[test]
fn an_object_that_is_replaced_during_a_run_ends_it() {
    let place = Place::new();
    let set = open(&prefix(), stores(place.server.address, &patience())).unwrap();
    let (selection, _) = io().block_on(select(&set, &schema(), SQL)).unwrap();
    for name in ["a", "b", "c"] {
        let path = place.server.bucket().join(format!("sets/train/{name}.parquet"));
        write_shard(&path, &Content::new("another", 120, 3_000, 20));
    }
    let text = batches(&epochs(&set, selection), 0).unwrap_err().report();
    assert!(text.contains("changed while it was being read"), "{text}");
}

#[test]
fn what_cannot_be_reached_says_why_and_what_to_do() {
    let place = Place::new();
    let address = place.server.address;
    let hasty = StoreSettings { retries: 1, retry_seconds: 2, timeout_seconds: 2, connect_timeout_seconds: 1 };
    let with = |options: &[(&str, &str)]| {
        let mut all = vec![
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
        ];
        all.extend(options);
        Stores::new(&hasty).with_options(&all)
    };
    let endpoint = format!("http://{address}");
    let text = refusal(&prefix(), with(&[("AWS_ENDPOINT_URL", &endpoint), ("AWS_SECRET_ACCESS_KEY", "wrong")]));
    assert!(text.contains("refuses these credentials; set AWS_ACCESS_KEY_ID") && text.contains(&prefix()), "{text}");
    let file = format!("{}/a.parquet", prefix());
    let text = refusal(&file, with(&[("AWS_ENDPOINT_URL", &endpoint), ("AWS_ACCESS_KEY_ID", "unknown")]));
    assert!(text.contains("refuses these credentials") && text.contains(&file), "{text}");
    for pattern in ["s3://elsewhere/sets", "s3://elsewhere/a.parquet"] {
        let text = refusal(pattern, with(&[("AWS_ENDPOINT_URL", &endpoint)]));
        assert!(text.contains("there is no bucket s3://elsewhere"), "{text}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = refusal(&prefix(), with(&[("AWS_ENDPOINT_URL", &format!("http://{closed}"))]));
    assert!(text.contains("cannot connect to its server") && text.contains("AWS_ENDPOINT_URL"), "{text}");
    let text = refusal(&format!("s3://{BUCKET}/nothing"), with(&[("AWS_ENDPOINT_URL", &endpoint)]));
    assert!(text.contains("matches no file"), "{text}");
    let text = refusal("ftp://host/x", Stores::default());
    assert!(text.contains("no store is known for ftp://; known are s3://"), "{text}");
}

#[test]
fn web_servers_give_single_files_and_manifests_and_say_that_they_list_nothing() {
    let place = Place::new();
    let address = web(place.local.path(), || None);
    let set = open(&format!("http://{address}/a.parquet"), Stores::new(&patience())).unwrap();
    assert_eq!(set.rows(), 120);
    let local = open(&place.local.path().join("a.parquet").display().to_string(), Stores::default()).unwrap();
    assert!(epoch(&set).unwrap() == epoch(&local).unwrap());
    for pattern in ["*.parquet", ""] {
        let text = refusal(&format!("http://{address}/{pattern}"), Stores::new(&patience()));
        assert!(text.contains("a web server lists no files; name one file, or the manifest"), "{text}");
    }
    let text = refusal(&format!("http://{address}/train"), Stores::new(&patience()));
    assert!(text.contains("is not there; a web server lists no files"), "{text}");
}

#[test]
fn a_cache_that_holds_everything_leaves_nothing_on_the_wire() {
    let place = Place::new();
    let expected = place.expected();
    let folder = tempfile::tempdir().unwrap();
    let settings = CacheSettings { folder: folder.path().join("cache"), megabytes: 64 };
    let cached = || stores(place.server.address, &patience()).with_cache(Some(CacheFolder::open(&settings).unwrap()));

    let set = open(&prefix(), cached()).unwrap();
    assert!(epoch(&set).unwrap() == expected);
    let plan = epochs(&set, io().block_on(select(&set, &schema(), SQL)).unwrap().0);
    let plan = EpochPlan { drop_last: false, ..plan };
    let first = batches(&plan, 0).unwrap();
    let before = set.store.wire();
    assert!(batches(&plan, 0).unwrap() == first);
    assert_eq!(set.store.wire().since(before).bytes, 0, "the same epoch again");
    assert!(batches(&plan, 1).unwrap() != first);
    let wire = set.store.wire().since(before);
    // Gaps of some bytes between narrow columns are bridged or not, as their row group is cut between lanes.
    assert!(wire.blob_bytes == 0 && wire.bytes < 4_096, "a second epoch: {wire:?}");

    // Another process later: footers are asked for again, blobs are not.
    let again = open(&prefix(), cached()).unwrap();
    assert!(epoch(&again).unwrap() == expected);
    assert_eq!(again.store.wire().blob_bytes, 0);

    // Two at once, of which one may keep less.
    let small = CacheSettings { megabytes: 1, ..settings.clone() };
    let other =
        open(&prefix(), stores(place.server.address, &patience()).with_cache(Some(CacheFolder::open(&small).unwrap())))
            .unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| epoch(&again).unwrap() == expected);
        assert!(epoch(&other).unwrap() == expected);
        assert!(first.join().unwrap());
    });

    // Every piece spoiled.
    let mut spoiled = 0;
    for object in fs::read_dir(&settings.folder).unwrap().flatten() {
        for piece in fs::read_dir(object.path()).unwrap().flatten() {
            let mut bytes = fs::read(piece.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(piece.path(), bytes).unwrap();
            spoiled += 1;
        }
    }
    assert!(spoiled > 10);
    let mended = open(&prefix(), cached()).unwrap();
    assert!(epoch(&mended).unwrap() == expected);
    assert!(mended.store.wire().blob_bytes > 0);
}

#[test]
fn a_cache_keeps_nothing_of_which_it_cannot_tell_whether_it_is_still_the_same() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let settings = CacheSettings { folder: folder.path().join("cache"), megabytes: 64 };
    // 0: the server does not say when a file was changed.
    let second = Arc::new(AtomicU8::new(0));
    let told = Arc::clone(&second);
    let address = web(place.local.path(), move || Some(told.load(Ordering::SeqCst)).filter(|second| *second > 0));
    let blob_bytes = || {
        let cached = Stores::new(&patience()).with_cache(Some(CacheFolder::open(&settings).unwrap()));
        let set = open(&format!("http://{address}/a.parquet"), cached).unwrap();
        epoch(&set).unwrap();
        set.store.wire().blob_bytes
    };
    let all = blob_bytes();
    assert!(all > 0);
    assert_eq!(blob_bytes(), all, "without any version nothing is kept");
    second.store(1, Ordering::SeqCst);
    assert_eq!((blob_bytes(), blob_bytes()), (all, 0), "the time of the last change is a version");
    second.store(2, Ordering::SeqCst);
    assert_eq!(blob_bytes(), all, "what was changed is read again");
}

/// The binary, with the server in its environment.
fn diptych(address: SocketAddr, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diptych"));
    command.stdin(Stdio::null()).args(words);
    command.env("AWS_ENDPOINT_URL", format!("http://{address}")).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_DEFAULT_REGION", "us-east-1");
    command.output().unwrap()
}

#[test]
fn commands_take_urls_and_the_usual_environment_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    synthetic::write_class_folders(&folder.path().join("images"), 6, 28, 3).unwrap();
    let server = S3Server::start();
    let ok = |words: &[&str]| {
        let output = diptych(server.address, words);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}\n{stdout}\n{stderr}");
        stdout.lines().last().unwrap_or_default().to_owned()
    };
    ok(&["import", &path("images"), &path("shards"), "--row-group-rows", "8"]);
    server.fill(&folder.path().join("shards"), "shapes");
    let url = format!("s3://{BUCKET}/shapes");

    let sets = |shards: &str| {
        let sets = [
            &format!("scan.shards=[{shards:?}]"),
            "prefetch.batch_rows=16",
            "prefetch.capacity_megabytes=2",
            "scan.lanes=2",
            "scan.shuffle_window_rows=32",
            "method.simclr.encoder.convnet.base_width=4",
            "train.report_every_steps=1",
            "train.max_steps=2",
        ];
        sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect::<Vec<_>>()
    };
    let run = |command: &str, shards: &str, rest: &[&str]| {
        let sets = sets(shards);
        let mut words = vec![command, "simclr_small"];
        words.extend(sets.iter().map(String::as_str));
        words.extend(rest);
        ok(&words)
    };
    let digest = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["digest"].clone();
    for table in [format!("{url}/*.parquet"), format!("{url}/")] {
        assert_eq!(ok(&["sql", &format!("SELECT count(image) AS n FROM '{table}'"), "--csv"]), "80", "{table}");
    }
    let (here, there) = (run("select", &path("shards"), &["--json"]), run("select", &url, &["--json"]));
    assert_eq!(digest(&here), digest(&there));
    assert!(digest(&here).as_str().is_some_and(|digest| digest.len() == 64));
    let steps = |shards: &str, name: &str| {
        run("train", shards, &["--run", &path(name)]);
        let metrics = fs::read_to_string(folder.path().join(name).join("metrics.jsonl")).unwrap();
        let steps = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        steps.map(|step| (step["batch_digest"].clone(), step["loss"].clone())).collect::<Vec<_>>()
    };
    let local = steps(&path("shards"), "local");
    assert_eq!((local.len(), &local), (2, &steps(&url, "remote")));
    run(
        "bench",
        &url,
        &[
            "--batches",
            "3",
            "--json",
            "--set",
            &format!("scan.cache.folder={}", path("cache")),
            "--set",
            "scan.cache.megabytes=16",
        ],
    );
    assert!(fs::read_dir(folder.path().join("cache")).unwrap().count() > 1, "the cache was used");

    let output =
        diptych(server.address, &["select", "simclr_small", "--set", &format!("scan.shards=[\"s3://{BUCKET}/no\"]")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("matches no file"));
}
