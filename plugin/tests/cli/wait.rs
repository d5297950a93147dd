//! `prefetch --wait` against a small API server.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Home, Outcome,
    fake_api::FakeApi,
    objects::{condition, failure, node, not_found, present, status},
};
use serde_json::{Value, json};

const PREFETCHES: &str = "/apis/image.stvz.io/v1alpha1/namespaces/shop/prefetches";

/// Runs `prefetch nginx:1.29 --name web --wait` while the cluster does something.
fn wait(more: &[&str], meanwhile: impl FnOnce(&FakeApi) + Send + 'static) -> Outcome {
    let api = FakeApi::start();
    let home = Home::with_server(&api.url);
    let mut arguments = vec!["prefetch", "nginx:1.29", "--name", "web", "--wait"];
    arguments.extend(more);
    let cluster = thread::spawn(move || {
        assert_eq!(api.prefetch_name(), "web");
        meanwhile(&api);
    });
    let outcome = home.run(&arguments);
    assert!(cluster.join().is_ok(), "{outcome:?}");
    outcome
}

#[test]
fn a_wait_ends_when_the_prefetch_is_ready() {
    let outcome = wait(&[], |api| {
        let image = "docker.io/library/nginx:1.29";
        api.put_node("node-1", node("web", &[json!({"image": image, "state": "Pulling"})]));
        api.set_status(&status(1, 0, &[condition("Ready", "False", "Pulling")]));
        wait_for_watch(api, "nodeimages");
        thread::sleep(SHOWN);
        api.put_node("node-1", node("web", &[present(image)]));
        thread::sleep(SHOWN);
        api.set_status(&status(1, 1, &[condition("Ready", "True", "AllPresent")]));
    });
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "prefetch.image.stvz.io/web created\n")
    );
    let (lines, last) = outcome.stderr.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(lines, "node-1: 0 of 1 image, pulling nginx:1.29\nnode-1: 1 of 1 image");
    assert!(
        last.starts_with("prefetch shop/web is ready: 1 image on 1 node, "),
        "{last}"
    );
}

#[test]
fn a_wait_prints_the_object_as_it_is_at_the_end() {
    let outcome = wait(&["-o", "json"], |api| {
        api.set_status(&status(1, 1, &[condition("Ready", "True", "AllPresent")]));
    });
    assert_eq!(outcome.code, Some(0));
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(object["status"]["nodes"]["ready"], 1);
}

#[test]
fn a_wait_for_images_that_cannot_come_ends_with_the_reasons() {
    let outcome = wait(&[], |api| {
        api.put_node("node-1", node("web", &[not_found("docker.io/library/nginx:1.29")]));
        api.set_status(&status(1, 0, &[condition("Ready", "False", "Failed")]));
        wait_for_watch(api, "nodeimages");
        thread::sleep(SHOWN);
        api.set_status(&status(
            1,
            0,
            &[
                condition("Ready", "False", "Failed"),
                condition("Stalled", "True", "Failed"),
            ],
        ));
    });
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(3), "prefetch.image.stvz.io/web created\n")
    );
    insta::assert_snapshot!(outcome.stderr, @r"
    node-1: nginx:1.29: NotFound: manifest unknown
    node-1: 0 of 1 image, 1 failed
    error: prefetch shop/web will not become ready without help:
    nginx:1.29 failed on node-1: NotFound
      manifest unknown
      3 attempts, and no more will be made
      hint: check the name and the tag: docker.io has no such image
    ");
}

#[test]
fn a_wait_that_takes_too_long_says_what_is_missing() {
    let outcome = wait(&["--timeout", "3s"], |api| {
        api.put_node(
            "node-1",
            node(
                "web",
                &[json!({"image": "docker.io/library/nginx:1.29", "state": "Waiting"})],
            ),
        );
        api.set_status(&status(1, 0, &[condition("Ready", "False", "Waiting")]));
    });
    assert_eq!(outcome.code, Some(4));
    insta::assert_snapshot!(outcome.stderr, @r"
    node-1: 0 of 1 image
    error: timed out after 3s waiting for prefetch shop/web: nginx:1.29 is missing on node-1
    hint: follow it with `kubectl coral status web -n shop`
    ");
}

#[test]
fn a_wait_without_nodes_is_an_error() {
    let outcome = wait(&["--node-selector", "gpu=true"], |api| {
        api.set_status(&status(0, 0, &[condition("Ready", "False", "NoNodes")]));
    });
    assert_eq!(outcome.code, Some(1));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: prefetch shop/web has no nodes: no node matches gpu=true
    hint: `kubectl get nodes --show-labels` shows the labels; the Prefetch stays, and acts when such a node joins
    ");
}

#[test]
fn a_wait_for_a_deleted_prefetch_is_an_error() {
    let outcome = wait(&[], FakeApi::delete_prefetch);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(
        outcome.stderr,
        "error: prefetch shop/web was deleted while it was waited for\n"
    );
}

#[test]
fn a_wait_survives_errors_of_the_server() {
    let outcome = wait(&["--timeout", "20s"], |api| {
        api.refuse_with_text(&format!("GET {PREFETCHES}"), 3, 500, "etcd is away");
        api.set_status(&status(1, 1, &[condition("Ready", "True", "AllPresent")]));
    });
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn a_wait_survives_a_server_that_is_away_and_says_so_once() {
    let outcome = wait(&["--timeout", "20s"], |api| {
        api.set_status(&status(1, 0, &[condition("Ready", "False", "Pulling")]));
        wait_for_watch(api, "prefetches");
        api.set_away(true);
        thread::sleep(Duration::from_millis(2_500));
        api.set_status(&status(1, 1, &[condition("Ready", "True", "AllPresent")]));
        api.set_away(false);
    });
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(
        outcome.stderr.matches("; trying again").count(),
        1,
        "{}",
        outcome.stderr
    );
}

#[test]
fn who_may_not_watch_is_told_at_once() {
    let api = FakeApi::start();
    let message = "prefetches.image.stvz.io is forbidden: User \"eve\" cannot list resource \"prefetches\"";
    api.refuse(
        &format!("GET {PREFETCHES}?"),
        usize::MAX,
        403,
        &failure(403, "Forbidden", message),
    );
    let outcome = Home::with_server(&api.url).run(&["prefetch", "nginx:1.29", "--name", "web", "--wait"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(1), "prefetch.image.stvz.io/web created\n")
    );
    assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
}

/// Waits until the command watches these objects.
fn wait_for_watch(api: &FakeApi, objects: &str) {
    let is_watch = |request: &String| request.contains(objects) && request.contains("watch=true");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !api.requests().iter().any(is_watch) {
        assert!(
            Instant::now() < deadline,
            "nobody watches {objects}: {:?}",
            api.requests()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Time in which the command shows what it has seen, on a busy machine, too.
const SHOWN: Duration = Duration::from_millis(1_500);

#[cfg(unix)]
#[test]
fn an_interrupted_wait_leaves_the_prefetch_and_says_how_to_follow_it() {
    let api = FakeApi::start();
    let home = Home::with_server(&api.url);
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kubectl-coral"));
    command
        .env_clear()
        .env("HOME", home.path())
        .args(["prefetch", "nginx:1.29", "--name", "web", "--wait"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_watch(&api, "prefetches");
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: interrupted; prefetch shop/web stays, and goes on
    hint: follow it with `kubectl coral status web -n shop`
    ");
    assert_eq!(api.prefetch_name(), "web");
}
