//! No way to a cluster.

use std::{net::TcpListener, time::Instant};

use crate::support::Home;

#[test]
fn no_kubeconfig_is_one_sentence_and_a_hint() {
    let home = Home::empty();
    let outcome = home.run(&["status"]);
    assert_eq!(outcome.code, Some(1));
    let stderr = outcome.stderr.replace(&home.path().display().to_string(), "~");
    insta::assert_snapshot!(stderr, @r"
    error: failed to find a kubeconfig: ~/.kube/config does not exist
    hint: set KUBECONFIG or pass --kubeconfig with the file that kubectl uses for your cluster
    ");
}

#[test]
fn a_named_kubeconfig_must_be_there_and_be_one() {
    let home = Home::empty();
    let outcome = home.run(&["status", "--kubeconfig", "/nowhere/config"]);
    assert_eq!(outcome.code, Some(1));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: failed to read the kubeconfig /nowhere/config: No such file or directory (os error 2)
    hint: `kubectl config view` shows what kubectl reads
    ");

    home.write_kubeconfig("{ this is not: [ yaml");
    let outcome = home.run(&["status"]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("it is not YAML of a kubeconfig"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);

    home.write_kubeconfig("");
    insta::assert_snapshot!(home.run(&["status"]).stderr, @r"
    error: failed to choose a cluster: the kubeconfig has no current context
    hint: the kubeconfig has no context at all: is KUBECONFIG set to the right file?
    ");
}

#[test]
fn an_unknown_context_lists_those_that_are_there() {
    let home = Home::with_server("https://127.0.0.1:1");
    let outcome = home.run(&["status", "--context", "prd"]);
    assert_eq!(outcome.code, Some(1));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: failed to choose a cluster: the kubeconfig has no context "prd"
    hint: its contexts are dev, prod
    "#);
}

#[test]
fn of_several_kubeconfigs_those_that_are_there_count() {
    let home = Home::with_server("https://127.0.0.1:1");
    let files = format!("/nowhere/config:{}", home.path().join(".kube/config").display());
    let output = home
        .coral(&["status", "--context", "prd"])
        .env("KUBECONFIG", files)
        .output()
        .unwrap();
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("its contexts are dev, prod")
    );
}

#[test]
fn a_server_that_is_not_there_fails_at_once() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let home = Home::with_server(&format!("https://127.0.0.1:{port}"));
    let began = Instant::now();
    for arguments in [&["status"][..], &["prefetch", "nginx:1.29", "--wait"]] {
        let outcome = home.run(arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
        insta::allow_duplicates! {
            insta::assert_snapshot!(outcome.stderr.replace(&port.to_string(), "PORT"), @r"
            error: failed to reach the Kubernetes API server at https://127.0.0.1:PORT: connection refused
            hint: is the cluster running, and is the server of this context right? `kubectl cluster-info`
            ");
        }
    }
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

#[test]
fn a_server_that_does_not_answer_fails_after_the_request_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let outcome = Home::with_server(&server).run(&["status", "--request-timeout", "500ms"]);
    assert_eq!(outcome.code, Some(1));
    insta::assert_snapshot!(outcome.stderr.replace(&server, "http://SERVER"), @r"
    error: failed to get an answer from the Kubernetes API server at http://SERVER within 500ms
    hint: --request-timeout gives it longer; `kubectl get --raw /readyz` asks it how it is
    ");
}

#[test]
fn a_host_that_does_not_exist_is_named() {
    let outcome = Home::with_server("https://no-such-host.invalid:6443").run(&["status"]);
    assert_eq!(outcome.code, Some(1));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: failed to reach the Kubernetes API server at https://no-such-host.invalid:6443: no such host
    hint: check the server of this context: `kubectl config view --minify`
    ");
}
