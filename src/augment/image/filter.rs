//! Which samples make which pixel along one axis, and by how much.

/// Samples that AVX2 reaches from one load.
const WINDOW_SAMPLES: usize = 16;
/// Outputs of one step of the horizontal pass.
pub(super) const GROUP: usize = 8;

/// The triangle filter along one axis: for each output the first sample and the weights from there on.
///
/// As PIL's `precompute_coeffs`: the support is one sample, or as many as an output covers where that is more; samples
/// outside `low..high` have no part in it and the rest is normalised. Weights are integers whose sum is exact.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// What this was made for.
    made_for: Option<Span>,
    /// First sample of each output, rising.
    pub(super) starts: Vec<u32>,
    /// Weights per output; unused ones are 0.
    pub(super) taps: usize,
    /// `[outputs, taps]`.
    pub(super) weights: Vec<u16>,
    exact: Vec<f64>,
}

/// A stretch of samples that becomes `outputs` pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    /// Where it starts, in samples.
    pub(super) start: f64,
    /// How long it is.
    pub(super) length: f64,
    /// Samples that may be read: from this one …
    pub(super) low: usize,
    /// … to before this one.
    pub(super) high: usize,
    /// Pixels that come out.
    pub(super) outputs: usize,
}

impl Filter {
    /// Prepares for `span` with weights that sum to `one`, at most 65536; a weight of 65536 is stored as 65535.
    pub(super) fn prepare(&mut self, span: Span, one: u32) {
        if self.made_for == Some(span) {
            return;
        }
        let scale = span.length / span.outputs as f64;
        let support = scale.max(1.0);
        self.taps = (2.0 * support).ceil() as usize + 1;
        self.starts.clear();
        self.weights.clear();
        self.weights.resize(self.taps * span.outputs, 0);
        for (output, weights) in self.weights.chunks_exact_mut(self.taps).enumerate() {
            let centre = span.start + (output as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5).max(0.0) as usize).clamp(span.low, span.high - 1);
            let end = ((centre + support + 0.5).max(0.0) as usize).clamp(first + 1, span.high).min(first + self.taps);
            self.exact.clear();
            self.exact.extend((first..end).map(|sample| {
                let distance = (sample as f64 + 0.5 - centre) / support;
                (1.0 - distance.abs()).max(0.0)
            }));
            let sum: f64 = self.exact.iter().sum();
            if sum <= 0.0 {
                self.exact.fill(1.0);
            }
            let per_weight = f64::from(one) / if sum > 0.0 { sum } else { self.exact.len() as f64 };
            let mut left = i64::from(one);
            let mut largest = 0;
            for (index, (weight, exact)) in weights.iter_mut().zip(&self.exact).enumerate() {
                let rounded = libm::round(exact * per_weight).min(65_535.0);
                *weight = rounded as u16;
                left -= rounded as i64;
                if exact > &self.exact[largest] {
                    largest = index;
                }
            }
            weights[largest] = (i64::from(weights[largest]) + left).clamp(0, 65_535) as u16;
            self.starts.push(first as u32);
        }
        self.made_for = Some(span);
    }

    /// Samples that any output reads.
    pub(super) fn reach(&self, high: usize) -> std::ops::Range<usize> {
        let first = self.starts.first().map_or(0, |&start| start as usize);
        let last = self.starts.last().map_or(0, |&start| start as usize);
        first..(last + self.taps).min(high)
    }
}

/// A [`Filter`] laid out for eight outputs at a time: bytes are gathered by shuffles within two windows of 16.
#[derive(Debug, Default)]
pub(super) struct Shuffles {
    made_for: Option<Span>,
    /// Whether the windows are wide enough.
    pub(super) usable: bool,
    /// Per group: first samples of its two windows.
    pub(super) windows: Vec<[u32; 2]>,
    /// Per group: which bytes of the windows make pairs of 16-bit values.
    pub(super) controls: Vec<[u8; 32]>,
    /// Pairs of taps.
    pub(super) pairs: usize,
    /// Bytes of a row that the windows reach.
    pub(super) reach: usize,
    /// `[groups, pairs]`: weights of two taps of eight outputs.
    pub(super) weights: Vec<[i16; 16]>,
}

impl Shuffles {
    /// Lays out `filter`, whose samples are counted from `origin`.
    pub(super) fn prepare(&mut self, filter: &Filter, origin: usize) {
        if self.made_for.is_some() && self.made_for == filter.made_for {
            return;
        }
        self.made_for = filter.made_for;
        self.pairs = filter.taps.div_ceil(2);
        self.windows.clear();
        self.controls.clear();
        self.weights.clear();
        self.usable = true;
        for (group, starts) in filter.starts.chunks(GROUP).enumerate() {
            // Outputs that do not exist read the last window and have no weight.
            let start = |output: usize| starts[output.min(starts.len() - 1)] as usize - origin;
            let windows = [start(0), start(GROUP / 2)];
            let mut control = [0x80; 32];
            for output in 0..GROUP {
                let offset = start(output) - windows[output / 4];
                self.usable &= offset + 2 <= WINDOW_SAMPLES;
                // Bytes 0x80 become zeros: the upper halves of 16-bit values.
                control[4 * output] = offset as u8;
                control[4 * output + 2] = offset as u8 + 1;
            }
            self.reach = windows[1] + 2 * (self.pairs - 1) + WINDOW_SAMPLES;
            self.windows.push(windows.map(|window| window as u32));
            self.controls.push(control);
            for pair in 0..self.pairs {
                let mut weights = [0_i16; 16];
                for (slot, weight) in weights.iter_mut().enumerate() {
                    let (output, tap) = (group * GROUP + slot / 2, 2 * pair + slot % 2);
                    if output < filter.starts.len() && tap < filter.taps {
                        *weight = filter.weights[output * filter.taps + tap] as i16;
                    }
                }
                self.weights.push(weights);
            }
        }
    }
}
