//! `lint.html`: what a lint saw, on one page without any other file.
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use super::lint::place;
use crate::{
    error::{Context as _, Result, Stage},
    lint::{Lint, Thumbnail, histogram::Histogram, statistics::commonest},
    train::report::{base64, escape},
};

/// Name of the page in the folder of `--to`.
pub const PAGE_FILE: &str = "lint.html";
/// Findings of each kind and class that the page lists; the table has all that were kept.
const LISTED: usize = 20;
/// Values of a column that the page lists.
const VALUES_LISTED: usize = 30;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2126; --faint: #68707a; --line: #d9dde2; --bar: #3b6ea8; --ground: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --faint: #98a1ab; --line: #363c44; --bar: #6ea3dc; --ground: #16191d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } .faint { color: var(--faint); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1.2rem 2rem; }
.images { display: flex; flex-wrap: wrap; gap: .8rem; } figure { margin: 0; width: 116px; font-size: 11px; line-height: 1.3; color: var(--faint); overflow-wrap: anywhere; }
figure img { display: block; max-width: 112px; max-height: 112px; margin-bottom: .2rem; } figure .box { height: 114px; display: flex; align-items: end; }
.pair { display: flex; gap: 2px; border: 1px solid var(--line); padding: .4rem; } .bars { display: grid; grid-template-columns: auto 1fr auto; gap: 1px .5rem; font-size: 12px; align-items: center; }
.bars i { display: block; height: 11px; background: var(--bar); min-width: 1px; } .bars span { font-variant-numeric: tabular-nums; text-align: right; color: var(--faint); }
";

/// Writes the page.
///
/// # Errors
/// The file cannot be written.
pub fn write(folder: &Path, patterns: &[String], samples: &str, linted: &Lint) -> Result<()> {
    let (path, temporary) = (folder.join(PAGE_FILE), folder.join(format!(".{PAGE_FILE}.tmp")));
    fs::write(&temporary, page(patterns, samples, linted)).and_then(|()| fs::rename(&temporary, &path)).context(
        Stage::Lint,
        path.display().to_string(),
        "cannot be written; check permissions and free space",
    )
}

fn page(patterns: &[String], samples: &str, linted: &Lint) -> String {
    let statistics = &linted.statistics;
    let title = escape(&patterns.join(", "));
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>lint: {title}</title><style>{STYLE}</style>\n\
         <h1>{title}</h1><p class=\"faint\">{} rows in {} shards, {:.1} MB of {samples}; {} shards could not be read. Made by diptych {}.</p>\n",
        statistics.rows,
        linted.shards,
        statistics.image_bytes as f64 / 1e6,
        linted.unread_shards,
        env!("CARGO_PKG_VERSION"),
    );
    html.push_str("<h2>Findings</h2>");
    html.push_str(&counts(linted));
    if !linted.differences.is_empty() {
        let items = linted.differences.iter().map(|text| format!("<li>{}</li>", escape(text)));
        let _ = write!(html, "<ul>{}</ul>", items.collect::<String>());
    }
    html.push_str("<h2>Sizes</h2><div class=\"grid\">");
    statistics.histograms.iter().filter(|h| h.total() > 0).for_each(|h| html.push_str(&bars(h)));
    html.push_str("</div><h2>Values</h2><div class=\"grid\">");
    let nulls: BTreeMap<String, u64> = statistics.nulls.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    for (name, counts) in [
        ("format", &statistics.formats),
        ("split", &statistics.splits),
        ("label", &statistics.labels),
        ("rows without a value, by column", &nulls),
    ] {
        html.push_str(&values(name, counts));
    }
    html.push_str("</div>");
    if !linted.sample.is_empty() {
        html.push_str("<h2>A random sample</h2><div class=\"images\">");
        linted.sample.iter().for_each(|thumbnail| html.push_str(&figure(thumbnail)));
        html.push_str("</div>");
    }
    if !linted.pairs.is_empty() {
        html.push_str("<h2>Near duplicates</h2><div class=\"images\">");
        for [first, second] in &linted.pairs {
            let _ = write!(html, "<div class=\"pair\">{}{}</div>", figure(first), figure(second));
        }
        html.push_str("</div>");
    }
    html.push_str(&listed(linted));
    html
}

fn counts(linted: &Lint) -> String {
    if linted.findings.counts.is_empty() {
        return "<p>None.</p>".to_owned();
    }
    let mut html = String::from("<table><tr><th>kind<th>class<th class=\"n\">count<th>the first one</tr>");
    for (kind, classes) in &linted.findings.counts {
        for (class, count) in classes {
            let first = linted.findings.first(*kind, class);
            let example = first.map(|finding| format!("{}: {}", place(finding), finding.message)).unwrap_or_default();
            let _ = write!(
                html,
                "<tr><td>{}<td>{class}<td class=\"n\">{count}<td class=\"faint\">{}</tr>",
                kind.name(),
                escape(&example)
            );
        }
    }
    html.push_str("</table>");
    html
}

fn bars(histogram: &Histogram) -> String {
    let highest = histogram.counts.iter().max().copied().unwrap_or(1).max(1);
    let mut html = format!("<div><b>{}</b><div class=\"bars\">", escape(histogram.name));
    for bin in histogram.used() {
        let count = histogram.counts[bin];
        let share = 100.0 * count as f64 / highest as f64;
        let edge = number(histogram.edges[bin]);
        let _ = write!(html, "<span>{edge}</span><i style=\"width:{share:.1}%\"></i><span>{count}</span>");
    }
    html.push_str("</div></div>");
    html
}

fn values(name: &str, counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let sorted = commonest(counts);
    let mut html = format!("<div><b>{}</b><table>", escape(name));
    for (value, count) in sorted.iter().take(VALUES_LISTED) {
        let _ = write!(html, "<tr><td>{}<td class=\"n\">{count}</tr>", escape(value));
    }
    if sorted.len() > VALUES_LISTED {
        let _ = write!(html, "<tr><td class=\"faint\">and {} more<td></tr>", sorted.len() - VALUES_LISTED);
    }
    html.push_str("</table></div>");
    html
}

fn figure(thumbnail: &Thumbnail) -> String {
    format!(
        "<figure><div class=\"box\"><img alt=\"\" src=\"data:image/jpeg;base64,{}\"></div>{}<br>{}</figure>",
        base64::encode(&thumbnail.jpeg),
        escape(&thumbnail.text),
        thumbnail.sample_id
    )
}

fn listed(linted: &Lint) -> String {
    let mut html = String::new();
    for (kind, classes) in &linted.findings.counts {
        for (class, count) in classes {
            let of_class = linted.findings.kept.iter().filter(|f| f.kind == *kind && f.class == *class);
            let _ = write!(html, "<h2>{} {class} <span class=\"faint\">{count}</span></h2><table>", kind.name());
            for finding in of_class.take(LISTED) {
                let (place, message) = (escape(&place(finding)), escape(&finding.message));
                let _ = write!(html, "<tr><td class=\"faint\">{place}<td>{message}</tr>");
            }
            html.push_str("</table>");
        }
    }
    html
}

/// A number in as few characters as tell it.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.0}k", value / 1e3),
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::{Finding, Kind, Place};

    #[test]
    fn text_from_data_cannot_become_markup() {
        let mut linted = Lint::default();
        linted.findings.add(Finding {
            place: Place { sample_id: Some(1), shard: "<s>".into(), row: Some(1) },
            kind: Kind::Caption,
            class: "html",
            message: "holds markup: <script>alert(1)</script>".into(),
            other: None,
        });
        linted.sample.push(Thumbnail { sample_id: 1, jpeg: vec![1, 2, 3], text: "<img src=x>".into() });
        linted.statistics.labels.insert("<u>".into(), 3);
        let page = page(&["<i>".into()], "images", &linted);
        for tag in ["<script", "<s>", "<img src=x", "<u>", "<i>"] {
            assert!(!page.contains(tag), "{tag}");
        }
        assert!(page.contains("&lt;script&gt;") && page.contains("data:image/jpeg;base64,AQID"));
    }
}
