//! Windows of one series into a slot: what `context_future`, `past_future` and evaluations share.
use std::cell::RefCell;

use super::{
    Encoded, RowFacts, SampleKernel,
    series_source::{Scale, SeriesSource},
    starts::Starts,
};
use crate::{
    augment::{
        BadClass, BadSample,
        series::{
            Window,
            recipe::{SeriesRecipe, WindowKey},
        },
    },
    scan::tensor_column::Element,
    seed::ItemKey,
};

thread_local! {
    /// A window as it was read, and a part of it: memory that threads keep.
    static SCRATCH: RefCell<(Window, Window)> = RefCell::default();
}

/// Fills slots with windows of series: a slot is `[windows, channels, steps]`, rows of which are windows, or
/// `[parts, channels, steps]` of one window in one row.
#[derive(Debug, Clone)]
pub struct SeriesWindows {
    pub(super) name: &'static str,
    pub(super) column: String,
    pub(super) channels: usize,
    /// Steps that one window takes from a series.
    pub(super) window_steps: usize,
    pub(super) windows: usize,
    pub(super) starts: Starts,
    pub(super) scale: Scale,
    /// First steps of the parts into which a window is cut, and their length; empty where a window is one part.
    pub(super) parts: Vec<usize>,
    pub(super) part_steps: usize,
    pub(super) recipe: SeriesRecipe,
    pub(super) group: Option<String>,
    /// Of a row: `[channels, steps]`, or `[parts, channels, steps]`.
    pub(super) shape: Vec<usize>,
}

impl SeriesWindows {
    /// Steps that a series needs.
    pub fn least_steps(&self) -> usize {
        self.starts.least_steps(self.window_steps, self.windows)
    }

    /// Where the windows of a series begin.
    fn starts(&self, steps: usize, key: WindowKey) -> Result<Vec<usize>, BadSample> {
        if steps < self.least_steps() {
            let (least, column) = (self.least_steps(), &self.column);
            let message = format!(
                "{column} has {steps} steps, fewer than the {least} that {} takes; add `steps >= {least}` to the WHERE \
                 of scan.sql",
                self.name
            );
            return Err(BadSample { class: BadClass::TooShort, message });
        }
        let repeat = key.item.occurrence as usize;
        Ok(self.starts.of(steps, self.window_steps, self.windows, repeat, || key.draws(self.name, 0)))
    }
}

impl SampleKernel for SeriesWindows {
    fn name(&self) -> &str {
        self.name
    }

    fn column(&self) -> &str {
        &self.column
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn element(&self) -> Element {
        Element::F32
    }

    fn rows_per_item(&self) -> usize {
        self.windows
    }

    fn makes_windows(&self) -> bool {
        self.parts.is_empty()
    }

    fn group_column(&self) -> Option<&str> {
        self.group.as_deref()
    }

    fn describe(&self) -> String {
        let Self { name, column, channels, window_steps, windows, starts, scale, parts, part_steps, .. } = self;
        let parts = if parts.is_empty() { String::new() } else { format!(" parts={parts:?} of {part_steps}") };
        let recipe = self.recipe.describe();
        let ops = if recipe.is_empty() { recipe } else { format!(": {recipe}") };
        format!(
            "{name} v1 column={column} channels={channels} window_steps={window_steps} windows={windows} \
             starts={starts} scale={}{parts}{ops}",
            scale.name(),
        )
    }

    fn facts(&self, encoded: Encoded<'_>) -> Result<RowFacts, BadSample> {
        Ok(RowFacts { factors: SeriesSource::open(encoded, self.channels)?.factors(self.scale) })
    }

    fn apply(
        &self,
        encoded: Encoded<'_>,
        seed: u64,
        pass: u64,
        item: ItemKey,
        out: &mut [u8],
    ) -> Result<(), BadSample> {
        let source = SeriesSource::open(encoded, self.channels)?;
        let key = |window: usize| WindowKey { seed, pass, item, window: window as u32 };
        let starts = self.starts(source.steps(), key(0))?;
        let worked_out;
        let factors = match encoded.facts {
            Some(facts) => facts.factors.as_slice(),
            None => {
                worked_out = source.factors(self.scale);
                &worked_out
            }
        };
        let channels = self.channels;
        let mut slots = out.chunks_exact_mut(channels * self.recipe.steps() * Element::F32.bytes());
        if self.parts.is_empty() && self.recipe.is_empty() {
            for (start, slot) in starts.into_iter().zip(slots) {
                source.read(start, factors, slot.as_chunks_mut::<4>().0);
            }
            return Ok(());
        }
        SCRATCH.with_borrow_mut(|(window, part)| {
            for (number, start) in starts.into_iter().enumerate() {
                (window.channels, window.steps) = (channels, self.window_steps);
                window.values.resize(channels * self.window_steps, 0.0);
                source.read(start, factors, &mut window.values);
                if self.parts.is_empty() {
                    self.recipe.apply(window, key(number));
                    write(window, slots.next());
                }
                for (number, &first) in self.parts.iter().enumerate() {
                    (part.channels, part.steps) = (channels, self.part_steps);
                    part.values.clear();
                    for row in window.channels_mut() {
                        part.values.extend_from_slice(&row[first..first + self.part_steps]);
                    }
                    self.recipe.apply(part, key(number));
                    write(part, slots.next());
                }
            }
        });
        Ok(())
    }
}

fn write(window: &Window, slot: Option<&mut [u8]>) {
    let slot = slot.into_iter().flat_map(|slot| slot.as_chunks_mut::<4>().0);
    slot.zip(&window.values).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
}
