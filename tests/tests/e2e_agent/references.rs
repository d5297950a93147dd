//! Names and digests, what is there already, and who may have it.

use std::time::Duration;

use coral_api::{FailureReason, conditions, node_images::ImageState};
use coral_tests::{
    cri::{Catalogue, CredentialPrint, Flavour},
    hollow::Site,
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::hollow::{A_LOOK, Hollow, SOON, image, image_with, name, of, state};

pub(crate) async fn a_digest_decides_over_a_tag(site: Site) {
    let catalogue = Catalogue::default();
    let old = catalogue.publish(&name("app"), "old", 1_000);
    catalogue.publish(&name("app"), "new", 2_000);
    let node = Hollow::with_catalogue(&site, "digest", Flavour::Containerd, catalogue);
    let right = format!("{}@{}", name("app"), old.digest);
    let wrong = format!("{}@sha256:{}", name("app"), "0".repeat(64));
    let node = node
        .started(
            2,
            &[json!({"image": right}), json!({"image": wrong, "backoffLimit": 1})],
        )
        .await;
    let is_so = |status: &_| {
        state(status, &right) == Some(ImageState::Present) && state(status, &wrong) == Some(ImageState::Failed)
    };
    let status = node.until("the right digest to be there", SOON, is_so).await;
    let right = of(&status, &right).unwrap();
    assert_eq!(right.digest.as_ref(), Some(&old.digest));
    assert_eq!(right.size_bytes, Some(1_000));
    let failure = of(&status, &wrong).unwrap().failure.as_ref().unwrap();
    assert_eq!(failure.reason, FailureReason::NotFound);
    assert!(!node.runtime.holds(&name("app")));
}

/// CRI-O lists the digest of the manifest before that of the index.
pub(crate) async fn with_two_digests_the_one_that_was_asked_for_is_reported(site: Site) {
    let catalogue = Catalogue::default();
    let artifact = catalogue.publish(&name("app"), "content", 1_000);
    let node = Hollow::with_catalogue(&site, "two-digests", Flavour::CriO, catalogue);
    let image = format!("{}@{}", name("app"), artifact.digest);
    let node = node.started(2, &[json!({"image": image})]).await;
    let status = node.all_present(SOON).await;
    assert_eq!(of(&status, &image).unwrap().digest.as_ref(), Some(&artifact.digest));
    // What the next looks find in the list says the same.
    tokio::time::sleep(A_LOOK).await;
    let status = node.all_present(SOON).await;
    assert_eq!(of(&status, &image).unwrap().digest.as_ref(), Some(&artifact.digest));
}

pub(crate) async fn a_moved_tag_is_pulled_again_after_its_refresh_time(site: Site) {
    let catalogue = Catalogue::default();
    let old = catalogue.publish(&name("app"), "old", 1_000);
    let node = Hollow::with_catalogue(&site, "moved", Flavour::Containerd, catalogue.clone());
    let once = || image_with("once", json!({"refreshAfter": Timestamp::now()}));
    catalogue.publish(&name("once"), "old", 1_000);
    let node = node
        .started(2, &[image_with("app", json!({"pullPolicy": "Always"})), once()])
        .await;
    let status = node.all_present(SOON).await;
    assert_eq!(of(&status, &name("app")).unwrap().digest.as_ref(), Some(&old.digest));

    let new = catalogue.publish(&name("app"), "new", 2_000);
    catalogue.publish(&name("once"), "new", 2_000);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.runtime.counts().begun, 2);
    let again = json!({"pullPolicy": "Always", "refreshAfter": Timestamp::now()});
    node.asks(&[image_with("app", again), once()]).await;
    let is_new = |status: &_| of(status, &name("app")).is_some_and(|image| image.digest.as_ref() == Some(&new.digest));
    let status = node
        .until("the new digest to be told", Duration::from_secs(5), is_new)
        .await;
    assert_eq!(state(&status, &name("app")), Some(ImageState::Present));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The image never was reported as missing while it was refreshed, and one refresh is one pull.
    assert_eq!(node.runtime.attempts_at(&name("app")).len(), 2);
    assert_eq!(node.runtime.attempts_at(&name("once")).len(), 1);
}

/// The clock of the controller may be ahead of the node's.
pub(crate) async fn a_refresh_time_in_the_future_is_waited_for(site: Site) {
    let node = Hollow::new(&site, "future", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_millis(20), None);
    let soon = Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_secs(6);
    let again = json!({"pullPolicy": "Always", "refreshAfter": soon});
    let node = node.started(2, &[image_with("app", again)]).await;
    node.all_present(SOON).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(node.runtime.attempts_at(&name("app")).len(), 2);
}

pub(crate) async fn images_that_are_there_are_found_in_a_list_of_megabytes(site: Site) {
    let node = Hollow::new(&site, "large-list", Flavour::Containerd);
    node.runtime.fill(22_000);
    node.runtime.hold(&name("there")).unwrap();
    let node = node.started(2, &[image("there"), image("missing")]).await;
    let status = node.all_present(Duration::from_secs(40)).await;
    assert!(of(&status, &name("there")).unwrap().digest.is_some());
    assert_eq!(of(&status, &name("there")).unwrap().last_pull_time, None);
    assert!(node.runtime.attempts_at(&name("there")).is_empty());
    assert_eq!(node.runtime.counts().begun, 1);
}

pub(crate) async fn containerd_pins_and_cri_o_does_without(site: Site) {
    for flavour in [Flavour::Containerd, Flavour::CriO] {
        let node = Hollow::new(&site, &format!("pins-{flavour:?}").to_lowercase(), flavour);
        let pin = || image_with("app", json!({"pin": true}));
        let node = node.started(2, &[pin(), image("other")]).await;
        node.all_present(SOON).await;
        let pinned = |status: &coral_api::NodeImagesStatus| {
            let of = |short| of(status, &name(short)).is_some_and(|image| image.pinned);
            (of("app"), of("other"))
        };
        let can_pin = |status: &coral_api::NodeImagesStatus| {
            let condition = conditions::find(&status.conditions, conditions::PINNING);
            condition.map(|condition| (condition.status.clone(), condition.reason.clone()))
        };
        if flavour == Flavour::CriO {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let status = node.all_present(SOON).await;
            assert_eq!(pinned(&status), (false, false));
            assert_eq!(can_pin(&status), Some(("False".into(), "Unsupported".into())));
            node.asks(&[image("app"), image("other")]).await;
            node.until("nothing to be said of pins", SOON, |status| can_pin(status).is_none())
                .await;
            continue;
        }
        let status = node
            .until("the image to be pinned", A_LOOK, |status| {
                pinned(status) == (true, false)
            })
            .await;
        assert_eq!(can_pin(&status), Some(("True".into(), "Supported".into())));
        node.asks(&[image("app"), image("other")]).await;
        node.until("the image to be unpinned", A_LOOK, |status| {
            pinned(status) == (false, false)
        })
        .await;
        node.asks(&[pin(), image("other")]).await;
        node.until("the image to be pinned again", A_LOOK, |status| {
            pinned(status) == (true, false)
        })
        .await;
        node.delete_object().await;
        coral_tests::wait::eventually("nothing to be pinned", A_LOOK, async || {
            Ok(if node.runtime.pinned().is_empty() {
                coral_tests::wait::Look::Done(())
            } else {
                coral_tests::wait::Look::NotYet(node.runtime.pinned())
            })
        })
        .await
        .unwrap();
    }
}

pub(crate) async fn credentials_are_tried_in_order_and_never_told(site: Site) {
    let secrets: Api<Secret> = Api::namespaced(site.client.clone(), "default");
    for (secret, password) in [("wrong", "wrong-word"), ("right", "right-word")] {
        let config = json!({"auths": {"registry.example": {"username": "user", "password": password}}});
        let name = format!("hollow-{secret}");
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": config.to_string()},
        });
        let parameters = PatchParams::apply("coral-tests").force();
        secrets.patch(&name, &parameters, &Patch::Apply(&secret)).await.unwrap();
    }
    let secret = |name: &str| json!({"namespace": "default", "name": format!("hollow-{name}")});
    let (wrong, right) = (
        CredentialPrint::of("user", "wrong-word"),
        CredentialPrint::of("user", "right-word"),
    );
    let node = Hollow::new(&site, "credentials", Flavour::Containerd);
    for short in ["granted", "refused"] {
        node.catalogue.lock(&name(short), right);
    }
    let images = [
        image_with("granted", json!({"pullSecrets": [secret("wrong"), secret("right")]})),
        image_with("refused", json!({"pullSecrets": [secret("wrong")], "backoffLimit": 1})),
        image("anonymous"),
    ];
    let node = node.started(3, &images).await;
    let settled = |status: &_| {
        state(status, &name("granted")) == Some(ImageState::Present)
            && state(status, &name("anonymous")) == Some(ImageState::Present)
            && state(status, &name("refused")) == Some(ImageState::Failed)
    };
    let status = node.until("all images to be settled", SOON, settled).await;
    let sent = |short: &str| -> Vec<Option<CredentialPrint>> {
        let attempts = node.runtime.attempts_at(&name(short));
        attempts.into_iter().map(|attempt| attempt.credential).collect()
    };
    assert_eq!(sent("granted"), [Some(wrong), Some(right)]);
    assert_eq!(sent("refused")[..2], [Some(wrong), None]);
    assert_eq!(sent("anonymous"), [None]);
    let failure = of(&status, &name("refused")).unwrap().failure.clone().unwrap();
    assert_eq!(failure.reason, FailureReason::Unauthorized);
    let told = serde_json::to_string(&status).unwrap();
    assert!(!told.contains("-word"), "{told}");
}
