//! Scores beside their floors: as JSON for scripts, as a table for people.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{retrieval::Retrieval, statistics::Paired, zero_shot::ZeroShot};

/// All scores of one evaluation. Outer keys of each map are label columns.
///
/// `linear_probe` and `knn` have the shape `{"label": {"accuracy", "ci95", "untrained", "floor", …}}`; everything else
/// stands beside it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Scores {
    /// Logistic regression on frozen features.
    pub linear_probe: BTreeMap<String, Score>,
    /// kNN with k chosen on a held-out part of the bank, for each representation by itself.
    pub knn: BTreeMap<String, Score>,
    /// kNN at each listed k.
    pub knn_at: BTreeMap<String, BTreeMap<usize, Score>>,
    /// kNN with so many labels per class.
    pub few_labels: BTreeMap<String, BTreeMap<usize, Score>>,
    /// Why a number of labels per class that was asked for has no figure.
    #[serde(default)]
    pub left_out: BTreeMap<String, BTreeMap<usize, String>>,
    /// Zero-shot classification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zero_shot: BTreeMap<String, ZeroShot>,
    /// Images to captions and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<Retrieval>,
    /// ABX discrimination, where the pipeline names a column of groups.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub abx: BTreeMap<String, Discrimination>,
    /// What was classified.
    pub data: BTreeMap<String, Counts>,
    /// Which samples were known; `None` where whoever called did not say.
    #[serde(default)]
    pub bank: Option<Selected>,
    /// Which samples were classified.
    #[serde(default)]
    pub queries: Option<Selected>,
    /// The evaluation transform as one line.
    pub recipe: String,
    /// Seed of the held-out part and of the label draws.
    pub seed: u64,
}

/// The samples of one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// Digest of the selection, hexadecimal.
    pub digest: String,
    /// Samples that the query keeps.
    pub items: u64,
    /// Samples among them that cannot be decoded and are in no figure.
    pub left_out: u64,
}

/// Whether frozen features tell classes apart, within and across groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Discrimination {
    /// Column of the groups.
    pub group: String,
    /// A, B and X of one group.
    pub within: Option<Figure>,
    /// X of another group than A and B.
    pub across: Option<Figure>,
    /// How the figures were made.
    pub protocol: String,
}

/// Share of triples in which X was nearer to B, of another class, than to A: less is better, guessing is 0.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Of the encoder's features.
    pub error: f64,
    /// 95 % interval over the groups, or over the queries where there are fewer than two groups, across than three.
    pub ci95: [f64; 2],
    /// Of the untrained encoder's.
    pub untrained: f64,
    /// Of the input itself.
    pub floor: f64,
    /// `error` less `floor`.
    pub minus_floor: f64,
    /// Its 95 % interval, on the same triples.
    pub minus_floor_ci95: [f64; 2],
    /// Queries that were X.
    pub samples: usize,
    /// Queries for which there is no triple.
    pub left_out: usize,
    /// What the intervals are over, such as `6 of speaker`.
    pub interval_over: String,
}

/// Sizes of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Samples with known labels.
    pub bank: usize,
    /// Bank samples on which λ and k are chosen.
    pub held_out: usize,
    /// Samples classified.
    pub queries: usize,
    /// Classes in the bank.
    pub classes: usize,
    /// Bank samples of the class that has fewest, and of that which has most.
    #[serde(default)]
    pub samples_per_class: [usize; 2],
    /// Queries whose label the bank lacks; they count as wrong.
    pub queries_of_unknown_class: usize,
}

/// One figure of the encoder beside the same figure of its floors, on the same samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of queries the encoder's features classify correctly.
    pub accuracy: f64,
    /// 95 % interval: Wilson's, or over draws and queries for few labels.
    pub ci95: [f64; 2],
    /// The same with the untrained encoder's features.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub untrained: Option<f64>,
    /// Its interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub untrained_ci95: Option<[f64; 2]>,
    /// The same with the input itself, such as raw pixels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub floor: Option<f64>,
    /// Its interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub floor_ci95: Option<[f64; 2]>,
    /// Encoder minus the better floor, paired by sample.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub against_best_floor: Option<AgainstFloor>,
    /// How the figure was made, with what each representation chose.
    pub protocol: String,
}

/// The encoder against the better of its floors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgainstFloor {
    /// Which floor it is: `untrained` or the floor's own name.
    pub name: String,
    /// Difference with its interval.
    #[serde(flatten)]
    pub paired: Paired,
    /// What the interval says.
    pub verdict: Verdict,
    /// Whether the two accuracies' own intervals overlap: the stricter reading.
    pub intervals_overlap: bool,
}

/// Where the paired interval lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Above zero: the encoder is better.
    Ahead,
    /// Around zero: nothing is shown.
    Level,
    /// Below zero: the floor is better.
    Behind,
}

impl Verdict {
    /// By the interval of encoder minus floor.
    pub fn of(ci95: [f64; 2]) -> Self {
        if ci95[0] > 0.0 {
            Self::Ahead
        } else if ci95[1] < 0.0 {
            Self::Behind
        } else {
            Self::Level
        }
    }
}

impl Scores {
    /// Adds the figures of further label columns of the same samples.
    pub fn extend(&mut self, further: Self) {
        self.linear_probe.extend(further.linear_probe);
        self.knn.extend(further.knn);
        self.knn_at.extend(further.knn_at);
        self.few_labels.extend(further.few_labels);
        self.left_out.extend(further.left_out);
        self.abx.extend(further.abx);
        self.data.extend(further.data);
    }

    /// One line of JSON.
    ///
    /// # Errors
    /// Never for finite numbers.
    pub fn to_json_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Every figure of a label column in the order of the table: its name and score.
    pub fn lines(&self, label: &str) -> Vec<(String, &Score)> {
        let mut lines = vec![];
        lines.extend(self.linear_probe.get(label).map(|score| ("linear probe".to_owned(), score)));
        lines.extend(self.knn.get(label).map(|score| ("kNN, k chosen".to_owned(), score)));
        for (k, score) in self.knn_at.get(label).into_iter().flatten() {
            let bank = self.data.get(label).map_or(*k, |counts| counts.bank);
            let cut = if *k > bank { format!(" (all {bank})") } else { String::new() };
            lines.push((format!("kNN, k = {k}{cut}"), score));
        }
        let least = self.data.get(label).map_or(0, |counts| counts.samples_per_class[0]);
        for (n, score) in self.few_labels.get(label).into_iter().flatten() {
            let all_have_them = if *n > least { "at most " } else { "" };
            lines.push((format!("kNN, {all_have_them}{n} label{} per class", if *n == 1 { "" } else { "s" }), score));
        }
        lines
    }
}

impl Discrimination {
    /// Its figures under their names in a table.
    pub fn lines(&self) -> impl Iterator<Item = (String, &Figure)> {
        let named = [("within", &self.within), ("across", &self.across)];
        named.into_iter().filter_map(|(kind, figure)| Some((format!("ABX {kind} {}", self.group), figure.as_ref()?)))
    }
}

/// `.871 [.864 .877]`
fn figure(accuracy: f64, ci95: [f64; 2]) -> String {
    format!("{accuracy:.3} [{:.3} {:.3}]", ci95[0], ci95[1])
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, counts) in &self.data {
            writeln!(
                f,
                "{label}: {} classes, {} queries, bank of {} ({} of them held out to choose λ and k)",
                counts.classes, counts.queries, counts.bank, counts.held_out
            )?;
            if counts.queries_of_unknown_class > 0 {
                writeln!(
                    f,
                    "  {} queries have a label that the bank lacks and count as wrong",
                    counts.queries_of_unknown_class
                )?;
            }
            let lines = self.lines(label);
            let column = |name: &str, present: bool| if present { format!("{name:<21}") } else { String::new() };
            let any_untrained = lines.iter().any(|(_, score)| score.untrained.is_some());
            let any_floor = lines.iter().any(|(_, score)| score.floor.is_some());
            writeln!(
                f,
                "{:<34}{:<21}{}{}{}",
                "accuracy [95 % interval]",
                "encoder",
                column("untrained encoder", any_untrained),
                column("input itself", any_floor),
                if any_untrained || any_floor { "encoder - better floor" } else { "" }
            )?;
            for (name, score) in &lines {
                write!(f, "{name:<34}{:<21}", figure(score.accuracy, score.ci95))?;
                for (present, value, ci95) in
                    [(any_untrained, score.untrained, score.untrained_ci95), (any_floor, score.floor, score.floor_ci95)]
                {
                    if present {
                        write!(f, "{:<21}", value.zip(ci95).map_or(String::from("-"), |(x, ci)| figure(x, ci)))?;
                    }
                }
                if let Some(against) = &score.against_best_floor {
                    let Paired { difference, ci95, .. } = &against.paired;
                    write!(f, "{difference:+.3} [{:+.3} {:+.3}]  {}", ci95[0], ci95[1], words(against))?;
                }
                writeln!(f)?;
            }
            for (n, reason) in self.left_out.get(label).into_iter().flatten() {
                writeln!(f, "{:<34}left out: {reason}", format!("kNN, {n} labels per class"))?;
            }
            if let Some(abx) = self.abx.get(label) {
                for (name, found) in abx.lines() {
                    let Figure { error, ci95, untrained, floor, minus_floor, minus_floor_ci95, .. } = found;
                    let [low, high] = minus_floor_ci95;
                    let figures = [figure(*error, *ci95), format!("{untrained:.3}"), format!("{floor:.3}")];
                    let [own, untrained, floor] = figures.map(|text| format!("{text:<21}"));
                    let against = format!("{minus_floor:+.3} [{low:+.3} {high:+.3}] against the input itself");
                    writeln!(f, "{name:<34}{own}{untrained}{floor}{against}: errors, less is better")?;
                }
            }
            writeln!(f, "Protocol:")?;
            for (name, score) in &lines {
                writeln!(f, "  {name}: {}", score.protocol)?;
            }
            if let Some(abx) = self.abx.get(label) {
                writeln!(f, "  ABX: {}", abx.protocol)?;
            }
        }
        for (name, side) in [("bank", &self.bank), ("queries", &self.queries)] {
            let Some(Selected { digest, items, left_out }) = side else { continue };
            writeln!(f, "{name}: {items} samples, {left_out} of them undecodable and left out, digest {digest}")?;
        }
        for (label, zero_shot) in &self.zero_shot {
            writeln!(f, "{label} by prompts: {zero_shot}")?;
        }
        if let Some(retrieval) = &self.retrieval {
            writeln!(f, "{retrieval}")?;
        }
        if self.data.is_empty() {
            return write!(f, "transform: {}; seed {}", self.recipe, self.seed);
        }
        write!(
            f,
            "Features are taken in evaluation mode, before the head; transform: {}; seed {}",
            self.recipe, self.seed
        )
    }
}

/// The verdict as a table says it: losing lines say so.
fn words(against: &AgainstFloor) -> String {
    let floor = against.name.replace('_', " ");
    match against.verdict {
        Verdict::Ahead if against.intervals_overlap => format!("ahead of {floor}, but the single intervals overlap"),
        Verdict::Ahead => format!("ahead of {floor}"),
        Verdict::Level => format!("no difference shown to {floor}"),
        Verdict::Behind => format!("BEHIND {floor}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn score(accuracy: f64, floor: f64) -> Score {
        let difference = accuracy - floor;
        // Dyadic numbers: they come back from JSON bit for bit.
        let ci95 = [difference - 0.011_718_75, difference + 0.011_718_75];
        Score {
            accuracy,
            ci95: [accuracy - 0.007_812_5, accuracy + 0.007_812_5],
            untrained: Some(0.5),
            untrained_ci95: Some([0.484_375, 0.515_625]),
            floor: Some(floor),
            floor_ci95: Some([floor - 0.007_812_5, floor + 0.007_812_5]),
            against_best_floor: Some(AgainstFloor {
                name: "raw_pixels".into(),
                paired: Paired { difference, ci95, only_first: 300.0, only_second: 100.0 },
                verdict: Verdict::of(ci95),
                intervals_overlap: difference.abs() < 0.015_625,
            }),
            protocol: "as tested".into(),
        }
    }

    pub(crate) fn scores(label: &str) -> Scores {
        let one = |score: Score| BTreeMap::from([(label.to_owned(), score)]);
        Scores {
            linear_probe: one(score(0.875, 0.843_75)),
            knn: one(score(0.851_562_5, 0.859_375)),
            knn_at: BTreeMap::from([(
                label.to_owned(),
                BTreeMap::from([(1, score(0.843_75, 0.875)), (200, score(0.812_5, 0.789_062_5))]),
            )]),
            few_labels: BTreeMap::from([(label.to_owned(), BTreeMap::from([(10, score(0.656_25, 0.640_625))]))]),
            data: BTreeMap::from([(
                label.to_owned(),
                Counts {
                    bank: 60_000,
                    held_out: 5_000,
                    queries: 10_000,
                    classes: 10,
                    samples_per_class: [5, 9_000],
                    queries_of_unknown_class: 2,
                },
            )]),
            abx: BTreeMap::new(),
            left_out: BTreeMap::from([(
                label.to_owned(),
                BTreeMap::from([(10_000, "every class has fewer".to_owned())]),
            )]),
            bank: Some(Selected { digest: "ab".into(), items: 60_003, left_out: 3 }),
            queries: None,
            recipe: "resize 28".into(),
            seed: 3,
            ..Scores::default()
        }
    }

    #[test]
    fn json_has_the_shape_that_scripts_rely_on() {
        let line = scores("label").to_json_line().unwrap();
        assert!(!line.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        for figure in ["linear_probe", "knn"] {
            let score = &json[figure]["label"];
            for key in ["accuracy", "untrained", "floor"] {
                assert!(score[key].is_f64(), "{figure}.label.{key}");
            }
            assert_eq!(score["ci95"].as_array().map(Vec::len), Some(2));
        }
        assert_eq!(json["knn_at"]["label"]["200"]["accuracy"], 0.8125);
        assert_eq!(json["linear_probe"]["label"]["against_best_floor"]["verdict"], "ahead");
        assert_eq!((&json["bank"]["digest"], &json["bank"]["left_out"]), (&"ab".into(), &3.into()));
        assert_eq!(serde_json::from_str::<Scores>(&line).unwrap(), scores("label"));
    }

    #[test]
    fn lost_lines_say_so() {
        let text = scores("label").to_string();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(line("linear probe").ends_with("ahead of raw pixels"));
        assert!(line("kNN, k = 1 ").ends_with("BEHIND raw pixels"));
        assert!(line("kNN, k chosen").ends_with("no difference shown to raw pixels"));
        assert!(text.contains("2 queries have a label that the bank lacks"));
        assert!(line("kNN, 10000 labels per class").ends_with("left out: every class has fewer"));
        assert!(text.contains("kNN, at most 10 labels per class"), "a class has only five: {text}");
        assert!(text.contains("bank: 60003 samples, 3 of them undecodable and left out, digest ab"), "{text}");
        assert!(text.contains("transform: resize 28; seed 3"));
    }

    #[test]
    fn discrimination_is_in_json_and_table_where_it_was_asked_for() {
        let without = scores("label");
        assert!(!without.to_json_line().unwrap().contains("abx") && !without.to_string().contains("ABX"));
        let across = Figure {
            error: 0.125,
            ci95: [0.0625, 0.25],
            untrained: 0.5,
            floor: 0.375,
            minus_floor: -0.25,
            minus_floor_ci95: [-0.375, -0.125],
            samples: 40,
            left_out: 2,
            interval_over: "4 of speaker".into(),
        };
        let found =
            Discrimination { group: "speaker".into(), within: None, across: Some(across), protocol: "drawn".into() };
        let scores = Scores { abx: BTreeMap::from([("label".to_owned(), found)]), ..without };
        let line = scores.to_json_line().unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["abx"]["label"]["across"]["error"], 0.125);
        assert_eq!(serde_json::from_str::<Scores>(&line).unwrap(), scores);
        let text = scores.to_string();
        assert!(text.contains("ABX across speaker") && text.contains("0.125 [0.062 0.250]"), "{text}");
        assert!(text.contains("-0.250 [-0.375 -0.125] against the input itself: errors"), "{text}");
        assert!(text.contains("ABX: drawn"), "{text}");
    }

    #[test]
    fn encoder_alone_needs_no_floors() {
        let mut alone = scores("label");
        for score in alone.knn.values_mut() {
            (score.untrained, score.untrained_ci95, score.floor, score.floor_ci95) = (None, None, None, None);
            score.against_best_floor = None;
        }
        let line = alone.to_json_line().unwrap();
        assert_eq!(serde_json::from_str::<Scores>(&line).unwrap(), alone);
    }
}
