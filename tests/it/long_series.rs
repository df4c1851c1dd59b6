//! Rows of (entity, time, values) into shards of series, by SQL through the binary.
use std::fs;

use datafusion::arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{Float32Type, Float64Type, TimestampMicrosecondType, UInt32Type, UInt64Type},
};

use super::{
    home::Home,
    import::{read, shards, texts},
};

struct Workshop(Home);

impl Workshop {
    fn new(table: &str) -> Self {
        let home = Home::new();
        fs::write(home.path("readings.csv"), table).expect("a table");
        Self(home)
    }

    fn run(&self, words: &[&str]) -> (bool, String) {
        let output = self.0.run(words);
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).expect("text"))
    }

    /// What the query makes, in one row per entity.
    fn series(&self, query: &str, by: &str, more: &[&str]) -> RecordBatch {
        let words = [&["sql", query, "--series", by, "--to", "to", "--keep-order"][..], more].concat();
        let (is_done, told) = self.run(&words);
        assert!(is_done, "{told}");
        assert!(told.contains("of series, from query"), "{told}");
        read(&shards(&self.0.path("to"))[0])
    }

    fn refusal(&self, query: &str, by: &str) -> String {
        let (is_done, told) = self.run(&["sql", query, "--series", by, "--to", "to"]);
        assert!(!is_done && !self.0.path("to/diptych.json").exists(), "{told}");
        told
    }
}

/// Two machines, interleaved and in no order; b has a reading less, and a gap of time.
const READINGS: &str = "machine,at,temperature,pressure,label\n\
    b,2024-05-01T00:00:04Z,21.5,8,bad\n\
    a,2024-05-01T00:00:03Z,4,1,good\n\
    a,2024-05-01T00:00:01Z,2,,good\n\
    b,2024-05-01T00:00:02Z,20.5,9,\n\
    a,2024-05-01T00:00:02Z,3,2.5,good\n\
    b,2024-05-01T00:00:09Z,22.5,7,bad\n\
    a,2024-05-01T00:00:00Z,1,0,good\n";
const QUERY: &str = "SELECT machine, to_timestamp(at) AS at, temperature, pressure, label FROM 'readings.csv'";

fn samples(batch: &RecordBatch, row: usize) -> Vec<f32> {
    let lists = batch.column_by_name("samples").expect("samples").as_list::<i32>();
    lists.value(row).as_primitive::<Float32Type>().values().to_vec()
}

#[test]
fn rows_of_an_entity_become_one_series_in_the_order_of_time_and_columns_its_channels() {
    let workshop = Workshop::new(READINGS);
    let batch = workshop.series(QUERY, "machine,at", &[]);
    assert_eq!(texts(&batch, "source"), [Some("a".to_owned()), Some("b".to_owned())]);
    assert_eq!(texts(&batch, "group"), texts(&batch, "source"), "the entity is the group where none is given");
    assert_eq!(texts(&batch, "label"), [Some("good".to_owned()), Some("bad".to_owned())]);
    let first = samples(&batch, 0);
    assert_eq!((&first[..3], &first[4..]), (&[1.0, 0.0, 2.0][..], &[3.0, 2.5, 4.0, 1.0][..]));
    assert!(first[3].is_nan(), "NULL is a missing value");
    // A gap makes no step up.
    assert_eq!(samples(&batch, 1), [20.5, 9.0, 21.5, 8.0, 22.5, 7.0]);
    let number = |name: &str| batch.column_by_name(name).expect("a column").clone();
    assert_eq!(number("channels").as_primitive::<UInt32Type>().values(), &[2, 2]);
    assert_eq!(number("steps").as_primitive::<UInt64Type>().values(), &[4, 3]);
    // The median of 2 s and 5 s is the greater one.
    assert_eq!(number("rate_hz").as_primitive::<Float64Type>().values(), &[1.0, 0.2]);
    let starts = number("start_time");
    let starts = starts.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(starts.value(1) - starts.value(0), 2_000_000);
}

#[test]
fn many_entities_in_little_memory_are_whole_and_times_may_be_seconds() {
    let mut table = "who;t;v\n".replace(';', ",");
    // 2,000 readings of 50 entities: reading n is of entity n * 7 mod 50, at a time that falls.
    for n in 0..2_000 {
        table.push_str(&format!("{},{},{}\n", n * 7 % 50, f64::from(2_000 - n) / 10.0, n));
    }
    let workshop = Workshop::new(&table);
    let batch = workshop.series("SELECT who, t, v FROM 'readings.csv'", "who,t", &["--memory-megabytes", "32"]);
    assert_eq!(batch.num_rows(), 50);
    for (row, who) in texts(&batch, "source").into_iter().enumerate() {
        let who: u32 = who.expect("an entity").parse().expect("a number");
        let expected: Vec<f32> = (0..2_000).rev().filter(|n| n * 7 % 50 == who).map(|n| n as f32).collect();
        assert_eq!(samples(&batch, row), expected, "entity {who}");
    }
    assert_eq!(batch.column_by_name("start_time").expect("a column").null_count(), 50);
    let rates = batch.column_by_name("rate_hz").expect("rates").as_primitive::<Float64Type>();
    assert!(rates.values().iter().all(|rate| (rate - 0.2).abs() < 1e-9), "{rates:?}");
}

#[test]
fn rows_that_make_no_series_are_told_with_a_remedy() {
    let workshop = Workshop::new(READINGS);
    let cases = [
        (QUERY.to_owned(), "machine", "name two columns"),
        (QUERY.to_owned(), "engine,at", "no column \"engine\""),
        (format!("SELECT *, 'x' AS word FROM ({QUERY})"), "machine,at", "column \"word\" is utf8"),
        (format!("SELECT machine, at FROM ({QUERY})"), "machine,at", "no column of values"),
        (
            "SELECT machine, CAST(at AS VARCHAR) AS at, pressure FROM 'readings.csv'".to_owned(),
            "machine,at",
            "to_timestamp(\"at\") AS \"at\"",
        ),
        (
            format!("SELECT machine, date_trunc('minute', at) AS at, pressure FROM ({QUERY})"),
            "machine,at",
            "two rows at one time",
        ),
        (
            format!("SELECT NULLIF(machine, 'b') AS machine, at, pressure FROM ({QUERY})"),
            "machine,at",
            "no entity or no time",
        ),
        (
            "SELECT machine, 1700000000000000000 AS at, pressure FROM 'readings.csv'".to_owned(),
            "machine,at",
            "numbers of a time are seconds",
        ),
        (
            format!(
                "SELECT 1 AS machine, at, avg(pressure) AS pressure, min(label) AS label FROM ({QUERY}) WHERE pressure > 0 GROUP BY at"
            ),
            "machine,at",
            "has the label",
        ),
        (format!("SELECT * FROM ({QUERY}) WHERE machine = 'c'"), "machine,at", "returns no rows"),
    ];
    for (query, by, part) in cases {
        let told = workshop.refusal(&query, by);
        assert!(told.contains(part), "{part} is not in {told}");
    }
}
