use coral_registry::{
    Client, Keyring, Options,
    fake::{Behaviour, Fault, Image, Registry},
};
use serde_json::json;

use super::{super::turn::Few, *};
use crate::{Copier, Job, Silent};

/// An original, its two copies, and what it takes to look at them.
struct Scene {
    from: Registry,
    to: [Registry; 2],
    digest: String,
    image: ImageReference,
    ways: Ways,
}

impl Scene {
    async fn set() -> Self {
        let from = Registry::start(Behaviour::default()).await;
        let to = [
            Registry::start(Behaviour::default()).await,
            Registry::start(Behaviour::default()).await,
        ];
        let digest = Image::new("app", &[1000]).push(&from, "app", Some("v1"));
        let image: ImageReference = format!("{}/app:v1", from.host()).parse().unwrap();
        let copier = Copier::new(
            Client::new(Options::default()).unwrap(),
            Arc::new(Keyring::default()),
            crate::Options::default(),
        );
        let spec = json!({"images": ["a"], "destinations": [{"registry": to[0].host()}, {"registry": to[1].host()}]});
        let mirror = Arc::new(Mirror::new("m", serde_json::from_value(spec).unwrap()));
        let mut ways = Ways::new();
        for (index, to) in to.iter().enumerate() {
            let reference: ImageReference = format!("{}/app:v1", to.host()).parse().unwrap();
            let job = Job {
                source: image.clone(),
                destination: reference.clone(),
            };
            Box::pin(copier.copy(vec![job], Arc::new(Silent)))
                .await
                .remove(0)
                .result
                .unwrap();
            let target = Target {
                mirror: Arc::clone(&mirror),
                index,
                reference,
                digest: Some(digest.clone()),
                waits: false,
            };
            ways.push((target, Ok(Arc::new(Access::of(copier.clone())))));
        }
        for registry in [&from, &to[0], &to[1]] {
            registry.forget_asked();
        }
        Self {
            from,
            to,
            digest,
            image,
            ways,
        }
    }

    /// A turn of the original, and of copies by their places.
    fn turn(&self, original: bool, copies: &[usize], is_away: bool) -> Turn {
        Turn::Some(Few {
            original,
            copies: copies.iter().map(|place| self.ways[*place].0.key()).collect(),
            digest: self.digest.clone(),
            is_away,
        })
    }

    /// How many requests each registry got since this was asked the last time.
    fn asked(&self) -> [usize; 3] {
        [&self.from, &self.to[0], &self.to[1]].map(|registry| {
            let count = registry.asked().len();
            registry.forget_asked();
            count
        })
    }

    async fn ask(&self, turn: Turn) -> Answers {
        Box::pin(ask(&self.image, &self.ways, turn)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_is_one_request_when_nothing_changed() {
    let scene = Scene::set().await;
    for (original, copies, requests) in [(true, &[][..], [1, 0, 0]), (false, &[1][..], [0, 0, 1])] {
        let (origin, copies) = scene.ask(scene.turn(original, copies, false)).await;
        assert_eq!(scene.asked(), requests, "{original}");
        assert_eq!(origin.map(Result::unwrap), original.then(|| scene.digest.clone()));
        assert!(
            copies.iter().all(|(_, seen)| matches!(seen, Seen::Unchanged)),
            "{original}"
        );
    }
    let (_, copies) = scene.ask(Turn::Everybody).await;
    assert_eq!(scene.asked(), [1, 1, 1]);
    assert!(copies.iter().all(|(_, seen)| matches!(seen, Seen::Equal)));
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_asked_as_soon_as_something_has_changed() {
    // The tag moves.
    let scene = Scene::set().await;
    let newer = Image::new("newer", &[1000]).push(&scene.from, "app", Some("v1"));
    let (origin, copies) = scene.ask(scene.turn(true, &[], false)).await;
    assert_eq!((scene.asked(), origin), ([1, 1, 1], Some(Ok(newer))));
    assert!(copies.iter().all(|(_, seen)| matches!(seen, Seen::Missing)));

    // A copy is something else.
    let scene = Scene::set().await;
    Image::new("other", &[1000]).push(&scene.to[1], "app", Some("v1"));
    let (origin, copies) = scene.ask(scene.turn(false, &[1], false)).await;
    assert_eq!((scene.asked(), origin), ([1, 1, 2], Some(Ok(scene.digest.clone()))));
    assert!(matches!(copies[..], [(_, Seen::Equal), (_, Seen::Missing)]));

    // The original goes, and is known to be gone at the next look.
    let scene = Scene::set().await;
    scene.from.fail(|_| Some(Fault::Status(404, None)));
    let (origin, copies) = scene.ask(scene.turn(true, &[], false)).await;
    assert_eq!(scene.asked(), [1, 1, 1]);
    assert!(matches!(origin, Some(Err(verdict)) if verdict.reason == FailureReason::NotFound));
    assert!(copies.iter().all(|(_, seen)| matches!(seen, Seen::Unchanged)));
    let (_, copies) = scene.ask(scene.turn(true, &[0], true)).await;
    assert_eq!((scene.asked(), copies.len()), ([1, 1, 0], 1));
    // And comes back as it was.
    scene.from.fail(|_| None);
    let (origin, copies) = scene.ask(scene.turn(true, &[], true)).await;
    assert_eq!(
        (scene.asked(), origin, copies.len()),
        ([1, 0, 0], Some(Ok(scene.digest.clone())), 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_failed_is_left_alone_until_its_next_attempt() {
    let mut scene = Scene::set().await;
    scene.ways[1].0.waits = true;
    let (origin, copies) = scene.ask(Turn::Awake { is_away: false }).await;
    assert_eq!((scene.asked(), copies.len()), ([1, 1, 0], 1));
    assert_eq!(origin, Some(Ok(scene.digest.clone())));
    // What it waited for is there again.
    let (_, copies) = scene.ask(Turn::Awake { is_away: true }).await;
    assert_eq!((scene.asked(), copies.len()), ([1, 1, 1], 2));
    // Somebody wants to know.
    let (_, copies) = scene.ask(Turn::Everybody).await;
    assert_eq!((scene.asked(), copies.len()), ([1, 1, 1], 2));
}
