//! Line charts as inline SVG: no script, colours from the page's style sheet.

use std::fmt::Write;

use super::escape;

/// Points of a line after thinning; the page stays small however long the run was.
const MOST_POINTS: usize = 400;
/// So few points are shown one by one.
const MOST_DOTS: usize = 16;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// As the legend says it.
    pub(crate) name: String,
    /// (step, value) with rising steps; values are finite.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart with its caption.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// One sentence: what a healthy line looks like.
    pub(crate) note: String,
    pub(crate) series: Vec<Series>,
    /// What lies along the horizontal axis: `step`, or `k` of steps ahead.
    pub(crate) along: &'static str,
    /// Whether the value axis must begin at 0.
    pub(crate) from_zero: bool,
    /// Twice as wide as the others.
    pub(crate) wide: bool,
}

impl Chart {
    /// The chart as a `<figure>`; empty where no series has a point.
    pub(crate) fn figure(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        if all().next().is_none() {
            return String::new();
        }
        let width = if self.wide { 944.0 } else { 460.0 };
        let (x_low, x_high) = widened(range(all().map(|p| p.0)));
        let (low, high) = range(all().map(|p| p.1));
        let (mut y_low, mut y_high) = match (self.from_zero && low >= 0.0, high > 0.0) {
            (true, true) => (0.0, high),
            (true, false) => (0.0, 1.0),
            (false, _) => widened((low, high)),
        };
        let y_ticks = ticks(y_low, y_high, 5);
        if let (Some(first), Some(last)) = (y_ticks.first(), y_ticks.last()) {
            (y_low, y_high) = (y_low.min(*first), y_high.max(*last));
        }
        let to_x = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (width - LEFT - RIGHT);
        let to_y = |y: f64| HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);

        let mut svg = format!(
            "<svg viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&format!("{} by {}", self.title, self.along))
        );
        for &tick in &y_ticks {
            let y = to_y(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                width - RIGHT,
                LEFT - 7.0,
                y + 3.5,
                number(tick)
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 7.0,
            HEIGHT - 8.0,
            escape(self.along)
        );
        // Steps of training and steps ahead are counted: there is nothing between two of them.
        let is_shown = |tick: &f64| (x_low..=x_high).contains(tick) && tick.fract() == 0.0;
        for tick in ticks(x_low, x_high, if self.wide { 12 } else { 7 }).into_iter().filter(is_shown) {
            let x = to_x(tick);
            let _ = write!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 8.0,
                number(tick)
            );
        }
        for (at, series) in self.series.iter().enumerate() {
            draw(&mut svg, series, at, &to_x, &to_y);
        }
        svg.push_str("</svg>");
        let class = if self.wide { " class=\"wide\"" } else { "" };
        format!(
            "<figure{class}><figcaption><b>{}</b>{}</figcaption>{svg}<p class=\"note\">{}</p></figure>\n",
            escape(&self.title),
            self.legend(),
            escape(&self.note)
        )
    }

    fn legend(&self) -> String {
        let mut text = String::new();
        for (at, series) in self.series.iter().enumerate() {
            let Some((_, last)) = series.points.last() else { continue };
            let name = if self.series.len() > 1 { format!("{}: ", escape(&series.name)) } else { String::new() };
            let _ = write!(text, "<span class=\"key k{at}\">{name}{}</span>", number(*last));
        }
        text
    }
}

/// A band from lowest to highest of what was thinned away, and the mean as a line.
fn draw(svg: &mut String, series: &Series, at: usize, to_x: &impl Fn(f64) -> f64, to_y: &impl Fn(f64) -> f64) {
    let thinned = thin(&series.points);
    if thinned.len() <= MOST_DOTS {
        for point in &thinned {
            let (x, y) = (to_x(point.x), to_y(point.mean));
            let _ = write!(svg, "<circle class=\"d{at}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
    }
    if thinned.len() == 1 {
        return;
    }
    if thinned.len() < series.points.len() {
        let mut band = String::new();
        for point in &thinned {
            let _ = write!(band, "{:.1},{:.1} ", to_x(point.x), to_y(point.high));
        }
        for point in thinned.iter().rev() {
            let _ = write!(band, "{:.1},{:.1} ", to_x(point.x), to_y(point.low));
        }
        let _ = write!(svg, "<polygon class=\"b{at}\" points=\"{}\"/>", band.trim_end());
    }
    let mut line = String::new();
    for point in &thinned {
        let _ = write!(line, "{:.1},{:.1} ", to_x(point.x), to_y(point.mean));
    }
    let _ = write!(svg, "<polyline class=\"l{at}\" points=\"{}\"/>", line.trim_end());
}

struct Thinned {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

/// At most [`MOST_POINTS`] groups of neighbouring points.
fn thin(points: &[(f64, f64)]) -> Vec<Thinned> {
    let each = points.len().div_ceil(MOST_POINTS).max(1);
    let of = |group: &[(f64, f64)]| {
        let n = group.len() as f64;
        let (low, high) = range(group.iter().map(|p| p.1));
        let mean = |of: fn(&(f64, f64)) -> f64| group.iter().map(of).sum::<f64>() / n;
        Thinned { x: mean(|p| p.0), mean: mean(|p| p.1), low, high }
    };
    points.chunks(each).map(of).collect()
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

/// A range with some extent, for values that are all the same.
fn widened((low, high): (f64, f64)) -> (f64, f64) {
    if high - low > 1e-9 * high.abs().max(low.abs()) {
        (low, high)
    } else {
        let extent = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
        (low - extent, high + extent)
    }
}

/// Round numbers (1, 2 or 5 times a power of ten apart) around a range, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= rough).unwrap_or(10.0 * power);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// Short: `0.871`, `1,250`, `3.2M`, `4e-5`.
pub(crate) fn number(x: f64) -> String {
    let size = x.abs();
    let trim = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match size {
        0.0 => "0".into(),
        _ if size >= 1e6 => format!("{}M", trim(format!("{:.2}", x / 1e6))),
        _ if size >= 1e3 => {
            let whole = format!("{size:.0}");
            let (thousands, rest) = whole.split_at(whole.len() - 3);
            format!("{}{thousands},{rest}", if x < 0.0 { "-" } else { "" })
        }
        _ if size >= 100.0 => trim(format!("{x:.1}")),
        _ if size >= 10.0 => trim(format!("{x:.2}")),
        _ if size >= 1.0 => trim(format!("{x:.3}")),
        _ if size >= 1e-3 => trim(format!("{x:.4}")),
        _ => format!("{x:.1e}").replace(".0e", "e"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let series = vec![Series { name: "loss".into(), points }];
        Chart { title: "Loss".into(), note: String::new(), series, along: "step", from_zero: false, wide: false }
    }

    #[test]
    fn the_horizontal_axis_says_what_it_is() {
        let points = vec![(1.0, 0.8), (2.0, 0.5)];
        let figure = Chart { along: "k", ..chart(points) }.figure();
        assert!(figure.contains("text-anchor=\"end\">k</text>") && figure.contains("Loss by k"), "{figure}");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.871, "0.871"),
            (1250.4, "1,250"),
            (-1250.0, "-1,250"),
            (3_200_000.0, "3.2M"),
            (4e-5, "4e-5"),
            (5.0, "5"),
            (1.0038, "1.004"),
            (12.5, "12.5"),
            (100.0, "100"),
            (0.25, "0.25"),
            (999_999.0, "999,999"),
        ];
        for (x, expected) in cases {
            assert_eq!(number(x), expected);
        }
    }

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let around = ticks(4.2, 5.9, 5);
        assert!(around[0] <= 4.2 && *around.last().unwrap() >= 5.9, "{around:?}");
    }

    #[test]
    fn few_points_are_dots_over_whole_numbers() {
        let figure = chart(vec![(1.0, 0.8), (2.0, 0.5), (3.0, 0.25)]).figure();
        assert_eq!(figure.matches("<circle").count(), 3);
        assert!(figure.contains(">2</text>") && !figure.contains(">1.5</text>"), "{figure}");
    }

    #[test]
    fn long_lines_are_thinned_and_keep_their_extremes_as_a_band() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        assert!(thin(&points).len() <= MOST_POINTS);
        let figure = chart(points).figure();
        assert!(figure.contains("<polygon") && figure.len() < 30_000, "{}", figure.len());
        assert!(!chart(vec![(1.0, 2.0), (2.0, 3.0)]).figure().contains("<polygon"));
    }

    #[test]
    fn flat_single_and_empty_series_make_no_nonsense() {
        assert_eq!(chart(vec![]).figure(), "");
        for points in [vec![(1.0, 5.0)], vec![(1.0, 0.0), (2.0, 0.0)], vec![(1.0, 5.0), (2.0, 5.0)]] {
            let figure = chart(points).figure();
            assert!(!figure.contains("NaN") && !figure.contains("inf"), "{figure}");
        }
    }
}
