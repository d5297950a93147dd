//! The commands against a small API server: what they ask of it, and what they make of its answers. Waiting is in `wait.rs`.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{
    Home,
    fake_api::FakeApi,
    objects::{failure, node, not_found, present, status},
};
use serde_json::{Value, json};

const PREFETCHES: &str = "/apis/image.stvz.io/v1alpha1/namespaces/shop/prefetches";
const NODES: &str = "/apis/image.stvz.io/v1alpha1/nodeimages";

#[test]
fn applying_twice_creates_then_leaves_and_changes_configure() {
    let api = FakeApi::start();
    let home = Home::with_server(&api.url);
    let first = home.run(&["prefetch", "nginx:1.29", "--name", "web"]);
    assert_eq!(
        (first.code, first.stdout.as_str(), first.stderr.as_str()),
        (Some(0), "prefetch.image.stvz.io/web created\n", "")
    );
    let second = home.run(&["prefetch", "docker.io/library/nginx:1.29", "--name", "web"]);
    assert_eq!(second.stdout, "prefetch.image.stvz.io/web unchanged\n");
    let third = home.run(&["prefetch", "nginx:1.29", "redis:8", "--name", "web"]);
    assert_eq!(third.stdout, "prefetch.image.stvz.io/web configured\n");

    let patch = api
        .requests()
        .into_iter()
        .find(|request| request.starts_with("PATCH"))
        .unwrap();
    assert_eq!(patch, format!("PATCH {PREFETCHES}/web?&fieldManager=kubectl-coral"));
}

#[test]
fn a_server_dry_run_keeps_nothing() {
    let api = FakeApi::start();
    let home = Home::with_server(&api.url);
    let outcome = home.run(&["prefetch", "nginx:1.29", "--name", "web", "--dry-run=server", "--wait"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "prefetch.image.stvz.io/web created (server dry run)\n")
    );
    assert_eq!(home.run(&["status", "-o", "name"]).stdout, "");
}

#[test]
fn objects_are_printed_as_kubectl_does() {
    let api = FakeApi::start();
    let home = Home::with_server(&api.url);
    let yaml = home
        .run(&["prefetch", "nginx:1.29", "--name", "web", "-o", "yaml"])
        .stdout;
    assert!(yaml.contains("name: web") && !yaml.contains("managedFields"), "{yaml}");
    let one: Value = serde_json::from_str(&home.run(&["status", "web", "-o", "json"]).stdout).unwrap();
    assert_eq!(
        (&one["kind"], &one["metadata"]["name"]),
        (&json!("Prefetch"), &json!("web"))
    );
    let all: Value = serde_json::from_str(&home.run(&["status", "-o", "json"]).stdout).unwrap();
    assert_eq!(
        (&all["kind"], &all["items"][0]["kind"]),
        (&json!("List"), &json!("Prefetch"))
    );
    assert_eq!(
        home.run(&["status", "-A", "-o", "name"]).stdout,
        "prefetch.image.stvz.io/web\n"
    );
}

#[test]
fn what_the_server_refuses_is_told_in_its_words_with_a_hint() {
    let forbidden = failure(
        403,
        "Forbidden",
        "prefetches.image.stvz.io is forbidden: User \"eve\" cannot patch resource \"prefetches\" in API group \"image.stvz.io\" in the namespace \"shop\"",
    );
    let mut no_namespace = failure(404, "NotFound", "namespaces \"shop\" not found");
    no_namespace["details"] = json!({"name": "shop", "kind": "namespaces"});
    let invalid = failure(
        422,
        "Invalid",
        "Prefetch.image.stvz.io \"web\" is invalid: spec.images: Too many: 257: must have at most 256 items",
    );
    let conflict = failure(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"argocd\": .spec.nodeSelector.matchLabels.gpu",
    );
    let unauthorized = failure(401, "Unauthorized", "Unauthorized");
    let mut answers = String::new();
    for (name, status) in [
        ("no rights", &forbidden),
        ("no namespace", &no_namespace),
        ("invalid", &invalid),
        ("conflict", &conflict),
        ("no login", &unauthorized),
    ] {
        let api = FakeApi::start();
        let code = u16::try_from(status["code"].as_u64().unwrap()).unwrap();
        api.refuse(&format!("PATCH {PREFETCHES}"), usize::MAX, code, status);
        let outcome = Home::with_server(&api.url).run(&["prefetch", "nginx:1.29", "--name", "web"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{name}");
        let _ = write!(
            answers,
            "# {name}\n{}",
            outcome.stderr.replace(&api.url, "http://SERVER")
        );
    }
    insta::assert_snapshot!(answers, @r#"
    # no rights
    error: prefetches.image.stvz.io is forbidden: User "eve" cannot patch resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    # no namespace
    error: namespace "shop" does not exist
    hint: kubectl create namespace shop
    # invalid
    error: Prefetch.image.stvz.io "web" is invalid: spec.images: Too many: 257: must have at most 256 items
    # conflict
    error: failed to apply prefetch shop/web: Apply failed with 1 conflict: conflict with "argocd": .spec.nodeSelector.matchLabels.gpu
    hint: somebody else manages these fields: change them there, or make a Prefetch of your own with another --name
    # no login
    error: the Kubernetes API server at http://SERVER does not accept your credentials: Unauthorized
    hint: log in again, or check the user of this context: `kubectl auth whoami`
    "#);
}

#[test]
fn without_the_resources_coral_is_not_installed() {
    let api = FakeApi::start();
    api.refuse_with_text("GET", usize::MAX, 404, "404 page not found\n");
    for arguments in [&["status"][..], &["status", "web"], &["prefetch", "nginx"]] {
        let outcome = Home::with_server(&api.url).run(arguments);
        assert_eq!(outcome.code, Some(1), "{arguments:?}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(outcome.stderr, @r"
            error: the server has no resource type prefetches.image.stvz.io
            hint: Coral is not installed in this cluster: `kubectl coral install` does that
            ");
        }
    }
}

#[test]
fn a_busy_server_is_asked_again_but_not_for_long() {
    let busy = failure(429, "TooManyRequests", "too many requests, please try again later");
    let api = FakeApi::start();
    api.refuse("GET", 2, 429, &busy);
    assert_eq!(Home::with_server(&api.url).run(&["status"]).code, Some(0));

    let api = FakeApi::start();
    api.refuse("GET", usize::MAX, 503, &busy);
    let began = Instant::now();
    let outcome = Home::with_server(&api.url).run(&["status"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("too busy"), "{}", outcome.stderr);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn status_shows_prefetches_nodes_and_failures() {
    let api = FakeApi::start();
    api.put_prefetch(
        "web",
        json!({"spec": {"images": ["nginx:1.29", "redis:99"]}, "status": status(2, 1, &[])}),
    );
    let (nginx, redis) = ("docker.io/library/nginx:1.29", "docker.io/library/redis:99");
    api.put_node("node-1", node("web", &[present(nginx), not_found(redis)]));
    api.put_node("node-2", node("web", &[present(nginx)]));
    api.put_node("node-3", node("other", &[present(nginx)]));
    let outcome = Home::with_server(&api.url).run(&["status"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(outcome.stdout, @r"
    PREFETCH   NODES   READY   IMAGES   FAILED   AGE
    web        2       1       1        0        -

    NODE     nginx:1.29   redis:99
    node-1   present      failed NotFound
    node-2   present      -

    redis:99 failed on node-1: NotFound
      manifest unknown
      3 attempts, and no more will be made
      hint: check the name and the tag: docker.io has no such image
    ");
}

#[test]
fn status_shows_the_part_that_is_asked_for() {
    let api = FakeApi::start();
    let mut web = json!({"spec": {"images": ["nginx:1.29", "redis:99"]}, "status": status(2, 1, &[])});
    web["status"]["failures"] =
        json!([{"node": "node-1", "image": "redis:99", "reason": "NotFound", "message": "", "attempts": 3}]);
    api.put_prefetch("web", web);
    api.put_prefetch(
        "api",
        json!({"spec": {"images": ["nginx:1.29"]}, "status": status(2, 2, &[])}),
    );
    let (nginx, redis) = ("docker.io/library/nginx:1.29", "docker.io/library/redis:99");
    api.put_node("node-1", node("web", &[present(nginx), not_found(redis)]));
    api.put_node("node-2", node("web", &[present(nginx)]));
    let home = Home::with_server(&api.url);
    let show = |arguments: &[&str]| home.run(&[&["status"][..], arguments].concat()).stdout;
    insta::assert_snapshot!(show(&["--failed"]), @r"
    PREFETCH   NODES   READY   IMAGES   FAILED   AGE
    web        2       1       1        0        -

    NODE     redis:99
    node-1   failed NotFound

    redis:99 failed on node-1: NotFound
      manifest unknown
      3 attempts, and no more will be made
      hint: check the name and the tag: docker.io has no such image
    ");
    insta::assert_snapshot!(show(&["--node", "node-2", "--image", "nginx"]), @r"
    PREFETCH   NODES   READY   IMAGES   FAILED   AGE
    api        2       2       1        0        -
    web        2       1       1        0        -

    NODE     nginx:1.29
    node-2   present
    ");
    let other = show(&["--image", "docker.io/library/redis:99"]);
    assert!(
        other.contains("redis:99") && !other.contains("nginx") && !other.contains("node-2"),
        "{other}"
    );
}

#[test]
fn status_is_shown_again_when_it_changes() {
    let api = FakeApi::start();
    api.put_prefetch(
        "web",
        json!({"spec": {"images": ["nginx:1.29"]}, "status": status(2, 1, &[])}),
    );
    let home = Home::with_server(&api.url);
    assert_eq!(home.run(&["status", "--watch", "-o", "json"]).code, Some(2));
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kubectl-coral"));
    command.env_clear().env("HOME", home.path()).args(["status", "--watch"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next_row = || loop {
        let line = lines.next().unwrap().unwrap();
        if line.starts_with("web ") {
            return line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        }
    };
    assert_eq!(next_row()[..3], ["web", "2", "1"]);
    api.set_status(&status(2, 2, &[]));
    assert_eq!(next_row()[..3], ["web", "2", "2"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn status_without_prefetches_says_so_on_stderr() {
    let api = FakeApi::start();
    let home = Home::with_server(&api.url);
    let outcome = home.run(&["status"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""));
    assert_eq!(outcome.stderr, "No resources found in shop namespace.\n");
    assert_eq!(home.run(&["status", "-A"]).stderr, "No resources found\n");
    assert_eq!(
        home.run(&["status", "-n", "other"]).stderr,
        "No resources found in other namespace.\n"
    );
}

#[test]
fn a_name_that_does_not_exist_suggests_one_that_does() {
    let api = FakeApi::start();
    api.put_prefetch("web", json!({"spec": {"images": ["a"]}}));
    let outcome = Home::with_server(&api.url).run(&["status", "wbe", "web", "-o", "name"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(1), "prefetch.image.stvz.io/web\n")
    );
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: prefetch "wbe" not found in namespace shop
    hint: did you mean web?
    "#);
}

#[test]
fn who_may_not_read_nodes_gets_the_summary() {
    let api = FakeApi::start();
    api.put_prefetch(
        "web",
        json!({"spec": {"images": ["nginx:1.29"]}, "status": status(2, 1, &[])}),
    );
    let message = "nodeimages.image.stvz.io is forbidden: User \"eve\" cannot list resource \"nodeimages\"";
    api.refuse(
        &format!("GET {NODES}"),
        usize::MAX,
        403,
        &failure(403, "Forbidden", message),
    );
    let outcome = Home::with_server(&api.url).run(&["status"]);
    assert_eq!(outcome.code, Some(0));
    insta::assert_snapshot!(format!("{}{}", outcome.stdout, outcome.stderr), @r#"
    PREFETCH   NODES   READY   IMAGES   FAILED   AGE
    web        2       1       1        0        -

    IMAGE        NODES   PRESENT   PULLING   FAILED   SIZE
    nginx:1.29   2       1         0         0        -
    warning: nodeimages.image.stvz.io is forbidden: User "eve" cannot list resource "nodeimages"; what follows is the summary in the Prefetches
    "#);
}

#[test]
fn long_lists_come_in_pages() {
    let api = FakeApi::start();
    for index in 0..1_001 {
        api.put_prefetch(&format!("web-{index}"), json!({"spec": {"images": ["a"]}}));
    }
    let outcome = Home::with_server(&api.url).run(&["status", "-o", "name"]);
    assert_eq!(outcome.stdout.lines().count(), 1_001);
    assert_eq!(api.requests().len(), 3, "{:?}", api.requests());
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let api = FakeApi::start();
    for index in 0..2_000 {
        api.put_prefetch(&format!("web-{index}"), json!({"spec": {"images": ["a"]}}));
    }
    let home = Home::with_server(&api.url);
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kubectl-coral"));
    command
        .env_clear()
        .env("HOME", home.path())
        .args(["status", "-o", "name"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut start).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
