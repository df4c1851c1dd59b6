//! What all functions share: their arguments' types, NULL, and the documentation that `diptych functions` prints.
use std::{
    fmt,
    hash::{Hash, Hasher},
};

use datafusion::{
    arrow::{
        array::ArrayRef,
        datatypes::{DataType, Field},
    },
    common::{Result, ScalarValue, plan_err},
    logical_expr::{
        ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};

use crate::ingest::holds_images;

/// What a function is about: the heading it is listed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Encoded images.
    Image,
    /// Captions and other text.
    Text,
    /// Lists of numbers.
    Series,
    /// Draws that are the same in every run.
    Sampling,
    /// What training sees.
    Pairing,
}

impl Group {
    /// All, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Image, Self::Text, Self::Series, Self::Sampling, Self::Pairing];

    /// As lists name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Series => "series",
            Self::Sampling => "sampling",
            Self::Pairing => "pairing",
        }
    }

    /// The heading of a function's documentation.
    pub fn section(self) -> DocSection {
        DocSection { include: true, label: self.name(), description: None }
    }
}

/// What an argument may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// An encoded image; see [`super::encoded_images::EncodedImages`].
    Image,
    /// Text; arrives as a view.
    Text,
    /// A list of numbers; see [`super::series_argument`].
    Series,
    /// A whole number from 0.
    UInt64,
    /// Any number.
    Float64,
}

impl Takes {
    /// The type in which the argument arrives; `None` where a value of type `given` cannot be one.
    pub(super) fn coerce(self, given: &DataType) -> Option<DataType> {
        match (self, given) {
            (_, DataType::Dictionary(_, values)) => self.coerce(values),
            (Self::Image, DataType::Null) => Some(DataType::BinaryView),
            (Self::Image, DataType::FixedSizeBinary(_)) => Some(DataType::Binary),
            (Self::Image, given) if holds_images(given) => Some(given.clone()),
            (Self::Text, DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
                Some(DataType::Utf8View)
            }
            (Self::Series, DataType::Null) => Some(DataType::new_list(DataType::Float32, true)),
            (Self::Series, DataType::List(item) | DataType::LargeList(item)) if item.data_type().is_numeric() => {
                Some(given.clone())
            }
            (Self::Series, DataType::FixedSizeList(item, _)) if item.data_type().is_numeric() => {
                Some(DataType::List(std::sync::Arc::new(Field::clone(item))))
            }
            (Self::UInt64, given) if given.is_null() || given.is_integer() => Some(DataType::UInt64),
            (Self::Float64, given) if given.is_null() || given.is_numeric() => Some(DataType::Float64),
            _ => None,
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "an encoded image (binary, or a struct with the field `bytes`)",
            Self::Text => "text",
            Self::Series => "a list of numbers",
            Self::UInt64 => "a whole number from 0",
            Self::Float64 => "a number",
        })
    }
}

/// Arrays in, one per argument and all of one length; an array of that length out.
pub(super) type Body = fn(&[ArrayRef]) -> Result<ArrayRef>;

/// A function whose value depends on its arguments alone.
#[derive(Debug)]
pub(super) struct Function {
    name: &'static str,
    takes: &'static [Takes],
    /// How many of the last arguments may be left out.
    optional: usize,
    gives: DataType,
    /// Whether it gives what its first argument is, whatever [`Self::gives`].
    gives_first: bool,
    body: Body,
    documentation: Documentation,
    signature: Signature,
}

impl Function {
    /// The function `name` of the group `documentation` names.
    pub(super) fn new(
        name: &'static str,
        takes: &'static [Takes],
        gives: DataType,
        body: Body,
        documentation: Documentation,
    ) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { name, takes, optional: 0, gives, gives_first: false, body, documentation, signature }
    }

    /// The same, and its last `count` arguments may be left out.
    #[must_use]
    pub(super) fn with_optional(self, count: usize) -> Self {
        Self { optional: count, ..self }
    }

    /// The same, whose values are of its first argument's type.
    #[must_use]
    pub(super) fn giving_its_first(self) -> Self {
        Self { gives_first: true, ..self }
    }

    /// For a session.
    pub(super) fn into_udf(self) -> ScalarUDF {
        ScalarUDF::new_from_impl(self)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let syntax = &self.documentation.syntax_example;
        let (most, least) = (self.takes.len(), self.takes.len() - self.optional);
        if !(least..=most).contains(&given.len()) {
            return plan_err!("{syntax} was given {} arguments", given.len());
        }
        let coerce = |(takes, given): (&Takes, &DataType)| match takes.coerce(given) {
            Some(data_type) => Ok(data_type),
            None => plan_err!("{syntax} takes {takes}, not {given}"),
        };
        self.takes.iter().zip(given).map(coerce).collect()
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(given.first().filter(|_| self.gives_first).unwrap_or(&self.gives).clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let array = (self.body)(&ColumnarValue::values_to_arrays(&args.args)?)?;
        match all_scalar {
            true => ScalarValue::try_from_array(&array, 0).map(ColumnarValue::Scalar),
            false => Ok(ColumnarValue::Array(array)),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// A PNG of 6 x 4 grey pixels that grow brighter to the right, in base64: what the examples look at.
const EXAMPLE_PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAYAAAAECAAAAACIbxGfAAAAJUlEQVR42mNg0AioWHCCgcsoqmnVJQYRm5SeLXcY5\
                           Nzypu17BgCD6ArJ3MmZlgAAAABJRU5ErkJggg==";

/// Documentation; `example` is SQL after `> ` and what it prints, and `$PNG` in it stands for an image of 6 x 4 pixels.
pub(super) fn documented(
    group: Group,
    syntax: &str,
    description: &str,
    arguments: &[(&str, &str)],
    example: &str,
) -> Documentation {
    let png = format!("decode('{EXAMPLE_PNG}', 'base64')");
    let example = format!("```sql\n{}\n```", example.replace("$PNG", &png));
    let builder = Documentation::builder(group.section(), description, syntax).with_sql_example(example);
    arguments.iter().fold(builder, |builder, (name, text)| builder.with_argument(*name, *text)).build()
}

/// What `image` means, wherever it is an argument.
pub(super) const IMAGE: (&str, &str) =
    ("image", "An encoded image: binary, or Hugging Face's struct with `bytes` and `path`.");
