//! Limited-memory BFGS for smooth convex functions (Nocedal and Wright, algorithm 7.4), with a given first metric.

use std::collections::VecDeque;

use crate::Result;

/// Pairs of steps and gradient changes that are remembered.
const MEMORY: usize = 12;
/// Sufficient decrease (Armijo), as usual.
const SUFFICIENT_DECREASE: f64 = 1e-4;
/// Halvings of a step before the function is taken to be flat to its own rounding.
const MOST_HALVINGS: usize = 20;

/// Iterations over which the gain is looked at: single steps are uneven.
const GAIN_ITERATIONS: usize = 10;

/// When a search ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stop {
    /// gᵀP⁻¹g, which is of the size of the value's distance to its minimum, is at most this; …
    pub(crate) distance: f64,
    /// … or ten iterations lowered the value by less than this; …
    pub(crate) gain: f64,
    /// … or so many iterations were made, and the search is unfinished.
    pub(crate) most_iterations: usize,
}

/// A smooth convex function of a vector.
pub(crate) trait Objective {
    /// Value and gradient.
    fn value_and_gradient(&self, at: &[f64]) -> Result<(f64, Vec<f64>)>;
    /// P⁻¹·g in place, where P approximates or bounds the Hessian; linear in g.
    fn precondition(&self, gradient: &mut [f64]);
}

/// Where the search ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) value: f64,
    pub(crate) iterations: usize,
    /// It ended by distance or gain, or no step could lower the value any more.
    pub(crate) converged: bool,
}

/// Minimises from `at`, in place.
pub(crate) fn minimise(objective: &impl Objective, at: &mut Vec<f64>, stop: Stop) -> Result<Outcome> {
    let (mut value, mut gradient) = objective.value_and_gradient(at)?;
    let mut memory: VecDeque<Step> = VecDeque::with_capacity(MEMORY);
    let mut values = vec![];
    // P⁻¹g: with many classes a system of equations of its own costs more than the function, so each gradient has one.
    let mut steepest = preconditioned(objective, &gradient);
    for iterations in 0..stop.most_iterations {
        values.push(value);
        let gained = iterations.checked_sub(GAIN_ITERATIONS).map(|before| values[before] - value);
        if dot(&gradient, &steepest) <= stop.distance || gained.is_some_and(|gained| gained < stop.gain) {
            return Ok(Outcome { value, iterations, converged: true });
        }
        let direction = quasi_newton_direction(&gradient, &steepest, &memory);
        let mut slope = dot(&gradient, &direction);
        let direction = if slope < 0.0 {
            direction
        } else {
            // Rounding has spoiled the memory: start again from the first metric.
            memory.clear();
            slope = -dot(&gradient, &steepest);
            steepest.iter().map(|x| -x).collect()
        };
        let mut step = 1.0;
        let mut accepted = None;
        for _ in 0..MOST_HALVINGS {
            let candidate: Vec<f64> = at.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            let (candidate_value, candidate_gradient) = objective.value_and_gradient(&candidate)?;
            if candidate_value <= value + SUFFICIENT_DECREASE * step * slope {
                accepted = Some((candidate, candidate_value, candidate_gradient));
                break;
            }
            step *= 0.5;
        }
        let Some((candidate, candidate_value, candidate_gradient)) = accepted else {
            return Ok(Outcome { value, iterations, converged: true });
        };
        let candidate_steepest = preconditioned(objective, &candidate_gradient);
        let moved = difference(&candidate, at);
        let turned = difference(&candidate_gradient, &gradient);
        remember(&mut memory, moved, turned, difference(&candidate_steepest, &steepest));
        (*at, value, gradient, steepest) = (candidate, candidate_value, candidate_gradient, candidate_steepest);
    }
    Ok(Outcome { value, iterations: stop.most_iterations, converged: false })
}

fn preconditioned(objective: &impl Objective, gradient: &[f64]) -> Vec<f64> {
    let mut steepest = gradient.to_vec();
    objective.precondition(&mut steepest);
    steepest
}

struct Step {
    moved: Vec<f64>,
    turned: Vec<f64>,
    /// P⁻¹ · turned.
    metric: Vec<f64>,
    /// 1 / (moved · turned)
    rho: f64,
}

fn remember(memory: &mut VecDeque<Step>, moved: Vec<f64>, turned: Vec<f64>, metric: Vec<f64>) {
    let product = dot(&moved, &turned);
    // Positive for a convex function but for rounding; a negative one would spoil the metric.
    if product > 1e-12 * dot(&moved, &moved).sqrt() * dot(&turned, &turned).sqrt() {
        if memory.len() == MEMORY {
            memory.pop_front();
        }
        memory.push_back(Step { moved, turned, metric, rho: 1.0 / product });
    }
}

/// −H·g by the two-loop recursion, from H₀ = γ P⁻¹; `steepest` is P⁻¹g, and P⁻¹ of the first loop's q follows from what
/// is remembered.
fn quasi_newton_direction(gradient: &[f64], steepest: &[f64], memory: &VecDeque<Step>) -> Vec<f64> {
    let (mut q, mut direction) = (gradient.to_vec(), steepest.to_vec());
    let mut alphas = Vec::with_capacity(memory.len());
    for step in memory.iter().rev() {
        let alpha = step.rho * dot(&step.moved, &q);
        add(&mut q, -alpha, &step.turned);
        add(&mut direction, -alpha, &step.metric);
        alphas.push(alpha);
    }
    if let Some(last) = memory.back() {
        let gamma = 1.0 / (last.rho * dot(&last.turned, &last.metric));
        direction.iter_mut().for_each(|x| *x *= gamma);
    }
    for (step, alpha) in memory.iter().zip(alphas.iter().rev()) {
        let beta = step.rho * dot(&step.turned, &direction);
        add(&mut direction, alpha - beta, &step.moved);
    }
    direction.iter_mut().for_each(|x| *x = -*x);
    direction
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(to: &mut [f64], factor: f64, other: &[f64]) {
    for (x, y) in to.iter_mut().zip(other) {
        *x += factor * y;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Σ wᵢ (xᵢ − i)² / 2 + .01 Σ (xᵢ − i)⁴: convex, minimum 0 at xᵢ = i, curvatures from 1 to 100.
    struct Bowl;

    impl Objective for Bowl {
        fn value_and_gradient(&self, at: &[f64]) -> Result<(f64, Vec<f64>)> {
            let weight = |i: usize| 10_f64.powi(i as i32 % 3);
            let off = |i: usize| at[i] - i as f64;
            let value = (0..at.len()).map(|i| weight(i) * off(i).powi(2) / 2.0 + 0.01 * off(i).powi(4)).sum();
            Ok((value, (0..at.len()).map(|i| weight(i) * off(i) + 0.04 * off(i).powi(3)).collect()))
        }

        fn precondition(&self, _: &mut [f64]) {}
    }

    const STOP: Stop = Stop { distance: 1e-14, gain: 0.0, most_iterations: 500 };

    #[test]
    fn ill_conditioned_bowl_is_solved() {
        let mut at = vec![0.0; 20];
        let outcome = minimise(&Bowl, &mut at, STOP).unwrap();
        assert!(outcome.converged && outcome.iterations < 100, "{outcome:?}");
        assert!(at.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-6), "{at:?}");
    }

    /// [`Bowl`] with its curvatures as the first metric.
    struct Scaled(Cell<usize>);

    impl Objective for Scaled {
        fn value_and_gradient(&self, at: &[f64]) -> Result<(f64, Vec<f64>)> {
            Bowl.value_and_gradient(at)
        }

        fn precondition(&self, gradient: &mut [f64]) {
            self.0.set(self.0.get() + 1);
            gradient.iter_mut().enumerate().for_each(|(i, x)| *x /= 10_f64.powi(i as i32 % 3));
        }
    }

    #[test]
    fn a_metric_helps_and_is_asked_once_per_gradient() {
        let (mut at, mut plain) = (vec![0.0; 20], vec![0.0; 20]);
        let objective = Scaled(Cell::new(0));
        let outcome = minimise(&objective, &mut at, STOP).unwrap();
        assert!(outcome.converged && outcome.iterations < minimise(&Bowl, &mut plain, STOP).unwrap().iterations);
        assert!(at.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-6), "{at:?}");
        assert_eq!(objective.0.get(), outcome.iterations + 1);
    }

    #[test]
    fn a_small_gain_ends_the_search_early() {
        let (mut at, mut full) = (vec![0.0; 20], vec![0.0; 20]);
        let early = minimise(&Bowl, &mut at, Stop { gain: 1.0, ..STOP }).unwrap();
        let full = minimise(&Bowl, &mut full, STOP).unwrap();
        assert!(early.converged && early.iterations < full.iterations && early.value > full.value);
    }

    #[test]
    fn too_few_iterations_are_admitted() {
        let mut at = vec![0.0; 20];
        assert!(!minimise(&Bowl, &mut at, Stop { most_iterations: 3, ..STOP }).unwrap().converged);
    }
}
