use super::*;

const APP: &str = "registry.example/app:v1";

fn state(flavour: Flavour) -> State {
    let catalogue = Catalogue::default();
    catalogue.publish(APP, "first", 1_000);
    State::new(flavour, catalogue)
}

/// Pulls without a clock.
fn pull(state: &mut State, image: &str) -> Result<String, Status> {
    let now = Instant::now();
    let begun = state.begin(image, None, now)?;
    state.finish(&begun, now)
}

fn only(state: &mut State) -> Image {
    let mut images = state.list(None);
    assert_eq!(images.len(), 1, "{images:?}");
    images.remove(0)
}

#[test]
fn a_pulled_image_is_there_under_every_name() {
    let mut state = state(Flavour::Containerd);
    let id = pull(&mut state, APP).unwrap();
    let image = only(&mut state);
    assert_eq!(image.repo_tags, [APP]);
    for name in [APP, id.as_str(), image.repo_digests[0].as_str()] {
        assert_eq!(state.status(name), Some(image.clone()), "{name}");
        assert_eq!(state.list(Some(name)), std::slice::from_ref(&image), "{name}");
    }
    assert_eq!(state.status("registry.example/app:v2"), None);
    assert_eq!(state.used_bytes(), 1_000);
}

#[test]
fn runtimes_differ_in_ids_and_digests() {
    let artifact = Catalogue::default().publish(APP, "first", 1_000);
    let by_digest = format!("registry.example/app@{}", artifact.digest);

    let mut containerd = state(Flavour::Containerd);
    assert!(pull(&mut containerd, APP).unwrap().starts_with("sha256:"));
    assert_eq!(only(&mut containerd).repo_digests, std::slice::from_ref(&by_digest));

    let mut cri_o = state(Flavour::CriO);
    assert!(!pull(&mut cri_o, APP).unwrap().contains(':'));
    let by_manifest = format!("registry.example/app@{}", artifact.manifest_digest);
    assert_eq!(only(&mut cri_o).repo_digests, [by_manifest, by_digest]);
}

#[test]
fn an_image_pulled_by_digest_has_no_tag() {
    let mut state = state(Flavour::Containerd);
    let digest = state.catalogue.publish(APP, "first", 1_000).digest;
    pull(&mut state, &format!("{APP}@{digest}")).unwrap();
    let image = only(&mut state);
    assert!(image.repo_tags.is_empty());
    assert_eq!(image.repo_digests, [format!("registry.example/app@{digest}")]);
    assert_eq!(state.status(APP), None);
}

#[test]
fn a_moved_tag_leaves_the_old_image_without_it() {
    let mut state = state(Flavour::Containerd);
    pull(&mut state, APP).unwrap();
    let old = only(&mut state);
    state.catalogue.publish(APP, "second", 2_000);
    pull(&mut state, APP).unwrap();
    assert_eq!(state.held(), 2);
    assert!(state.status(&old.id).unwrap().repo_tags.is_empty());
    let new = state.status(APP).unwrap();
    assert_ne!(new.id, old.id);
    assert_ne!(new.repo_digests, old.repo_digests);
}

#[test]
fn one_removal_takes_every_tag_of_an_image() {
    let mut state = state(Flavour::Containerd);
    state.catalogue.publish("registry.example/app:also", "first", 1_000);
    pull(&mut state, APP).unwrap();
    pull(&mut state, "registry.example/app:also").unwrap();
    assert_eq!(only(&mut state).repo_tags.len(), 2);
    state.remove(APP);
    assert_eq!(state.held(), 0);
    state.remove(APP);
    assert!(!state.vanish(APP));
}

#[test]
fn cri_o_takes_one_tag_after_the_other() {
    let mut state = state(Flavour::CriO);
    state.catalogue.publish("registry.example/app:also", "first", 1_000);
    pull(&mut state, APP).unwrap();
    pull(&mut state, "registry.example/app:also").unwrap();
    state.remove(APP);
    assert_eq!(only(&mut state).repo_tags, ["registry.example/app:also"]);
    state.remove("registry.example/app:also");
    assert_eq!(state.held(), 0);
}

#[test]
fn containers_name_the_image_by_its_id() {
    let mut state = state(Flavour::Containerd);
    assert_eq!(state.run(APP, "web", "app"), None, "the image is not there");
    let id = pull(&mut state, APP).unwrap();
    state.run(APP, "web", "app").unwrap();
    assert_eq!(state.containers()[0].image_ref, id);
    state.end_pod("web");
    assert!(state.containers().is_empty());
}

#[test]
fn scripted_attempts_end_in_their_order_and_then_well() {
    let mut state = state(Flavour::Containerd);
    state.script(
        "registry.example/app:v1",
        [Outcome::Fail(Trouble::RateLimited), Outcome::Fail(Trouble::NotFound)],
    );
    assert!(pull(&mut state, APP).unwrap_err().message().contains("429"));
    assert_eq!(pull(&mut state, APP).unwrap_err().code(), tonic::Code::NotFound);
    pull(&mut state, APP).unwrap();
    assert_eq!(
        pull(&mut state, "registry.example/other").unwrap_err().code(),
        tonic::Code::NotFound
    );
    let counts = state.counts();
    assert_eq!(
        (counts.begun, counts.failed, counts.succeeded, counts.running),
        (4, 3, 1, 0)
    );
}

#[test]
fn a_pull_takes_the_latency_and_the_time_for_its_bytes() {
    let mut state = state(Flavour::CriO);
    state.set_pace(Duration::from_secs(1), Some(500));
    state.script(APP, [Outcome::Normal, Outcome::Fail(Trouble::NoSpace), Outcome::Hang]);
    let now = Instant::now();
    let mut takes = || state.begin(APP, None, now).unwrap().takes;
    assert_eq!(takes(), Some(Duration::from_secs(3)));
    assert_eq!(takes(), Some(Duration::from_secs(1)));
    assert_eq!(takes(), None);
}

#[test]
fn pulls_at_the_same_time_are_counted() {
    let mut state = state(Flavour::Containerd);
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let first = state.begin(APP, None, now).unwrap();
    let second = state.begin("registry.example/app:v1", None, now).unwrap();
    state.finish(&first, later).unwrap();
    state.end(second.attempt, Ending::Cancelled, later);
    // Its handler is dropped after it has answered, too.
    state.end(first.attempt, Ending::Cancelled, later);
    let third = state.begin(APP, None, later).unwrap();
    state.end(third.attempt, Ending::Cut, later);
    let expected = Counts {
        begun: 3,
        running: 0,
        most_at_once: 2,
        succeeded: 1,
        failed: 0,
        cancelled: 1,
        cut: 1,
    };
    assert_eq!(state.counts(), expected);
    assert_eq!(most_at_once(state.attempts()), 2);
    assert_eq!(most_at_once(&state.attempts()[2..]), 0);
    assert_eq!(most_at_once(&[]), 0);
}

#[test]
fn a_fleeting_image_is_listed_until_it_is_asked_for() {
    let mut state = state(Flavour::Containerd);
    state.vanish_when_asked_for(APP);
    // It has nothing to vanish from yet.
    assert_eq!(state.status(APP), None);
    state.hold(APP).unwrap();
    assert_eq!(only(&mut state).repo_tags, [APP]);
    assert_eq!(state.status(APP), None);
    assert!(state.list(None).is_empty());
    state.hold(APP).unwrap();
    assert!(state.status(APP).is_some());
}

#[test]
fn a_name_that_is_none_is_refused() {
    let error = state(Flavour::Containerd)
        .begin("Not A Name", None, Instant::now())
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
}
