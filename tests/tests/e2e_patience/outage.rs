//! The API server is away for ten minutes: first it hangs, then it is dead.

use std::time::{Duration, Instant};

use coral_api::node_images::ImageState;
use coral_tests::{ClusterOptions, images};
use serde_json::json;

use crate::{
    TEN_MINUTES,
    solo::{PATIENCE, Solo, agent, open_files},
};

const NODE: &str = "light-1";
/// How long the API server hangs before it dies.
const FROZEN: Duration = Duration::from_mins(2);
/// A write that failed is tried again after 2 s, and one that gets no answer ends after 10 s; the rest is for a slow machine.
const TOLD_AFTERWARDS: Duration = Duration::from_secs(30);
/// A watch is begun again after pauses that grow up to 10 s, with a jitter of as much again; one more may fall into the start of the API server.
const RECONNECTION: Duration = Duration::from_mins(1);
/// Attempts at an image that is not there, after pauses that double from 1 s to 5 min and have a jitter of a quarter.
const MOST_ATTEMPTS: i32 = 12;

pub(crate) async fn an_api_server_that_is_gone_for_ten_minutes_is_survived() {
    let solo = Solo::start(
        "outage",
        ClusterOptions {
            nodes: 0,
            light_nodes: 1,
            agent: Some(agent()),
            ..ClusterOptions::default()
        },
    )
    .await;
    let node = solo.cluster.node(NODE).unwrap();
    let registry = solo.cluster.open_registry();
    let publish = |name: &str, bytes: usize| images::tiny(&registry, name, "v1", bytes, name).unwrap().reference;
    let (quick, late) = (publish("quick", 100_000), publish("late", 100_000));
    let large = publish("large", 24_000_000);
    // About four minutes: it begins before the outage and ends in it, when the API server is dead already.
    let relay = solo.cluster.slow_registry(100_000).await.unwrap();
    let slow = large.replace(solo.cluster.registry().as_str(), &relay.host());
    let missing = format!("{}/nobody/has/this:v1", solo.cluster.registry());
    let wanted = [
        json!({"image": quick}),
        json!({"image": slow}),
        json!({"image": missing, "backoffLimit": 100}),
    ];
    solo.ask(NODE, &wanted).await;
    solo.present(NODE, &quick, PATIENCE).await;
    solo.says("under way", (NODE, &slow), PATIENCE, |status| {
        status.state == ImageState::Pulling && status.pull.as_ref().is_some_and(|pull| pull.done_bytes > Some(0))
    })
    .await;
    let (failed, _) = solo
        .says("failed", (NODE, &missing), PATIENCE, |status| status.failure.is_some())
        .await;
    let process = node.agent_process().unwrap();
    let files = open_files(process.pid);

    let began = Instant::now();
    solo.cluster.freeze_api_server().unwrap();
    // The agent needs no API server to keep what it was asked to keep.
    node.remove_image(&quick).unwrap();
    solo.held(NODE, &quick, true, PATIENCE).await.unwrap();
    assert!(began.elapsed() < FROZEN, "{:?}", began.elapsed());
    tokio::time::sleep_until((began + FROZEN).into()).await;
    solo.cluster.kill_api_server().unwrap();
    assert!(!node.has_image(&slow).unwrap(), "the pull was to last longer");
    solo.held(NODE, &slow, true, TEN_MINUTES).await.unwrap();
    tokio::time::sleep_until((began + TEN_MINUTES).into()).await;
    assert!(solo.status(NODE).await.is_err(), "the API server was to be away");

    solo.cluster.start_api_server().await.unwrap();
    let back = Instant::now();
    let left = || TOLD_AFTERWARDS.saturating_sub(back.elapsed());
    solo.present(NODE, &slow, left()).await;
    solo.present(NODE, &quick, left()).await;
    let attempts = |status: &coral_api::node_images::ImageStatus| status.failure.as_ref().map_or(0, |it| it.attempts);
    let (missed, told) = solo
        .says("more attempts", (NODE, &missing), left(), |status| {
            attempts(status) > attempts(&failed)
        })
        .await;
    assert!(told - back <= TOLD_AFTERWARDS, "{:?}", told - back);
    assert!(attempts(&missed) <= MOST_ATTEMPTS, "{missed:?}");
    assert_eq!((solo.pulls(&quick), solo.pulls(&large)), (2, 1));

    // What is asked now is heard.
    let mut wanted = wanted.to_vec();
    wanted.push(json!({"image": late}));
    solo.ask(NODE, &wanted).await;
    solo.present(NODE, &late, RECONNECTION).await;

    assert_eq!(node.agent_process().unwrap(), process, "the agent was started again");
    let files_now = open_files(process.pid);
    assert!(files_now <= files + 8, "{files} files were open, and then {files_now}");
    drop(relay);
    solo.down().await;
}
