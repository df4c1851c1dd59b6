//! The test images of other projects, collected to break decoders: through import, lint and training, as files on a disk.
//!
//! They are no part of this project. `DIPTYCH_HOSTILE=DIR` names a folder that holds them, at any depth; without it this test says
//! that it was skipped.
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
};

use datafusion::arrow::{
    array::{Array as _, AsArray as _},
    datatypes::UInt64Type,
};
use diptych::augment::image::{decode_check::decode_check, header::probe};
use serde_json::Value;

use crate::{
    cli,
    confined::confined,
    import,
    scan::{Content, write_shard},
};

/// Folders of which every file is an image, or meant to be taken for one.
const FOLDERS: [&str; 4] = ["test-images", "image/testdata", "Tests/images", "fixtures/images"];
const MAX_PIXELS: u64 = 100_000_000;
/// Resident memory of one command over all of them, on two threads and with 25 megapixels at most: 16 bytes per pixel and 64 MB,
/// twice, beside windows, queue and the binary.
const PEAK_MEGABYTES: u64 = 1_600;
const MAX_MEGAPIXELS: &str = "25";

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// Every file in a folder of test images, by name.
fn collected(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![];
    files(root, &mut all);
    let is_image = |path: &PathBuf| {
        let text = path.display().to_string();
        FOLDERS.iter().any(|folder| {
            text.contains(&format!("/{folder}/"))
                || (*folder == "image/testdata" && text.contains("/image/") && text.contains("/testdata/"))
        })
    };
    all.retain(is_image);
    all
}

/// Runs the binary, wants that it ends by itself and without a panic, and returns its last line of JSON.
fn diptych(words: &[&str]) -> Value {
    let output = cli::run(words);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.signal(), None, "{words:?} was ended by a signal: {err}");
    assert!(output.status.success(), "{words:?}: {}\n{out}\n{err}", output.status);
    assert!(!err.contains("panicked"), "{words:?}: {err}");
    println!("note: {:>5} MB at most after diptych {}", peak_of_children() >> 20, words[0]);
    cli::last_json(&out)
}

/// The most memory that any child so far had resident.
fn peak_of_children() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory of the right size, which the call fills; zeroed memory is a valid value too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_maxrss.cast_unsigned() << 10
}

/// Class and message by source or row, from a quarantine or lint table.
fn table(path: &Path, key: &str) -> Vec<(String, String, String)> {
    if !path.exists() {
        return vec![];
    }
    let batch = import::read(path);
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name).expect("a column");
        match column.as_string_opt::<i32>() {
            Some(text) => text.value(row).to_owned(),
            None if column.is_null(row) => String::new(),
            None => column.as_primitive::<UInt64Type>().value(row).to_string(),
        }
    };
    let is_image = |row: &usize| batch.column_by_name("kind").is_none() || text("kind", *row) == "image";
    let rows = (0..batch.num_rows()).filter(is_image);
    rows.map(|row| (text(key, row), text("class", row), text("message", row))).collect()
}

#[test]
fn hostile_images_go_through_import_lint_and_training_as_data() {
    let Some(root) = env::var_os("DIPTYCH_HOSTILE") else {
        println!("skipped: DIPTYCH_HOSTILE names no folder of hostile images");
        return;
    };
    let test = "hostile::hostile_images_go_through_import_lint_and_training_as_data";
    confined(test, PEAK_MEGABYTES, |cases| {
        let images = collected(Path::new(&root));
        println!("note: {} files", images.len());
        assert!(images.len() > 500, "DIPTYCH_HOSTILE holds {} such files", images.len());
        let work = tempfile::tempdir().expect("a folder");
        // Under names that let every one of them through, half in class folders, half in a flat one.
        let (classes, flat) = (work.path().join("classes"), work.path().join("flat"));
        let mut content = Content { images: vec![], flipped: vec![], group_rows: 64 };
        for (number, path) in images.iter().enumerate() {
            let name = path.file_name().expect("a name").to_string_lossy().replace('.', "_");
            let folder = if number % 2 == 0 { classes.join(format!("class{}", number % 5)) } else { flat.clone() };
            fs::create_dir_all(&folder).expect("a folder");
            fs::copy(path, folder.join(format!("{number:04}-{name}.jpg"))).expect("copied");
            content.images.push(fs::read(path).expect("read"));
        }
        let mut verdicts: BTreeMap<usize, String> = BTreeMap::new();
        for folder in [&classes, &flat] {
            cases.now(&format!("import {}", folder.display()));
            let to = work.path().join(format!("{}-shards", folder.file_name().expect("a name").display()));
            let report =
                diptych(&["import", folder.to_str().unwrap(), to.to_str().unwrap(), "--json", "--threads", "2"]);
            println!("note: import wrote {} and refused {}", report["rows"], report["quarantined"]);
            for (source, class, message) in table(&to.join("quarantine.parquet"), "source") {
                assert!(!class.is_empty() && message.split_whitespace().count() >= 2, "{source}: {class}: {message}");
                let name = source.rsplit('/').next().unwrap();
                verdicts.insert(name[..4].parse().expect("a number"), class);
            }
            let shards = format!("scan.shards=[\"{}\"]", to.display());
            stream(&shards, cases);
        }
        // And those that import refuses, written into a shard all the same.
        let shard = work.path().join("all.parquet");
        write_shard(&shard, &content);
        cases.now("lint");
        let linted = work.path().join("lint");
        let shards = format!("scan.shards=[\"{}\"]", shard.display());
        let report = diptych(&[
            "lint",
            "simclr_small",
            "--set",
            &shards,
            "--set",
            &format!("augment.max_megapixels={MAX_MEGAPIXELS}"),
            "--set",
            "augment.decode_threads=2",
            "--to",
            linted.to_str().unwrap(),
            "--json",
        ]);
        println!("note: lint found {}", report["findings"]);
        assert_eq!(report["statistics"]["rows"], images.len());
        let mut bad: BTreeMap<usize, String> = BTreeMap::new();
        let mut classes: BTreeMap<String, u64> = BTreeMap::new();
        for (row, class, message) in table(&linted.join("lint.parquet"), "row") {
            assert!(message.split_whitespace().count() >= 2, "row {row}: {class}: {message}");
            if class != "differs" {
                *classes.entry(class.clone()).or_default() += 1;
                bad.insert(row.parse().unwrap(), class);
            }
        }
        println!("note: of {} files lint refused {}: {classes:?}", images.len(), bad.len());
        let mut mismatches = vec![];
        for (number, path) in images.iter().enumerate() {
            let (of_import, of_lint) = (verdicts.get(&number), bad.get(&number));
            // Import takes up to 100 megapixels, lint 25 here.
            if of_import.is_some() != of_lint.is_some() && of_lint.is_none_or(|class| class != "too_many_pixels") {
                mismatches.push(format!("import says {of_import:?}, lint {of_lint:?}: {}", path.display()));
            }
        }
        assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
        stream(&shards, cases);
        lossless_partners(&images);
        let peak = peak_of_children() >> 20;
        println!("note: peak of all commands {peak} MB");
        assert!(peak <= PEAK_MEGABYTES, "a command took {peak} MB");
    });
}

/// 24 batches of 64 samples without a trainer, however many are bad.
fn stream(shards: &str, cases: &crate::confined::Cases) {
    cases.now(&format!("bench {shards}"));
    let report = diptych(&[
        "bench",
        "simclr_small",
        "--set",
        shards,
        "--set",
        "scan.max_bad_share=1.0",
        "--set",
        "scan.sql=\"SELECT sample_id FROM shards\"",
        "--set",
        &format!("augment.max_megapixels={MAX_MEGAPIXELS}"),
        "--set",
        "augment.decode_threads=2",
        "--set",
        "prefetch.batch_rows=64",
        "--set",
        "memory_megabytes=512",
        "--batches",
        "24",
        "--json",
    ]);
    println!("note: bench saw {} samples and replaced {} bad rows", report["samples"], report["bad_rows"]);
    assert!(report["samples"].as_u64().unwrap() > 0);
}

/// Go keeps the decoded pixels of some JPEGs and GIFs beside them as PNG. A palette of 256 colours may be far off in a pixel, a
/// quality of 50 as well; the mean over all is what a decoder decides.
fn lossless_partners(images: &[PathBuf]) {
    let pixels = |path: &Path| {
        let encoded = fs::read(path).expect("read");
        let header = probe(&encoded).expect("a header");
        let size = (header.width as usize, header.height as usize);
        decode_check(&encoded, MAX_PIXELS, usize::MAX, |checked| checked.resized(size.0, size.1))
            .map(|image| image.pixels().to_vec())
    };
    let mut compared = 0;
    for path in images.iter().filter(|path| path.display().to_string().contains("/src/image/testdata/")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_lossy = name.ends_with(".jpeg") || name.ends_with(".gif");
        // Of a file that is cut off Go's reference shows what came before; here that is bad data.
        if !is_lossy || name.contains("truncated") || name.starts_with("triangle") {
            continue;
        }
        let own = path.with_extension("png");
        let partner =
            if own.exists() { own } else { path.with_file_name(format!("{}.png", &name[..name.find('.').unwrap()])) };
        let partner = if name.contains("gray") { path.with_file_name("video-005.gray.png") } else { partner };
        // A picture of its own: 221212 and others have sizes that are all the same.
        let (ours, reference) = (pixels(path).expect("decodes"), pixels(&partner).expect("decodes"));
        assert_eq!(ours.len(), reference.len(), "{name}");
        let differences = ours.iter().zip(&reference).map(|(a, b)| u64::from(a.abs_diff(*b)));
        let mean = differences.sum::<u64>() as f64 / ours.len() as f64;
        println!("note: {name}: {mean:.2} levels from {}", partner.file_name().unwrap().display());
        // Files of quality 50 and of RGB that was compressed as such are that far from their originals in libjpeg as well.
        let is_coarse = name.ends_with(".gif") || name.contains("q50") || name.contains("rgb");
        let limit = if is_coarse { 12.0 } else { 4.0 };
        assert!(mean <= limit, "{name}: {mean:.2} levels on average");
        compared += 1;
    }
    assert!(compared >= 20, "only {compared} pairs");
}
