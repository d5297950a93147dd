//! kubectl's manners: where, as whom, for how long, and how things are called.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Read as _,
    process::{Command, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    deployment,
    shown::both,
    support::{
        Scene,
        coral::{Ran, command, coral},
        on,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_kubectl_mean_what_they_mean_for_kubectl() {
    let scene = Scene::new("verbs").await;
    let namespace = scene.namespace.name();
    let spec = json!({"images": ["nginx:1.29"], "nodeSelector": on(&["nowhere"])});
    scene.prefetch("web", spec).await;
    let ran = |arguments: &[&str]| -> Ran { command(&scene.cluster, arguments).output().unwrap().into() };
    let name = "prefetch.image.stvz.io/web\n";
    for arguments in [
        &["status", "-n", namespace, "-o", "name"][..],
        &["status", "--namespace", namespace, "-oname"],
        &["-n", namespace, "status", "-o=name"],
        &[
            "status",
            "pf/web",
            "-n",
            namespace,
            "--output",
            "name",
            "--request-timeout",
            "1m",
        ],
    ] {
        assert_eq!(ran(arguments).succeeded().stdout, name, "{arguments:?}");
    }
    assert!(ran(&["status", "-A", "-o", "name"]).succeeded().stdout.contains(name));
    assert!(!ran(&["status", "-o", "name"]).succeeded().stdout.contains(name));

    // A kubeconfig of one's own, with a context that has a namespace of its own.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config");
    fs::copy(scene.cluster.kubeconfig(), &file).unwrap();
    let path = file.to_string_lossy();
    let current = scene.kubectl(
        &[
            "config",
            "view",
            "--minify",
            "--output",
            "jsonpath={.contexts[0].context.cluster} {.contexts[0].context.user}",
        ],
        "",
    );
    let current = current.succeeded().stdout;
    let (cluster, user) = current.split_once(' ').unwrap();
    let set = Command::new(scene.cluster.tools().control_plane("kubectl"))
        .args([
            "--kubeconfig",
            &path,
            "config",
            "set-context",
            "shop",
            "--cluster",
            cluster,
            "--user",
            user,
        ])
        .args(["--namespace", namespace])
        .output()
        .unwrap();
    assert!(set.status.success(), "{set:?}");
    for arguments in [
        &["status", "-o", "name", "--kubeconfig", &path, "--context", "shop"][..],
        &["--kubeconfig", &path, "--context", "shop", "status", "-o", "name"],
    ] {
        assert_eq!(ran(arguments).succeeded().stdout, name, "{arguments:?}");
    }
    let wrong = ran(&["status", "--kubeconfig", &path, "--context", "shpo"]).failed(1, &["shpo", "hint: "]);
    assert!(wrong.stderr.contains("shop"), "{}", wrong.stderr);
    let slow = coral(&scene, &["status", "--request-timeout", "1ms"]).failed(1, &[]);
    assert!(
        slow.stderr.contains("within 1ms\nhint: --request-timeout"),
        "{}",
        slow.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn types_have_all_the_names_that_kubectl_gives_them() {
    let scene = Scene::new("verbs").await;
    scene.create(&deployment("web", "nginx:1.29"));
    let spec = json!({"images": ["nginx:1.29"], "nodeSelector": on(&["nowhere"])});
    scene.prefetch("web", spec).await;
    // What kubectl understands is understood. What kubectl does not understand is refused.
    let agrees = |spelling: &str, ours: &[&str]| {
        let theirs = scene.kubectl(&["get", spelling, "--output", "name"], "").code == Some(0);
        let ours = coral(&scene, ours).code == Some(0);
        (theirs, ours)
    };
    let mut differences = BTreeMap::new();
    for kind in [
        "deploy",
        "deployment",
        "deployments",
        "Deployment",
        "Deployments",
        "deployment.apps",
        "deployments.apps",
        "deploy.apps",
        "deployment.v1.apps",
        "deployments.v1.apps",
        "Deployment.v1.apps",
        "Deployment.apps",
        "deployment.batch",
        "deployments.v1beta1.apps",
        "deployments.v1",
        "deploys",
        "dep",
    ] {
        let spelling = format!("{kind}/web");
        let (theirs, ours) = agrees(&spelling, &["inject", &spelling, "--selectors", "--dry-run=client"]);
        if theirs != ours {
            differences.insert(spelling, (theirs, ours));
        }
    }
    for kind in [
        "pf",
        "prefetch",
        "prefetches",
        "Prefetch",
        "prefetch.image.stvz.io",
        "prefetches.image.stvz.io",
        "pf.image.stvz.io",
        "prefetch.v1alpha1.image.stvz.io",
        "prefetches.v1alpha1.image.stvz.io",
        "prefetches.v1.image.stvz.io",
        "prefetch.apps",
        "prefetchs",
    ] {
        let spelling = format!("{kind}/web");
        let (theirs, ours) = agrees(&spelling, &["status", &spelling]);
        if theirs != ours {
            differences.insert(spelling, (theirs, ours));
        }
    }
    assert!(differences.is_empty(), "(kubectl, kubectl coral): {differences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_is_no_error_and_only_terminals_get_colours() {
    let scene = Scene::new("verbs").await;
    let spec = json!({"images": ["nginx:1.29"], "nodeSelector": on(&["node-1"]), "suspend": true});
    scene.prefetch("web", spec).await;
    let mut child = command(&scene.cluster, &["status", "-A", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));

    let missing = format!("{}/{}/missing:v1", scene.cluster.registry(), scene.namespace.name());
    let spec = json!({"images": [missing], "nodeSelector": on(&["node-1"]), "mode": "Once", "backoffLimit": 1});
    scene.prefetch("broken", spec).await;
    scene.fails_with("broken", coral_api::FailureReason::NotFound).await;
    let on_a_terminal = |variable: (&str, &str)| -> String {
        let plain = command(&scene.cluster, &[]);
        let program = format!(
            "{} coral status --namespace {}",
            plain.get_program().to_string_lossy(),
            scene.namespace.name()
        );
        // It runs the command on a terminal of its own.
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &program, "/dev/null"]);
        for (key, value) in plain.get_envs() {
            script.env(key, value.unwrap_or_default());
        }
        let ran = script
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .env(variable.0, variable.1);
        let ran: Ran = ran.stdin(Stdio::null()).output().unwrap().into();
        ran.succeeded().stdout
    };
    let colour = "\u{1b}[";
    assert!(on_a_terminal(("TERM", "xterm-256color")).contains(colour));
    assert!(!on_a_terminal(("NO_COLOR", "1")).contains(colour));
    assert!(!on_a_terminal(("TERM", "dumb")).contains(colour));
    let piped = coral(&scene, &["status"]).succeeded();
    assert!(!piped.stdout.contains(colour), "{}", piped.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_rights_is_told_which_and_what_to_do() {
    let scene = Scene::new("verbs").await;
    scene.create(&deployment("web", "nginx:1.29"));
    let mut told = String::new();
    for arguments in [
        &["prefetch", "nginx"][..],
        &["prefetch", "--from", "deploy/web"],
        &["status"],
        &["status", "web"],
        &["images"],
        &["inject", "deploy/web", "--selectors"],
        &["uninject", "--all"],
        &["explain", "pod/web"],
        &["refresh", "web"],
        &["suspend", "--all"],
        &["resume", "web"],
        &["delete", "web", "--remove-images"],
        &["allow-secret", "regcred"],
        &["version"],
        &["uninstall", "--yes"],
    ] {
        let ran = coral(&scene, &[arguments, &["--as", "eve", "--as-group", "nobody"]].concat()).failed(1, &[]);
        assert!(ran.stderr.lines().count() <= 2, "{arguments:?}: {}", ran.stderr);
        writeln!(told, "$ {}\n{}", arguments.join(" "), both(&scene, &ran)).unwrap();
    }
    insta::assert_snapshot!(told, @r#"
    $ prefetch nginx
    ! error: prefetches.image.stvz.io "nginx-d07a651c" is forbidden: User "eve" cannot get resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ prefetch --from deploy/web
    ! error: deployments.apps "web" is forbidden: User "eve" cannot get resource "deployments" in API group "apps" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list` shows what you may do
    $ status
    ! error: prefetches.image.stvz.io is forbidden: User "eve" cannot list resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ status web
    ! error: prefetches.image.stvz.io "web" is forbidden: User "eve" cannot get resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ images
    ! error: nodeimages.image.stvz.io is forbidden: User "eve" cannot list resource "nodeimages" in API group "image.stvz.io" at the cluster scope
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ inject deploy/web --selectors
    ! error: deployments.apps "web" is forbidden: User "eve" cannot get resource "deployments" in API group "apps" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list` shows what you may do
    $ uninject --all
    ! error: replicationcontrollers is forbidden: User "eve" cannot list resource "replicationcontrollers" in API group "" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list` shows what you may do
    $ explain pod/web
    ! error: pods "web" is forbidden: User "eve" cannot get resource "pods" in API group "" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list` shows what you may do
    $ refresh web
    ! error: prefetches.image.stvz.io "web" is forbidden: User "eve" cannot get resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ suspend --all
    ! error: prefetches.image.stvz.io is forbidden: User "eve" cannot list resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ resume web
    ! error: prefetches.image.stvz.io "web" is forbidden: User "eve" cannot get resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ delete web --remove-images
    ! error: prefetches.image.stvz.io "web" is forbidden: User "eve" cannot get resource "prefetches" in API group "image.stvz.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list | grep image.stvz.io` shows what you may do
    $ allow-secret regcred
    ! error: roles.rbac.authorization.k8s.io "coral-agent-regcred" is forbidden: User "eve" cannot get resource "roles" in API group "rbac.authorization.k8s.io" in the namespace "shop"
    ! hint: ask for the right; `kubectl auth can-i --list` shows what you may do
    $ version
    Client Version: v0.1.0
    ! error: clusterrolebindings.rbac.authorization.k8s.io "coral-agent" is forbidden: User "eve" cannot get resource "clusterrolebindings" in API group "rbac.authorization.k8s.io" at the cluster scope
    ! hint: ask for the right; `kubectl auth can-i --list` shows what you may do
    $ uninstall --yes
    ! error: namespaces is forbidden: User "eve" cannot list resource "namespaces" in API group "" at the cluster scope
    ! hint: ask for the right; `kubectl auth can-i --list` shows what you may do
    "#);
}
