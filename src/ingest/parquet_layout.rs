//! Which columns of a foreign Parquet file hold the image, its words, and what else is worth carrying.
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema};
use datafusion::parquet::file::metadata::KeyValue;

use super::class_labels;
use super::columns::{ColumnName, Filled, NO_DOWNLOAD, find, has_urls};
use super::kind::Kind;
use super::metadata_table::target;
use crate::error::{Error, Result, Stage};
use crate::schema::Schema;

/// What image columns are called, in the order in which they are tried; img2dataset names them by their format.
const USUAL_IMAGES: [&str; 9] = ["image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "picture", "photo"];
/// img2dataset's column that says whether a row has its image.
pub(super) const STATUS: &str = "status";

/// The columns of one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// As reports name it.
    pub(super) kind: &'static str,
    pub(super) image: String,
    pub(super) caption: Option<String>,
    pub(super) label: Option<String>,
    /// Names behind the numbers of `label`.
    pub(super) class_names: Option<Vec<String>>,
    pub(super) split: Option<String>,
    /// Whether only rows with "success" in [`STATUS`] have an image.
    pub(super) is_img2dataset: bool,
    /// Name, and the type it is carried in.
    pub(super) further: Vec<FieldRef>,
    /// Columns that are not carried, and why.
    pub(super) ignored: Vec<String>,
}

impl Layout {
    /// Judges a file, named `place` in errors, by its schema and its footer's `pairs`.
    ///
    /// # Errors
    /// It has no column of images, a column that was named is not there, or one name stands twice.
    pub(super) fn of(
        schema: &ArrowSchema,
        pairs: Option<&Vec<KeyValue>>,
        columns: &[ColumnName],
        read_as: Option<Kind>,
        place: &str,
    ) -> Result<Self> {
        let present: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut names = std::collections::BTreeSet::new();
        if let Some(twice) = present.iter().find(|name| !names.insert(**name)) {
            return Err(Error::at(Stage::Import, place, format!("has the column {twice:?} twice; rename one")));
        }
        let image = image(schema, &present, columns, place)?;
        let find = |filled: Filled| {
            let found = find(columns, filled, filled.usual(), &present, place)?;
            Ok::<_, Error>(found.filter(|found| *found != image).map(str::to_owned))
        };
        let (caption, label, split) = (find(Filled::Caption)?, find(Filled::Label)?, find(Filled::Split)?);
        let has = |name: &str| present.contains(&name);
        let is_img2dataset = match read_as {
            Some(Kind::Img2dataset) if !has(STATUS) => {
                let reason = "has no column \"status\", so img2dataset did not write it; read it with --as parquet";
                return Err(Error::at(Stage::Import, place, reason));
            }
            Some(Kind::Img2dataset) => true,
            Some(_) => false,
            None => has(STATUS) && has("key"),
        };
        let kind = if is_img2dataset {
            "img2dataset"
        } else if class_labels::is_huggingface(pairs) || is_struct(schema, &image) {
            "huggingface_parquet"
        } else {
            "parquet"
        };
        let class_names = label.as_ref().and_then(|label| class_labels::names(pairs, label));
        let (further, ignored) = (vec![], vec![]);
        let mut layout = Self { kind, image, caption, label, class_names, split, is_img2dataset, further, ignored };
        (layout.further, layout.ignored) = carried(schema, &layout.taken())?;
        Ok(layout)
    }

    /// Columns that are read for something else than being carried.
    fn taken(&self) -> Vec<&str> {
        let filling = [Some(&self.image), self.caption.as_ref(), self.label.as_ref(), self.split.as_ref()];
        let filling = filling.into_iter().flatten().map(String::as_str);
        filling.chain(self.is_img2dataset.then_some(STATUS)).collect()
    }

    /// Numbers of the columns to read.
    pub(super) fn projection(&self, schema: &ArrowSchema) -> Vec<usize> {
        let taken = self.taken();
        let is_read = |field: &Field| {
            taken.contains(&field.name().as_str()) || self.further.iter().any(|further| further.name() == field.name())
        };
        (0..schema.fields().len()).filter(|number| is_read(schema.field(*number))).collect()
    }
}

fn image(schema: &ArrowSchema, present: &[&str], columns: &[ColumnName], place: &str) -> Result<String> {
    let candidates: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| holds_images(field.data_type()))
        .map(|field| field.name().as_str())
        .collect();
    if let Some(name) = find(columns, Filled::Image, &[], present, place)? {
        if candidates.contains(&name) {
            return Ok(name.to_owned());
        }
        let data_type = schema.field_with_name(name).map(|field| field.data_type().to_string()).unwrap_or_default();
        let paths = if data_type.starts_with("Utf8") || data_type.starts_with("LargeUtf8") {
            "; if it holds the paths of image files, read it with --as paths"
        } else {
            ""
        };
        let reason = format!("column {name:?} is {data_type}; images are binary or struct<bytes, path>{paths}");
        return Err(Error::at(Stage::CommandLine, place, reason));
    }
    if let Some(found) = find(columns, Filled::Image, &USUAL_IMAGES, &candidates, place)? {
        return Ok(found.to_owned());
    }
    let reason = if !candidates.is_empty() {
        let first = candidates[0];
        format!(
            "has no column that is known to hold images; candidates are {}: name one with --column image={first}",
            candidates.join(", ")
        )
    } else if has_urls(present) {
        format!("has URLs but no images; {NO_DOWNLOAD}")
    } else {
        format!(
            "has no column of encoded images (binary or struct<bytes, path>); there are {}: if one of them holds the paths of \
             image files, read it with --as paths",
            present.join(", ")
        )
    };
    Err(Error::at(Stage::Import, place, reason))
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Whether a column of that type is read as encoded images.
pub(crate) fn holds_images(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|field| field.name() == "bytes" && is_binary(field.data_type())),
        other => is_binary(other),
    }
}

fn is_struct(schema: &ArrowSchema, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(|field| matches!(field.data_type(), DataType::Struct(_)))
}

/// [`Layout::further`] and [`Layout::ignored`].
fn carried(schema: &ArrowSchema, taken: &[&str]) -> Result<(Vec<FieldRef>, Vec<String>)> {
    let own = Schema::named("image_text")?;
    let (mut further, mut ignored) = (vec![], vec![]);
    for field in schema.fields() {
        let name = field.name();
        if taken.contains(&name.as_str()) {
            continue;
        }
        match target(field.data_type(), false) {
            _ if own.column(name).is_ok() => ignored.push(format!("{name}: import makes this column itself")),
            Some(data_type) => further.push(Field::new(name, data_type, true).into()),
            None => ignored.push(format!("{name}: {} has no place in a shard", field.data_type())),
        }
    }
    Ok((further, ignored))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> ArrowSchema {
        ArrowSchema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>())
    }

    fn layout(columns: &[(&str, DataType)], named: &[&str], read_as: Option<Kind>) -> Result<Layout> {
        let named: Vec<ColumnName> = named.iter().map(|name| name.parse().unwrap()).collect();
        Layout::of(&schema(columns), None, &named, read_as, "a.parquet")
    }

    use DataType::{Binary, Float64, Int64, LargeBinary, Utf8};

    #[test]
    fn an_image_is_a_struct_with_bytes_or_binary_under_a_usual_name() {
        let parts = vec![Field::new("bytes", Binary, true), Field::new("path", Utf8, true)];
        let found = layout(&[("label", Int64), ("img", DataType::Struct(parts.into()))], &[], None).unwrap();
        assert_eq!(
            (found.kind, found.image.as_str(), found.label.as_deref()),
            ("huggingface_parquet", "img", Some("label"))
        );
        let found =
            layout(&[("TEXT", Utf8), ("png", LargeBinary), ("score", Float64), ("width", Int64)], &[], None).unwrap();
        assert_eq!((found.kind, found.image.as_str(), found.caption.as_deref()), ("parquet", "png", Some("TEXT")));
        assert_eq!(found.further[0].name(), "score");
        assert_eq!(found.ignored, ["width: import makes this column itself"]);
    }

    #[test]
    fn img2dataset_is_known_by_its_status_and_can_be_forced_or_refused() {
        let columns = [("key", Utf8), ("status", Utf8), ("jpg", Binary)];
        assert_eq!(layout(&columns, &[], None).unwrap().kind, "img2dataset");
        assert!(!layout(&columns, &[], Some(Kind::Parquet)).unwrap().is_img2dataset);
        let error = layout(&columns[2..], &[], Some(Kind::Img2dataset)).unwrap_err().to_string();
        assert!(error.contains("no column \"status\""), "{error}");
    }

    #[test]
    fn a_missing_image_column_lists_what_there_is() {
        let error =
            |columns: &[(&str, DataType)], named: &[&str]| layout(columns, named, None).unwrap_err().to_string();
        let text = error(&[("blob", Binary), ("thumb", Binary), ("x", Int64)], &[]);
        assert!(text.contains("candidates are blob, thumb") && text.contains("--column image=blob"), "{text}");
        let text = error(&[("x", Int64)], &["image=x"]);
        assert!(text.contains("column \"x\" is Int64"), "{text}");
        let text = error(&[("x", Int64)], &["image=y"]);
        assert!(text.contains("no column \"y\""), "{text}");
        let text = error(&[("URL", Utf8)], &[]);
        assert!(text.contains("does not download") && text.contains("img2dataset"), "{text}");
        assert!(error(&[("x", Int64)], &[]).contains("there are x"));
        assert_eq!(layout(&[("blob", Binary)], &["image=blob"], None).unwrap().image, "blob");
    }
}
