//! The verbs that act on Prefetches: refresh, suspend, resume, delete.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Home, fake_api::FakeApi, objects::failure};

/// A server with the Prefetches `web` and `api`, of which `web` has the label `team=shop`.
fn two() -> (FakeApi, Home) {
    let api = FakeApi::start();
    let spec = json!({"images": ["nginx:1.29"]});
    api.put_prefetch("web", json!({"metadata": {"labels": {"team": "shop"}}, "spec": spec}));
    api.put_prefetch("api", json!({"spec": spec}));
    let home = Home::with_server(&api.url);
    (api, home)
}

#[test]
fn refresh_writes_the_time_into_the_annotation() {
    let (api, home) = two();
    let outcome = home.run(&["refresh", "prefetch/web"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()),
        (Some(0), "prefetch.image.stvz.io/web refreshed\n", "")
    );
    let annotation = &api.prefetch("web").unwrap()["metadata"]["annotations"]["image.stvz.io/refresh"];
    let time = annotation.as_str().unwrap();
    assert!(time.ends_with('Z') && !time.contains('.'), "{time}");
    assert!(api.prefetch("api").unwrap()["metadata"]["annotations"].is_null());
}

#[test]
fn refresh_of_a_suspended_prefetch_warns() {
    let (api, home) = two();
    api.put_prefetch("late", json!({"spec": {"images": ["a:1"], "suspend": true}}));
    let outcome = home.run(&["refresh", "late"]);
    assert_eq!(outcome.code, Some(0));
    assert_eq!(
        outcome.stderr,
        "warning: prefetch.image.stvz.io/late is suspended: nothing is pulled until it is resumed\n"
    );
}

#[test]
fn suspend_and_resume_change_what_is_not_so_already() {
    let (api, home) = two();
    assert_eq!(
        home.run(&["suspend", "web"]).stdout,
        "prefetch.image.stvz.io/web suspended\n"
    );
    assert_eq!(api.prefetch("web").unwrap()["spec"]["suspend"], true);
    let all = home.run(&["suspend", "--all"]);
    assert_eq!(
        all.stdout,
        "prefetch.image.stvz.io/api suspended\nprefetch.image.stvz.io/web unchanged\n"
    );
    let labelled = home.run(&["resume", "-l", "team=shop", "-o", "json"]);
    let object: Value = serde_json::from_str(&labelled.stdout).unwrap();
    assert_eq!(
        (&object["metadata"]["name"], &object["spec"]["suspend"]),
        (&json!("web"), &json!(false))
    );
    assert_eq!(
        home.run(&["resume", "web"]).stdout,
        "prefetch.image.stvz.io/web unchanged\n"
    );
}

#[test]
fn those_that_are_there_are_changed_and_the_others_named() {
    let (api, home) = two();
    let outcome = home.run(&["suspend", "wbe", "api"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(1), "prefetch.image.stvz.io/api suspended\n")
    );
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: prefetch "wbe" not found in namespace shop
    hint: did you mean web?
    "#);
    assert!(api.prefetch("web").unwrap()["spec"]["suspend"].is_null());
}

#[test]
fn who_names_nothing_changes_nothing() {
    let (api, home) = two();
    for verb in ["refresh", "suspend", "resume", "delete"] {
        let outcome = home.run(&[verb]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{verb}");
        assert!(outcome.stderr.contains("<NAME>"), "{verb}: {}", outcome.stderr);
        assert_eq!(home.run(&[verb, "web", "--all"]).code, Some(2), "{verb}");
        let other_type = home.run(&[verb, "pod/web"]);
        assert_eq!(other_type.code, Some(2), "{verb}");
        assert!(
            other_type.stderr.contains("\"pod\" is not the type of a Prefetch"),
            "{}",
            other_type.stderr
        );
        let nobody = home.run(&[verb, "-l", "team=none"]);
        assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(0), ""), "{verb}");
        assert_eq!(nobody.stderr, "No resources found in shop namespace.\n");
    }
    assert!(api.requests().iter().all(|request| request.starts_with("GET")));
}

#[test]
fn who_may_not_change_is_told_in_the_servers_words() {
    let (api, home) = two();
    let message = "prefetches.image.stvz.io \"web\" is forbidden: User \"eve\" cannot patch resource \"prefetches\"";
    api.refuse("PATCH", usize::MAX, 403, &failure(403, "Forbidden", message));
    for arguments in [&["suspend", "web"][..], &["delete", "web", "--remove-images"]] {
        let outcome = home.run(arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    }
    assert!(api.prefetch("web").is_some());
}

#[test]
fn delete_says_what_it_deleted() {
    let (api, home) = two();
    let dry = home.run(&["delete", "--all", "--dry-run=client"]);
    assert_eq!(
        dry.stdout,
        "prefetch.image.stvz.io/api deleted (dry run)\nprefetch.image.stvz.io/web deleted (dry run)\n"
    );
    let checked = home.run(&["delete", "web", "--dry-run=server", "--remove-images"]);
    assert_eq!(checked.stdout, "prefetch.image.stvz.io/web deleted (server dry run)\n");
    assert!(api.prefetch("web").unwrap()["spec"]["removalPolicy"].is_null());

    let outcome = home.run(&["delete", "pf/web", "-o", "name"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "prefetch.image.stvz.io/web\n")
    );
    assert!(api.prefetch("web").is_none() && api.prefetch("api").is_some());
    assert_eq!(home.run(&["delete", "web"]).code, Some(1));
    assert_eq!(home.run(&["delete", "web", "--ignore-not-found"]).code, Some(0));
}

#[test]
fn images_are_removed_only_when_the_wish_outlives_the_prefetch() {
    let (api, home) = two();
    let image = "docker.io/library/nginx:1.29";
    let entry = move |policy| json!({"spec": {"images": [{"image": image, "requestedBy": ["shop/web"], "removalPolicy": policy}]}});
    api.put_node("node-1", entry("Retain"));
    let controller = thread::spawn(move || {
        until(|| api.prefetch("web").unwrap()["spec"]["removalPolicy"] == "Remove");
        // The status is written, the node is not yet.
        let web = api.prefetch("web").unwrap();
        api.put_prefetch(
            "web",
            json!({
                "metadata": {"generation": web["metadata"]["generation"]},
                "spec": web["spec"],
                "status": {"observedGeneration": web["metadata"]["generation"]},
            }),
        );
        let looks = |api: &FakeApi| {
            api.requests()
                .iter()
                .filter(|request| request.contains("/nodeimages"))
                .count()
        };
        let before = looks(&api);
        until(|| looks(&api) >= before + 2);
        assert!(api.prefetch("web").is_some());
        api.put_node("node-1", entry("Remove"));
        api
    });
    let outcome = home.run(&["delete", "web", "--remove-images"]);
    let api = controller.join().unwrap();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()),
        (Some(0), "prefetch.image.stvz.io/web deleted\n", "")
    );
    assert!(api.prefetch("web").is_none());
}

#[test]
fn nothing_is_deleted_while_nobody_notes_that_images_are_to_go() {
    let (api, home) = two();
    let outcome = home.run(&["delete", "web", "--remove-images", "--timeout", "1s"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(outcome.stderr, @r"
    error: Coral's controller did not note within 1s that the images of prefetch shop/web are to go; nothing was deleted
    hint: Is Coral running? kubectl -n coral-system get pods. spec.removalPolicy is Remove now, so the same command goes on from here; without --remove-images the Prefetch is deleted at once
    ");
    assert!(api.prefetch("web").is_some());
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        thread::sleep(Duration::from_millis(10));
    }
}
