//! Command lines that need no cluster: wrong ones, and those that only print.

use crate::support::Home;

#[test]
fn a_typo_in_a_verb_or_flag_gets_a_suggestion() {
    let outcome = Home::empty().run(&["prefech", "nginx"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: unrecognized subcommand 'prefech'

      tip: some similar subcommands exist: 'refresh', 'prefetch'

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
