//! `images`: what is on the nodes.

use serde_json::{Value, json};

use crate::support::{
    Home,
    fake_api::FakeApi,
    objects::{node, not_found, present},
};

fn two_nodes() -> (FakeApi, Home) {
    let api = FakeApi::start();
    let (nginx, redis) = ("docker.io/library/nginx:1.29", "docker.io/library/redis:99");
    api.put_node("node-1", node("web", &[present(nginx), not_found(redis)]));
    api.put_node("node-2", node("web", &[present(nginx)]));
    let home = Home::with_server(&api.url);
    (api, home)
}

#[test]
fn nodes_have_sums_and_images_their_nodes() {
    let (_api, home) = two_nodes();
    let outcome = home.run(&["images"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(outcome.stdout, @r"
    NODE     IMAGES   MISSING   SIZE      FREE   CAPACITY
    node-1   1        1         67.4 MB   -      -
    node-2   1        0         67.4 MB   -      -

    IMAGE        NODES   SIZE      DIGEST   PINNED   WANTED BY
    nginx:1.29   2       67.4 MB   -        0        shop/web
    ");
}

#[test]
fn one_node_is_shown_image_by_image() {
    let (_api, home) = two_nodes();
    let outcome = home.run(&["images", "--node", "node/node-1"]);
    insta::assert_snapshot!(outcome.stdout, @r"
    NODE     IMAGE        SIZE      DIGEST   PINNED   WANTED BY
    node-1   nginx:1.29   67.4 MB   -        no       shop/web
    node-1   (1 image)    67.4 MB
    ");
    let bare = home.run(&["images", "--node", "node-1", "--no-headers"]).stdout;
    assert!(!bare.contains("WANTED BY"), "{bare}");
}

#[test]
fn objects_are_printed_as_the_server_has_them() {
    let (_api, home) = two_nodes();
    let one: Value = serde_json::from_str(&home.run(&["images", "--node=node-2", "-o", "json"]).stdout).unwrap();
    assert_eq!(
        (&one["kind"], &one["metadata"]["name"]),
        (&json!("NodeImages"), &json!("node-2"))
    );
    let all: Value = serde_json::from_str(&home.run(&["images", "-o", "json"]).stdout).unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    assert!(
        home.run(&["images", "-o", "yaml"])
            .stdout
            .starts_with("apiVersion: v1\n")
    );
    assert_eq!(
        home.run(&["images", "-o", "name"]).stdout,
        "nodeimages.image.stvz.io/node-1\nnodeimages.image.stvz.io/node-2\n"
    );
}

#[test]
fn a_node_of_which_nothing_is_known_is_named() {
    let (_api, home) = two_nodes();
    let outcome = home.run(&["images", "--node", "nod-1,node-2"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("node-2"), "{}", outcome.stdout);
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: Coral has nothing on node "nod-1"
    hint: did you mean node-1 or node-2?
    "#);
    let api = FakeApi::start();
    let empty = Home::with_server(&api.url).run(&["images"]);
    assert_eq!(
        (empty.code, empty.stdout.as_str(), empty.stderr.as_str()),
        (Some(0), "", "No resources found\n")
    );
}
