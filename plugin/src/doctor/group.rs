//! Findings that are alike, put together: thousands of nodes with the same trouble are one line.

use serde::Serialize;

use super::{Check, Finding, Severity, Subject};
use crate::human;

/// Subjects that are named before the rest is counted.
const NAMED: usize = 3;

/// Findings that differ in their subject only.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Group {
    pub(crate) check: Check,
    pub(crate) severity: Severity,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// Puts findings together that differ in their subject only; the remedy is that of the first. The worst comes first, and within that the
/// order of the checks.
pub(crate) fn group(findings: Vec<Finding>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for finding in findings {
        let kind = finding.subject.as_ref().map(|subject| subject.kind);
        let alike = groups.iter_mut().find(|group| {
            let same_kind = group.subjects.first().map(|subject| subject.kind) == kind;
            same_kind
                && (group.check, group.severity) == (finding.check, finding.severity)
                && group.what == finding.what
        });
        match alike {
            Some(group) => group.subjects.extend(finding.subject),
            None => groups.push(Group {
                check: finding.check,
                severity: finding.severity,
                subjects: finding.subject.into_iter().collect(),
                what: finding.what,
                remedy: finding.remedy,
            }),
        }
    }
    for group in &mut groups {
        group.subjects.sort();
        group.subjects.dedup();
    }
    groups.sort_by_key(|group| (std::cmp::Reverse(group.severity), group.check));
    groups
}

impl Group {
    /// What it is about and what it is: `node/a: …`, or `37 nodes (a, b, c and 34 more): …`.
    pub(crate) fn sentence(&self) -> String {
        match self.subjects.as_slice() {
            [] => self.what.clone(),
            [only] => format!("{}/{}: {}", only.kind, only.full_name(), self.what),
            _ => {
                let names: Vec<String> = self.subjects.iter().map(Subject::full_name).collect();
                format!("{} ({}): {}", self.counted(), human::some_of(&names, NAMED), self.what)
            }
        }
    }

    /// `37 nodes`
    pub(crate) fn counted(&self) -> String {
        let kind = self.subjects.first().map_or("object", |subject| subject.kind);
        let plural = match self.subjects.len() {
            1 => "",
            _ if kind.ends_with("ch") => "es",
            _ => "s",
        };
        format!("{} {kind}{plural}", human::count(self.subjects.len()))
    }
}

impl Subject {
    fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, what: &str) -> Finding {
        Finding::warning(Check::Nodes, what)
            .about(Subject::node(name))
            .remedy(format!("kubectl describe node {name}"))
    }

    fn sentences(findings: Vec<Finding>) -> Vec<String> {
        group(findings).iter().map(Group::sentence).collect()
    }

    #[test]
    fn nodes_with_the_same_trouble_are_one_finding() {
        let many = (0..5_000)
            .rev()
            .map(|number| found(&format!("node-{number:04}"), "DiskPressure"));
        let groups = group(many.collect());
        assert_eq!(groups.len(), 1);
        assert_eq!(
            groups[0].sentence(),
            "5,000 nodes (node-0000, node-0001, node-0002 and 4,997 more): DiskPressure"
        );
        assert_eq!(sentences(vec![found("b", "x"), found("a", "x")]), ["2 nodes (a, b): x"]);
        assert_eq!(
            sentences(vec![found("a", "x"), found("b", "y")]),
            ["node/a: x", "node/b: y"]
        );
    }

    #[test]
    fn the_worst_comes_first_and_then_the_order_of_the_checks() {
        let findings = vec![
            Finding::note(Check::Versions, "n"),
            Finding::warning(Check::Nodes, "w2"),
            Finding::problem(Check::Rights, "p"),
            Finding::warning(Check::Agents, "w1"),
        ];
        assert_eq!(sentences(findings), ["p", "w1", "w2", "n"]);
    }

    #[test]
    fn things_of_another_kind_or_namespace_stay_apart() {
        let prefetch = |namespace: &str| {
            Finding::warning(Check::Prefetches, "x").about(Subject::namespaced("prefetch", namespace, "web"))
        };
        assert_eq!(
            sentences(vec![
                prefetch("shop"),
                prefetch("bank"),
                Finding::warning(Check::Prefetches, "x")
            ]),
            ["2 prefetches (bank/web, shop/web): x", "x"]
        );
    }
}
