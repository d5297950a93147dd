//! Registries that do not behave.

use super::*;

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

/// How often each byte came, when uploads are cut after so many bytes, and whether it went through.
async fn cut(resumes: bool, cuts: usize, after: usize) -> (Vec<String>, u64, bool) {
    const SIZE: usize = 6_000_000;
    let from = Registry::start(Behaviour::default()).await;
    let to = Registry::start(Behaviour {
        resumes,
        ..Behaviour::default()
    })
    .await;
    Image::new("app", &[SIZE]).push(&from, "app", Some("v1"));
    let cuts_so_far = AtomicU64::new(0);
    to.fail(move |asked| {
        let is_content = asked.bytes > 1000 && matches!(&*asked.method, "PUT" | "PATCH");
        let is_cut = is_content && cuts_so_far.fetch_add(1, SeqCst) < cuts as u64;
        is_cut.then_some(Fault::Cut(after))
    });
    let moved = Arc::new(Moved::default());
    let copier = copier(Options::default(), Keyring::default());
    let jobs = vec![job(&from, "app:v1", &to, "app:v1")];
    let outcomes = Box::pin(copier.copy(jobs, Arc::clone(&moved) as _)).await;
    let is_copied = outcomes[0].result.is_ok();
    assert_eq!(is_copied, to.manifest("app", "v1").is_some());
    assert_eq!(to.uploads_under_way(), 0, "what is of no use is given back");
    let is_about_blob =
        |asked: &&Asked| asked.target.contains("/uploads/") && (asked.bytes > 1000 || asked.method == "GET");
    let asked: Vec<String> = to
        .asked()
        .iter()
        .filter(is_about_blob)
        .map(|asked| format!("{} {}", asked.method, asked.bytes))
        .collect();
    (asked, moved.0.load(SeqCst), is_copied)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_goes_on_where_it_was() {
    let whole = 6_000_000 + r#"{"note":"app"}"#.len() as u64;
    let (asked, moved, is_copied) = cut(true, 1, 4_000_000).await;
    assert!(is_copied);
    assert_eq!(asked, ["PUT 6000000", "GET 0", "PATCH 2000000"]);
    assert_eq!(moved, whole);

    // As often as something comes of it.
    let (asked, moved, is_copied) = cut(true, 5, 1_100_000).await;
    assert!(is_copied, "{asked:?}");
    assert_eq!((asked.len(), moved), (11, whole));
    let (asked, _, is_copied) = cut(true, 50, 1).await;
    assert!(!is_copied, "{asked:?}");

    // Where the registry does not tell how much it has, it begins anew.
    let (asked, moved, is_copied) = cut(false, 1, 4_000_000).await;
    assert!(is_copied);
    assert_eq!(asked, ["PUT 6000000", "GET 0", "PUT 6000000"]);
    assert_eq!(moved, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_goes_on_is_held_against_its_digest() {
    let (from, to) = registries().await;
    Image::new("app", &[3_000_000]).push(&from, "app", Some("v1"));
    to.fail(|asked| (asked.bytes == 3_000_000).then_some(Fault::Cut(1_000_000)));
    // From the middle on the original is something else.
    from.fail(|asked| {
        let is_blob = asked.method == "GET" && asked.target.contains("/blobs/");
        (is_blob && asked.before > 0).then_some(Fault::WrongContent)
    });
    let outcomes = copy(vec![job(&from, "app:v1", &to, "app:v1")]).await;
    assert!(outcomes[0].result.is_err(), "{outcomes:?}");
    assert!(to.manifest("app", "v1").is_none());
}
