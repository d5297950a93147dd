//! One line that says what is waited for.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::printer::Printer;

/// How often the spinner moves, so that people see that it lives.
const TICK: Duration = Duration::from_millis(120);

/// Shows what is waited for: on a terminal in a line that is redrawn, else in a line for each change.
pub(crate) struct Steps<'a> {
    printer: &'a Printer,
    bar: Option<ProgressBar>,
    last: String,
}

impl<'a> Steps<'a> {
    /// A display that shows nothing yet.
    pub(crate) fn new(printer: &'a Printer) -> Self {
        let bar = printer.live_progress().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            printer,
            bar,
            last: String::new(),
        }
    }

    /// Shows what is waited for.
    pub(crate) fn show(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        match &self.bar {
            Some(bar) => bar.set_message(self.last.clone()),
            None => self.printer.note(text),
        }
    }

    /// Tells something for good, above what is redrawn.
    pub(crate) fn tell(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.note(line)),
            None => self.printer.note(line),
        }
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
