//! `channel_drop`: zeros for some channels.
use serde::{Deserialize, Serialize};

use super::{SeriesOp, Window};
use crate::seed::Draws;

/// `channel_drop`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelDropSettings {
    /// Of each channel, in [0, 1].
    pub probability: f64,
}

/// Each channel is zeroed with a probability; one of them, drawn first, always stays.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelDrop {
    /// Of each channel, in [0, 1].
    pub probability: f64,
}

impl ChannelDrop {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "channel_drop";

    /// From settings that the recipe has checked.
    pub fn new(settings: &ChannelDropSettings) -> Self {
        Self { probability: settings.probability }
    }
}

impl SeriesOp for ChannelDrop {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 probability={}", Self::NAME, self.probability)
    }

    fn apply(&self, window: &mut Window, draws: &mut Draws) {
        let stays = draws.below(window.channels as u64) as usize;
        for (number, channel) in window.channels_mut().enumerate() {
            if draws.chance(self.probability) && number != stays {
                channel.fill(0.0);
            }
        }
    }
}
