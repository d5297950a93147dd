//! What goes wrong, what is said of it, and that it goes on.

use coral_api::{
    FailureReason, conditions,
    mirrored_image::{CopyState, MirroredImageStatus, OriginState},
};
use serde_json::json;

use crate::{full::what_does_not_fit_is_told_of_and_copied_when_it_does, site::Site};

pub(crate) fn is_present(status: &MirroredImageStatus) -> bool {
    let copy = &status.destinations[0];
    copy.state == CopyState::Present && copy.failure.is_none()
}

pub(crate) fn failed_for(status: &MirroredImageStatus, reason: FailureReason) -> bool {
    let copy = &status.destinations[0];
    let failure = copy.failure.as_ref();
    copy.state == CopyState::Failed
        && failure.is_some_and(|failure| failure.reason == reason && failure.next_attempt_time.is_some())
}

fn origin(status: &MirroredImageStatus) -> Option<OriginState> {
    status.origin.as_ref().map(|origin| origin.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_told_of_and_overcome() {
    let site = Site::start("mirror-trouble").await;
    let leader = site.controller("one");
    let [first, second, third, fourth] = ["first", "second", "third", "fourth"].map(|name| site.image(name, "1"));
    site.mirror("m", json!({"images": [first]})).await;
    site.until("it is copied", &first, is_present).await;

    // The original's registry is gone: the copy stays, and what has none fails and says why.
    site.kill("registry");
    site.mirror("m", json!({"images": [first, second]})).await;
    let status = site
        .until("its original cannot be reached", &first, |status| {
            origin(status) == Some(OriginState::Unreachable)
        })
        .await;
    assert_eq!(status.destinations[0].state, CopyState::Present);
    site.until("it fails again and again", &second, |status| {
        let attempts = status.destinations[0]
            .failure
            .as_ref()
            .map_or(0, |failure| failure.attempts);
        failed_for(status, FailureReason::RegistryUnavailable) && attempts >= 2
    })
    .await;
    site.until_mirror("it says so", "m", |mirror| {
        let status = mirror.status.clone().unwrap_or_default();
        !conditions::is_true(&status.conditions, "Ready")
            && status.failures.iter().any(|failure| failure.image == second)
            && (status.images.copied, status.images.failed) == (1, 1)
    })
    .await;

    // The leader dies; the other goes on with what was written.
    let follower = site.controller("two");
    leader.abort();
    site.plane.heal().await.unwrap();
    site.until("it is copied after all", &second, is_present).await;
    site.until("its original is back", &first, |status| {
        origin(status) == Some(OriginState::Available)
    })
    .await;

    // The destination is gone and comes back: no pod is sent there in the meantime.
    site.kill("registry-auth");
    site.until("its copy cannot be reached", &first, |status| {
        failed_for(status, FailureReason::RegistryUnavailable)
    })
    .await;
    site.plane.heal().await.unwrap();
    site.until("its copy is there again", &first, is_present).await;

    // Both are gone at once: of each is said what is true of it, and attempts go on.
    site.kill("registry");
    site.kill("registry-auth");
    let status = site
        .until("neither can be reached", &first, |status| {
            let attempts = status.destinations[0]
                .failure
                .as_ref()
                .map_or(0, |failure| failure.attempts);
            origin(status) == Some(OriginState::Unreachable)
                && failed_for(status, FailureReason::RegistryUnavailable)
                && attempts >= 2
        })
        .await;
    let (copy, original) = (&status.destinations[0], status.origin.as_ref().unwrap());
    let why = &copy.failure.as_ref().unwrap().message;
    assert!(why.contains(site.authenticated.host()), "{why}");
    assert!(original.message.contains(site.open.host()), "{original:?}");
    site.plane.heal().await.unwrap();
    site.until("both are back", &first, |status| {
        is_present(status) && origin(status) == Some(OriginState::Available)
    })
    .await;

    // The password is another.
    site.push_secret("wrong").await;
    site.mirror("m", json!({"images": [first, second, third]})).await;
    site.until("it is refused", &third, |status| {
        failed_for(status, FailureReason::Unauthorized)
    })
    .await;
    assert!(site.authenticated.digest(&site.copy(&third)).is_err());
    site.push_secret(&site.plane.cluster().registry_auth().password).await;
    site.until("it is let in again", &third, is_present).await;

    Box::pin(what_does_not_fit_is_told_of_and_copied_when_it_does(&site, &first)).await;

    // A Secret that is not there is named.
    site.apply(json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Mirror",
        "metadata": {"name": "other"},
        "spec": {"images": [fourth], "destinations": [{"registry": site.authenticated.host(), "secretName": "nobody"}]},
    }))
    .await;
    let status = site
        .until("it wants a Secret", &fourth, |status| {
            failed_for(status, FailureReason::PullSecretUnreadable)
        })
        .await;
    let message = &status.destinations[0].failure.as_ref().unwrap().message;
    assert!(message.contains("coral-system/nobody"), "{message}");
    assert!(!follower.is_finished());
    follower.abort();
    site.plane.down().await.unwrap();
}
