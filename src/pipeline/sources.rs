//! Where samples come from: shards with SQL or a saved selection, or several such sources with weights; and tables.
use super::{
    document::{KeyPath, Node},
    mistakes::Reading,
};
use crate::{
    evaluate::clip::clip_score::ClipScore,
    scan::{
        ClipScoreSettings, ScanSettings,
        mixture::{BLOCK_ITEMS, apportion},
    },
    select::tables::check_name,
};

/// Of a query and a selection, the one that the file names gives way to the one that the command line names.
pub(super) fn give_way(document: &mut Node, sets: &[String]) {
    let is_set = |key: &str| sets.iter().any(|set| set.split_once('=').is_some_and(|(set, _)| set.trim() == key));
    for (named, other) in [("selection", "sql"), ("sql", "selection")] {
        if is_set(&format!("scan.{named}"))
            && !is_set(&format!("scan.{other}"))
            && let Some(scan) = document.find_mut(&KeyPath::parse("scan"))
        {
            scan.remove(other);
        }
    }
}

/// Notes what does not fit together.
pub(super) fn check(reading: &mut Reading, settings: &ScanSettings) {
    if settings.sources.is_empty() {
        one(reading, "scan", &settings.shards, settings.sql.as_deref(), settings.selection.as_deref());
        if settings.balance.is_some() && settings.epoch_items == Some(0) {
            reading.note(
                "scan.epoch_items",
                "0 is too small",
                "1 or more; without it an epoch is as long as the data say",
            );
        } else if settings.balance.is_none() && settings.epoch_items.is_some() {
            let remedy = "leave it out: an epoch of one source is one pass over it";
            reading.note("scan.epoch_items", "goes with scan.sources or scan.balance alone", remedy);
        }
    } else {
        several(reading, settings);
    }
    for (name, path) in &settings.tables {
        let key = format!("scan.tables.{name}");
        if let Err(problem) = check_name(name) {
            let (problem, remedy) = problem.split_once("; ").unwrap_or((&problem, ""));
            reading.note(&key, problem, remedy);
        } else if path.trim().is_empty() {
            reading.note(&key, "no file named", "name a file or a glob, such as \"scores/*.parquet\"");
        }
    }
    if let Some(settings) = &settings.clip_score {
        clip_score(reading, settings);
    }
}

fn clip_score(reading: &mut Reading, settings: &ClipScoreSettings) {
    let ClipScoreSettings { weights, run, variant } = settings;
    let named = [("weights", weights), ("run", run)];
    for (key, _) in named.iter().filter(|(_, place)| place.as_deref().is_some_and(|place| place.trim().is_empty())) {
        reading.note(&format!("scan.clip_score.{key}"), "empty", "name a file or folder");
    }
    match named.iter().filter(|(_, place)| place.is_some()).count() {
        1 => {}
        0 => reading.note("scan.clip_score", "no model named", "name its weights, or the folder of a run"),
        _ => reading.note("scan.clip_score", "weights and run given", "keep exactly one of weights, run"),
    }
    let known = variant.parse::<ClipScore>().ok().filter(|variant| variant.of_pair(0.0).is_some());
    if known.is_none() {
        let problem = format!("{variant:?} gives no score of an image and one text");
        reading.note("scan.clip_score.variant", problem, "write hessel, torchmetrics or cosine");
    }
}

fn one(reading: &mut Reading, place: &str, shards: &[String], sql: Option<&str>, selection: Option<&str>) {
    if shards.iter().all(|pattern| pattern.trim().is_empty()) {
        let remedy = "name files, globs or folders, such as [\"data/train\"]";
        reading.note(&format!("{place}.shards"), "no shards named", remedy);
    }
    if sql.is_some_and(|sql| sql.trim().is_empty()) {
        let remedy = "\"SELECT sample_id FROM shards\" takes every sample";
        reading.note(&format!("{place}.sql"), "empty", remedy);
    }
    if selection.is_some_and(|path| path.trim().is_empty()) {
        let remedy = "name a file that `diptych select … --to FILE` wrote";
        reading.note(&format!("{place}.selection"), "empty", remedy);
    }
    if sql.is_some() && selection.is_some() {
        let key = format!("{place}.selection");
        reading.note(&key, "sql and selection given", "keep exactly one of sql, selection");
    }
}

fn several(reading: &mut Reading, settings: &ScanSettings) {
    let given = [
        ("shards", !settings.shards.is_empty()),
        ("sql", settings.sql.is_some()),
        ("selection", settings.selection.is_some()),
        ("balance", settings.balance.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
        let problem = format!("{key} and sources given");
        reading.note(&format!("scan.{key}"), problem, "move it into a source, or leave the sources out");
    }
    if settings.epoch_items == Some(0) {
        reading.note("scan.epoch_items", "0 is too small", "1 or more; without it an epoch is as long as the data say");
    }
    let weights: Vec<f64> = settings.sources.values().map(|source| source.weight).collect();
    let are_weights = weights.iter().all(|weight| weight.is_finite() && *weight > 0.0);
    let shares = if are_weights { apportion(&weights, BLOCK_ITEMS) } else { vec![1; weights.len()] };
    for ((name, source), share) in settings.sources.iter().zip(shares) {
        let place = format!("scan.sources.{name}");
        // Files of a run bear the name.
        if check_name(name).is_err() && name != "shards" {
            reading.note(&place, format!("no name for a source: \"{name}\""), "use a-z, 0-9 and _");
        }
        one(reading, &place, &source.shards, source.sql.as_deref(), source.selection.as_deref());
        let key = format!("{place}.weight");
        if !(source.weight.is_finite() && source.weight > 0.0) {
            reading.note(&key, format!("{} is no positive number", source.weight), "above 0");
        } else if share == 0 {
            let problem = format!("{} is under a thousandth of all weights", source.weight);
            reading.note(&key, problem, "raise it, or leave the source out");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        error::{Error, Mistake},
        pipeline::{EMBEDDED, Plan},
    };

    /// The built-in pipeline with other lines for its shards and SQL.
    fn plan(scan: &str) -> Result<Plan, Vec<Mistake>> {
        let of_scan = |line: &&str| line.starts_with("shards = ") || line.starts_with("sql = ");
        let lines: Vec<&str> = EMBEDDED[1].1.lines().filter(|line| !of_scan(line)).collect();
        let text = lines.join("\n").replace("\n[augment]", &format!("\n{scan}\n[augment]"));
        Plan::parse("mine.toml", &text, &[]).map_err(|error| match error {
            Error::Pipeline { mistakes, .. } => mistakes,
            other => panic!("{other}"),
        })
    }

    fn keys(scan: &str) -> Vec<String> {
        plan(scan).unwrap_err().into_iter().map(|mistake| mistake.key).collect()
    }

    #[test]
    fn a_saved_selection_stands_for_sql() {
        let plan = plan("shards = ['a']\nselection = 'kept.selection'").unwrap();
        assert_eq!(
            (plan.pipeline.scan.sql.as_deref(), plan.pipeline.scan.selection.as_deref()),
            (None, Some("kept.selection"))
        );
        assert_eq!(keys("shards = ['a']\nselection = 'x'\nsql = 'SELECT 1'"), ["scan.selection"]);
        assert_eq!(keys("shards = ['a']\nselection = ''"), ["scan.selection"]);
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let plan = Plan::read("simclr_small", &["scan.selection=kept.selection".into()]).unwrap();
        assert_eq!((plan.pipeline.scan.sql, plan.pipeline.scan.selection.as_deref()), (None, Some("kept.selection")));
        let both = ["scan.selection=a".into(), "scan.sql=SELECT 1".into()];
        assert!(Plan::read("simclr_small", &both).is_err());
    }

    #[test]
    fn without_a_query_every_sample_is_taken() {
        assert_eq!(plan("shards = ['a']").unwrap().pipeline.scan.sql.as_deref(), Some("SELECT sample_id FROM shards"));
    }

    #[test]
    fn sources_resolve_to_themselves() {
        let plan = plan(
            "epoch_items = 5_000\n[scan.sources.web]\nshards = ['a']\nweight = 0.7\n\
             [scan.sources.clean]\nshards = ['b']\nsql = 'SELECT sample_id FROM shards'\nweight = 0.3\n\
             [scan.tables]\nscores = 's.csv'",
        )
        .unwrap();
        let text = plan.to_toml().unwrap();
        assert_eq!(Plan::parse("mine.toml", &text, &[]).unwrap(), plan, "{text}");
        assert_eq!(plan.pipeline.scan.sources["web"].weight, 0.7);
    }

    #[test]
    fn every_mistake_of_every_source_is_told_at_once() {
        let found = keys(
            "epoch_items = 0\nsql = 'SELECT sample_id FROM shards'\n\
             [scan.sources.web]\nweight = 0\nshards = ['a']\n\
             [scan.sources.Clean]\nshards = []\nsql = ''\nselection = 'x'\n\
             [scan.tables]\nshards = 's.csv'\nScores = 's.csv'\nlist = ''",
        );
        let expected = [
            "scan.epoch_items",
            "scan.sql",
            "scan.sources.web.weight",
            "scan.sources.Clean",
            "scan.sources.Clean.shards",
            "scan.sources.Clean.sql",
            "scan.sources.Clean.selection",
            "scan.tables.shards",
            "scan.tables.Scores",
            "scan.tables.list",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            keys("[scan.sources.a]\nshards = ['a']\n[scan.sources.b]\nshards = ['b']\nweight = 1e-6"),
            ["scan.sources.b.weight"]
        );
        assert_eq!(keys("shards = ['a']\nepoch_items = 9"), ["scan.epoch_items"]);
        assert!(plan("shards = ['a']\nepoch_items = 9\nbalance = { column = 'label' }").is_ok());
        assert_eq!(keys("shards = ['a']\nbalance = { column = 'lable' }"), ["scan.balance.column"]);
        assert_eq!(keys("balance = { column = 'label' }\n[scan.sources.a]\nshards = ['a']"), ["scan.balance"]);
        assert_eq!(
            keys("shards = ['a']\nclip_score = { weights = 'w', run = 'r', variant = 'softmax_rank' }"),
            ["scan.clip_score", "scan.clip_score.variant"]
        );
        assert_eq!(keys("shards = ['a']\nclip_score = { run = '' }"), ["scan.clip_score.run"]);
        assert_eq!(keys("shards = ['a']\nclip_score = {}"), ["scan.clip_score"]);
        assert!(keys("[scan.sources.a]\nshard = ['a']").contains(&"scan.sources.a.shard".to_owned()));
    }
}
