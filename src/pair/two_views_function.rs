//! `two_views(image, sample_id [, seed [, pass]])`: the pair's kernel as a function in plain SQL.
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, FixedSizeListArray, UInt8Array, UInt64Array},
        buffer::NullBuffer,
        datatypes::{DataType, Field, FieldRef},
    },
    common::{
        DataFusionError, Result as DataFusionResult,
        cast::{as_binary_view_array, as_uint64_array},
        exec_err, internal_err, plan_err,
    },
    logical_expr::{
        ColumnarValue, DocSection, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
        Signature, Volatility,
    },
    prelude::SessionContext,
};

use super::{Encoded, SampleKernel, two_views::TwoViews};
use crate::seed::ItemKey;

/// Output that one call should stay below: 8,192 rows, DataFusion's default batch, of two 224-pixel views are 2.5 GB.
const BATCH_BYTES: usize = 64 << 20;
/// Output above which a call is refused: the session forgot to lower its batch size.
const MAX_BYTES: usize = 1 << 30;
/// Rows of a shard in a `sample_id`: shard ordinal << 40 | row.
const ROW_BITS: u32 = 40;

/// The kernel [`TwoViews`] in SQL: the pixels that training sees for the same seed, pass and sample.
///
/// Returns FixedSizeList of UInt8 with the extension type `arrow.fixed_shape_tensor`, `[2, 3, side, side]`; NULL for a
/// sample that is bad, or NULL itself. Seed and pass are 0 where they are left out. Sessions that call it should set
/// `datafusion.execution.batch_size` to at most [`batch_rows`]; calls whose output would exceed 1 GiB are refused.
#[derive(Debug)]
pub struct TwoViewsFunction {
    kernel: TwoViews,
    fingerprints: Vec<u128>,
    identity: String,
    signature: Signature,
    documentation: Documentation,
}

/// Registers `two_views` for a kernel. `fingerprints` are those of the shards, by ordinal, as in `ItemKey::shard`.
pub fn register_two_views(session: &SessionContext, kernel: TwoViews, fingerprints: Vec<u128>) {
    session.register_udf(ScalarUDF::new_from_impl(TwoViewsFunction::new(kernel, fingerprints)));
}

/// Rows per batch that keep the output of one call under 64 MB.
pub fn batch_rows(kernel: &dyn SampleKernel) -> usize {
    (BATCH_BYTES / kernel.shape().iter().product::<usize>().max(1)).max(1)
}

/// A column of tensors: FixedSizeList of UInt8 with the extension type `arrow.fixed_shape_tensor`.
///
/// # Errors
/// The tensor has more elements than a FixedSizeList can hold.
pub fn tensor_field(name: &str, shape: &[usize], nullable: bool) -> DataFusionResult<Field> {
    let elements = i32::try_from(shape.iter().product::<usize>())
        .map_err(|_| DataFusionError::Execution(format!("a tensor of shape {shape:?} is too large for a list")))?;
    let list = DataType::FixedSizeList(item_field(), elements);
    let metadata = [
        ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
        ("ARROW:extension:metadata".to_owned(), serde_json::json!({ "shape": shape }).to_string()),
    ];
    Ok(Field::new(name, list, nullable).with_metadata(metadata.into()))
}

/// What `diptych functions` prints.
pub fn documentation() -> Documentation {
    let section = DocSection { include: true, label: "pairing", description: None };
    let description = "The two views that training sees of a sample, as a tensor of u8 [2, 3, side, side] in a \
                       FixedSizeList; NULL for a bad sample. The recipe is that of the session that a program \
                       registers it in (`register_two_views`); `diptych sql` has no recipe and hence no \
                       `two_views`.";
    Documentation::builder(section, description, "two_views(image, sample_id [, seed [, pass]])")
        .with_argument("image", "The encoded image.")
        .with_argument("sample_id", "That of the table `shards`, unchanged.")
        .with_argument("seed", "The run's seed; 0 where it is left out.")
        .with_argument("pass", "The epoch; 0 where it is left out.")
        .with_sql_example(
            "```sql\n> SELECT count(two_views(image, sample_id, 3, 1)) AS usable FROM shards;\n\
             +--------+\n| usable |\n+--------+\n| 2      |\n+--------+\n```",
        )
        .build()
}

fn item_field() -> FieldRef {
    Arc::new(Field::new("item", DataType::UInt8, false))
}

impl TwoViewsFunction {
    /// The function for a kernel and the shards' fingerprints, by ordinal.
    pub fn new(kernel: TwoViews, fingerprints: Vec<u128>) -> Self {
        let identity = kernel.describe();
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { kernel, fingerprints, identity, signature, documentation: documentation() }
    }

    fn item(&self, sample_id: u64) -> DataFusionResult<ItemKey> {
        let ordinal = (sample_id >> ROW_BITS) as usize;
        let Some(&shard) = self.fingerprints.get(ordinal) else {
            return exec_err!("two_views: sample_id {sample_id} names shard {ordinal}, of {}", self.fingerprints.len());
        };
        Ok(ItemKey { shard, row: sample_id & ((1 << ROW_BITS) - 1), occurrence: 0 })
    }
}

impl PartialEq for TwoViewsFunction {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity && self.fingerprints == other.fingerprints
    }
}

impl Eq for TwoViewsFunction {}

impl Hash for TwoViewsFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity.hash(state);
        self.fingerprints.hash(state);
    }
}

impl ScalarUDFImpl for TwoViewsFunction {
    fn name(&self) -> &str {
        TwoViews::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let wanted = [DataType::BinaryView, DataType::UInt64, DataType::UInt64, DataType::UInt64];
        match arg_types.len() {
            count @ 2..=4 => Ok(wanted[..count].to_vec()),
            count => {
                plan_err!("two_views takes image, sample_id and, if you like, seed and pass; it was given {count}")
            }
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> DataFusionResult<DataType> {
        internal_err!("two_views returns a field, for the sake of its tensor's shape")
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        tensor_field(TwoViews::NAME, self.kernel.shape(), true).map(Arc::new)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = args.number_rows;
        let bytes_per_row = self.kernel.shape().iter().product::<usize>();
        if rows.saturating_mul(bytes_per_row) > MAX_BYTES {
            let advised = batch_rows(&self.kernel);
            return exec_err!("two_views of {rows} rows at once: SET datafusion.execution.batch_size = {advised}");
        }
        let arrays: Vec<ArrayRef> =
            args.args.into_iter().map(|argument| argument.into_array(rows)).collect::<DataFusionResult<_>>()?;
        let images = as_binary_view_array(&arrays[0])?;
        let numbers: Vec<&UInt64Array> =
            arrays[1..].iter().map(|array| as_uint64_array(array)).collect::<DataFusionResult<_>>()?;
        let number = |index: usize, row: usize| numbers.get(index).map_or(0, |array| array.value(row));
        let mut pixels = vec![0_u8; rows * bytes_per_row];
        let mut valid = vec![false; rows];
        for (row, (slot, valid)) in pixels.chunks_exact_mut(bytes_per_row).zip(&mut valid).enumerate() {
            if arrays.iter().any(|array| array.is_null(row)) {
                continue;
            }
            let item = self.item(number(0, row))?;
            *valid = self
                .kernel
                .apply(Encoded::image(images.value(row)), number(1, row), number(2, row), item, slot)
                .is_ok();
        }
        let values = Arc::new(UInt8Array::from(pixels));
        let views =
            FixedSizeListArray::try_new(item_field(), bytes_per_row as i32, values, Some(NullBuffer::from(valid)))?;
        Ok(ColumnarValue::Array(Arc::new(views)))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{array::BinaryArray, datatypes::Schema, record_batch::RecordBatch};

    use image::ImageEncoder;

    use super::*;
    use crate::{
        augment::recipe::{AugmentSettings, ImageOpSettings, Interpolation, RandomResizedCropSettings},
        pair::TwoViewsSettings,
    };

    fn png() -> Vec<u8> {
        let samples: Vec<u8> = (0..3 * 9 * 7).collect();
        let mut encoded = vec![];
        image::codecs::png::PngEncoder::new(&mut encoded)
            .write_image(&samples, 9, 7, image::ExtendedColorType::Rgb8)
            .expect("encodes");
        encoded
    }

    fn kernel() -> TwoViews {
        let crop = RandomResizedCropSettings {
            side_pixels: 4,
            area: [0.2, 1.0],
            aspect: [0.75, 1.25],
            interpolation: Interpolation::Bilinear,
        };
        let augment = AugmentSettings { image: vec![ImageOpSettings::RandomResizedCrop(crop)], ..Default::default() };
        TwoViews::new(&TwoViewsSettings { column: "image".into() }, &augment).expect("a valid recipe")
    }

    fn session() -> SessionContext {
        let session = SessionContext::new();
        register_two_views(&session, kernel(), vec![11, 22]);
        let ids = UInt64Array::from(vec![5, (1 << ROW_BITS) | 6, 7]);
        let png = png();
        let images = BinaryArray::from_opt_vec(vec![Some(&png), Some(&png), Some(b"no image")]);
        let schema = Schema::new(vec![
            Field::new("sample_id", DataType::UInt64, false),
            Field::new("image", DataType::Binary, true),
        ]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(images)]).expect("columns fit");
        session.register_batch("shards", batch).expect("a new name");
        session
    }

    #[tokio::test]
    async fn sql_gives_the_pixels_of_the_kernel_and_null_for_bad_samples() {
        let query = "SELECT two_views(image, sample_id, 3, 1) AS views FROM shards";
        let batches = session().sql(query).await.expect("plans").collect().await.expect("runs");
        let schema = batches[0].schema();
        let metadata = schema.field(0).metadata();
        assert_eq!(metadata["ARROW:extension:name"], "arrow.fixed_shape_tensor");
        assert_eq!(metadata["ARROW:extension:metadata"], r#"{"shape":[2,3,4,4]}"#);
        let views = batches[0].column(0).as_any().downcast_ref::<FixedSizeListArray>().expect("a list");
        assert_eq!((views.is_valid(0), views.is_valid(1), views.is_null(2)), (true, true, true));
        for (row, item) in
            [(0, ItemKey { shard: 11, row: 5, occurrence: 0 }), (1, ItemKey { shard: 22, row: 6, occurrence: 0 })]
        {
            let mut expected = vec![0; 2 * 3 * 4 * 4];
            kernel().apply(Encoded::image(&png()), 3, 1, item, &mut expected).expect("a good image");
            let value = views.value(row);
            let value = value.as_any().downcast_ref::<UInt8Array>().expect("bytes");
            assert_eq!(value.values().as_ref(), expected);
        }
    }

    #[tokio::test]
    async fn the_example_prints_what_the_documentation_says() {
        use datafusion::arrow::util::pretty::pretty_format_batches;
        let example = documentation().sql_example.expect("an example");
        let (sql, table) = example.split_once(";\n").expect("a query and its table");
        let sql = sql.strip_prefix("```sql\n> ").expect("a prompt");
        let batches = session().sql(sql).await.expect("plans").collect().await.expect("runs");
        let printed = pretty_format_batches(&batches).expect("prints").to_string();
        assert_eq!(table, format!("{printed}\n```"));
    }

    #[tokio::test]
    async fn unknown_shard_is_an_error_that_names_it() {
        let query = "SELECT two_views(image, sample_id + 9000000000000) FROM shards";
        let error = session().sql(query).await.expect("plans").collect().await.expect_err("no such shard");
        assert!(error.to_string().contains("names shard 8"), "{error}");
    }

    #[test]
    fn advised_batch_of_224_pixel_views_stays_below_64_megabytes() {
        let crop = RandomResizedCropSettings {
            side_pixels: 224,
            area: [0.08, 1.0],
            aspect: [0.75, 1.25],
            interpolation: Interpolation::Bilinear,
        };
        let augment = AugmentSettings { image: vec![ImageOpSettings::RandomResizedCrop(crop)], ..Default::default() };
        let kernel = TwoViews::new(&TwoViewsSettings { column: "image".into() }, &augment).expect("a valid recipe");
        assert_eq!(batch_rows(&kernel), (64 << 20) / (2 * 3 * 224 * 224));
    }
}
