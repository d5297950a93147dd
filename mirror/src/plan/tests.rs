//! Tables of cases: what is sent, what is mounted, and in which order.

use super::*;

fn repository(name: &str) -> Repository {
    let (registry, path) = name.split_once('/').unwrap();
    Repository {
        registry: registry.to_owned(),
        path: path.to_owned(),
    }
}

/// `source destination blob:size blob:size …`
fn wanted(text: &str) -> Wanted {
    let mut words = text.split(' ');
    let (source, destination) = (words.next().unwrap(), words.next().unwrap());
    let blob = |word: &str| {
        let (digest, size) = word.split_once(':').unwrap();
        Descriptor {
            digest: digest.to_owned(),
            size: size.parse().unwrap(),
            ..Descriptor::default()
        }
    };
    Wanted {
        source: repository(source),
        destination: repository(destination),
        blobs: words.map(blob).collect(),
    }
}

fn shown(placement: &Placement) -> String {
    let Placement {
        destination,
        digest,
        step,
        after,
        ..
    } = placement;
    let place = format!("{digest} {}/{}", destination.registry, destination.path);
    match (step, after) {
        (Step::Present, _) => format!("have {place}"),
        (Step::Send, _) => format!("send {place}"),
        (Step::Mount { from }, None) => format!("mount {place} from {from}"),
        (Step::Mount { from }, Some(after)) => format!("mount {place} from {from} after {after}"),
    }
}

/// Images, what is there, and what is done.
type Case<'text> = (
    &'text [&'text str],
    &'text [(&'text str, &'text str)],
    &'text [&'text str],
);

#[test]
fn each_blob_is_sent_once_to_each_registry() {
    let cases: &[Case] = &[
        (
            &["o/a d/a x:1 y:3 z:2"],
            &[],
            &["send y d/a", "send z d/a", "send x d/a"],
        ),
        (&["o/a d/a x:1 y:1"], &[("d/a", "x")], &["have x d/a", "send y d/a"]),
        // The same blob twice in one image, and in two images of one repository.
        (&["o/a d/a x:1 x:1", "o/a d/a x:1"], &[], &["send x d/a"]),
        // Over images: sent to the first, mounted into the others when it is there.
        (
            &["o/a d/a x:1 y:2", "o/b d/b x:1", "p/c d/c x:1"],
            &[],
            &[
                "send y d/a",
                "send x d/a",
                "mount x d/b from a after 1",
                "mount x d/c from a after 1",
            ],
        ),
        // What a sibling has is mounted at once, whichever comes first.
        (
            &["o/a d/a x:1", "o/b d/b x:1"],
            &[("d/b", "x")],
            &["have x d/b", "mount x d/a from b"],
        ),
        // Each registry gets its own.
        (&["o/a d/a x:1", "o/a e/a x:1"], &[], &["send x d/a", "send x e/a"]),
        // Within one registry nothing is sent, and within one repository nothing is done.
        (&["d/a d/b x:1"], &[], &["mount x d/b from a"]),
        (&["d/a d/a x:1"], &[], &["have x d/a"]),
        (&[], &[], &[]),
    ];
    for (images, present, expected) in cases {
        let images: Vec<Wanted> = images.iter().map(|text| wanted(text)).collect();
        let presence = present
            .iter()
            .map(|(name, digest)| (repository(name), (*digest).to_owned()))
            .collect();
        let (placements, needs) = place(&images, &presence);
        let steps: Vec<String> = placements.iter().map(shown).collect();
        assert_eq!(&steps, expected);
        for (image, needs) in images.iter().zip(&needs) {
            let distinct: BTreeSet<&str> = image.blobs.iter().map(|blob| blob.digest.as_str()).collect();
            assert_eq!(needs.len(), distinct.len(), "an image waits for each of its blobs");
            let is_own = |index: &usize| placements[*index].destination == image.destination;
            assert!(needs.iter().all(is_own));
        }
        for (index, placement) in placements.iter().enumerate() {
            assert!(placement.after.is_none_or(|after| after < index));
        }
    }
}

#[test]
fn manifests_come_after_what_they_name() {
    let tree = |edges: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
        edges
            .iter()
            .map(|(parent, children)| {
                let children = children.iter().map(|child| (*child).to_owned()).collect();
                ((*parent).to_owned(), children)
            })
            .collect()
    };
    assert_eq!(groups("image", &tree(&[("image", &[])])), [["image"]]);
    assert_eq!(
        groups("index", &tree(&[("index", &["b", "a"])])),
        [vec!["a", "b"], vec!["index"]]
    );
    assert_eq!(
        groups("top", &tree(&[("top", &["index", "a"]), ("index", &["a", "b"])])),
        [vec!["a", "b"], vec!["index"], vec!["top"]]
    );
    // What can only be a lie has an end, too.
    let _ = groups("a", &tree(&[("a", &["b"]), ("b", &["a"])]));
}
