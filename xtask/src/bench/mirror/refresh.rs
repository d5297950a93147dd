//! What the mirror controller asks registries when nothing changes.
//!
//! The controller runs in this process, against an API server without nodes. It finds copies of everything, as the command has made them, and
//! looks at them once in an interval.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use coral_api::{Mirror, MirroredImage};
use coral_mirror::{Controller, ControllerOptions};
use coral_tests::{
    hollow::ControlPlane,
    wait::{Look, eventually},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::registry::Registry;

/// The interval in which each image is looked at: the shortest that a Mirror may have.
const INTERVAL: Duration = Duration::from_secs(10);
/// Intervals that are counted.
const INTERVALS: u32 = 6;
/// How long it takes until other clusters have been told which copies this one needs; those requests are not about images.
const SETTLED: Duration = Duration::from_secs(20);
/// How long it may take until everything is found.
const PATIENCE: Duration = Duration::from_mins(2);
const NAME: &str = "bench";

/// Requests for each image and interval, to both registries. All images have copies in `to`.
pub(super) async fn requests(folder: &Path, images: &[String], from: &Registry, to: &Registry) -> Result<f64> {
    let plane = ControlPlane::start(folder, "mirror").await?;
    let count = count(plane.client(), images, from, to).await;
    plane.down().await?;
    #[expect(clippy::cast_precision_loss, reason = "counts of a few hundred")]
    Ok(count? as f64 / (images.len() as f64 * f64::from(INTERVALS)))
}

async fn count(client: Client, images: &[String], from: &Registry, to: &Registry) -> Result<usize> {
    let force = PatchParams::apply(NAME).force();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in [Mirror::crd(), MirroredImage::crd()] {
        let name = format!("{}.{}", crd.spec.names.plural, crd.spec.group);
        crds.patch(&name, &force, &Patch::Apply(&crd))
            .await
            .context("define Mirrors")?;
    }
    let mirrors: Api<Mirror> = Api::all(client.clone());
    let mirrored: Api<MirroredImage> = Api::all(client.clone());
    eventually("the API server to serve Mirrors", PATIENCE, async || {
        let list = ListParams::default().limit(1);
        mirrors.list(&list).await?;
        mirrored.list(&list).await?;
        Ok(Look::<(), ()>::Done(()))
    })
    .await?;
    let spec = json!({
        "images": images.iter().map(|image| format!("{}/{image}", from.host())).collect::<Vec<_>>(),
        "destinations": [{"registry": to.host(), "plainHttp": true}],
        "refreshInterval": format!("{}s", INTERVAL.as_secs()),
    });
    let mirror = Mirror::new(NAME, serde_json::from_value(spec).context("write a Mirror")?);
    mirrors
        .create(&PostParams::default(), &mirror)
        .await
        .context("create a Mirror")?;
    let controller = Controller::new(client, ControllerOptions::default());
    let controller = tokio::spawn(controller.run(std::future::pending::<()>()));
    let all = i32::try_from(images.len())?;
    eventually("all copies to be found", PATIENCE, async || {
        let status = mirrors.get(NAME).await?.status.unwrap_or_default();
        Ok(if status.images.copied == all {
            Look::Done(())
        } else {
            Look::NotYet(status.images)
        })
    })
    .await?;
    tokio::time::sleep(SETTLED).await;
    let before = from.requests()? + to.requests()?;
    tokio::time::sleep(INTERVAL * INTERVALS).await;
    let after = from.requests()? + to.requests()?;
    controller.abort();
    Ok(after - before)
}
