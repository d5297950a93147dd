use coral_api::MirroredImageSpec;
use serde_json::{Value, json};

use super::*;

fn mirror(name: &str, spec: &Value) -> Mirror {
    let mut object = json!({"destinations": [{"registry": "r.lan", "repositoryPrefix": "m"}]});
    object
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    Mirror::new(name, serde_json::from_value(object).unwrap())
}

fn user(kind: Kind, namespace: &str, app: &str, images: &[&str]) -> User {
    User {
        kind,
        namespace: namespace.to_owned(),
        name: app.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        images: images.iter().map(|image| identity(image)).collect(),
        is_history: false,
    }
}

fn identity(image: &str) -> String {
    image.parse::<ImageReference>().unwrap().identity()
}

fn found(mirrors: &[Mirror], users: &[User], images: &[MirroredImage]) -> BTreeMap<String, Wanted> {
    let namespaces = [("shop", "a"), ("bank", "b")].map(|(name, team)| {
        let labels: Labels = [("team".to_owned(), team.to_owned())].into();
        (name.to_owned(), labels)
    });
    desired(&Cluster {
        mirrors: &mirrors.iter().collect::<Vec<_>>(),
        users: &users.iter().collect::<Vec<_>>(),
        namespaces: &namespaces.into(),
        images: &images.iter().collect::<Vec<_>>(),
    })
}

/// The images that are to have copies, in their short form, with the Mirrors that want them.
fn wanted(desired: &BTreeMap<String, Wanted>) -> Vec<String> {
    let images = desired.values();
    let lines = images.map(|wanted| format!("{} {}", wanted.image.familiar(), wanted.requested_by.join("+")));
    lines.collect()
}

#[test]
fn images_are_found_where_a_mirror_looks() {
    let users = [
        user(Kind::Pod, "shop", "web", &["nginx:1", "registry.internal/team/x:1"]),
        user(Kind::Deployment, "bank", "db", &["postgres:17"]),
        user(Kind::Prefetch, "shop", "model", &["ghcr.io/acme/model:1"]),
        User {
            is_history: true,
            ..user(Kind::ReplicaSet, "shop", "old", &["nginx:0"])
        },
        // A pod that nobody has said the original of, at a copy.
        user(Kind::Pod, "shop", "copy", &["r.lan/m/docker.io/library/redis:7"]),
    ];
    let in_shop = json!({"matchLabels": {"team": "a"}});
    let cases: [(&str, Value, &[&str]); 7] = [
        (
            "named",
            json!({"images": ["nginx", "nginx:latest"]}),
            &["nginx:latest m"],
        ),
        (
            "all",
            json!({"discover": {}}),
            &[
                "nginx:1 m",
                "postgres:17 m",
                "ghcr.io/acme/model:1 m",
                "registry.internal/team/x:1 m",
            ],
        ),
        (
            "of a namespace",
            json!({"discover": {"namespaceSelector": in_shop}}),
            &["nginx:1 m", "ghcr.io/acme/model:1 m", "registry.internal/team/x:1 m"],
        ),
        (
            "of pods",
            json!({"discover": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}}}),
            &["nginx:1 m", "postgres:17 m", "registry.internal/team/x:1 m"],
        ),
        (
            "but for some",
            json!({"discover": {"exclude": ["*.internal/**", "docker.io/library/post*"]}}),
            &["nginx:1 m", "ghcr.io/acme/model:1 m"],
        ),
        (
            "named, though excluded",
            json!({"images": ["registry.internal/team/x:1"], "discover": {"exclude": ["**"]}}),
            &["registry.internal/team/x:1 m"],
        ),
        (
            "a selector that is none",
            json!({"discover": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}),
            &[],
        ),
    ];
    for (case, spec, expected) in cases {
        let desired = found(&[mirror("m", &spec)], &users, &[]);
        assert_eq!(wanted(&desired), expected, "{case}");
    }
}

#[test]
fn users_are_counted_and_history_keeps_an_image_in_use() {
    let mut users: Vec<User> = (0..10)
        .map(|number| user(Kind::Pod, "shop", &format!("p{number}"), &["nginx:1"]))
        .collect();
    users.push(User {
        is_history: true,
        ..user(Kind::ReplicaSet, "shop", "old", &["nginx:1", "nginx:0"])
    });
    let old = MirroredImage::new(
        "x",
        MirroredImageSpec {
            image: identity("nginx:0"),
            requested_by: vec!["m".to_owned()],
            ..MirroredImageSpec::default()
        },
    );
    let desired = found(&[mirror("m", &json!({"discover": {}}))], &users, &[old]);
    let of = |image: &str| &desired[&identity(image)];
    assert_eq!(of("nginx:1").used_by.count, 11);
    assert_eq!(of("nginx:1").used_by.sample.len(), MAX_SAMPLE);
    assert_eq!(of("nginx:1").used_by.sample[0], "Pod shop/p0");
    assert!(of("nginx:0").is_used);
}

#[test]
fn copies_stay_wanted_until_they_are_removed() {
    let of = |requested_by: &[&str], rewrite| {
        let spec = MirroredImageSpec {
            image: identity("nginx:1"),
            requested_by: requested_by.iter().map(|&name| name.to_owned()).collect(),
            rewrite,
        };
        MirroredImage::new("x", spec)
    };
    let mirrors = [
        mirror("a", &json!({"discover": {}, "rewrite": "Always"})),
        mirror(
            "b",
            &json!({"discover": {"exclude": ["docker.io/library/*"]}, "rewrite": "Always"}),
        ),
        mirror(
            "c",
            &json!({"images": ["nginx:1"], "rewrite": "OnFailure", "suspend": true}),
        ),
    ];
    // Nobody uses it any more, and one of those that wanted it is gone.
    let desired = found(&mirrors[..2], &[], &[of(&["a", "b", "gone"], Rewrite::Never)]);
    let wanted = &desired[&identity("nginx:1")];
    assert_eq!(wanted.requested_by, ["a", "b"]);
    assert_eq!((wanted.is_used, wanted.rewrite), (false, Rewrite::Always));
    // Who leaves it out now does not keep it up to date, nor sends pods there; who is suspended still sends pods there.
    assert_eq!(wanted.kept_by, BTreeSet::from(["a".to_owned()]));
    let desired = found(&mirrors[1..], &[], &[of(&["b"], Rewrite::Always)]);
    let wanted = &desired[&identity("nginx:1")];
    assert_eq!(wanted.requested_by, ["b", "c"]);
    assert_eq!((wanted.is_used, wanted.rewrite), (true, Rewrite::OnFailure));
    assert!(wanted.kept_by.is_empty());
    // Nobody is left: the object goes.
    assert!(found(&[], &[], &[of(&["a"], Rewrite::Never)]).is_empty());
}
