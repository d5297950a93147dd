//! Images wait for room on the disk.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use coral_api::{
    FailureReason, NodeImagesStatus,
    node_images::{ImageFailure, ImageState},
};
use coral_tests::{
    bad_registry::{BadRegistry, Misbehaviour},
    cri::Flavour,
    hollow::Site,
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::hollow::{A_LOOK, Hollow, SOON, image, name, of, state};

const GIB: i64 = 1 << 30;

/// What an image waits for, when it is room.
fn waits_for_space<'a>(status: &'a NodeImagesStatus, image: &str) -> Option<&'a ImageFailure> {
    let image = of(status, image).filter(|image| image.state == ImageState::Waiting)?;
    image
        .failure
        .as_ref()
        .filter(|failure| failure.reason == FailureReason::NoSpace)
}

pub(crate) async fn an_image_that_does_not_fit_waits_until_it_does(site: Site) {
    let registry = BadRegistry::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let small = registry.image(Misbehaviour::None);
    let huge = registry.image(Misbehaviour::HugeLayer);
    let node = Hollow::new(&site, "room", Flavour::Containerd);
    node.has_space(20 * GIB, 100 * GIB);
    let images = [&huge, &small].map(|image| json!({"image": image}));
    let node = node.started(2, &images).await;
    let is_so = |status: &NodeImagesStatus| {
        waits_for_space(status, &huge).is_some() && state(status, &small) == Some(ImageState::Present)
    };
    let status = node
        .until("the small image to be there, and the other to wait", SOON, is_so)
        .await;
    let failure = waits_for_space(&status, &huge).unwrap();
    for words in ["3.5 TiB", "20.0 GiB of 100.0 GiB are free", "15.0 GiB are to stay free"] {
        assert!(failure.message.contains(words), "{}", failure.message);
    }
    assert_eq!((failure.attempts, &failure.next_attempt_time), (0, &None));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(node.runtime.attempts_at(&huge).is_empty());

    node.has_space(9_000 * GIB, 10_000 * GIB);
    node.all_present(A_LOOK).await;
    assert_eq!(node.runtime.counts().begun, 2);
}

pub(crate) async fn in_the_reserve_nothing_begins_and_nothing_is_written_over_and_over(site: Site) {
    let node = Hollow::new(&site, "reserve", Flavour::CriO);
    node.has_space(10 * GIB, 100 * GIB);
    let node = node.started(2, &[image("a"), image("b")]).await;
    let wait = |status: &NodeImagesStatus| {
        ["a", "b"]
            .iter()
            .all(|short| waits_for_space(status, &name(short)).is_some())
    };
    node.until("both to wait", SOON, wait).await;
    let writes = node.writes();
    for step in 0..12 {
        node.has_space(10 * GIB - step * (1 << 20), 100 * GIB);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((node.writes(), node.runtime.counts().begun), (writes, 0));
    // More than the figures that were told allow for.
    node.has_space(5 * GIB, 100 * GIB);
    let told = |status: &NodeImagesStatus| {
        waits_for_space(status, &name("a")).is_some_and(|failure| failure.message.contains("5.0 GiB of"))
    };
    node.until("the new figures", A_LOOK, told).await;
    node.has_space(90 * GIB, 100 * GIB);
    node.all_present(A_LOOK).await;
}

/// One registry takes connections and says nothing, another says that it is not well.
pub(crate) async fn a_registry_that_does_not_tell_the_size_holds_nothing_up_for_long(site: Site) {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent_image = format!("{}/app:v1", silent.local_addr().unwrap());
    let questions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&questions);
    let task = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            connections.push(connection);
        }
    });
    let registry = BadRegistry::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let unwell = registry.image(Misbehaviour::ServiceUnavailable);

    let node = Hollow::new(&site, "untold", Flavour::Containerd);
    node.has_space(20 * GIB, 100 * GIB);
    let images = [&silent_image, &unwell].map(|image| json!({"image": image}));
    let began = Instant::now();
    let node = node.started(2, &images).await;
    node.all_present(SOON).await;
    // The question has 5 s; the client would wait for 30 s.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(questions.load(Ordering::Relaxed), 1);
    task.abort();
}

/// Each of the images fits, but not both.
pub(crate) async fn pulls_under_way_need_room_too(site: Site) {
    let registry = BadRegistry::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let first = registry.image(Misbehaviour::None);
    // Its layer is not to be had from this registry, but nobody asks for it.
    let second = registry.image(Misbehaviour::BlobUnknown);
    let node = Hollow::new(&site, "together", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_secs(3), None);
    // Each takes some 15 kB, and 150 kB are the reserve.
    node.has_space(170_000, 1_000_000);
    let images = [&first, &second].map(|image| json!({"image": image}));
    let node = node.started(2, &images).await;
    // Whichever the registry tells of first begins.
    let one_waits = |status: &NodeImagesStatus| {
        [(&first, &second), (&second, &first)].into_iter().any(|(waits, runs)| {
            waits_for_space(status, waits).is_some_and(|failure| failure.message.contains("for pulls under way"))
                && state(status, runs) == Some(ImageState::Pulling)
        })
    };
    node.until("one of them to wait", SOON, one_waits).await;
    node.all_present(SOON).await;
    let counts = node.runtime.counts();
    assert_eq!((counts.begun, counts.most_at_once), (2, 1));
}

pub(crate) async fn the_agent_tells_how_much_room_there_is(site: Site) {
    let node = Hollow::new(&site, "tells-room", Flavour::Containerd);
    node.has_real_space();
    let folder = tempfile::tempdir().unwrap();
    node.runtime.set_image_folder(folder.path().to_str().unwrap());
    let node = node.started(2, &[image("a")]).await;
    let tells = |status: &NodeImagesStatus| {
        let filesystem = status.image_filesystem.unwrap_or_default();
        let (Some(free), Some(capacity)) = (filesystem.free_bytes, filesystem.capacity_bytes) else {
            return false;
        };
        free > 0 && free <= capacity
    };
    node.until("the room to be told", SOON, tells).await;

    // Of a folder that it does not see it says nothing, and pulls all the same.
    let blind = Hollow::new(&site, "blind", Flavour::CriO);
    blind.has_real_space();
    blind.runtime.set_image_folder("/nonexistent/storage/overlay-images");
    let blind = blind.started(2, &[image("a")]).await;
    let status = blind.all_present(SOON).await;
    let filesystem = status.image_filesystem.unwrap();
    assert_eq!((filesystem.free_bytes, filesystem.capacity_bytes), (None, None));
}
