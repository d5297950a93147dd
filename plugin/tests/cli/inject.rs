//! `inject` and `uninject`.

use serde_json::{Value, json};

use crate::support::{Home, fake_api::FakeApi};

const WEB: &str = "apis/apps/v1/namespaces/shop/deployments/web";
const LABEL: &str = "image.stvz.io/";

/// A server with the deployment `web` of `nginx:1.29`, which a Prefetch covers.
fn web() -> (FakeApi, Home) {
    let api = FakeApi::start();
    api.put_prefetch("web", json!({"spec": {"images": ["nginx:1.29"]}}));
    let containers = json!([{"name": "a", "image": "nginx:1.29", "imagePullPolicy": "Always"}]);
    let spec = json!({"template": {"spec": {"containers": containers, "nodeSelector": {"zone": "a"}}}});
    api.put_at(
        WEB,
        json!({"metadata": {"namespace": "shop", "labels": {"team": "shop"}}, "spec": spec}),
    );
    let home = Home::with_server(&api.url);
    (api, home)
}

fn has_selector(object: &Value) -> bool {
    let selector = object["spec"]["template"]["spec"]["nodeSelector"].as_object();
    selector.is_some_and(|selector| selector.keys().any(|key| key.starts_with(LABEL)))
}

#[test]
fn what_is_injected_can_be_taken_back_exactly() {
    let (api, home) = web();
    let before = api.at(WEB).unwrap();
    let outcome = home.run(&["inject", "deploy/web", "--selectors", "--pull-policy"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "deployment.apps/web injected\n")
    );
    assert_eq!(
        outcome.stderr,
        "deployment.apps/web: its pods are replaced, as its update strategy says\n"
    );
    let injected = api.at(WEB).unwrap();
    assert!(has_selector(&injected), "{injected}");
    assert_eq!(
        injected["metadata"]["annotations"]["image.stvz.io/inject"],
        "selectors,pull-policy"
    );
    assert_eq!(
        injected["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"],
        "Never"
    );
    let again = home.run(&["inject", "deploy/web", "--selectors", "--pull-policy=Never"]);
    assert_eq!(
        (again.stdout.as_str(), again.stderr.as_str()),
        ("deployment.apps/web unchanged\n", "")
    );

    let back = home.run(&["uninject", "--all"]);
    assert_eq!(back.stdout, "deployment.apps/web uninjected\n");
    assert_eq!(api.at(WEB).unwrap()["spec"], before["spec"]);
    assert_eq!(
        home.run(&["uninject", "-l", "team=shop"]).stdout,
        "deployment.apps/web unchanged\n"
    );
}

#[test]
fn a_dry_run_shows_the_patch_and_changes_nothing() {
    let (api, home) = web();
    let before = api.at(WEB).unwrap();
    let arguments = [
        "inject",
        "deploy/web",
        "--selectors",
        "--placement=preferred",
        "--dry-run=client",
    ];
    let outcome = home.run(&arguments);
    assert_eq!(outcome.stdout, "deployment.apps/web injected (dry run)\n");
    assert!(
        outcome.stderr.contains("its pods would be replaced"),
        "{}",
        outcome.stderr
    );
    let patch = home.run(&[&arguments[..], &["-o", "patch"]].concat()).stdout;
    let patch: Vec<Value> = serde_json::from_str(&patch).unwrap();
    assert!(
        patch
            .iter()
            .any(|operation| operation["path"] == "/spec/template/spec/affinity"),
        "{patch:?}"
    );
    let object: Value = serde_json::from_str(&home.run(&[&arguments[..], &["-o", "json"]].concat()).stdout).unwrap();
    assert!(!has_selector(&object) && object["spec"]["template"]["spec"]["affinity"].is_object());
    home.run(&["inject", "deploy/web", "--selectors", "--dry-run=server"]);
    assert_eq!(api.at(WEB).unwrap(), before);
}

#[test]
fn images_that_nobody_prefetches_are_told() {
    let (api, home) = web();
    api.put_prefetch("web", json!({"spec": {"images": ["redis:8"]}}));
    let outcome = home.run(&["inject", "deploy/web", "--selectors", "--dry-run=client"]);
    assert!(
        outcome.stderr.contains("warning: deployment.apps/web: "),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("nginx:1.29"), "{}", outcome.stderr);
}

#[test]
fn manifests_are_printed_with_the_changes() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: nginx:1.29}]}\n";
    let home = Home::empty();
    let output = home
        .coral(&["inject", "--selectors", "-f", "-"])
        .write_stdin(text)
        .output()
        .unwrap();
    let injected = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(injected.starts_with("apiVersion: v1\nkind: Service\n"), "{injected}");
    assert!(
        injected.contains("\n---\n") && injected.contains("nodeSelector:\n    image.stvz.io/"),
        "{injected}"
    );
    let output = home
        .coral(&["uninject", "-f", "-"])
        .write_stdin(injected)
        .output()
        .unwrap();
    let back = String::from_utf8(output.stdout).unwrap();
    assert!(!back.contains("image.stvz.io"), "{back}");
}

#[test]
fn what_cannot_be_injected_is_refused() {
    let (api, home) = web();
    api.put_at(
        "api/v1/namespaces/shop/pods/p",
        json!({"metadata": {"namespace": "shop"}, "spec": {"containers": [{"name": "a", "image": "nginx:1.29"}]}}),
    );
    for (arguments, code, sentence) in [
        (&["inject", "deploy/web"][..], 2, "--selectors"),
        (&["inject", "--selectors"], 2, "<TYPE/NAME>"),
        (&["inject", "svc/web", "--selectors"], 2, "\"svc\" has no pods"),
        (
            &["inject", "pod/p", "--selectors"],
            1,
            "the pods of pod/p cannot be changed any more",
        ),
        (&["inject", "deploy/wbe", "--selectors"], 1, "not found"),
    ] {
        let outcome = home.run(arguments);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(code), ""),
            "{arguments:?}"
        );
        assert!(outcome.stderr.contains(sentence), "{arguments:?}: {}", outcome.stderr);
    }
}
