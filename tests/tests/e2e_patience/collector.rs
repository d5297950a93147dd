//! A disk that fills up again and again, and a real kubelet that collects what no pod uses.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use coral_agent::{Agent, runtime::Runtime};
use coral_api::{conditions, node_images::ImageState};
use coral_tests::{
    ClusterOptions, images,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;

use crate::{
    TEN_MINUTES,
    solo::{PATIENCE, Solo},
};

const NODE: &str = "node-1";
/// Compressed, and again unpacked.
const IMAGE_BYTES: usize = 20_000_000;
/// What is left of 300 MiB when the disk is full: less than the 15 % below which the kubelet collects.
const LEFT_BYTES: u64 = 30_000_000;
/// The agent looks every 8 s, and what it sees is written at once or 2 s after the last write; two more for a
/// machine that has other things to do.
const REPORTED_WITHIN: Duration = Duration::from_secs(12);

/// The most pulls of one image in such a time: one, one more at once when it is gone for the first time, and then after
/// pauses of 30 s that double.
fn most_pulls(lasting: Duration) -> usize {
    let ends_of_pauses = (0..).scan(Duration::ZERO, |end, doublings| {
        *end += Duration::from_secs(30 << doublings);
        Some(*end)
    });
    2 + ends_of_pauses.take_while(|end| *end <= lasting).count()
}

pub(crate) async fn ten_minutes_of_a_kubelet_that_keeps_collecting_are_no_fight() {
    assert_eq!(most_pulls(TEN_MINUTES), 6);
    let mut solo = Solo::start(
        "collector",
        ClusterOptions {
            nodes: 1,
            node_disk: Some("300m".to_owned()),
            ..ClusterOptions::default()
        },
    )
    .await;
    solo.start_controller();
    let node = solo.cluster.node(NODE).unwrap();
    let endpoint = format!("unix://{}", node.containerd_socket().display());
    let runtime = Runtime::new(&endpoint).unwrap();
    let agent = Agent::new(solo.client.clone(), runtime, NODE.to_owned(), 4);
    let agent = tokio::spawn(agent.run(std::future::pending::<()>()));

    let publish = |name: &str| {
        let registry = solo.cluster.open_registry();
        images::tiny(&registry, name, "v1", IMAGE_BYTES, name)
            .unwrap()
            .reference
    };
    let loose = [publish("loose-1"), publish("loose-2")];
    let kept = publish("kept");
    solo.prefetch("kept", json!({"images": [kept], "pin": true})).await;
    solo.prefetch("loose", json!({"images": loose})).await;
    solo.says("pinned", (NODE, &kept), PATIENCE, |status| status.pinned)
        .await;

    let filler = node.path("/var/lib/filler").unwrap();
    let began = Instant::now();
    let left = || TEN_MINUTES.saturating_sub(began.elapsed());
    let mut collections = 0;
    loop {
        // The pauses grow: at some time the images do not come back before the ten minutes are over.
        let mut all_are_back = true;
        for image in &loose {
            all_are_back &= solo.held(NODE, image, true, left()).await.is_ok();
        }
        if left().is_zero() {
            break;
        }
        assert!(all_are_back);
        for image in &loose {
            solo.present(NODE, image, REPORTED_WITHIN).await;
        }
        fill(&filler);
        tokio::join!(collected(&solo, &loose), under_pressure(&solo, &loose));
        collections += 1;
        fs::remove_file(&filler).unwrap();
    }

    for image in &loose {
        let pulls = solo.pulls(image);
        // Fewer would mean that there was nothing to fight about.
        assert!(
            (4..=most_pulls(TEN_MINUTES)).contains(&pulls),
            "{pulls} pulls of {image} in ten minutes and {collections} collections"
        );
    }
    assert!(solo.pulls(&kept) == 1 && node.has_image(&kept).unwrap());
    assert!(!agent.is_finished());
    agent.abort();
    solo.down().await;
}

/// Fills the disk.
fn fill(filler: &Path) {
    fs::write(filler, []).unwrap();
    let disk = rustix::fs::statvfs(filler).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    let bytes = usize::try_from(free.saturating_sub(LEFT_BYTES)).unwrap();
    fs::write(filler, vec![0; bytes]).unwrap();
}

/// Waits until the kubelet has collected these images; each is reported in time.
async fn collected(solo: &Solo, images: &[String]) {
    let reported = async |image: &String| {
        let gone = solo.held(NODE, image, false, PATIENCE).await.unwrap();
        let is_gone = |status: &coral_api::node_images::ImageStatus| status.state != ImageState::Present;
        let (_, told) = solo.says("gone", (NODE, image), PATIENCE, is_gone).await;
        let took = told.saturating_duration_since(gone);
        assert!(took < REPORTED_WITHIN, "that {image} is gone was told after {took:?}");
    };
    futures::future::join_all(images.iter().map(reported)).await;
}

/// Waits until the pressure has come and gone; meanwhile nothing is pulled.
async fn under_pressure(solo: &Solo, images: &[String]) {
    let nodes: Api<Node> = Api::all(solo.client.clone());
    let is_under_pressure = async || -> anyhow::Result<bool> {
        let conditions = nodes.get(NODE).await?.status.and_then(|status| status.conditions);
        let conditions = conditions.unwrap_or_default();
        let mut of_disk = conditions.iter().filter(|condition| condition.type_ == "DiskPressure");
        Ok(of_disk.any(|condition| condition.status == "True"))
    };
    let pulls = || images.iter().map(|image| solo.pulls(image)).sum::<usize>();
    let accepts = async || -> anyhow::Result<bool> {
        let status = solo.status(NODE).await?.unwrap_or_default();
        Ok(conditions::is_true(&status.conditions, conditions::ACCEPTING))
    };
    eventually("the agent to learn of the pressure", PATIENCE, async || {
        let seen = (is_under_pressure().await?, accepts().await?);
        Ok(if seen == (true, false) {
            Look::Done(())
        } else {
            Look::NotYet(seen)
        })
    })
    .await
    .unwrap();
    let before = pulls();
    eventually("the pressure to end", PATIENCE, async || {
        // In this order: what was pulled by then was pulled under pressure, if it still lasts afterwards.
        let now = pulls();
        if !is_under_pressure().await? {
            return Ok(Look::Done(()));
        }
        assert_eq!(now, before, "the agent pulls under pressure");
        Ok(Look::NotYet(now))
    })
    .await
    .unwrap();
}
