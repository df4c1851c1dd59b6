//! Columns of a query's rows that are embedded, as the towers take them.
use datafusion::arrow::{
    array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
    compute::cast,
    datatypes::{DataType, UInt64Type},
};

use crate::{
    augment::{BadClass, BadSample},
    error::{Context as _, Error, Result, Stage},
    evaluate::clip::embedder::{Embedder, is_said},
    select::functions::encoded_images::EncodedImages,
};

/// Column with the encoded image.
pub(super) const IMAGE: &str = "image";
/// Column with the text.
pub(super) const CAPTION: &str = "caption";

/// Whether a column of that type is read as text.
pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

/// A column of a batch.
///
/// # Errors
/// Ours: the query's columns were checked before.
pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("a batch of a checked query has no {name}")))
}

/// A column of numbers from 0.
///
/// # Errors
/// It holds something else.
pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<Option<u64>>> {
    let numbers = cast(column(batch, name)?, &DataType::UInt64);
    let numbers = numbers.context(Stage::Evaluate, name, "cannot be read as whole numbers")?;
    Ok(numbers.as_primitive::<UInt64Type>().iter().collect())
}

/// A column as text; blank text is none.
///
/// # Errors
/// It has no text.
pub(super) fn texts(batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
    let texts =
        cast(column(batch, name)?, &DataType::Utf8View).context(Stage::Evaluate, name, "cannot be read as text")?;
    Ok(texts.as_string_view().iter().map(|text| text.filter(|text| is_said(text)).map(str::to_owned)).collect())
}

/// A column of texts or of lists of texts: those of each row, without empty ones.
///
/// # Errors
/// It holds something else.
pub(super) fn several_texts(batch: &RecordBatch, name: &str) -> Result<Vec<Vec<String>>> {
    let column = column(batch, name)?;
    let said = |text: &str| is_said(text).then(|| text.to_owned());
    let lists = match column.data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_) => {
            cast(column, &DataType::new_list(DataType::Utf8View, true))
        }
        _ => {
            return Ok(texts(batch, name)?.into_iter().map(|text| text.into_iter().collect()).collect());
        }
    };
    let lists = lists.context(Stage::Evaluate, name, "is no list of texts")?;
    let of_row = |list: Option<ArrayRef>| {
        let texts = list.iter().flat_map(|list| list.as_string_view().iter()).flatten().filter_map(said);
        texts.collect::<Vec<String>>()
    };
    Ok(lists.as_list::<i32>().iter().map(of_row).collect())
}

/// Embeddings of the images of some rows of a batch, or why there are none.
///
/// # Errors
/// The model's.
pub(super) fn embed_images(
    embedder: &Embedder,
    batch: &RecordBatch,
    rows: &[usize],
) -> Result<Vec<Result<Vec<f32>, BadSample>>> {
    let images = EncodedImages::new(column(batch, IMAGE)?).context(Stage::Evaluate, IMAGE, "holds no images")?;
    let encoded: Vec<&[u8]> = rows.iter().map(|&row| images.get(row).unwrap_or_default()).collect();
    let mut found = embedder.images(&encoded)?;
    for (found, &row) in found.iter_mut().zip(rows) {
        if images.get(row).is_none() {
            *found = Err(BadSample { class: BadClass::Empty, message: "there is no image".to_owned() });
        }
    }
    Ok(found)
}

/// Embeddings of the texts that are there.
///
/// # Errors
/// The model's.
pub(super) fn embed_texts(embedder: &Embedder, texts: &[Option<String>]) -> Result<Vec<Option<Vec<f32>>>> {
    let said: Vec<&String> = texts.iter().flatten().collect();
    let mut found = embedder.texts(&said)?.into_iter();
    Ok(texts.iter().map(|text| text.as_ref().and_then(|_| found.next())).collect())
}
