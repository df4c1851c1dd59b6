//! Texts of a batch on their way through the decode threads: read from a column, turned into ids.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, GenericListArray, ListArray, OffsetSizeTrait, UInt32Array, UInt64Array},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef},
};

use crate::{
    error::{Error, Result, Stage},
    scan::caption_columns::{IMAGE_HASH, TOKENS},
};

/// What goes with one item's pixels.
#[derive(Debug, Clone, Default)]
pub(super) struct Caption {
    /// Ids of the text.
    pub(super) tokens: Vec<u32>,
    /// XXH3 of the image's bytes.
    pub(super) image: u64,
}

/// The fields of [`columns`].
pub(super) fn fields() -> [Field; 2] {
    [Field::new(TOKENS, DataType::List(id_field()), false), Field::new(IMAGE_HASH, DataType::UInt64, false)]
}

fn id_field() -> FieldRef {
    Arc::new(Field::new("item", DataType::UInt32, false))
}

/// Ids and image hashes of a batch's items.
pub(super) fn columns<'a>(captions: impl Iterator<Item = &'a Caption> + Clone) -> Result<[ArrayRef; 2]> {
    let offsets = OffsetBuffer::from_lengths(captions.clone().map(|caption| caption.tokens.len()));
    let ids: UInt32Array = captions.clone().flat_map(|caption| caption.tokens.iter().copied()).collect();
    let tokens = ListArray::try_new(id_field(), offsets, Arc::new(ids), None)
        .map_err(|error| Error::internal("ids make no lists").caused_by(error))?;
    let hashes: UInt64Array = captions.map(|caption| caption.image).collect();
    Ok([Arc::new(tokens), Arc::new(hashes)])
}

/// Refuses columns that hold neither texts nor lists of texts.
///
/// # Errors
/// With what the column holds.
pub(super) fn check(column: &str, data_type: &DataType) -> Result<()> {
    let is_text = match data_type {
        DataType::List(item) | DataType::LargeList(item) => item.data_type().is_string(),
        other => other.is_string(),
    };
    if is_text {
        return Ok(());
    }
    let reason = format!("holds {data_type}, neither text nor lists of texts; name a column with captions");
    Err(Error::at(Stage::Augment, column, reason))
}

/// The texts of a row: one, or those of a list; none where it is null.
pub(super) fn texts(column: &dyn Array, row: usize) -> Vec<&str> {
    if column.is_null(row) {
        return vec![];
    }
    if let Some(list) = column.as_list_opt::<i32>() {
        return of_list(list, row);
    }
    if let Some(list) = column.as_list_opt::<i64>() {
        return of_list(list, row);
    }
    text(column, row).into_iter().collect()
}

fn of_list<O: OffsetSizeTrait>(list: &GenericListArray<O>, row: usize) -> Vec<&str> {
    let [from, to] = [row, row + 1].map(|at| list.value_offsets()[at].as_usize());
    (from..to).filter_map(|at| text(list.values().as_ref(), at)).collect()
}

fn text(values: &dyn Array, row: usize) -> Option<&str> {
    if values.is_null(row) {
        return None;
    }
    let short = values.as_string_opt::<i32>().map(|texts| texts.value(row));
    let long = || values.as_string_opt::<i64>().map(|texts| texts.value(row));
    short.or_else(long).or_else(|| values.as_string_view_opt().map(|texts| texts.value(row)))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ListBuilder, StringArray, StringBuilder, StringViewArray};
    use datafusion::arrow::datatypes::UInt64Type;

    use super::*;

    #[test]
    fn texts_and_lists_of_texts_are_read_and_nulls_are_none() {
        let short = StringArray::from(vec![Some("a"), None]);
        let views = StringViewArray::from(vec![Some("a"), None]);
        for column in [&short as &dyn Array, &views] {
            assert_eq!((texts(column, 0), texts(column, 1)), (vec!["a"], vec![]));
        }
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), None, Some("b")]);
        lists.append_null();
        lists.append_value([Some("c")]);
        let lists = lists.finish();
        assert_eq!(texts(&lists, 0), ["a", "b"]);
        assert!(texts(&lists, 1).is_empty());
        assert_eq!(texts(&lists.slice(1, 2), 1), ["c"]);
        assert!(check("caption", lists.data_type()).is_ok() && check("caption", &DataType::Utf8).is_ok());
        let error = check("width", &DataType::UInt32).unwrap_err().to_string();
        assert!(error.contains("width") && error.contains("UInt32"), "{error}");
    }

    #[test]
    fn ids_are_lists_beside_the_hashes_of_images() {
        let caption = |image, tokens: &[u32]| Caption { tokens: tokens.to_vec(), image };
        let all = [caption(9, &[1, 2]), caption(4, &[]), caption(9, &[3])];
        let [tokens, images] = columns(all.iter()).unwrap();
        assert_eq!(images.as_primitive::<UInt64Type>().values(), &[9, 4, 9]);
        assert_eq!(tokens.as_list::<i32>().value_offsets(), [0, 2, 2, 3]);
    }
}
