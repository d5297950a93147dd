//! What was measured: a table for people and JSON for programs.

use std::{env, fmt, fs, path::PathBuf, time::Duration};

use anyhow::Result;
use coral_tests::checker::{Footprint, Lie};
use serde_json::json;

use crate::table::{AGENTS_KILLED, Row};

/// Where the JSON goes.
const REPORT_VARIABLE: &str = "CORAL_FAULTS_REPORT";

/// What one fault did.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// What the names of its images begin with.
    pub(crate) prefix: String,
    /// From the beginning of the fault to its end.
    pub(crate) lasted: Duration,
    /// From its end until everything was right.
    pub(crate) right_after: Duration,
    /// The most pulls of one image, over all its nodes.
    pub(crate) pulls: usize,
    /// What else is worth to be said.
    pub(crate) note: String,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lasted, right) = (self.lasted.as_secs_f64(), self.right_after.as_secs_f64());
        write!(
            f,
            "lasted {lasted:.1} s, right after {right:.1} s, {} pulls",
            self.pulls
        )?;
        if self.note.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.note)
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, Duration, Option<Measured>)>,
    pub(crate) lies: Vec<Lie>,
    pub(crate) looks: usize,
    pub(crate) footprints: Vec<Footprint>,
    pub(crate) unfinished_downloads: Vec<(String, usize)>,
    /// What was not as it should be.
    pub(crate) complaints: Vec<String>,
}

impl Report {
    pub(crate) fn played(&mut self, row: &Row, played: Result<Measured>) {
        match played {
            Ok(measured) => {
                println!("{}: {measured}", row.name);
                self.rows.push((row.name, row.allowed, Some(measured)));
            }
            Err(error) => {
                println!("{}: FAILED", row.name);
                self.rows.push((row.name, row.allowed, None));
                self.complaints.push(format!("{}: {error:#}", row.name));
            }
        }
    }

    /// How long the agents were away while this lie was told, where it is of an image of a row that killed them.
    pub(crate) fn without_agents(&self, lie: &Lie) -> Option<Duration> {
        let measured = self.rows.iter().filter(|(name, ..)| *name == AGENTS_KILLED);
        let mut measured = measured.filter_map(|(.., measured)| measured.as_ref());
        let own = measured.find(|it| lie.image.contains(&format!("/{}-", it.prefix)));
        own.map(|it| it.lasted)
    }

    pub(crate) fn complain(&mut self, error: Option<anyhow::Error>) {
        self.complaints.extend(error.map(|error| format!("{error:#}")));
    }

    pub(crate) fn tell(&self) {
        println!(
            "\n{:<40} {:>9} {:>12} {:>9} {:>6}",
            "FAULT", "LASTED", "RIGHT AFTER", "ALLOWED", "PULLS"
        );
        for (name, allowed, measured) in &self.rows {
            let allowed = allowed.as_secs();
            match measured {
                Some(Measured {
                    lasted,
                    right_after,
                    pulls,
                    note,
                    ..
                }) => println!(
                    "{name:<40} {:>7.1} s {:>10.1} s {allowed:>7} s {pulls:>6}  {note}",
                    lasted.as_secs_f64(),
                    right_after.as_secs_f64()
                ),
                None => println!("{name:<40} {:>9} {:>12} {allowed:>7} s", "", "FAILED"),
            }
        }
        println!(
            "\nlooks at the labels: {}; labels that claimed what was gone, the longest:",
            self.looks
        );
        for lie in self.lies.iter().take(8) {
            println!(
                "  {:>5.1} s at least, on {}: {} ({})",
                lie.lasted.as_secs_f64(),
                lie.node,
                lie.image,
                lie.during
            );
        }
        println!("\nin the end:");
        for footprint in &self.footprints {
            println!("  {footprint}");
        }
        for (node, unfinished) in &self.unfinished_downloads {
            println!("  unfinished downloads of containerd on {node}: {unfinished}");
        }
        for complaint in &self.complaints {
            println!("\nFAILED  {complaint}");
        }
        let path = self.write();
        println!("\nthe same as JSON: {}", path.display());
    }

    fn write(&self) -> PathBuf {
        let path = env::var_os(REPORT_VARIABLE).map_or_else(
            || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults.json"),
            PathBuf::from,
        );
        let rows = self.rows.iter().map(|(name, allowed, measured)| {
            json!({
                "fault": name,
                "allowedSeconds": allowed.as_secs(),
                "lastedSeconds": measured.as_ref().map(|it| it.lasted.as_secs_f64()),
                "rightAfterSeconds": measured.as_ref().map(|it| it.right_after.as_secs_f64()),
                "pulls": measured.as_ref().map(|it| it.pulls),
                "note": measured.as_ref().map(|it| it.note.as_str()),
            })
        });
        let lies = self.lies.iter().map(|lie| {
            json!({"node": lie.node, "image": lie.image, "during": lie.during, "seconds": lie.lasted.as_secs_f64()})
        });
        let report = json!({
            "faults": rows.collect::<Vec<_>>(),
            "labelsOfWhatWasGone": lies.collect::<Vec<_>>(),
            "looks": self.looks,
            "processes": self.footprints,
            "complaints": self.complaints,
        });
        fs::write(&path, format!("{report:#}\n")).unwrap();
        path
    }
}
