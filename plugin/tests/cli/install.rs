//! `install`, `upgrade` and `uninstall`, as far as no real cluster is needed.

use serde_json::Value;

use crate::support::{Home, fake_api::FakeApi};

const IMAGE: &str = "registry.example/coral:v1";

#[test]
fn a_development_build_has_no_image_of_its_own() {
    let outcome = Home::empty().run(&["install", "--dry-run=client"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: failed to choose an image: this is a development build, and no registry has one of it
    hint: name one with --image; `cargo xtask image registry.example/coral:dev` builds and pushes the image of a checkout
    ");
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
fn a_registry_comes_with_its_secrets_however_it_is_asked_for() {
    let arguments = ["install", "--image", IMAGE, "--dry-run=client", "-o", "json"];
    let registry = [
        "--set-registry-image",
        "mine.example/registry:3",
        "--set-registry-storage",
        "7Gi",
    ];
    for asked in [
        &["--with-registry"][..],
        &["--component", "registry"],
        &["--with-registry", "--component", "registry"],
    ] {
        let json = Home::empty().run(&[&arguments[..], &registry, asked].concat());
        assert_eq!(json.code, Some(0), "{}", json.stderr);
        let list: Value = serde_json::from_str(&json.stdout).unwrap();
        let items = list["items"].as_array().unwrap();
        let secrets = items
            .iter()
            .filter(|item| item["kind"] == "Secret" && item["data"].is_object());
        assert_eq!(secrets.count(), 5, "{asked:?}");
        let sets: Vec<&Value> = items.iter().filter(|item| item["kind"] == "StatefulSet").collect();
        assert_eq!(sets.len(), 1);
        let pod = &sets[0]["spec"]["template"]["spec"];
        for container in [&pod["initContainers"][0], &pod["containers"][0], &pod["containers"][1]] {
            assert_eq!(container["image"], "mine.example/registry:3");
        }
        let claim = &sets[0]["spec"]["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["resources"]["requests"]["storage"], "7Gi");
        let jobs: Vec<&Value> = items.iter().filter(|item| item["kind"] == "CronJob").collect();
        assert_eq!(
            jobs[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"],
            IMAGE
        );
    }
    let without = Home::empty().run(&[&arguments[..], &registry].concat());
    assert!(!without.stdout.contains("coral-registry"));
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
        (["--set-registry-image", "Bad"], "must be lower case"),
        (["--set-registry-storage", "much"], "such as 64Mi"),
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
    insta::assert_snapshot!(outcome.stderr, @r"
    error: Coral is not installed in this cluster, so there is nothing to upgrade
    hint: kubectl coral install
    ");
}

#[test]
fn help_of_the_three_has_examples() {
    let help = |verb: &str| {
        let text = Home::empty().run(&[verb, "--help"]).stdout;
        let own = text.split("Cluster options:").next().unwrap().to_owned();
        format!("{own}{}", &text[text.find("Examples:").unwrap()..])
    };
    insta::assert_snapshot!(help("install"), @r"
    Install Coral in the cluster.

    Applies the manifests in this command, which are those of the folder deploy/ of its source, by
    server-side apply, and waits until everything runs. Again is no harm: what is as it should be stays.
    The namespace is coral-system unless -n says otherwise.

    Usage: kubectl coral install [OPTIONS]

    Options:
          --image <IMAGE>
              Image of the in-cluster parts; default: that of this release

          --set-node-selector <KEY=VALUE>
              Only the nodes with this label get an agent; may be repeated

          --set-toleration <TAINT>
              Taint that the controller and the webhook tolerate (agents tolerate all),
              `KEY[=VALUE][:EFFECT]`; may be repeated

          --set-runtime-endpoint <ENDPOINT>
              Socket of the container runtime on the nodes, a URL such as `unix:///run/x/x.sock`

          --set-image-pull-secret <NAME>
              Secret of Coral's namespace to pull the image of the parts with; may be repeated

          --set-agent-memory <BYTES>
              Memory limit of the agents

          --set-controller-memory <BYTES>
              Memory limit of the controller

          --with-registry
              A registry in the cluster for copies of images, with a relay to it on every node

          --set-registry-image <IMAGE>
              Image of that registry; default: that of the distribution project

          --set-registry-storage <BYTES>
              Size of that registry's volume, when it is made

          --component <NAME>
              Optional part to install, too; may be repeated

          --force-conflicts
              Take fields over that somebody else manages

          --no-wait
              Return when everything is applied, without waiting until it runs

          --timeout <DURATION>
              How long to wait until everything runs; 0 is without end
              
              [default: 5m]

          --dry-run <MODE>
              client: send nothing; server: let the API server check it, and keep nothing
              
              [default: none]
              [possible values: none, client, server]

      -o, --output <FORMAT>
              With --dry-run=client: the manifests themselves
              
              [possible values: json, yaml, name]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      kubectl coral install

      # see first, or keep it in git
      kubectl coral install --dry-run=client -o yaml > coral.yaml

      # k3s, and only on the nodes of one pool
      kubectl coral install --set-runtime-endpoint unix:///run/k3s/containerd/containerd.sock
      --set-node-selector pool=gpu

      # with a registry for copies of images, which nodes know as localhost:7439
      kubectl coral install --with-registry --set-registry-storage 200Gi
    ");
    insta::assert_snapshot!(help("uninstall"), @r"
    Take Coral out of the cluster.

    Deletes every Prefetch and waits a moment for the agents to let go of their images; then deletes the
    in-cluster parts, Coral's labels and taints on nodes, the rights that `allow-secret` gave, the
    resource types, and the namespace, unless that was there before Coral. Images on nodes stay where
    they are, and the kubelet may collect them. It asks before it begins.

    Workloads that were injected would find no node any more, or no image. So nothing is done until it
    is said what is to become of them: --uninject takes back what was injected, and --leave-injected
    leaves them as they are.

    Usage: kubectl coral uninstall [OPTIONS]

    Options:
      -y, --yes
              Do not ask

          --keep-crds
              Leave the resource types, and with them every Prefetch

          --uninject
              Take back what was injected into workloads, which replaces their pods

          --leave-injected
              Leave injected workloads as they are, though new pods of theirs will find no node or no
              image

          --timeout <DURATION>
              How long to wait until everything is gone
              
              [default: 2m]

          --dry-run <MODE>
              client: only say what would go
              
              [default: none]
              [possible values: none, client, server]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      kubectl coral uninstall

      # see first
      kubectl coral uninstall --dry-run=client

      # and take back what was injected into workloads
      kubectl coral uninstall --uninject

      # to install it again later, with the same Prefetches
      kubectl coral uninstall --keep-crds
    ");
    assert!(help("upgrade").contains("kubectl coral upgrade"));
}
