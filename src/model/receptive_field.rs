//! Which steps of a signal a frame sees.
use std::ops::Range;

/// Of a stack of strided convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceptiveField {
    /// Steps that one frame sees.
    pub width_steps: usize,
    /// Steps from one frame to the next.
    pub hop_steps: usize,
    /// Zeros in front of the signal that the first frame sees.
    pub front_steps: usize,
    /// Zeros behind.
    behind_steps: usize,
}

impl ReceptiveField {
    /// Of (kernel, stride, zeros in front and behind) from the signal on.
    pub fn of(layers: impl IntoIterator<Item = (usize, usize, [usize; 2])>) -> Self {
        let start = Self { width_steps: 1, hop_steps: 1, front_steps: 0, behind_steps: 0 };
        layers.into_iter().fold(start, |field, (kernel, stride, [front, behind])| Self {
            width_steps: add(field.width_steps, kernel.saturating_sub(1), field.hop_steps),
            hop_steps: field.hop_steps.saturating_mul(stride),
            front_steps: add(field.front_steps, front, field.hop_steps),
            behind_steps: add(field.behind_steps, behind, field.hop_steps),
        })
    }

    /// Frames of a window; 0 where it is too short for one.
    pub fn frames(&self, window_steps: usize) -> usize {
        let padded = window_steps.saturating_add(self.front_steps).saturating_add(self.behind_steps);
        if padded < self.width_steps { 0 } else { (padded - self.width_steps) / self.hop_steps + 1 }
    }

    /// The shortest window of so many frames.
    pub fn window_steps(&self, frames: usize) -> usize {
        let padded = add(self.width_steps, frames.saturating_sub(1), self.hop_steps);
        padded.saturating_sub(self.front_steps).saturating_sub(self.behind_steps).max(1)
    }

    /// Steps that a frame sees, counted from the window's start; those before 0 and behind the end are zeros.
    pub fn steps_of(&self, frame: usize) -> Range<i64> {
        let first = (frame * self.hop_steps) as i64 - self.front_steps as i64;
        first..first + self.width_steps as i64
    }

    /// The least k for which frames t and t + k share no step. Predicting fewer steps ahead is partly copying.
    pub fn first_disjoint_k(&self) -> usize {
        self.width_steps.div_ceil(self.hop_steps)
    }
}

/// `to + times · steps`: settings that nobody means must not wrap around into some that look sound.
fn add(to: usize, times: usize, steps: usize) -> usize {
    to.saturating_add(times.saturating_mul(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_kernels_and_strides() {
        let layers = [(10, 5), (8, 4), (4, 2), (4, 2), (4, 2)];
        let plain = ReceptiveField::of(layers.map(|(k, s)| (k, s, [0, 0])));
        assert_eq!((plain.width_steps, plain.hop_steps, plain.first_disjoint_k()), (465, 160, 3));
        assert_eq!((plain.frames(464), plain.frames(465), plain.frames(624), plain.frames(625)), (0, 1, 1, 2));
        let causal = ReceptiveField::of(layers.map(|(k, s)| (k, s, [k - s, 0])));
        assert_eq!((causal.front_steps, causal.steps_of(2)), (305, 15..480));
        for field in [plain, causal] {
            for frames in [1, 2, 16, 128] {
                let window = field.window_steps(frames);
                assert_eq!(field.frames(window), frames);
                assert!(window == 1 || field.frames(window - 1) < frames);
            }
        }
    }

    #[test]
    fn sizes_beyond_all_numbers_leave_no_frame() {
        let field = ReceptiveField::of([(usize::MAX, usize::MAX, [0, 0]), (usize::MAX, 2, [usize::MAX, 0])]);
        assert_eq!((field.frames(1 << 40), field.width_steps), (1, usize::MAX));
        assert_eq!(ReceptiveField::of([(usize::MAX, 3, [0, 0]), (9, 3, [0, 0])]).frames(1 << 40), 0);
    }

    #[test]
    fn frames_of_neighbouring_patches_are_disjoint_from_the_first_k_on() {
        let field = ReceptiveField::of([(4, 4, [0, 0])]);
        assert_eq!(field.first_disjoint_k(), 1);
        let field = ReceptiveField::of([(4, 2, [0, 0]), (4, 2, [0, 0])]);
        let k = field.first_disjoint_k();
        assert_eq!((field.width_steps, field.hop_steps, k), (10, 4, 3));
        assert!(
            field.steps_of(0).end <= field.steps_of(k).start && field.steps_of(0).end > field.steps_of(k - 1).start
        );
    }
}
