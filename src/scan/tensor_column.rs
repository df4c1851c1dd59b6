//! Arrow's canonical `arrow.fixed_shape_tensor` over a FixedSizeList of u8, u32 or f32.

use std::{collections::HashMap, sync::Arc};

use datafusion::arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result, Stage};

const NAME_KEY: &str = "ARROW:extension:name";
const METADATA_KEY: &str = "ARROW:extension:metadata";
const NAME: &str = "arrow.fixed_shape_tensor";

#[derive(Serialize, Deserialize)]
struct Metadata {
    shape: Vec<usize>,
}

/// What a tensor's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// Pixels.
    U8,
    /// Tokens of text.
    U32,
    /// Samples of a series.
    F32,
}

impl Element {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U32 | Self::F32 => 4,
        }
    }

    /// As digests name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U32 => "u32",
            Self::F32 => "f32",
        }
    }

    /// The list's own field.
    pub fn field(self) -> Arc<Field> {
        let data_type = match self {
            Self::U8 => DataType::UInt8,
            Self::U32 => DataType::UInt32,
            Self::F32 => DataType::Float32,
        };
        Arc::new(Field::new("item", data_type, false))
    }
}

/// A column whose rows are tensors of `shape`.
///
/// # Errors
/// A row has 2³¹ bytes or more.
pub fn tensor_field(name: &str, shape: &[usize], element: Element) -> Result<Field> {
    let numbers = shape.iter().product::<usize>();
    i32::try_from(numbers.saturating_mul(element.bytes())).context(
        Stage::Augment,
        name,
        format!("a sample of shape {shape:?} is too large; choose a smaller side or shorter windows"),
    )?;
    let metadata = serde_json::to_string(&Metadata { shape: shape.to_vec() }).context(
        Stage::Augment,
        name,
        "has a shape that cannot be written",
    )?;
    let metadata = HashMap::from([(NAME_KEY.to_owned(), NAME.to_owned()), (METADATA_KEY.to_owned(), metadata)]);
    Ok(Field::new(name, DataType::FixedSizeList(element.field(), numbers as i32), false).with_metadata(metadata))
}

/// Whether a column is a tensor.
pub fn is_tensor(field: &Field) -> bool {
    field.metadata().get(NAME_KEY).is_some_and(|name| name == NAME)
}

/// Shape of one row of a tensor column.
///
/// # Errors
/// The column is no tensor of fixed shape.
pub fn tensor_shape(field: &Field) -> Result<Vec<usize>> {
    let metadata = field.metadata().get(METADATA_KEY).filter(|_| is_tensor(field));
    let text = metadata.ok_or_else(|| Error::at(Stage::Batch, field.name(), "is no tensor of fixed shape"))?;
    let Metadata { shape } =
        serde_json::from_str(text).context(Stage::Batch, field.name(), "has a shape that cannot be read")?;
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_comes_back_from_the_field() {
        let field = tensor_field("views", &[2, 3, 8, 8], Element::U8).expect("small");
        assert_eq!(field.metadata()[METADATA_KEY], r#"{"shape":[2,3,8,8]}"#);
        assert_eq!(tensor_shape(&field).expect("tensor"), [2, 3, 8, 8]);
        assert_eq!(field.data_type(), &DataType::FixedSizeList(Element::U8.field(), 384));
        assert!(tensor_shape(&Field::new("label", DataType::Utf8, true)).is_err());
        assert!(tensor_field("views", &[2, 3, 40_000, 40_000], Element::U8).is_err());
        // Bytes count, not numbers.
        assert!(tensor_field("views", &[1, 600_000_000], Element::U8).is_ok());
        assert!(tensor_field("views", &[1, 600_000_000], Element::F32).is_err());
    }
}
