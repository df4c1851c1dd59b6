//! Settings that could be read but cannot be right: numbers out of range, parts larger than the whole.
use std::ops::RangeInclusive;

use super::{Pipeline, clip, cpc, mistakes::Reading};
use crate::{
    evaluate::EvaluateSettings,
    method::{MethodSettings, SimclrSettings},
    model::EncoderSettings,
    pair::PairSettings,
    prefetch::PrefetchSettings,
    scan::ScanSettings,
    train::{OptimizerSettings, ScheduleSettings, TrainSettings},
};

/// Bytes of a megabyte in a pipeline.
const MEGABYTE: u64 = 1 << 20;
/// Batches that are being filled while the queue holds others.
const BATCHES_IN_FLIGHT: u64 = 2;
/// A window is mixed while the next one is loaded.
const WINDOWS_IN_FLIGHT: u64 = 2;
/// Far beyond any machine: a slip of the fingers.
const MOST_LANES: u32 = 4_096;
const MOST_THREADS: usize = 4_096;
/// Of series and of what is made of them: more than any sensor or model has.
pub(super) const MOST_CHANNELS: usize = 65_536;
/// Of a window: Arrow counts the numbers of a row with 31 bits.
pub(super) const MOST_STEPS: usize = i32::MAX as usize;
/// Windows of one series at a time.
const MOST_WINDOWS: usize = 65_536;
/// A cache keeps pieces of up to 1 MiB and refuses those above an eighth of its limit.
const LEAST_CACHE_MEGABYTES: u64 = 16;

/// Notes every value of `pipeline` that is out of its range.
pub(super) fn check(reading: &mut Reading, pipeline: &Pipeline) {
    scan(reading, &pipeline.scan);
    pair(reading, &pipeline.pair, pipeline.prefetch.batch_rows);
    match &pipeline.method {
        MethodSettings::Simclr(method) => simclr(reading, method),
        MethodSettings::Cpc(method) => cpc::check(reading, method),
        MethodSettings::Clip(method) => clip::check(reading, method),
    }
    meets(reading, &pipeline.pair, &pipeline.method);
    if let MethodSettings::Cpc(method) = &pipeline.method {
        cpc::meets(reading, &pipeline.pair, method);
    }
    train(reading, &pipeline.train);
    chunks(reading, pipeline);
    if let Some(evaluate) = &pipeline.evaluate {
        evaluation(reading, evaluate);
    }
    let augment = &pipeline.augment;
    if augment.decode_threads > MOST_THREADS {
        let problem = format!("{} threads are more than any machine has", augment.decode_threads);
        reading.note("augment.decode_threads", problem, "0 means one per core");
    }
    if pipeline.prefetch.batch_rows < 2 {
        let remedy = "a batch needs at least 2 rows: an image is repelled by the others";
        reading.note("prefetch.batch_rows", format!("{} rows", pipeline.prefetch.batch_rows), remedy);
    }
}

/// Notes a queue that cannot hold two batches, and parts that do not fit the memory they are parts of.
pub(super) fn check_memory(reading: &mut Reading, pipeline: &Pipeline, item_bytes: u64) {
    let PrefetchSettings { batch_rows, capacity_megabytes, .. } = pipeline.prefetch;
    let batch = item_bytes.saturating_mul(batch_rows as u64);
    let capacity = capacity_megabytes.saturating_mul(MEGABYTE);
    if capacity < batch.saturating_mul(2) {
        let two = batch.saturating_mul(2).div_ceil(MEGABYTE);
        let problem = format!("{capacity_megabytes} MB hold less than two batches, which take {two} MB");
        let keys = ["prefetch.capacity_megabytes", "prefetch.batch_rows", "augment.image"];
        reading.note_about(&keys, problem, format!("at least {two}, or fewer rows or pixels"));
    }
    let windows = pipeline.scan.shuffle_window_megabytes.saturating_mul(WINDOWS_IN_FLIGHT);
    let in_flight = batch.saturating_mul(BATCHES_IN_FLIGHT).div_ceil(MEGABYTE);
    let parts = windows.saturating_add(in_flight).saturating_add(capacity_megabytes);
    if pipeline.memory_megabytes < parts {
        let problem = format!(
            "{} MB are less than the parts: {windows} for the window mixed and the next one, {in_flight} for batches in \
             flight, {capacity_megabytes} for the queue",
            pipeline.memory_megabytes
        );
        let remedy = format!("at least {parts}, or lower scan.shuffle_window_megabytes or prefetch.capacity_megabytes");
        let keys = [
            "memory_megabytes",
            "scan.shuffle_window_megabytes",
            "prefetch.capacity_megabytes",
            "prefetch.batch_rows",
            "augment.image",
        ];
        reading.note_about(&keys, problem, remedy);
    }
}

fn scan(reading: &mut Reading, settings: &ScanSettings) {
    super::sources::check(reading, settings);
    if settings.lanes == 0 || settings.lanes > MOST_LANES {
        reading.note("scan.lanes", format!("{} lanes", settings.lanes), format!("1 to {MOST_LANES}; usual is 8"));
    }
    if settings.shuffle_window_rows < u64::from(settings.lanes) {
        let problem = format!("{} rows are less than one per lane", settings.shuffle_window_rows);
        reading.note_about(&["scan.shuffle_window_rows", "scan.lanes"], problem, "thousands mix well");
    }
    at_least(reading, "scan.shuffle_window_megabytes", settings.shuffle_window_megabytes, 1);
    share(reading, "scan.max_bad_share", settings.max_bad_share);
    let patience = [
        ("retry_seconds", settings.store.retry_seconds),
        ("timeout_seconds", settings.store.timeout_seconds),
        ("connect_timeout_seconds", settings.store.connect_timeout_seconds),
    ];
    for (key, seconds) in patience {
        at_least(reading, &format!("scan.store.{key}"), seconds, 1);
    }
    if let Some(cache) = &settings.cache {
        at_least(reading, "scan.cache.megabytes", cache.megabytes, LEAST_CACHE_MEGABYTES);
    }
}

/// Notes a method whose pairing makes something else than it takes.
fn meets(reading: &mut Reading, pair: &PairSettings, method: &MethodSettings) {
    match (pair, method) {
        (PairSettings::ImageText(_), MethodSettings::Simclr(_) | MethodSettings::Cpc(_)) => {
            let (method, other) = match method {
                MethodSettings::Simclr(_) => ("method.simclr", "pair.two_views, or method.clip"),
                _ => ("method.cpc", "pair.context_future, or method.clip"),
            };
            let problem = format!("images with texts are not what {method} takes");
            reading.note_about(&["pair.image_text", method], problem, other);
        }
        (
            PairSettings::TwoViews(_)
            | PairSettings::OneView(_)
            | PairSettings::ContextFuture(_)
            | PairSettings::PastFuture(_)
            | PairSettings::Sentences(_),
            MethodSettings::Clip(_),
        ) => {
            let key = format!("pair.{}", pair.name());
            let problem = format!("{} makes no texts, which method.clip takes with images", pair.name());
            reading.note_about(&[key.as_str(), "method.clip"], problem, "pair.image_text");
        }
        (PairSettings::TwoViews(_), MethodSettings::Cpc(_)) => {
            let problem = "two views of images are no windows, which method.cpc takes";
            let remedy = "pair.one_view, pair.context_future, or method.simclr";
            reading.note_about(&["pair.two_views", "method.cpc"], problem, remedy);
        }
        (PairSettings::PastFuture(_), MethodSettings::Cpc(_)) => {
            let problem = "past and future as two tensors are no windows, which method.cpc takes";
            reading.note_about(&["pair.past_future", "method.cpc"], problem, "pair.context_future");
        }
        (PairSettings::OneView(_), MethodSettings::Simclr(_)) => {
            let problem = "method.simclr takes two views of an image";
            reading.note_about(&["pair.one_view", "method.simclr"], problem, "pair.two_views, or method.cpc");
        }
        (
            PairSettings::ContextFuture(_) | PairSettings::PastFuture(_) | PairSettings::Sentences(_),
            MethodSettings::Simclr(_),
        ) => {
            let key = format!("pair.{}", pair.name());
            let problem = "windows of series and documents are no views of images, which method.simclr takes";
            reading.note_about(&[key.as_str(), "method.simclr"], problem, "pair.two_views, or method.cpc");
        }
        _ => {}
    }
}

fn pair(reading: &mut Reading, settings: &PairSettings, batch_rows: usize) {
    let key = |field: &str| format!("pair.{}.{field}", settings.name());
    let counts = match settings {
        PairSettings::TwoViews(_) | PairSettings::OneView(_) | PairSettings::ImageText(_) => return,
        PairSettings::ContextFuture(pair) => {
            let windows = pair.windows_per_series;
            divides(reading, &key("windows_per_series"), ("series", windows), batch_rows);
            vec![
                ("channels", pair.channels, MOST_CHANNELS),
                ("window_steps", pair.window_steps, MOST_STEPS / pair.channels.max(1)),
                ("hop_steps", pair.hop_steps, MOST_STEPS),
                ("windows_per_series", windows, MOST_WINDOWS),
                ("evaluation_windows", pair.evaluation_windows, MOST_WINDOWS),
                ("evaluation_steps", pair.evaluation_steps.unwrap_or(1), MOST_STEPS / pair.channels.max(1)),
            ]
        }
        PairSettings::PastFuture(pair) => vec![
            ("channels", pair.channels, MOST_CHANNELS),
            ("window_steps", pair.window_steps, MOST_STEPS / (2 * pair.channels.max(1))),
            ("gap_steps", pair.gap_steps.max(1), MOST_STEPS),
        ],
        PairSettings::Sentences(pair) => {
            let windows = pair.windows_per_document;
            divides(reading, &key("windows_per_document"), ("document", windows), batch_rows);
            vec![
                ("window_sentences", pair.window_sentences, MOST_STEPS),
                ("sentence_tokens", pair.sentence_tokens, MOST_STEPS / pair.window_sentences.max(1)),
                ("windows_per_document", windows, MOST_WINDOWS),
                ("evaluation_windows", pair.evaluation_windows, MOST_WINDOWS),
            ]
        }
    };
    for (field, count, most) in counts {
        within(reading, &key(field), count, 1..=most.max(1));
    }
}

/// Notes a batch that would end in the middle of a sample's windows.
fn divides(reading: &mut Reading, key: &str, (of, windows): (&str, usize), batch_rows: usize) {
    if windows > 0 && !batch_rows.is_multiple_of(windows) {
        let problem = format!("{windows} windows of each {of} do not divide a batch of {batch_rows} rows");
        let remedy = format!("rows are windows: choose a multiple of the windows per {of}");
        reading.note_about(&["prefetch.batch_rows", key], problem, remedy);
    }
}

fn simclr(reading: &mut Reading, settings: &SimclrSettings) {
    base_width(reading, "method.simclr.encoder", &settings.encoder);
    at_least(reading, "method.simclr.projection_width", settings.projection_width as u64, 2);
    positive(reading, "method.simclr.temperature", settings.temperature);
    at_least(reading, "method.simclr.loss_tile_rows", settings.loss_tile_rows.unwrap_or(1) as u64, 1);
}

/// Notes chunks that a batch or a method cannot be cut into.
fn chunks(reading: &mut Reading, pipeline: &Pipeline) {
    let (chunks, batch_rows) = (pipeline.train.chunks, pipeline.prefetch.batch_rows);
    at_least(reading, "train.chunks", chunks as u64, 1);
    if chunks > batch_rows {
        let problem = format!("{chunks} chunks of {batch_rows} rows");
        reading.note_about(&["train.chunks", "prefetch.batch_rows"], problem, "a chunk has a row at least");
    }
    if chunks > 1
        && let Some(reason) = pipeline.method.refuses_chunks()
    {
        let (problem, remedy) = reason.split_once("; ").unwrap_or((&reason, ""));
        reading.note("train.chunks", problem, remedy);
    }
}

pub(super) fn base_width(reading: &mut Reading, key: &str, settings: &EncoderSettings) {
    let (encoder, width) = match settings {
        EncoderSettings::ResNet18(resnet) => ("resnet18", resnet.base_width),
        EncoderSettings::ResNet34(resnet) => ("resnet34", resnet.base_width),
        EncoderSettings::ResNet50(resnet) => ("resnet50", resnet.base_width),
        EncoderSettings::ConvNet(convnet) => ("convnet", convnet.base_width),
    };
    at_least(reading, &format!("{key}.{encoder}.base_width"), width as u64, 1);
}

fn train(reading: &mut Reading, settings: &TrainSettings) {
    at_least(reading, "train.epochs", settings.epochs, 1);
    at_least(reading, "train.report_every_steps", settings.report_every_steps, 1);
    at_least(reading, "train.keep_checkpoints", settings.keep_checkpoints as u64, 1);
    for (key, steps) in [("checkpoint_every_steps", settings.checkpoint_every_steps), ("max_steps", settings.max_steps)]
    {
        at_least(reading, &format!("train.{key}"), steps.unwrap_or(1), 1);
    }
    positive(reading, "train.clip_gradient_norm", settings.clip_gradient_norm.unwrap_or(1.0));
    let decay = settings.ema_decay.unwrap_or(0.5);
    if !(decay > 0.0 && decay < 1.0) {
        reading.note("train.ema_decay", format!("{decay} is not between 0 and 1"), "usual are 0.99 to 0.9999");
    }
    optimizer(reading, &settings.optimizer);
    let (schedule, warmup) = match &settings.schedule {
        ScheduleSettings::Constant(warmup) => ("constant", warmup.warmup_epochs),
        ScheduleSettings::Cosine(warmup) => ("cosine", warmup.warmup_epochs),
    };
    if !(warmup >= 0.0 && warmup <= settings.epochs as f64) {
        let problem = format!("{warmup} epochs of warm-up do not fit {} epochs", settings.epochs);
        let key = format!("train.schedule.{schedule}.warmup_epochs");
        reading.note_about(&[key.as_str(), "train.epochs"], problem, "0 means none");
    }
}

fn optimizer(reading: &mut Reading, settings: &OptimizerSettings) {
    let key = |name: &str, field: &str| format!("train.optimizer.{name}.{field}");
    match settings {
        OptimizerSettings::Sgd(sgd) => {
            positive(reading, &key("sgd", "rate"), sgd.rate);
            fraction(reading, &key("sgd", "momentum"), sgd.momentum);
            not_negative(reading, &key("sgd", "weight_decay"), sgd.weight_decay);
            if sgd.nesterov && sgd.momentum == 0.0 {
                reading.note(&key("sgd", "nesterov"), "Nesterov's form needs a momentum", "momentum = 0.9");
            }
        }
        OptimizerSettings::AdamW(adamw) => {
            positive(reading, &key("adamw", "rate"), adamw.rate);
            for (i, &beta) in adamw.betas.iter().enumerate() {
                fraction(reading, &key("adamw", &format!("betas[{i}]")), beta);
            }
            positive(reading, &key("adamw", "epsilon"), adamw.epsilon);
            not_negative(reading, &key("adamw", "weight_decay"), adamw.weight_decay);
        }
        OptimizerSettings::Lars(lars) => {
            positive(reading, &key("lars", "rate"), lars.rate.unwrap_or(1.0));
            fraction(reading, &key("lars", "momentum"), lars.momentum);
            not_negative(reading, &key("lars", "weight_decay"), lars.weight_decay);
            positive(reading, &key("lars", "trust_coefficient"), lars.trust_coefficient);
        }
    }
}

fn evaluation(reading: &mut Reading, settings: &EvaluateSettings) {
    let by_text = settings.zero_shot.is_some() || settings.retrieval.is_some();
    if settings.classifies() || !by_text {
        for (key, sql) in [("bank_sql", &settings.bank_sql), ("query_sql", &settings.query_sql)] {
            if sql.trim().is_empty() {
                reading.note(&format!("evaluate.{key}"), "empty", "a query over shards that returns sample_id");
            }
        }
    }
    let of_zero_shot = settings.zero_shot.as_ref().map(|zero_shot| ("zero_shot", &zero_shot.sql));
    let of_retrieval = settings.retrieval.as_ref().map(|retrieval| ("retrieval", &retrieval.sql));
    for (key, sql) in of_zero_shot.into_iter().chain(of_retrieval) {
        if sql.trim().is_empty() {
            reading.note(&format!("evaluate.{key}.sql"), "empty", "a query over shards that returns image");
        }
    }
    at_least(reading, "evaluate.knn.neighbours", settings.knn.neighbours as u64, 1);
    positive(reading, "evaluate.knn.temperature", settings.knn.temperature);
    if settings.knn.candidates.is_empty() {
        reading.note("evaluate.knn.candidates", "no k to choose from", "usual are [1, 5, 20, 200]");
    }
    let lists = [("knn.candidates", &settings.knn.candidates), ("labels_per_class", &settings.labels_per_class)];
    for (key, list) in lists {
        for (i, &n) in list.iter().enumerate() {
            at_least(reading, &format!("evaluate.{key}[{i}]"), n as u64, 1);
        }
    }
    at_least(reading, "evaluate.label_draws", settings.label_draws as u64, 1);
}

pub(super) fn at_least(reading: &mut Reading, key: &str, value: u64, lowest: u64) {
    if value < lowest {
        reading.note(key, format!("{value} is too small"), format!("{lowest} or more"));
    }
}

/// The same with an end beyond which nothing is meant, or can be counted.
pub(super) fn within(reading: &mut Reading, key: &str, value: usize, allowed: RangeInclusive<usize>) {
    at_least(reading, key, value as u64, *allowed.start() as u64);
    if value > *allowed.end() {
        reading.note(key, format!("{value} is too large"), format!("{} or less", allowed.end()));
    }
}

fn positive(reading: &mut Reading, key: &str, value: f64) {
    if !(value > 0.0 && value.is_finite()) {
        reading.note(key, format!("{value} is no positive number"), "above 0");
    }
}

fn not_negative(reading: &mut Reading, key: &str, value: f64) {
    if !(value >= 0.0 && value.is_finite()) {
        reading.note(key, format!("{value} is negative or no number"), "0 or more");
    }
}

/// A factor by which old values fade.
fn fraction(reading: &mut Reading, key: &str, value: f64) {
    if !(0.0..1.0).contains(&value) {
        reading.note(key, format!("{value} is not in [0, 1)"), "0 or more and below 1");
    }
}

fn share(reading: &mut Reading, key: &str, value: f64) {
    if !(0.0..=1.0).contains(&value) {
        reading.note(key, format!("{value} is no share"), "0 to 1");
    }
}
