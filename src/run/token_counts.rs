//! The floor of documents: how often each token stands in a window, whatever its place.
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    batch::{Batch, Content, SequencedWindows},
    error::{Context as _, Error, Result, Stage},
    evaluate::extract::Rows,
    model::Windows,
};

/// Tokens share columns by their hash: vocabularies are larger than a linear probe bears.
const COLUMNS: usize = 1_024;

/// The root of each column's share of a window's tokens; padding counts for nothing.
///
/// # Errors
/// The batch holds something else, or the device does not give it back.
pub(super) fn token_counts(batch: &Batch) -> Result<Rows> {
    let Content::Windows(SequencedWindows { windows: Windows::Sentences(tokens), .. }) = &batch.content else {
        return Err(Error::internal("only documents have tokens to count"));
    };
    let [windows, sentences, length] = tokens.dims();
    let ids = tokens.clone().into_data().convert::<i64>().try_into_vec::<i64>();
    let ids = ids.context(Stage::Evaluate, "tokens", "are no whole numbers")?;
    let mut values = vec![0.0; windows * COLUMNS];
    for (row, ids) in values.chunks_exact_mut(COLUMNS).zip(ids.chunks_exact((sentences * length).max(1))) {
        let real = ids.iter().filter(|id| **id != 0);
        let count = real.clone().count().max(1) as f32;
        real.for_each(|id| row[column(*id)] += 1.0);
        row.iter_mut().for_each(|value| *value = (*value / count).sqrt());
    }
    Ok(Rows { values, width: COLUMNS })
}

fn column(id: i64) -> usize {
    (xxh3_64(&id.to_le_bytes()) % COLUMNS as u64) as usize
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor, TensorData};

    use super::*;

    #[test]
    fn order_and_padding_make_no_difference_and_other_tokens_do() {
        let ids = vec![5_i64, 6, 0, 6, 0, 0, 6, 5, 6, 0, 0, 0, 5, 7, 6, 0, 0, 0];
        let tokens = Tensor::<3, Int>::from_data(TensorData::new(ids, [3, 2, 3]), &Device::flex());
        let batch = Batch {
            content: Content::Windows(SequencedWindows::apart(tokens)),
            labels: vec![],
            keys: vec![],
            sample_ids: vec![],
            positions: vec![],
            digest: String::new(),
            replaced: 0,
        };
        let rows = token_counts(&batch).unwrap();
        let row = |at: usize| &rows.values[at * COLUMNS..(at + 1) * COLUMNS];
        assert_eq!(row(0), row(1));
        assert_ne!(row(0), row(2));
        assert!((row(0)[column(6)] - (2.0_f32 / 3.0).sqrt()).abs() < 1e-6);
        assert!((row(0).iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}
