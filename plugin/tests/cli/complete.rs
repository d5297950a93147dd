//! Completion as kubectl asks for it.

use std::{
    net::TcpListener,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use assert_cmd::Command;
use serde_json::json;

use crate::support::{Home, fake_api::FakeApi};

fn shop() -> (FakeApi, Home) {
    let api = FakeApi::start();
    let images = |images: &[&str]| json!({"spec": {"images": images}});
    api.put_prefetch("web", images(&["nginx:1.29", "docker.io/library/redis:8"]));
    api.put_prefetch("worker", images(&["nginx:1.29"]));
    api.put_at("namespaces/other/prefetches/wide", images(&["nothing"]));
    for node in ["node-1", "node-2", "edge-1"] {
        api.put_at(&format!("api/v1/nodes/{node}"), json!({}));
    }
    for namespace in ["shop", "shipping"] {
        api.put_at(&format!("api/v1/namespaces/{namespace}"), json!({}));
    }
    let spec = json!({"containers": [{"name": "a", "image": "ghcr.io/acme/model:v7"}]});
    api.put_at("api/v1/namespaces/shop/pods/web-1", json!({"spec": spec}));
    api.put_at("apis/apps/v1/namespaces/shop/deployments/web", json!({}));
    api.put_at(
        "api/v1/namespaces/shop/secrets/regcred",
        json!({"data": {"a": "hidden"}}),
    );
    let home = Home::with_server(&api.url);
    (api, home)
}

/// What is offered for these words, one line a value and the directive at the end.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let outcome = home.run(&[&["__complete"], words].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{words:?}");
    outcome.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn names_come_from_the_cluster() {
    let (_api, home) = shop();
    let cases: &[(&[&str], &[&str])] = &[
        (&["status", ""], &["web", "worker", ":4"]),
        (&["status", "web", ""], &["worker", ":4"]),
        (&["delete", "prefetch/wo"], &["prefetch/worker", ":4"]),
        (&["refresh", "nothing"], &[":4"]),
        (&["status", "--node", "n"], &["node-1", "node-2", ":4"]),
        (&["status", "--node=node-1,n"], &["node-1,node-2", ":4"]),
        (&["status", "-n", "sh"], &["shipping", "shop", ":4"]),
        (&["explain", "pod/"], &["pod/web-1", ":4"]),
        (&["inject", "deploy/w"], &["deploy/web", ":4"]),
        (
            &["prefetch", "--from", "deployments.apps/"],
            &["deployments.apps/web", ":4"],
        ),
        (&["inject", "nothing/"], &[":4"]),
        (&["prefetch", "ng"], &["nginx:1.29", ":4"]),
        (&["prefetch", "gh"], &["ghcr.io/acme/model:v7", ":4"]),
        (&["prefetch", "docker.io/lib"], &["docker.io/library/redis:8", ":4"]),
        (&["status", "--image", "gh"], &[":4"]),
        (&["status", "-A", "--image", "not"], &["nothing", ":4"]),
        (&["allow-secret", "reg"], &["regcred", ":4"]),
        (&["prefetch", "nginx", "--pull-secret", ""], &["regcred", ":4"]),
        (&["status", "--context", ""], &["dev", "prod", ":4"]),
        (&["status", "--user", ""], &["me", ":4"]),
        // That context has no namespace, which is `default`.
        (&["status", "--context", "prod", ""], &[":4"]),
        (&["status", "--context", "prod", "-n", "shop", "wo"], &["worker", ":4"]),
    ];
    for (words, expected) in cases {
        assert_eq!(offered(&home, words), *expected, "{words:?}");
    }
}

#[test]
fn nothing_but_names_is_asked_for() {
    let (api, home) = shop();
    offered(&home, &["allow-secret", ""]);
    let requests = api.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(
        requests[0].contains("fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson"),
        "{requests:?}"
    );
}

#[test]
fn errors_are_nobody_s_business() {
    let (api, home) = shop();
    let forbidden = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"});
    api.refuse("GET /apis/image.stvz.io", 9, 403, &forbidden);
    assert_eq!(offered(&home, &["status", ""]), [":4"]);
    // What can be had is offered all the same.
    assert_eq!(offered(&home, &["status", "--node", "e"]), ["edge-1", ":4"]);
    assert_eq!(offered(&Home::empty(), &["status", ""]), [":4"]);
    let broken = Home::empty();
    broken.write_kubeconfig("not a kubeconfig");
    assert_eq!(offered(&broken, &["status", ""]), [":4"]);
    assert_eq!(offered(&broken, &["status", "--context", ""]), [":4"]);
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::with_server(&format!("http://{}", listener.local_addr().unwrap()));
    let began = Instant::now();
    assert_eq!(offered(&home, &["status", ""]), [":4"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_large_cluster_offers_some_hundreds() {
    let api = FakeApi::start();
    for number in 0..1200 {
        api.put_at(&format!("api/v1/nodes/node-{number:04}"), json!({}));
    }
    let home = Home::with_server(&api.url);
    assert_eq!(offered(&home, &["images", "--node", "node-"]).len(), 301);
    // It is on the last page.
    assert_eq!(offered(&home, &["images", "--node", "node-119"]).len(), 11);
}

#[test]
fn the_name_of_the_file_says_what_is_asked_for() {
    let home = Home::empty();
    let link = home.path().join("kubectl_complete-coral");
    symlink(assert_cmd::cargo::cargo_bin!("kubectl-coral"), &link).unwrap();
    let output = Command::new(link).env_clear().args(["compl"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "completion\tPrint a script that completes this command in a shell\n:4\n"
    );
}

#[test]
fn the_script_for_kubectl_asks_the_program_of_the_path() {
    let outcome = Home::empty().run(&["completion"]);
    insta::assert_snapshot!(outcome.stdout, @r#"
    #!/bin/sh
    # Completion of `kubectl coral`. This is the file kubectl_complete-coral of a folder of your PATH, and it is executable.
    exec kubectl-coral __complete "$@"
    "#);
    assert_eq!(Home::empty().run(&["completion", "kubectl"]).stdout, outcome.stdout);
}
