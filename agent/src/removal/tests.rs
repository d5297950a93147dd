use super::*;

const D1: &str = "r.io/app@sha256:1";

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn wishes(going: &[&str], staying: &[&str]) -> Wishes {
    Wishes {
        going: names(going).into_iter().collect(),
        staying: names(staying).into_iter().collect(),
    }
}

fn held(tags: &[&str], digests: &[&str]) -> Evidence {
    Evidence {
        image: Some(Listing {
            id: "sha256:c0".into(),
            tags: names(tags),
            digests: names(digests),
            is_pinned: false,
        }),
        ..Evidence::default()
    }
}

fn used_as(image: &str) -> Evidence {
    Evidence {
        containers: vec![Container {
            namespace: "shop".into(),
            pod: "web-1".into(),
            name: "app".into(),
            images: names(&[image]),
        }],
        ..held(&["r.io/app:v1"], &[D1])
    }
}

/// Name, what is there, what is to go, what is to stay, and what becomes of the first that is to go.
type Case<'a> = (&'a str, Evidence, &'a [&'a str], &'a [&'a str], Verdict);

#[test]
fn no_more_goes_than_may() {
    let (app, also, other) = ("r.io/app:v1", "r.io/app:also", "r.io/other:v1");
    let other_digest = "r.io/other@sha256:1";
    let only = |going: &[&str]| Verdict::Names(names(going));
    #[rustfmt::skip]
    let cases: &[Case<'_>] = &[
        ("its only tag", held(&[app], &[D1]), &[app], &[], Verdict::Image),
        ("no digest, as it was loaded", held(&[app], &[]), &[app], &[], Verdict::Image),
        ("all tags", held(&[app, also], &[D1]), &[app, also], &[], Verdict::Image),
        ("somebody's tag in its repository", held(&[app, also], &[D1]), &[app], &[], only(&[app])),
        ("a wanted tag in its repository", held(&[app, also], &[D1]), &[app], &[also], only(&[app])),
        ("somebody's tag elsewhere", held(&[app, other], &[D1, other_digest]), &[app], &[], only(&[app, D1])),
        ("somebody's digest elsewhere", held(&[app], &[D1, other_digest]), &[app], &[], only(&[app, D1])),
        ("a wanted digest of its own", held(&[app], &[D1]), &[app], &[D1], only(&[app])),
        ("tags in two repositories", held(&[app, other], &[D1, other_digest]), &[app, other], &[], Verdict::Image),
        ("a digest alone", held(&[], &[D1]), &[D1], &[], Verdict::Image),
        ("a digest beside another", held(&[], &[D1, other_digest]), &[D1], &[], only(&[D1])),
        ("a digest and its tag", held(&[app], &[D1]), &[D1, app], &[], Verdict::Image),
        ("a digest that a tag has", held(&[app], &[D1]), &[D1], &[],
            Verdict::Refused(format!("the same image is there as {app}, which stays"))),
        ("the same image asked for", held(&[app], &[D1]), &[app], &[app], Verdict::Refused("it is also asked for".into())),
        ("nothing", Evidence::default(), &[app], &[], Verdict::Gone),
        ("the tag is at another image by now", held(&[also], &[D1]), &[app], &[], Verdict::Gone),
    ];
    for (name, evidence, going, staying, expected) in cases {
        let verdict = decide(going[0], &wishes(going, staying), evidence);
        assert_eq!(verdict, *expected, "{name}");
    }
}

#[test]
fn what_a_container_uses_stays() {
    let going = wishes(&["r.io/app:v1"], &[]);
    let verdict = |evidence: &Evidence| decide("r.io/app:v1", &going, evidence);
    for name in ["sha256:c0", "c0", "r.io/app:v1", D1] {
        assert_eq!(
            verdict(&used_as(name)),
            Verdict::Refused("in use by container app of pod shop/web-1".into()),
            "{name}"
        );
    }
    for name in ["", "sha256:c", "r.io/app:v2"] {
        assert_eq!(verdict(&used_as(name)), Verdict::Image, "{name}");
    }
    let mut two = used_as("c0");
    two.containers.push(Container {
        pod: "web-0".into(),
        ..two.containers[0].clone()
    });
    assert_eq!(
        verdict(&two),
        Verdict::Refused("in use by container app of pod shop/web-0 and 1 more".into())
    );
}

#[test]
fn short_names_are_names() {
    let mut evidence = used_as("nginx");
    evidence.image = Some(Listing {
        tags: names(&["docker.io/library/nginx:latest"]),
        ..Listing::default()
    });
    let going = wishes(&["docker.io/library/nginx:latest"], &[]);
    let verdict = decide("docker.io/library/nginx:latest", &going, &evidence);
    assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
}

#[test]
fn the_image_of_every_pod_and_what_others_pinned_stay() {
    let going = wishes(&["r.io/app:v1"], &[]);
    let pause = Evidence {
        sandbox_image: Some("r.io/app:v1".into()),
        ..held(&["r.io/app:v1"], &[D1])
    };
    let pinned = Evidence {
        is_pinned_by_others: true,
        ..held(&["r.io/app:v1"], &[D1])
    };
    for (evidence, word) in [(pause, "every pod"), (pinned, "pinned")] {
        let verdict = decide("r.io/app:v1", &going, &evidence);
        assert!(
            matches!(&verdict, Verdict::Refused(why) if why.contains(word)),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_runtime_that_is_away_has_not_refused() {
    let failure = |reason| Failure {
        reason,
        message: "words".into(),
    };
    assert_eq!(
        refused_by_the_runtime(failure(FailureReason::Unknown)).reason,
        FailureReason::RemovalRefused
    );
    let away = failure(FailureReason::RuntimeUnavailable);
    assert_eq!(refused_by_the_runtime(away.clone()), away);
}
