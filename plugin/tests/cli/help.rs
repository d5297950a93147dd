//! What the command says about itself.

use serde_json::json;

use crate::support::{Home, fake_api::FakeApi};

#[test]
fn help_shows_the_verbs_and_the_exit_codes() {
    let outcome = Home::empty().run(&["--help"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(outcome.stdout, @r"
    Have images on nodes before anyone needs them, and see where they are

    Usage: kubectl coral [OPTIONS] <COMMAND>

    Commands:
      install       Install Coral in the cluster
      upgrade       Bring the Coral in the cluster to the version of this command
      uninstall     Take Coral out of the cluster
      prefetch      Have images on nodes before anyone needs them
      status        Show Prefetches, and which image is on which node
      images        Show what is on the nodes: images, sizes, digests, and who wants them
      inject        Let the pods of workloads run only where their images are
      uninject      Take back what `inject` and the webhook changed in workloads
      explain       Say why a Pod waits: which image is missing where, and why
      refresh       Look for newer images of the same name now
      suspend       Let Prefetches begin no further pulls
      resume        Let suspended Prefetches go on
      delete        Delete Prefetches, and with --remove-images their images on the nodes
      allow-secret  Let Coral's agents, or its mirror controller, read a pull secret
      mirror        Keep copies of images in a registry of one's own
      doctor        Check the installation, and say what to do about what is wrong
      version       Print the versions of this command and of the Coral in the cluster
      completion    Print a script that completes this command in a shell
      help          Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

    Cluster options:
      -n, --namespace <NAME>
              Namespace to work in; default: that of the context

          --context <NAME>
              Context of the kubeconfig to use

          --kubeconfig <FILE>
              Kubeconfig file; default: KUBECONFIG, else ~/.kube/config

          --cluster <NAME>
              Cluster of the kubeconfig to use

          --user <NAME>
              User of the kubeconfig to use

          --as <USER>
              User to impersonate

          --as-group <GROUP>
              Group to impersonate; may be repeated

          --request-timeout <DURATION>
              How long a single request may take
              
              [default: 15s]

    Exit codes:
      0    success
      1    an error; the message says what
      2    a wrong command line; nothing was sent to the cluster
      3    --wait: images failed, and nothing will change without help
      4    the time was up before every image was there (--wait), or before everything ran or was gone
      (install, upgrade, uninstall)
      130  --wait, --watch: interrupted by Ctrl-C; the Prefetch stays
    ");
}

#[test]
fn help_of_prefetch_has_examples() {
    let outcome = Home::empty().run(&["prefetch", "--help"]);
    assert_eq!(outcome.code, Some(0));
    insta::assert_snapshot!(outcome.stdout, @r"
    Have images on nodes before anyone needs them.

    Makes a Prefetch: Coral pulls its images to the nodes that it selects, keeps them there, and gives
    them to nodes that join later. The same command twice is one Prefetch. With --name, an existing one
    becomes what is asked for.

    Usage: kubectl coral prefetch [OPTIONS] [IMAGE]...

    Arguments:
      [IMAGE]...
              Images, as in a Pod: nginx:1.29, ghcr.io/acme/model@sha256:…

    Options:
      -f, --filename <FILE>
              Manifests: the images of all that has pods in this file or folder, or in standard input
              (-); may be repeated

          --from <TYPE/NAME>
              Workloads of the cluster whose images are meant, such as deploy/web, separated by commas

      -l, --selector <SELECTOR>
              The images of the workloads with these labels

          --all-workloads
              The images of every workload of the namespace

      -A, --all-namespaces
              With -l or --all-workloads: of all namespaces

          --name <NAME>
              Name of the Prefetch; default: from the first image, and the same for the same images and
              nodes

          --node-selector <SELECTOR>
              Labels of the nodes, as for kubectl: gpu=true,tier!=dev,zone in (a,b),!spot; default:
              every Linux node

          --nodes <NAME>
              Names of the nodes, separated by commas

          --once
              Fetch the images once, and be done; default: keep them on the nodes, also on those that
              join later

          --refresh-interval <DURATION>
              Look for newer images of the same names this often, such as 15m; 0 is only on `kubectl
              coral refresh`

          --parallelism <NUMBER>
              How many of the nodes pull at the same time: a number, or a share such as 25%

          --priority <NUMBER>
              Higher goes first, on every node

          --pin
              Protect the images from the kubelet's garbage collector, where the container runtime can

          --gate
              New nodes keep their startup taint until these images are there

          --remove-on-delete
              Take the images off the nodes when the Prefetch is deleted or no longer names them

          --pull-secret <NAME>
              Secret of this namespace with credentials for the registry, which Coral's agents are then
              allowed to read; may be repeated

          --wait
              Wait until every image is on every node

          --timeout <DURATION>
              How long to wait, such as 90s, 10m or 1h30m; 0 is without end
              
              [default: 10m]

      -o, --output <FORMAT>
              Format of the output; with --wait, json and yaml show the Prefetch as it is at the end
              
              [possible values: json, yaml, name]

          --dry-run <MODE>
              client: send nothing; server: let the API server check it, and keep nothing
              
              [default: none]
              [possible values: none, client, server]

      -h, --help
              Print help (see a summary with '-h')

    Cluster options:
      -n, --namespace <NAME>
              Namespace to work in; default: that of the context

          --context <NAME>
              Context of the kubeconfig to use

          --kubeconfig <FILE>
              Kubeconfig file; default: KUBECONFIG, else ~/.kube/config

          --cluster <NAME>
              Cluster of the kubeconfig to use

          --user <NAME>
              User of the kubeconfig to use

          --as <USER>
              User to impersonate

          --as-group <GROUP>
              Group to impersonate; may be repeated

          --request-timeout <DURATION>
              How long a single request may take
              
              [default: 15s]

    Examples:
      # on every Linux node
      kubectl coral prefetch nginx:1.29 redis:8

      # all that a deployment and a Helm chart need
      kubectl coral prefetch --from deploy/web
      helm template chart | kubectl coral prefetch -f -

      # on the nodes with a GPU, and wait until it is there
      kubectl coral prefetch ghcr.io/acme/model:v7 --node-selector gpu=true --wait --timeout 30m

      # from a private registry, with the pull secret regcred of this namespace
      kubectl coral prefetch registry.example/team/app:v1 --pull-secret regcred

      # only print what would be made
      kubectl coral prefetch nginx:1.29 --name web --dry-run=client -o yaml
    ");
}

#[test]
fn help_of_status_explains_the_words_of_the_table() {
    let outcome = Home::empty().run(&["status", "--help"]);
    assert_eq!(outcome.code, Some(0));
    insta::assert_snapshot!(outcome.stdout, @r"
    Show Prefetches, and which image is on which node.

    What is shown about the nodes is what the agents there read from the container runtime. Nodes are
    rows and images are columns; where that does not fit the terminal, images are rows. On a terminal,
    nodes that are alike are put together where there are many.

      present    the image is on the node
      pulling    it is being pulled
      waiting    its pull has not begun, or something keeps it from beginning
      held       its turn has not come: the Prefetch limits how many nodes pull at a time
      retrying   an attempt failed, and another follows
      failed     all attempts failed; what to do stands under the table
      -          nobody wants it there

    With -o json or yaml the Prefetch is printed as the API server has it, and several as a List, as
    kubectl does.

    Usage: kubectl coral status [OPTIONS] [NAME]...

    Arguments:
      [NAME]...
              Names of Prefetches, also as prefetch/NAME; all of the namespace if there is none

    Options:
      -l, --selector <SELECTOR>
              The Prefetches with these labels

      -A, --all-namespaces
              The Prefetches of all namespaces

          --image <TEXT>
              Only images with this in their name; may be repeated

          --node <NAME>
              Only these nodes, separated by commas

          --failed
              Only what failed, also where it is tried again

      -w, --watch
              Show it again when it changes, until Ctrl-C

      -o, --output <FORMAT>
              Format of the output
              
              [default: table]
              [possible values: table, wide, json, yaml, name]

          --no-headers
              Leave out the names of the columns

      -h, --help
              Print help (see a summary with '-h')

    Cluster options:
      -n, --namespace <NAME>
              Namespace to work in; default: that of the context

          --context <NAME>
              Context of the kubeconfig to use

          --kubeconfig <FILE>
              Kubeconfig file; default: KUBECONFIG, else ~/.kube/config

          --cluster <NAME>
              Cluster of the kubeconfig to use

          --user <NAME>
              User of the kubeconfig to use

          --as <USER>
              User to impersonate

          --as-group <GROUP>
              Group to impersonate; may be repeated

          --request-timeout <DURATION>
              How long a single request may take
              
              [default: 15s]

    Examples:
      # every Prefetch of the namespace
      kubectl coral status

      # one of them, with digests, sizes and runtimes
      kubectl coral status web -o wide

      # what failed, in all namespaces
      kubectl coral status -A --failed

      # one node, again and again
      kubectl coral status --node node-1 --watch
    ");
}

#[test]
fn no_verb_shows_the_help_as_an_error() {
    let outcome = Home::empty().run(&[]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(outcome.stderr.contains("Usage: kubectl coral"), "{}", outcome.stderr);
}

#[test]
fn version_needs_no_cluster() {
    let outcome = Home::empty().run(&["version", "--client"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(
        outcome.stdout,
        concat!("Client Version: v", env!("CARGO_PKG_VERSION"), "\n")
    );

    let outcome = Home::empty().run(&["version", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        value["clientVersion"]["gitVersion"],
        concat!("v", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn completion_scripts_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let outcome = Home::empty().run(&["completion", shell]);
        assert_eq!(outcome.code, Some(0), "{shell}");
        assert!(outcome.stdout.contains("prefetch"), "{shell}");
    }
}

#[test]
fn version_of_the_cluster_is_told_with_the_difference() {
    let api = FakeApi::start();
    let binding = json!({"subjects": [{"namespace": "coral-system"}]});
    api.put_at(
        "apis/rbac.authorization.k8s.io/v1/clusterrolebindings/coral-agent",
        binding,
    );
    let labels = json!({"app.kubernetes.io/part-of": "coral", "app.kubernetes.io/version": "v0.0.1"});
    let containers = json!([{"name": "agent", "image": "registry.example/coral:v0.0.1"}]);
    let agent = json!({"metadata": {"labels": labels}, "spec": {"template": {"spec": {"containers": containers}}}});
    api.put_at("apis/apps/v1/namespaces/coral-system/daemonsets/coral-agent", agent);
    let home = Home::with_server(&api.url);
    let outcome = home.run(&["version"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let client = concat!("v", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        outcome.stdout,
        format!("Client Version: {client}\nServer Version: v0.0.1\n")
    );
    assert!(
        outcome.stderr.starts_with("warning: the cluster has Coral v0.0.1"),
        "{}",
        outcome.stderr
    );
    let json: serde_json::Value = serde_json::from_str(&home.run(&["version", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["serverVersion"]["images"][0], "registry.example/coral:v0.0.1");

    let away = Home::empty().run(&["version"]);
    assert_eq!(
        (away.code, away.stdout),
        (Some(1), format!("Client Version: {client}\n"))
    );
    assert!(away.stderr.contains("failed to find a kubeconfig"), "{}", away.stderr);
}
