//! Rows of (entity, time, values) as series: `sql … --series ENTITY,TIME --to DIR`.
//!
//! The query's rows come sorted by entity and time, whatever their order in the files: the sort spills to temporary files. In
//! memory are one entity's numbers and times at a time; finished series wait in a nameless file in the destination,
//! because their random order is known only at the end.
use std::{borrow::Cow, ops::ControlFlow, path::Path, str::FromStr};

use datafusion::arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Float32Array, RecordBatch, StringViewArray},
    compute::cast,
    datatypes::{DataType, Float32Type, Float64Type, Schema as ArrowSchema, TimeUnit, TimestampMicrosecondType},
};
use tokio::runtime::Handle;

use super::sql::Query;
use crate::{
    error::{Context as _, Error, Result, Stage},
    ingest::{
        ImportReport, ImportSettings, MAX_IMAGE_BYTES, Modality, Progress, import_made,
        source::Source,
        spool::{Span, Spool},
    },
};

/// Texts that a query may give beside the values, one for each entity.
const GIVEN: [&str; 3] = ["label", "split", "group"];
const PLACE: &str = "--series";
const MICROSECONDS: f64 = 1e6;

/// Which columns of a query say whose a row is, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesBy {
    /// Rows of equal values are one series.
    pub entity: String,
    /// A moment, or seconds.
    pub time: String,
}

impl FromStr for SeriesBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split(',').map(str::trim).collect::<Vec<_>>()[..] {
            [entity, time] if !entity.is_empty() && !time.is_empty() && entity != time => {
                Ok(Self { entity: entity.to_owned(), time: time.to_owned() })
            }
            _ => Err(Error::at(Stage::CommandLine, PLACE, "name two columns, as in --series machine,measured_at")),
        }
    }
}

impl SeriesBy {
    /// What the query must be sorted by.
    pub fn sort_by(&self) -> [String; 2] {
        [self.entity.clone(), self.time.clone()]
    }
}

/// Runs a query that is sorted by entity and time, and writes its series into shards in `to`. Blocks: not to be called from
/// asynchronous code.
///
/// # Errors
/// The query's; columns that are neither numbers nor known words; rows without entity or time, two rows of an entity at one
/// time, two labels of one entity; a folder that holds something else; no row at all.
pub fn materialise_series(
    runtime: &Handle,
    query: &Query,
    by: &SeriesBy,
    to: &Path,
    settings: &ImportSettings,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<ImportReport> {
    let columns = Columns::of(&query.schema(), by)?;
    import_made(|| runtime.block_on(LongSeries::of(query, &columns, to)), to, settings, progress)
}

/// Where the query has what.
#[derive(Debug)]
struct Columns {
    entity: usize,
    time: usize,
    is_dated: bool,
    /// In the order of [`GIVEN`].
    given: [Option<usize>; 3],
    /// In the order of the query.
    values: Vec<usize>,
}

impl Columns {
    fn of(schema: &ArrowSchema, by: &SeriesBy) -> Result<Self> {
        let find = |name: &str| {
            schema.index_of(name).map_err(|_| {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let reason = format!("no column {name:?}; the query returns {}", names.join(", "));
                Error::at(Stage::CommandLine, PLACE, reason)
            })
        };
        let (entity, time) = (find(&by.entity)?, find(&by.time)?);
        let is_dated = match schema.field(time).data_type() {
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => true,
            number if number.is_numeric() => false,
            other => {
                let reason = format!(
                    "column {:?} is {}, and a time is a timestamp, a date or a number of seconds; write to_timestamp({0:?}) \
                     AS {0:?} in the query",
                    by.time,
                    other.to_string().to_lowercase()
                );
                return Err(Error::at(Stage::CommandLine, PLACE, reason));
            }
        };
        let given = GIVEN.map(|name| schema.index_of(name).ok().filter(|at| *at != entity && *at != time));
        let mut values = Vec::new();
        let mut problems = Vec::new();
        for (at, field) in schema.fields().iter().enumerate() {
            if at == entity || at == time || given.contains(&Some(at)) {
                continue;
            }
            match field.data_type().is_numeric() {
                true => values.push(at),
                false => {
                    let kind = field.data_type().to_string().to_lowercase();
                    problems.push(format!("column {:?} is {kind}, and values are numbers", field.name()));
                }
            }
        }
        if values.is_empty() && problems.is_empty() {
            problems.push("the query returns no column of values".to_owned());
        }
        if !problems.is_empty() {
            let remedy = "cast them, leave them out, or name them label, split or group";
            return Err(Error::at(Stage::CommandLine, PLACE, format!("{}; {remedy}", problems.join(", "))));
        }
        Ok(Self { entity, time, is_dated, given, values })
    }
}

/// One finished series.
#[derive(Debug)]
struct Series {
    entity: Box<str>,
    numbers: Span,
    given: [Option<Box<str>>; 3],
    start_time: Option<i64>,
    rate_hz: Option<f64>,
}

/// The one that is being read.
#[derive(Debug, Default)]
struct Open {
    entity: String,
    numbers: Vec<u8>,
    /// Microseconds.
    times: Vec<i64>,
    given: [Option<Box<str>>; 3],
}

/// Series that can be read by number.
#[derive(Debug)]
struct LongSeries {
    spool: Spool,
    series: Vec<Series>,
    channels: u32,
    is_dated: bool,
}

impl LongSeries {
    async fn of(query: &Query, columns: &Columns, to: &Path) -> Result<Self> {
        let (channels, is_dated) = (columns.values.len() as u32, columns.is_dated);
        let mut found = Self { spool: Spool::new(to)?, series: vec![], channels, is_dated };
        let mut open: Option<Open> = None;
        query
            .run(|batch| {
                found.take(&mut open, &batch, columns)?;
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        match open.take() {
            Some(last) => found.close(last)?,
            None => return Err(Error::at(Stage::Import, "the query", "returns no rows; nothing was written")),
        }
        found.spool.seal()?;
        Ok(found)
    }

    fn take(&mut self, open: &mut Option<Open>, batch: &RecordBatch, columns: &Columns) -> Result<()> {
        let entities = texts(batch.column(columns.entity))?;
        let times = microseconds(batch.column(columns.time), columns.is_dated)?;
        let mut given: [Option<StringViewArray>; 3] = Default::default();
        for (texts_of, at) in given.iter_mut().zip(columns.given) {
            *texts_of = at.map(|at| texts(batch.column(at))).transpose()?;
        }
        let values: Vec<Float32Array> =
            columns.values.iter().map(|at| floats(batch.column(*at))).collect::<Result<_>>()?;
        for (row, time) in times.into_iter().enumerate() {
            let (Some(time), true) = (time, entities.is_valid(row)) else {
                let reason = "a row has no entity or no time; leave such rows out with WHERE … IS NOT NULL";
                return Err(Error::at(Stage::Import, PLACE, reason));
            };
            let entity = entities.value(row);
            if open.as_ref().is_none_or(|open| open.entity != entity)
                && let Some(done) = open.replace(Open { entity: entity.to_owned(), ..Open::default() })
            {
                self.close(done)?;
            }
            let Some(series) = open.as_mut() else { return Err(Error::internal("a row of no series")) };
            let wrong = |problem: String| Err(Error::at(Stage::Import, format!("entity {entity:?}"), problem));
            if series.times.last().is_some_and(|last| *last >= time) {
                return wrong("has two rows at one time; take one of them, or avg(…) with GROUP BY".to_owned());
            }
            for (at, texts) in given.iter().enumerate() {
                let Some(texts) = texts.as_ref().filter(|texts| texts.is_valid(row)) else { continue };
                let text = texts.value(row);
                match &series.given[at] {
                    None => series.given[at] = Some(text.into()),
                    Some(before) if **before == *text => {}
                    Some(before) => {
                        let name = GIVEN[at];
                        return wrong(format!(
                            "has the {name} {before:?} and {text:?}; a series has one, so cut it by an entity of its own"
                        ));
                    }
                }
            }
            series.times.push(time);
            for values in &values {
                let value = if values.is_valid(row) { values.value(row) } else { f32::NAN };
                series.numbers.extend_from_slice(&value.to_le_bytes());
            }
            if series.numbers.len() as u64 > MAX_IMAGE_BYTES {
                return wrong(format!(
                    "has more than {MAX_IMAGE_BYTES} bytes of numbers; cut it, as by month, into entities"
                ));
            }
        }
        Ok(())
    }

    fn close(&mut self, done: Open) -> Result<()> {
        let Open { entity, numbers, times, given } = done;
        let mut distances: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let middle = distances.len() / 2;
        let median = (!distances.is_empty()).then(|| *distances.select_nth_unstable(middle).1);
        self.series.push(Series {
            entity: entity.into(),
            numbers: self.spool.append(&numbers)?,
            given,
            // Seconds from 0 on are no moment in time.
            start_time: times.first().copied().filter(|_| self.is_dated),
            rate_hz: median.map(|distance| MICROSECONDS / distance as f64),
        });
        Ok(())
    }
}

fn texts(column: &ArrayRef) -> Result<StringViewArray> {
    let reason = "a column cannot become text; cast it in the query";
    Ok(cast(column, &DataType::Utf8View).context(Stage::Import, PLACE, reason)?.as_string_view().clone())
}

fn floats(column: &ArrayRef) -> Result<Float32Array> {
    let reason = "a value cannot become a number of 32 bits; cast it in the query";
    Ok(cast(column, &DataType::Float32).context(Stage::Import, PLACE, reason)?.as_primitive::<Float32Type>().clone())
}

fn microseconds(column: &ArrayRef, is_dated: bool) -> Result<Vec<Option<i64>>> {
    let reason = "a time cannot be told in microseconds; cast it in the query";
    if is_dated {
        let moments =
            cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).context(Stage::Import, PLACE, reason)?;
        return Ok(moments.as_primitive::<TimestampMicrosecondType>().iter().collect());
    }
    let seconds = cast(column, &DataType::Float64).context(Stage::Import, PLACE, reason)?;
    let seconds = seconds.as_primitive::<Float64Type>().iter();
    let of_row = |seconds: Option<f64>| match seconds.filter(|x| x.is_finite()).map(|x| (x * MICROSECONDS).round()) {
        None => Ok(None),
        Some(x) if x.abs() < i64::MAX as f64 => Ok(Some(x as i64)),
        Some(_) => {
            let reason = "numbers of a time are seconds, and one is beyond all dates; divide what counts smaller units, or write \
                          to_timestamp_nanos(…) or to_timestamp_micros(…)";
            Err(Error::at(Stage::Import, PLACE, reason))
        }
    };
    seconds.map(of_row).collect()
}

impl Source for LongSeries {
    fn kind(&self) -> &'static str {
        "query"
    }

    fn modality(&self) -> Modality {
        Modality::Numbers { channels: self.channels }
    }

    fn images(&self) -> usize {
        self.series.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.series[image].entity)
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        self.series[image].numbers.bytes.into()
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        self.spool.read(self.series[image].numbers)
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        self.series[image].given[0].as_deref().map(Cow::Borrowed)
    }

    fn split(&self, image: usize) -> Option<&str> {
        self.series[image].given[1].as_deref()
    }

    fn group(&self, image: usize) -> Option<&str> {
        let series = &self.series[image];
        series.given[2].as_deref().or(Some(&series.entity))
    }

    fn start_time(&self, image: usize) -> Option<i64> {
        self.series[image].start_time
    }

    fn rate_hz(&self, image: usize) -> Option<f64> {
        self.series[image].rate_hz
    }
}
