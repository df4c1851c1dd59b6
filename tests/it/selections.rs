//! Extra columns, tables, saved selections and what is made of them.
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Float32Type;
use diptych::{
    Result,
    batch::digested_items,
    scan::{World, epoch::EpochPlan, order::Order},
    schema::Schema,
    select::{
        combine::{Combination, combine},
        difference::{Shown, difference},
        report::SelectReport,
        select::{Query, select},
        selection::Selection,
        selection_file::SavedSelection,
        shards::ShardSet,
        tables::Tables,
    },
};

use crate::scan::{Content, Data, Seen, data, plan, run, runtime, small, try_run, write_shard};

fn schema() -> Schema {
    Schema::named("image_text").expect("embedded")
}

fn try_select(set: &ShardSet, sql: &str) -> Result<(Selection, SelectReport)> {
    runtime().block_on(select(set, &schema(), sql))
}

fn kept(set: &ShardSet, sql: &str) -> Selection {
    let (selection, _) = try_select(set, sql).unwrap_or_else(|error| panic!("{sql}: {}", error.report()));
    let verified = runtime().block_on(Query::new(set, &schema(), sql).verify(selection.digest()));
    verified.unwrap_or_else(|error| panic!("{sql}: {}", error.report()));
    selection
}

const REWRITTEN: &str =
    "SELECT sample_id, 'photo of ' || label AS label, CAST(sample_id % 1000 AS FLOAT) AS weight FROM shards
    UNION ALL SELECT sample_id, 'again', NULL FROM shards WHERE sample_id % 5 = 0";

/// What [`REWRITTEN`] says of an item: values of a repeated row are in their order.
fn expected(seen: &Seen) -> String {
    match (((u64::from(seen.shard) << 40) + seen.row) % 5, seen.occurrence) {
        (0, 0) => "again".to_owned(),
        _ => format!("photo of class {}", seen.row % 7),
    }
}

#[test]
fn extra_columns_reach_batches_and_override_those_of_the_shards() {
    let data = small();
    let (selection, report) = try_select(&data.shards, REWRITTEN).unwrap();
    assert_eq!(report.extra_columns, ["label Utf8", "weight Float32"]);
    assert!(report.extra_bytes > 900 * 10, "{report}");
    assert_eq!(selection.items(), 900 + 180);
    let plan = EpochPlan { drop_last: false, ..plan(&data, &Arc::new(selection)) };
    let whole = run(&plan, 1, 0);
    assert_eq!(whole.concat().len(), 1_080);
    assert!(whole.iter().flatten().all(|seen| seen.label == expected(seen)));
    assert_eq!(whole.iter().flatten().filter(|seen| seen.label == "again").count(), 180);
    let mut ranks: Vec<Seen> = vec![];
    for rank in 0..2 {
        ranks.extend(run(&EpochPlan { world: World { rank, size: 2 }, ..plan.clone() }, 1, 0).concat());
    }
    ranks.sort();
    assert_eq!(ranks, whole.concat());
    assert_eq!(run(&plan, 1, 7), whole[7..]);

    // In evaluation too, and columns that only the selection has come along unasked.
    let plan = EpochPlan { order: Order::Sequential, extra_columns: vec!["label".into()], ..plan };
    let batches = try_run(&plan, 0, 0, |batch| batch).unwrap();
    for batch in &batches {
        let weights = batch.column_by_name("weight").expect("a weight").as_primitive::<Float32Type>();
        let labels = batch.column_by_name("label").expect("labels").as_string::<i32>();
        for index in 0..batch.num_rows() {
            let is_again = labels.value(index) == "again";
            assert_eq!(weights.iter().nth(index).expect("a row").is_none(), is_again);
        }
        assert_eq!(batch.schema().fields().iter().filter(|field| field.name() == "label").count(), 1);
    }
}

#[test]
fn a_substitute_brings_its_own_values() {
    let mut contents = ["a", "b", "c"].map(|name| Content::new(name, 300, 200, 20));
    for row in (0..300).step_by(40) {
        contents[1].images[row][..3].copy_from_slice(b"BAD");
    }
    let data = data(&contents);
    let selection = kept(&data.shards, REWRITTEN);
    let plan = plan(&data, &Arc::new(selection));
    let seen = run(&plan, 0, 0).concat();
    assert!(seen.iter().any(|seen| seen.replaced));
    assert!(seen.iter().all(|seen| seen.label == expected(seen)));
}

#[test]
fn digests_cover_extra_values() {
    let data = small();
    let digest = |sql: &str| kept(&data.shards, sql).digest();
    let plain = digest("SELECT sample_id FROM shards");
    let one = digest("SELECT sample_id, 1 AS weight FROM shards");
    assert_ne!(plain, one);
    assert_eq!(one, digest("SELECT 1 AS weight, sample_id FROM shards ORDER BY sample_id DESC"));
    for other in [
        "SELECT sample_id, 1 AS wait FROM shards",
        "SELECT sample_id, CAST(1 AS DOUBLE) AS weight FROM shards",
        "SELECT sample_id, CASE WHEN sample_id = 7 THEN 2 ELSE 1 END AS weight FROM shards",
        "SELECT sample_id, CASE WHEN sample_id = 7 THEN NULL ELSE 1 END AS weight FROM shards",
    ] {
        assert_ne!(one, digest(other), "{other}");
    }
    let item_digests = |sql: &str| {
        let plan = plan(&data, &Arc::new(kept(&data.shards, sql)));
        let plan = EpochPlan { order: Order::Sequential, ..plan };
        let items = try_run(&plan, 0, 0, |batch| digested_items(&batch, &data.shards.shards).expect("items"));
        items.unwrap().concat()
    };
    let one = item_digests("SELECT sample_id, 1 AS weight FROM shards");
    let other = item_digests("SELECT sample_id, CASE WHEN sample_id = 7 THEN 2 ELSE 1 END AS weight FROM shards");
    let differing: Vec<u64> =
        one.iter().zip(&other).filter(|(one, other)| one != other).map(|(one, _)| one.key.row).collect();
    assert_eq!(differing, [7]);
    assert!(item_digests("SELECT sample_id FROM shards").iter().all(|item| item.extra.is_none()));
}

#[test]
fn selections_with_values_are_saved_and_loaded_under_other_ordinals() {
    let data = small();
    let selection = kept(&data.shards, REWRITTEN);
    let file = data.folder.path().join("kept.selection");
    selection.save(&file).unwrap();
    assert_eq!(Selection::load(&file, &data.shards).unwrap(), selection);

    let moved = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let from = data.folder.path().join(format!("shard-{number:03}.parquet"));
        fs::copy(from, moved.path().join(format!("{}.parquet", 9 - number))).unwrap();
    }
    let pattern = moved.path().display().to_string();
    let shards = Arc::new(runtime().block_on(ShardSet::open(&[pattern], &schema())).unwrap());
    let loaded = Selection::load(&file, &shards).unwrap();
    assert_eq!(loaded.digest(), selection.digest());
    let labels = |data: &Data, selection: Selection| {
        let plan = EpochPlan { drop_last: false, ..plan(data, &Arc::new(selection)) };
        let seen = run(&plan, 0, 0).concat();
        // Ordinals differ, everything else must not.
        seen.into_iter().map(|seen| (seen.position, seen.row, seen.label, seen.pixels)).collect::<Vec<_>>()
    };
    let renamed = Data { folder: moved, shards };
    assert_eq!(labels(&renamed, loaded), labels(&data, selection));

    let bytes = fs::read(&file).unwrap();
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, &damaged).unwrap();
        SavedSelection::read(&file).unwrap_err();
    }
}

fn saved(folder: &Path, name: &str, selection: &Selection) -> SavedSelection {
    let file = folder.join(format!("{name}.selection"));
    selection.save(&file).unwrap();
    SavedSelection::read(&file).unwrap()
}

#[test]
fn combined_selections_are_those_of_combined_queries() {
    let data = small();
    let [of_a, of_b] = ["sample_id % 2 = 0", "sample_id % 3 = 0 AND sample_id > 1099511627776"];
    let sql = |filter: &str| format!("SELECT sample_id, label || '!' AS label FROM shards WHERE {filter}");
    let folder = tempfile::tempdir().unwrap();
    let a = saved(folder.path(), "a", &kept(&data.shards, &sql(of_a)));
    let b = saved(folder.path(), "b", &kept(&data.shards, &sql(of_b)));
    // The shards are gone; the selections know enough.
    for (how, filter) in [
        (Combination::Union, format!("({of_a}) OR ({of_b})")),
        (Combination::Intersection, format!("({of_a}) AND ({of_b})")),
        (Combination::Difference, format!("({of_a}) AND NOT ({of_b})")),
    ] {
        let combined = combine(&a, &b, how).unwrap();
        let wanted = kept(&data.shards, &sql(&filter));
        assert_eq!(combined.selection().items(), wanted.items(), "{how:?}");
        assert_eq!(combined.selection().digest(), wanted.digest(), "{how:?}");
        let file = folder.path().join("combined.selection");
        combined.save(&file).unwrap();
        let loaded = Selection::load(&file, &data.shards).unwrap();
        assert_eq!(loaded.extra(), wanted.extra());
        assert!(loaded.provenance().sql.contains(how.name()));
    }
    let difference = difference(&a, &b).unwrap();
    let counted = (difference.in_both, difference.only_in_first, difference.only_in_second, difference.otherwise);
    let count = |filter: String| kept(&data.shards, &sql(&filter)).items();
    let both = count(format!("({of_a}) AND ({of_b})"));
    assert_eq!(counted, (both, 450 - both, count(of_b.to_owned()) - both, 0));
    assert!(!difference.same && difference.shards.len() == 3);
    let shown = Shown::of(&a);
    assert_eq!((shown.items, shown.of, shown.shards.len()), (450, 900, 3));
    assert_eq!(shown.shards.iter().map(|shard| shard.items).sum::<u64>(), 450);
}

#[test]
fn the_first_selections_repeats_and_values_are_kept() {
    let data = small();
    let folder = tempfile::tempdir().unwrap();
    let a = "SELECT sample_id, 'a' AS note FROM shards WHERE sample_id < 4
             UNION ALL SELECT sample_id, 'aa' FROM shards WHERE sample_id = 2";
    let b = "SELECT sample_id, 'b' AS note FROM shards WHERE sample_id BETWEEN 2 AND 5";
    let [a, b] = [("a", a), ("b", b)].map(|(name, sql)| saved(folder.path(), name, &kept(&data.shards, sql)));
    let notes = |how| {
        let combined = combine(&a, &b, how).unwrap();
        let values = combined.selection().extra().unwrap().group(0).unwrap().clone();
        let notes: Vec<String> = values.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        let rows: Vec<u32> = combined.selection().groups[0].iter_items().map(|(row, _)| row).collect();
        rows.into_iter().zip(notes).map(|(row, note)| format!("{row}{note}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(notes(Combination::Union), "0a 1a 2a 2aa 3a 4b 5b");
    assert_eq!(notes(Combination::Intersection), "2a 2aa 3a");
    assert_eq!(notes(Combination::Difference), "0a 1a");
    let differs = difference(&a, &b).unwrap();
    assert_eq!((differs.in_both, differs.otherwise), (2, 2), "another count, another value");
    assert!(difference(&a, &a).unwrap().same);
}

#[test]
fn what_cannot_be_combined_is_refused_or_told() {
    let data = small();
    let folder = tempfile::tempdir().unwrap();
    let plain = saved(folder.path(), "plain", &kept(&data.shards, "SELECT sample_id FROM shards"));
    let with = saved(folder.path(), "with", &kept(&data.shards, "SELECT sample_id, 1 AS weight FROM shards"));
    let text = combine(&plain, &with, Combination::Union).unwrap_err().to_string();
    assert!(text.contains("none and weight Int64"), "{text}");
    assert_eq!(combine(&with, &plain, Combination::Intersection).unwrap().selection().items(), 900);
    assert!(difference(&plain, &with).unwrap().notes.iter().any(|note| note.contains("weight")));

    // The same name, but other rows.
    write_shard(&data.folder.path().join("shard-001.parquet"), &Content::new("new", 300, 200, 20));
    let pattern = format!("{}/*.parquet", data.folder.path().display());
    let again = runtime().block_on(ShardSet::open(&[pattern], &schema())).unwrap();
    let later = saved(folder.path(), "later", &kept(&again, "SELECT sample_id FROM shards"));
    let text = combine(&plain, &later, Combination::Difference).unwrap_err().to_string();
    assert!(text.contains("shard-001.parquet was written again"), "{text}");
    let difference = difference(&plain, &later).unwrap();
    assert_eq!((difference.in_both, difference.only_in_first, difference.only_in_second), (600, 300, 300));
    assert!(difference.notes[0].contains("different samples"), "{:?}", difference.notes);
    let text = plain.clone().bind(&again).unwrap_err().to_string();
    assert!(text.contains("shard-001.parquet has changed since"), "{text}");
}

fn with_tables<'a>(set: &'a ShardSet, schema: &'a Schema, sql: &'a str, folder: &Path) -> Query<'a> {
    let files = [("scores", "scores.csv"), ("captions", "captions.jsonl")];
    let named = files.map(|(name, file)| (name.to_owned(), folder.join(file).display().to_string()));
    Query { tables: Tables::open(&BTreeMap::from(named)).expect("tables"), ..Query::new(set, schema, sql) }
}

#[test]
fn joins_windows_dedup_thresholds_and_weighted_samples_are_selections() {
    let data = small();
    let folder = tempfile::tempdir().unwrap();
    let mut scores = "source,score,phash\n".to_owned();
    let mut captions = String::new();
    for row in 0..300 {
        scores.push_str(&format!("{row}.png,{}.{:03},{}\n", row % 4, row * 7 % 1_000, row / 3));
        captions.push_str(&format!("{{\"source\": \"{row}.png\", \"text\": \"caption {}\"}}\n", row % 50));
    }
    fs::write(folder.path().join("scores.csv"), scores).unwrap();
    fs::write(folder.path().join("captions.jsonl"), captions).unwrap();
    let schema = schema();
    for (sql, items) in [
        // The better 30 % by an exact threshold: all rows that tie with it are kept.
        (
            "SELECT sample_id FROM shards JOIN scores USING (source) WHERE score >=
                (SELECT percentile_cont(0.7) WITHIN GROUP (ORDER BY score) FROM scores)",
            270,
        ),
        ("SELECT sample_id, text AS caption FROM shards JOIN captions USING (source)", 900),
        (
            "SELECT DISTINCT ON (phash) sample_id, score FROM shards JOIN scores USING (source)
             ORDER BY phash, score DESC, sample_id",
            100,
        ),
        (
            "SELECT sample_id, text AS caption FROM (
                SELECT sample_id, text, row_number() OVER (PARTITION BY text ORDER BY sample_id) AS n
                FROM shards JOIN captions USING (source)) WHERE n <= 2",
            100,
        ),
        (
            "SELECT sample_id, score FROM shards JOIN scores USING (source)
             ORDER BY score DESC, sample_id, source, phash LIMIT 50",
            50,
        ),
        ("SELECT sample_id FROM shards LEFT ANTI JOIN scores ON shards.source = scores.source", 0),
    ] {
        let query = with_tables(&data.shards, &schema, sql, folder.path());
        let (selection, report) =
            runtime().block_on(query.select()).unwrap_or_else(|error| panic!("{sql}: {}", error.report()));
        assert_eq!(selection.items(), items, "{sql}");
        runtime().block_on(query.verify(selection.digest())).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(report.tables.len(), 2);
        assert_eq!(selection.provenance().tables, query.tables.provenance());
    }
    let weighted =
        "SELECT sample_id FROM shards JOIN scores USING (source) WHERE sample_uniform(sample_id, 7) < score / 4";
    let query = with_tables(&data.shards, &schema, weighted, folder.path());
    let (selection, _) = runtime().block_on(query.select()).unwrap();
    assert!((350..550).contains(&selection.items()), "{}", selection.items());

    for (sql, part) in [
        ("SELECT sample_id FROM shards JOIN score USING (source)", "captions, scores"),
        (
            "SELECT DISTINCT ON (phash) sample_id FROM shards JOIN scores USING (source) ORDER BY phash, score",
            "DISTINCT ON",
        ),
        ("SELECT sample_id, score FROM shards JOIN scores USING (source) ORDER BY sample_id LIMIT 5", "score LIMIT"),
    ] {
        let query = with_tables(&data.shards, &schema, sql, folder.path());
        let text = runtime().block_on(query.select()).expect_err(sql).report();
        assert!(text.contains(part), "{sql}: {text}");
    }
}

/// Every name that may not decide a selection, with a word of the form that may.
#[test]
fn every_name_that_is_not_reproducible_is_told_with_the_form_that_is() {
    let data = small();
    let inner = |call: &str| format!("SELECT sample_id FROM shards WHERE width > (SELECT {call} FROM shards)");
    let grouped = |call: &str| format!("SELECT min(sample_id) AS sample_id, {call} AS x FROM shards GROUP BY label");
    let over = |call: &str| format!("SELECT sample_id FROM (SELECT sample_id, {call} AS n FROM shards) WHERE n = 1");
    let refused = [
        (inner("approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY width)"), "`percentile_cont(0.9) WITHIN GROUP"),
        (inner("approx_percentile_cont_with_weight(1, 0.5) WITHIN GROUP (ORDER BY width)"), "use `percentile_cont`"),
        (inner("approx_median(width)"), "use `median`"),
        (inner("approx_distinct(label)"), "`count(DISTINCT …)`"),
        ("SELECT sample_id FROM shards WHERE random() < 0.5".into(), "sample_uniform(sample_id, seed)"),
        ("SELECT sample_id FROM shards ORDER BY random(), sample_id LIMIT 5".into(), "sample_uniform(sample_id, seed)"),
        ("SELECT sample_id, uuid() AS x FROM shards".into(), "`uuid()`"),
        ("SELECT sample_id FROM shards WHERE now() > '2020-01-01'".into(), "as a literal"),
        ("SELECT sample_id, CAST(current_date() AS VARCHAR) AS x FROM shards".into(), "as a literal"),
        ("SELECT sample_id FROM shards LIMIT 5".into(), "ORDER BY sample_id LIMIT"),
        ("SELECT sample_id FROM shards ORDER BY label OFFSET 5".into(), "ORDER BY …, sample_id LIMIT"),
        (grouped("first_value(caption)"), "`first_value(… ORDER BY …, sample_id)`"),
        (grouped("last_value(caption)"), "`last_value(… ORDER BY …, sample_id)`"),
        (grouped("nth_value(caption, 2)"), "`nth_value(… ORDER BY …, sample_id)`"),
        (grouped("any_value(caption)"), "`any_value(… ORDER BY …, sample_id)`"),
        (grouped("string_agg(caption, ',')"), "`string_agg(… ORDER BY …, sample_id)`"),
        (grouped("array_length(array_agg(caption))"), "`array_agg(… ORDER BY …, sample_id)`"),
        (over("row_number() OVER (ORDER BY label)"), "`row_number OVER (…)`"),
        (over("ntile(4) OVER (ORDER BY label)"), "`ntile OVER (…)`"),
        (over("lag(width) OVER (ORDER BY label)"), "`lag OVER (…)`"),
        (over("lead(width) OVER (ORDER BY label)"), "`lead OVER (…)`"),
        (over("first_value(width) OVER (PARTITION BY label ORDER BY split)"), "`first_value OVER (…)`"),
        ("SELECT DISTINCT ON (label) sample_id FROM shards ORDER BY label".into(), "ORDER BY with sample_id"),
        ("SELECT sample_id FROM shards TABLESAMPLE (10 PERCENT)".into(), "sample_uniform(sample_id, 0)"),
    ];
    for (sql, part) in refused {
        let text = match try_select(&data.shards, &sql) {
            Ok((selection, _)) => panic!("{sql} was accepted, {} items", selection.items()),
            Err(error) => error.report(),
        };
        assert!(text.contains(part), "{sql}: {text}");
    }
    let warned = [
        ("sum(CAST(width AS DOUBLE))", "DECIMAL"),
        ("avg(CAST(width AS FLOAT))", "DECIMAL"),
        ("stddev(width)", "round(stddev"),
        ("stddev_pop(width)", "round(stddev_pop"),
        ("var_samp(width)", "round(var"),
        ("var_pop(width)", "round(var_pop"),
        ("corr(width, height)", "round(corr"),
        ("covar_samp(width, height)", "round(covar_samp"),
        ("covar_pop(width, height)", "round(covar_pop"),
        ("regr_slope(width, height)", "round(regr_slope"),
    ];
    for (call, part) in warned {
        let (_, report) = try_select(&data.shards, &grouped(call)).unwrap_or_else(|e| panic!("{call}: {}", e.report()));
        assert!(report.warnings.iter().any(|warning| warning.text.contains(part)), "{call}: {report}");
    }
    let exact = [
        inner("percentile_cont(0.5) WITHIN GROUP (ORDER BY width)"),
        inner("median(width)"),
        inner("count(DISTINCT label)"),
        grouped("sum(width)"),
        grouped("sum(CAST(width AS DECIMAL(18, 6)))"),
        grouped("first_value(caption ORDER BY width, sample_id)"),
        grouped("max(caption)"),
        over("row_number() OVER (ORDER BY label, sample_id)"),
        over("rank() OVER (ORDER BY label)"),
        over("first_value(height) OVER (PARTITION BY height ORDER BY split)"),
    ];
    let mut digests = HashSet::new();
    for sql in exact {
        let (selection, report) = try_select(&data.shards, &sql).unwrap_or_else(|e| panic!("{sql}: {}", e.report()));
        assert!(report.warnings.iter().all(|warning| warning.place != "the query"), "{sql}: {report}");
        digests.insert(selection.digest());
    }
    assert!(digests.len() > 3);
}
