//! Texts of images, from Arrow to vectors of the host.
use burn::tensor::{Int, Tensor};
use datafusion::arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{UInt32Type, UInt64Type},
};
use xxhash_rust::xxh3::xxh3_64;

use super::column;
use crate::{
    error::{Error, Result, Stage},
    scan::caption_columns::{IMAGE_HASH, TOKENS},
};

/// Images with their texts, one pair each.
#[derive(Debug, Clone)]
pub struct ImageTexts {
    /// u8: `[pairs, 1, 3, side, side]`.
    pub pixels: Tensor<5, Int>,
    /// Of each pair.
    pub captions: PairCaptions,
}

/// The texts of a batch's pairs, and by what equal ones are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairCaptions {
    /// Ids of each text, start and end included, nothing behind the end.
    pub tokens: Vec<Vec<u32>>,
    /// A hash of each pair's image.
    pub images: Vec<u64>,
    /// A hash of each pair's ids.
    pub texts: Vec<u64>,
}

impl PairCaptions {
    /// Of these texts and hashes of images.
    ///
    /// # Errors
    /// Not as many images as texts.
    pub fn new(tokens: Vec<Vec<u32>>, images: Vec<u64>) -> Result<Self> {
        if tokens.len() != images.len() {
            let reason = format!("{} texts and {} images are no pairs", tokens.len(), images.len());
            return Err(Error::at(Stage::Batch, TOKENS, reason));
        }
        let texts = tokens.iter().map(|ids| hash(ids)).collect();
        Ok(Self { tokens, images, texts })
    }

    /// Of images that all differ.
    pub fn of_distinct_images(tokens: Vec<Vec<u32>>) -> Self {
        let (images, texts) = ((0..tokens.len() as u64).collect(), tokens.iter().map(|ids| hash(ids)).collect());
        Self { tokens, images, texts }
    }

    /// Some of the pairs, from `first` on; those that there are of them.
    pub(super) fn rows(&self, first: usize, count: usize) -> Self {
        fn part<T: Clone>(all: &[T], first: usize, count: usize) -> Vec<T> {
            all.iter().skip(first).take(count).cloned().collect()
        }
        Self {
            tokens: part(&self.tokens, first, count),
            images: part(&self.images, first, count),
            texts: part(&self.texts, first, count),
        }
    }

    /// Whether a batch of an epoch's plan holds texts.
    pub fn are_in(batch: &RecordBatch) -> bool {
        batch.column_by_name(TOKENS).is_some()
    }

    /// Reads a batch of an epoch's plan.
    ///
    /// # Errors
    /// It has no such columns, or of other types.
    pub fn from_record_batch(batch: &RecordBatch) -> Result<Self> {
        let lists = column(batch, TOKENS, |c| c.as_list_opt::<i32>())?;
        let ids = lists.values().as_primitive_opt::<UInt32Type>();
        let ids = ids.ok_or_else(|| Error::at(Stage::Batch, TOKENS, "holds no u32"))?;
        let tokens = lists.value_offsets().windows(2).map(|at| ids.values()[at[0] as usize..at[1] as usize].to_vec());
        let images = column(batch, IMAGE_HASH, |c| c.as_primitive_opt::<UInt64Type>())?;
        if lists.null_count() + images.null_count() > 0 {
            return Err(Error::at(Stage::Batch, TOKENS, "has pairs that are null"));
        }
        Self::new(tokens.collect(), images.values().to_vec())
    }
}

fn hash(ids: &[u32]) -> u64 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{
        array::{ArrayRef, ListArray, UInt64Array},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn record_batch() -> RecordBatch {
        let lists = [vec![9, 1, 8], vec![9, 8], vec![9, 1, 8]];
        let tokens = ListArray::from_iter_primitive::<UInt32Type, _, _>(
            lists.iter().map(|ids| Some(ids.iter().map(|&id| Some(id)).collect::<Vec<_>>())),
        );
        let columns: Vec<ArrayRef> = vec![Arc::new(tokens), Arc::new(UInt64Array::from(vec![70, 71, 70]))];
        let fields = vec![
            Field::new(TOKENS, columns[0].data_type().clone(), false),
            Field::new(IMAGE_HASH, DataType::UInt64, false),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns fit")
    }

    #[test]
    fn texts_come_with_hashes_also_from_a_slice() {
        let batch = record_batch();
        assert!(PairCaptions::are_in(&batch));
        let all = PairCaptions::from_record_batch(&batch).expect("texts");
        assert_eq!(all.images, [70, 71, 70]);
        assert!(all.texts[0] == all.texts[2] && all.texts[0] != all.texts[1]);
        let part = PairCaptions::from_record_batch(&batch.slice(1, 2)).expect("texts");
        assert_eq!(part.tokens, [vec![9, 8], vec![9, 1, 8]]);
        assert_eq!((&part.texts[..], &part.images[..]), (&all.texts[1..], &[71, 70][..]));
        assert_eq!(all.rows(1, 2), part);
        assert!(PairCaptions::new(vec![vec![1]], vec![]).is_err());
    }
}
