//! Shards that one fingerprint stands for, and files that only their names would take for one another.
use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::Arc};

use diptych::{
    schema::Schema,
    select::{
        combine::{Combination, combine},
        difference::{Shown, difference},
        select::select,
        selection::Selection,
        selection_file::SavedSelection,
        shards::ShardSet,
    },
};

use crate::scan::{Content, Data, plan, run, runtime, write_shard};

/// The second shard of a set.
const ONLY_SECOND: &str = "SELECT sample_id FROM shards WHERE sample_id >= 1099511627776 AND caption <> 'image 3'";
const ONLY_FIRST: &str = "SELECT sample_id FROM shards WHERE sample_id < 1099511627776 AND caption <> 'image 3'";

fn open(patterns: &[&Path]) -> ShardSet {
    let patterns: Vec<String> = patterns.iter().map(|path| path.display().to_string()).collect();
    runtime().block_on(ShardSet::open(&patterns, &Schema::named("image_text").unwrap())).unwrap()
}

fn kept(set: &ShardSet, sql: &str) -> Selection {
    runtime().block_on(select(set, &Schema::named("image_text").unwrap(), sql)).unwrap().0
}

fn saved(folder: &Path, name: &str, selection: &Selection) -> SavedSelection {
    let file = folder.join(format!("{name}.selection"));
    selection.save(&file).unwrap();
    SavedSelection::read(&file).unwrap()
}

/// `a/x.parquet` and a copy of it, `b/x.parquet`.
fn twins() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).join("x.parquet");
    for name in ["a", "b"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    write_shard(&path("a"), &Content::new("x", 300, 200, 20));
    fs::copy(path("a"), path("b")).unwrap();
    folder
}

fn ordinals(selection: &Selection) -> BTreeSet<u32> {
    selection.shards().iter().map(|shard| shard.ordinal).chain(selection.groups.iter().map(|g| g.shard)).collect()
}

#[test]
fn a_selection_of_the_second_of_two_twins_is_loaded_as_that() {
    let folder = twins();
    let set = open(&[folder.path()]);
    assert_eq!(set.shards[0].fingerprint, set.shards[1].fingerprint);
    let (first, second) = (kept(&set, ONLY_FIRST), kept(&set, ONLY_SECOND));
    assert_ne!(first.digest(), second.digest());
    let file = saved(folder.path(), "second", &second);
    assert!(Shown::of(&file).shards[0].name.ends_with("b/x.parquet"));
    let loaded = file.clone().bind(&set).unwrap();
    assert_eq!((ordinals(&loaded), &loaded), (BTreeSet::from([1]), &second));

    // Alone it is still itself, and stays so when it is saved from there.
    let alone = file.clone().bind(&open(&[&folder.path().join("b")])).unwrap();
    assert_eq!((ordinals(&alone), alone.digest()), (BTreeSet::from([0]), second.digest()));
    let again = saved(folder.path(), "again", &alone).bind(&set).unwrap();
    assert_eq!(ordinals(&again), BTreeSet::from([1]));

    // The other one alone, or both in other places, might be anything.
    let only_first = open(&[&folder.path().join("a")]);
    let moved = tempfile::tempdir().unwrap();
    fs::create_dir(moved.path().join("b")).unwrap();
    for name in ["x", "y"] {
        fs::copy(folder.path().join("a/x.parquet"), moved.path().join(format!("b/{name}.parquet"))).unwrap();
    }
    for set in [&only_first, &open(&[moved.path()])] {
        let text = file.clone().bind(set).unwrap_err().to_string();
        assert!(text.contains("b/x.parquet may be any of") && text.contains("select again"), "{text}");
    }
}

#[test]
fn twins_are_neither_combined_nor_compared_as_one() {
    let folder = twins();
    let set = open(&[folder.path()]);
    let [first, second] = [("first", ONLY_FIRST), ("second", ONLY_SECOND)]
        .map(|(name, sql)| saved(folder.path(), name, &kept(&set, sql)));
    let differs = difference(&first, &second).unwrap();
    assert_eq!((differs.same, differs.in_both, differs.only_in_first, differs.only_in_second), (false, 0, 299, 299));
    assert_eq!(combine(&first, &second, Combination::Intersection).unwrap().selection().items(), 0);
    let both = combine(&first, &second, Combination::Union).unwrap().bind(&set).unwrap();
    assert_eq!((both.items(), ordinals(&both)), (598, BTreeSet::from([0, 1])));
    let wanted = kept(&set, "SELECT sample_id FROM shards WHERE caption <> 'image 3'");
    assert_eq!(both.digest(), wanted.digest());

    // Which of the twins a set of one had cannot be known.
    let alone = open(&[&folder.path().join("b")]);
    let alone = saved(folder.path(), "alone", &kept(&alone, "SELECT sample_id FROM shards"));
    let text = combine(&first, &alone, Combination::Union).unwrap_err().to_string();
    assert!(text.contains("a/x.parquet and ") && text.contains("b/x.parquet have one fingerprint"), "{text}");
    assert!(difference(&first, &alone).unwrap().notes[0].contains("one fingerprint"));
}

#[test]
fn sources_that_are_twins_give_their_own_rows() {
    let folder = twins();
    let set = Arc::new(open(&[&folder.path().join("a"), &folder.path().join("b")]));
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let own = open(&[&folder.path().join(name)]);
        let selection = kept(&own, "SELECT sample_id FROM shards WHERE label = 'class 3'");
        let digest = selection.digest();
        let bound = SavedSelection::of(selection, name.to_owned()).unwrap().bind(&set).unwrap();
        assert_eq!((ordinals(&bound), bound.digest()), (BTreeSet::from([at as u32]), digest), "{name}");
        let data = Data { folder: tempfile::tempdir().unwrap(), shards: Arc::clone(&set) };
        let seen = run(&plan(&data, &Arc::new(bound)), 0, 0).concat();
        assert!(!seen.is_empty() && seen.iter().all(|seen| seen.shard == at as u32), "{name}");
    }
}

#[test]
fn files_of_one_relative_name_in_two_folders_are_two_shards() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["w1", "w2"] {
        let home = folder.path().join(name);
        fs::create_dir(&home).unwrap();
        write_shard(&home.join("p.parquet"), &Content::new(name, 40, 200, 20));
        let words = ["select", "SELECT sample_id FROM shards", "--shards", "p.parquet", "--to", "p.selection"];
        let output = Command::new(env!("CARGO_BIN_EXE_diptych")).args(words).current_dir(&home).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let [one, two] =
        ["w1", "w2"].map(|name| SavedSelection::read(&folder.path().join(name).join("p.selection")).unwrap());
    assert!(Path::new(&one.selection().shards()[0].name).is_absolute());
    let both = combine(&one, &two, Combination::Union).unwrap_or_else(|error| panic!("{}", error.report()));
    let bound = both.bind(&open(&[&folder.path().join("w1"), &folder.path().join("w2")])).unwrap();
    assert_eq!((bound.items(), bound.shards().len()), (80, 2));
    assert_eq!(combine(&one, &two, Combination::Difference).unwrap().selection().items(), 40);
}
