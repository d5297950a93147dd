//! The workflows of the place where the sources lie: read here, because nothing here runs them.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::workspace;

/// The workflows, by the names of their files.
fn workflows() -> BTreeMap<String, String> {
    let folder = fs::read_dir(workspace().join(".github/workflows")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn parsed(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// A tag can be moved by whoever owns the action, a commit cannot.
#[test]
fn actions_are_pinned_by_commit_and_say_their_version() {
    for (file, text) in workflows() {
        let mut actions = 0;
        for line in text
            .lines()
            .filter(|line| line.trim_start_matches([' ', '-']).starts_with("uses:"))
        {
            actions += 1;
            let (_, action) = line.split_once("uses:").unwrap();
            let (action, version) = action
                .split_once('#')
                .unwrap_or_else(|| panic!("{file}: {line}: no version"));
            let (_, commit) = action
                .trim()
                .split_once('@')
                .unwrap_or_else(|| panic!("{file}: {line}: no commit"));
            let is_commit = commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit());
            assert!(is_commit, "{file}: {line}");
            assert!(version.trim().starts_with('v'), "{file}: {line}");
        }
        assert!(actions > 0, "{file} has no action");
    }
}

/// What a workflow may do is said job by job; what none of them says is nothing.
#[test]
fn workflows_may_do_nothing_that_a_job_does_not_ask_for() {
    for (file, text) in workflows() {
        let workflow = parsed(&text);
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{file}");
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            assert!(job["permissions"].is_object(), "{file}: {name} says no permissions");
            assert!(job["timeout-minutes"].is_u64(), "{file}: {name} may run for ever");
            for need in job["needs"].as_array().into_iter().flatten() {
                assert!(
                    !workflow["jobs"][need.as_str().unwrap()].is_null(),
                    "{file}: {name} needs {need}"
                );
            }
            // What is typed into a script is code there: it comes in by the environment.
            for step in job["steps"].as_array().unwrap() {
                let script = step["run"].as_str().unwrap_or_default();
                assert!(!script.contains("${{"), "{file}: {name}: {script}");
            }
        }
    }
}

#[test]
fn people_and_the_workflow_run_the_same_tests() {
    let command = fs::read_to_string(workspace().join(".ci/run")).unwrap();
    let command = command.lines().find_map(|line| line.strip_prefix("exec ")).unwrap();
    let workflow = parsed(&workflows()["ci.yaml"]);
    let jobs = workflow["jobs"].as_object().unwrap();
    let steps = jobs.values().flat_map(|job| job["steps"].as_array().unwrap());
    let mut scripts = steps.filter_map(|step| step["run"].as_str());
    assert!(
        scripts.any(|script| script.trim().ends_with(command)),
        "ci.yaml does not run {command}"
    );
}

#[test]
fn a_release_has_every_platform() {
    let workflow = parsed(&workflows()["release.yaml"]);
    let machines = workflow["jobs"]["plugin"]["strategy"]["matrix"]["include"]
        .as_array()
        .unwrap();
    let mut targets: Vec<&str> = machines
        .iter()
        .map(|machine| machine["target"].as_str().unwrap())
        .collect();
    targets.sort_unstable();
    assert_eq!(
        targets,
        [
            "aarch64-apple-darwin",
            "aarch64-unknown-linux-musl",
            "x86_64-apple-darwin",
            "x86_64-pc-windows-msvc",
            "x86_64-unknown-linux-musl",
        ]
    );
}
