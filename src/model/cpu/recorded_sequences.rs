//! The kernels for sequences as tensor operations whose backward autodiff knows. `None` where the tensors live elsewhere.
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::channel_norm::{self, ChannelNormalizer};
use super::gru::{self, Sizes, Tile};
use super::recorded::{plain, tensor, tracked};

/// States `[sequences, frames, width]` of a gated recurrent unit that starts from zeros.
///
/// `inputs` `[sequences, frames, 3 · width]` is what the inputs contribute to the gates, without their bias; `weight` is
/// `[3 · width, width]`, `biases` are the inputs' and the states'.
pub(in crate::model) fn gru(inputs: &Tensor<3>, weight: &Tensor<2>, biases: [&Tensor<1>; 2]) -> Option<Tensor<3>> {
    let ([sequences, frames, _], [_, width]) = (inputs.dims(), weight.dims());
    let sizes = Sizes { sequences, frames, width };
    let shape = [sequences, frames, width];
    let [input_bias, hidden_bias] = biases;
    if ![inputs.is_autodiff(), weight.is_autodiff(), input_bias.is_autodiff(), hidden_bias.is_autodiff()]
        .contains(&true)
    {
        let (inputs, weight) = (plain(inputs)?, plain(weight)?);
        let (input_bias, hidden_bias) = (plain(input_bias)?, plain(hidden_bias)?);
        let biases = [&input_bias, &hidden_bias].map(FlexTensor::storage);
        let (out, _) = gru::forward(inputs.storage(), weight.storage(), biases, false, sizes);
        return Some(Tensor::from_primitive::<Flex>(tensor(out, shape)));
    }
    let (inputs, inputs_node) = tracked(inputs)?.into_parts();
    let (weight, weight_node) = tracked(weight)?.into_parts();
    let (input_bias, input_bias_node) = tracked(input_bias)?.into_parts();
    let (hidden_bias, hidden_bias_node) = tracked(hidden_bias)?.into_parts();
    let (inputs, weight) = (inputs.to_contiguous(), weight.to_contiguous());
    let (input_bias, hidden_bias) = (input_bias.to_contiguous(), hidden_bias.to_contiguous());
    let biases = [&input_bias, &hidden_bias].map(FlexTensor::storage);
    let nodes = [inputs_node, weight_node, input_bias_node, hidden_bias_node];
    let run = |kept: bool| {
        let (out, tiles) = gru::forward(inputs.storage(), weight.storage(), biases, kept, sizes);
        (tensor(out, shape), tiles)
    };
    Some(Tensor::from_primitive::<Autodiff<Flex>>(
        match GruBackward.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(operation) => {
                let (out, tiles) = run(true);
                operation.finish(GruState { weight: weight.clone(), tiles, sizes }, out)
            }
            OpsKind::UnTracked(operation) => operation.finish(run(false).0),
        },
    ))
}

#[derive(Debug)]
struct GruBackward;

#[derive(Debug, Clone)]
struct GruState {
    weight: FlexTensor,
    tiles: Vec<Tile>,
    sizes: Sizes,
}

impl Backward<Flex, 4> for GruBackward {
    type State = GruState;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let GruState { weight, tiles, sizes } = ops.state;
        let Sizes { sequences, frames, width } = sizes;
        let out_gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let [of_inputs, of_weight, of_input_bias, of_hidden_bias] =
            gru::backward(out_gradient.storage(), weight.storage(), &tiles, sizes);
        let found = [
            tensor(of_inputs, [sequences, frames, 3 * width]),
            tensor(of_weight, [3 * width, width]),
            tensor(of_input_bias, [3 * width]),
            tensor(of_hidden_bias, [3 * width]),
        ];
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// Normalisation of each row of `values` `[rows, channels]` plus `bias` over its channels by its unbiased variance, times
/// `weight`, plus `shift`, then ReLU where asked for.
pub(in crate::model) fn channel_norm(
    values: &Tensor<2>,
    [bias, weight, shift]: [&Tensor<1>; 3],
    epsilon: f64,
    relu: bool,
) -> Option<Tensor<2>> {
    let shape = values.dims();
    let normalizer = |bias: &FlexTensor, weight: &FlexTensor, shift: &FlexTensor| {
        let [bias, weight, shift] = [bias, weight, shift].map(|of| of.storage().to_vec());
        ChannelNormalizer { bias, weight, shift, epsilon: epsilon as f32, relu }
    };
    if ![values.is_autodiff(), bias.is_autodiff(), weight.is_autodiff(), shift.is_autodiff()].contains(&true) {
        let normalizer = normalizer(&plain(bias)?, &plain(weight)?, &plain(shift)?);
        let (out, _) = channel_norm::forward(plain(values)?.storage(), &normalizer);
        return Some(Tensor::from_primitive::<Flex>(tensor(out, shape)));
    }
    let (values, values_node) = tracked(values)?.into_parts();
    let (bias, bias_node) = tracked(bias)?.into_parts();
    let (weight, weight_node) = tracked(weight)?.into_parts();
    let (shift, shift_node) = tracked(shift)?.into_parts();
    let values = values.to_contiguous();
    let normalizer = normalizer(&bias.to_contiguous(), &weight.to_contiguous(), &shift.to_contiguous());
    let (out, moments) = channel_norm::forward(values.storage(), &normalizer);
    let out = tensor(out, shape);
    let prepared = ChannelNormBackward.prepare::<NoCheckpointing>([values_node, bias_node, weight_node, shift_node]);
    Some(Tensor::from_primitive::<Autodiff<Flex>>(match prepared.compute_bound().stateful() {
        OpsKind::Tracked(operation) => operation.finish((values, moments, normalizer), out),
        OpsKind::UnTracked(operation) => operation.finish(out),
    }))
}

#[derive(Debug)]
struct ChannelNormBackward;

impl Backward<Flex, 4> for ChannelNormBackward {
    type State = (FlexTensor, Vec<f32>, ChannelNormalizer);

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (values, moments, normalizer) = ops.state;
        let mut gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let of_parameters = channel_norm::backward(values.storage(), &moments, gradient.storage_mut(), &normalizer);
        let channels = normalizer.bias.len();
        let [values_node, parameter_nodes @ ..] = ops.parents;
        if let Some(node) = values_node {
            gradients.register::<Flex>(node.id, gradient);
        }
        for (node, gradient) in parameter_nodes.into_iter().zip(of_parameters) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, tensor(gradient, [channels]));
            }
        }
    }
}
