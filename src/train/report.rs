//! `report.html`: one page about a run, self-contained and readable offline.
//!
//! It is made from what lies in the run folder, so it can be made again at any time: `metrics.jsonl`, `pipeline.toml`,
//! `scores.json`, `views.png`, `environment.json`. What is missing is left out.

pub(crate) mod base64;
mod by_text;
mod chart;
pub(crate) mod matches;
mod sections;
mod steps_ahead;
mod tables;

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use self::{
    chart::{Chart, Series, number},
    sections::{SECTIONS, Spec},
    steps_ahead::Reported,
};
use crate::{
    Result,
    error::{Context, Error, Stage},
    evaluate::{matches::Matches, scores::Scores},
};

/// Name of the page in a run folder.
pub const REPORT_FILE: &str = "report.html";
/// Name of the captions with their best images in a run folder.
pub const MATCHES_FILE: &str = "matches.json";

/// Everything a page shows.
#[derive(Debug, Clone, Default)]
struct Page {
    name: String,
    metrics: Metrics,
    pipeline: Option<String>,
    scores: Option<Scores>,
    views: Option<Vec<u8>>,
    matches: Option<Matches>,
    environment: Vec<(String, String)>,
}

/// Makes `RUN/report.html` from what lies in the run folder, and says where it is.
///
/// # Errors
/// A file is there but cannot be read, or the page cannot be written.
pub fn write_report(run: &Path) -> Result<PathBuf> {
    let name = run.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned());
    let scores = match text(run, "scores.json")? {
        Some(json) => Some(serde_json::from_str(json.trim()).context(
            Stage::Evaluate,
            run.join("scores.json").display().to_string(),
            "are no scores of this version; run `diptych evaluate` again",
        )?),
        None => None,
    };
    let page = Page {
        name,
        metrics: Metrics::parse(&text(run, "metrics.jsonl")?.unwrap_or_default()),
        pipeline: text(run, "pipeline.toml")?,
        scores,
        views: bytes(run, "views.png")?,
        matches: text(run, MATCHES_FILE)?.and_then(|json| serde_json::from_str(&json).ok()),
        environment: environment(text(run, "environment.json")?.as_deref()),
    };
    let (path, temporary) = (run.join(REPORT_FILE), run.join(".report.html.tmp"));
    let write = || {
        std::fs::write(&temporary, page.html())?;
        std::fs::rename(&temporary, &path)
    };
    write().context(Stage::Train, path.display().to_string(), "cannot write the report")?;
    Ok(path)
}

fn bytes(run: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = run.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::at(Stage::Train, path.display().to_string(), "cannot be read").caused_by(error)),
    }
}

fn text(run: &Path, name: &str) -> Result<Option<String>> {
    Ok(bytes(run, name)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Text as HTML shows it, in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// What the run recorded of its machine, and what this process knows.
fn environment(recorded: Option<&str>) -> Vec<(String, String)> {
    let mut lines = vec![];
    if let Some(Value::Object(recorded)) = recorded.and_then(|json| serde_json::from_str(json).ok()) {
        for (key, value) in recorded {
            lines.push((key.replace('_', " "), value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)));
        }
        return lines;
    }
    let mut add = |key: &str, value: String| lines.push((key.to_owned(), value));
    add("diptych", env!("CARGO_PKG_VERSION").to_owned());
    add("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    add("processor", processor().unwrap_or_else(|| "unknown".to_owned()));
    add("threads", std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |n| n.to_string()));
    lines
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What the picture of a run's first batch shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    title: &'static str,
    note: &'static str,
    /// Of the style sheet: pixels of small images stay sharp, thin lines must not fall between them.
    class: &'static str,
}

impl Shown {
    /// By the pairing of the pipeline as resolved.
    fn of(pipeline: Option<&str>) -> Self {
        let table = pipeline.and_then(|text| toml::from_str::<toml::Table>(text).ok());
        let pair = table.as_ref().and_then(|table| table.get("pair")?.as_table()?.keys().next()).map(String::as_str);
        match pair {
            Some("context_future") => Self {
                class: "traces",
                title: "Windows of series",
                note: "Each panel is a window as training sees it, time from left to right, a lane per channel from the \
                       top. Windows of one series stand side by side. A channel has one scale over the whole sheet; the \
                       grey line is zero.",
            },
            Some("image_text") => Self {
                class: "views",
                title: "A batch",
                note: "Images as augmented, under each the text as the model reads it.",
            },
            Some("one_view") => Self { title: "Views", note: "Each is one image, augmented.", class: "views" },
            Some("two_views") | None => {
                Self { title: "View pairs", note: "Each pair is one image, augmented twice.", class: "views" }
            }
            Some(_) => Self { title: "Rows of a batch", note: "As training sees them.", class: "traces" },
        }
    }
}

/// `metrics.jsonl` by key.
#[derive(Debug, Clone, Default)]
struct Metrics {
    /// (step, value) of every numeric key; those of `scores` under their own names.
    series: BTreeMap<String, Vec<(f64, f64)>>,
    /// (step, words), each text once, at the first step that said it.
    warnings: Vec<(f64, String)>,
    last: BTreeMap<String, f64>,
    /// What the method reported, one entry per line that has any.
    method: Vec<Reported>,
}

/// Keys that count progress rather than measure something.
const COUNTERS: [&str; 3] = ["step", "epoch", "samples"];

impl Metrics {
    /// Lines that are no JSON objects are left out: the last one may be torn by a crash.
    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines() {
            let Ok(Value::Object(line)) = serde_json::from_str::<Value>(line) else { continue };
            let Some(step) = line.get("step").and_then(Value::as_f64) else { continue };
            let method = line.get("method").and_then(|method| serde_json::from_value(method.clone()).ok());
            let method: Option<BTreeMap<String, Vec<f64>>> = method;
            for (key, values) in method.iter().flatten() {
                // Only what a chart of its own knows: numbers by step ahead are drawn elsewhere.
                if let ([value], true) = (values.as_slice(), sections::is_known(key)) {
                    metrics.series.entry(key.clone()).or_default().push((step, *value));
                }
            }
            metrics.method.extend(method.map(|method| (step, method)));
            let nested = line.get("scores").and_then(Value::as_object);
            for (key, value) in line.iter().chain(nested.into_iter().flatten()) {
                match value {
                    Value::Number(x) => {
                        let Some(x) = x.as_f64().filter(|x| x.is_finite()) else { continue };
                        metrics.last.insert(key.clone(), x);
                        if !COUNTERS.contains(&key.as_str()) {
                            metrics.series.entry(key.clone()).or_default().push((step, x));
                        }
                    }
                    Value::String(words) if key.starts_with("warning") => metrics.warn(step, words),
                    Value::Array(several) if key.starts_with("warning") => {
                        several.iter().filter_map(Value::as_str).for_each(|words| metrics.warn(step, words));
                    }
                    _ => {}
                }
            }
        }
        metrics
    }

    fn warn(&mut self, step: f64, words: &str) {
        if !words.is_empty() && !self.warnings.iter().any(|(_, known)| known == words) {
            self.warnings.push((step, words.to_owned()));
        }
    }

    /// Takes the series of a chart out, so that what is left at the end is what no chart knows.
    fn chart(&mut self, spec: &Spec) -> String {
        let mut series = vec![];
        for &(key, name) in spec.keys {
            series.extend(self.series.remove(key).map(|points| Series { name: name.to_owned(), points }));
        }
        let (title, note) = (spec.title.to_owned(), spec.note.to_owned());
        Chart { title, note, series, along: "step", from_zero: spec.from_zero, wide: spec.wide }.figure()
    }

    /// Median of a key's values.
    fn median(&self, key: &str) -> Option<f64> {
        let mut values: Vec<f64> = self.series.get(key)?.iter().map(|p| p.1).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

impl Page {
    fn html(&self) -> String {
        let name = escape(&self.name);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Diptych: {name}</title>\n<style>\n{}</style></head><body><main>\n<h1>{name}</h1>\n{}{}",
            include_str!("report/report.css"),
            self.progress(),
            self.tiles()
        );
        for (step, words) in &self.metrics.warnings {
            let _ = writeln!(html, "<p class=\"warning\"><b>From step {}:</b> {}</p>", number(*step), escape(words));
        }
        if let Some(scores) = &self.scores {
            let _ = writeln!(html, "<h2>Scores beside their floors</h2>\n{}", tables::scores(scores));
        }
        if let Some(found) = &self.matches {
            let _ = writeln!(html, "<h2>Best images of captions</h2>\n{}", matches::section(found));
        }
        html.push_str(&self.charts());
        if let Some(png) = &self.views {
            let Shown { title, note, class } = Shown::of(self.pipeline.as_deref());
            let _ = writeln!(
                html,
                "<h2>{title}</h2>\n<img class=\"{class}\" alt=\"{title}\" src=\"data:image/png;base64,{}\">\
                 <p class=\"note\">{note}</p>",
                base64::encode(png)
            );
        }
        if let Some(pipeline) = &self.pipeline {
            let _ = writeln!(html, "<h2>Pipeline as resolved</h2>\n<pre>{}</pre>", escape(pipeline));
        }
        let _ = writeln!(html, "<h2>Environment</h2>\n{}\n</main></body></html>", tables::pairs(&self.environment));
        html
    }

    fn progress(&self) -> String {
        let last = |key: &str| self.metrics.last.get(key).copied();
        let mut parts = vec![];
        parts.extend(last("step").map(|x| format!("{} steps", number(x))));
        parts.extend(last("epoch").map(|x| format!("epoch {}", number(x + 1.0))));
        parts.extend(last("samples").map(|x| format!("{} samples seen", number(x))));
        format!("<p class=\"faint\">{}</p>\n", parts.join(" · "))
    }

    fn tiles(&self) -> String {
        let mut tiles: Vec<(String, String)> = vec![];
        if let Some(scores) = &self.scores {
            tiles.extend(by_text::tiles(scores));
            for (name, column) in [("linear probe", &scores.linear_probe), ("kNN, k chosen", &scores.knn)] {
                for (label, score) in column {
                    let against = score.against_best_floor.as_ref().map_or_else(String::new, |against| {
                        format!(", {:+.3} to {}", against.paired.difference, against.name.replace('_', " "))
                    });
                    tiles.push((format!("{:.3}", score.accuracy), format!("{name} of {label}{against}")));
                }
            }
        }
        tiles.extend(self.metrics.last.get("loss").map(|&x| (format!("{x:.4}"), "last loss".to_owned())));
        let median = |key: &str| self.metrics.median(key);
        tiles.extend(median("samples_per_second").map(|x| (number(x), "samples per second, median".to_owned())));
        let share = median("data_wait_share");
        tiles.extend(share.map(|x| (format!("{:.1} %", 100.0 * x), "of the time waiting for data, median".to_owned())));
        let tile = |(value, words): &(String, String)| {
            format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>", escape(value), escape(words))
        };
        format!("<div class=\"tiles\">{}</div>\n", tiles.iter().map(tile).collect::<String>())
    }

    fn charts(&self) -> String {
        let mut rest = self.metrics.clone();
        let mut html = String::new();
        let steps_ahead = steps_ahead::figures(&rest.method);
        for (at, (title, specs)) in SECTIONS.into_iter().enumerate() {
            // What a method predicts says more than how fast it was.
            if at == 1 {
                section(&mut html, "Steps ahead", &steps_ahead);
            }
            section(&mut html, title, &specs.iter().map(|spec| rest.chart(spec)).collect::<String>());
        }
        let further = rest.series.into_iter().map(|(key, points)| {
            let (title, note) = (key.replace('_', " "), String::new());
            let series = vec![Series { name: key, points }];
            Chart { title, note, series, along: "step", from_zero: false, wide: false }.figure()
        });
        section(&mut html, "Further metrics", &further.collect::<String>());
        html
    }
}

/// A heading with its figures, where there are any.
fn section(html: &mut String, title: &str, figures: &str) {
    if !figures.is_empty() {
        let _ = writeln!(html, "<h2>{title}</h2>\n<div class=\"grid2\">\n{figures}</div>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::scores::tests::scores;

    fn write_metrics(run: &Path, steps: u32) {
        let line = |step: u32| {
            let x = f64::from(step);
            format!(
                "{{\"step\":{step},\"epoch\":0,\"samples\":{},\"loss\":{},\"learning_rate\":{},\"samples_per_second\":1700.5,\
                 \"data_wait_share\":0.02,\"batch_digest\":\"ab\",\"gradient_norm\":1.5,\"positive_cosine\":0.9,\
                 \"negative_cosine\":0.1,\"own_number\":{x},\"method\":{{\"step_accuracies\":[0.5,0.25]}},\"warning\":{}}}\n",
                step * 256,
                5.0 / (1.0 + x / 100.0),
                1e-3 * x,
                if step > 2 { "\"spread <b>collapses</b>\"" } else { "null" }
            )
        };
        let mut text: String = (1..=steps).map(line).collect();
        text.push_str("{\"step\":5,\"epoch\":0,\"scores\":{\"knn_accuracy\":0.75}}\n{\"step\":6,\"los");
        std::fs::write(run.join("metrics.jsonl"), text).unwrap();
    }

    #[test]
    fn page_of_a_full_run_shows_everything_and_loads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write_metrics(folder.path(), 5);
        std::fs::write(folder.path().join("pipeline.toml"), "[scan]\nsql = \"SELECT 1 WHERE a < 2\"\n").unwrap();
        std::fs::write(folder.path().join("scores.json"), scores("label").to_json_line().unwrap()).unwrap();
        std::fs::write(folder.path().join("views.png"), [0x89, b'P', b'N', b'G']).unwrap();
        let html = std::fs::read_to_string(write_report(folder.path()).unwrap()).unwrap();
        for part in [
            "<b>Loss</b>",
            "<b>Learning rate</b>",
            "<b>Samples per second</b>",
            "<b>Share of time waiting for data</b>",
            "<b>Cosine</b>",
            "<b>own number</b>",
            "<b>Accuracy while training</b>",
            "<b>Accuracy k steps ahead</b>",
            "<b>0.875</b>",
            "linear probe",
            "behind raw pixels",
            "a &lt; 2",
            "base64,iVBORw==",
            "5 steps",
        ] {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["http:", "https:", "<script", "src=\"/", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5, "no temporary file is left");
    }

    #[test]
    fn the_picture_is_named_for_what_the_pairing_makes() {
        let title = |pair: &str| Shown::of(Some(&format!("seed = 1\n[pair.{pair}]\ncolumn = \"x\"\n"))).title;
        assert_eq!((title("context_future"), title("two_views")), ("Windows of series", "View pairs"));
        assert_eq!((title("one_view"), title("another")), ("Views", "Rows of a batch"));
        assert_eq!(Shown::of(None), Shown::of(Some("not TOML [")));
    }

    #[test]
    fn names_cannot_inject_html() {
        let attack = "<script>alert('x')</script>\"&";
        let folder = tempfile::tempdir().unwrap();
        write_metrics(folder.path(), 5);
        let mut hostile = scores(attack);
        hostile.recipe = attack.into();
        for score in hostile.linear_probe.values_mut() {
            score.protocol = attack.into();
            score.against_best_floor.as_mut().unwrap().name = attack.into();
        }
        std::fs::write(folder.path().join("scores.json"), hostile.to_json_line().unwrap()).unwrap();
        std::fs::write(folder.path().join("pipeline.toml"), attack).unwrap();
        std::fs::write(folder.path().join("environment.json"), "{\"host\":\"<script>1\",\"<script>\":2}").unwrap();
        let metric = "{\"step\":7,\"<script>\":1.0}\n";
        let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        std::fs::write(folder.path().join("metrics.jsonl"), format!("{metric}{metrics}")).unwrap();
        let html = std::fs::read_to_string(write_report(folder.path()).unwrap()).unwrap();
        assert!(!html.contains("<script") && !html.contains("<b>collapses"));
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
    }

    #[test]
    fn empty_run_folder_still_gives_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let html = std::fs::read_to_string(write_report(folder.path()).unwrap()).unwrap();
        assert!(html.contains("<h2>Environment</h2>") && !html.contains("<h2>Training</h2>"));
    }

    #[test]
    fn scores_that_cannot_be_read_are_an_error_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("scores.json"), "{").unwrap();
        assert!(write_report(folder.path()).unwrap_err().to_string().contains("run `diptych evaluate` again"));
    }
}
