//! How the harness tells what it is doing: the library never prints.

use std::time::Duration;

/// Somebody who wants to know how far the harness is.
pub trait Progress: Send + Sync {
    /// A step has ended; it took `elapsed`.
    fn step(&self, name: &str, elapsed: Duration);

    /// Something worth a line that is not a step.
    fn note(&self, line: &str);
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _name: &str, _elapsed: Duration) {}

    fn note(&self, _line: &str) {}
}

/// The line that a terminal shows for a step: names in one column, times in the next.
#[must_use]
pub fn step_line(name: &str, elapsed: Duration) -> String {
    format!("{name:<32} {:>6.1} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_lines_stand_in_columns() {
        assert_eq!(
            step_line("etcd", Duration::from_millis(440)),
            "etcd                                0.4 s"
        );
        assert_eq!(
            step_line("pods run", Duration::from_secs(12)).len(),
            step_line("etcd", Duration::ZERO).len()
        );
    }
}
