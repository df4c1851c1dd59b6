//! Parameters by path: how the trainer reads, replaces and differentiates what a module holds.
//!
//! A path joins the names of the fields that lead to a parameter, `encoder.layer1.0.conv1.weight`. Variants of enums are
//! left out of it, so that choosing an encoder through an enum does not move its weights' names.
use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{GradientCheckpointingStrategy, Gradients, Tensor};

/// Where a walk through a module is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    fields: Vec<(String, Container)>,
}

#[derive(Debug, PartialEq)]
enum Container {
    Enum,
    Linear,
    Other,
}

impl Walk {
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        let container = match container {
            "Struct:Linear" => Container::Linear,
            other if other.starts_with("Enum:") => Container::Enum,
            _ => Container::Other,
        };
        self.fields.push((name.to_owned(), container));
    }

    pub(super) fn exit(&mut self) {
        self.fields.pop();
    }

    pub(super) fn path(&self) -> String {
        let names = self.fields.iter().filter(|(_, container)| *container != Container::Enum);
        names.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
    }

    /// Whether the parameter at hand is the matrix of a linear layer, which Burn keeps as `[in, out]`.
    pub(super) fn at_linear_weight(&self) -> bool {
        self.fields.last().is_some_and(|(name, container)| *container == Container::Linear && name == "weight")
    }
}

/// What is known of a floating-point parameter without looking at its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Names of the fields that lead to it, joined by dots.
    pub path: String,
    /// Its dimensions in the module.
    pub shape: Vec<usize>,
    /// False for buffers such as running statistics.
    pub trainable: bool,
}

/// Calls `look` with every floating-point parameter and its values, flat and without autodiff, in the module's order.
pub fn visit<M: Module>(module: &M, look: impl FnMut(Parameter, Tensor<1>)) {
    module.visit(&mut Visitor { walk: Walk::default(), look });
}

/// The module with every floating-point parameter's flat values replaced by what `change` makes of them.
///
/// Identity, shape, device, autodiff and whether it is trained stay as they were.
pub fn map<M: Module>(module: M, change: impl FnMut(&Parameter, Tensor<1>) -> Tensor<1>) -> M {
    module.map(&mut Mapper { walk: Walk::default(), change })
}

/// The gradient of one parameter.
#[derive(Debug, Clone)]
pub struct Gradient {
    /// Flat, without autodiff. `[elements]`
    pub values: Tensor<1>,
    /// The parameter's first dimension; 1 for vectors. Norms are summed by rows first.
    pub rows: usize,
}

/// Takes the gradients of every trained parameter out of what a backward pass left, by path.
///
/// A parameter that the loss did not depend on has no entry.
pub fn gradients<M: Module>(module: &M, grads: Gradients) -> BTreeMap<String, Gradient> {
    let mut taker = GradientTaker { walk: Walk::default(), grads, taken: BTreeMap::new() };
    module.visit(&mut taker);
    taker.taken
}

/// First dimension of a matrix or larger, 1 for a vector.
pub(super) fn rows(shape: &[usize]) -> usize {
    if shape.len() < 2 { 1 } else { shape[0] }
}

fn describe<const D: usize>(walk: &Walk, tensor: &Tensor<D>) -> Parameter {
    Parameter { path: walk.path(), shape: tensor.dims().to_vec(), trainable: tensor.is_require_grad() }
}

fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements]) // [elements]
}

/// Where a tensor stood in autodiff. Taken before its values change hands, so that they can be updated in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    strategy: Option<GradientCheckpointingStrategy>,
    trainable: bool,
}

impl Place {
    pub(super) fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self { strategy: tensor.gradient_checkpointing_strategy(), trainable: tensor.is_require_grad() }
    }

    /// Puts a tensor without autodiff into this place.
    pub(super) fn take<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self.strategy {
            None => tensor,
            // Tensors of different strategies must not meet in one operation.
            Some(strategy) => {
                tensor.autodiff().with_gradient_checkpointing_strategy(strategy).set_require_grad(self.trainable)
            }
        }
    }
}

struct Visitor<F> {
    walk: Walk,
    look: F,
}

impl<F: FnMut(Parameter, Tensor<1>)> ModuleVisitor for Visitor<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let parameter = describe(&self.walk, &tensor);
        (self.look)(parameter, flatten(tensor.inner()));
    }
}

struct Mapper<F> {
    walk: Walk,
    change: F,
}

impl<F: FnMut(&Parameter, Tensor<1>) -> Tensor<1>> ModuleMapper for Mapper<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let parameter = describe(&self.walk, &tensor);
        let (shape, place) = (tensor.dims(), Place::of(&tensor));
        let changed = (self.change)(&parameter, flatten(tensor.inner()));
        Param::from_mapped_value(id, place.take(changed.reshape(shape)), mapper)
    }
}

struct GradientTaker {
    walk: Walk,
    grads: Gradients,
    taken: BTreeMap<String, Gradient>,
}

impl ModuleVisitor for GradientTaker {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(&mut self.grads) {
            let rows = rows(&gradient.dims());
            self.taken.insert(self.walk.path(), Gradient { values: flatten(gradient.inner()), rows });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::{Toy, inputs};
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn paths_name_fields_and_skip_enum_variants() {
        let toy = Toy::new(&Device::flex().autodiff());
        let mut seen = Vec::new();
        visit(&toy, |parameter, _| seen.push((parameter.path, parameter.trainable)));
        assert!(seen.contains(&("encoder.layers.0.weight".to_owned(), true)), "{seen:?}");
        assert!(seen.contains(&("encoder.running_mean".to_owned(), false)), "{seen:?}");
        assert!(seen.contains(&("head.bias".to_owned(), true)), "{seen:?}");
    }

    #[test]
    fn gradients_cover_trained_parameters_only_and_survive_a_map() {
        let device = Device::flex().autodiff();
        let mut toy = Toy::new(&device);
        for _ in 0..2 {
            let loss = toy.loss(inputs(0, &device));
            let gradients = gradients(&toy, loss.backward());
            let mut trained = Vec::new();
            visit(&toy, |parameter, _| {
                if parameter.trainable {
                    trained.push(parameter.path);
                }
            });
            trained.sort_unstable();
            assert_eq!(gradients.keys().cloned().collect::<Vec<_>>(), trained);
            toy = map(toy, |_, values| values * 0.5);
        }
    }
}
