//! What was found, for people and for programs.

use serde_json::{Value, json};

use super::{Check, Finding, Group, Severity, group};
use crate::{
    human,
    table::{Table, Text, Tone},
};

/// Findings that are shown, the worst first. Whoever has more begins with these.
const MOST_FINDINGS: usize = 40;

/// Findings, grouped, and how each check ended.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    groups: Vec<Group>,
}

impl Report {
    pub(crate) fn new(findings: Vec<Finding>) -> Self {
        Self {
            groups: group(findings),
        }
    }

    /// Whether something is broken.
    pub(crate) fn has_problems(&self) -> bool {
        self.count(Severity::Problem) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.groups.iter().filter(|group| group.severity == severity).count()
    }

    /// The table of checks, the findings with their remedies, and how many there are; or only what is wrong.
    pub(crate) fn text(&self, is_quiet: bool, width: Option<usize>, colour: bool) -> String {
        let least = if is_quiet { Severity::Warning } else { Severity::Note };
        let findings = self.groups.iter().filter(|group| group.severity >= least);
        let mut findings: Vec<String> = findings.map(|group| paragraph(group, width)).collect();
        let left_out = findings.len().saturating_sub(MOST_FINDINGS);
        if left_out > 0 {
            findings.truncate(MOST_FINDINGS);
            findings.push(format!("({} more; -o json has all of them)", human::count(left_out)));
        }
        if is_quiet {
            return findings.join("\n");
        }
        let mut blocks = vec![self.table(width).render(true, colour)];
        if !findings.is_empty() {
            blocks.push(findings.join("\n"));
        }
        blocks.push(self.summary());
        blocks.join("\n\n")
    }

    fn summary(&self) -> String {
        let counts = [
            (Severity::Problem, "problem"),
            (Severity::Warning, "warning"),
            (Severity::Note, "note"),
        ];
        let counts = counts.map(|(severity, noun)| (self.count(severity), noun));
        let told: Vec<String> = counts
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, noun)| human::counted(number, noun))
            .collect();
        match (self.has_problems(), told.is_empty()) {
            (_, true) => "no problems found".to_owned(),
            (true, false) => told.join(", "),
            (false, false) => format!("no problems found, {}", told.join(", ")),
        }
    }

    /// A row for each check that was made, with the worst that it found.
    fn table(&self, width: Option<usize>) -> Table {
        let mut table = Table::new(["CHECK", "RESULT", "DETAILS"]);
        for (check, result, details) in self.rows() {
            let tone = match result {
                Severity::Ok => Tone::Good,
                Severity::Note => Tone::Plain,
                Severity::Warning => Tone::Busy,
                Severity::Problem => Tone::Bad,
            };
            let result = Text {
                text: result.as_str().to_owned(),
                tone,
            };
            table.rows.push(vec![check.as_str().into(), result, details.into()]);
        }
        // What is too wide is cut: the whole of it stands below, or is no more than "ok" is.
        let excess = width.map_or(0, |width| table.width().saturating_sub(width));
        let longest = table.rows.iter().map(|row| row[2].text.chars().count()).max();
        if let Some(room) = longest
            .filter(|_| excess > 0)
            .map(|longest| longest.saturating_sub(excess))
        {
            for row in &mut table.rows {
                row[2].text = shortened(&row[2].text, room);
            }
        }
        table
    }

    fn rows(&self) -> Vec<(Check, Severity, String)> {
        let mut checks: Vec<Check> = self.groups.iter().map(|group| group.check).collect();
        checks.sort();
        checks.dedup();
        let row = |check: Check| {
            let of_check = || self.groups.iter().filter(move |group| group.check == check);
            let worst = of_check().map(|group| group.severity).max().unwrap_or(Severity::Ok);
            let good = of_check().find(|group| group.severity == Severity::Ok);
            let bad: Vec<String> = of_check()
                .filter(|group| group.severity == worst && worst > Severity::Ok)
                .map(short)
                .collect();
            let details = match (good, bad.as_slice()) {
                // A note does not make what is as it should be less so.
                (Some(good), _) if worst <= Severity::Note => good.what.clone(),
                (_, [only]) => only.clone(),
                (Some(good), []) => good.what.clone(),
                (_, [first, rest @ ..]) => format!("{first}, and {} more", rest.len()),
                (None, []) => String::new(),
            };
            let result = if good.is_some() && worst == Severity::Note {
                Severity::Ok
            } else {
                worst
            };
            (check, result, details)
        };
        checks.into_iter().map(row).collect()
    }

    /// For programs: each check with its result, and each finding.
    pub(crate) fn value(&self, is_quiet: bool) -> Result<Value, serde_json::Error> {
        let checks: Vec<Value> = self
            .rows()
            .into_iter()
            .map(|(check, result, _)| {
                Ok(json!({"check": serde_json::to_value(check)?, "result": serde_json::to_value(result)?}))
            })
            .collect::<Result<_, serde_json::Error>>()?;
        let least = if is_quiet { Severity::Warning } else { Severity::Ok };
        let findings: Vec<&Group> = self.groups.iter().filter(|group| group.severity >= least).collect();
        Ok(json!({"checks": checks, "findings": serde_json::to_value(findings)?}))
    }
}

/// What the table says of a finding: the reasons stand below it.
fn short(group: &Group) -> String {
    let sentence = match group.subjects.as_slice() {
        [] => group.what.clone(),
        [only] => format!("{}: {}", only.name, group.what),
        _ => format!("{}: {}", group.counted(), group.what),
    };
    let end = sentence
        .find(" (")
        .or_else(|| sentence.find("; "))
        .unwrap_or(sentence.len());
    sentence[..end].to_owned()
}

fn shortened(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// `problem: node/a: …`, and what to do below it.
fn paragraph(group: &Group, width: Option<usize>) -> String {
    let mut lines = wrapped(
        &format!("{}: {}", group.severity.as_str(), group.sentence()),
        "  ",
        width,
    );
    if let Some(remedy) = &group.remedy {
        let width = width.filter(|_| !remedy.starts_with("kubectl "));
        let remedy = wrapped(
            &format!("hint: {remedy}"),
            "      ",
            width.map(|width| width.saturating_sub(2)),
        );
        lines.extend(remedy.into_iter().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}

/// Lines no longer than the terminal, where words allow it; all but the first are indented. Commands in backticks stay whole.
fn wrapped(text: &str, indent: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in words(text) {
        let line = lines.last().map(|line| line.chars().count()).unwrap_or_default();
        let is_first = lines.last().is_none_or(|line| line.trim().is_empty());
        if !is_first && line + 1 + word.chars().count() > width {
            lines.push(format!("{indent}{word}"));
        } else if let Some(line) = lines.last_mut() {
            if !is_first {
                line.push(' ');
            }
            line.push_str(&word);
        }
    }
    lines
}

/// The words of a text; what stands in backticks counts as one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_command = false;
    for word in text.split(' ') {
        match words.last_mut().filter(|_| is_command) {
            Some(command) => {
                command.push(' ');
                command.push_str(word);
            }
            None => words.push(word.to_owned()),
        }
        if word.matches('`').count() % 2 == 1 {
            is_command = !is_command;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_not_in_commands() {
        let text = "run `kubectl coral upgrade` and look again, please";
        assert_eq!(
            wrapped(text, "  ", Some(20)),
            ["run", "  `kubectl coral upgrade`", "  and look again,", "  please"]
        );
        assert_eq!(wrapped(text, "  ", None), [text]);
    }

    #[test]
    fn where_everything_is_wrong_in_its_own_way_the_worst_is_shown() {
        let mut findings: Vec<Finding> = (0..100)
            .map(|number| Finding::warning(Check::Nodes, format!("w{number}")))
            .collect();
        findings.push(Finding::problem(Check::Rights, "p"));
        let text = Report::new(findings).text(true, None, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            (lines.len(), lines[0], lines[40]),
            (41, "problem: p", "(61 more; -o json has all of them)")
        );
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("ab def", 4), "ab…");
    }
}
