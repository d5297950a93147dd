use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::patched;
use crate::mutate::{Coverage, Operation, Options, mutate};

/// One admission, and what is to come of it. What is not given is to be empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    object: Value,
    /// What is stored already, for an update.
    #[serde(default)]
    stored: Option<Value>,
    /// The images of a Prefetch; those after a `+` are renewed. Without it nothing is known about them.
    #[serde(default)]
    covered: Option<Vec<String>>,
    #[serde(default)]
    patch: Vec<Value>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[test]
fn admissions_come_out_as_the_cases_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mutate/cases");
    let mut number = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let cases: Vec<Case> = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for case in cases {
            check(&path, &case);
            number += 1;
        }
    }
    assert!(number > 40, "only {number} cases were found");
}

fn check(path: &Path, case: &Case) {
    let name = format!("{}: {}", path.file_name().unwrap().display(), case.name);
    let coverage = case.covered.as_ref().map(|images| {
        let mut coverage = Coverage::default();
        for image in images {
            let name = image.strip_prefix('+').unwrap_or(image);
            coverage.insert(name.parse().unwrap(), name != image);
        }
        coverage
    });
    let options = Options {
        operation: case.stored.as_ref().map_or(Operation::Create, Operation::Update),
        coverage: coverage.as_ref(),
    };
    match (mutate(&case.object, &options), &case.refusal) {
        (Err(refusal), expected) => assert_eq!(Some(&refusal.to_string()), expected.as_ref(), "{name}"),
        (Ok(_), Some(refusal)) => panic!("{name}: admitted, and should be refused with: {refusal}"),
        (Ok(outcome), None) => {
            let operations = serde_json::to_value(&outcome.patch).unwrap();
            assert_eq!(operations, Value::Array(case.patch.clone()), "{name}: {operations:#}");
            assert_eq!(outcome.warnings, case.warnings, "{name}");
            assert!(
                outcome.warnings.iter().all(|warning| warning.len() <= 256),
                "{name}: a warning is too long"
            );
            let after = patched(&case.object, &outcome.patch);
            let again = mutate(&after, &options).unwrap();
            assert_eq!(again.patch, [], "{name}: a second call changes something");
        }
    }
}
