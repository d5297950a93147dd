//! What goes wrong on the side of registry and runtime, and how it comes right again.

use std::time::Duration;

use coral_api::{
    FailureReason, NodeImagesStatus,
    conditions::{self, READY},
    node_images::ImageState,
};
use coral_tests::{
    cri::{Ending, FakeRuntime, Flavour, Outcome, Trouble},
    hollow::Site,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::{
    history::Seen,
    hollow::{A_LOOK, Hollow, SOON, image, image_with, name, of, state},
};

fn reason(status: &NodeImagesStatus, image: &str) -> Option<FailureReason> {
    Some(of(status, image)?.failure.as_ref()?.reason)
}

fn is_ready(status: &NodeImagesStatus) -> bool {
    conditions::is_true(&status.conditions, READY)
}

/// How each attempt at an image ended.
fn endings(runtime: &FakeRuntime, image: &str) -> Vec<Ending> {
    let attempts = runtime.attempts_at(image).into_iter();
    attempts.filter_map(|attempt| Some(attempt.ended?.1)).collect()
}

pub(crate) async fn a_timeout_ends_a_pull(site: Site) {
    let node = Hollow::new(&site, "timeout", Flavour::Containerd);
    node.runtime.script(&name("slow"), [Outcome::Hang]);
    let slow = image_with("slow", json!({"timeout": "2s", "backoffLimit": 1}));
    let node = node.started(2, &[slow]).await;
    let timed_out = |status: &_| {
        state(status, &name("slow")) == Some(ImageState::Failed)
            && reason(status, &name("slow")) == Some(FailureReason::Timeout)
    };
    node.until("the timeout to be told", SOON, timed_out).await;
    node.until_runtime("the pull to end", SOON, |counts| counts.running == 0)
        .await;
    assert_eq!(endings(&node.runtime, &name("slow")), [Ending::Cancelled]);
    let attempt = &node.runtime.attempts_at(&name("slow"))[0];
    // The agent's clock begins before the call has come in here.
    let took = attempt.ended.unwrap().0 - attempt.began;
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(8),
        "{took:?}"
    );
    let status = node.all_present(SOON).await;
    assert_eq!(reason(&status, &name("slow")), None);
}

pub(crate) async fn attempts_grow_apart(site: Site) {
    let node = Hollow::new(&site, "backoff", Flavour::Containerd);
    let failures = std::iter::repeat_n(Outcome::Fail(Trouble::RegistryDown), 4);
    node.runtime.script(&name("app"), failures);
    let node = node.started(2, &[image("app")]).await;
    node.all_present(Duration::from_secs(40)).await;
    let attempts = node.runtime.attempts_at(&name("app"));
    let pauses: Vec<Duration> = attempts
        .windows(2)
        .map(|pair| pair[1].began - pair[0].ended.unwrap().0)
        .collect();
    // 1, 2, 4 and 8 seconds, a quarter more or less: even then each is longer than the one before.
    assert_eq!(pauses.len(), 4);
    assert!(pauses.is_sorted(), "{pauses:?}");
    for (pause, least) in pauses.iter().zip([700, 1400, 2900, 5900]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
    assert!(pauses[3] < Duration::from_secs(15), "{pauses:?}");
}

pub(crate) async fn success_clears_the_failure(site: Site) {
    let node = Hollow::new(&site, "recovery", Flavour::CriO);
    let failures = [Trouble::RateLimited, Trouble::NoSpace, Trouble::NotFound].map(Outcome::Fail);
    node.runtime.script(&name("app"), failures);
    let node = node.started(2, &[image_with("app", json!({"backoffLimit": 3}))]).await;
    let failed = |status: &_| {
        state(status, &name("app")) == Some(ImageState::Failed)
            && reason(status, &name("app")) == Some(FailureReason::NotFound)
    };
    let status = node.until("the third failure", SOON, failed).await;
    let failure = of(&status, &name("app")).unwrap().failure.clone().unwrap();
    assert_eq!(failure.attempts, 3);
    assert!(failure.next_attempt_time.is_some());
    let status = node.all_present(SOON).await;
    let app = of(&status, &name("app")).unwrap();
    assert!(app.failure.is_none() && app.digest.is_some() && app.last_pull_time.is_some());

    // It begins anew: the next failure is the first one.
    node.runtime
        .script(&name("app"), [Outcome::Fail(Trouble::Unauthorized)]);
    node.runtime.vanish(&name("app"));
    let again = |status: &_| reason(status, &name("app")) == Some(FailureReason::Unauthorized);
    let status = node.until("a new failure", A_LOOK, again).await;
    assert_eq!(of(&status, &name("app")).unwrap().failure.as_ref().unwrap().attempts, 1);
}

pub(crate) async fn containerd_s_words_have_a_reason(site: Site) {
    words_have_a_reason(Hollow::new(&site, "containerd", Flavour::Containerd)).await;
}

pub(crate) async fn cri_o_s_words_have_a_reason(site: Site) {
    words_have_a_reason(Hollow::new(&site, "cri-o", Flavour::CriO)).await;
}

async fn words_have_a_reason(node: Hollow) {
    let cases = [
        ("missing", Trouble::NotFound, FailureReason::NotFound),
        ("private", Trouble::Unauthorized, FailureReason::Unauthorized),
        ("limited", Trouble::RateLimited, FailureReason::RateLimited),
        ("down", Trouble::RegistryDown, FailureReason::RegistryUnavailable),
        ("full", Trouble::NoSpace, FailureReason::NoSpace),
        ("windows", Trouble::WrongPlatform, FailureReason::PlatformMismatch),
        (
            "odd",
            Trouble::Other(tonic::Code::Internal, "the moon is in the wrong quarter".to_owned()),
            FailureReason::Unknown,
        ),
    ];
    for (short, trouble, _) in &cases {
        let failures = std::iter::repeat_n(Outcome::Fail(trouble.clone()), 20);
        node.runtime.script(&name(short), failures);
    }
    let mut images = cases
        .each_ref()
        .map(|(short, ..)| image_with(short, json!({"backoffLimit": 2})))
        .to_vec();
    images.push(image("good"));
    let node = node.started(3, &images).await;
    let settled = |status: &NodeImagesStatus| {
        let failed = cases
            .iter()
            .all(|(short, ..)| state(status, &name(short)) == Some(ImageState::Failed));
        failed && state(status, &name("good")) == Some(ImageState::Present)
    };
    let status = node.until("all images to be settled", SOON, settled).await;
    for (short, _, expected) in &cases {
        assert_eq!(reason(&status, &name(short)), Some(*expected), "{short}");
    }
    let told = &of(&status, &name("odd")).unwrap().failure.as_ref().unwrap().message;
    assert!(told.contains("the moon is in the wrong quarter"), "{told}");
    assert!(is_ready(&status));
}

pub(crate) async fn a_vanished_image_is_reported_and_pulled_again(site: Site) {
    let node = Hollow::new(&site, "vanished", Flavour::Containerd);
    let node = node.started(2, &[image("app"), image("other")]).await;
    node.all_present(SOON).await;
    node.runtime.set_pace(Duration::from_secs(2), None);
    assert!(node.runtime.vanish(&name("app")));
    let gone = |status: &_| {
        state(status, &name("app")) == Some(ImageState::Pulling)
            && state(status, &name("other")) == Some(ImageState::Present)
    };
    let status = node.until("the loss to be told", A_LOOK, gone).await;
    assert_eq!(of(&status, &name("app")).unwrap().digest, None);
    node.all_present(A_LOOK).await;
    assert_eq!(node.runtime.attempts_at(&name("app")).len(), 2);
    assert_eq!(node.runtime.attempts_at(&name("other")).len(), 1);
}

pub(crate) async fn an_image_that_keeps_vanishing_is_not_fought_for(site: Site) {
    let node = Hollow::new(&site, "thrash", Flavour::CriO);
    let node = node.started(2, &[image("app")]).await;
    node.all_present(SOON).await;
    node.runtime.vanish(&name("app"));
    node.until_runtime("the image to come back", A_LOOK, |counts| counts.succeeded == 2)
        .await;
    node.all_present(SOON).await;
    // What has come back is believed to be there before a look has shown it.
    tokio::time::sleep(A_LOOK).await;
    node.runtime.vanish(&name("app"));
    let waits =
        |status: &_| state(status, &name("app")) == Some(ImageState::Waiting) && reason(status, &name("app")).is_some();
    let status = node.until("the second loss to be told", A_LOOK, waits).await;
    let failure = of(&status, &name("app")).unwrap().failure.clone().unwrap();
    assert!(failure.message.contains("disappeared"), "{}", failure.message);
    assert!(failure.next_attempt_time.is_some());
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(node.runtime.counts().begun, 2);
}

pub(crate) async fn a_registry_that_limits_the_rate_is_asked_for_one_image_at_a_time(site: Site) {
    let node = Hollow::new(&site, "rate", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_millis(400), None);
    let limited: Vec<String> = (0..6).map(|number| format!("limited.example/a{number}:v1")).collect();
    for image in &limited {
        node.runtime.script(image, [Outcome::Fail(Trouble::RateLimited)]);
    }
    let mut images: Vec<_> = limited.iter().map(|image| json!({"image": image})).collect();
    images.extend((0..3).map(|number| image(&format!("a{number}"))));
    let node = node.started(4, &images).await;
    node.all_present(Duration::from_secs(40)).await;
    let mut attempts = node.runtime.attempts();
    let refused = attempts
        .iter()
        .filter_map(|attempt| Some(attempt.ended?.0))
        .min()
        .unwrap();
    attempts.retain(|attempt| limited.contains(&attempt.image) && attempt.began > refused);
    assert!(attempts.len() >= limited.len());
    for pair in attempts.windows(2) {
        assert!(pair[0].ended.unwrap().0 <= pair[1].began, "{pair:?}");
    }
}

pub(crate) async fn an_image_that_vanishes_after_its_pull_is_told_and_pulled_again(site: Site) {
    let node = Hollow::new(&site, "fleeting", Flavour::CriO);
    node.runtime.vanish_when_asked_for(&name("app"));
    let node = node.started(2, &[image("app")]).await;
    node.until_runtime("the second pull", A_LOOK, |counts| counts.succeeded == 2)
        .await;
    node.all_present(SOON).await;
    assert!(node.runtime.holds(&name("app")));
    let told = node.history.all().into_iter().any(|seen| {
        of(&seen.status, &name("app"))
            .and_then(|image| image.failure.as_ref())
            .is_some_and(|failure| failure.message.contains("does not hold the image"))
    });
    assert!(told, "{:?}", node.history.all());
}

/// What the runtime says of one image is newer than the list that was there before.
pub(crate) async fn an_image_that_vanishes_in_a_refresh_is_not_reported_as_there(site: Site) {
    let node = Hollow::new(&site, "stale", Flavour::Containerd);
    node.runtime.hold(&name("app")).unwrap();
    let node = node.started(2, &[image("app")]).await;
    node.all_present(SOON).await;
    node.runtime.vanish_when_asked_for(&name("app"));
    node.runtime.script(&name("app"), [Outcome::Normal, Outcome::Hang]);
    let again = json!({"pullPolicy": "Always", "refreshAfter": Timestamp::now()});
    node.asks(&[image_with("app", again)]).await;
    node.until_runtime("the second pull", SOON, |counts| counts.begun == 2)
        .await;
    assert!(!node.runtime.holds(&name("app")));
    let pulling = |status: &_| state(status, &name("app")) == Some(ImageState::Pulling);
    // Long before the next look.
    node.until("the loss to be told", Duration::from_secs(4), pulling).await;
}

pub(crate) async fn a_refresh_that_fails_is_told_and_the_image_stays(site: Site) {
    let node = Hollow::new(&site, "refresh", Flavour::Containerd);
    node.runtime.hold(&name("app")).unwrap();
    let node = node.started(2, &[image("app")]).await;
    node.all_present(SOON).await;
    let failures = std::iter::repeat_n(Outcome::Fail(Trouble::RegistryDown), 2);
    node.runtime.script(&name("app"), failures);
    let again = json!({"pullPolicy": "Always", "refreshAfter": Timestamp::now()});
    node.asks(&[image_with("app", again)]).await;
    let failed = |status: &_| {
        state(status, &name("app")) == Some(ImageState::Present)
            && reason(status, &name("app")) == Some(FailureReason::RegistryUnavailable)
    };
    node.until("the failure to be told", SOON, failed).await;
    let is_fresh = |status: &_| {
        let image = of(status, &name("app"));
        image.is_some_and(|image| image.failure.is_none() && image.last_pull_time.is_some())
    };
    node.until("the refresh to be done", SOON, is_fresh).await;
    assert_eq!(node.runtime.attempts_at(&name("app")).len(), 3);
    // It was there all the time.
    let was_missing = |seen: &Seen| state(&seen.status, &name("app")) != Some(ImageState::Present);
    let history = node.history.all().into_iter();
    assert!(!history.skip_while(was_missing).any(|seen| was_missing(&seen)));
}

pub(crate) async fn a_restart_of_the_runtime_in_the_middle_of_pulls_is_survived(site: Site) {
    let node = Hollow::new(&site, "restart", Flavour::Containerd);
    node.runtime.hold(&name("there")).unwrap();
    node.runtime.set_pace(Duration::from_secs(3), None);
    let node = node.started(2, &[image("a"), image("b"), image("there")]).await;
    node.until_runtime("two pulls", SOON, |counts| counts.running == 2)
        .await;
    node.runtime.stop().await;
    let lost = |status: &_| !is_ready(status) && state(status, &name("there")) == Some(ImageState::Present);
    node.until("the loss of the runtime to be told", SOON, lost).await;
    node.runtime.resume().unwrap();
    let status = node.all_present(Duration::from_secs(30)).await;
    assert!(node.agent_runs());
    let counts = node.runtime.counts();
    assert_eq!((counts.cut, counts.succeeded, counts.running), (2, 2, 0));
    assert!(status.images.iter().all(|image| image.failure.is_none()), "{status:?}");
    node.until("the runtime to be ready", SOON, is_ready).await;
    assert!(node.runtime.attempts_at(&name("there")).is_empty());
}

pub(crate) async fn a_broken_connection_in_the_middle_of_a_pull_is_survived(site: Site) {
    let node = Hollow::new(&site, "disconnect", Flavour::CriO);
    node.runtime.set_pace(Duration::from_millis(500), None);
    node.runtime
        .script(&name("app"), [Outcome::Disconnect, Outcome::Disconnect]);
    let node = node.started(2, &[image("app"), image("other")]).await;
    node.all_present(SOON).await;
    assert_eq!(
        endings(&node.runtime, &name("app")),
        [Ending::Cut, Ending::Cut, Ending::Succeeded]
    );
    assert_eq!(node.runtime.counts().running, 0);
    assert!(node.agent_runs());
}

pub(crate) async fn a_hanging_pull_holds_nothing_else_up(site: Site) {
    let node = Hollow::new(&site, "hanging", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_millis(200), None);
    node.runtime.script(&name("stuck"), [Outcome::Hang]);
    let mut images = vec![image_with("stuck", json!({"priority": 1}))];
    images.extend((0..5).map(|number| image(&format!("a{number}"))));
    let node = node.started(2, &images).await;
    let others = |status: &NodeImagesStatus| {
        let present = status.images.iter().filter(|image| image.state == ImageState::Present);
        present.count() == 5 && state(status, &name("stuck")) == Some(ImageState::Pulling)
    };
    node.until("the other images to be there", SOON, others).await;
    node.runtime.vanish(&name("a3"));
    node.until_runtime("a lost image to be pulled again", A_LOOK, |counts| {
        counts.succeeded == 6
    })
    .await;
    assert_eq!(node.runtime.counts().running, 1);
}

pub(crate) async fn a_frozen_runtime_is_told_and_holds_nothing_else_up(site: Site) {
    let node = Hollow::new(&site, "frozen", Flavour::Containerd);
    node.runtime.script(&name("stuck"), [Outcome::Hang]);
    let node = node.started(2, &[image("stuck"), image("app")]).await;
    let one = |status: &_| state(status, &name("app")) == Some(ImageState::Present);
    node.until("one image to be there", SOON, one).await;
    node.runtime.set_frozen(true);
    node.asks(&[image("app"), image("new")]).await;
    // The spec is taken in, and what nobody wants ends.
    let taken_in = |status: &_| of(status, &name("stuck")).is_none() && of(status, &name("new")).is_some();
    node.until("the new spec to be taken in", Duration::from_secs(5), taken_in)
        .await;
    node.until_runtime("the pull to end", Duration::from_secs(5), |counts| {
        counts.cancelled == 1
    })
    .await;
    let lost = |status: &_| !is_ready(status) && state(status, &name("app")) == Some(ImageState::Present);
    node.until("the silence to be told", Duration::from_secs(45), lost)
        .await;
    node.runtime.set_frozen(false);
    node.all_present(Duration::from_secs(30)).await;
    node.until("the runtime to be ready", SOON, is_ready).await;
    assert!(node.agent_runs());
    assert_eq!(node.runtime.counts().running, 0);
    assert_eq!(node.runtime.attempts_at(&name("app")).len(), 1);
}

pub(crate) async fn a_runtime_that_comes_late_is_found(site: Site) {
    let node = Hollow::new(&site, "late", Flavour::CriO);
    node.runtime.stop().await;
    let node = node.started(2, &[image("app")]).await;
    let waits =
        |status: &_| !is_ready(status) && reason(status, &name("app")) == Some(FailureReason::RuntimeUnavailable);
    let status = node.until("the lack of a runtime to be told", SOON, waits).await;
    assert_eq!(state(&status, &name("app")), Some(ImageState::Waiting));
    node.runtime.resume().unwrap();
    let status = node.all_present(Duration::from_secs(10)).await;
    assert!(is_ready(&status));
    assert_eq!(status.runtime.unwrap().name, "cri-o");
}
