//! `kubectl coral mirror` and its verbs that are about the copies of a cluster.

use coral_api::{ImageReference, mirrored_image};
use serde_json::{Value, json};

use crate::support::{Home, fake_api::FakeApi};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(crate) fn empty() -> (FakeApi, Home) {
    let api = FakeApi::start();
    let home = Home::with_server(&api.url);
    (api, home)
}

/// Stores what is known of an image.
pub(crate) fn put(api: &FakeApi, image: &str, rewrite: &str, status: &Value) {
    let reference: ImageReference = image.parse().expect("a test knows how images are named");
    let object = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "MirroredImage",
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"image": reference.to_string(), "requestedBy": ["all"], "rewrite": rewrite},
        "status": status,
    });
    api.put_at(&format!("mirroredimages/{}", mirrored_image::name(&reference)), object);
}

fn copy(name: &str, state: &str) -> Value {
    json!({"mirror": "all", "reference": format!("r.lan:5000/{name}"), "nodeReference": format!("localhost:7439/{name}"), "state": state})
}

fn origin(state: &str) -> Value {
    json!({"state": state, "checkedAt": "2026-01-01T00:00:00Z"})
}

pub(crate) fn put_mirror(api: &FakeApi, name: &str, spec: &Value, status: &Value) {
    let object = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Mirror",
        "metadata": {"generation": 1, "uid": "1"},
        "spec": spec,
        "status": status,
    });
    api.put_at(&format!("mirrors/{name}"), object);
}

fn register(api: &FakeApi, webhook: &str) {
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {},
        "webhooks": [{"name": webhook, "admissionReviewVersions": ["v1"], "clientConfig": {}, "sideEffects": "None"}],
    });
    let path = "apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/coral-webhook";
    api.put_at(path, configuration);
}

#[test]
fn only_what_was_asked_for_is_in_the_mirror() {
    let home = Home::empty();
    let dry = home.run(&[
        "mirror",
        "nginx:1.29",
        "docker.io/library/nginx:1.29",
        "--to",
        "r.lan:5000/mirror/",
        "--to",
        "s.lan",
        "--push-secret",
        "push",
        "--rewrite",
        "on-failure",
        "--source-secret",
        "shop/regcred",
        "--source-ca",
        "registry.internal:5000=internal-ca",
        "--source-plain-http",
        "registry.lan",
        "--remove-unused-after",
        "720h",
        "--platform",
        "linux/amd64",
        "--dry-run=client",
        "-o",
        "json",
    ]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert!(dry.stderr.contains("is the same image as nginx:1.29"), "{}", dry.stderr);
    let object: Value = serde_json::from_str(&dry.stdout).unwrap();
    let name = object["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("nginx-"), "{name}");
    assert_eq!(
        object["spec"],
        json!({
            "images": ["nginx:1.29"],
            "destinations": [
                {"registry": "r.lan:5000", "repositoryPrefix": "mirror", "secretName": "push"},
                {"registry": "s.lan", "secretName": "push"},
            ],
            "rewrite": "OnFailure",
            "sourceSecrets": [{"namespace": "shop", "name": "regcred"}],
            "sources": [
                {"registry": "registry.internal:5000", "caSecretName": "internal-ca"},
                {"registry": "registry.lan", "plainHttp": true},
            ],
            "retention": {"unusedFor": "720h"},
            "platforms": ["linux/amd64"],
        })
    );
    let discover = home.run(&[
        "mirror",
        "--discover",
        "--exclude",
        "*.internal/**",
        "--namespace-selector",
        "team=shop",
        "--to",
        "r.lan",
        "--naming",
        "flat",
        "--dry-run=client",
        "-o",
        "json",
    ]);
    let object: Value = serde_json::from_str(&discover.stdout).unwrap();
    assert_eq!(
        object["spec"],
        json!({
            "discover": {"namespaceSelector": {"matchLabels": {"team": "shop"}}, "exclude": ["*.internal/**"]},
            "destinations": [{"registry": "r.lan", "naming": "Flat"}],
        })
    );
}

#[test]
fn the_same_command_twice_is_one_mirror() {
    let (api, home) = empty();
    let arguments = ["mirror", "nginx:1.29", "--to", "r.lan", "--name", "web"];
    let run = |arguments: &[&str]| {
        let outcome = home.run(arguments);
        (outcome.code, outcome.stdout)
    };
    let told = |verb: &str| (Some(0), format!("mirror.image.stvz.io/web {verb}\n"));
    assert_eq!(
        run(&[&arguments[..], &["--dry-run=server"]].concat()),
        told("created (server dry run)")
    );
    assert!(api.at("mirrors/web").is_none());
    assert_eq!(run(&arguments), told("created"));
    assert_eq!(run(&arguments), told("unchanged"));
    assert_eq!(
        run(&[&arguments[..], &["--rewrite=always"]].concat()),
        told("configured")
    );
    assert_eq!(api.at("mirrors/web").unwrap()["spec"]["rewrite"], "Always");
}

#[test]
fn waiting_ends_when_all_is_copied_and_when_nothing_will_be() {
    let (api, home) = empty();
    let spec = json!({"images": ["nginx:1.29"], "destinations": [{"registry": "r.lan"}]});
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = |condition: Value| json!({"observedGeneration": 9, "conditions": [condition], "images": {"desired": 1, "copied": 1, "copying": 0, "failed": 0}});
    let arguments = [
        "mirror",
        "nginx:1.29",
        "--to",
        "r.lan",
        "--name",
        "web",
        "--wait",
        "--timeout",
        "30s",
    ];

    put_mirror(&api, "web", &spec, &status(condition("Ready")));
    let ready = home.run(&arguments);
    assert_eq!(ready.code, Some(0), "{}", ready.stderr);
    assert!(
        ready.stderr.contains("mirror web is ready: 1 of 1 images are copied"),
        "{}",
        ready.stderr
    );

    put_mirror(&api, "web", &spec, &status(condition("Stalled")));
    let stalled = home.run(&arguments);
    assert_eq!(stalled.code, Some(3));
    assert!(
        stalled.stderr.contains("will not become ready without help:\nwhy"),
        "{}",
        stalled.stderr
    );

    put_mirror(
        &api,
        "web",
        &spec,
        &json!({"observedGeneration": 9, "images": {"desired": 3, "copied": 1, "copying": 1, "failed": 0}}),
    );
    let late = home.run(&[
        "mirror",
        "nginx:1.29",
        "--to",
        "r.lan",
        "--name",
        "web",
        "--wait",
        "--timeout",
        "100ms",
    ]);
    assert_eq!(late.code, Some(4));
    assert!(late.stderr.contains("1 of 3 images are copied"), "{}", late.stderr);
    assert!(
        late.stderr.contains("kubectl coral mirror status --mirror web"),
        "{}",
        late.stderr
    );
}

#[test]
fn status_shows_images_with_their_copies() {
    let (api, home) = empty();
    let nobody = home.run(&["mirror", "status"]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(0), ""));
    assert!(
        nobody.stderr.starts_with("No resources found\nhint: "),
        "{}",
        nobody.stderr
    );
    put_mirror(&api, "all", &json!({"discover": {}, "destinations": []}), &json!({}));
    let idle = home.run(&["mirror", "status"]);
    assert!(
        idle.stderr
            .contains("there are Mirrors, but their controller has named no image"),
        "{}",
        idle.stderr
    );

    let mut failed = copy("mirror/ghcr.io/acme/app:v7", "Failed");
    failed["failure"] = json!({"reason": "Unauthorized", "message": "denied", "attempts": 2});
    put(
        &api,
        "ghcr.io/acme/app:v7",
        "Always",
        &json!({"digest": DIGEST, "destinations": [failed], "origin": origin("Available"), "usedBy": {"count": 2}}),
    );
    put(
        &api,
        "nginx:1.29",
        "OnFailure",
        &json!({"digest": DIGEST, "destinations": [copy("mirror/nginx:1.29", "Present")], "origin": origin("Available"), "usedBy": {"count": 12}}),
    );

    let all = home.run(&["mirror", "status"]);
    let without_age: Vec<String> = all
        .stdout
        .lines()
        .map(|line| {
            line.trim_end_matches(|last: char| last.is_ascii_digit() || "ydhms".contains(last))
                .trim_end()
                .to_owned()
        })
        .collect();
    assert!(without_age[0].starts_with("IMAGE "), "{}", all.stdout);
    assert_eq!(
        without_age[1],
        "nginx:1.29            e3b0c44298fc   r.lan:5000            available   12"
    );
    assert_eq!(
        without_age[2],
        "ghcr.io/acme/app:v7   e3b0c44298fc   r.lan:5000 (failed)   available   2"
    );
    assert!(
        all.stdout
            .contains("ghcr.io/acme/app:v7 not copied to r.lan:5000: Unauthorized\n  denied\n  hint: "),
        "{}",
        all.stdout
    );

    let name = format!(
        "mirroredimage.image.stvz.io/{}\n",
        mirrored_image::name(&"nginx:1.29".parse().unwrap())
    );
    assert_eq!(
        home.run(&["mirror", "status", "docker.io/library/nginx:1.29", "-o", "name"])
            .stdout,
        name
    );
    assert_eq!(
        home.run(&["mirror", "status", "--failed", "-o", "name"])
            .stdout
            .lines()
            .count(),
        1
    );
    assert_eq!(
        home.run(&["mirror", "status", "--mirror", "other", "-o", "name"])
            .stdout,
        ""
    );
    let one: Value = serde_json::from_str(&home.run(&["mirror", "status", "nginx:1.29", "-o", "json"]).stdout).unwrap();
    assert_eq!(one["kind"], "MirroredImage");
    let list: Value = serde_json::from_str(&home.run(&["mirror", "status", "-o", "json"]).stdout).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);

    let unknown = home.run(&["mirror", "status", "nginx:1.2", "-o", "name"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        unknown.stderr,
        "error: no Mirror has copied \"nginx:1.2\"\nhint: did you mean nginx:1.29?\n"
    );
}

#[test]
fn check_says_each_condition_and_what_follows() {
    let (api, home) = empty();
    let check = |image: &str| home.run(&["mirror", "check", image]).stdout;
    assert!(check("nginx:1.29").contains("no webhook is registered for it"));
    register(&api, "workloads.image.stvz.io");
    assert!(check("nginx:1.29").contains("no webhook is registered for it"));
    register(&api, "rewrite.image.stvz.io");
    assert!(check("nginx:1.29").contains("it is not true that a Mirror wants copies (there is no Mirror)"));

    let status = |state: &str| json!({"destinations": [copy("nginx:1.29", "Present")], "origin": origin(state)});
    put(&api, "nginx:1.29", "OnFailure", &status("Available"));
    assert!(check("nginx:1.29").contains("it is not true that the original is not to be had (available, "));
    put(&api, "nginx:1.29", "OnFailure", &status("Unreachable"));
    assert!(check("nginx:1.29").ends_with("\nnew pods that name nginx:1.29 use localhost:7439/nginx:1.29\n"));
    let json = home.run(&["mirror", "check", "docker.io/library/nginx:1.29", "-o", "json"]);
    let verdict: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&verdict["rewritten"], &verdict["replacement"]),
        (&json!(true), &json!("localhost:7439/nginx:1.29"))
    );
    assert_eq!(verdict["conditions"].as_array().unwrap().len(), 5);
}

#[test]
fn who_may_not_read_the_registration_is_told_so() {
    let (api, home) = empty();
    let message = "forbidden";
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message, "details": {}});
    api.refuse("GET /apis/admissionregistration", usize::MAX, 403, &status);
    put(
        &api,
        "nginx:1.29",
        "Always",
        &json!({"destinations": [copy("nginx:1.29", "Present")]}),
    );
    let outcome = home.run(&["mirror", "check", "nginx:1.29"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome
            .stdout
            .contains("unknown   you may not read MutatingWebhookConfigurations"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("use localhost:7439/nginx:1.29"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_asked() {
    let (api, home) = empty();
    let cases: [(&[&str], &str); 13] = [
        (&["statsu"], "a similar subcommand exists: 'status'"),
        (&["--to", "r.lan", "status"], "cannot be used with '--to"),
        (&["nginx", "--to", "r.lan", "--source-ca", "r.lan"], "REGISTRY=SECRET"),
        (
            &[
                "nginx",
                "--to",
                "r.lan",
                "--source-ca",
                "s.lan=ca",
                "--source-plain-http",
                "s.lan",
            ],
            "s.lan is to be reached in two ways",
        ),
        (&["nginx"], "--to"),
        (&["--to", "r.lan"], "<IMAGE>"),
        (&["Nginx", "--to", "r.lan"], "lower case"),
        (&["nginx", "--to", "mirror"], "begins with the host of a registry"),
        (&["nginx", "--to", "https://r.lan"], "REGISTRY"),
        (&["nginx", "--to", "r.lan", "--exclude", "a/**"], "--discover"),
        (
            &["nginx", "--to", "r.lan", "--source-secret", "regcred"],
            "NAMESPACE/NAME",
        ),
        (
            &["nginx", "--to", "r.lan", "--remove-unused-after", "5s"],
            "1m or longer",
        ),
        (&["check", "Nginx"], "lower case"),
    ];
    for (arguments, told) in cases {
        let outcome = home.run(&[&["mirror"][..], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(told), "{arguments:?}: {}", outcome.stderr);
    }
    assert_eq!(api.requests(), [""; 0]);
}

#[test]
fn images_and_mirrors_are_completed() {
    let (api, home) = empty();
    put(&api, "nginx:1.29", "Never", &json!({}));
    put_mirror(
        &api,
        "web",
        &json!({"images": ["a"], "destinations": [{"registry": "r.lan"}]}),
        &json!({}),
    );
    let shown = home.run(&["mirror", "-n", "shop", "status", "-o", "name"]);
    assert_eq!(
        (shown.code, shown.stdout.lines().count()),
        (Some(0), 1),
        "{}",
        shown.stderr
    );
    let complete = |words: &[&str]| home.run(&[&["__complete"][..], words].concat()).stdout;
    assert_eq!(complete(&["mirror", "check", "ng"]), "nginx:1.29\n:4\n");
    assert_eq!(complete(&["mirror", "status", "--mirror", "w"]), "web\n:4\n");
    assert_eq!(
        complete(&["mirror", "-n", "shop", "status", "--mirror", "w"]),
        "web\n:4\n"
    );
    assert!(complete(&["mirror", "st"]).starts_with("status\t"));
    assert!(complete(&["mirror", "-n", "shop", "st"]).starts_with("status\t"));
    assert!(complete(&["mirror", "nginx:1.29", "--rew"]).starts_with("--rewrite\t"));
}
