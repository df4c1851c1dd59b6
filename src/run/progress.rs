//! Logs and progress on stderr: a bar where it is a terminal, lines where it is not.
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

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
    /// Of [`Self::say_now_and_then`].
    last_said: Option<Instant>,
    /// When and where the first step was, which a resumed run begins with.
    first: Option<(Instant, u64)>,
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
        Self { bar, name, last_line: Instant::now(), last_said: None, first: None, is_terminal }
    }

    /// Moves to `position`, with news such as the loss.
    pub fn at(&mut self, position: u64, news: &str) {
        self.bar.set_position(position);
        let &mut (began, from) = self.first.get_or_insert((Instant::now(), position));
        if self.is_terminal {
            self.bar.set_message(news.to_owned());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let total = self.bar.length().map_or_else(String::new, |total| format!("/{total}"));
            let left = self.bar.length().and_then(|total| time_left(began.elapsed(), from, position, total));
            let left = left.map_or_else(String::new, |left| format!(", about {} left", HumanDuration(left)));
            log(&format!("{} {position}{total} {news}{left}", self.name));
        }
    }

    /// A line of a kind that may come every few steps: no more often than progress itself.
    pub fn say_now_and_then(&mut self, text: &str) {
        if self.last_said.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_said = Some(Instant::now());
            self.say(text);
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

/// At the mean pace of `from` to `position`; `None` before there is one.
fn time_left(elapsed: Duration, from: u64, position: u64, total: u64) -> Option<Duration> {
    let done = position.saturating_sub(from);
    let seconds = elapsed.as_secs_f64() * total.saturating_sub(position) as f64 / done as f64;
    (done > 0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_of_the_steps_since_the_start() {
        let minute = Duration::from_mins(1);
        assert_eq!(time_left(minute, 0, 10, 40), Some(3 * minute));
        assert_eq!(time_left(minute, 30, 35, 40), Some(minute));
        assert_eq!(time_left(minute, 5, 5, 40), None);
        assert_eq!(time_left(minute, 0, 40, 40), Some(Duration::ZERO));
    }
}
