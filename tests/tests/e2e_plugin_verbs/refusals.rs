//! What is wrong with a command line or the cluster: one sentence, and what to do.

use std::fmt::Write as _;

use crate::{
    shown::verbatim,
    support::{Scene, coral::coral},
};

/// Mistakes, and how the command ends.
const MISTAKES: &[(i32, &[&str])] = &[
    (2, &["stauts"]),
    (2, &["prefetch", "nginx", "--node-slector", "a=b"]),
    (2, &["status", "--ouput", "json"]),
    (2, &["status", "-o", "tabel"]),
    (2, &["prefetch"]),
    (2, &["prefetch", "nginx:1.29:x"]),
    (2, &["prefetch", "nginx", "--parallelism", "0"]),
    (2, &["prefetch", "nginx", "--timeout", "1m"]),
    (2, &["status", "deploy/web"]),
    (2, &["inject", "web", "--selectors"]),
    (2, &["status", "--request-timeout", "soon"]),
    (2, &["status", "-n", "Shop"]),
    (1, &["status", "nothing"]),
    (1, &["delete", "nothing"]),
    (1, &["images", "--node", "nowhere"]),
    (1, &["explain", "pod/nothing"]),
    (1, &["inject", "deploy/nothing", "--selectors"]),
    (1, &["prefetch", "-f", "/nowhere/app.yaml"]),
    (1, &["status", "--context", "nowhere"]),
    (1, &["status", "--kubeconfig", "/nowhere/config"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_gets_one_sentence_and_a_hint() {
    let scene = Scene::new("verbs").await;
    let mut told = String::new();
    for (code, arguments) in MISTAKES {
        let ran = coral(&scene, arguments).failed(*code, &[]);
        assert_eq!(ran.stdout, "", "{arguments:?}");
        writeln!(told, "$ {}\n{}", arguments.join(" "), verbatim(&scene, &ran)).unwrap();
    }
    insta::assert_snapshot!(told, @r#"
    $ stauts
    error: unrecognized subcommand 'stauts'

      tip: a similar subcommand exists: 'status'

    Usage: kubectl coral [OPTIONS] <COMMAND>

    For more information, try '--help'.

    $ prefetch nginx --node-slector a=b
    error: unexpected argument '--node-slector' found

      tip: a similar argument exists: '--node-selector'

    Usage: kubectl coral prefetch --node-selector <SELECTOR> <IMAGE>...

    For more information, try '--help'.

    $ status --ouput json
    error: unexpected argument '--ouput' found

      tip: a similar argument exists: '--output'

    Usage: kubectl coral status --output <FORMAT> [NAME]...

    For more information, try '--help'.

    $ status -o tabel
    error: invalid value 'tabel' for '--output <FORMAT>'
      [possible values: table, wide, json, yaml, name]

      tip: a similar value exists: 'table'

    For more information, try '--help'.

    $ prefetch
    error: the following required arguments were not provided:
      <IMAGE>...

    Usage: kubectl coral prefetch --namespace <NAME> <IMAGE>...

    For more information, try '--help'.

    $ prefetch nginx:1.29:x
    error: "nginx:1.29:x" is not an image reference: the tag must be letters, digits, '_', '.' and '-', and must not begin with '.' or '-'

    $ prefetch nginx --parallelism 0
    error: invalid value '0' for '--parallelism <NUMBER>': write a number of nodes, at least 1, or a share from 1% to 100%

    For more information, try '--help'.

    $ prefetch nginx --timeout 1m
    error: the following required arguments were not provided:
      --wait

    Usage: kubectl coral prefetch --wait --timeout <DURATION> --namespace <NAME> <IMAGE>...

    For more information, try '--help'.

    $ status deploy/web
    error: invalid value 'deploy/web' for '[NAME]...': "deploy" is not the type of a Prefetch; write NAME, prefetch/NAME or pf/NAME

    For more information, try '--help'.

    $ inject web --selectors
    error: invalid value 'web' for '[TYPE/NAME]...': write TYPE/NAME, such as deploy/web

    For more information, try '--help'.

    $ status --request-timeout soon
    error: invalid value 'soon' for '--request-timeout <DURATION>': a duration is numbers with the units ms, s, m and h, such as 30s, 10m or 1h30m, of at most a year

    For more information, try '--help'.

    $ status -n Shop
    error: invalid value 'Shop' for '--namespace <NAME>': a name has lower-case letters, digits, '-' and '.', begins and ends with a letter or digit, and has at most 63 characters

    For more information, try '--help'.

    $ status nothing
    error: prefetch "nothing" not found in namespace shop
    hint: `kubectl coral status -n shop` lists those that are there, -A those of all namespaces

    $ delete nothing
    error: prefetch "nothing" not found in namespace shop
    hint: `kubectl coral status -n shop` lists those that are there, -A those of all namespaces

    $ images --node nowhere
    error: Coral has nothing on node "nowhere"
    hint: no Prefetch asks it for anything, or there is no such node: `kubectl get nodes`

    $ explain pod/nothing
    error: pods "nothing" not found
    hint: `kubectl get pods -A` lists those that are there, of all namespaces

    $ inject deploy/nothing --selectors
    error: deployments.apps "nothing" not found
    hint: `kubectl get deployments -A` lists those that are there, of all namespaces

    $ prefetch -f /nowhere/app.yaml
    error: failed to read /nowhere/app.yaml: No such file or directory (os error 2)
    hint: a path begins in the folder that you are in; - is standard input

    $ status --context nowhere
    error: failed to choose a cluster: the kubeconfig has no context "nowhere"
    hint: its contexts are coral

    $ status --kubeconfig /nowhere/config
    error: failed to read the kubeconfig /nowhere/config: No such file or directory (os error 2)
    hint: `kubectl config view` shows what kubectl reads
    "#);
}
