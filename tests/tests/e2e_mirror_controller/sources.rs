//! Originals in registries that are reached in ways of their own.

use coral_api::{FailureReason, MirroredImageStatus, mirrored_image::CopyState};
use coral_mirror::ControllerOptions;
use coral_tests::images;
use serde_json::json;

use crate::site::Site;

/// Whether the first copy is there.
fn is_present(status: &MirroredImageStatus) -> bool {
    status.destinations[0].state == CopyState::Present
}

/// Why there is no copy, where that is the reason.
fn failure(status: &MirroredImageStatus, reason: FailureReason) -> Option<&str> {
    let failure = status.destinations[0].failure.as_ref()?;
    (failure.reason == reason).then_some(&*failure.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn originals_are_reached_as_the_mirror_says_and_not_otherwise() {
    let site = Site::start("mirror-sources").await;
    // It knows nothing of registries without TLS but what Mirrors say.
    let controller = site.controller_with(ControllerOptions {
        identity: "one".to_owned(),
        ..ControllerOptions::default()
    });
    let open = site.image("plain", "1");
    let behind = images::tiny(&site.authenticated, "behind", "v1", 100_000, "1")
        .unwrap()
        .reference;
    let (host, plain) = (site.authenticated.host(), site.open.host());

    // Nobody has said how they are reached.
    site.mirror("inwards", json!({"images": [open]})).await;
    site.mirror("outwards", site.outwards(&[&behind], &json!([]))).await;
    for image in [&open, &behind] {
        let status = site
            .until("its registry is not trusted", image, |status| {
                failure(status, FailureReason::RegistryUnavailable).is_some()
            })
            .await;
        assert!(status.digest.is_none(), "{status:?}");
    }

    // A Secret that nobody allowed is named, and what allows it.
    let sources = |secret: &str| json!([{"registry": host, "caSecretName": secret}]);
    site.mirror("outwards", site.outwards(&[&behind], &sources("nobody")))
        .await;
    site.until("it wants a Secret", &behind, |status| {
        failure(status, FailureReason::PullSecretUnreadable)
            .is_some_and(|message| message.contains("allow-secret nobody --namespace coral-system --mirror"))
    })
    .await;
    // What vouches for another registry does not vouch for this one.
    let elsewhere = json!([{"registry": "registry.example", "caSecretName": "coral-mirror-ca"}]);
    site.mirror("outwards", site.outwards(&[&behind], &elsewhere)).await;
    site.until("its registry is not trusted", &behind, |status| {
        failure(status, FailureReason::RegistryUnavailable).is_some()
    })
    .await;

    site.mirror("outwards", site.outwards(&[&behind], &sources("coral-mirror-ca")))
        .await;
    site.mirror(
        "inwards",
        json!({"images": [open], "sources": [{"registry": plain, "plainHttp": true}]}),
    )
    .await;
    for (image, origin) in [(&open, &site.open), (&behind, &site.authenticated)] {
        let status = site.until("it is copied", image, is_present).await;
        assert_eq!(status.digest, origin.digest(image).ok());
    }
    assert!(!controller.is_finished());
    controller.abort();
    site.plane.down().await.unwrap();
}
