//! What a perceptron has between its two products, on slices.
use super::wide::{normal, sigmoid, wide};

/// Slope of the logistic function inside QuickGELU.
const QUICK_SLOPE: f32 = 1.702;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Gelu {
    /// x Φ(x)
    Exact,
    /// x σ(1.702 x)
    Quick,
}

wide! {
    /// Of `values` into `out`.
    pub(super) fn activate(gelu: Gelu, values: &[f32], out: &mut [f32]) {
        let out = &mut out[..values.len()];
        match gelu {
            Gelu::Exact => {
                for i in 0..values.len() {
                    out[i] = values[i] * normal(values[i]).0;
                }
            }
            Gelu::Quick => {
                for i in 0..values.len() {
                    out[i] = values[i] * sigmoid(QUICK_SLOPE * values[i]);
                }
            }
        }
    }

    /// [`activate`] again, and the `gradient` of its result into that of `values`.
    pub(super) fn activate_back(gelu: Gelu, values: &[f32], out: &mut [f32], gradient: &mut [f32]) {
        let (out, gradient) = (&mut out[..values.len()], &mut gradient[..values.len()]);
        match gelu {
            Gelu::Exact => {
                for i in 0..values.len() {
                    let (below, density) = normal(values[i]);
                    out[i] = values[i] * below;
                    gradient[i] *= below + values[i] * density;
                }
            }
            Gelu::Quick => {
                for i in 0..values.len() {
                    let open = sigmoid(QUICK_SLOPE * values[i]);
                    out[i] = values[i] * open;
                    gradient[i] *= open + QUICK_SLOPE * values[i] * open * (1.0 - open);
                }
            }
        }
    }
}
