//! A gated recurrent unit (Cho et al. 2014) with PyTorch's equations and parameter names.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::cpu;
use super::init::Initializer;

/// One layer: r = σ(W_ir x + b_ir + W_hr h + b_hr), u = σ(W_iz x + b_iz + W_hz h + b_hz),
/// n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)), h′ = (1 − u) ⊙ n + u ⊙ h, from h = 0.
#[derive(Module, Debug)]
pub struct Gru {
    /// Of the inputs, gates in the order r, u, n: `[3 · width, inputs]`.
    pub weight_ih_l0: Param<Tensor<2>>,
    /// Of the states: `[3 · width, width]`.
    pub weight_hh_l0: Param<Tensor<2>>,
    /// `[3 · width]`
    pub bias_ih_l0: Param<Tensor<1>>,
    /// `[3 · width]`; its last third is inside the reset gate's reach.
    pub bias_hh_l0: Param<Tensor<1>>,
}

impl Gru {
    /// Parameters below `path`, uniform within 1/√width as PyTorch starts them.
    pub fn new(path: &str, inputs: usize, width: usize, init: &Initializer<'_>) -> Self {
        let bound = 1.0 / (width as f64).sqrt();
        let named = |name: &str| format!("{path}.{name}");
        Self {
            weight_ih_l0: init.uniform(&named("weight_ih_l0"), [3 * width, inputs], bound),
            weight_hh_l0: init.uniform(&named("weight_hh_l0"), [3 * width, width], bound),
            bias_ih_l0: init.uniform(&named("bias_ih_l0"), [3 * width], bound),
            bias_hh_l0: init.uniform(&named("bias_hh_l0"), [3 * width], bound),
        }
    }

    /// Columns of a state.
    pub fn width(&self) -> usize {
        self.weight_hh_l0.val().dims()[1]
    }

    /// The states after each frame.
    ///
    /// # Shapes
    /// `[sequences, frames, inputs]` to `[sequences, frames, width]`.
    pub fn forward(&self, inputs: Tensor<3>) -> Tensor<3> {
        let [sequences, frames, columns] = inputs.dims();
        let flat = inputs.reshape([sequences * frames, columns]);
        // All frames in one product: only what depends on the state has to wait for it.
        let gates = flat.matmul(self.weight_ih_l0.val().transpose()); // [sequences · frames, 3 · width]
        let gates = gates.reshape([sequences, frames, 3 * self.width()]);
        let (weight, biases) = (self.weight_hh_l0.val(), [self.bias_ih_l0.val(), self.bias_hh_l0.val()]);
        match cpu::gru(&gates, &weight, [&biases[0], &biases[1]]) {
            Some(states) => states,
            None => compose(gates, weight, biases),
        }
    }
}

/// The recurrence from Burn's own operations, one product per frame.
fn compose(gates: Tensor<3>, weight: Tensor<2>, [input_bias, hidden_bias]: [Tensor<1>; 2]) -> Tensor<3> {
    let ([sequences, frames, _], [_, width]) = (gates.dims(), weight.dims());
    let gates = gates + input_bias.unsqueeze(); // [sequences, frames, 3 · width]
    let (weight, hidden_bias) = (weight.transpose(), hidden_bias.unsqueeze::<2>()); // [width, 3 · width]
    let mut state = Tensor::<2>::zeros([sequences, width], &gates.device());
    let mut states = Vec::with_capacity(frames);
    for frame in 0..frames {
        let input = gates.clone().narrow(1, frame, 1).squeeze_dim::<2>(1); // [sequences, 3 · width]
        let hidden = state.clone().matmul(weight.clone()) + hidden_bias.clone(); // [sequences, 3 · width]
        let third = |of: &Tensor<2>, index: usize| of.clone().narrow(1, index * width, width);
        let reset = sigmoid(third(&input, 0) + third(&hidden, 0));
        let update = sigmoid(third(&input, 1) + third(&hidden, 1));
        let new = tanh(third(&input, 2) + reset * third(&hidden, 2));
        state = new.clone() + update * (state - new); // [sequences, width]
        states.push(state.clone());
    }
    Tensor::stack(states, 1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::InitOptions;
    use crate::model::waves::{values, waves};

    /// States, and gradients of gates, weight and both biases, for Σ states · coefficients.
    fn run(kernel: bool, [sequences, frames, width]: [usize; 3]) -> [Vec<f32>; 5] {
        let device = Device::flex().autodiff();
        let gates = waves([sequences, frames, 3 * width], 0.1, &device).require_grad();
        let weight = (waves([3 * width, width], 0.6, &device) * 0.5).require_grad();
        let biases = [1.1, 2.1].map(|phase| waves([3 * width], phase, &device).require_grad());
        let states = if kernel {
            cpu::gru(&gates, &weight, [&biases[0], &biases[1]]).expect("on flex")
        } else {
            compose(gates.clone(), weight.clone(), biases.clone())
        };
        let coefficients = waves([sequences, frames, width], 0.9, &device);
        let gradients = (states.clone() * coefficients).sum_dims(&[0, 1, 2]).backward();
        let of_bias = |bias: &Tensor<1>| values(bias.grad(&gradients).expect("tracked"));
        [
            values(states),
            values(gates.grad(&gradients).expect("tracked")),
            values(weight.grad(&gradients).expect("tracked")),
            of_bias(&biases[0]),
            of_bias(&biases[1]),
        ]
    }

    #[test]
    fn kernel_for_the_cpu_equals_the_composed_form_and_its_gradients() {
        // One frame, one sequence, more sequences than one tile and than all tiles hold, widths off the registers.
        for sizes in [[3, 5, 4], [1, 7, 3], [2, 1, 8], [40, 6, 17], [300, 3, 5]] {
            for (index, (a, b)) in run(true, sizes).iter().zip(&run(false, sizes)).enumerate() {
                let scale = b.iter().fold(1e-6_f32, |m, x| m.max(x.abs()));
                let gap = a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / scale;
                // Sums over 900 frames in another order.
                assert!(a.len() == b.len() && gap < 3e-5, "value {index} of {sizes:?}: {gap}");
            }
        }
    }

    #[test]
    fn result_has_the_same_bits_with_one_thread_and_with_three() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| run(true, [70, 4, 9]))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn states_outside_autodiff_are_the_same_and_record_nothing() {
        let device = Device::flex().autodiff();
        let gru = Gru::new("g_ar", 3, 6, &Initializer::new(InitOptions { seed: 1, compat_torch: false }, &device));
        let inputs = waves([5, 8, 3], 0.3, &device);
        let states = gru.forward(inputs.clone());
        let plain = gru.valid().forward(inputs.inner());
        assert!(states.is_tracked() && !plain.is_autodiff());
        assert_eq!(values(states), values(plain));
    }

    #[test]
    fn a_state_depends_on_no_later_frame_and_no_other_sequence() {
        let device = Device::flex();
        let gru = Gru::new("g_ar", 2, 4, &Initializer::new(InitOptions { seed: 1, compat_torch: false }, &device));
        let inputs = waves([2, 6, 2], 0.3, &device);
        let mut changed = values(inputs.clone());
        changed[12 + 2 * 4] += 1.0; // sequence 1, frame 4
        let changed = Tensor::from_data(TensorData::new(changed, [2, 6, 2]), &device);
        let (a, b) = (values(gru.forward(inputs)), values(gru.forward(changed)));
        let first_moved = 4 * (6 + 4);
        assert_eq!(a[..first_moved], b[..first_moved]);
        assert!(a[first_moved..].iter().zip(&b[first_moved..]).all(|(a, b)| a != b));
    }
}
