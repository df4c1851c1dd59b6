//! The whole data half behind its queue, up to tensors on a device.

use std::{sync::Arc, time::Duration};

use burn::tensor::Device;
use datafusion::arrow::array::AsArray;
use diptych::{
    batch::Batch,
    prefetch::{Queue, check_capacity, prefetch},
    scan::epoch::EpochPlan,
};

use crate::scan::{Content, Data, Stamp, data, plan, runtime, selection, small};

fn all(data: &Data) -> EpochPlan {
    plan(data, &selection(&data.shards, |_, _| 1))
}

fn start(plan: &EpochPlan, capacity_bytes: u64, runtime: &tokio::runtime::Runtime) -> Queue {
    check_capacity(capacity_bytes, plan.batch_bytes()).expect("two batches");
    prefetch(plan.execute(0, 0).expect("plan"), capacity_bytes, runtime.handle())
}

fn digests(plan: &EpochPlan, capacity_bytes: u64, pause: Duration) -> Vec<String> {
    let runtime = runtime();
    let mut queue = start(plan, capacity_bytes, &runtime);
    let mut digests = vec![];
    while let Some(batch) = queue.next_batch().expect("no failure") {
        let batch = Batch::from_record_batch(&batch, &Device::flex(), &plan.shards.shards, &[]).expect("batch");
        assert_eq!(batch.items(), plan.batch_rows);
        digests.push(batch.digest);
        std::thread::sleep(pause);
    }
    assert!(queue.peak_bytes() <= capacity_bytes, "{} of {capacity_bytes}", queue.peak_bytes());
    digests
}

#[test]
fn digests_are_the_same_for_any_threads_capacity_and_pace() {
    let data = small();
    let base = all(&data);
    let two_batches = 2 * base.batch_bytes();
    let expected = digests(&base, two_batches, Duration::ZERO);
    assert_eq!(expected.len() as u64, base.batches_per_epoch());
    for threads in [1, 2, 4] {
        for capacity in [two_batches, 100 * two_batches] {
            for pause in [Duration::ZERO, Duration::from_millis(2)] {
                let plan = EpochPlan { decode_threads: threads, ..base.clone() };
                assert_eq!(digests(&plan, capacity, pause), expected, "{threads} threads, {capacity} bytes");
            }
        }
    }
    assert_ne!(digests(&EpochPlan { seed: 8, ..base.clone() }, two_batches, Duration::ZERO), expected);
    let items_only = digests(&EpochPlan { pixel_digest: false, ..base }, two_batches, Duration::ZERO);
    assert!(items_only.iter().zip(&expected).all(|(a, b)| a != b), "pixels are part of the digest");
}

/// Waits until it is so. A minute is long enough for any machine, and ends what would hang.
fn settle(mut is_done: impl FnMut() -> bool) -> bool {
    (0..12_000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        is_done()
    })
}

#[test]
fn dropping_the_trainer_stops_the_scan() {
    let data = data(&["a", "b"].map(|name| Content::new(name, 1_000, 2_000, 50)));
    let kernel = Arc::new(Stamp::default());
    let runtime = runtime();
    let plan = EpochPlan { kernel: Arc::clone(&kernel) as _, ..all(&data) };
    let mut queue = start(&plan, 2 * plan.batch_bytes(), &runtime);
    for _ in 0..3 {
        assert!(queue.next_batch().expect("no failure").is_some());
    }
    drop(queue);
    drop(plan);
    // Every task, decode thread and batch under way holds the kernel.
    let holders = || Arc::strong_count(&kernel);
    assert!(settle(|| holders() == 1), "{} still hold the kernel", holders());
    let calls = kernel.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls < 1_000, "{calls} of 2,000 samples were made for a trainer that took 96");
}

#[test]
fn a_slow_trainer_lets_the_data_half_wait_and_a_fast_one_waits() {
    let data = small();
    let plan = all(&data);
    let runtime = runtime();
    let mut queue = start(&plan, 2 * plan.batch_bytes(), &runtime);
    // Whatever the machine does beside: the queue is full after a while, and then the data half waits.
    let seen = Duration::from_millis(100);
    assert!(settle(|| queue.waits().data_waited > seen), "{:?}", queue.waits());
    assert!(queue.waiting_bytes() > 0, "it waits for room and not for something else");
    assert_eq!(queue.waits().trainer_waited, Duration::ZERO);
    while queue.next_batch().expect("no failure").is_some() {}
    assert!(queue.waits().trainer_waited > Duration::ZERO);
}

#[test]
fn pixels_reach_the_device_without_a_copy() {
    let data = small();
    let plan = all(&data);
    let runtime = runtime();
    let mut queue = start(&plan, 4 * plan.batch_bytes(), &runtime);
    let record_batch = queue.next_batch().expect("no failure").expect("a batch");
    let views = record_batch.column_by_name("views").expect("views").as_fixed_size_list();
    let values = views.values().as_primitive::<datafusion::arrow::datatypes::UInt8Type>().values();
    let (expected, address) = (values.to_vec(), values.as_ptr());
    let batch = Batch::from_record_batch(&record_batch, &Device::flex(), &plan.shards.shards, &[]).expect("batch");
    drop(record_batch);
    assert_eq!(batch.pixels().expect("views").dims(), [32, 2, 3, 4, 4]);
    let [_, view] = batch.content.input().into_views::<2>("test").expect("two views");
    assert_eq!(view.dims(), [32, 3, 4, 4]);
    let floats = view.into_data().try_to_vec::<f32>().expect("floats");
    let wanted = expected.chunks(96).flat_map(|item| &item[48..]).map(|&pixel| f32::from(pixel) / 255.0);
    assert!(floats.iter().copied().eq(wanted));
    let diptych::batch::Content::Views(pixels) = batch.content else { panic!("no views") };
    let bytes = pixels.into_data();
    assert_eq!(bytes.as_bytes(), expected);
    assert_eq!(bytes.as_bytes().as_ptr(), address, "the decode threads' own buffer");
}

#[test]
fn tensors_hold_their_memory_until_the_trainer_lets_go_of_them() {
    let data = small();
    let base = all(&data);
    // Room for a few tensors only, and less than a window.
    let plan = EpochPlan { memory_bytes: 4 * base.batch_bytes(), ..base };
    let runtime = runtime();
    let mut queue = start(&plan, 1_000 * plan.batch_bytes(), &runtime);
    let mut take = || {
        assert!(settle(|| queue.waiting_bytes() > 0), "room for a tensor makes one");
        let batch = queue.next_batch().expect("no failure").expect("not the end");
        Batch::from_record_batch(&batch, &Device::flex(), &plan.shards.shards, &[]).expect("batch")
    };
    let most = plan.memory().expect("enough").tensor_bytes / (32 * 96);
    assert!(most < plan.batches_per_epoch(), "{most} of them would be the whole epoch");
    let mut held: Vec<Batch> = (0..most).map(|_| take()).collect();
    held.pop();
    // Without room none of these would come.
    held.push(take());
    // What may not come is looked for a while: a slow machine can only hide it.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(queue.waiting_bytes(), 0, "tensors in the trainer's hands are charged");
    drop(held);
    let mut rest = 0;
    while queue.next_batch().expect("no failure").is_some() {
        rest += 1;
    }
    assert_eq!(most + 1 + rest, plan.batches_per_epoch());
}

#[test]
fn a_batch_knows_its_items() {
    let data = small();
    let plan = EpochPlan { extra_columns: vec!["label".into(), "source".into()], ..all(&data) };
    let runtime = runtime();
    let mut queue = start(&plan, 4 * plan.batch_bytes(), &runtime);
    let record_batch = queue.next_batch().expect("no failure").expect("a batch");
    let labelled = |labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        Batch::from_record_batch(&record_batch, &Device::flex(), &plan.shards.shards, &labels)
    };
    assert!(labelled(&[]).expect("batch").labels.is_empty());
    assert!(labelled(&["split"]).expect_err("not carried").to_string().contains("split"));
    let mut batch = labelled(&["source", "label"]).expect("batch");
    let sources = batch.labels.remove(0);
    assert_eq!(batch.positions, (0..32).collect::<Vec<_>>());
    assert!(batch.keys.iter().zip(sources).all(|(key, source)| source == Some(format!("{}.png", key.row))));
    let labels = batch.labels.remove(0);
    for ((key, sample_id), label) in batch.keys.iter().zip(&batch.sample_ids).zip(labels) {
        let shard = &plan.shards.shards[(sample_id >> 40) as usize];
        assert_eq!(shard.item_key(sample_id & ((1 << 40) - 1), 0), *key);
        assert_eq!(label.expect("never null"), format!("class {}", key.row % 7));
    }
    assert_eq!((batch.replaced, batch.digest.len()), (0, 64));
}
