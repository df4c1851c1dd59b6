//! Tensors in and out of safetensors files.
use std::collections::HashMap;

use burn::tensor::{AllocationProperty, BoolStore, Bytes, DType, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::state::Tensors;
use crate::error::{Context, Error, Result, Stage};

/// The bytes of a safetensors file, the same for equal tensors.
///
/// # Errors
/// An element type that the format lacks.
pub fn to_bytes(tensors: &Tensors) -> Result<Vec<u8>> {
    to_bytes_with(tensors, HashMap::new())
}

/// [`to_bytes`], with notes that stand in the header. More than one of them come in no particular order.
///
/// # Errors
/// As [`to_bytes`].
pub fn to_bytes_with(tensors: &Tensors, mut metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, data) in tensors {
        let dtype = file_dtype(data.dtype()).ok_or_else(|| unsupported(name, &format!("{:?}", data.dtype())))?;
        let view = TensorView::new(dtype, data.shape().as_slice().to_vec(), data.as_bytes());
        views.push((name, view.context(Stage::Checkpoint, name, "its shape and its bytes differ")?));
    }
    // Readers of PyTorch's world refuse files that do not say so.
    metadata.insert("format".to_owned(), "pt".to_owned());
    serialize(views, Some(metadata)).context(Stage::Checkpoint, "", "cannot lay out a safetensors file")
}

/// The tensors of a safetensors file.
///
/// # Errors
/// `place` names the file in errors about its bytes.
pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Tensors> {
    let file = SafeTensors::deserialize(bytes).context(Stage::Checkpoint, place, "is no safetensors file")?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let dtype = memory_dtype(view.dtype()).ok_or_else(|| unsupported(name, &view.dtype().to_string()))?;
        let data = TensorData::try_from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype);
        tensors.insert(name.to_owned(), data.context(Stage::Checkpoint, place, format!("cannot read {name}"))?);
    }
    Ok(tensors)
}

/// The tensors of a file that is in memory as a whole, and the notes in its header.
///
/// Tensors keep to these bytes and copy none, where their elements are aligned, as those of every writer are.
///
/// # Errors
/// As [`from_bytes`].
pub fn from_owned_bytes(place: &str, bytes: Vec<u8>) -> Result<(Tensors, HashMap<String, String>)> {
    let bytes = bytes::Bytes::from(bytes);
    let file = SafeTensors::deserialize(&bytes).context(Stage::Checkpoint, place, "is no safetensors file")?;
    let (_, header) = SafeTensors::read_metadata(&bytes).context(Stage::Checkpoint, place, "is no safetensors file")?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let dtype = memory_dtype(view.dtype()).ok_or_else(|| unsupported(name, &view.dtype().to_string()))?;
        let aligned = view.data().as_ptr().align_offset(size_of::<f64>().min(dtype.size())) == 0;
        let data = match aligned {
            true => {
                let shared = Bytes::from_shared(bytes.slice_ref(view.data()), AllocationProperty::Native);
                TensorData::try_from_bytes(shared, view.shape().to_vec(), dtype)
            }
            false => TensorData::try_from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype),
        };
        tensors.insert(name.to_owned(), data.context(Stage::Checkpoint, place, format!("cannot read {name}"))?);
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

fn unsupported(name: &str, dtype: &str) -> Error {
    Error::at(Stage::Checkpoint, name, format!("elements of type {dtype} are not supported; convert them to f32"))
}

fn file_dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::U8 => Dtype::U8,
        DType::Bool(BoolStore::U8 | BoolStore::Native) => Dtype::BOOL,
        _ => return None,
    })
}

fn memory_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_the_file_and_equal_tensors_make_equal_files() {
        let odd = vec![f32::from_bits(1), -0.0, f32::MIN_POSITIVE, 1.0 / 3.0, f32::MAX, -1.5];
        let tensors = Tensors::from([
            ("b.weight".to_owned(), TensorData::new(odd.clone(), [2, 3])),
            ("a.count".to_owned(), TensorData::new(vec![7_i64], [1])),
        ]);
        let bytes = to_bytes(&tensors).unwrap();
        let back = from_bytes("w", &bytes).unwrap();
        assert_eq!(back, tensors);
        let bits: Vec<u32> = back["b.weight"].as_slice::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, odd.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        assert_eq!(to_bytes(&back).unwrap(), bytes);
    }

    #[test]
    fn owned_bytes_give_the_same_tensors_and_the_notes() {
        let tensors = Tensors::from([
            ("a".to_owned(), TensorData::new(vec![1.0_f32, -2.5], [2])),
            ("s".to_owned(), TensorData::new(vec![4.5_f32], [0_usize; 0])),
        ]);
        let notes = HashMap::from([("made_by".to_owned(), "a test".to_owned())]);
        let (back, found) = from_owned_bytes("w", to_bytes_with(&tensors, notes).unwrap()).unwrap();
        assert_eq!(back, tensors);
        assert_eq!(found["made_by"], "a test");
        assert!(from_owned_bytes("w", vec![1, 2, 3]).is_err());
    }

    #[test]
    fn a_torn_file_is_an_error_that_names_it() {
        let bytes = to_bytes(&Tensors::from([("x".to_owned(), TensorData::new(vec![1.0_f32; 9], [9]))])).unwrap();
        let error = from_bytes("run/weights.safetensors", &bytes[..bytes.len() - 4]).unwrap_err();
        assert!(error.to_string().contains("run/weights.safetensors"), "{error}");
    }
}
