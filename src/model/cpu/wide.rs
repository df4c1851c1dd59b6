//! Loops over floats compiled for wide registers, and the smooth functions inside them.
//!
//! The baseline of x86-64 is SSE2. Functions in [`wide!`] also exist compiled for AVX2, and the processor chooses at run
//! time. Rust neither contracts `a * b + c` nor reorders sums of floats, so both give the same bits.

/// Wraps functions whose loops the compiler vectorises: `wide! { fn name(args) { body } }`.
macro_rules! wide {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $visibility fn $name($($argument: $kind),*) {
            #[inline(always)]
            fn body($($argument: $kind),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $kind),*) {
                    body($($argument),*);
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just been asked for the one feature the callee needs.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*);
        }
    )*};
}
pub(super) use wide;

/// Beyond this e^x leaves what a float holds at full precision; sigmoid and tanh have long been flat.
const LARGEST_EXPONENT: f32 = 87.0;

/// 1.5 · 2²³: a float of this size has no fraction bits, so adding it rounds, and the integer lies in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// ln 2 as a short number that products with small integers keep exactly, and the rest.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;

/// e^x without a branch or a call: 2ⁿ times the Taylor series about 0, whose rest is below 2⁻²⁷ within ln 2 / 2.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Not `clamp`, which compiles to the same, nor `min`, which would make a number of NaN.
    let x = if x > LARGEST_EXPONENT { LARGEST_EXPONENT } else { x };
    let x = if x < -LARGEST_EXPONENT { -LARGEST_EXPONENT } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5_040.0));
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * series))));
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3F80_0000));
    series * power
}

/// 1 / (1 + e^−x)
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Right to about 10⁻⁷ of 1, not of small results.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// Scale of the variable in which the normal distribution's tail is a polynomial.
const TAIL_SCALE: f32 = 0.3;

/// With t = 1 / (1 + 0.3 x), the tail of the normal distribution above x ≥ 0 is e^(−x²/2) · t · P(t). Fitted for the least
/// relative error in 0 ≤ x ≤ 14, which is 1.5 · 10⁻⁷; from the constant upwards.
const TAIL: [f32; 8] =
    [0.119_629_3, 0.120_753_966, 0.099_913_44, 0.128_561_81, -0.053_684_03, 0.206_353_95, -0.157_203_36, 0.035_674_844];

/// 1 / √(2π)
const PEAK: f32 = 0.398_942_3;

/// Φ(x) and φ(x) of the normal distribution. Φ is right to 10⁻⁶ of itself down to x = −4 and to 4 · 10⁻⁶ down to −13, where
/// what is lost lies in the rounding of x².
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let t = 1.0 / (1.0 + TAIL_SCALE * x.abs());
    let polynomial = TAIL[4] + t * (TAIL[5] + t * (TAIL[6] + t * TAIL[7]));
    let polynomial = TAIL[0] + t * (TAIL[1] + t * (TAIL[2] + t * (TAIL[3] + t * polynomial)));
    let bell = exp(-0.5 * x * x);
    let tail = bell * t * polynomial;
    (if x > 0.0 { 1.0 - tail } else { tail }, PEAK * bell)
}

/// Independent sums that a row is added up in.
const LANES: usize = 16;

/// Σ f(i) for i in 0..`count`, in an order that depends on `count` alone and fills the registers.
#[inline(always)]
pub(super) fn sum(count: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = count / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    let rest: f32 = (whole..count).map(&f).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest f(i) for i in 0..`count`, −∞ where there are none; of numbers only.
#[inline(always)]
pub(super) fn largest(count: usize, f: impl Fn(usize) -> f32) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let whole = count / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, most) in lanes.iter_mut().enumerate() {
            *most = larger(*most, f(start + lane));
        }
    }
    let rest = (whole..count).map(&f).fold(f32::NEG_INFINITY, larger);
    lanes.iter().fold(rest, |a, &b| larger(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooth_functions_equal_those_of_double_precision_to_two_ulps_of_one() {
        for step in -200_000..=200_000 {
            let x = f64::from(step) * 5e-4;
            let at = f64::from(x as f32);
            assert!((f64::from(sigmoid(x as f32)) - 1.0 / (1.0 + (-at).exp())).abs() < 1.5e-7, "sigmoid of {x}");
            assert!((f64::from(tanh(x as f32)) - at.tanh()).abs() < 2.5e-7, "tanh of {x}");
        }
    }

    #[test]
    fn exponentials_and_the_normal_distribution_are_right_to_a_millionth_of_themselves() {
        for step in -170_000..=170_000 {
            let x = step as f32 * 5e-4;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) / expected - 1.0).abs() < 2.5e-7, "e^{x}");
            let (below, density) = normal(x);
            let at = f64::from(x);
            let expected = 0.5 * libm::erfc(-at / std::f64::consts::SQRT_2);
            let (bound, within) = if x.abs() <= 4.0 { (1e-6, true) } else { (5e-6, x.abs() <= 12.5) };
            let gap = (f64::from(below) - expected).abs();
            assert!(!within || gap < bound * expected, "Φ({x}) is {below}, not {expected}");
            assert!(gap < 3e-7, "Φ({x}) is {below}, not {expected}");
            let expected = (-0.5 * at * at).exp() / std::f64::consts::TAU.sqrt();
            assert!((f64::from(density) - expected).abs() < 2e-7, "φ({x}) is {density}, not {expected}");
        }
        let edges = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN].map(|x| normal(x).0);
        assert!(edges[0] == 1.0 && edges[1] == 0.0 && edges[2].is_nan(), "{edges:?}");
    }

    #[test]
    fn the_largest_is_found_wherever_it_stands() {
        for count in [1, 15, 16, 17, 100] {
            for place in 0..count {
                assert_eq!(largest(count, |i| if i == place { 3.0 } else { -(i as f32) }), 3.0);
            }
        }
        assert_eq!(largest(0, |_| 1.0), f32::NEG_INFINITY);
    }

    #[test]
    fn infinities_are_flat_and_not_a_number_stays() {
        assert!((sigmoid(f32::INFINITY) - 1.0).abs() < 1e-7 && sigmoid(f32::NEG_INFINITY).abs() < 1e-7);
        assert!((tanh(f32::INFINITY) - 1.0).abs() < 1e-7 && (tanh(f32::NEG_INFINITY) + 1.0).abs() < 1e-7);
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn sums_take_every_value_once() {
        for count in [0, 1, 15, 16, 17, 100] {
            assert_eq!(sum(count, |i| i as f32), (0..count).sum::<usize>() as f32);
        }
    }
}
