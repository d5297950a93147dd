//! What people see while images are copied. Everything goes to stderr.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{human, printer::Printer};

/// How often the spinner moves, so that people see that it lives.
const TICK: Duration = Duration::from_millis(120);
/// Time between two lines where nothing can be redrawn.
const PAUSE: Duration = Duration::from_secs(5);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Progress {
    pub(crate) moved: u64,
    /// Bytes that are to be sent, as far as it is known.
    pub(crate) total: u64,
    pub(crate) ended: usize,
    pub(crate) images: usize,
}

/// A line that is redrawn, or one now and then.
pub(crate) enum Display<'printer> {
    Live(ProgressBar),
    Plain {
        printer: &'printer Printer,
        last: Instant,
        shown: Option<String>,
    },
}

impl<'printer> Display<'printer> {
    /// The display that suits where stderr goes.
    pub(crate) fn new(printer: &'printer Printer) -> Self {
        if !printer.live_progress() {
            return Self::Plain {
                printer,
                last: Instant::now(),
                shown: None,
            };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{spinner} {bar:24.green} {wide_msg}");
        bar.set_style(
            style
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸─"),
        );
        bar.set_message("looking at the images");
        bar.enable_steady_tick(TICK);
        Self::Live(bar)
    }

    /// Shows how far it is.
    pub(crate) fn update(&mut self, progress: Progress, since: Instant) {
        let text = summary(progress, since.elapsed());
        match self {
            Self::Live(bar) => {
                bar.set_length(progress.total.max(progress.moved));
                bar.set_position(progress.moved);
                bar.set_message(text);
            }
            Self::Plain { printer, last, shown } => {
                if last.elapsed() >= PAUSE && shown.as_ref() != Some(&text) {
                    printer.note(&text);
                    *last = Instant::now();
                    *shown = Some(text);
                }
            }
        }
    }

    /// Writes something else in between.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Live(bar) => bar.suspend(write),
            Self::Plain { .. } => write(),
        }
    }

    /// Ends the display.
    pub(crate) fn finish(&self) {
        if let Self::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// `3 of 20 images, 512 MB of 1.24 GB, 48.0 MB/s`
fn summary(progress: Progress, elapsed: Duration) -> String {
    let Progress {
        moved,
        total,
        ended,
        images,
    } = progress;
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = moved.saturating_mul(1000) / millis;
    format!(
        "{} of {}, {} of {}, {}/s",
        human::count(ended),
        human::counted(images, "image"),
        human::bytes(moved),
        human::bytes(total.max(moved)),
        human::bytes(rate)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line_with_bytes() {
        let progress = Progress {
            moved: 96_000_000,
            total: 1_240_000_000,
            ended: 3,
            images: 20,
        };
        assert_eq!(
            summary(progress, Duration::from_secs(2)),
            "3 of 20 images, 96.0 MB of 1.24 GB, 48.0 MB/s"
        );
    }
}
