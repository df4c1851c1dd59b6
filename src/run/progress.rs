//! Logs and progress on stderr: a bar where it is a terminal, lines where it is not.
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws a second at most: a bar must not cost a training step anything.
const REDRAWS_PER_SECOND: u8 = 5;
/// Without a terminal, a line this often.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// One line of news.
pub fn log(text: &str) {
    eprintln!("{text}");
}

/// How far something has come.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    name: &'static str,
    last_line: Instant,
    is_terminal: bool,
}

impl Progress {
    /// `total` in `unit`; 0 where nobody knows.
    pub fn new(name: &'static str, total: u64, unit: &'static str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = match is_terminal {
            true => ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
        let shape = match total {
            0 => format!("{name} {{pos}} {unit} [{{elapsed}}] {{msg}}"),
            _ => format!("{name} {{wide_bar}} {{pos}}/{{len}} {unit} [{{elapsed}} < {{eta}}] {{msg}}"),
        };
        if let Ok(style) = ProgressStyle::with_template(&shape) {
            bar.set_style(style);
        }
        Self { bar, name, last_line: Instant::now(), is_terminal }
    }

    /// Moves to `position`, with news such as the loss.
    pub fn at(&mut self, position: u64, news: &str) {
        self.bar.set_position(position);
        if self.is_terminal {
            self.bar.set_message(news.to_owned());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let total = self.bar.length().map_or_else(String::new, |total| format!("/{total}"));
            log(&format!("{} {position}{total} {news}", self.name));
        }
    }

    /// A line that stays, above the bar.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| log(text));
    }

    /// Clears the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
