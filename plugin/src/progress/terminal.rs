//! Progress on a terminal: lines that are redrawn.

use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{NodeLine, Progress, Snapshot};
use crate::human;

/// How often the spinner moves, so that people see that it lives.
const TICK: Duration = Duration::from_millis(120);
/// Longest part of the name of a node that is shown.
const NAME_WIDTH: usize = 32;

/// Lines on stderr.
pub(super) struct Terminal {
    lines: MultiProgress,
    nodes: BTreeMap<String, ProgressBar>,
    summary: ProgressBar,
}

impl Terminal {
    /// A display that shows that something is going on.
    pub(super) fn new() -> Self {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let summary = lines.add(ProgressBar::new(1_000));
        summary.set_style(style("{spinner} {bar:24.green} {elapsed} {wide_msg}"));
        summary.enable_steady_tick(TICK);
        Self {
            lines,
            nodes: BTreeMap::new(),
            summary,
        }
    }
}

impl Progress for Terminal {
    fn update(&mut self, snapshot: &Snapshot) {
        let lines = snapshot.lines.as_deref().unwrap_or_default();
        self.nodes.retain(|node, bar| {
            let stays = lines.iter().any(|line| line.node == *node);
            if !stays {
                self.lines.remove(bar);
            }
            stays
        });
        let names = lines.iter().map(|line| line.node.chars().count());
        let width = names.max().unwrap_or_default().min(NAME_WIDTH);
        for line in lines {
            let bar = self.nodes.entry(line.node.clone()).or_insert_with(|| {
                let bar = self.lines.insert_before(&self.summary, ProgressBar::new(1_000));
                bar.set_style(style("{prefix} {bar:24.green} {wide_msg}"));
                bar
            });
            let name: String = line.node.chars().take(NAME_WIDTH).collect();
            bar.set_prefix(format!("{name:width$}"));
            bar.set_position(line.permille());
            let bytes = line.bytes().map(|bytes| format!("  {bytes}")).unwrap_or_default();
            bar.set_message(line.summary() + &bytes);
        }
        let share = if lines.is_empty() {
            snapshot.permille()
        } else {
            let sum: u64 = lines.iter().map(NodeLine::permille).sum();
            sum / u64::try_from(lines.len()).unwrap_or(1)
        };
        self.summary.set_position(share);
        self.summary.set_message(snapshot.summary());
    }

    fn tell(&mut self, line: &str) {
        // Nobody can be told when stderr is gone.
        let _ = self.lines.println(line);
    }

    fn finish(&mut self) {
        for bar in self.nodes.values() {
            bar.finish_and_clear();
        }
        self.summary.finish_and_clear();
    }
}

fn style(template: &'static str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("elapsed", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // Writing to the line's buffer cannot fail.
            let _ = text.write_str(&human::duration(state.elapsed()));
        })
        .progress_chars("━╸─")
}
