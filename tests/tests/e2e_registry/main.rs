//! A registry in the cluster: nodes get copies from it when the origin is gone, and its collector always lets it begin again.
//!
//! All nodes of these clusters share one network namespace, and so one loopback address: the relay of the first node answers the second
//! node, too, and the relay of the second waits for the address.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod away;
mod journey;
mod site;
#[path = "../support/mod.rs"]
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _};

use away::Waiting;
use coral_tests::{
    images,
    wait::{Look, eventually},
};
use journey::Journey;
use kube::ResourceExt as _;
use serde_json::json;
use site::{Door, NAMESPACE, Site};
use support::{PATIENCE, remains::Everything};

/// A registry that nobody can reach.
const ORIGIN: &str = "origin.invalid";

/// What nodes know the copy of an image as.
fn copy_of(image: &str) -> String {
    format!("localhost:7439/mirror/{image}")
}

/// Puts a copy of an image, which is nowhere else, into the registry.
fn push(door: &Door, repository: &str) -> (String, String) {
    let image = format!("{ORIGIN}/{repository}");
    let copy = images::tiny(&door.registry, &format!("mirror/{image}"), "v1", 200_000, repository).unwrap();
    (format!("{image}:v1"), copy.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_outlive_their_origin_and_the_registry_outlives_its_collector() {
    let site = Site::new().await;
    let _diagnose = site.cluster.diagnose_on_panic();
    let journey = Journey::begin(&site).await;
    let before = Everything::of(&site.cluster);
    site.install().await;
    journey.ask_for_copies();
    journey.all_is_well().await;
    journey.originals_go().await;
    let node = journey.a_new_node_gets_the_copies().await;

    journey.suspend(true);
    let door = site.door().await;
    a_pod_waits_for_the_relay_and_no_longer(&site, &door, &journey.waiting()).await;
    space_comes_back(&site, door, &journey.fetched()).await;
    the_collector_is_killed(&site, &journey.fetched()).await;
    journey.suspend(false);

    journey.rubbish_is_told_of().await;
    journey.originals_come_back().await;
    journey.clean_up();
    let said = site.coral(&["uninstall", "--yes"]).succeeded().stderr;
    assert!(
        said.contains("the registry in the cluster with all copies in it"),
        "{said}"
    );
    let mut after = Everything::of(&site.cluster);
    assert_eq!(after.mentions, [""; 0]);
    after.names.retain(|name| !name.ends_with(&format!("/{}", node.name())));
    assert_eq!(after.names, before.names);
    site.cluster.down().await.unwrap();
}

/// A pod that is sent to a copy before its node has a relay is tried again by the kubelet, and runs once there is one.
async fn a_pod_waits_for_the_relay_and_no_longer(site: &Site, door: &Door, other: &Waiting<'_>) {
    let (image, _) = push(door, "team/late");
    let select = |pool: &str| {
        let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"pool": pool}}}}}).to_string();
        let patch = if pool.is_empty() {
            patch.replace("\"\"", "null")
        } else {
            patch
        };
        let arguments = [
            "--namespace",
            NAMESPACE,
            "patch",
            "daemonset/coral-relay",
            "--patch",
            &patch,
        ];
        site.kubectl(&arguments).succeeded();
    };
    select("none");
    site.kubectl(&[
        "--namespace",
        NAMESPACE,
        "wait",
        "--for=delete",
        "pod",
        "--selector=app.kubernetes.io/name=coral-relay",
        "--timeout=60s",
    ])
    .succeeded();
    site.apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "late", "namespace": "default"},
        "spec": {
            "nodeName": "node-1",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "late", "image": copy_of(&image)}],
        },
    }));
    site.has_no_image("default", "late").await;
    other.is_told_of().await;
    select("");
    site.runs("default", "late").await;
    other.is_over().await;
}

/// The job lets the registry begin anew, which gives back what was deleted, and keeps the rest.
async fn space_comes_back(site: &Site, door: Door, kept: &str) {
    let (_, digest) = push(&door, "team/gone");
    let hash = digest.strip_prefix("sha256:").unwrap();
    let blob = site
        .data()
        .join(format!("docker/registry/v2/blobs/sha256/{}/{hash}/data", &hash[..2]));
    assert!(blob.exists(), "{}", blob.display());
    door.registry.delete(&format!("mirror/{ORIGIN}/team/gone:v1")).unwrap();
    drop(door);
    let before = site.pods(NAMESPACE).get("coral-registry-0").await.unwrap();
    site.kubectl(&[
        "--namespace",
        NAMESPACE,
        "create",
        "job",
        "collect-now",
        "--from=cronjob/coral-registry-collector",
    ])
    .succeeded();
    site.begun_anew("coral-registry-0", before.uid().as_deref()).await;
    assert!(!blob.exists(), "{}", blob.display());
    assert_eq!(collected(site), "the collector ended with 0");
    is_to_be_had(site, kept).await;
}

/// The last thing that the collector has said.
fn collected(site: &Site) -> String {
    let arguments = [
        "--namespace",
        NAMESPACE,
        "logs",
        "coral-registry-0",
        "--container=collect",
        "--tail=1",
    ];
    site.kubectl(&arguments).succeeded().stdout.trim().to_owned()
}

/// A node without the copy gets it from the registry.
async fn is_to_be_had(site: &Site, copy: &str) {
    let node = site.cluster.node("node-1").unwrap();
    node.remove_image(copy).unwrap();
    // The agent notices within seconds.
    eventually("the image to come back", PATIENCE, async || {
        Ok(if node.has_image(copy)? {
            Look::Done(())
        } else {
            Look::NotYet(())
        })
    })
    .await
    .unwrap();
}

/// The collector is killed half-way, as by the kernel when memory is short: the registry begins all the same.
async fn the_collector_is_killed(site: &Site, kept: &str) {
    let blobs = site.data().join("docker/registry/v2/blobs/sha256/ff");
    let garbage = || {
        for number in 0..3_000 {
            let folder = blobs.join(format!("ff{number:062x}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("data"), "garbage").unwrap();
            // The registry is another user.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::set_permissions(&blobs, fs::Permissions::from_mode(0o777)).unwrap();
    };
    // Of a blob that was being deleted at that moment, an empty folder may stay.
    let has_data = |folder: &fs::DirEntry| folder.path().join("data").exists();
    let left = || fs::read_dir(&blobs).map_or(0, |folders| folders.flatten().filter(has_data).count());
    garbage();
    let before = site.pods(NAMESPACE).get("coral-registry-0").await.unwrap();
    let arguments = [
        "--namespace",
        NAMESPACE,
        "delete",
        "pod",
        "coral-registry-0",
        "--wait=false",
    ];
    site.kubectl(&arguments).succeeded();
    // Its shell, and with that its container.
    let shell = eventually("the collector to be at work", PATIENCE, async || {
        let all = left();
        let shells = site.cluster.pod_processes("/bin/sh")?;
        Ok(match shells.into_iter().next() {
            Some(shell) if all < 3_000 => Look::Done(shell),
            _ => Look::NotYet(all),
        })
    });
    shell.await.unwrap().kill().unwrap();
    let began = site.begun_anew("coral-registry-0", before.uid().as_deref()).await;
    let statuses = began.status.unwrap().init_container_statuses.unwrap();
    assert_eq!(statuses[0].restart_count, 1, "it was killed");
    assert_eq!(
        collected(site),
        "the collector was cut short the last time, and is left out this time"
    );
    assert!(left() > 0, "it was killed half-way");
    is_to_be_had(site, kept).await;

    // The next one does what that one left.
    site.kubectl(&arguments).succeeded();
    site.begun_anew("coral-registry-0", began.metadata.uid.as_deref()).await;
    assert_eq!((collected(site).as_str(), left()), ("the collector ended with 0", 0));
}
