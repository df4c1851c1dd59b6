//! The kernels for transformers as tensor operations whose backward autodiff knows. `None` where the tensors live elsewhere.
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};

use super::activation::Gelu;
use super::attention::Heads;
use super::image_tokens::{self, Patches};
use super::layer_norm::{self, LayerNormalizer};
use super::linear::{self, Layer};
use super::recorded::{plain, tensor, tracked};
use super::residual::{self, Between, Half, Tile};

/// A product's weights `[outputs, inputs]` and bias `[outputs]`.
#[derive(Debug, Clone)]
pub(in crate::model) struct Affine {
    pub(in crate::model) weight: Tensor<2>,
    pub(in crate::model) bias: Tensor<1>,
}

/// A layer normalisation's weight and shift, `[width]` both, and what it adds to the variance.
#[derive(Debug, Clone)]
pub(in crate::model) struct Norm {
    pub(in crate::model) weight: Tensor<1>,
    pub(in crate::model) shift: Tensor<1>,
    pub(in crate::model) epsilon: f64,
}

/// One half of a block, x + factors · f(norm x).
#[derive(Debug, Clone)]
pub(in crate::model) struct ResidualHalf {
    pub(in crate::model) norm: Norm,
    /// From width to what lies between, and from there to width.
    pub(in crate::model) products: [Affine; 2],
    /// As many as x has values; `None`: all are 1.
    pub(in crate::model) factors: Option<Vec<f32>>,
}

/// x Wᵀ + b: `[rows, inputs]` to `[rows, outputs]`.
pub(in crate::model) fn linear(x: &Tensor<2>, affine: &Affine) -> Option<Tensor<2>> {
    let ([rows, inputs], [outputs, _]) = (x.dims(), affine.weight.dims());
    let layer = Layer { rows, inputs, outputs };
    let run = |x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor| {
        tensor(linear::forward(x.storage(), weight.storage(), bias.storage(), &layer), [rows, outputs])
    };
    if ![x.is_autodiff(), affine.weight.is_autodiff(), affine.bias.is_autodiff()].contains(&true) {
        let out = run(&plain(x)?, &plain(&affine.weight)?, &plain(&affine.bias)?);
        return Some(Tensor::from_primitive::<Flex>(out));
    }
    let (x, x_node) = tracked(x)?.into_parts();
    let (weight, weight_node) = tracked(&affine.weight)?.into_parts();
    let (bias, bias_node) = tracked(&affine.bias)?.into_parts();
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let out = run(&x, &weight, &bias.to_contiguous());
    let prepared = LinearBackward.prepare::<NoCheckpointing>([x_node, weight_node, bias_node]);
    Some(Tensor::from_primitive::<Autodiff<Flex>>(match prepared.compute_bound().stateful() {
        OpsKind::Tracked(operation) => operation.finish(LinearState { x, weight, layer }, out),
        OpsKind::UnTracked(operation) => operation.finish(out),
    }))
}

#[derive(Debug)]
struct LinearBackward;

#[derive(Debug, Clone)]
struct LinearState {
    x: FlexTensor,
    weight: FlexTensor,
    layer: Layer,
}

impl Backward<Flex, 3> for LinearBackward {
    type State = LinearState;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node, bias_node] = ops.parents;
        let LinearState { x, weight, layer } = ops.state;
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let want_x = x_node.is_some();
        let (of_x, [of_weight, of_bias]) =
            linear::backward(x.storage(), weight.storage(), gradient.storage(), want_x, &layer);
        if let (Some(node), Some(of_x)) = (x_node, of_x) {
            gradients.register::<Flex>(node.id, tensor(of_x, [layer.rows, layer.inputs]));
        }
        if let Some(node) = weight_node {
            gradients.register::<Flex>(node.id, tensor(of_weight, [layer.outputs, layer.inputs]));
        }
        if let Some(node) = bias_node {
            gradients.register::<Flex>(node.id, tensor(of_bias, [layer.outputs]));
        }
    }
}

/// Normalisation of each row of `x` `[rows, width]`.
pub(in crate::model) fn layer_norm(x: &Tensor<2>, norm: &Norm) -> Option<Tensor<2>> {
    let shape = x.dims();
    if ![x.is_autodiff(), norm.weight.is_autodiff(), norm.shift.is_autodiff()].contains(&true) {
        let normalizer = normalizer(&plain(&norm.weight)?, &plain(&norm.shift)?, norm.epsilon);
        let (out, _) = layer_norm::forward(plain(x)?.storage(), &normalizer);
        return Some(Tensor::from_primitive::<Flex>(tensor(out, shape)));
    }
    let (x, x_node) = tracked(x)?.into_parts();
    let (weight, weight_node) = tracked(&norm.weight)?.into_parts();
    let (shift, shift_node) = tracked(&norm.shift)?.into_parts();
    let x = x.to_contiguous();
    let normalizer = normalizer(&weight.to_contiguous(), &shift.to_contiguous(), norm.epsilon);
    let (out, moments) = layer_norm::forward(x.storage(), &normalizer);
    let out = tensor(out, shape);
    let prepared = LayerNormBackward.prepare::<NoCheckpointing>([x_node, weight_node, shift_node]);
    Some(Tensor::from_primitive::<Autodiff<Flex>>(match prepared.compute_bound().stateful() {
        OpsKind::Tracked(operation) => operation.finish((x, moments, normalizer), out),
        OpsKind::UnTracked(operation) => operation.finish(out),
    }))
}

fn normalizer(weight: &FlexTensor, shift: &FlexTensor, epsilon: f64) -> LayerNormalizer {
    let [weight, shift] = [weight, shift].map(|of| of.storage().to_vec());
    LayerNormalizer { weight, shift, epsilon: epsilon as f32 }
}

#[derive(Debug)]
struct LayerNormBackward;

impl Backward<Flex, 3> for LayerNormBackward {
    type State = (FlexTensor, Vec<f32>, LayerNormalizer);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (x, moments, normalizer) = ops.state;
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let [of_x, of_weight, of_shift] = layer_norm::backward(x.storage(), &moments, gradient.storage(), &normalizer);
        let width = normalizer.width();
        let found = [tensor(of_x, [moments.len() / 2, width]), tensor(of_weight, [width]), tensor(of_shift, [width])];
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// `patches` `[images, patches, width]` behind the class token `[width]`, with `positions` `[patches + 1, width]` added.
pub(in crate::model) fn image_tokens(
    patches: &Tensor<3>,
    class: &Tensor<1>,
    positions: &Tensor<2>,
) -> Option<Tensor<3>> {
    let [images, count, width] = patches.dims();
    let sizes = Patches { images, patches: count, width };
    let run = |patches: &FlexTensor, class: &FlexTensor, positions: &FlexTensor| {
        let out = image_tokens::forward(patches.storage(), class.storage(), positions.storage(), &sizes);
        tensor(out, [images, count + 1, width])
    };
    if ![patches.is_autodiff(), class.is_autodiff(), positions.is_autodiff()].contains(&true) {
        let out = run(&plain(patches)?, &plain(class)?, &plain(positions)?);
        return Some(Tensor::from_primitive::<Flex>(out));
    }
    let ((patches, patches_node), (class, class_node)) = (parts(patches)?, parts(class)?);
    let (positions, positions_node) = parts(positions)?;
    let out = run(&patches, &class, &positions);
    let prepared = ImageTokensBackward.prepare::<NoCheckpointing>([patches_node, class_node, positions_node]);
    Some(Tensor::from_primitive::<Autodiff<Flex>>(match prepared.compute_bound().stateful() {
        OpsKind::Tracked(operation) => operation.finish(sizes, out),
        OpsKind::UnTracked(operation) => operation.finish(out),
    }))
}

#[derive(Debug)]
struct ImageTokensBackward;

impl Backward<Flex, 3> for ImageTokensBackward {
    type State = Patches;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let sizes @ Patches { images, patches, width } = ops.state;
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let [of_patches, of_class, of_positions] = image_tokens::backward(gradient.storage(), &sizes);
        let found = [
            tensor(of_patches, [images, patches, width]),
            tensor(of_class, [width]),
            tensor(of_positions, [patches + 1, width]),
        ];
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// Attention of the tokens of each row to each other: `[rows, tokens, width]` to the same. The first product gives queries, keys and
/// values side by side, each of `heads` parts; where it is `causal` no token attends to what comes behind it.
pub(in crate::model) fn attend(x: &Tensor<3>, half: ResidualHalf, heads: usize, causal: bool) -> Option<Tensor<3>> {
    let [_, tokens, width] = x.dims();
    residual(x, half, Between::Attention(Heads { tokens, width, heads, causal }))
}

/// A perceptron of each token: `[rows, tokens, width]` to the same.
pub(in crate::model) fn perceive(x: &Tensor<3>, half: ResidualHalf, gelu: Gelu) -> Option<Tensor<3>> {
    residual(x, half, Between::Activation(gelu))
}

/// A half's parameters where the kernels read them.
#[derive(Debug, Clone)]
struct HalfState {
    x: FlexTensor,
    normalizer: LayerNormalizer,
    weights: [FlexTensor; 2],
    biases: [FlexTensor; 2],
    factors: Option<Vec<f32>>,
    between: Between,
    tiles: Vec<Tile>,
}

impl HalfState {
    fn half(&self) -> Half<'_> {
        Half {
            norm: &self.normalizer,
            weights: self.weights.each_ref().map(FlexTensor::storage),
            biases: self.biases.each_ref().map(FlexTensor::storage),
            factors: self.factors.as_deref(),
        }
    }

    fn forward(&self, kept: bool, shape: [usize; 3]) -> (FlexTensor, Vec<Tile>) {
        let (out, tiles) = residual::forward(self.x.storage(), &self.half(), &self.between, kept);
        (tensor(out, shape), tiles)
    }
}

fn residual(x: &Tensor<3>, half: ResidualHalf, between: Between) -> Option<Tensor<3>> {
    let shape = x.dims();
    let ResidualHalf { norm, products: [first, second], factors } = half;
    let vectors = [&norm.weight, &norm.shift, &first.bias, &second.bias];
    let matrices = [&first.weight, &second.weight];
    let state = |x, [weight, shift, first_bias, second_bias]: [FlexTensor; 4], weights| HalfState {
        x,
        normalizer: normalizer(&weight, &shift, norm.epsilon),
        weights,
        biases: [first_bias, second_bias],
        factors,
        between,
        tiles: Vec::new(),
    };
    if !x.is_autodiff() && !vectors.iter().any(|of| of.is_autodiff()) && !matrices.iter().any(|of| of.is_autodiff()) {
        let [weight, shift, first_bias, second_bias] = vectors.map(plain);
        let [first, second] = matrices.map(plain);
        let state = state(plain(x)?, [weight?, shift?, first_bias?, second_bias?], [first?, second?]);
        return Some(Tensor::from_primitive::<Flex>(state.forward(false, shape).0));
    }
    let (x, x_node) = parts(x)?;
    let [weight, shift, first_bias, second_bias] = vectors.map(parts);
    let [first, second] = matrices.map(parts);
    let ((weight, weight_node), (shift, shift_node)) = (weight?, shift?);
    let ((first_bias, first_bias_node), (second_bias, second_bias_node)) = (first_bias?, second_bias?);
    let ((first, first_node), (second, second_node)) = (first?, second?);
    let mut state = state(x, [weight, shift, first_bias, second_bias], [first, second]);
    let nodes = [x_node, weight_node, shift_node, first_node, first_bias_node, second_node, second_bias_node];
    Some(Tensor::from_primitive::<Autodiff<Flex>>(
        match ResidualBackward.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(operation) => {
                let (out, tiles) = state.forward(true, shape);
                state.tiles = tiles;
                operation.finish(state, out)
            }
            OpsKind::UnTracked(operation) => operation.finish(state.forward(false, shape).0),
        },
    ))
}

/// Contiguous values and place in the graph.
fn parts<const D: usize>(of: &Tensor<D>) -> Option<(FlexTensor, NodeGuard)> {
    let (values, node) = tracked(of)?.into_parts();
    Some((values.to_contiguous(), node))
}

#[derive(Debug)]
struct ResidualBackward;

impl Backward<Flex, 7> for ResidualBackward {
    type State = HalfState;

    fn backward(self, ops: Ops<Self::State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let state = ops.state;
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (x, half) = (state.x.storage(), state.half());
        let (of_x, found) = residual::backward(x, gradient.storage(), &state.tiles, &half, &state.between);
        let [x_node, parameter_nodes @ ..] = ops.parents;
        if let Some(node) = x_node {
            register(gradients, node.id, of_x, &state.x);
        }
        let [first, second] = &state.weights;
        let [first_bias, second_bias] = &state.biases;
        // Weight and shift of the normalisation have the second bias's shape, `[width]`.
        let like = [second_bias, second_bias, first, first_bias, second, second_bias];
        for ((node, gradient), like) in parameter_nodes.into_iter().zip(found).zip(like) {
            if let Some(node) = node {
                register(gradients, node.id, gradient, like);
            }
        }
    }
}

/// Notes the gradient of what has the shape of `like`.
fn register(gradients: &mut Gradients, node: NodeId, values: Vec<f32>, like: &FlexTensor) {
    let data = TensorData::new(values, like.layout().shape().clone());
    gradients.register::<Flex>(node, FlexTensor::from_data(data));
}
