//! Everything a module holds, by path, as data that others can read.
//!
//! Names below `encoder.` are torchvision's, linear weights are turned to PyTorch's `[out, in]`, buffers are included.
//! PyTorch's `num_batches_tracked` counters are not: a `state_dict` without metadata loads strictly without them.
use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};

use super::parameters::{Place, Walk};
use crate::error::{Error, Result, Stage};

/// Tensors by name, in the order of their names.
pub type Tensors = BTreeMap<String, TensorData>;

/// Every parameter and buffer of `module` under its path.
///
/// The two dimensions of a weight in a struct named `Linear` are exchanged.
pub fn collect<M: Module>(module: &M) -> Tensors {
    let mut collector = Collector { walk: Walk::default(), found: Tensors::new() };
    module.visit(&mut collector);
    collector.found
}

/// `module` with every parameter and buffer replaced by the entry of its path.
///
/// # Errors
/// Lists every missing, unused and misshapen entry at once; nothing is loaded then.
pub fn restore<M: Module>(module: M, entries: &Tensors) -> Result<M> {
    let expected: BTreeMap<String, Entry> = collect(&module).iter().map(|(k, v)| (k.clone(), Entry::of(v))).collect();
    audit("the weights", &expected, entries)?;
    Ok(module.map(&mut Loader { walk: Walk::default(), entries }))
}

/// Kind of element, exact width aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Int,
    Bool,
}

/// What an entry has to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    kind: Kind,
    shape: Vec<usize>,
}

impl Entry {
    pub(super) fn float(shape: &[usize]) -> Self {
        Self { kind: Kind::Float, shape: shape.to_vec() }
    }

    fn of(data: &TensorData) -> Self {
        let dtype = data.dtype();
        let kind = if dtype.is_float() {
            Kind::Float
        } else if matches!(dtype, DType::Bool(_)) {
            Kind::Bool
        } else {
            Kind::Int
        };
        Self { kind, shape: data.shape().as_slice().to_vec() }
    }
}

/// Compares what is there with what is needed: every missing, unused and misshapen entry in one error.
pub(super) fn audit(what: &str, expected: &BTreeMap<String, Entry>, found: &Tensors) -> Result<()> {
    let wanted: BTreeSet<&String> = expected.keys().collect();
    let there: BTreeSet<&String> = found.keys().collect();
    let mut problems: Vec<String> = Vec::new();
    problems.extend(wanted.difference(&there).map(|name| format!("missing: {name}")));
    problems.extend(there.difference(&wanted).map(|name| format!("unused: {name}")));
    for (name, expected) in expected {
        if let Some(data) = found.get(name) {
            let found = Entry::of(data);
            if found != *expected {
                let (a, b) = (&found.shape, &expected.shape);
                problems.push(format!("misshapen: {name} is {:?} {a:?}, not {:?} {b:?}", found.kind, expected.kind));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "{what} do not fit this model, {} of {} entries differ; load them into the pipeline that wrote them\n  {}",
        problems.len(),
        wanted.union(&there).count(),
        problems.join("\n  ")
    );
    Err(Error::at(Stage::Checkpoint, "", reason))
}

/// Name of the first entry that holds a number that is not finite.
pub(super) fn first_non_finite(tensors: &Tensors) -> Option<&str> {
    let not_finite = |data: &TensorData| match data.as_slice::<f32>() {
        Ok(values) => values.iter().any(|x| !x.is_finite()),
        Err(_) => false,
    };
    tensors.iter().find(|(_, data)| not_finite(data)).map(|(name, _)| name.as_str())
}

struct Collector {
    walk: Walk,
    found: Tensors,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().inner();
        let tensor = if D == 2 && self.walk.at_linear_weight() { tensor.transpose() } else { tensor };
        self.found.insert(self.walk.path(), tensor.into_data());
    }
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.found.insert(self.walk.path(), param.val().into_data());
    }
    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.found.insert(self.walk.path(), param.val().into_data());
    }
}

/// Runs after the audit: an entry that is not there leaves the parameter as it is.
struct Loader<'a> {
    walk: Walk,
    entries: &'a Tensors,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.walk.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.entries.get(&self.walk.path()) else { return param };
        let turned = D == 2 && self.walk.at_linear_weight();
        let (id, old, mapper) = param.consume();
        let new = Tensor::<D>::from_data(data.clone(), &old.device().inner());
        // A transposed view keeps its strides; a weight that went through a file must not behave unlike one that did not.
        let new = if turned { contiguous(new.transpose()) } else { new };
        Param::from_mapped_value(id, Place::of(&old).take(new), mapper)
    }
    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let Some(data) = self.entries.get(&self.walk.path()) else { return param };
        param.map(|old| Tensor::from_data(data.clone(), &old.device()))
    }
    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        let Some(data) = self.entries.get(&self.walk.path()) else { return param };
        param.map(|old| Tensor::from_data(data.clone(), &old.device()))
    }
}

fn contiguous<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let device = tensor.device();
    Tensor::from_data(tensor.into_data(), &device)
}

#[cfg(test)]
mod tests {
    use super::super::toy::Toy;
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn linear_weights_are_saved_as_out_in_and_come_back() {
        let device = Device::flex().autodiff();
        let toy = Toy::new(&device);
        let saved = collect(&toy);
        let [inputs, outputs] = toy.head.weight.val().dims();
        assert_ne!(inputs, outputs);
        assert_eq!(saved["head.weight"].shape().as_slice(), [outputs, inputs]);
        let values = saved["head.weight"].as_slice::<f32>().unwrap().to_vec();
        let inside = toy.head.weight.val().into_data();
        assert_eq!(values[1].to_bits(), inside.as_slice::<f32>().unwrap()[outputs].to_bits());
        let other = restore(Toy::seeded(9, &device), &saved).unwrap();
        assert_eq!(collect(&other), saved);
        assert!(other.head.weight.val().is_require_grad());
        assert!(!other.encoder.inner().running_mean.val().is_require_grad());
    }

    #[test]
    fn audit_lists_every_difference_at_once() {
        let device = Device::flex();
        let mut saved = collect(&Toy::new(&device));
        saved.remove("head.bias");
        let bias = saved["encoder.layers.0.bias"].clone();
        saved.insert("head.weight".into(), bias.clone());
        saved.insert("stranger".into(), bias);
        let error = restore(Toy::new(&device), &saved).unwrap_err().to_string();
        for part in ["3 of", "missing: head.bias", "unused: stranger", "misshapen: head.weight"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
