//! How long until the first batch of a million rows, at the start of an epoch and near its end. Prints figures, decides nothing by them.
//!
//! `DIPTYCH_MILLION_ROWS=DIR` names a folder, filled with 1.2 GB of shards where it is empty; without it this test says that it was skipped.
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use diptych::{
    ingest::source::Source as _,
    scan::{ScanSettings, epoch::EpochPlan},
    schema::Schema,
    select::{select::select, shards::ShardSet},
    synthetic::SyntheticSettings,
};
use futures::TryStreamExt as _;

use crate::scan::{Content, Data, plan, runtime, settings, write_shard};

const SHARDS: usize = 10;
const ROWS: usize = 100_000;
const GROUP_ROWS: usize = 256;
/// Different images; rows repeat them.
const IMAGES: usize = 400;

fn fill(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let made = SyntheticSettings { train_per_class: IMAGES / 10, test_per_class: 1, ..SyntheticSettings::default() };
    let images: Vec<Vec<u8>> = (0..IMAGES).map(|image| made.read(image).unwrap()).collect();
    for shard in 0..SHARDS {
        let path = folder.join(format!("shard-{shard:03}.parquet"));
        if path.exists() {
            continue;
        }
        let images = (0..ROWS).map(|row| images[(row * 7 + shard) % IMAGES].clone()).collect();
        let temporary = folder.join(format!(".{shard}"));
        write_shard(&temporary, &Content { images, flipped: vec![], group_rows: GROUP_ROWS });
        fs::rename(temporary, path).unwrap();
    }
}

#[test]
fn first_batch_of_a_million_rows_at_the_start_and_near_the_end_of_an_epoch() {
    let Some(folder) = env::var_os("DIPTYCH_MILLION_ROWS") else {
        println!("skipped: DIPTYCH_MILLION_ROWS names no folder");
        return;
    };
    let folder = Path::new(&folder);
    fill(folder);
    for round in 0..3 {
        let schema = Schema::named("image_text").unwrap();
        let pattern = [folder.display().to_string()];
        let started = Instant::now();
        let shards = runtime().block_on(ShardSet::open(&pattern, &schema)).unwrap();
        let opened = started.elapsed();
        let (selection, _) = runtime().block_on(select(&shards, &schema, "SELECT sample_id FROM shards")).unwrap();
        let selected = started.elapsed();
        let data = Data { folder: tempfile::tempdir().unwrap(), shards: Arc::new(shards) };
        let defaults = ScanSettings { shuffle_window_rows: 8_192, shuffle_window_megabytes: 128, ..settings() };
        let epoch =
            EpochPlan { scan: defaults, batch_rows: 256, memory_bytes: 1 << 30, ..plan(&data, &Arc::new(selection)) };
        let batches = epoch.batches_per_epoch();
        let mut first = vec![];
        for at in [0, batches / 2, batches * 9 / 10] {
            let started = Instant::now();
            runtime().block_on(async {
                let mut stream = epoch.execute(1, at).unwrap();
                assert_eq!(stream.try_next().await.unwrap().unwrap().num_rows(), 256);
            });
            first.push(format!("{:.2} s", started.elapsed().as_secs_f64()));
        }
        println!(
            "round {round}: open {:.2} s, select {:.2} s, first batch at 0 %, 50 % and 90 % of {batches}: {}",
            opened.as_secs_f64(),
            (selected - opened).as_secs_f64(),
            first.join(", ")
        );
        let run = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_diptych"))
            .args(["train", "simclr_small", "--run"])
            .arg(run.path().join("run"))
            .args(["--set", &format!("scan.shards=[\"{}\"]", folder.display()), "--set", "train.max_steps=1"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        println!("round {round}: all of `diptych train` with one step {:.2} s", started.elapsed().as_secs_f64());
    }
}
