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
fn exp(x: f32) -> f32 {
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
