//! The floor of series that knows nothing: their numbers as features.

/// Longer windows are averaged down to so many steps.
pub const MOST_STEPS: usize = 64;

/// Numbers per window that [`raw_series`] makes of `channels` × `steps`.
pub fn width(channels: usize, steps: usize) -> usize {
    channels * steps.min(MOST_STEPS)
}

/// Windows, `[windows, channels, steps]`, flattened; those over [`MOST_STEPS`] are averaged down to it, stretch by stretch of
/// lengths that differ by one at most.
pub fn raw_series(windows: &[f32], channels: usize, steps: usize) -> Vec<f32> {
    if steps <= MOST_STEPS {
        return windows.to_vec();
    }
    let mut found = Vec::with_capacity(windows.len() / (channels * steps).max(1) * width(channels, steps));
    for row in windows.chunks_exact(steps) {
        for number in 0..MOST_STEPS {
            let stretch = &row[number * steps / MOST_STEPS..(number + 1) * steps / MOST_STEPS];
            let sum: f64 = stretch.iter().map(|x| f64::from(*x)).sum();
            found.push((sum / stretch.len() as f64) as f32);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_windows_are_taken_as_they_are_and_long_ones_by_stretches() {
        assert_eq!(raw_series(&[1.0, 2.0, 3.0, 4.0], 2, 2), [1.0, 2.0, 3.0, 4.0]);
        let long: Vec<f32> = (0..2 * 2 * 96).map(|step| (step % 96) as f32).collect();
        let found = raw_series(&long, 2, 96);
        assert_eq!(found.len(), 2 * width(2, 96));
        // 96 steps: stretches of one and two.
        assert_eq!(found[..4], [0.0, 1.5, 3.0, 4.5]);
        assert_eq!(found[64..68], found[..4]);
    }
}
