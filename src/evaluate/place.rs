//! Where the right candidates stand among all, with ties counted as what they are worth on average.

/// The place of the best right candidate: candidates of its own score stand around it in random order.
///
/// Counting a tie as won is how a collapsed model gets 100 %; here it gets chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Candidates with a higher score.
    above: usize,
    /// Candidates with the same score, right ones included.
    tied: usize,
    /// Right ones among those.
    right: usize,
}

impl Place {
    /// `None` where no candidate is right.
    pub fn of(scores: &[f32], is_right: impl Fn(usize) -> bool) -> Option<Self> {
        let right = || (0..scores.len()).filter(|&at| is_right(at));
        let best = right().map(|at| scores[at]).max_by(f32::total_cmp)?;
        Some(Self {
            above: scores.iter().filter(|&&score| score > best).count(),
            tied: scores.iter().filter(|&&score| score == best).count(),
            right: right().filter(|&at| scores[at] == best).count(),
        })
    }

    /// That of a model that knows nothing: all candidates tie.
    pub fn of_chance(candidates: usize, right: usize) -> Self {
        Self { above: 0, tied: candidates, right: right.min(candidates) }
    }

    /// Probability that a right candidate is among the first `k`.
    ///
    /// Of the m places that are left for the t tied, the chance that none of the p right ones gets one is
    /// C(t − p, m) / C(t, m).
    pub fn hit_at(&self, k: usize) -> f64 {
        let places = k.saturating_sub(self.above).min(self.tied);
        let wrong = self.tied - self.right;
        if places > wrong {
            return 1.0;
        }
        let none = (0..places).map(|at| (wrong - at) as f64 / (self.tied - at) as f64).product::<f64>();
        1.0 - none
    }

    /// Expected rank of the first right candidate, from 1: of p among t in random order it stands at (t + 1) / (p + 1).
    pub fn rank(&self) -> f64 {
        self.above as f64 + (self.tied + 1) as f64 / (self.right + 1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(scores: &[f32], right: &[usize]) -> Place {
        Place::of(scores, |at| right.contains(&at)).expect("some are right")
    }

    #[test]
    fn without_ties_a_hit_is_a_hit() {
        let found = place(&[0.1, 0.9, 0.5, 0.7], &[2]);
        assert_eq!([1, 2, 3, 4].map(|k| found.hit_at(k)), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(found.rank(), 3.0);
        assert_eq!(Place::of(&[0.1], |_| false), None);
    }

    #[test]
    fn any_of_several_right_candidates_counts() {
        let found = place(&[0.1, 0.9, 0.5, 0.7], &[0, 3]);
        assert_eq!([1, 2].map(|k| found.hit_at(k)), [0.0, 1.0]);
    }

    #[test]
    fn ties_are_worth_their_expectation() {
        // One above; three tie at .5, one of them right.
        let found = place(&[0.5, 0.9, 0.5, 0.5], &[0]);
        for (k, expected) in [(1, 0.0), (2, 1.0 / 3.0), (3, 2.0 / 3.0), (4, 1.0)] {
            assert!((found.hit_at(k) - expected).abs() < 1e-12, "{k}");
        }
        assert_eq!(found.rank(), 3.0);
        // Two of three right: the first of the two places misses with 1/3, both never.
        let found = place(&[0.5, 0.5, 0.5], &[0, 2]);
        assert!((found.hit_at(1) - 2.0 / 3.0).abs() < 1e-12 && found.hit_at(2) == 1.0);
        assert!((found.rank() - 4.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_collapsed_model_is_at_chance() {
        // 25 texts, five of them right: 1 − C(20, 10) / C(25, 10) by hand.
        let found = place(&[0.25; 25], &[3, 4, 5, 6, 7]);
        assert_eq!(found, Place::of_chance(25, 5));
        assert!((found.hit_at(1) - 0.2).abs() < 1e-12);
        let none = 184_756.0 / 3_268_760.0;
        assert!((found.hit_at(10) - (1.0 - none)).abs() < 1e-12);
        assert_eq!(Place::of_chance(3, 1).hit_at(10), 1.0);
    }
}
