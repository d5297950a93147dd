//! Progress on a terminal: lines that are redrawn.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{NodeLine, Progress, Snapshot};
use crate::{human, printer};

/// How often the spinner moves, so that people see that it lives.
const TICK: Duration = Duration::from_millis(120);
/// Longest part of the name of a node that is shown.
const NAME_WIDTH: usize = 32;
/// Columns of a terminal below which bars are short, so that there is room for what they mean.
const WIDE: usize = 100;
const LONG_BAR: usize = 24;
const SHORT_BAR: usize = 14;

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
        summary.set_style(style(if bar_width(columns()) == LONG_BAR {
            "{spinner} {bar:24.green} {elapsed} {wide_msg}"
        } else {
            "{spinner} {bar:14.green} {elapsed} {wide_msg}"
        }));
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
        let names: Vec<&str> = lines.iter().map(|line| line.node.as_str()).collect();
        let names = human::without_domain(&names);
        let longest = names.iter().map(|name| name.chars().count()).max();
        let width = longest.unwrap_or_default().min(NAME_WIDTH);
        let columns = columns();
        let bar_width = bar_width(columns);
        // The name, the bar, and a space behind each.
        let room = columns.saturating_sub(width + bar_width + 2);
        for (line, name) in lines.iter().zip(names) {
            let bar = self.nodes.entry(line.node.clone()).or_insert_with(|| {
                let bar = self.lines.insert_before(&self.summary, ProgressBar::new(1_000));
                bar.set_style(style(if bar_width == LONG_BAR {
                    "{prefix} {bar:24.green} {wide_msg}"
                } else {
                    "{prefix} {bar:14.green} {wide_msg}"
                }));
                bar
            });
            let name: String = name.chars().take(NAME_WIDTH).collect();
            bar.set_prefix(format!("{name:width$}"));
            bar.set_position(line.permille());
            bar.set_message(line.detailed(room));
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
        self.summary.disable_steady_tick();
        // One stroke for all lines: cleared one by one, some would be drawn again by the others.
        let _ = self.lines.clear();
        self.lines.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn abandon(&mut self) {
        self.summary.disable_steady_tick();
        self.lines.set_draw_target(ProgressDrawTarget::hidden());
        // The terminal has echoed ^C behind the last line, so the lines could not be cleared where they are.
        let _ = writeln!(io::stderr().lock());
    }
}

/// Columns of the terminal. Where only the data goes elsewhere, it is taken to be as narrow as terminals are.
fn columns() -> usize {
    printer::terminal_width().unwrap_or(80)
}

const fn bar_width(columns: usize) -> usize {
    if columns < WIDE { SHORT_BAR } else { LONG_BAR }
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
