//! `kubectl coral mirror copy` between registries in this process.

use coral_registry::fake::{Behaviour, Fault, Image, Index, Registry};
use serde_json::{Value, json};

use crate::support::Home;

async fn registries() -> (Registry, Registry) {
    let start = || Registry::start(Behaviour::default());
    (start().await, start().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_copied_under_their_whole_names_and_then_unchanged() {
    let (from, to) = registries().await;
    let digest = Image::new("web", &[1000]).push(&from, "web", Some("v1"));
    let index = Index {
        images: vec![
            ("linux/amd64", Image::new("amd64", &[1000])),
            ("linux/arm64", Image::new("arm64", &[1000])),
        ],
    };
    let (index, _) = index.push(&from, "acme/app", Some("v2"));
    let (web, app) = (
        format!("{}/web:v1", from.host()),
        format!("{}/acme/app:v2", from.host()),
    );
    let place = format!("{}/mirror/", to.host());
    let host = from.host().replace(':', "_");
    let home = Home::empty();

    let planned = home.run(&["mirror", "copy", &web, &app, &place, "--dry-run"]);
    assert_eq!(planned.code, Some(0), "{}", planned.stderr);
    assert!(
        planned.stdout.contains(&format!("would be copied {digest}")),
        "{}",
        planned.stdout
    );
    assert!(planned.stderr.contains("would be sent"), "{}", planned.stderr);
    assert!(to.manifest(&format!("mirror/{host}/web"), "v1").is_none());

    let copied = home.run(&["mirror", "copy", &web, &app, &place]);
    assert_eq!(copied.code, Some(0), "{}", copied.stderr);
    let mut lines: Vec<&str> = copied.stdout.lines().collect();
    lines.sort_unstable();
    let to_host = to.host();
    assert_eq!(
        lines,
        [
            format!("{to_host}/mirror/{host}/acme/app:v2 copied {index}"),
            format!("{to_host}/mirror/{host}/web:v1 copied {digest}"),
        ]
    );
    assert!(copied.stderr.contains("mounted"), "{}", copied.stderr);
    assert_eq!(
        to.manifest(&format!("mirror/{host}/acme/app"), "v2"),
        from.manifest("acme/app", "v2")
    );

    let again = home.run(&["mirror", "copy", &web, &app, &place, "-o", "json"]);
    let report: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(report["images"][0]["state"], "Unchanged");
    assert_eq!(report["images"][0]["digest"], digest);
    assert_eq!(report["sentBytes"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_those_of_docker_login() {
    let login = Some(("user".to_owned(), "password".to_owned()));
    let to = Registry::start(Behaviour {
        login,
        ..Behaviour::default()
    })
    .await;
    let from = Registry::start(Behaviour::default()).await;
    Image::new("web", &[1000]).push(&from, "web", Some("v1"));
    let (source, destination) = (format!("{}/web:v1", from.host()), format!("{}/web", to.host()));
    let home = Home::empty();

    let refused = home.run(&["mirror", "copy", &source, &destination]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains(&format!("hint: `docker login {}`", to.host())),
        "{}",
        refused.stderr
    );

    let config = json!({"auths": {to.host(): {"auth": "dXNlcjpwYXNzd29yZA=="}}}).to_string();
    let folder = home.path().join(".docker");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), &config).unwrap();
    let copied = home.run(&["mirror", "copy", &source, &destination, "-o", "name"]);
    assert_eq!((copied.code, copied.stdout), (Some(0), format!("{destination}:v1\n")));

    // And those that a program gives which the configuration names.
    let programs = home.path().join("programs");
    std::fs::create_dir_all(&programs).unwrap();
    let program = programs.join("docker-credential-example");
    let script = format!(
        "#!/bin/sh\n[ \"$(cat)\" = {} ] && echo '{{\"Username\": \"user\", \"Secret\": \"password\"}}'\n",
        to.host()
    );
    std::fs::write(&program, script).unwrap();
    make_executable(&program);
    let helped = json!({"credHelpers": {to.host(): "example"}}).to_string();
    std::fs::write(folder.join("config.json"), helped).unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let output = home
        .coral(&["mirror", "copy", &source, &format!("{destination}:v2")])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(to.manifest("web", "v2").is_some());
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .expect("a file of one's own can be made executable");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_one_by_one_with_what_to_do() {
    let (from, to) = registries().await;
    Image::new("good", &[1000]).push(&from, "good", Some("v1"));
    to.fail(|asked| asked.target.contains("full").then_some(Fault::Status(507, None)));
    Image::new("full", &[1000]).push(&from, "full", Some("v1"));
    let image = |name: &str| format!("{}/{name}:v1", from.host());
    let place = format!("{}/", to.host());
    let outcome = Home::empty().run(&["mirror", "copy", &image("gone"), &image("good"), &image("full"), &place]);
    assert_eq!(outcome.code, Some(1));
    let (host, to_host) = (from.host(), to.host());
    for told in [
        format!("error: failed to read {host}/gone:v1: the registry {host} has no gone v1"),
        format!("{to_host} failed with 507"),
        "error: failed to copy 2 of 3 images".to_owned(),
        "hint: ".to_owned(),
    ] {
        assert!(
            outcome.stderr.contains(&told),
            "{told} is missing in: {}",
            outcome.stderr
        );
    }
    assert!(outcome.stdout.contains("/good:v1 copied sha256:"), "{}", outcome.stdout);
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_asked() {
    let home = Home::empty();
    let cases: [(&[&str], &str); 5] = [
        (&["nginx", "redis", "r.lan/one"], "r.lan/one/"),
        (&["nginx", "r.lan/X"], "lower case"),
        (&["Nginx", "r.lan/x"], "lower case"),
        (&["nginx", "r.lan/x", "--platform", "amd64"], "linux/amd64"),
        (&["nginx"], "DESTINATION"),
    ];
    for (arguments, told) in cases {
        let outcome = home.run(&[&["mirror", "copy"][..], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(told), "{arguments:?}: {}", outcome.stderr);
    }
}
