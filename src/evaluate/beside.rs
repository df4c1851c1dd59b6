//! A share of queries that a model gets right, beside that of the same model before training.
use serde::{Deserialize, Serialize};

use super::{
    scores::Verdict,
    statistics::{Paired, clustered_95, clustered_paired},
};

/// The untrained model's share, and what training has added to it on the same queries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// Of the untrained model.
    pub share: f64,
    /// Its 95 % interval.
    pub share_ci95: [f64; 2],
    /// Trained minus untrained, with its interval.
    #[serde(flatten)]
    pub paired: Paired,
    /// What the interval says.
    pub verdict: Verdict,
    /// Whether the two shares' own intervals overlap: the stricter reading.
    pub intervals_overlap: bool,
}

impl Beside {
    /// From hits in [0, 1] by cluster, of the same queries in the same order.
    pub fn of(trained: &[Vec<f64>], untrained: &[Vec<f64>]) -> Self {
        let ((_, ci95), (share, share_ci95)) = (clustered_95(trained), clustered_95(untrained));
        let paired = clustered_paired(trained, untrained);
        let intervals_overlap = ci95[0] <= share_ci95[1] && share_ci95[0] <= ci95[1];
        Self { share, share_ci95, paired, verdict: Verdict::of(paired.ci95), intervals_overlap }
    }

    /// `0.004 [0.001 0.024]`
    pub fn share_in_words(&self) -> String {
        let Self { share, share_ci95: [low, high], .. } = self;
        format!("{share:.3} [{low:.3} {high:.3}]")
    }

    /// `+0.181 [+0.132 +0.231]`, and what it is unless it is ahead.
    pub fn difference_in_words(&self) -> String {
        let Paired { difference, ci95: [low, high], .. } = self.paired;
        let verdict = match self.verdict {
            Verdict::Ahead => "",
            Verdict::Level => " level",
            Verdict::Behind => " BEHIND",
        };
        format!("{difference:+.3} [{low:+.3} {high:+.3}]{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(hits: impl IntoIterator<Item = f64>) -> Vec<Vec<f64>> {
        hits.into_iter().map(|hit| vec![hit]).collect()
    }

    #[test]
    fn verdicts_follow_the_interval_of_the_difference() {
        let right = |count: u32| apart((0..200).map(|at| f64::from(u8::from(at < count))));
        for (trained, untrained, verdict, words) in [
            (60, 2, Verdict::Ahead, "+0.290 ["),
            (4, 2, Verdict::Level, "] level"),
            (2, 60, Verdict::Behind, "] BEHIND"),
        ] {
            let beside = Beside::of(&right(trained), &right(untrained));
            assert_eq!((beside.verdict, beside.share), (verdict, f64::from(untrained) / 200.0));
            assert!(beside.difference_in_words().contains(words), "{}", beside.difference_in_words());
            assert_eq!(beside.intervals_overlap, verdict == Verdict::Level);
        }
        assert!(Beside::of(&right(60), &right(2)).share_in_words().starts_with("0.010 ["));
    }

    #[test]
    fn json_has_both_intervals_by_their_names() {
        let beside = Beside::of(&apart([1.0, 1.0, 0.0]), &apart([0.0, 1.0, 0.0]));
        let json = serde_json::to_value(beside).expect("JSON");
        for key in ["share", "share_ci95", "difference", "ci95", "verdict", "intervals_overlap"] {
            assert!(!json[key].is_null(), "{key}: {json}");
        }
        assert_eq!(serde_json::from_value::<Beside>(json).expect("the same").verdict, beside.verdict);
    }
}
