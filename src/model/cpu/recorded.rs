//! The kernels as tensor operations whose backward autodiff knows. `None` where the tensors live elsewhere.
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};
use burn::tensor::{DType, Tensor, TensorData};

use super::batch_norm::{self, Moments, Normalizer};
use super::convolution::{self, Geometry};

/// Convolution of `input` `[images, height, width, channels]` with `weight` `[out_channels, channels, kernel, kernel]`,
/// to `[images, out_height, out_width, out_channels]`.
pub(in crate::model) fn convolve(
    input: &Tensor<4>,
    weight: &Tensor<4>,
    stride: usize,
    padding: usize,
) -> Option<Tensor<4>> {
    convolve_padded(input, weight, stride, [[padding; 2]; 2])
}

/// Convolution of `input` `[sequences, steps, channels]` with `weight` `[out_channels, channels, kernel]` and so many
/// zeros on the left and on the right, to `[sequences, out_steps, out_channels]`.
pub(in crate::model) fn convolve_steps(
    input: &Tensor<3>,
    weight: &Tensor<3>,
    stride: usize,
    padding: [usize; 2],
) -> Option<Tensor<3>> {
    let row = |of: &Tensor<3>, axis: usize| of.clone().unsqueeze_dim::<4>(axis);
    convolve_padded(&row(input, 1), &row(weight, 2), stride, [[0, 0], padding]).map(|out| out.squeeze_dim(1))
}

/// `padding` is above and below, then left and right.
fn convolve_padded(
    input: &Tensor<4>,
    weight: &Tensor<4>,
    stride: usize,
    padding: [[usize; 2]; 2],
) -> Option<Tensor<4>> {
    let ([images, height, width, channels], [out_channels, _, rows, columns]) = (input.dims(), weight.dims());
    let out = |side: usize, around: [usize; 2], kernel: usize| (side + around[0] + around[1] - kernel) / stride + 1;
    let (out_height, out_width) = (out(height, padding[0], rows), out(width, padding[1], columns));
    let (kernel, padding) = ([rows, columns], [padding[0][0], padding[1][0]]);
    let geometry =
        Geometry { images, height, width, channels, kernel, stride, padding, out_height, out_width, out_channels };
    let run = |input: &FlexTensor, weight: &FlexTensor| {
        let taps = convolution::taps_first(weight.storage(), &geometry);
        let out = convolution::forward(input.storage(), &taps, &geometry);
        (taps, tensor(out, [images, out_height, out_width, out_channels]))
    };
    if !input.is_autodiff() && !weight.is_autodiff() {
        return Some(Tensor::from_primitive::<Flex>(run(&plain(input)?, &plain(weight)?).1));
    }
    let (input, input_node) = tracked(input)?.into_parts();
    let (weight, weight_node) = tracked(weight)?.into_parts();
    let input = input.to_contiguous();
    let (taps, out) = run(&input, &weight.to_contiguous());
    let prepared = ConvolutionBackward.prepare::<NoCheckpointing>([input_node, weight_node]);
    Some(Tensor::from_primitive::<Autodiff<Flex>>(match prepared.compute_bound().stateful() {
        OpsKind::Tracked(operation) => operation.finish(ConvolutionState { input, taps, geometry }, out),
        OpsKind::UnTracked(operation) => operation.finish(out),
    }))
}

#[derive(Debug)]
struct ConvolutionBackward;

#[derive(Debug, Clone)]
struct ConvolutionState {
    input: FlexTensor,
    taps: Vec<f32>,
    geometry: Geometry,
}

impl Backward<Flex, 2> for ConvolutionBackward {
    type State = ConvolutionState;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [input_node, weight_node] = ops.parents;
        let ConvolutionState { input, taps, geometry: g } = ops.state;
        let out_gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (input_gradient, weight_gradient) =
            convolution::backward(input.storage(), &taps, out_gradient.storage(), input_node.is_some(), &g);
        if let (Some(node), Some(gradient)) = (input_node, input_gradient) {
            gradients.register::<Flex>(node.id, tensor(gradient, [g.images, g.height, g.width, g.channels]));
        }
        if let Some(node) = weight_node {
            let shape = [g.out_channels, g.channels, g.kernel[0], g.kernel[1]];
            gradients.register::<Flex>(node.id, tensor(weight_gradient, shape));
        }
    }
}

/// Batch normalisation of `values` `[rows, channels]` with the batch's own moments, then ReLU where asked for.
///
/// Returns the output and the moments: mean and biased variance, `[channels]`, outside autodiff.
pub(in crate::model) fn batch_norm_train(
    values: &Tensor<2>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    epsilon: f64,
    relu: bool,
) -> Option<(Tensor<2>, Tensor<1>, Tensor<1>)> {
    let [rows, channels] = values.dims();
    let run = |values: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor| {
        let moments = batch_norm::moments(values.storage(), channels);
        let normalizer = Normalizer::new(&moments, weight.storage(), bias.storage(), epsilon, relu);
        let out = tensor(batch_norm::forward(values.storage(), &normalizer), [rows, channels]);
        (out, normalizer, moments)
    };
    let (out, moments) = if values.is_autodiff() || weight.is_autodiff() || bias.is_autodiff() {
        let (values, values_node) = tracked(values)?.into_parts();
        let (weight, weight_node) = tracked(weight)?.into_parts();
        let (bias, bias_node) = tracked(bias)?.into_parts();
        let values = values.to_contiguous();
        let (out, normalizer, moments) = run(&values, &weight.to_contiguous(), &bias.to_contiguous());
        let prepared = BatchNormBackward.prepare::<NoCheckpointing>([values_node, weight_node, bias_node]);
        let out = match prepared.compute_bound().stateful() {
            OpsKind::Tracked(operation) => operation.finish((values, normalizer), out),
            OpsKind::UnTracked(operation) => operation.finish(out),
        };
        (Tensor::from_primitive::<Autodiff<Flex>>(out), moments)
    } else {
        let (out, _, moments) = run(&plain(values)?, &plain(weight)?, &plain(bias)?);
        (Tensor::from_primitive::<Flex>(out), moments)
    };
    let moment = |values| Tensor::from_primitive::<Flex>(tensor(values, [channels]));
    Some((out, moment(moments.mean), moment(moments.variance)))
}

#[derive(Debug)]
struct BatchNormBackward;

impl Backward<Flex, 3> for BatchNormBackward {
    type State = (FlexTensor, Normalizer);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (values, normalizer) = ops.state;
        let mut gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (of_weight, of_bias) = batch_norm::backward(values.storage(), gradient.storage_mut(), &normalizer);
        let channels = of_weight.len();
        let [values_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = values_node {
            gradients.register::<Flex>(node.id, gradient);
        }
        if let Some(node) = weight_node {
            gradients.register::<Flex>(node.id, tensor(of_weight, [channels]));
        }
        if let Some(node) = bias_node {
            gradients.register::<Flex>(node.id, tensor(of_bias, [channels]));
        }
    }
}

/// Normalisation of `values` `[rows, channels]` with given moments, outside autodiff only.
pub(in crate::model) fn normalize(
    values: &Tensor<2>,
    [mean, variance]: [&Tensor<1>; 2],
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    epsilon: f64,
    relu: bool,
) -> Option<Tensor<2>> {
    let floats = |of: &Tensor<1>| Some(plain(of)?.storage().to_vec());
    let values = plain(values)?;
    let moments = Moments { mean: floats(mean)?, variance: floats(variance)? };
    let normalizer = Normalizer::new(&moments, &floats(weight)?, &floats(bias)?, epsilon, relu);
    let out = batch_norm::forward(values.storage(), &normalizer);
    Some(Tensor::from_primitive::<Flex>(tensor(out, [out_rows(&values), moments.mean.len()])))
}

fn out_rows(values: &FlexTensor) -> usize {
    values.layout().shape()[0]
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The contiguous values of a tensor outside autodiff.
pub(super) fn plain<const D: usize>(of: &Tensor<D>) -> Option<FlexTensor> {
    let primitive = of.clone().try_into_primitive::<Flex>().ok()?;
    (primitive.dtype() == DType::F32).then(|| primitive.to_contiguous())
}

/// A tensor as autodiff sees it; one that does not take part becomes a constant.
pub(super) fn tracked<const D: usize>(of: &Tensor<D>) -> Option<burn::backend::tensor::FloatTensor<Autodiff<Flex>>> {
    let primitive = of.clone().autodiff().try_into_primitive::<Autodiff<Flex>>().ok()?;
    (primitive.dtype() == DType::F32).then_some(primitive)
}
