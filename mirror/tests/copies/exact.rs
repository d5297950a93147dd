//! What a copy is, and what it takes when nothing changed.

use super::*;

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
