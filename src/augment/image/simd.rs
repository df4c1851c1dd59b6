//! One loop, compiled for several instruction sets: same bits everywhere, faster where the processor has wide registers.
//!
//! The baseline of x86-64 is SSE2. Loops wrapped in [`multiversion!`] also exist compiled for AVX2, and the processor
//! chooses at run time. Rust never contracts `a * b + c` and never reorders float sums, so both give the same bits.

/// Wraps functions whose bodies the compiler vectorises: `multiversion! { fn name(args) { body } }`.
macro_rules! multiversion {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $visibility fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $kind),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just been asked for the one feature the callee needs.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    )*};
}
pub(crate) use multiversion;

/// Cuts the fraction off. The saturating `as` costs as much as the rest of a loop.
///
/// # Safety
/// `value` lies above -1 and below 256.
#[inline(always)]
pub(crate) unsafe fn cut(value: f32) -> u8 {
    // SAFETY: the caller's promise keeps it far inside an i32.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}

/// Cuts the fraction off after clamping into 0..=255; 0 for NaN.
#[inline(always)]
pub(crate) fn clamp_and_cut(value: f32) -> u8 {
    // Comparisons are one instruction each; `f32::max` takes three, for the sake of NaN, which becomes 0 here too.
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    // SAFETY: just clamped.
    unsafe { cut(value) }
}

/// Columns that the separable filters sum at a time: four registers of AVX2.
pub(crate) const LANES: usize = 64;

/// As many of `values` as `out` has room for. A copy of known length is two stores, one of unknown length a call.
#[inline(always)]
pub(crate) fn store_lanes(values: &[u8; LANES], out: &mut [u8]) {
    if let Some(out) = out.first_chunk_mut::<LANES>() {
        *out = *values;
    } else {
        out.copy_from_slice(&values[..out.len()]);
    }
}

/// What the separable filters add: the upper half of a product, a value with 7 fraction bits times a weight in 1/65536.
#[inline(always)]
fn weighted(value: u16, weight: u16) -> u16 {
    ((u32::from(value) * u32::from(weight)) >> 16) as u16
}

/// `sums += weight · (left + right)`. `AVX2` tells that the caller is compiled for it, where the compiler by itself would
/// widen every lane to 32 bits.
///
/// # Safety
/// `AVX2` is true only where the processor has AVX2.
#[inline(always)]
pub(crate) unsafe fn add_weighted_pairs<const AVX2: bool>(
    sums: &mut [u16; LANES],
    left: &[u16; LANES],
    right: &[u16; LANES],
    weight: u16,
) {
    #[cfg(target_arch = "x86_64")]
    if AVX2 {
        // SAFETY: the caller's promise.
        return unsafe { avx2::add_weighted_pairs(sums, left, right, weight) };
    }
    for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
        *sum += weighted(left + right, weight);
    }
}

/// `sums += weight · values`, values given 7 fraction bits.
///
/// # Safety
/// `AVX2` is true only where the processor has AVX2.
#[inline(always)]
pub(crate) unsafe fn add_weighted_bytes<const AVX2: bool>(sums: &mut [u16; LANES], values: &[u8; LANES], weight: u16) {
    #[cfg(target_arch = "x86_64")]
    if AVX2 {
        // SAFETY: the caller's promise.
        return unsafe { avx2::add_weighted_bytes(sums, values, weight) };
    }
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += weighted(u16::from(*value) << 7, weight);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi16, _mm256_cvtepu8_epi16, _mm256_loadu_si256,
        _mm256_mulhi_epu16, _mm256_set1_epi16, _mm256_slli_epi16, _mm256_storeu_si256,
    };

    use super::LANES;

    /// 16-bit lanes of a register.
    const STEP: usize = 16;

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(sums: &mut [u16], values: __m256i, weight: __m256i) {
        debug_assert_eq!(sums.len(), STEP);
        let at = sums.as_mut_ptr().cast::<__m256i>();
        // SAFETY: reads and writes the sixteen values of `sums`.
        unsafe {
            let sum = _mm256_add_epi16(_mm256_loadu_si256(at), _mm256_mulhi_epu16(values, weight));
            _mm256_storeu_si256(at, sum);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add_weighted_pairs(sums: &mut [u16; LANES], left: &[u16; LANES], right: &[u16; LANES], weight: u16) {
        let weight = _mm256_set1_epi16(weight as i16);
        let load = |values: &[u16]| {
            // SAFETY: reads the sixteen values of a chunk.
            unsafe { _mm256_loadu_si256(values.as_ptr().cast::<__m256i>()) }
        };
        for ((sums, left), right) in
            sums.chunks_exact_mut(STEP).zip(left.chunks_exact(STEP)).zip(right.chunks_exact(STEP))
        {
            add(sums, _mm256_add_epi16(load(left), load(right)), weight);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add_weighted_bytes(sums: &mut [u16; LANES], values: &[u8; LANES], weight: u16) {
        let weight = _mm256_set1_epi16(weight as i16);
        for (sums, values) in sums.chunks_exact_mut(STEP).zip(values.chunks_exact(STEP)) {
            // SAFETY: reads the sixteen bytes of a chunk.
            let values = unsafe { _mm_loadu_si128(values.as_ptr().cast::<__m128i>()) };
            add(sums, _mm256_slli_epi16(_mm256_cvtepu8_epi16(values), 7), weight);
        }
    }
}
