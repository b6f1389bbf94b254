//! Shows a build to a person: a bar on a terminal, plain lines anywhere else.

use std::cell::RefCell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Event, Unit, megabytes};

/// How often a plain log says how far a step is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);
/// Shorter steps pass without a word on how long they took.
const WORTH_A_WORD: Duration = Duration::from_secs(1);

/// Writes a build's events to stderr, and nothing to stdout.
#[derive(Debug, Default)]
pub struct Terminal {
    step: RefCell<Option<Step>>,
}

#[derive(Debug)]
struct Step {
    what: String,
    began: Instant,
    spoke: Instant,
    bar: Option<ProgressBar>,
}

impl Terminal {
    /// Shows one event; hand `&|event| terminal.show(event)` to [`build`](super::build).
    pub fn show(&self, event: Event<'_>) {
        let mut step = self.step.borrow_mut();
        match event {
            Event::Started(what) => *step = Some(Step::begin(what)),
            Event::Advanced { done, total, unit } => {
                if let Some(step) = step.as_mut() {
                    step.advance(done, total, unit);
                }
            }
            Event::Note(line) => match step.as_ref().and_then(|step| step.bar.as_ref()) {
                Some(bar) => bar.suspend(|| eprintln!("{line}")),
                None => eprintln!("{line}"),
            },
            Event::Finished { ok } => {
                if let Some(step) = step.take() {
                    step.end(ok);
                }
            }
        }
    }
}

impl Step {
    fn begin(what: &str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            bar.set_style(style("{spinner} {msg} … {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("{what} …");
        }
        let now = Instant::now();
        Self {
            what: what.to_owned(),
            began: now,
            spoke: now,
            bar,
        }
    }

    fn advance(&mut self, done: u64, total: u64, unit: Unit) {
        let far = match unit {
            Unit::Bytes => format!("{} of {}", megabytes(done), megabytes(total)),
            Unit::Crates => format!("{done} of {total} crates"),
            Unit::Packages => format!("{done} of {total} packages"),
        };
        if let Some(bar) = &self.bar {
            bar.set_style(style("{spinner} {msg} … {elapsed} {wide_bar}"));
            bar.set_message(format!("{}: {far}", self.what));
            bar.set_length(total);
            bar.set_position(done);
        } else if self.spoke.elapsed() >= PLAIN_INTERVAL {
            self.spoke = Instant::now();
            eprintln!("  {far}, {} s", self.began.elapsed().as_secs());
        }
    }

    fn end(self, ok: bool) {
        let took = self.began.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let result = if ok { "done" } else { "failed" };
        if !ok || took >= WORTH_A_WORD {
            eprintln!("{}: {result} after {:.1} s", self.what, took.as_secs_f64());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
