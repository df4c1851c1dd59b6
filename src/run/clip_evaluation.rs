//! What a text tower adds to an evaluation, of a run and of released weights alike: zero-shot classification and retrieval.
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    ops::ControlFlow,
    path::Path,
};

use datafusion::arrow::array::RecordBatch;

use super::{
    Named,
    clip_model::ClipModel,
    data::Data,
    embedded_rows::{CAPTION, IMAGE, embed_images, several_texts, texts},
    output,
    progress::Progress,
    top_matches::{ImageHash, hashes, top_matches},
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    evaluate::{
        EvaluateSettings,
        clip::embedder::Embedder,
        embeddings::Embeddings,
        matches::Matches,
        retrieval::{Retrieval, RetrievalSettings, retrieval},
        scores::Scores,
        templates::{DEFAULT_TEMPLATE, LabelName, label_names, templates},
        zero_shot::{Templates, ZeroShot, ZeroShotSettings, class_embeddings, classify},
    },
    select::{
        provider::SAMPLE_ID,
        sql::{Query, SqlSession},
    },
    train::report::matches::page as matches_page,
};

/// Column that says which rows show one image.
const IMAGE_KEY: &str = "image_key";
const ZERO_SHOT: &str = "evaluate.zero_shot";
const RETRIEVAL: &str = "evaluate.retrieval";

/// Scores weights by the `[evaluate]` of a pipeline, whose method is not looked at; prints, and writes captions with their
/// best images to `page` where that is asked for.
///
/// # Errors
/// The pipeline evaluates nothing by text; the weights', the data's; the page cannot be written.
pub fn run(named: &Named, model: &ClipModel, page: Option<&Path>, json: bool) -> Result<()> {
    let plan = named.plan()?;
    let by_text = |settings: &EvaluateSettings| settings.zero_shot.is_some() || settings.retrieval.is_some();
    let Some(settings) = plan.pipeline.evaluate.clone().filter(by_text) else {
        let reason =
            "has neither [evaluate.zero_shot] nor [evaluate.retrieval], and weights are scored by nothing else";
        return Err(Error::at(Stage::CommandLine, plan.named, reason));
    };
    if page.is_some() && settings.retrieval.as_ref().is_none_or(|retrieval| retrieval.pictures == 0) {
        let reason = "shows captions with their best images: it wants [evaluate.retrieval] with pictures above 0";
        return Err(Error::at(Stage::CommandLine, "--page", reason));
    }
    let data = Data::open(&plan)?;
    let embedder = model.open()?;
    let mut scores = Scores { seed: plan.pipeline.seed, ..Scores::default() };
    let matches = add(&mut scores, &settings, &data, &embedder, None)?;
    output::line(&scores.to_string())?;
    if let (Some(page), Some(matches)) = (page, &matches) {
        let title = format!("Best images of captions: {}", model.place);
        fs::write(page, matches_page(&title, matches)).context(
            Stage::Output,
            page.display().to_string(),
            "cannot be written; name a file in a folder that is there",
        )?;
        output::line(&format!("see {}", page.display()))?;
    }
    if json { output::json(&scores) } else { Ok(()) }
}

/// Adds what the settings ask for to the scores, beside the same of the untrained model where there is one; captions with
/// their best images come back where there are some to show.
///
/// # Errors
/// The queries' and the files'; embeddings that are not finite.
pub(super) fn add(
    scores: &mut Scores,
    settings: &EvaluateSettings,
    data: &Data,
    embedder: &Embedder,
    untrained: Option<&Embedder>,
) -> Result<Option<Matches>> {
    let session = data.sql_session(&queries(settings))?;
    if scores.recipe.is_empty() {
        scores.recipe = embedder.checkpoint().described.preprocess.to_string();
    }
    if let Some(settings) = &settings.zero_shot {
        let found = zero_shot(settings, data, &session, embedder, untrained)?;
        scores.zero_shot.insert(settings.label.clone(), found);
    }
    let Some(settings) = &settings.retrieval else { return Ok(None) };
    let pairs = Pairs::read(settings, data, &session, embedder, untrained)?;
    let beside = pairs.untrained.as_ref().map(|[images, texts]| [images, texts]);
    let found = retrieval(&pairs.images, &pairs.texts, &pairs.image_of, beside)?;
    scores.retrieval = Some(Retrieval { left_out: pairs.left_out, sql: settings.sql.clone(), ..found });
    if settings.pictures == 0 {
        return Ok(None);
    }
    let query = planned(data, &session, RETRIEVAL, &settings.sql, &[IMAGE, CAPTION])?;
    top_matches(&pairs, settings.pictures, |take| {
        data.runtime.block_on(query.run(|batch| take(&batch).map(ControlFlow::Continue)))
    })
    .map(Some)
}

/// Plans the queries of the settings without running them.
///
/// # Errors
/// Those that are not accepted, or lack a column.
pub(super) fn check(settings: &EvaluateSettings, data: &Data) -> Result<usize> {
    if settings.zero_shot.is_none() && settings.retrieval.is_none() {
        return Ok(0);
    }
    let session = data.sql_session(&queries(settings))?;
    let mut checked = 0;
    if let Some(settings) = &settings.zero_shot {
        planned(data, &session, ZERO_SHOT, &settings.sql, &[IMAGE, &settings.label])?;
        names_and_templates(settings, &[])?;
        checked += 1;
    }
    if let Some(settings) = &settings.retrieval {
        planned(data, &session, RETRIEVAL, &settings.sql, &[IMAGE, CAPTION])?;
        checked += 1;
    }
    Ok(checked)
}

/// The queries of the settings.
fn queries(settings: &EvaluateSettings) -> Vec<&str> {
    let of_zero_shot = settings.zero_shot.iter().map(|settings| settings.sql.as_str());
    of_zero_shot.chain(settings.retrieval.iter().map(|settings| settings.sql.as_str())).collect()
}

/// A query that returns these columns.
fn planned(data: &Data, session: &SqlSession, key: &str, sql: &str, columns: &[&str]) -> Result<Query> {
    let query = data.runtime.block_on(session.plan(sql, &[]))?;
    let schema = query.schema();
    let missing: Vec<&str> = columns.iter().filter(|name| schema.field_with_name(name).is_err()).copied().collect();
    if missing.is_empty() {
        return Ok(query);
    }
    let there: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let reason = format!("returns no {}, only {}; name columns with AS", missing.join(" and no "), there.join(", "));
    Err(Error::at(Stage::Sql, format!("{key}.sql"), reason))
}

/// Unit rows of those images of a batch that the trained model has embedded, by the untrained one.
fn add_untrained(into: &mut Embeddings, embedder: &Embedder, batch: &RecordBatch, embedded: &[usize]) -> Result<()> {
    for found in embed_images(embedder, batch, embedded)? {
        let embedding = found.map_err(|bad| Error::internal("an image is bad for one model only").caused_by(bad))?;
        into.push(&embedding)?;
    }
    Ok(())
}

fn zero_shot(
    settings: &ZeroShotSettings,
    data: &Data,
    session: &SqlSession,
    embedder: &Embedder,
    untrained: Option<&Embedder>,
) -> Result<ZeroShot> {
    let query = planned(data, session, ZERO_SHOT, &settings.sql, &[IMAGE, &settings.label])?;
    let none = || Embeddings::new(embedder.width());
    let (mut images, mut by_untrained, mut labels, mut left_out) = (none(), none(), Vec::new(), 0);
    let mut bar = Progress::new("zero-shot", 0, "images");
    let ran = data.runtime.block_on(query.run(|batch| {
        let of_rows = texts(&batch, &settings.label)?;
        let rows: Vec<usize> = (0..batch.num_rows()).filter(|&row| of_rows[row].is_some()).collect();
        left_out += batch.num_rows() - rows.len();
        let mut embedded = vec![];
        for (found, row) in embed_images(embedder, &batch, &rows)?.into_iter().zip(rows) {
            match found {
                Ok(embedding) => {
                    images.push(&embedding)?;
                    labels.extend(of_rows[row].clone());
                    embedded.push(row);
                }
                Err(_) => left_out += 1,
            }
        }
        if let Some(untrained) = untrained {
            add_untrained(&mut by_untrained, untrained, &batch, &embedded)?;
        }
        bar.at(images.rows() as u64, "");
        Ok(ControlFlow::Continue(()))
    }));
    bar.finish();
    ran?;
    let (names, templates) = names_and_templates(settings, &labels)?;
    let classes_of =
        |embedder: &Embedder| class_embeddings(&names, &templates, embedder.width(), |prompts| embedder.texts(prompts));
    let (classes, of_untrained) = (classes_of(embedder)?, untrained.map(classes_of).transpose()?);
    let beside = of_untrained.as_ref().map(|classes| [&by_untrained, classes]);
    let found = classify(&images, &labels, &classes, &names, templates.len(), beside)?;
    Ok(ZeroShot { left_out, sql: settings.sql.clone(), ..found })
}

/// Those of the files, where files are named.
fn names_and_templates(settings: &ZeroShotSettings, labels: &[String]) -> Result<(Vec<LabelName>, Vec<String>)> {
    let read = |path: &String| {
        fs::read_to_string(path).context(
            Stage::Pipeline,
            path,
            "cannot be read as text; check the path and its encoding",
        )
    };
    let names = match &settings.names {
        Some(path) => label_names(path, &read(path)?)?,
        None => labels.iter().collect::<BTreeSet<_>>().into_iter().map(|label| LabelName::of(label)).collect(),
    };
    let templates = match &settings.templates {
        Some(Templates::File(path)) => templates(path, &read(path)?)?,
        Some(Templates::Listed(listed)) => templates("evaluate.zero_shot.templates", &listed.join("\n"))?,
        None => vec![DEFAULT_TEMPLATE.to_owned()],
    };
    Ok((names, templates))
}

/// Images and their captions, embedded.
pub(super) struct Pairs {
    pub(super) images: Embeddings,
    /// By which an image is found again.
    pub(super) hashes: Vec<ImageHash>,
    pub(super) captions: Vec<String>,
    pub(super) texts: Embeddings,
    /// Image of each caption.
    pub(super) image_of: Vec<usize>,
    /// Images and texts by the untrained model, where it was asked.
    untrained: Option<[Embeddings; 2]>,
    /// Rows with a bad image or without a caption.
    left_out: usize,
    /// Rows so far.
    rows: usize,
}

impl Pairs {
    fn read(
        settings: &RetrievalSettings,
        data: &Data,
        session: &SqlSession,
        embedder: &Embedder,
        untrained: Option<&Embedder>,
    ) -> Result<Self> {
        let query = planned(data, session, RETRIEVAL, &settings.sql, &[IMAGE, CAPTION])?;
        let none = || Embeddings::new(embedder.width());
        let mut pairs = Self {
            images: none(),
            hashes: vec![],
            captions: vec![],
            texts: none(),
            image_of: vec![],
            untrained: untrained.map(|_| [none(), none()]),
            left_out: 0,
            rows: 0,
        };
        let mut known = HashMap::new();
        let mut bar = Progress::new("retrieval", 0, "images");
        let ran = data.runtime.block_on(query.run(|batch| {
            pairs.add(&batch, embedder, untrained, &mut known)?;
            bar.at(pairs.images.rows() as u64, "");
            Ok(ControlFlow::Continue(()))
        }));
        bar.finish();
        ran?;
        // Equal captions are one text: their scores tie exactly.
        let distinct: Vec<&String> = pairs.captions.iter().collect::<BTreeSet<_>>().into_iter().collect();
        let embedded = |embedder: &Embedder, into: &mut Embeddings| -> Result<()> {
            let rows: HashMap<&String, Vec<f32>> = distinct.iter().copied().zip(embedder.texts(&distinct)?).collect();
            pairs.captions.iter().try_for_each(|caption| {
                into.push(rows.get(caption).ok_or_else(|| Error::internal("a caption without an embedding"))?)
            })
        };
        embedded(embedder, &mut pairs.texts)?;
        if let (Some(untrained), Some([_, texts])) = (untrained, &mut pairs.untrained) {
            embedded(untrained, texts)?;
        }
        Ok(pairs)
    }

    /// `known` has the image of each key, or none where it is bad.
    fn add(
        &mut self,
        batch: &RecordBatch,
        embedder: &Embedder,
        untrained: Option<&Embedder>,
        known: &mut HashMap<String, Option<usize>>,
    ) -> Result<()> {
        let captions = several_texts(batch, CAPTION)?;
        let keys = keys(batch, self.rows)?;
        self.rows += batch.num_rows();
        let mut seen = BTreeSet::new();
        let new = |row: &usize| {
            let is_new = !captions[*row].is_empty() && !known.contains_key(&keys[*row]);
            is_new && seen.insert(&keys[*row])
        };
        let new: Vec<usize> = (0..batch.num_rows()).filter(new).collect();
        let found = embed_images(embedder, batch, &new)?;
        let mut embedded = vec![];
        for ((found, hash), &row) in found.into_iter().zip(hashes(batch, &new)?).zip(&new) {
            let image = match found {
                Ok(embedding) => {
                    self.images.push(&embedding)?;
                    self.hashes.push(hash);
                    embedded.push(row);
                    Some(self.images.rows() - 1)
                }
                Err(_) => None,
            };
            known.insert(keys[row].clone(), image);
        }
        if let (Some(untrained), Some([images, _])) = (untrained, &mut self.untrained) {
            add_untrained(images, untrained, batch, &embedded)?;
        }
        for (captions, key) in captions.into_iter().zip(&keys) {
            match known.get(key).copied().flatten().filter(|_| !captions.is_empty()) {
                Some(image) => {
                    self.image_of.extend(std::iter::repeat_n(image, captions.len()));
                    self.captions.extend(captions);
                }
                None => self.left_out += 1,
            }
        }
        Ok(())
    }
}

/// What tells the images of a batch apart. Rows without a key are images of their own, numbered from `rows_before`.
fn keys(batch: &RecordBatch, rows_before: usize) -> Result<Vec<String>> {
    let name = [IMAGE_KEY, SAMPLE_ID].into_iter().find(|name| batch.column_by_name(name).is_some());
    let of_column = name.map(|name| texts(batch, name)).transpose()?;
    let key = |row: usize| {
        let told = of_column.as_ref().and_then(|keys| keys[row].as_ref());
        told.map_or_else(|| format!("row {}", rows_before + row), |key| format!("key {key}"))
    };
    Ok((0..batch.num_rows()).map(key).collect())
}
