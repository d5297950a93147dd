//! What a measurement was made on.

use std::{fs, process::Command};

use serde_json::{Value, json};

/// The machine and the versions of what matters.
pub(super) fn facts(runtime: &str) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    json!({
        "processor": after(&read("/proc/cpuinfo"), "model name"),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").trim(),
        "runtime": runtime,
        "commit": commit.unwrap_or_default(),
    })
}

/// The same for people.
pub(super) fn line(facts: &Value) -> String {
    let text = |key: &str| match &facts[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(
        "{} × {}, {} memory, Linux {}, {}, commit {}; load when it began: {}",
        text("processors"),
        text("processor"),
        text("memory"),
        text("kernel"),
        text("runtime"),
        text("commit"),
        text("load"),
    )
}
