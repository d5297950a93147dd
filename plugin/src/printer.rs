//! The one place that writes: data to stdout, everything else to stderr.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

/// Writes what the command says, and knows where it goes.
#[derive(Debug)]
pub(crate) struct Printer {
    /// Columns of the terminal that stdout is, if it is one.
    width: Option<usize>,
    colour: bool,
    live_progress: bool,
    stdout: io::Stdout,
    stderr: io::Stderr,
}

impl Printer {
    /// A printer for the standard streams.
    pub(crate) fn new() -> Self {
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour_allowed = !dumb && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let stdout_is_terminal = stdout.is_terminal();
        Self {
            width: stdout_is_terminal.then(terminal_width).flatten(),
            colour: stdout_is_terminal && colour_allowed,
            live_progress: !dumb && stderr.is_terminal(),
            stdout,
            stderr,
        }
    }

    /// Columns of the terminal that data goes to; `None` where it goes to a file or a pipe.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Whether data may have colours.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Whether stderr is a terminal on which lines can be redrawn.
    pub(crate) fn live_progress(&self) -> bool {
        self.live_progress
    }

    /// Writes a line, or several, of what was asked for.
    pub(crate) fn data(&self, text: impl Display) -> io::Result<()> {
        let mut stdout = self.stdout.lock();
        writeln!(stdout, "{}", text.to_string().trim_end_matches('\n'))?;
        stdout.flush()
    }

    /// Writes what takes the place of what was written before: on a terminal there, elsewhere below it.
    pub(crate) fn redraw(&self, text: &str) -> io::Result<()> {
        if self.width.is_some() {
            // To the corner, and everything below it away.
            self.data(format_args!("\u{1b}[H\u{1b}[2J{text}"))
        } else {
            self.data(format_args!("{text}\n---"))
        }
    }

    /// Tells something that is not data. Nobody can be told when that fails, so a failure is no error.
    pub(crate) fn note(&self, text: impl Display) {
        let _ = writeln!(self.stderr.lock(), "{text}");
    }

    /// Tells something that is probably not wanted.
    pub(crate) fn warning(&self, text: impl Display) {
        self.note(format_args!("warning: {text}"));
    }

    /// Tells what to do next.
    pub(crate) fn hint(&self, text: impl Display) {
        self.note(format_args!("hint: {text}"));
    }
}

/// Columns of the terminal that standard output is, if it is one.
pub(crate) fn terminal_width() -> Option<usize> {
    comfy_table::Table::new()
        .width()
        .map(usize::from)
        .filter(|width| *width > 0)
}
