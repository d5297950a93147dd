//! Which blobs are sent, and how.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_blob_is_sent_once_over_all_images() {
    let (from, to) = registries().await;
    let base = Image::new("base", &[100_000]).layers[0].clone();
    let mut jobs = Vec::new();
    let mut distinct = base.len();
    for name in ["a", "b", "c", "d"] {
        let mut image = Image::new(name, &[1000]);
        image.layers.insert(0, base.clone());
        image.push(&from, name, Some("v1"));
        distinct += 1000 + format!(r#"{{"note":"{name}"}}"#).len();
        jobs.push(job(&from, &format!("{name}:v1"), &to, &format!("{name}:v1")));
    }
    let moved = Arc::new(Moved::default());
    let observer: Arc<dyn Observer> = Arc::clone(&moved) as _;
    let outcomes = copier(Options::default(), Keyring::default())
        .copy(jobs, observer)
        .await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    assert_eq!(to.received_bytes(), distinct);
    assert_eq!(moved.0.load(SeqCst), distinct as u64);
    for name in ["a", "b", "c", "d"] {
        assert!(to.has_blob(name, &coral_registry::digest(&base)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_mounts_nothing_gets_what_it_needs() {
    let from = Registry::start(Behaviour::default()).await;
    let to = Registry::start(Behaviour {
        mounts: false,
        ..Behaviour::default()
    })
    .await;
    let image = Image::new("same", &[1000]);
    let jobs = ["a", "b"].map(|name| {
        image.push(&from, name, Some("v1"));
        job(&from, &format!("{name}:v1"), &to, &format!("{name}:v1"))
    });
    let outcomes = copy(jobs.to_vec()).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    assert!(to.manifest("b", "v1").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn within_one_registry_nothing_is_sent() {
    let registry = Registry::start(Behaviour::default()).await;
    let digest = Image::new("app", &[5000]).push(&registry, "a", Some("v1"));
    let jobs = vec![
        job(&registry, "a:v1", &registry, "b:v1"),
        job(&registry, "a:v1", &registry, "a:v2"),
    ];
    let outcomes = copy(jobs).await;
    assert_eq!(copied(&outcomes[0]).0, digest);
    assert_eq!(copied(&outcomes[1]).0, digest);
    assert_eq!(registry.received_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_no_large_bodies_gets_pieces() {
    let from = Registry::start(Behaviour::default()).await;
    let to = Registry::start(Behaviour {
        largest_body: Some(5 * 1024 * 1024),
        ..Behaviour::default()
    })
    .await;
    let layer = Bytes::from(vec![7; 9 * 1024 * 1024]);
    let image = Image {
        layers: vec![layer.clone()],
        ..Image::new("large", &[])
    };
    let digest = image.push(&from, "app", Some("v1"));
    let outcomes = copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    assert_eq!(copied(&outcomes[0]), (digest, State::Copied));
    assert!(to.has_blob("app", &coral_registry::digest(&layer)));
    let pieces: Vec<usize> = to
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "PATCH")
        .map(|asked| asked.bytes)
        .collect();
    let mebibyte = 1024 * 1024;
    assert_eq!(pieces, [4 * mebibyte, 4 * mebibyte, mebibyte]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_would_be_sent_and_writes_nothing() {
    let (from, to) = registries().await;
    Image::new("app", &[1000]).push(&from, "app", Some("v1"));
    let copier = copier(Options::default(), Keyring::default());
    let prepared = copier.prepare(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    assert_eq!(prepared.bytes_to_send(), 1000 + r#"{"note":"app"}"#.len() as u64);
    assert!(
        to.asked().iter().all(|asked| asked.method == "HEAD"),
        "{:?}",
        to.asked()
    );
}

/// Images that share one large layer, in a registry, and the jobs to copy each.
fn family(from: &Registry, to: &Registry, names: &[&str]) -> (Bytes, Vec<Job>) {
    let base = Image::new("base", &[2_000_000]).layers[0].clone();
    let jobs = names.iter().map(|name| {
        let mut image = Image::new(name, &[1000]);
        image.layers.insert(0, base.clone());
        image.push(from, name, Some("v1"));
        job(from, &format!("{name}:v1"), to, &format!("{name}:v1"))
    });
    let jobs = jobs.collect();
    (base, jobs)
}

fn all_are_copied(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| outcome.result.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_copy_brought_is_not_sent_again() {
    let (from, to) = registries().await;
    let (base, jobs) = family(&from, &to, &["a", "b", "c"]);
    let first = copier(Options::default(), Keyring::default());
    let silent = || Arc::new(coral_mirror::Silent);
    let outcomes = Box::pin(first.copy(jobs[..1].to_vec(), silent())).await;
    let digest = copied(&outcomes[0]).0;
    assert!(to.received_bytes() > base.len());
    to.forget_asked();
    assert!(all_are_copied(
        &Box::pin(first.copy(jobs[1..2].to_vec(), silent())).await
    ));
    assert!(to.received_bytes() < base.len(), "{} bytes", to.received_bytes());
    assert!(to.has_blob("b", &coral_registry::digest(&base)));

    // One that comes after it, and knows which copies there are.
    to.forget_asked();
    let second = copier(Options::default(), Keyring::default());
    Box::pin(second.recall(vec![(jobs[0].destination.clone(), digest)])).await;
    assert!(all_are_copied(
        &Box::pin(second.copy(jobs[2..].to_vec(), silent())).await
    ));
    assert!(to.received_bytes() < base.len(), "{} bytes", to.received_bytes());
    assert!(to.has_blob("c", &coral_registry::digest(&base)));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_made_at_the_same_time_send_what_they_share_once() {
    let (from, to) = registries().await;
    let (base, jobs) = family(&from, &to, &["a", "b", "c", "d"]);
    let copier = copier(Options::default(), Keyring::default());
    let copying = jobs.into_iter().map(|job| {
        let copier = copier.clone();
        async move { Box::pin(copier.copy(vec![job], Arc::new(coral_mirror::Silent))).await }
    });
    let outcomes = futures::future::join_all(copying).await.concat();
    assert!(all_are_copied(&outcomes), "{outcomes:?}");
    assert!(to.received_bytes() < 2 * base.len(), "{} bytes", to.received_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_believed_to_be_there_and_is_not_is_sent() {
    let (from, to) = registries().await;
    let (base, jobs) = family(&from, &to, &["a", "b"]);
    let copier = copier(Options::default(), Keyring::default());
    let silent = || Arc::new(coral_mirror::Silent);
    assert!(all_are_copied(
        &Box::pin(copier.copy(jobs[..1].to_vec(), silent())).await
    ));
    // Its collector has been there.
    to.remove_blob("a", &coral_registry::digest(&base));
    assert!(all_are_copied(
        &Box::pin(copier.copy(jobs[1..].to_vec(), silent())).await
    ));
    assert!(to.has_blob("b", &coral_registry::digest(&base)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_leaves_a_shared_blob_to_the_others() {
    let (from, to) = registries().await;
    let (_, jobs) = family(&from, &to, &["a", "b"]);
    // The first large upload is refused for good; nobody may wait for it for ever.
    to.fail(|asked| {
        (asked.method == "PUT" && asked.bytes > 1_000_000 && asked.before == 0).then_some(Fault::Status(403, None))
    });
    let copier = copier(Options::default(), Keyring::default());
    let copying = jobs.into_iter().map(|job| {
        let copier = copier.clone();
        async move { Box::pin(copier.copy(vec![job], Arc::new(coral_mirror::Silent))).await }
    });
    let copying = futures::future::join_all(copying);
    let outcomes = tokio::time::timeout(Duration::from_mins(1), copying)
        .await
        .unwrap()
        .concat();
    assert!(outcomes.iter().any(|outcome| outcome.result.is_ok()), "{outcomes:?}");
}
