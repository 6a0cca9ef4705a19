//! The progress line: one line on a terminal, nothing elsewhere.
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shows what is going on while a person waits; gone without a trace when it ends.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    /// Prints a line for each step instead (`-v`, or no terminal on demand).
    lines: bool,
    start: Instant,
}

impl Progress {
    /// A progress line on standard error; with `lines`, a line with the time for each step.
    #[must_use]
    pub fn new(lines: bool) -> Self {
        let bar = ProgressBar::new_spinner();
        if lines || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(150));
        }
        Self { bar, lines, start: Instant::now() }
    }

    /// Says what begins now.
    pub fn step(&self, text: impl Into<String>) {
        let text = text.into();
        if self.lines {
            eprintln!("trapline: [{:6.2} s] {text}", self.start.elapsed().as_secs_f64());
        }
        self.bar.set_message(text);
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("trapline: {text}"));
    }

    /// Ends the line.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
