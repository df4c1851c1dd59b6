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
/// `value` lies in 0..=255.
#[inline(always)]
pub(crate) unsafe fn cut(value: f32) -> u8 {
    // SAFETY: the caller's promise keeps it far inside an i32.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}

/// Cuts the fraction off after clamping into 0..=255; 0 for NaN.
#[inline(always)]
pub(crate) fn clamp_and_cut(value: f32) -> u8 {
    // `max` first: it turns NaN into 0.
    let value = value.max(0.0).min(255.0);
    // SAFETY: just clamped.
    unsafe { cut(value) }
}
