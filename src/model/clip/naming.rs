//! The names and layouts under which others keep a CLIP's weights.
use std::collections::BTreeMap;

use burn::tensor::{DType, TensorData};

use crate::error::{Error, Result, Stage};

/// Tensors by name.
pub type Entries = BTreeMap<String, TensorData>;

/// Whose names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// open_clip's, which are OpenAI's and this module's own.
    OpenClip,
    /// transformers' `CLIPModel`: queries, keys and values apart, projections transposed. It has vision transformers only.
    Transformers,
}

/// (open_clip, transformers): what stands in front of a name, or is all of it. Blocks are [`IN_BLOCKS`].
const PREFIXES: [(&str, &str); 10] = [
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    // Their spelling.
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("logit_scale", "logit_scale"),
    ("logit_bias", "logit_bias"),
];

const TOWERS: [(&str, &str); 2] = [
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
];

const IN_BLOCKS: [(&str, &str); 5] = [
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
];

/// Matrices that one side keeps transposed. A square one fits either way round: only the name tells.
const TRANSPOSED: [(&str, &str); 2] =
    [("visual.proj", "visual_projection.weight"), ("text_projection", "text_projection.weight")];

/// Queries, keys and values in the order in which `in_proj` has them.
const PARTS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// Entries of no use here: counters, and sizes and masks that archives carry beside the weights.
fn is_no_weight(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
        || name.ends_with(".position_ids")
        || ["input_resolution", "context_length", "vocab_size", "attn_mask"].contains(&name)
}

impl Naming {
    /// As messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenClip => "open_clip",
            Self::Transformers => "transformers",
        }
    }

    /// Whose names these are.
    ///
    /// # Errors
    /// Nobody's that are known here.
    pub fn of(entries: &Entries) -> Result<Self> {
        if entries.keys().any(|name| name.starts_with("vision_model.")) {
            return Ok(Self::Transformers);
        }
        if entries.keys().any(|name| name.starts_with("visual.")) {
            return Ok(Self::OpenClip);
        }
        let first: Vec<&str> = entries.keys().take(4).map(String::as_str).collect();
        let reason = format!(
            "these are no weights of a CLIP: there is neither `vision_model.…` (transformers) nor `visual.…` (open_clip); \
             the first names are {first:?}"
        );
        Err(Error::at(Stage::Checkpoint, "", reason))
    }

    /// Entries under open_clip's names, and the names of those that were left out because they are no weights.
    ///
    /// Names that are not known stay as they are, so that whoever loads the entries names them.
    pub fn to_open_clip(self, entries: Entries) -> (Entries, Vec<String>) {
        let (left_out, entries): (Entries, Entries) = entries.into_iter().partition(|(name, _)| is_no_weight(name));
        let left_out = left_out.into_keys().collect();
        let entries = match self {
            Self::OpenClip => without_text_prefix(entries),
            Self::Transformers => joined(entries.into_iter().map(from_transformers).collect()),
        };
        (entries, left_out)
    }

    /// Entries under open_clip's names as this naming has them, ready for a file: scalars have no axis.
    ///
    /// # Errors
    /// transformers' `CLIPModel` has no such tower.
    pub fn lay_out(self, entries: Entries) -> Result<Entries> {
        let entries = entries.into_iter().map(|(name, data)| match name.as_str() {
            "logit_scale" | "logit_bias" => (name, without_axes(data)),
            _ => (name, data),
        });
        if self == Self::OpenClip {
            return Ok(entries.collect());
        }
        let mut out = Entries::new();
        for (name, data) in entries {
            if let Some((path, kind)) = name.rsplit_once("attn.in_proj_") {
                let block = renamed(path, &TOWERS, 0).unwrap_or_else(|| path.to_owned());
                for (part, data) in PARTS.iter().zip(thirds(&data)) {
                    out.insert(format!("{block}self_attn.{part}.{kind}"), data);
                }
            } else if let Some((_, theirs)) = TRANSPOSED.iter().find(|(ours, _)| *ours == name) {
                out.insert((*theirs).to_owned(), transposed(data));
            } else if let Some(theirs) = rename(&name, 0).filter(|_| name != "logit_bias") {
                out.insert(theirs, data);
            } else {
                let reason =
                    format!("transformers' CLIPModel has no place for {name}; write open_clip's files instead");
                return Err(Error::at(Stage::Checkpoint, "", reason));
            }
        }
        Ok(out)
    }
}

/// The name on the other side: `from` 0 reads open_clip's, 1 transformers'.
fn rename(name: &str, from: usize) -> Option<String> {
    let side = |pair: &(&'static str, &'static str)| if from == 0 { (pair.0, pair.1) } else { (pair.1, pair.0) };
    for (ours, theirs) in TOWERS.iter().map(side) {
        let Some((index, rest)) = name.strip_prefix(ours).and_then(|rest| rest.split_once('.')) else { continue };
        let rest =
            IN_BLOCKS.iter().map(side).find_map(|(a, b)| rest.strip_prefix(a).map(|rest| format!("{b}{rest}")))?;
        return Some(format!("{theirs}{index}.{rest}"));
    }
    PREFIXES.iter().map(side).find_map(|(a, b)| match a.ends_with('.') {
        true => name.strip_prefix(a).map(|rest| format!("{b}{rest}")),
        false => (name == a).then(|| b.to_owned()),
    })
}

/// A block's path with the other side's tower in front.
fn renamed(path: &str, towers: &[(&str, &str)], from: usize) -> Option<String> {
    towers.iter().find_map(|pair| {
        let (a, b) = if from == 0 { (pair.0, pair.1) } else { (pair.1, pair.0) };
        path.strip_prefix(a).map(|rest| format!("{b}{rest}"))
    })
}

fn from_transformers((name, data): (String, TensorData)) -> (String, TensorData) {
    if let Some((ours, _)) = TRANSPOSED.iter().find(|(_, theirs)| *theirs == name) {
        return if data.rank() == 2 { ((*ours).to_owned(), transposed(data)) } else { (name, data) };
    }
    (rename(&name, 1).unwrap_or(name), data)
}

/// Puts queries, keys and values that are all there, of floating point and of one shape below each other.
fn joined(mut entries: Entries) -> Entries {
    let queries: Vec<String> = entries.keys().filter(|name| name.contains(".self_attn.q_proj.")).cloned().collect();
    for query in queries {
        let Some((path, kind)) = query.rsplit_once("self_attn.q_proj.") else { continue };
        let names = PARTS.map(|part| format!("{path}self_attn.{part}.{kind}"));
        let parts = names.iter().filter_map(|name| entries.get(name)).filter(|data| data.dtype().is_float());
        let shapes: Vec<_> = parts.map(|data| data.shape().clone()).collect();
        let Some(block) = renamed(path, &TOWERS, 1) else { continue };
        if shapes.len() < PARTS.len()
            || shapes.iter().any(|shape| *shape != shapes[0])
            || shapes[0].as_slice().is_empty()
        {
            continue;
        }
        let mut values = Vec::new();
        for name in &names {
            values.extend(entries.remove(name).into_iter().flat_map(floats));
        }
        let mut shape = shapes[0].as_slice().to_vec();
        shape[0] *= PARTS.len();
        entries.insert(format!("{block}attn.in_proj_{kind}"), TensorData::new(values, shape));
    }
    entries
}

/// open_clip's models with a text tower of their own kind keep it below `text.`.
fn without_text_prefix(entries: Entries) -> Entries {
    let strip = |name: String| name.strip_prefix("text.").map(str::to_owned).unwrap_or(name);
    entries.into_iter().map(|(name, data)| (strip(name), data)).collect()
}

fn floats(data: TensorData) -> Vec<f32> {
    data.convert_dtype(DType::F32).try_into_vec::<f32>().unwrap_or_default()
}

fn without_axes(data: TensorData) -> TensorData {
    let (bytes, _, dtype) = data.into_parts();
    TensorData::from_bytes(bytes, [0_usize; 0], dtype)
}

/// Rows of a matrix, or values of a vector, in three equal parts.
fn thirds(data: &TensorData) -> [TensorData; 3] {
    let mut shape = data.shape().as_slice().to_vec();
    shape[0] /= PARTS.len();
    let values = floats(data.clone());
    let count = values.len() / PARTS.len();
    [0, 1, 2].map(|part| TensorData::new(values[part * count..][..count].to_vec(), shape.clone()))
}

fn transposed(data: TensorData) -> TensorData {
    let [rows, columns] = [data.shape()[0], data.shape()[1]];
    if !data.dtype().is_float() {
        // Only so that it is refused for what it is: integers are no weights.
        let (bytes, _, dtype) = data.into_parts();
        return TensorData::from_bytes(bytes, [columns, rows], dtype);
    }
    let values = floats(data);
    let turned = (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect();
    TensorData::new::<f32, _>(turned, [columns, rows])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(shape: &[usize]) -> TensorData {
        let count: usize = shape.iter().product();
        TensorData::new((0..count).map(|at| at as f32).collect::<Vec<_>>(), shape.to_vec())
    }

    fn open_clip() -> Entries {
        let block = [
            ("ln_1.weight", vec![2]),
            ("ln_1.bias", vec![2]),
            ("attn.in_proj_weight", vec![6, 2]),
            ("attn.in_proj_bias", vec![6]),
            ("attn.out_proj.weight", vec![2, 2]),
            ("ln_2.bias", vec![2]),
            ("mlp.c_fc.weight", vec![8, 2]),
            ("mlp.c_proj.bias", vec![2]),
        ];
        let mut entries = Entries::from(
            [
                ("visual.class_embedding", vec![2]),
                ("visual.positional_embedding", vec![5, 2]),
                ("visual.conv1.weight", vec![2, 3, 4, 4]),
                ("visual.ln_pre.weight", vec![2]),
                ("visual.ln_post.bias", vec![2]),
                ("visual.proj", vec![2, 2]),
                ("token_embedding.weight", vec![9, 2]),
                ("positional_embedding", vec![7, 2]),
                ("ln_final.bias", vec![2]),
                ("text_projection", vec![2, 3]),
                ("logit_scale", vec![1]),
            ]
            .map(|(name, shape)| (name.to_owned(), counted(&shape))),
        );
        for tower in ["visual.transformer.resblocks.11.", "transformer.resblocks.0."] {
            entries.extend(block.iter().map(|(name, shape)| (format!("{tower}{name}"), counted(shape))));
        }
        entries
    }

    #[test]
    fn both_directions_undo_each_other() {
        let theirs = Naming::Transformers.lay_out(open_clip()).expect("a vision transformer");
        assert_eq!(Naming::of(&theirs).expect("theirs"), Naming::Transformers);
        assert_eq!(theirs["logit_scale"].rank(), 0);
        assert_eq!(theirs["text_projection.weight"].shape().as_slice(), [3, 2]);
        assert_eq!(theirs["text_projection.weight"].as_slice::<f32>().expect("f32"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let key = &theirs["vision_model.encoder.layers.11.self_attn.k_proj.weight"];
        assert_eq!(key.as_slice::<f32>().expect("f32"), [4.0, 5.0, 6.0, 7.0]);
        assert!(theirs.contains_key("vision_model.pre_layrnorm.weight"));
        let (back, left_out) = Naming::Transformers.to_open_clip(theirs);
        assert!(left_out.is_empty());
        let mut expected = open_clip();
        expected.insert("logit_scale".to_owned(), without_axes(counted(&[1])));
        assert_eq!(back, expected);
    }

    #[test]
    fn what_is_no_weight_is_named_and_what_is_unknown_stays() {
        let mut entries = open_clip();
        entries.insert("visual.bn1.num_batches_tracked".to_owned(), TensorData::new(vec![1_i64], [1]));
        entries.insert("visual.attnpool.q_proj.weight".to_owned(), counted(&[2, 2]));
        let error = Naming::Transformers.lay_out(entries.clone()).expect_err("a ResNet").to_string();
        assert!(error.contains("no place for visual."), "{error}");
        let (entries, left_out) = Naming::OpenClip.to_open_clip(entries);
        assert_eq!(left_out, ["visual.bn1.num_batches_tracked"]);
        assert!(entries.contains_key("visual.attnpool.q_proj.weight"));
        assert!(Naming::of(&Entries::from([("conv1.weight".to_owned(), counted(&[1]))])).is_err());
    }

    #[test]
    fn integers_stay_what_they_are_so_that_they_are_refused() {
        let integers = || TensorData::new(vec![1_i64; 6], [2, 3]);
        let names = PARTS.map(|part| format!("text_model.encoder.layers.0.self_attn.{part}.weight"));
        let mut theirs: Entries = names.iter().map(|name| (name.clone(), integers())).collect();
        theirs.insert("text_projection.weight".to_owned(), integers());
        let (entries, _) = Naming::Transformers.to_open_clip(theirs);
        assert!(names.iter().all(|name| entries.contains_key(name)), "{:?}", entries.keys());
        let projection = &entries["text_projection"];
        assert_eq!((projection.dtype(), projection.shape().as_slice()), (DType::I64, &[3, 2][..]));
    }

    #[test]
    fn queries_without_keys_are_not_joined() {
        let name = "text_model.encoder.layers.0.self_attn.q_proj.weight";
        let (entries, _) = Naming::Transformers.to_open_clip(Entries::from([(name.to_owned(), counted(&[2, 2]))]));
        assert_eq!(entries.keys().collect::<Vec<_>>(), [name]);
    }
}
