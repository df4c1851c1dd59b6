//! Several sources in one epoch: which gives which item, how often, and that nothing depends on ranks or resumes.
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use diptych::{
    scan::{
        World,
        epoch::EpochPlan,
        mixture::{BLOCK_ITEMS, Mixture, Source},
    },
    select::selection::Selection,
};

use crate::scan::{Content, Data, Seen, data, items, plan, run, selection, small};

fn source(name: &str, weight: f64, selection: Arc<Selection>) -> Source {
    Source { name: name.to_owned(), weight, selection }
}

/// 600 rows of two shards, and every tenth row of the third.
fn sources(data: &Data) -> Vec<Source> {
    let web = selection(&data.shards, |shard, _| u32::from(shard < 2));
    let clean = selection(&data.shards, |shard, row| u32::from(shard == 2 && row % 10 == 3));
    vec![source("clean", 0.3, clean), source("web", 0.7, web)]
}

fn mixed(data: &Data, sources: Vec<Source>, epoch_items: Option<u64>) -> EpochPlan {
    let mixture = Mixture::new(sources, epoch_items).expect("a mixture");
    EpochPlan { selection: mixture, ..plan(data, &selection(&data.shards, |_, _| 1)) }
}

fn is_clean(seen: &Seen) -> bool {
    seen.shard == 2
}

#[test]
fn counts_are_known_before_the_start_and_every_item_of_the_longest_source_comes_once() {
    let data = small();
    let plan = EpochPlan { drop_last: false, ..mixed(&data, sources(&data), None) };
    let counts = plan.selection.counts(plan.scan.lanes);
    assert_eq!(counts.iter().sum::<u64>(), plan.items());
    let seen = run(&plan, 0, 0).concat();
    assert_eq!(seen.len() as u64, plan.items());
    assert_eq!(seen.iter().filter(|seen| is_clean(seen)).count() as u64, counts[0]);
    let share = counts[0] as f64 / plan.items() as f64;
    assert!((share - 0.3).abs() < 0.01, "{counts:?}");
    let mut times: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    for seen in seen.iter().filter(|seen| !is_clean(seen)) {
        *times.entry((seen.shard, seen.row)).or_default() += 1;
    }
    assert_eq!(times.len(), 600);
    // An epoch ends with the lane that needs longest: others may have begun the next pass.
    assert!(times.values().filter(|&&times| times > 1).count() < 16, "{times:?}");
}

#[test]
fn a_small_source_repeats_with_other_draws_and_no_draw_comes_twice() {
    let data = small();
    let plan = EpochPlan { drop_last: false, ..mixed(&data, sources(&data), None) };
    let seen: Vec<Seen> = (0..3).flat_map(|epoch| run(&plan, epoch, 0).concat()).collect();
    let mut passes: HashMap<(u32, u64), Vec<_>> = HashMap::new();
    for seen in &seen {
        passes.entry((seen.shard, seen.row)).or_default().push((seen.pass, seen.pixels.clone()));
    }
    for (item, met) in &passes {
        assert_eq!(met.iter().map(|met| met.0).collect::<HashSet<_>>().len(), met.len(), "{item:?}");
        assert_eq!(met.iter().map(|met| &met.1).collect::<HashSet<_>>().len(), met.len(), "{item:?}");
    }
    let of_clean: Vec<usize> = passes.iter().filter(|(item, _)| item.0 == 2).map(|(_, met)| met.len()).collect();
    let (least, most) = (of_clean.iter().min().expect("some"), of_clean.iter().max().expect("some"));
    // 800 items over 30 samples.
    assert!(of_clean.len() == 30 && *least >= 20 && *most <= 34, "{of_clean:?}");
    // Sources go on over epochs where an epoch is shorter than a pass.
    let short = EpochPlan { drop_last: false, ..mixed(&data, sources(&data), Some(400)) };
    let two: Vec<Seen> =
        (0..2).flat_map(|epoch| run(&short, epoch, 0).concat()).filter(|seen| !is_clean(seen)).collect();
    assert_eq!(two.len(), items(std::slice::from_ref(&two)).iter().collect::<HashSet<_>>().len());
}

#[test]
fn epochs_of_whole_batches_pass_over_nothing() {
    let data = small();
    let plan = mixed(&data, sources(&data), Some(120));
    let plan = EpochPlan { selection: plan.selection.clone().in_batches(64, plan.scan.lanes), batch_rows: 64, ..plan };
    assert_eq!((plan.items(), plan.items_dropped(), plan.batches_per_epoch()), (64, 0, 1));
    // As many items of the larger source as it has, but for what lanes differ in.
    let seen: Vec<Seen> =
        (0..12).flat_map(|epoch| run(&plan, epoch, 0).concat()).filter(|seen| !is_clean(seen)).collect();
    assert!(seen.len() > 500, "{}", seen.len());
    assert_eq!(
        items(std::slice::from_ref(&seen)).iter().collect::<HashSet<_>>().len(),
        seen.len(),
        "an item came twice before others came once"
    );
    let only: Mixture = selection(&data.shards, |_, _| 1).into();
    assert_eq!(only.clone().in_batches(64, 8).digest(), only.digest());
}

#[test]
fn ranks_together_see_what_one_process_sees() {
    let data = small();
    let plan = EpochPlan { drop_last: false, ..mixed(&data, sources(&data), None) };
    let whole = run(&plan, 1, 0);
    assert!(whole.iter().flatten().map(|seen| seen.position).eq(0..plan.items()));
    for size in [2, 4, 8] {
        let ranks: Vec<_> =
            (0..size).map(|rank| run(&EpochPlan { world: World { rank, size }, ..plan.clone() }, 1, 0)).collect();
        for (number, batch) in whole.iter().enumerate() {
            let mut union: Vec<Seen> = ranks.iter().flat_map(|rank| rank[number].clone()).collect();
            union.sort();
            assert_eq!(&union, batch, "batch {number} of {size} ranks");
        }
    }
}

#[test]
fn resuming_at_any_batch_of_any_epoch_gives_the_same_suffix() {
    let mut contents = ["a", "b", "c"].map(|name| Content::new(name, 300, 200, 20));
    for content in &mut contents {
        for row in [5, 33, 200] {
            content.images[row][..3].copy_from_slice(b"BAD");
        }
    }
    let data = data(&contents);
    let plan = mixed(&data, sources(&data), None);
    for epoch in [0, 2] {
        let whole = run(&plan, epoch, 0);
        assert!(whole.iter().flatten().any(|seen| seen.replaced));
        for first in 0..=plan.batches_per_epoch() {
            assert_eq!(run(&plan, epoch, first), whole[first as usize..], "from batch {first} of epoch {epoch}");
        }
    }
}

#[test]
fn a_world_of_two_resumed_as_one_loses_and_repeats_nothing() {
    let data = small();
    let plan = EpochPlan { drop_last: false, ..mixed(&data, sources(&data), None) };
    let stop = 11;
    let mut parts = vec![];
    for rank in 0..2 {
        let rank = run(&EpochPlan { world: World { rank, size: 2 }, ..plan.clone() }, 1, 0);
        parts.extend(rank[..stop].concat());
    }
    parts.extend(run(&plan, 1, stop as u64).concat());
    parts.sort();
    assert_eq!(parts, run(&plan, 1, 0).concat());
}

#[test]
fn weights_seed_and_epoch_change_the_mixture_and_threads_do_not() {
    let data = small();
    let plan = mixed(&data, sources(&data), Some(960));
    let base = run(&plan, 0, 0);
    assert_eq!(base, run(&EpochPlan { decode_threads: 1, ..plan.clone() }, 0, 0));
    let pattern = |batches: &[Vec<Seen>]| batches.iter().flatten().map(is_clean).collect::<Vec<_>>();
    assert_ne!(pattern(&base), pattern(&run(&plan, 1, 0)));
    assert_ne!(pattern(&base), pattern(&run(&EpochPlan { seed: 8, ..plan.clone() }, 0, 0)));
    let mut heavier = sources(&data);
    heavier[0].weight = 0.7;
    let heavier = mixed(&data, heavier, Some(960));
    assert_ne!(heavier.selection.digest(), plan.selection.digest());
    assert!(pattern(&run(&heavier, 0, 0)).iter().filter(|clean| **clean).count() > 450);
    // Weights count relative to each other.
    let mut scaled = sources(&data);
    (scaled[0].weight, scaled[1].weight) = (3.0, 7.0);
    let scaled = mixed(&data, scaled, Some(960));
    assert_eq!(scaled.selection.digest(), plan.selection.digest());
    assert_eq!(base, run(&scaled, 0, 0));
}

#[test]
fn one_source_with_a_weight_is_one_source_with_another_end() {
    let data = small();
    let all = selection(&data.shards, |_, _| 1);
    let one = EpochPlan { drop_last: false, ..mixed(&data, vec![source("all", 2.0, Arc::clone(&all))], None) };
    let plain = EpochPlan { drop_last: false, ..plan(&data, &all) };
    assert_eq!(run(&one, 1, 0), run(&plain, 1, 0));
    let half = EpochPlan { drop_last: false, ..mixed(&data, vec![source("all", 2.0, all)], Some(448)) };
    let both = [run(&half, 0, 0).concat(), run(&half, 1, 0).concat()];
    // Two epochs of 56 items a lane, of which each has 112 or 113 in a pass.
    assert_eq!(items(&both).iter().collect::<HashSet<_>>().len(), 896);
}

#[test]
fn every_block_of_a_lane_has_exact_shares() {
    let data = small();
    let mut plan = mixed(&data, sources(&data), Some(5_000));
    plan.scan.lanes = 2;
    let items = plan.epoch_items(4).expect("an order");
    for lane in 0..2 {
        let mut before = [0, 1].map(|source| items.source_items_before(lane, source, 0));
        for nth in 0..2_500 {
            let (source, index) = items.source_at(lane, nth);
            assert_eq!(index, before[source as usize], "item {nth} of lane {lane}");
            before[source as usize] += 1;
            for source in [0, 1] {
                assert_eq!(items.source_items_before(lane, source, nth + 1), before[source as usize]);
            }
        }
        let start = [0, 1].map(|source| items.source_items_before(lane, source, 0));
        let after = [0, 1].map(|source| items.source_items_before(lane, source, BLOCK_ITEMS));
        assert_eq!([after[0] - start[0], after[1] - start[1]], [300, 700]);
    }
    assert_eq!(plan.selection.counts(2), [1_500, 3_500]);
}

#[test]
fn mixtures_that_cannot_be_are_refused_by_the_name_of_the_source() {
    let data = small();
    let all = || selection(&data.shards, |_, _| 1);
    let told = |sources: Vec<Source>| Mixture::new(sources, None).expect_err("no mixture").to_string();
    let light = told(vec![source("a", 1e-6, all()), source("b", 1.0, all())]);
    assert!(light.contains("a: its weight") && light.contains("thousandth"), "{light}");
    let empty = told(vec![source("a", 1.0, selection(&data.shards, |_, _| 0)), source("b", 1.0, all())]);
    assert!(empty.contains("a: its query keeps no sample"), "{empty}");
    let tiny = selection(&data.shards, |shard, row| u32::from(shard == 0 && row < 5));
    let plan = mixed(&data, vec![source("tiny", 0.1, tiny), source("b", 1.0, all())], None);
    let error = plan.execute(0, 0).err().expect("8 lanes").to_string();
    assert!(error.contains("tiny has 5 items for 8 lanes"), "{error}");
}
