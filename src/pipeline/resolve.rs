//! A pipeline as resolved: checked, complete, saved with the run.
use std::path::Path;

use super::{
    EMBEDDED, Pipeline, clip, cpc,
    document::Node,
    mistakes::{Reading, did_you_mean},
    ranges, source, sources,
};
use crate::{
    augment::{
        image::recipe::{ImageRecipe, RecipePurpose},
        recipe::AugmentSettings,
    },
    device,
    error::{Context as _, Error, Mistake, Result, Stage},
    evaluate::zero_shot::Templates,
    method::MethodSettings,
    model::EncoderSettings,
    pair::{
        PairSettings, SampleKernel as _, context_future::ContextFuture, past_future::PastFuture, sentences::Sentences,
    },
    scan::EVERY_SAMPLE,
    schema::{Role, Schema},
    select::words,
    tokenize::sentences::SentenceUnit,
    train::{Compat, schedule::Schedule},
};

/// The column in which shards of documents count them.
const SENTENCES: &str = "sentences";

/// A pipeline without mistakes and with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// As the user named the file.
    pub named: String,
    /// `compat` expanded, the evaluation recipe filled in.
    pub pipeline: Pipeline,
    /// Side of a view; 0 where views are windows of series or documents.
    pub side_pixels: u32,
    /// Bytes of what one item of the order becomes: its views, or its windows.
    pub slot_bytes: u64,
    /// The learning rate after warm-up, with the batch's scaling.
    pub peak_rate: f64,
}

impl Plan {
    /// Reads the pipeline `named` (a path, or a built-in's name) with `--set` texts such as `train.epochs=3` applied.
    ///
    /// Touches no data and no device.
    ///
    /// # Errors
    /// The file cannot be read; or all its mistakes.
    pub fn read(named: &str, sets: &[String]) -> Result<Self> {
        Self::parse(named, &source::text(named)?, sets)
    }

    /// The same from text; `named` is for messages.
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse(named: &str, text: &str, sets: &[String]) -> Result<Self> {
        let fail = |mistakes| Err(Error::Pipeline { file: named.into(), mistakes });
        let mut document = match Node::parse(text) {
            Ok(document) => document,
            Err(mistakes) => return fail(mistakes),
        };
        let of_sets: Vec<Mistake> = sets.iter().filter_map(|set| document.set(set).err()).collect();
        sources::give_way(&mut document, sets);
        let mut reading = Reading::new(document, models()?);
        of_sets.into_iter().for_each(|mistake| reading.push_mistake(mistake));
        let plan = reading.read().map(|pipeline| resolve(&mut reading, named, pipeline));
        let mistakes = reading.into_mistakes();
        match plan {
            Some(plan) if mistakes.is_empty() => Ok(plan),
            None if mistakes.is_empty() => Err(Error::internal("a pipeline that cannot be read has no mistake")),
            _ => fail(mistakes),
        }
    }

    /// The resolved pipeline as a file that parses to the same plan.
    ///
    /// # Errors
    /// Ours.
    pub fn to_toml(&self) -> Result<String> {
        let body = toml::to_string(&self.pipeline)
            .map_err(|error| Error::internal("a pipeline cannot be written as TOML").caused_by(error))?;
        let batch_rows = self.pipeline.prefetch.batch_rows;
        let (named, rate) = (&self.named, self.peak_rate);
        Ok(format!("# Resolved from {named}. Peak learning rate at {batch_rows} rows a batch: {rate}.\n{body}"))
    }

    /// The same with all local files and folders named from the root, so that a run can be used from any folder.
    ///
    /// # Errors
    /// There is no current folder.
    pub fn with_absolute_shards(mut self) -> Result<Self> {
        let scan = &mut self.pipeline.scan;
        let of_sources =
            scan.sources.values_mut().flat_map(|source| source.shards.iter_mut().chain(&mut source.selection));
        let of_model = scan.clip_score.iter_mut().flat_map(|model| model.weights.iter_mut().chain(&mut model.run));
        let places = scan.shards.iter_mut().chain(&mut scan.selection).chain(scan.tables.values_mut());
        let places = places.chain(of_sources).chain(of_model);
        let absolute = |place: &Path| {
            let name = place.display().to_string();
            std::path::absolute(place).context(Stage::CommandLine, name, "has no absolute path; name it from the root")
        };
        for place in places.filter(|place| !place.contains("://")) {
            *place = absolute(Path::new(place.as_str()))?.display().to_string();
        }
        if let Some(cache) = &mut scan.cache {
            cache.folder = absolute(&cache.folder)?;
        }
        let zero_shot = self.pipeline.evaluate.iter_mut().filter_map(|evaluate| evaluate.zero_shot.as_mut());
        for file in zero_shot.flat_map(|settings| {
            settings.templates.iter_mut().filter_map(Templates::file_mut).chain(&mut settings.names)
        }) {
            *file = absolute(Path::new(file.as_str()))?.display().to_string();
        }
        Ok(self)
    }

    /// Bytes of one row of a batch: the views of an image, or one window.
    pub fn item_bytes(&self) -> u64 {
        self.slot_bytes / self.pipeline.pair.rows_per_item() as u64
    }

    /// What a row of a batch is, in words.
    pub fn row_in_words(&self) -> String {
        match &self.pipeline.pair {
            PairSettings::TwoViews(_) => format!("two {}-pixel views", self.side_pixels),
            PairSettings::ImageText(_) => format!("an image of {} pixels a side and its text", self.side_pixels),
            PairSettings::OneView(_) => format!("one {}-pixel view", self.side_pixels),
            PairSettings::ContextFuture(pair) => format!("a window of {} steps", pair.window_steps),
            PairSettings::PastFuture(pair) => format!("a past and a future of {} steps each", pair.window_steps),
            PairSettings::Sentences(pair) => {
                format!("a window of {} {} of {} tokens", pair.window_sentences, pair.unit.name(), pair.sentence_tokens)
            }
        }
    }
}

/// The small pipeline first: it is what a mistake's remedy quotes.
fn models() -> Result<Vec<Node>> {
    let parse = |text: &str| {
        Node::parse(text).map_err(|mistakes| Error::internal(format!("a built-in pipeline: {mistakes:?}")))
    };
    let small = EMBEDDED[1..].iter().chain(&EMBEDDED[..1]);
    small.map(|(_, text)| parse(text)).collect()
}

/// Notes what is wrong with the values and fills in what is open.
fn resolve(reading: &mut Reading, named: &str, mut pipeline: Pipeline) -> Plan {
    ranges::check(reading, &pipeline);
    let scan = &mut pipeline.scan;
    if scan.selection.is_none() && scan.sources.is_empty() {
        let every_sample = match least(&pipeline.pair) {
            Some((count, least)) => format!("{EVERY_SAMPLE} WHERE {count} >= {least}"),
            None => EVERY_SAMPLE.to_owned(),
        };
        scan.sql.get_or_insert(every_sample);
    }
    columns(reading, &pipeline);
    counts_of_lines(reading, &pipeline);
    if let Err(error) = device::check(&pipeline.device) {
        let (problem, remedy) = problem_and_remedy(error);
        reading.note("device", problem, remedy);
    }
    let (side_pixels, slot_bytes) = slots(reading, &mut pipeline);
    if let (PairSettings::ImageText(pair), MethodSettings::Clip(method)) = (&mut pipeline.pair, &pipeline.method) {
        pair.context_tokens.get_or_insert(method.text.context_tokens);
    }
    clip::meets(reading, &pipeline, side_pixels);
    cpc::check_batches(reading, &pipeline, side_pixels as usize);
    // The peak does not depend on the length of an epoch, which only the data tells.
    let peak_rate = Schedule::new(&pipeline.train, pipeline.prefetch.batch_rows, 1).peak();
    if let (Some(Compat::Torch), MethodSettings::Simclr(simclr)) = (pipeline.train.compat, &mut pipeline.method) {
        simclr.joint_forward = true;
        match &mut simclr.encoder {
            EncoderSettings::ResNet18(resnet)
            | EncoderSettings::ResNet34(resnet)
            | EncoderSettings::ResNet50(resnet) => {
                resnet.zero_init_residual = false;
            }
            EncoderSettings::ConvNet(_) => {}
        }
    }
    let plan = Plan { named: named.into(), pipeline, side_pixels, slot_bytes, peak_rate };
    ranges::check_memory(reading, &plan.pipeline, plan.item_bytes());
    plan
}

/// Other rooms word both as one sentence.
fn problem_and_remedy(error: Error) -> (String, String) {
    let reason = match error {
        Error::Stage { reason, .. } => reason,
        other => other.to_string(),
    };
    match reason.split_once("; ") {
        Some((problem, remedy)) => (problem.into(), remedy.into()),
        None => (reason, String::new()),
    }
}

/// Notes columns that the schema lacks or that hold the wrong kind of thing.
fn columns(reading: &mut Reading, pipeline: &Pipeline) {
    let schema = match Schema::named(&pipeline.scan.schema) {
        Ok(schema) => schema,
        Err(error) => {
            let (problem, remedy) = problem_and_remedy(error);
            return reading.note("scan.schema", problem, remedy);
        }
    };
    for (ours, theirs) in &pipeline.scan.columns {
        let one = std::iter::once((ours.clone(), theirs.clone())).collect();
        if let Err(error) = schema.clone().with_names_in_files(&one) {
            let (problem, remedy) = problem_and_remedy(error);
            reading.note(&format!("scan.columns.{ours}"), problem, remedy);
        }
    }
    let names = |role: Role| schema.columns.iter().filter(move |c| c.role == role).map(|c| c.name.as_str());
    let mut wanted = Vec::new();
    let pair = &pipeline.pair;
    let key = format!("pair.{}.column", pair.name());
    let (what, other) = match pair {
        PairSettings::TwoViews(_) | PairSettings::OneView(_) => ("holds no images", "holds images, not labels"),
        PairSettings::ImageText(_) => ("holds no images", "holds images, neither labels nor texts"),
        PairSettings::ContextFuture(_) | PairSettings::PastFuture(_) => ("holds no series", "holds series, not labels"),
        PairSettings::Sentences(_) => ("holds no documents", "holds documents, not labels"),
    };
    wanted.push((key.as_str(), pair.column(), Role::Blob, what));
    let group_key = format!("pair.{}.group", pair.name());
    if let Some(group) = pair.group() {
        wanted.push((group_key.as_str(), group, Role::Narrow, other));
    }
    // Files may have further columns, and queries bring some: only what the schema knows is judged before they are there.
    let known = |name: &&str| schema.columns.iter().any(|column| column.name == **name);
    if let Some(caption) = pair.caption().filter(known) {
        wanted.push(("pair.image_text.caption", caption, Role::Narrow, other));
    }
    if let Some(balance) = &pipeline.scan.balance {
        wanted.push(("scan.balance.column", balance.column.as_str(), Role::Narrow, other));
    }
    if let Some(evaluate) = &pipeline.evaluate {
        wanted.push(("evaluate.label", evaluate.label.as_str(), Role::Narrow, other));
        let further = evaluate.further_labels.iter();
        wanted.extend(further.map(|name| ("evaluate.further_labels", name.as_str(), Role::Narrow, other)));
        let group = evaluate.abx_group.iter();
        wanted.extend(group.map(|name| ("evaluate.abx_group", name.as_str(), Role::Narrow, other)));
    }
    for (key, name, role, otherwise) in wanted {
        let known: Vec<&str> = names(role).collect();
        match schema.columns.iter().find(|column| column.name == *name) {
            Some(column) if column.role == role => {}
            Some(_) => {
                let problem = format!("column {name:?} of {schema} {otherwise}");
                reading.note(key, problem, format!("one of {}", known.join(", ")));
            }
            None => {
                let mut remedy = did_you_mean(name, &known);
                if key.starts_with("evaluate.") && !remedy.ends_with('?') {
                    remedy
                        .push_str("; map another column to one of them in [scan.columns], or return it AS one of them");
                }
                reading.note(key, format!("no column {name:?} in {schema}"), remedy);
            }
        }
    }
}

/// Steps that a series must have, or sentences that a document must, and what counts them in SQL.
fn least(pair: &PairSettings) -> Option<(String, usize)> {
    let kernel = match pair {
        PairSettings::TwoViews(_) | PairSettings::OneView(_) | PairSettings::ImageText(_) => return None,
        PairSettings::ContextFuture(pair) => ContextFuture::training(pair, &AugmentSettings::default()),
        PairSettings::PastFuture(pair) => PastFuture::training(pair, &AugmentSettings::default()),
        PairSettings::Sentences(pair) => {
            // Shards count sentences, and no lines.
            let count = match pair.unit {
                SentenceUnit::Sentences => SENTENCES.to_owned(),
                SentenceUnit::Lines => format!("text_sentences({}, 'lines')", pair.column),
            };
            return Some((count, Sentences::training(pair).least_sentences()));
        }
    };
    kernel.ok().map(|kernel| ("steps".to_owned(), kernel.least_steps()))
}

/// Notes SQL that asks for sentences where windows are of lines: verse without a full stop would be left out unseen.
fn counts_of_lines(reading: &mut Reading, pipeline: &Pipeline) {
    let PairSettings::Sentences(pair) = &pipeline.pair else { return };
    let Some((count, least)) = least(&pipeline.pair).filter(|_| pair.unit == SentenceUnit::Lines) else { return };
    let of_sources =
        pipeline.scan.sources.iter().map(|(name, source)| (format!("scan.sources.{name}.sql"), &source.sql));
    for (key, sql) in std::iter::once(("scan.sql".to_owned(), &pipeline.scan.sql)).chain(of_sources) {
        if sql.as_ref().is_some_and(|sql| words::names(sql, SENTENCES)) {
            let problem = "the query asks for `sentences`, and windows are of lines";
            let remedy =
                format!("write `{count} >= {least}` in its place, or text_sentences({}) if it is meant", pair.column);
            reading.note_about(&[&key, "pair.sentences.unit"], problem, remedy);
        }
    }
}

/// Side of a view, and bytes of an item's slot. Notes what is wrong with the recipes.
fn slots(reading: &mut Reading, pipeline: &mut Pipeline) -> (u32, u64) {
    let kernel = match &pipeline.pair {
        PairSettings::TwoViews(_) | PairSettings::OneView(_) => {
            let views = if matches!(pipeline.pair, PairSettings::TwoViews(_)) { 2 } else { 1 };
            let side_pixels = recipes(reading, pipeline);
            return (side_pixels, views * 3 * u64::from(side_pixels).pow(2));
        }
        PairSettings::ImageText(_) => {
            let side_pixels = recipes(reading, pipeline);
            return (side_pixels, 3 * u64::from(side_pixels).pow(2));
        }
        PairSettings::ContextFuture(pair) => ContextFuture::training(pair, &pipeline.augment),
        PairSettings::PastFuture(pair) => PastFuture::training(pair, &pipeline.augment),
        PairSettings::Sentences(pair) => return (0, Sentences::training(pair).slot_bytes() as u64),
    };
    match kernel {
        Ok(kernel) => (0, kernel.slot_bytes() as u64),
        Err(problems) => {
            for problem in problems {
                reading.note(&format!("augment.{}", problem.path), problem.problem, problem.remedy);
            }
            (0, 0)
        }
    }
}

/// Notes what is wrong with the recipes of images, fills in the evaluation recipe, and returns the side of a view.
fn recipes(reading: &mut Reading, pipeline: &mut Pipeline) -> u32 {
    let mut side_pixels = 0;
    for purpose in [RecipePurpose::Training, RecipePurpose::Evaluation] {
        match ImageRecipe::resolve(&pipeline.augment, purpose) {
            Ok(recipe) if purpose == RecipePurpose::Training => side_pixels = recipe.side_pixels() as u32,
            Ok(_) => {}
            // An evaluation recipe that is derived from a wrong one has no mistakes of its own.
            Err(_) if purpose == RecipePurpose::Evaluation && pipeline.augment.evaluation.is_empty() => {}
            Err(problems) => {
                // Settings that both recipes share are told once.
                let told = |path: &str| purpose == RecipePurpose::Evaluation && !path.starts_with(purpose.key());
                for problem in problems.into_iter().filter(|problem| !told(&problem.path)) {
                    reading.note(&format!("augment.{}", problem.path), problem.problem, problem.remedy);
                }
            }
        }
    }
    if pipeline.augment.evaluation.is_empty() && side_pixels > 0 {
        pipeline.augment.evaluation = ImageRecipe::default_evaluation(side_pixels, &pipeline.augment.image);
    }
    side_pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(sets: &[&str]) -> Result<Plan> {
        Plan::read("simclr", &sets.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn mistakes(result: Result<Plan>) -> Vec<Mistake> {
        match result.unwrap_err() {
            Error::Pipeline { mistakes, .. } => mistakes,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_papers_rate_is_resolved() {
        let plan = plan(&[]).unwrap();
        assert!((plan.peak_rate - 1.2).abs() < 1e-12, "{}", plan.peak_rate);
        assert_eq!(plan.side_pixels, 224);
        let linear = Plan::read("simclr", &["train.rate_scaling=linear".into()]).unwrap();
        assert!((linear.peak_rate - 0.3).abs() < 1e-12);
    }

    #[test]
    fn a_resolved_pipeline_resolves_to_itself() {
        for (name, _) in EMBEDDED {
            let plan = Plan::read(name, &["train.compat=torch".into(), "augment.evaluation=[]".into()]).unwrap();
            let text = plan.to_toml().unwrap();
            let again = Plan::parse(name, &text, &[]).unwrap();
            assert_eq!(again, plan);
            assert_eq!(again.to_toml().unwrap(), text);
        }
    }

    #[test]
    fn local_files_of_the_scan_become_absolute_and_urls_stay() {
        let plan = plan(&["scan.shards=[\"data/*.parquet\", \"s3://bucket/x\", \"/data/y\"]"]).unwrap();
        let here = std::env::current_dir().unwrap().join("data/*.parquet").display().to_string();
        let plan = plan.with_absolute_shards().unwrap();
        assert_eq!(plan.pipeline.scan.shards, [&here, "s3://bucket/x", "/data/y"]);
        let text = "shards = []\ntables = { t = 't.csv' }\ncache = { folder = 'cache', megabytes = 16 }\n\
                    clip_score = { weights = 'clip' }\n\
                    [sources]\na = { shards = ['data/*.parquet', 's3://bucket/x'] }\nb = { shards = ['y'], selection = 'b' }";
        let mut plan = self::plan(&[]).unwrap();
        plan.pipeline.scan = toml::from_str(text).unwrap();
        let scan = plan.with_absolute_shards().unwrap().pipeline.scan;
        assert_eq!(scan.sources["a"].shards, [&here, "s3://bucket/x"]);
        let b = &scan.sources["b"];
        let cache = scan.cache.unwrap().folder.display().to_string();
        let weights = scan.clip_score.unwrap().weights.unwrap();
        for place in [&b.shards[0], b.selection.as_ref().unwrap(), &scan.tables["t"], &cache, &weights] {
            assert!(place.starts_with('/'), "{place}");
        }
    }

    #[test]
    fn torch_compat_is_expanded() {
        let plan = plan(&["train.compat=torch"]).unwrap();
        let MethodSettings::Simclr(simclr) = &plan.pipeline.method else { panic!("{:?}", plan.pipeline.method) };
        let EncoderSettings::ResNet50(resnet) = &simclr.encoder else { panic!("{simclr:?}") };
        assert!(simclr.joint_forward && !resnet.zero_init_residual);
    }

    #[test]
    fn mistakes_of_the_command_line_name_it() {
        let mistakes = mistakes(plan(&["train.epochs=none", "train.optimiser=x", "prefetch.batch_rows=1"]));
        assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
        assert!(mistakes.iter().all(|m| m.problem.starts_with("--set ") && m.position.is_none()), "{mistakes:#?}");
    }

    #[test]
    fn a_queue_under_two_batches_and_parts_above_the_whole_are_mistakes() {
        let mistakes = mistakes(plan(&["prefetch.capacity_megabytes=146", "memory_megabytes=1_000"]));
        let keys: Vec<_> = mistakes.iter().map(|m| m.key.as_str()).collect();
        assert_eq!(keys, ["prefetch.capacity_megabytes", "memory_megabytes"], "{mistakes:#?}");
        assert!(mistakes[0].remedy.contains("at least 147"), "{}", mistakes[0]);
        assert!(plan(&["prefetch.capacity_megabytes=147"]).is_ok());
    }

    #[test]
    fn columns_are_checked_against_the_schema() {
        let stars = mistakes(plan(&["evaluate.label=stars"]));
        assert!(stars[0].remedy.contains("[scan.columns]"), "{}", stars[0]);
        let mistakes =
            mistakes(plan(&["pair.two_views.column=caption", "evaluate.label=lable", "scan.schema=image_text"]));
        assert!(mistakes[0].problem.contains("holds no images"), "{}", mistakes[0]);
        assert!(mistakes[1].to_string().contains("no column \"lable\" in image_text v1; did you mean \"label\"?"));
        let unknown = plan(&["scan.schema=image_txt"]).unwrap_err().to_string();
        assert!(unknown.contains("did you mean \"image_text\"?"), "{unknown}");
    }

    #[test]
    fn what_both_recipes_share_is_told_once() {
        let mistakes = mistakes(plan(&["augment.max_megapixels=0"]));
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    }

    #[test]
    fn windows_of_series_are_checked_against_batches_methods_and_ops() {
        let cpc = |sets: &[&str]| Plan::read("cpc", &sets.iter().map(ToString::to_string).collect::<Vec<_>>());
        let plan = cpc(&["pair.context_future.windows_per_series=2", "scan.selection=x.selection"]).unwrap();
        assert_eq!((plan.item_bytes(), plan.slot_bytes, plan.side_pixels), (4 * 2_560, 8 * 2_560, 0));
        assert_eq!(plan.row_in_words(), "a window of 2560 steps");
        let wrong = mistakes(cpc(&[
            "pair.context_future.windows_per_series=3",
            "pair.context_future.channels=2",
            "augment.series=[{ random_segment = { steps = 3000 } }]",
            "pair.context_future.group=speaker",
        ]));
        let keys: Vec<_> = wrong.iter().map(|m| m.key.as_str()).collect();
        let expected = [
            "prefetch.batch_rows",
            "method.cpc.channels",
            "pair.context_future.group",
            "augment.series[0].random_segment.steps",
        ];
        assert_eq!(keys.len(), expected.len(), "{wrong:#?}");
        assert!(expected.iter().all(|key| keys.contains(key)), "{wrong:#?}");
        let text = EMBEDDED[2].1.replace("[method.cpc]\nchannels = 1\n", "[method.simclr]\n");
        let text = text.replace("encoder.waveform = { width_channels = 96 }", "encoder.convnet = {}");
        let dropped = ["context.gru", "predicted_frames", "negatives"];
        let lines: Vec<&str> = text.lines().filter(|line| !dropped.iter().any(|key| line.starts_with(key))).collect();
        let wrong = mistakes(Plan::parse("p.toml", &lines.join("\n"), &[]));
        assert!(wrong[0].problem.contains("no views of images"), "{wrong:#?}");
    }

    #[test]
    fn without_sql_series_that_are_too_short_are_not_selected() {
        let lines = EMBEDDED[2].1.lines().filter(|line| !line.starts_with("sql = "));
        let text = lines.collect::<Vec<_>>().join("\n");
        let sets = ["pair.context_future.windows_per_series=4".into(), "pair.context_future.hop_steps=10".into()];
        let plan = Plan::parse("p.toml", &text, &sets).unwrap();
        assert_eq!(plan.pipeline.scan.sql.as_deref(), Some("SELECT sample_id FROM shards WHERE steps >= 2590"));
    }

    #[test]
    fn documents_that_are_too_short_are_left_out_by_what_windows_are_of() {
        let (_, written) = EMBEDDED.iter().find(|(name, _)| *name == "cpc_text").unwrap();
        let lines = "pair.sentences.unit=lines".to_owned();
        let wrong = mistakes(Plan::parse("p.toml", written, std::slice::from_ref(&lines)));
        assert!(wrong.len() == 1 && wrong[0].key == "scan.sql", "{wrong:#?}");
        assert!(wrong[0].remedy.contains("`text_sentences(text, 'lines') >= 8`"), "{}", wrong[0]);
        let counted = "scan.sql=SELECT sample_id FROM shards WHERE text_sentences(text, 'lines') >= 8".to_owned();
        Plan::parse("p.toml", written, &[lines.clone(), counted]).unwrap();
        let meant = "scan.sql=SELECT sample_id FROM shards WHERE text_sentences(text, 'sentences') >= 8".to_owned();
        Plan::parse("p.toml", written, &[lines.clone(), meant]).unwrap();
        let text = written.lines().filter(|line| !line.starts_with("sql = ")).collect::<Vec<_>>().join("\n");
        let sql = |sets: &[String]| Plan::parse("p.toml", &text, sets).unwrap().pipeline.scan.sql.unwrap();
        assert_eq!(sql(&[]), "SELECT sample_id FROM shards WHERE sentences >= 8");
        assert_eq!(sql(&[lines]), "SELECT sample_id FROM shards WHERE text_sentences(text, 'lines') >= 8");
    }

    #[test]
    fn ranges_are_checked_where_the_value_was_written() {
        let text = EMBEDDED[1].1.replace("temperature = 0.2", "temperature = 0.0").replace("lanes = 8", "lanes = 0");
        let mistakes = mistakes(Plan::parse("p.toml", &text, &[]));
        let found: Vec<_> = mistakes.iter().map(|m| (m.key.as_str(), m.position)).collect();
        let line = |word: &str| text.lines().position(|line| line.starts_with(word)).unwrap() + 1;
        let expected =
            [("scan.lanes", Some((line("lanes"), 9))), ("method.simclr.temperature", Some((line("temperature"), 15)))];
        assert_eq!(found, expected, "{mistakes:#?}");
    }
}
