//! What is wrong with an installation, seen from outside.
//!
//! ```text
//!   API server ──gather──► Facts ──diagnose──► findings ──group──► report
//! ```
//!
//! [`gather`] asks, bounded and tolerant: what may not be read is a fact, too. [`diagnose`] is pure and decides what the facts mean; each
//! of its checks is a module.

mod access;
mod agents;
pub(crate) mod certificate;
mod controller;
pub(crate) mod facts;
pub(crate) mod gather;
mod group;
mod kubelets;
mod mirrors;
mod nodes;
mod prefetches;
pub(crate) mod report;
#[cfg(test)]
mod tests;
mod types;
mod versions;
mod webhook;

use serde::Serialize;

use self::facts::{Facts, Unread};

pub(crate) use self::group::{Group, group};

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing, and what could not be looked at.
    Note,
    /// Coral works, but not as somebody probably wants it.
    Warning,
    /// Something that Coral is for does not work.
    Problem,
}

/// What was looked at. The order is that of the report: what others depend on comes first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    Installation,
    Versions,
    ResourceTypes,
    Controller,
    Agents,
    Runtimes,
    Webhook,
    Certificates,
    Kubelets,
    Nodes,
    Prefetches,
    Mirrors,
    Rights,
}

/// An object that a finding is about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Subject {
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// One thing that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) severity: Severity,
    pub(crate) subject: Option<Subject>,
    pub(crate) what: String,
    pub(crate) remedy: Option<String>,
}

impl Severity {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Check {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Versions => "versions",
            Self::ResourceTypes => "resource types",
            Self::Controller => "controller",
            Self::Agents => "agents",
            Self::Runtimes => "runtimes",
            Self::Webhook => "webhook",
            Self::Certificates => "certificates",
            Self::Kubelets => "kubelets",
            Self::Nodes => "nodes",
            Self::Prefetches => "prefetches",
            Self::Mirrors => "mirrors",
            Self::Rights => "rights",
        }
    }
}

impl Subject {
    fn node(name: &str) -> Self {
        Self::cluster_wide("node", name)
    }

    fn cluster_wide(kind: &'static str, name: &str) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.to_owned(),
        }
    }

    fn namespaced(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }
}

impl Finding {
    fn new(check: Check, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            check,
            severity,
            subject: None,
            what: what.into(),
            remedy: None,
        }
    }

    fn ok(check: Check, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, what)
    }

    fn note(check: Check, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Note, what)
    }

    fn warning(check: Check, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, what)
    }

    fn problem(check: Check, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Problem, what)
    }

    /// What is not known. Who may not look is told so; an answer that is none is worth more attention.
    fn unread(check: Check, things: &str, unread: &Unread) -> Self {
        let severity = if unread.is_forbidden {
            Severity::Note
        } else {
            Severity::Warning
        };
        Self::new(
            check,
            severity,
            format!("could not look at {things}: {}", unread.reason),
        )
    }

    fn about(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Decides what the facts mean. Where Coral is not installed, that is all there is to say.
pub(crate) fn diagnose(facts: &Facts) -> Vec<Finding> {
    if let Some(finding) = types::not_installed(facts) {
        return vec![finding];
    }
    let mut findings = Vec::new();
    findings.extend(versions::check(facts));
    findings.extend(types::check(facts));
    findings.extend(controller::check(facts));
    findings.extend(agents::check(facts));
    findings.extend(agents::check_runtimes(facts));
    findings.extend(webhook::check(facts));
    findings.extend(webhook::check_certificates(facts));
    findings.extend(kubelets::check(facts));
    findings.extend(nodes::check(facts));
    findings.extend(prefetches::check(facts));
    findings.extend(mirrors::check(facts));
    findings.extend(access::check(facts));
    findings
}
