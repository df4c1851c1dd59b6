//! The sources of an epoch, lane by lane: passes over each, one after the other.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::{Error, Result, Stage},
    scan::{
        ScanSettings,
        items::{Groups, SourceWindow},
        mixture::{BLOCK_ITEMS, Mixture},
        order::{EpochOrder, GroupSize, Order, OrderKey, Place},
    },
};

/// Planned passes that are kept; further ones are planned again when they are asked for.
const PASSES_KEPT: usize = 64;

/// A source of a mixture, as its passes are planned.
pub struct SourcePlan {
    /// Its groups.
    pub groups: Arc<dyn Groups>,
    /// Their sizes, in the same order.
    pub sizes: Vec<GroupSize>,
    /// Digest of its selection.
    pub digest: [u8; 32],
}

/// How the items of an epoch's lanes come from sources.
pub struct Streams {
    sources: Vec<SourcePlan>,
    walk: Walk,
    key: OrderKey,
    items: u64,
    lanes: u32,
}

enum Walk {
    /// One pass over one source.
    Once(Arc<EpochOrder>),
    /// Passes over several, mixed by weight.
    Mixed(Box<Mixed>),
}

/// The source of every item of a block, and which of the source's items it is.
type Block = Arc<Vec<(u32, u64)>>;

struct Mixed {
    mixture: Mixture,
    scan: ScanSettings,
    /// By source: items of a pass.
    pass_items: Vec<u64>,
    /// By source: items of a block.
    shares: Vec<u64>,
    /// By lane: items of an epoch.
    lane_items: Vec<u64>,
    /// By lane and source: items of an epoch.
    lane_counts: Vec<Vec<u64>>,
    passes: Mutex<HashMap<(u32, u64), Arc<EpochOrder>>>,
    /// Blocks by lane and number.
    blocks: Mutex<HashMap<(u32, u64), Block>>,
}

impl Streams {
    /// One pass over one source in a given order.
    pub fn one(order: EpochOrder, groups: Arc<dyn Groups>) -> Self {
        let (key, items, lanes) = (*order.key(), order.items(), order.lanes());
        let source = SourcePlan { groups, sizes: vec![], digest: key.selection };
        Self { sources: vec![source], walk: Walk::Once(Arc::new(order)), key, items, lanes }
    }

    /// The shuffled epoch `key.epoch` of a mixture, whose sources stand in the same order.
    ///
    /// # Errors
    /// No lanes, or a source with fewer items than lanes.
    pub fn mixed(sources: Vec<SourcePlan>, mixture: &Mixture, scan: &ScanSettings, key: OrderKey) -> Result<Self> {
        let lanes = scan.lanes;
        let pass_items: Vec<u64> =
            sources.iter().map(|source| source.sizes.iter().map(|size| size.items).sum()).collect();
        for (source, &items) in mixture.sources().iter().zip(&pass_items) {
            if items < u64::from(lanes) || lanes == 0 {
                let reason = format!(
                    "source {} has {items} items for {lanes} lanes, and every lane needs one; choose 1 to {} lanes, or \
                     select more",
                    source.name,
                    items.max(1)
                );
                return Err(Error::at(Stage::Scan, "scan.lanes", reason));
            }
        }
        let items = mixture.items(lanes);
        let lane_items: Vec<u64> = (0..lanes).map(|lane| mixture.lane_items(lane, lanes)).collect();
        let mixed = Mixed {
            shares: mixture.shares(),
            lane_counts: lane_items.iter().map(|&items| mixture.lane_counts(items)).collect(),
            lane_items,
            mixture: mixture.clone(),
            scan: scan.clone(),
            pass_items,
            passes: Mutex::default(),
            blocks: Mutex::default(),
        };
        Ok(Self { sources, walk: Walk::Mixed(Box::new(mixed)), key, items, lanes })
    }

    pub(super) fn items(&self) -> u64 {
        self.items
    }

    pub(super) fn lanes(&self) -> u32 {
        self.lanes
    }

    pub(super) fn sources(&self) -> u32 {
        self.sources.len() as u32
    }

    pub(super) fn order(&self) -> Order {
        match &self.walk {
            Walk::Once(order) => order.order(),
            Walk::Mixed(_) => Order::Shuffled,
        }
    }

    pub(super) fn key(&self) -> &OrderKey {
        &self.key
    }

    pub(super) fn groups(&self, source: u32) -> &dyn Groups {
        self.sources[source as usize].groups.as_ref()
    }

    /// The pass under which draws are made: no two sources share one.
    pub(super) fn draw_pass(&self, source: u32, pass: u64) -> u64 {
        match &self.walk {
            Walk::Once(_) => self.key.epoch,
            Walk::Mixed(_) => pass * u64::from(self.sources()) + u64::from(source),
        }
    }

    pub(super) fn source_at(&self, lane: u32, nth: u64) -> (u32, u64) {
        match &self.walk {
            Walk::Once(_) => (0, nth),
            Walk::Mixed(mixed) => {
                let block = mixed.block(&self.key, lane, nth / BLOCK_ITEMS);
                let (source, in_block) = block[(nth % BLOCK_ITEMS) as usize];
                let before = nth / BLOCK_ITEMS * mixed.shares[source as usize];
                (source, mixed.before_epoch(&self.key, lane, source) + before + in_block)
            }
        }
    }

    pub(super) fn source_items_before(&self, lane: u32, source: u32, nth: u64) -> u64 {
        let Walk::Mixed(mixed) = &self.walk else { return nth };
        let part = (nth % BLOCK_ITEMS) as usize;
        let in_block = match part {
            // The block behind a lane's last item may not exist.
            0 => 0,
            _ => {
                let block = mixed.block(&self.key, lane, nth / BLOCK_ITEMS);
                block[..part].iter().filter(|(of, _)| *of == source).count() as u64
            }
        };
        let before = nth / BLOCK_ITEMS * mixed.shares[source as usize];
        mixed.before_epoch(&self.key, lane, source) + before + in_block
    }

    pub(super) fn window_at(&self, source: u32, lane: u32, nth: u64) -> Result<Option<SourceWindow>> {
        match &self.walk {
            Walk::Once(order) => {
                let window = order.window_at(lane, nth);
                Ok(window.map(|window| SourceWindow { source, pass: self.key.epoch, window, first: window.first }))
            }
            Walk::Mixed(mixed) => {
                let of_lane = mixed.lane_pass_items(source, lane, self.lanes);
                let (pass, in_pass) = (nth / of_lane, nth % of_lane);
                let order = self.pass(source, pass)?;
                let Some(window) = order.window_at(lane, in_pass) else {
                    return Err(Error::internal("a lane of a pass is shorter than it should be"));
                };
                Ok(Some(SourceWindow { source, pass, window, first: nth - in_pass + window.first }))
            }
        }
    }

    pub(super) fn places(&self, window: &SourceWindow) -> Result<Vec<Place>> {
        match &self.walk {
            Walk::Once(order) => Ok(order.places(&window.window)),
            Walk::Mixed(_) => Ok(self.pass(window.source, window.pass)?.places(&window.window)),
        }
    }

    pub(super) fn windows(&self, lanes: &[u32]) -> Option<u32> {
        match &self.walk {
            Walk::Once(order) => Some(lanes.iter().map(|&lane| order.windows(lane)).sum()),
            Walk::Mixed(_) => None,
        }
    }

    /// The order of one pass over a source.
    fn pass(&self, source: u32, pass: u64) -> Result<Arc<EpochOrder>> {
        let Walk::Mixed(mixed) = &self.walk else { return Err(Error::internal("one source has one pass")) };
        let known = |passes: &HashMap<_, Arc<EpochOrder>>| passes.get(&(source, pass)).map(Arc::clone);
        if let Some(order) = known(&mixed.passes.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(order);
        }
        let plan = &self.sources[source as usize];
        let key = OrderKey { seed: self.key.seed, epoch: self.draw_pass(source, pass), selection: plan.digest };
        let order = Arc::new(EpochOrder::new(&plan.sizes, &mixed.scan_of(source), Order::Shuffled, key)?);
        let mut passes = mixed.passes.lock().unwrap_or_else(PoisonError::into_inner);
        if passes.len() >= PASSES_KEPT {
            // Lanes of a source are about as far as each other: the oldest pass is the one that is done.
            let oldest = passes.keys().filter(|key| key.0 == source).min_by_key(|key| key.1).copied();
            oldest.map(|oldest| passes.remove(&oldest));
        }
        passes.insert((source, pass), Arc::clone(&order));
        Ok(order)
    }
}

impl Mixed {
    /// Items of a source's lane in one pass: longer lanes come first.
    fn lane_pass_items(&self, source: u32, lane: u32, lanes: u32) -> u64 {
        let (items, lanes) = (self.pass_items[source as usize], u64::from(lanes));
        items / lanes + u64::from(u64::from(lane) < items % lanes)
    }

    /// Items of a source's lane in all epochs before this one.
    fn before_epoch(&self, key: &OrderKey, lane: u32, source: u32) -> u64 {
        key.epoch * self.lane_counts[lane as usize][source as usize]
    }

    fn block(&self, key: &OrderKey, lane: u32, number: u64) -> Block {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = blocks.get(&(lane, number)) {
            return Arc::clone(block);
        }
        let left = self.lane_items[lane as usize].saturating_sub(number * BLOCK_ITEMS);
        let block = Arc::new(self.mixture.block(key.seed, key.epoch, lane, number, left.min(BLOCK_ITEMS)));
        if blocks.len() >= 4 * self.lane_items.len() {
            // Every lane is in one block; substitutes look into others now and then.
            blocks.clear();
        }
        blocks.insert((lane, number), Arc::clone(&block));
        block
    }

    /// Windows of a source take its share of the rows and bytes of all.
    fn scan_of(&self, source: u32) -> ScanSettings {
        let share = self.shares[source as usize];
        let part = |all: u64| (u128::from(all) * u128::from(share)).div_ceil(u128::from(BLOCK_ITEMS)) as u64;
        ScanSettings {
            shuffle_window_rows: part(self.scan.shuffle_window_rows).max(1),
            shuffle_window_megabytes: part(self.scan.shuffle_window_megabytes).max(1),
            ..self.scan.clone()
        }
    }
}
