//! `install`, `upgrade` and `uninstall`, as far as no real cluster is needed.

use serde_json::Value;

use crate::support::{Home, fake_api::FakeApi};

const IMAGE: &str = "registry.example/coral:v1";

#[test]
fn a_development_build_has_no_image_of_its_own() {
    let outcome = Home::empty().run(&["install", "--dry-run=client"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(outcome.stderr, @"");
}

#[test]
fn a_client_dry_run_lists_what_would_be_applied() {
    let outcome = Home::empty().run(&["install", "--image", IMAGE, "--dry-run=client"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[0], "namespace/coral-system created (dry run)");
    assert!(
        lines.contains(&"customresourcedefinition.apiextensions.k8s.io/prefetches.image.stvz.io created (dry run)"),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"daemonset.apps/coral-agent created (dry run)"),
        "{lines:?}"
    );
}

#[test]
fn the_manifests_can_be_kept_in_git() {
    let arguments = ["install", "--image", IMAGE, "-n", "images", "--dry-run=client", "-o"];
    let yaml = Home::empty().run(&[&arguments[..], &["yaml"]].concat());
    assert_eq!(yaml.code, Some(0));
    assert!(
        yaml.stdout.starts_with("apiVersion: v1\nkind: Namespace\n"),
        "{}",
        yaml.stdout
    );
    assert!(
        yaml.stdout.contains("\n---\napiVersion: apps/v1\nkind: DaemonSet\n"),
        "{}",
        yaml.stdout
    );
    assert!(yaml.stdout.contains(&format!("image: {IMAGE}")) && !yaml.stdout.contains("coral-system"));

    let json = Home::empty().run(&[&arguments[..], &["json"]].concat());
    let list: Value = serde_json::from_str(&json.stdout).unwrap();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), yaml.stdout.matches("\n---\n").count() + 1);
    assert!(items.iter().all(|item| {
        let namespace = &item["metadata"]["namespace"];
        namespace.is_null() || namespace == "images"
    }));
}

#[test]
fn what_is_no_setting_is_refused_with_the_rule() {
    for (arguments, sentence) in [
        (["--image", "Coral"], "must be lower case"),
        (["--set-toleration", "a:Never"], "an effect is NoSchedule"),
        (["--set-runtime-endpoint", "/run/x.sock"], "write unix://"),
        (["--set-agent-memory", "64MB"], "such as 64Mi"),
        (["--set-node-selector", "pool"], "KEY=VALUE"),
        (["--component", "nothing"], "optional parts"),
    ] {
        let outcome = Home::empty().run(&["install", arguments[0], arguments[1]]);
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        assert!(outcome.stderr.contains(sentence), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn without_an_installation_there_is_nothing_to_upgrade() {
    let api = FakeApi::start();
    api.refuse(
        "GET /apis/rbac",
        usize::MAX,
        404,
        &crate::support::objects::failure(404, "NotFound", "clusterrolebindings \"coral-agent\" not found"),
    );
    let outcome = Home::with_server(&api.url).run(&["upgrade", "--image", IMAGE]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(outcome.stderr, @"");
}

#[test]
fn help_of_the_three_has_examples() {
    let help = |verb: &str| {
        let text = Home::empty().run(&[verb, "--help"]).stdout;
        let own = text.split("Cluster options:").next().unwrap().to_owned();
        format!("{own}{}", &text[text.find("Examples:").unwrap()..])
    };
    insta::assert_snapshot!(help("install"), @"");
    insta::assert_snapshot!(help("uninstall"), @"");
    assert!(help("upgrade").contains("kubectl coral upgrade"));
}
