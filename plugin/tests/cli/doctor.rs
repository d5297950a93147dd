//! `doctor`: what it says where there is next to nothing to look at.

use serde_json::json;

use crate::support::{Home, fake_api::FakeApi};

#[test]
fn a_cluster_without_coral_is_told_how_to_get_it() {
    let api = FakeApi::start();
    let status =
        json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found", "details": {"name": "x"}});
    api.refuse("GET /apis/apiextensions.k8s.io", 100, 404, &status);
    api.refuse_with_text("GET /apis/image.stvz.io", 100, 404, "404 page not found");
    let home = Home::with_server(&api.url);
    let outcome = home.run(&["doctor"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    insta::assert_snapshot!(outcome.stdout, @r"
    CHECK          RESULT    DETAILS
    installation   problem   Coral is not installed in this cluster

    problem: Coral is not installed in this cluster
      hint: kubectl coral install

    1 problem
    ");
    let quiet = home.run(&["doctor", "--quiet"]);
    assert_eq!(
        quiet.stdout,
        "problem: Coral is not installed in this cluster\n  hint: kubectl coral install\n"
    );
    let json = home.run(&["doctor", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (json.code, &value["findings"][0]["severity"]),
        (Some(1), &"problem".into())
    );
    // Only for show, and not even that where there is no webhook.
    assert!(
        !api.requests().iter().any(|request| request.starts_with("POST")),
        "{:?}",
        api.requests()
    );
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_no_finding() {
    let outcome = Home::with_server("http://127.0.0.1:1").run(&["doctor"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains("connection refused"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: "), "{}", outcome.stderr);
}
