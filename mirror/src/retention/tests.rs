use std::collections::{BTreeMap, BTreeSet};

use coral_api::{MirroredImageSpec, MirroredImageStatus};
use coral_registry::{
    Client, Options,
    fake::{Behaviour, Image, Index, Registry},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::{collection, option, prelude::*, sample};
use serde_json::json;

use super::*;

const DAY: i64 = 24 * 3600;
const NOW: i64 = 1_000 * DAY;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn mirror(name: &str, images: &[&str], registries: &[&str], unused_for: Option<&str>, suspend: bool) -> Mirror {
    let destinations: Vec<_> = registries
        .iter()
        .map(|registry| json!({"registry": registry, "repositoryPrefix": "m"}))
        .collect();
    let retention = unused_for.map(|unused_for| json!({"unusedFor": unused_for}));
    let mut spec = json!({"images": images, "discover": {}, "destinations": destinations, "suspend": suspend});
    if let Some(retention) = retention {
        spec["retention"] = retention;
    }
    Mirror::new(name, serde_json::from_value(spec).unwrap())
}

fn image(image: &str, requested_by: &[&str], unused_since: Option<i64>) -> MirroredImage {
    let spec = MirroredImageSpec {
        image: image.to_owned(),
        requested_by: requested_by.iter().map(|&name| name.to_owned()).collect(),
        ..MirroredImageSpec::default()
    };
    MirroredImage {
        status: Some(MirroredImageStatus {
            unused_since: unused_since.map(|second| Time(at(second))),
            ..MirroredImageStatus::default()
        }),
        ..MirroredImage::new(&coral_api::mirrored_image::name(&image.parse().unwrap()), spec)
    }
}

/// A plan where nothing is in use, and nobody else has marks but those given, at `r.lan/m`.
fn planned(mirrors: &[Mirror], images: &[MirroredImage], in_use: &[&str], marks: Marks) -> Plan {
    let in_use = in_use.iter().map(|&image| image.to_owned()).collect();
    let marks = [("r.lan/m".to_owned(), marks)].into();
    plan(&Situation {
        mirrors: &mirrors.iter().collect::<Vec<_>>(),
        images: &images.iter().collect::<Vec<_>>(),
        in_use: &in_use,
        marks: &marks,
        cluster: "here",
        now: at(NOW),
    })
}

fn removed(plan: &Plan) -> Vec<String> {
    plan.removals
        .iter()
        .map(|removal| removal.reference.to_string())
        .collect()
}

const OLD: &str = "docker.io/library/old:1";
const COPY: &str = "r.lan/m/docker.io/library/old:1";

#[test]
fn what_nobody_has_used_for_long_enough_goes() {
    let keeps_a_week = || mirror("a", &[], &["r.lan"], Some("168h"), false);
    let read = || Marks::Read(Vec::new());
    let plan = planned(
        &[keeps_a_week()],
        &[image(OLD, &["a"], Some(NOW - 7 * DAY))],
        &[],
        read(),
    );
    assert_eq!(removed(&plan), [COPY]);
    assert_eq!(plan.removals[0].mirrors, BTreeSet::from(["a".to_owned()]));

    let cases: [(&str, Vec<Mirror>, MirroredImage, &[&str]); 8] = [
        (
            "not long enough",
            vec![keeps_a_week()],
            image(OLD, &["a"], Some(NOW - 7 * DAY + 1)),
            &[],
        ),
        ("used", vec![keeps_a_week()], image(OLD, &["a"], None), &[]),
        (
            "used, and its status does not know yet",
            vec![keeps_a_week()],
            image(OLD, &["a"], Some(0)),
            &[OLD],
        ),
        (
            "named by a Mirror",
            vec![keeps_a_week(), mirror("b", &["old:1"], &["o.lan"], None, false)],
            image(OLD, &["a"], Some(0)),
            &[],
        ),
        (
            "kept for ever",
            vec![mirror("a", &[], &["r.lan"], None, false)],
            image(OLD, &["a"], Some(0)),
            &[],
        ),
        (
            "suspended",
            vec![mirror("a", &[], &["r.lan"], Some("1h"), true)],
            image(OLD, &["a"], Some(0)),
            &[],
        ),
        (
            "the same copy of another Mirror, which keeps it",
            vec![keeps_a_week(), mirror("b", &[], &["r.lan"], Some("8760h"), false)],
            image(OLD, &["a", "b"], Some(NOW - 8 * DAY)),
            &[],
        ),
        ("of a Mirror that is gone", vec![], image(OLD, &["a"], Some(0)), &[]),
    ];
    for (case, mirrors, image, in_use) in cases {
        let plan = planned(&mirrors, &[image], in_use, read());
        assert!(plan.removals.is_empty(), "{case}: {plan:?}");
    }
}

#[test]
fn what_other_clusters_need_stays() {
    let mirrors = [mirror("a", &[], &["r.lan"], Some("1h"), false)];
    let images = [image(OLD, &["a"], Some(0))];
    let mark = |cluster: &str, age: i64, reference: &str| {
        Marks::Read(vec![Mark {
            cluster: cluster.to_owned(),
            written_at: at(NOW - age),
            references: BTreeSet::from([reference.to_owned()]),
        }])
    };
    let spelling = "m/docker.io/library/old:1";
    for (case, marks, stays) in [
        (
            "it needs it",
            mark("there", DAY, spelling),
            Some(Reason::Cluster("there".to_owned())),
        ),
        (
            "it needs another",
            mark("there", DAY, "m/docker.io/library/old:2"),
            None,
        ),
        (
            "it has been silent for a month",
            mark("there", 30 * DAY, spelling),
            None,
        ),
        ("this cluster's own", mark("here", 0, spelling), None),
        (
            "nobody knows",
            Marks::Unreadable("down".to_owned()),
            Some(Reason::MarksUnreadable("down".to_owned())),
        ),
    ] {
        let plan = planned(&mirrors, &images, &[], marks);
        assert_eq!(plan.removals.is_empty(), stays.is_some(), "{case}");
        let why = plan.kept.first().map(|kept| kept.why.clone());
        assert_eq!(why, stays, "{case}");
    }
}

#[test]
fn object_goes_when_no_mirror_is_left() {
    let object = image(OLD, &["a", "b"], Some(0));
    let removal = |mirrors: &[&str]| Removal {
        image: OLD.to_owned(),
        reference: COPY.parse().unwrap(),
        mirrors: mirrors.iter().map(|&mirror| mirror.to_owned()).collect(),
        unused_since: at(0),
    };
    let (of_a, of_both) = (removal(&["a"]), removal(&["a", "b"]));
    assert_eq!(left(&object, &[&of_a], &[]), Some(vec!["b".to_owned()]));
    assert_eq!(left(&object, &[&of_both], &[]), None);
    assert_eq!(left(&object, &[&of_both], &[&of_a]), Some(vec!["a".to_owned()]));
    let other = Removal {
        image: "docker.io/library/other:1".to_owned(),
        ..of_both
    };
    assert_eq!(left(&object, &[&other], &[]), Some(object.spec.requested_by.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn tag_goes_and_what_another_tag_names_stays() {
    let registry = Registry::start(Behaviour::default()).await;
    let content = Image::new("same", &[100]);
    content.push(&registry, "m/app", Some("old"));
    content.push(&registry, "m/app", Some("new"));
    let client = Client::new(Options::default()).unwrap();
    let removal = Removal {
        image: OLD.to_owned(),
        reference: format!("{}/m/app:old", registry.host()).parse().unwrap(),
        mirrors: BTreeSet::new(),
        unused_since: at(0),
    };
    let ended = carry_out(vec![removal], |removal| {
        Some(client.repository(&removal.reference, None))
    })
    .await;
    assert!(ended[0].1.is_ok(), "{ended:?}");
    assert_eq!(registry.manifest("m/app", "old"), None);
    assert!(registry.manifest("m/app", "new").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_tag_named_goes_with_it() {
    let registry = Registry::start(Behaviour::default()).await;
    let image = |note: &str| Image::new(note, &[100]);
    let index = Index {
        images: vec![("linux/amd64", image("shared")), ("linux/arm64", image("alone"))],
    };
    let (digest, children) = index.push(&registry, "m/app", Some("old"));
    // A tag of one of its images, and the signatures of the index and of that image.
    let shared = image("shared").push(&registry, "m/app", Some("amd64"));
    assert_eq!(shared, children[0]);
    let signature = |digest: &str| format!("{}.sig", digest.replacen(':', "-", 1));
    for signed in [&digest, &shared] {
        image(&format!("signature {signed}")).push(&registry, "m/app", Some(&signature(signed)));
    }
    let client = Client::new(Options::default()).unwrap();
    let reference: ImageReference = format!("{}/m/app:old", registry.host()).parse().unwrap();
    tag::remove(&client.repository(&reference, None), "old").await.unwrap();
    let has = |reference: &str| registry.manifest("m/app", reference).is_some();
    for gone in ["old", &digest, &children[1], &signature(&digest)] {
        assert!(!has(gone), "{gone} is there");
    }
    for there in ["amd64", &shared, &signature(&shared)] {
        assert!(has(there), "{there} is gone");
    }
    tag::remove(&client.repository(&reference, None), "old").await.unwrap();
}

const NAMES: [&str; 4] = ["a:1", "a:2", "b:1", "c:1"];
const MIRRORS: [&str; 3] = ["x", "y", "z"];

fn any_mirrors() -> impl Strategy<Value = Vec<Mirror>> {
    let of = |name: &'static str| {
        (
            sample::subsequence(NAMES.to_vec(), 0..=2),
            sample::subsequence(vec!["r.lan", "s.lan"], 1..=2),
            option::of(sample::select(vec!["1m", "24h", "720h"])),
            prop::bool::weighted(0.1),
        )
            .prop_map(move |(images, registries, unused_for, suspend)| {
                mirror(name, &images, &registries, unused_for, suspend)
            })
    };
    MIRRORS.map(of).to_vec()
}

fn any_images() -> impl Strategy<Value = Vec<MirroredImage>> {
    let of = |name: &'static str| {
        (
            sample::subsequence(MIRRORS.to_vec(), 0..=3),
            option::weighted(0.8, NOW - 40 * DAY..=NOW),
        )
            .prop_map(move |(requested_by, unused_since)| image(name, &requested_by, unused_since))
    };
    NAMES.map(of).to_vec()
}

fn any_marks() -> impl Strategy<Value = BTreeMap<String, Marks>> {
    let mark = (
        sample::select(vec!["here", "there", "elsewhere"]),
        NOW - 60 * DAY..=NOW,
        sample::subsequence(NAMES.to_vec(), 0..=2),
    )
        .prop_map(|(cluster, second, names)| Mark {
            cluster: cluster.to_owned(),
            written_at: at(second),
            references: names.iter().map(|name| format!("m/docker.io/library/{name}")).collect(),
        });
    let marks = prop_oneof![
        4 => collection::vec(mark, 0..3).prop_map(Marks::Read),
        1 => Just(Marks::Unreadable("down".to_owned())),
    ];
    collection::btree_map(
        sample::select(vec!["r.lan/m", "s.lan/m"]).prop_map(str::to_owned),
        marks,
        0..=2,
    )
}

proptest! {
    /// Told by the rules themselves, one by one, and not by the plan's own steps.
    #[test]
    fn nothing_in_use_is_ever_in_the_plan(
        mirrors in any_mirrors(),
        images in any_images(),
        in_use in sample::subsequence(NAMES.to_vec(), 0..=2),
        marks in any_marks(),
    ) {
        let identity = |name: &str| name.parse::<ImageReference>().unwrap().identity();
        let in_use: BTreeSet<String> = in_use.into_iter().map(identity).collect();
        let now = at(NOW);
        let plan = plan(&Situation {
            mirrors: &mirrors.iter().collect::<Vec<_>>(),
            images: &images.iter().collect::<Vec<_>>(),
            in_use: &in_use,
            marks: &marks,
            cluster: "here",
            now,
        });
        let mut seen = BTreeSet::new();
        for removal in &plan.removals {
            prop_assert!(seen.insert(removal.reference.clone()), "twice");
            prop_assert!(removal.reference.digest().is_none() && removal.reference.tag().is_some());
            prop_assert!(!in_use.contains(&removal.image));
            let (registry, rest) = (removal.reference.registry(), removal.reference.repository());
            for mirror in &mirrors {
                prop_assert!(mirror.spec.images.iter().all(|image| identity(image) != removal.image));
                let object = images.iter().find(|image| identity(&image.spec.image) == removal.image).unwrap();
                let has_it = mirror.spec.destinations.iter().any(|destination| destination.registry == registry);
                if !object.spec.requested_by.contains(&mirror.name_any()) || !has_it {
                    continue;
                }
                let since = object.status.as_ref().unwrap().unused_since.as_ref().unwrap().0;
                let unused_for = mirror.spec.retention.as_ref().unwrap().unused_for;
                let unused_for = SignedDuration::try_from(std::time::Duration::from(unused_for)).unwrap();
                prop_assert!(!mirror.spec.suspend && now.duration_since(since) >= unused_for);
            }
            let Some(Marks::Read(marks)) = marks.get(&format!("{registry}/m")) else {
                return Err(TestCaseError::fail("removed without knowing what others need"));
            };
            let name = format!("{rest}:{}", removal.reference.tag().unwrap());
            for mark in marks.iter().filter(|mark| mark.cluster != "here") {
                let is_fresh = now.duration_since(mark.written_at) < MARK_LASTS;
                prop_assert!(!is_fresh || !mark.references.contains(&name));
            }
        }
    }
}
