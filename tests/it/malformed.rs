//! Shards that are no valid Parquet, or lie: an error that names the file, never a panic, never a hang.
use std::{fs, path::Path, sync::Arc};

use datafusion::parquet::{
    data_type::ByteArray,
    file::{
        metadata::{
            ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
        },
        statistics::Statistics,
    },
};
use diptych::{
    Error, Result,
    ingest::ImportSettings,
    scan::{ScanSettings, epoch::EpochPlan},
    schema::Schema,
    seed::{Draws, draws},
    select::{select::select, shards::ShardSet},
    synthetic::{SyntheticSettings, write_shards},
};

use crate::{
    confined::{confined, count},
    scan::{Data, plan, runtime, settings, try_run},
};

/// Name of the file that is broken; its neighbour is whole.
const BROKEN: &str = "broken.parquet";
const WHOLE: &str = "whole.parquet";
/// What a query over narrow columns reads.
const SQL: &str = "SELECT sample_id FROM shards WHERE width > 3 AND height < 1000 AND source <> 'x' AND label IS NOT NULL \
                   AND image_bytes > 0 AND image_xxh3 <> 1 AND format <> 'gif' AND split <> 'x' AND caption IS NULL";
/// Resident memory of the whole test: shards are 100 kB, and nothing that a file says of itself may change much about that.
const PEAK_MEGABYTES: u64 = 700;

/// Two shards as import writes them, 72 images in row groups of 16.
fn shards() -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let images =
        SyntheticSettings { train_per_class: 14, test_per_class: 1, side_pixels: 20, ..SyntheticSettings::default() };
    let import = ImportSettings { shard_rows: Some(72), row_group_rows: 16, ..ImportSettings::default() };
    let report = write_shards(folder.path(), &images, &import).unwrap();
    let read = |at: usize| fs::read(folder.path().join(&report.shards[at].file)).unwrap();
    [read(0), read(1)]
}

/// Opens, selects, streams an epoch; items of it.
fn end(folder: &Path) -> Result<u64> {
    let schema = Schema::named("image_text").unwrap();
    let (shards, selection) = runtime().block_on(async {
        let shards = ShardSet::open(&[folder.display().to_string()], &schema).await?;
        let (selection, _) = select(&shards, &schema, SQL).await?;
        Ok::<_, Error>((shards, selection))
    })?;
    let data = Data { folder: tempfile::tempdir().unwrap(), shards: Arc::new(shards) };
    let items = selection.items();
    let settings = ScanSettings { max_bad_share: 1.0, ..settings() };
    let epoch = EpochPlan { scan: settings, batch_rows: 8, ..plan(&data, &Arc::new(selection)) };
    let rows: u64 = try_run(&epoch, 0, 0, |batch| batch.num_rows() as u64)?.iter().sum();
    assert_eq!(rows, items / 8 * 8);
    Ok(items)
}

/// Puts `bytes` beside the whole shard and wants batches, or an error that names the file. Whether it was refused.
fn judge(case: &str, bytes: &[u8], whole: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(BROKEN), bytes).unwrap();
    fs::write(folder.path().join(WHOLE), whole).unwrap();
    match end(folder.path()) {
        Ok(_) => false,
        Err(error) => {
            let report = error.report();
            assert!(report.contains(BROKEN), "{case}: the error does not name the file: {report}");
            assert!(!report.contains("a bug in diptych"), "{case}: {report}");
            true
        }
    }
}

fn footer_start(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len() - 8..];
    bytes.len() - 8 - u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]) as usize
}

/// One to four changes of one kind of place: the whole file, its pages, its page index, its footer, its last bytes.
fn mutate(original: &[u8], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let footer = footer_start(&bytes);
    if draws.chance(0.15) {
        bytes.truncate(draws.below(original.len() as u64) as usize);
        return bytes;
    }
    let range = match draws.below(5) {
        0 => 0..bytes.len(),
        1 => 4..footer * 9 / 10,
        2 => footer * 9 / 10..footer,
        3 => footer..bytes.len() - 8,
        _ => bytes.len() - 12..bytes.len(),
    };
    for _ in 0..=draws.below(4) {
        let at = range.start + draws.below(range.len() as u64) as usize;
        match draws.below(5) {
            0 => bytes[at] = draws.next_u32() as u8,
            1 | 2 => bytes[at] ^= 1 << draws.below(8),
            3 => {
                let number: u32 = [0, 1, 0x7fff_ffff, 0xffff_ffff, 0x0fff_ffff][draws.below(5) as usize];
                bytes[at..].iter_mut().zip(number.to_le_bytes()).for_each(|(byte, value)| *byte = value);
            }
            // The length stays, so that what lies behind stays where it is named.
            _ => {
                let from = draws.below(original.len() as u64 - 16) as usize;
                let length = (bytes.len() - at).min(1 + draws.below(16) as usize);
                bytes[at..at + length].copy_from_slice(&original[from..from + length]);
            }
        }
    }
    bytes
}

#[test]
fn mutated_shards_are_refused_by_name_or_read() {
    let test = "malformed::mutated_shards_are_refused_by_name_or_read";
    confined(test, PEAK_MEGABYTES, |cases| {
        let [original, whole] = shards();
        let (mut refused, rounds) = (0, count("DIPTYCH_PARQUET_MUTATIONS", 300));
        for round in 0..rounds {
            let mut draws = draws(5, "parquet mutations", &[round]);
            let case = format!("round {round}");
            cases.now(&case);
            refused += u64::from(judge(&case, &mutate(&original, &mut draws), &whole));
        }
        println!("note: {refused} of {rounds} mutated shards were refused by name, the rest were read");
        assert!(refused * 2 > rounds, "only {refused} of {rounds} were refused: the mutations are too tame");
    });
}

/// A footer that says something else, well formed.
fn lie(original: &[u8], change: impl FnOnce(&mut Vec<RowGroupMetaData>)) -> Vec<u8> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::copy_from_slice(original)).unwrap();
    let mut groups = metadata.row_groups().to_vec();
    change(&mut groups);
    let lying: ParquetMetaData = metadata.into_builder().set_row_groups(groups).build();
    let mut file = original[..footer_start(original)].to_vec();
    ParquetMetaDataWriter::new(&mut file, &lying).finish().unwrap();
    file
}

/// Changes one column of the first row group.
fn lie_about_column(
    original: &[u8],
    name: &str,
    change: impl FnOnce(ColumnChunkMetaData) -> ColumnChunkMetaData,
) -> Vec<u8> {
    lie(original, |groups| {
        let group = groups.remove(0);
        let mut columns = group.columns().to_vec();
        let at = columns.iter().position(|column| column.column_path().string() == name).unwrap();
        let column = columns.remove(at);
        columns.insert(at, change(column));
        groups.insert(0, group.into_builder().set_column_metadata(columns).build().unwrap());
    })
}

#[test]
fn footers_that_lie_are_refused_by_name() {
    let [original, whole] = shards();
    let rows = |rows: i64| {
        lie(&original, |groups| {
            let group = groups.remove(0);
            groups.insert(0, group.into_builder().set_num_rows(rows).build().unwrap());
        })
    };
    let column =
        |name: &str, change: fn(ColumnChunkMetaData) -> ColumnChunkMetaData| lie_about_column(&original, name, change);
    for (case, bytes) in [
        ("fewer rows", rows(1)),
        ("more rows", rows(1 << 40)),
        ("rows below zero", rows(-3)),
        ("a row group less", lie(&original, |groups| drop(groups.pop()))),
        ("pages behind the file", column("width", |c| c.into_builder().set_data_page_offset(1 << 40).build().unwrap())),
        (
            "pages before the file",
            column("width", |c| {
                c.into_builder().set_data_page_offset(-5).set_dictionary_page_offset(None).build().unwrap()
            }),
        ),
        (
            "pages in the middle of others",
            column("image", |c| c.into_builder().set_data_page_offset(700).build().unwrap()),
        ),
        ("a chunk without length", column("label", |c| c.into_builder().set_total_compressed_size(0).build().unwrap())),
        (
            "a chunk of negative length",
            column("image", |c| c.into_builder().set_total_compressed_size(-1).build().unwrap()),
        ),
        (
            "an index behind the file",
            column("image", |c| c.into_builder().set_offset_index_offset(Some(1 << 40)).build().unwrap()),
        ),
        (
            "an index of negative length",
            column("image", |c| c.into_builder().set_offset_index_length(Some(-1)).build().unwrap()),
        ),
    ] {
        assert!(judge(case, &bytes, &whole), "{case}: was read");
    }
}

/// Statistics prune: what they leave out cannot be noticed without reading it. Nothing but the selection may suffer.
#[test]
fn statistics_that_lie_decide_what_is_kept_and_nothing_else() {
    let [original, whole] = shards();
    let lying = lie_about_column(&original, "width", |column| {
        let statistics = Statistics::int32(Some(900), Some(2), None, Some(0), false);
        column.into_builder().set_statistics(statistics).build().unwrap()
    });
    judge("a least value above the largest", &lying, &whole);
    // Of another type than the column's.
    let odd = lie_about_column(&original, "width", |column| {
        let statistics =
            Statistics::byte_array(Some(ByteArray::from("a")), Some(ByteArray::from("b")), None, Some(1 << 40), false);
        column.into_builder().set_statistics(statistics).build().unwrap()
    });
    judge("statistics of another type", &odd, &whole);
}

#[test]
fn every_truncation_and_every_wrong_magic_is_refused_by_name() {
    let [original, whole] = shards();
    let footer = footer_start(&original);
    let lengths = (0..12).chain([footer - 1, footer, footer + 1]).chain((1..40).map(|part| original.len() * part / 40));
    for length in lengths.chain(original.len() - 12..original.len()) {
        assert!(judge(&format!("{length} bytes"), &original[..length], &whole), "{length} bytes were read");
    }
    let end = original.len();
    for (case, at, magic) in [("encrypted", end - 4, *b"PARE"), ("no", end - 4, *b"ORC1"), ("empty", end - 8, [0; 4])] {
        let mut bytes = original.clone();
        bytes[at..at + 4].copy_from_slice(&magic);
        assert!(judge(case, &bytes, &whole), "{case} magic was read");
    }
    assert!(judge("a text file", b"sample_id,width\n1,2\n".repeat(40).as_slice(), &whole));
    assert!(!judge("the original", &original, &whole), "a whole shard was refused");
}
