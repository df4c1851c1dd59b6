//! Where a model's parameters come from: drawn by name, or taken from a file.
use std::collections::BTreeMap;

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::init::Initializer;

/// How a drawn parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// One value everywhere.
    Constant(f32),
    /// Around 0 with this deviation.
    Normal(f64),
    /// From −bound to bound.
    Uniform(f64),
}

/// Makes a model's parameters, one after the other.
#[derive(Debug)]
pub enum Parameters<'a> {
    /// As the paper starts them.
    Drawn(Initializer<'a>),
    /// As a file has them.
    Loaded(Loaded<'a>),
}

impl Parameters<'_> {
    /// The trained parameter at `path`.
    pub fn trained<const D: usize>(&mut self, path: &str, shape: [usize; D], start: Start) -> Param<Tensor<D>> {
        match self {
            Self::Drawn(init) => match start {
                Start::Constant(value) => init.filled(shape, value),
                Start::Normal(deviation) => init.normal(path, shape, deviation),
                Start::Uniform(bound) => init.uniform(path, shape, bound),
            },
            Self::Loaded(loaded) => Param::from_tensor(loaded.take(path, shape)),
        }
    }

    /// The vector at `path` that travels with the weights but is not trained.
    pub fn buffer(&mut self, path: &str, length: usize, value: f32) -> Param<Tensor<1>> {
        match self {
            Self::Drawn(init) => init.buffer(length, value),
            Self::Loaded(loaded) => Param::initialized(ParamId::new(), loaded.take(path, [length])),
        }
    }

    /// Whether running variances are those of PyTorch.
    pub(super) fn compat_torch(&self) -> bool {
        match self {
            Self::Drawn(init) => init.options().compat_torch,
            // Whoever wrote the file counted like PyTorch.
            Self::Loaded(_) => true,
        }
    }
}

/// Entries of a file on their way into a model: each is used once, and what does not fit is noted.
#[derive(Debug)]
pub struct Loaded<'a> {
    entries: BTreeMap<String, TensorData>,
    problems: Vec<String>,
    device: &'a Device,
}

impl<'a> Loaded<'a> {
    /// Entries under the paths that the model asks for.
    pub fn new(entries: BTreeMap<String, TensorData>, device: &'a Device) -> Self {
        Self { entries, problems: Vec::new(), device }
    }

    /// What was missing, misshapen, no number, or not asked for; empty where model and file are of one shape.
    pub fn problems(self) -> Vec<String> {
        let unused = self.entries.keys().map(|name| format!("unused: {name}"));
        self.problems.into_iter().chain(unused).collect()
    }

    fn take<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Tensor<D> {
        match self.entries.remove(path) {
            None => self.problems.push(format!("missing: {path}")),
            // A scalar comes as a vector of one.
            Some(data) if data.shape().as_slice() == shape || (data.rank() == 0 && shape == [1; D]) => {
                if data.dtype().is_float() {
                    return Tensor::<1>::from_data(flat(data.convert_dtype(DType::F32)), self.device).reshape(shape);
                }
                self.problems.push(format!("not of floating point: {path} is {:?}", data.dtype()));
            }
            Some(data) => {
                self.problems.push(format!("misshapen: {path} is {:?}, not {shape:?}", data.shape().as_slice()));
            }
        }
        // Never computed with: a configuration that lies must not cost memory either.
        Tensor::zeros([1; D], self.device)
    }
}

fn flat(data: TensorData) -> TensorData {
    let (bytes, shape, dtype) = data.into_parts();
    TensorData::from_bytes(bytes, [shape.num_elements()], dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(values: &[f32], shape: &[usize]) -> TensorData {
        TensorData::new(values.to_vec(), shape.to_vec())
    }

    #[test]
    fn every_entry_is_used_once_or_named() {
        let device = Device::flex();
        let entries = BTreeMap::from([
            ("a".to_owned(), entry(&[1.0, 2.0], &[2])),
            ("b".to_owned(), entry(&[1.0, 2.0], &[1, 2])),
            ("c".to_owned(), TensorData::new(vec![1_i64], [1])),
            ("d".to_owned(), entry(&[3.0], &[])),
            ("e".to_owned(), entry(&[4.0], &[1])),
        ]);
        let mut parameters = Parameters::Loaded(Loaded::new(entries, &device));
        let mut values = |path: &str, length: usize| {
            let value = parameters.trained(path, [length], Start::Constant(9.0)).val();
            value.into_data().try_into_vec::<f32>().expect("f32")
        };
        assert_eq!(values("a", 2), [1.0, 2.0]);
        assert_eq!(values("d", 1), [3.0]);
        values("b", 2);
        values("c", 1);
        values("f", 1);
        let Parameters::Loaded(loaded) = parameters else { unreachable!("made so") };
        let problems = loaded.problems();
        assert_eq!(problems.len(), 4, "{problems:?}");
        for part in ["misshapen: b is [1, 2], not [2]", "not of floating point: c", "missing: f", "unused: e"] {
            assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part}: {problems:?}");
        }
    }

    #[test]
    fn halves_become_f32() {
        let device = Device::flex();
        let halves = entry(&[1.5, -0.25], &[2]).convert_dtype(DType::F16);
        let entries = BTreeMap::from([("a".to_owned(), halves)]);
        let mut parameters = Parameters::Loaded(Loaded::new(entries, &device));
        let value = parameters.trained("a", [2], Start::Constant(0.0)).val();
        assert_eq!(value.into_data().try_into_vec::<f32>().expect("f32"), [1.5, -0.25]);
    }
}
