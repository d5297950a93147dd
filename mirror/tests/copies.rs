//! Copies between registries that behave, and from and to those that do not.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use coral_mirror::{Copied, Copier, Error, Job, Observer, Options, Outcome, State};
use coral_registry::{
    Client, Error as RegistryError, Keyring, Patience, RedirectRefusal,
    fake::{Asked, Behaviour, Fault, Image, Index, Registry},
};

/// A copier that is patient, but not for long.
fn copier(options: Options, keyring: Keyring) -> Copier {
    let client = Client::new(coral_registry::Options {
        timeout: Duration::from_secs(20),
        patience: Patience {
            attempts: 4,
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_secs(2),
        },
        ..coral_registry::Options::default()
    });
    Copier::new(client.unwrap(), Arc::new(keyring), options)
}

/// Bytes that count at the end.
#[derive(Default)]
struct Moved(AtomicU64);

impl Observer for Moved {
    fn moved(&self, bytes: u64) {
        self.0.fetch_add(bytes, SeqCst);
    }

    fn moved_in_vain(&self, bytes: u64) {
        self.0.fetch_sub(bytes, SeqCst);
    }
}

async fn registries() -> (Registry, Registry) {
    let start = || Registry::start(Behaviour::default());
    (start().await, start().await)
}

fn job(from: &Registry, source: &str, to: &Registry, destination: &str) -> Job {
    Job {
        source: format!("{}/{source}", from.host()).parse().unwrap(),
        destination: format!("{}/{destination}", to.host()).parse().unwrap(),
    }
}

async fn copy_with(options: Options, jobs: Vec<Job>) -> Vec<Outcome> {
    let copier = copier(options, Keyring::default());
    let copying = Box::pin(copier.copy(jobs, Arc::new(coral_mirror::Silent)));
    // A test that hangs must end.
    tokio::time::timeout(Duration::from_mins(2), copying).await.unwrap()
}

async fn copy(jobs: Vec<Job>) -> Vec<Outcome> {
    copy_with(Options::default(), jobs).await
}

/// The digest and the state of an image that was copied.
fn copied(outcome: &Outcome) -> (String, State) {
    let Copied { digest, state, .. } = outcome.result.clone().unwrap();
    (digest, state)
}

fn failure(outcomes: &[Outcome]) -> &RegistryError {
    outcomes[0].result.as_ref().unwrap_err().registry_error().unwrap()
}

fn lines(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(Asked::line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_the_original_byte_for_byte_and_the_tag_comes_last() {
    let (from, to) = registries().await;
    let (amd64, arm64) = (Image::new("amd64", &[1000, 2000]), Image::new("arm64", &[3000]));
    let index = Index {
        images: vec![("linux/amd64", amd64), ("linux/arm64", arm64)],
    };
    let (digest, children) = index.push(&from, "app", Some("v1"));
    for (subject, note) in [(&digest, "signature"), (&children[0], "contents")] {
        let referrer = Image {
            subject: Some(subject.clone()),
            ..Image::new(note, &[50])
        };
        let referrer_digest = referrer.push(&from, "app", None);
        // And a signature of the signature.
        let second = Image {
            subject: Some(referrer_digest),
            ..Image::new(&format!("{note} of {note}"), &[50])
        };
        second.push(&from, "app", None);
    }
    let signature_tag = format!("{}.sig", digest.replacen(':', "-", 1));
    Image::new("cosign", &[10]).push(&from, "app", Some(&signature_tag));

    let outcomes = copy(vec![job(&from, "app:v1", &to, "m/app:v1")]).await;
    assert_eq!(copied(&outcomes[0]), (digest.clone(), State::Copied));
    assert_eq!(to.manifest("m/app", "v1"), from.manifest("app", "v1"));
    assert_eq!(
        to.manifest("m/app", &signature_tag),
        from.manifest("app", &signature_tag)
    );
    for child in &children {
        assert_eq!(to.manifest("m/app", child), from.manifest("app", child));
    }
    // Four that refer to something, two images, the index and what has a tag: the index a second time, under its tag.
    let puts: Vec<String> = lines(&to.asked())
        .into_iter()
        .filter(|line| line.starts_with("PUT /v2/m/app/manifests/"))
        .collect();
    assert_eq!(puts.len(), 10, "{puts:?}");
    assert_eq!(puts.last().unwrap(), "PUT /v2/m/app/manifests/v1");
    let uploads_after_tag = lines(&to.asked())
        .iter()
        .rev()
        .take_while(|line| !line.ends_with("/v1"))
        .count();
    assert_eq!(uploads_after_tag, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_one_question_to_each_registry_when_nothing_changed() {
    let (from, to) = registries().await;
    let digest = Image::new("app", &[1000]).push(&from, "app", Some("v1"));
    let by_tag = job(&from, "app:v1", &to, "app:v1");
    let by_digest = job(&from, &format!("app@{digest}"), &to, &format!("app@{digest}"));
    copy(vec![by_tag.clone()]).await;
    for (job, expected) in [
        (by_tag, vec!["HEAD /v2/app/manifests/v1".to_owned()]),
        // Nobody needs to be asked what a digest names.
        (by_digest, Vec::new()),
    ] {
        from.forget_asked();
        to.forget_asked();
        let outcomes = copy(vec![job]).await;
        assert_eq!(copied(&outcomes[0]), (digest.clone(), State::Unchanged));
        assert_eq!(lines(&from.asked()), expected);
        assert_eq!(to.asked().len(), 1, "{:?}", to.asked());
        assert_eq!(to.asked()[0].method, "HEAD");
    }
}

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
async fn what_was_interrupted_goes_on_where_it_was() {
    let (from, to) = registries().await;
    Image::new("app", &[10_000, 20_000]).push(&from, "app", Some("v1"));
    to.fail(|asked| {
        let is_manifest = asked.method == "PUT" && asked.target.contains("/manifests/");
        is_manifest.then_some(Fault::Status(507, None))
    });
    let the_job = job(&from, "app:v1", &to, "app:v1");
    let outcomes = copy(vec![the_job.clone()]).await;
    let error = failure(&outcomes);
    assert!(
        matches!(error, RegistryError::Unavailable { status: 507, .. }),
        "{error:?}"
    );
    assert!(outcomes[0].result.as_ref().unwrap_err().is_about_destination());
    assert!(to.manifest("app", "v1").is_none(), "no half image has a tag");
    let before = to.received_bytes();
    assert!(before > 30_000);
    to.fail(|_| None);
    to.forget_asked();
    assert_eq!(copied(&copy(vec![the_job]).await[0]).1, State::Copied);
    assert_eq!(to.received_bytes(), 0, "the blobs are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_fail_for_a_moment_are_asked_again() {
    let (from, to) = registries().await;
    let digest = Image::new("app", &[1000]).push(&from, "app", Some("v1"));
    // The first of every request fails, in one of several ways.
    let first = |asked: &Asked| -> Option<Fault> {
        let is_blob = asked.method == "GET" && asked.target.contains("/blobs/");
        match (asked.before, asked.target.len() % 3) {
            (0, _) if is_blob => Some(Fault::Break(100)),
            (0, 0) => Some(Fault::Status(500, None)),
            (0, 1) => Some(Fault::Status(429, Some(0))),
            (0, _) => Some(Fault::Status(503, None)),
            _ => None,
        }
    };
    from.fail(first);
    to.fail(first);
    let outcomes = copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    assert_eq!(copied(&outcomes[0]), (digest, State::Copied));
    assert_eq!(to.manifest("app", "v1"), from.manifest("app", "v1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_failing_is_given_up() {
    let (from, to) = registries().await;
    Image::new("app", &[1000]).push(&from, "app", Some("v1"));
    from.fail(|asked| asked.target.contains("/blobs/").then_some(Fault::Status(503, None)));
    let outcomes = copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    let error = outcomes[0].result.as_ref().unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error:?}");
    assert!(matches!(
        failure(&outcomes),
        RegistryError::Unavailable { status: 503, .. }
    ));
    assert!(to.manifest("app", "v1").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_too_long_a_pause_is_not_waited_for() {
    let (from, to) = registries().await;
    Image::new("app", &[1000]).push(&from, "app", Some("v1"));
    from.fail(|_| Some(Fault::Status(429, Some(3600))));
    let outcomes = copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    let pause = Some(Duration::from_hours(1));
    let error = failure(&outcomes);
    assert!(
        matches!(error, RegistryError::RateLimited { retry_after, .. } if *retry_after == pause),
        "{error:?}"
    );
    assert_eq!(from.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_its_digest_does_not_name_is_not_copied() {
    for part in ["/blobs/", "/manifests/sha256"] {
        let (from, to) = registries().await;
        Image::new("app", &[1000]).push(&from, "app", Some("v1"));
        from.fail(move |asked| (asked.method == "GET" && asked.target.contains(part)).then_some(Fault::WrongContent));
        let outcomes = copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
        let error = failure(&outcomes);
        assert!(
            matches!(error, RegistryError::DigestMismatch { .. }),
            "{part}: {error:?}"
        );
        assert!(to.manifest("app", "v1").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_places_for_uploads_are_not_gone_to() {
    let (from, to) = registries().await;
    Image::new("app", &[1000]).push(&from, "app", Some("v1"));
    to.fail(|asked| {
        let place = Fault::Location("http://169.254.169.254/latest".to_owned());
        (asked.method == "POST").then_some(place)
    });
    let outcomes = copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    let error = failure(&outcomes);
    let local = RedirectRefusal::Local;
    assert!(
        matches!(error, RegistryError::Redirect { why, .. } if *why == local),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_in_the_middle_are_renewed() {
    let behaviour = Behaviour {
        login: Some(("user".to_owned(), "password".to_owned())),
        token_uses: 2,
        ..Behaviour::default()
    };
    let (from, to) = (
        Registry::start(behaviour.clone()).await,
        Registry::start(behaviour).await,
    );
    let digest = Image::new("app", &[1000, 2000, 3000, 4000]).push(&from, "app", Some("v1"));
    let login = r#"{"username": "user", "password": "password"}"#;
    let config = format!(
        r#"{{"auths": {{"{}": {login}, "{}": {login}}}}}"#,
        from.host(),
        to.host()
    );
    let keyring = Keyring::from_config_json(config.as_bytes()).unwrap();
    // One at a time: together they would use a token up before it is theirs.
    let options = Options {
        parallel: 1,
        ..Options::default()
    };
    let jobs = vec![job(&from, "app:v1", &to, "app:v1")];
    let outcomes = copier(options, keyring)
        .copy(jobs.clone(), Arc::new(coral_mirror::Silent))
        .await;
    assert_eq!(copied(&outcomes[0]), (digest, State::Copied));
    let outcomes = copy(jobs).await;
    assert!(
        matches!(failure(&outcomes), RegistryError::Unauthorized { .. }),
        "without credentials"
    );
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
async fn referrers_are_kept_for_registries_that_keep_no_list() {
    let without = || Behaviour {
        lists_referrers: false,
        ..Behaviour::default()
    };
    let (from, to) = (
        Registry::start(Behaviour::default()).await,
        Registry::start(without()).await,
    );
    let digest = Image::new("app", &[1000]).push(&from, "app", Some("v1"));
    let signature = Image {
        subject: Some(digest.clone()),
        ..Image::new("signature", &[10])
    };
    let signature = signature.push(&from, "app", None);
    copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    let list = to.manifest("app", &digest.replacen(':', "-", 1)).unwrap();
    assert!(String::from_utf8_lossy(&list).contains(&signature));
    // From there the list is read, too.
    let third = Registry::start(Behaviour::default()).await;
    copy(vec![job(&to, "app:v1", &third, "app:v1")]).await;
    assert!(third.manifest("app", &signature).is_some());
    // And without referrers nothing of that is looked at.
    let fourth = Registry::start(Behaviour::default()).await;
    let options = Options {
        referrers: false,
        ..Options::default()
    };
    copy_with(options, vec![job(&from, "app:v1", &fourth, "app:v1")]).await;
    assert!(fourth.manifest("app", "v1").is_some() && fourth.manifest("app", &signature).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_leave_the_index_as_it_is() {
    let only = |platform: &str| Options {
        platforms: vec![platform.parse().unwrap()],
        ..Options::default()
    };
    let from = Registry::start(Behaviour::default()).await;
    let index = Index {
        images: vec![
            ("linux/amd64", Image::new("amd64", &[1000])),
            ("linux/arm64", Image::new("arm64", &[1000])),
        ],
    };
    let (digest, children) = index.push(&from, "app", Some("v1"));

    let lenient = Registry::start(Behaviour {
        is_strict: false,
        ..Behaviour::default()
    })
    .await;
    let outcomes = copy_with(only("linux/amd64"), vec![job(&from, "app:v1", &lenient, "app:v1")]).await;
    assert_eq!(copied(&outcomes[0]), (digest.clone(), State::Copied));
    assert!(lenient.manifest("app", &children[0]).is_some());
    assert!(lenient.manifest("app", &children[1]).is_none());

    let strict = Registry::start(Behaviour::default()).await;
    let outcomes = copy_with(only("linux/amd64"), vec![job(&from, "app:v1", &strict, "app:v1")]).await;
    assert_eq!(copied(&outcomes[0]), (digest, State::CopiedForAllPlatforms));
    assert!(strict.manifest("app", &children[1]).is_some());

    let outcomes = copy_with(only("linux/s390x"), vec![job(&from, "app:v1", &strict, "app:v2")]).await;
    let error = outcomes[0].result.as_ref().unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_image_that_fails_holds_up_no_other() {
    let (from, to) = registries().await;
    let digest = Image::new("good", &[1000]).push(&from, "good", Some("v1"));
    let jobs = vec![
        job(&from, "gone:v1", &to, "gone:v1"),
        job(&from, "good:v1", &to, "good:v1"),
    ];
    let outcomes = copy(jobs).await;
    assert!(matches!(failure(&outcomes), RegistryError::NotFound { .. }));
    assert_eq!(copied(&outcomes[1]), (digest, State::Copied));
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_repairs_what_is_incomplete() {
    let (from, to) = registries().await;
    let index = Index {
        images: vec![("linux/amd64", Image::new("amd64", &[1000]))],
    };
    let (digest, children) = index.push(&from, "app", Some("v1"));
    // Somebody else has put the index there, and nothing else.
    to.insert_manifest(
        "app",
        Some("v1"),
        "application/vnd.oci.image.index.v1+json",
        &from.manifest("app", "v1").unwrap(),
    );
    let the_job = job(&from, "app:v1", &to, "app:v1");
    assert_eq!(copied(&copy(vec![the_job.clone()]).await[0]).1, State::Unchanged);
    let options = Options {
        verify: true,
        ..Options::default()
    };
    assert_eq!(
        copied(&copy_with(options, vec![the_job]).await[0]),
        (digest, State::Copied)
    );
    assert!(to.manifest("app", &children[0]).is_some());
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
