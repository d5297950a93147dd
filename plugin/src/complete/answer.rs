//! What kubectl reads: a value and a description a line, and at the end what the shell is to do, in cobra's numbers.

use std::fmt;

/// Most values of an answer. Nobody reads more, and shells are slow to show them.
const MOST: usize = 300;
/// Longest description, in characters.
const LONGEST_DESCRIPTION: usize = 120;

/// The shell goes on as it likes, with names of files.
const DEFAULT: u8 = 0;
/// The word goes on: no space after it.
const NO_SPACE: u8 = 2;
/// No names of files where there is nothing else.
const NO_FILES: u8 = 4;

/// Something that can come next.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Candidate {
    value: String,
    description: String,
}

impl Candidate {
    pub(super) fn plain(value: String) -> Self {
        Self {
            value,
            description: String::new(),
        }
    }

    pub(super) fn described(value: &str, description: Option<&str>) -> Self {
        let line = description.unwrap_or_default().lines().next().unwrap_or_default();
        Self {
            value: value.to_owned(),
            description: line.replace('\t', " ").chars().take(LONGEST_DESCRIPTION).collect(),
        }
    }

    /// A value with a line break would be two, and one that begins with a colon would be taken for the end.
    fn can_be_told(&self) -> bool {
        !self.value.is_empty() && !self.value.starts_with(':') && !self.value.contains(char::is_control)
    }
}

/// All that can come next.
#[derive(Debug)]
pub(super) struct Answer {
    candidates: Vec<Candidate>,
    directive: u8,
}

impl Default for Answer {
    fn default() -> Self {
        Self::of([])
    }
}

impl Answer {
    /// One of these.
    pub(super) fn of(candidates: impl IntoIterator<Item = Candidate>) -> Self {
        Self {
            candidates: candidates.into_iter().collect(),
            directive: NO_FILES,
        }
    }

    /// One of these, and then more of the same word.
    pub(super) fn unfinished(candidates: impl IntoIterator<Item = Candidate>) -> Self {
        Self {
            directive: NO_SPACE | NO_FILES,
            ..Self::of(candidates)
        }
    }

    /// A name of a file, which the shell knows better.
    pub(super) fn files() -> Self {
        Self {
            candidates: Vec::new(),
            directive: DEFAULT,
        }
    }

    /// What goes on from a word, in order, each once, and not too many.
    pub(super) fn starting_with(mut self, word: &str) -> Self {
        self.candidates
            .retain(|candidate| candidate.value.starts_with(word) && candidate.can_be_told());
        self.candidates.sort_unstable();
        self.candidates.dedup_by(|one, other| one.value == other.value);
        self.candidates.truncate(MOST);
        self
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Candidate { value, description } in &self.candidates {
            if description.is_empty() {
                writeln!(formatter, "{value}")?;
            } else {
                writeln!(formatter, "{value}\t{description}")?;
            }
        }
        write!(formatter, ":{}", self.directive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(values: &[&str]) -> Vec<Candidate> {
        values
            .iter()
            .map(|value| Candidate::plain((*value).to_owned()))
            .collect()
    }

    #[test]
    fn values_come_in_order_and_once() {
        let answer = Answer::of(plain(&["web", "api", "web", "worker"])).starting_with("w");
        assert_eq!(answer.to_string(), "web\nworker\n:4");
        assert_eq!(Answer::default().to_string(), ":4");
        assert_eq!(Answer::unfinished(plain(&["pod/"])).to_string(), "pod/\n:6");
        assert_eq!(Answer::files().to_string(), ":0");
    }

    #[test]
    fn a_description_is_one_line() {
        let candidate = Candidate::described("a", Some("one\ttwo\nthree"));
        assert_eq!(Answer::of([candidate]).to_string(), "a\tone two\n:4");
        let long = Candidate::described("a", Some(&"ä".repeat(500)));
        assert_eq!(long.description.chars().count(), LONGEST_DESCRIPTION);
    }

    #[test]
    fn what_kubectl_would_misread_is_left_out() {
        let answer = Answer::of(plain(&["a", "b\nc", ":5", "", "e\u{1b}[0m"])).starting_with("");
        assert_eq!(answer.to_string(), "a\n:4");
    }

    #[test]
    fn there_are_never_too_many() {
        let many = (0..5000).map(|number| Candidate::plain(format!("node-{number:04}")));
        let answer = Answer::of(many).starting_with("node-").to_string();
        assert_eq!(answer.lines().count(), MOST + 1);
        assert!(answer.starts_with("node-0000\n"));
    }
}
