//! What is copied, what is told of it, and what goes.

use std::{fs, time::Duration};

use coral_api::{
    MirrorStatus, MirroredImageStatus, conditions,
    mirrored_image::{CopyState, OriginState},
};
use coral_mirror::mark::{self, Mark};
use coral_registry::{Client, Keyring, Options};
use coral_tests::wait::{Look, eventually};
use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::site::{NAMESPACE, PATIENCE, Site};

/// `unusedFor`, and what it takes to notice.
const UNUSED: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_is_copied_and_what_is_not_goes_after_its_time() {
    let site = Site::start("mirror-copies").await;
    let named = site.image("named", "1");
    let [web, elsewhere, model] = ["web", "elsewhere", "model"].map(|name| site.image(name, "1"));
    let digest = site.open.digest(&model).unwrap();
    let pinned = format!("{model}@{digest}");
    for (name, image) in [("web", &web), ("elsewhere", &elsewhere), ("pinned", &pinned)] {
        site.deployment(name, image).await;
    }
    site.apply(json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": "model", "namespace": NAMESPACE},
        "spec": {"images": [model]},
    }))
    .await;
    let controller = site.controller("one");
    site.mirror(
        "all",
        json!({
            "images": [named],
            "discover": {"namespaceSelector": {"matchLabels": {"team": "shop"}}},
            "retention": {"unusedFor": "1m"},
        }),
    )
    .await;
    site.until_mirror("five images are copied", "all", |mirror| {
        let status = mirror.status.clone().unwrap_or_default();
        let MirrorStatus { images, conditions, .. } = status;
        (images.desired, images.copied, images.failed) == (5, 5, 0) && conditions::is_true(&conditions, "Ready")
    })
    .await;
    for image in [&named, &web, &model] {
        assert_eq!(
            site.authenticated.digest(&site.copy(image)).unwrap(),
            site.open.digest(image).unwrap()
        );
    }
    let status = site
        .until("it is told of", &web, |status| status.used_by.count >= 1)
        .await;
    let copy = &status.destinations[0];
    assert_eq!(
        (copy.state, status.origin.as_ref().unwrap().state),
        (CopyState::Present, OriginState::Available)
    );
    assert_eq!(
        (copy.digest.as_ref(), copy.reference.as_str()),
        (status.digest.as_ref(), site.copy(&web).as_str())
    );
    assert!(copy.node_reference.starts_with("localhost:7439/m/"), "{copy:?}");
    assert!(
        status.used_by.sample.contains(&"Deployment shop/web".to_owned()),
        "{:?}",
        status.used_by
    );
    // The digest is what the workload wants, whatever becomes of the tag.
    let of_digest = site.status(&pinned).await.unwrap().destinations.remove(0);
    assert!(
        of_digest.node_reference.ends_with(&format!("@{digest}")),
        "{of_digest:?}"
    );
    assert_eq!(site.authenticated.digest(&of_digest.reference).unwrap(), digest);

    // Another cluster says that it needs one of them.
    let version = site.mirrors().get("all").await.unwrap().metadata.resource_version;
    mark_of_another(&site, &site.copy(&elsewhere)).await;
    // Every image has been looked at again, and nothing was to be said of that.
    site.until("it is looked at again", &web, |later| {
        let time = |status: &MirroredImageStatus| status.origin.as_ref().map(|origin| origin.checked_at.0);
        time(later) > time(&status)
    })
    .await;
    let later = site.mirrors().get("all").await.unwrap().metadata.resource_version;
    assert_eq!(version, later, "a status was written that says nothing new");
    let deployments: Api<Deployment> = Api::namespaced(site.client.clone(), NAMESPACE);
    for name in ["web", "elsewhere"] {
        deployments.delete(name, &DeleteParams::background()).await.unwrap();
    }
    // Meanwhile, a tag that moves.
    let before = site.open.digest(&named).unwrap();
    site.image("named", "2");
    let moved = site.open.digest(&named).unwrap();
    assert_ne!(before, moved);
    site.until("the copy follows the tag", &named, |status| {
        status.destinations[0].digest.as_deref() == Some(moved.as_str())
    })
    .await;
    assert_eq!(site.authenticated.digest(&site.copy(&named)).unwrap(), moved);

    gone(&site, &web).await;
    for image in [&named, &model, &elsewhere] {
        assert!(site.authenticated.digest(&site.copy(image)).is_ok(), "{image} is gone");
        assert!(site.status(image).await.is_some(), "{image} is forgotten");
    }
    assert!(site.authenticated.digest(&of_digest.reference).is_ok());
    assert!(!controller.is_finished());
    controller.abort();
    site.plane.down().await.unwrap();
}

/// Waits until the copy of an image is gone, and the object that tells of it.
async fn gone(site: &Site, image: &str) {
    eventually("the copy of what nobody uses to go", UNUSED + PATIENCE, async || {
        let is_there = site.authenticated.digest(&site.copy(image)).is_ok();
        let status = site.status(image).await;
        Ok(if is_there || status.is_some() {
            Look::NotYet((is_there, status))
        } else {
            Look::Done(())
        })
    })
    .await
    .unwrap();
}

/// Writes the mark of a cluster that needs a copy.
async fn mark_of_another(site: &Site, copy: &str) {
    let registry = site.plane.cluster().registry_auth();
    let options = Options {
        authorities: fs::read(&registry.authority).unwrap(),
        ..Options::default()
    };
    let auths = json!({"auths": {&registry.host: {"username": registry.user, "password": registry.password}}});
    let keyring = Keyring::from_config_json(auths.to_string().as_bytes()).unwrap();
    let destination = json!({"registry": registry.host, "repositoryPrefix": "m"});
    let reference = mark::reference(&serde_json::from_value(destination).unwrap(), "another").unwrap();
    let credential = keyring.lookup(&reference.name()).first().copied();
    let repository = Client::new(options).unwrap().repository(&reference, credential);
    let mark = Mark {
        cluster: "another".to_owned(),
        written_at: Timestamp::now(),
        references: [mark::spelling(&copy.parse().unwrap())].into(),
    };
    mark::write(&repository, &mark).await.unwrap();
    eventually("this cluster's own mark to be there, too", PATIENCE, async || {
        let marks = mark::read_all(&repository).await?;
        Ok(if marks.iter().any(|mark| mark.references.len() >= 5) {
            Look::Done(())
        } else {
            Look::NotYet(marks)
        })
    })
    .await
    .unwrap();
}
