//! The command line without a cluster: help, wrong arguments, and no way to a cluster.

mod support;

use std::{net::TcpListener, time::Instant};

use support::Home;

#[test]
fn help_shows_the_verbs_and_the_exit_codes() {
    let outcome = Home::empty().run(&["--help"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(outcome.stdout, @r"
    Have images on nodes before anyone needs them, and see where they are

    Usage: kubectl coral [OPTIONS] <COMMAND>

    Commands:
      prefetch      Have images on nodes before anyone needs them
      status        Show Prefetches, and which image is on which node
      allow-secret  Let Coral's agents read a pull secret
      version       Print the version of this command
      completion    Print a script that completes `kubectl-coral` in a shell
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
      4    --wait: the time was up before every image was there
      130  --wait: interrupted by Ctrl-C; the Prefetch stays
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

    Usage: kubectl coral prefetch [OPTIONS] <IMAGE>...

    Arguments:
      <IMAGE>...
              Images, as in a Pod: nginx:1.29, ghcr.io/acme/model@sha256:…

    Options:
          --name <NAME>
              Name of the Prefetch; default: from the first image, and the same for the same images and
              nodes

          --node-selector <SELECTOR>
              Labels of the nodes, as for kubectl: gpu=true,tier!=dev,zone in (a,b),!spot; default:
              every Linux node

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
              Names of Prefetches; all of the namespace if there is none

    Options:
      -A, --all-namespaces
              The Prefetches of all namespaces

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

      # all namespaces
      kubectl coral status -A
    ");
}

#[test]
fn no_verb_shows_the_help_as_an_error() {
    let outcome = Home::empty().run(&[]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(outcome.stderr.contains("Usage: kubectl coral"), "{}", outcome.stderr);
}

#[test]
fn a_typo_in_a_verb_or_flag_gets_a_suggestion() {
    let outcome = Home::empty().run(&["prefech", "nginx"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: unrecognized subcommand 'prefech'

      tip: a similar subcommand exists: 'prefetch'

    Usage: kubectl coral [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");

    let outcome = Home::empty().run(&["prefetch", "nginx", "--wiat"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: unexpected argument '--wiat' found

      tip: a similar argument exists: '--wait'

    Usage: kubectl coral prefetch --wait <IMAGE>...

    For more information, try '--help'.
    ");
}

#[test]
fn malformed_images_are_all_reported_before_anything_is_sent() {
    let outcome = Home::empty().run(&["prefetch", "Nginx:1.29", "redis:8", "a b"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: 2 image references are malformed:
      "Nginx:1.29" is not an image reference: the repository path must be lower case
      "a b" is not an image reference: it contains white space
    hint: did you mean nginx:1.29?
    "#);
}

#[test]
fn malformed_arguments_are_refused_with_the_rule() {
    for (arguments, sentence) in [
        (["--node-selector", "cpu>3"], "a node selector has no '>' and '<'"),
        (["--node-selector", ""], "leave it out to select every Linux node"),
        (["--name", "Web_1"], "a name has lower-case letters"),
        (["--namespace", "a.b"], "at most 63 characters"),
        (["--request-timeout", "5"], "such as 30s, 10m or 1h30m"),
        (["--dry-run", "maybe"], "[possible values: none, client, server]"),
    ] {
        let outcome = Home::empty().run(&["prefetch", "nginx", arguments[0], arguments[1]]);
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        assert!(outcome.stderr.contains(sentence), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn a_timeout_needs_something_to_wait_for() {
    let outcome = Home::empty().run(&["prefetch", "nginx", "--timeout", "5m"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--wait"), "{}", outcome.stderr);
}

#[test]
fn a_client_dry_run_needs_no_cluster() {
    let arguments = [
        "prefetch",
        "nginx:1.29",
        "--name",
        "web",
        "--node-selector",
        "gpu=true,zone in (a,b)",
        "--dry-run=client",
    ];
    let outcome = Home::empty().run(&arguments);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(outcome.stdout, "prefetch.image.stvz.io/web created (dry run)\n");

    let mut with_yaml = arguments.to_vec();
    with_yaml.extend(["-o", "yaml"]);
    insta::assert_snapshot!(Home::empty().run(&with_yaml).stdout, @r#"
    apiVersion: image.stvz.io/v1alpha1
    kind: Prefetch
    metadata:
      name: web
      namespace: default
    spec:
      images:
      - nginx:1.29
      nodeSelector:
        matchExpressions:
        - key: zone
          operator: In
          values:
          - a
          - b
        matchLabels:
          gpu: "true"
    "#);
}

#[test]
fn the_same_images_have_the_same_name_and_duplicates_are_told() {
    let one = Home::empty().run(&["prefetch", "nginx", "redis:8", "--dry-run=client", "-o", "name"]);
    let other = Home::empty().run(&[
        "prefetch",
        "nginx:latest",
        "docker.io/library/redis:8",
        "nginx",
        "--dry-run=client",
        "-o",
        "name",
    ]);
    assert_eq!(one.stdout, other.stdout);
    assert!(
        one.stdout.starts_with("prefetch.image.stvz.io/nginx-"),
        "{}",
        one.stdout
    );
    assert_eq!(
        other.stderr,
        "warning: nginx is the same image as nginx:latest, and counts once\n"
    );
}

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
    error: failed to get an answer from the Kubernetes API server at http://SERVER within 0s
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
