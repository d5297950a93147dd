//! One controller works, and another takes over in time.

use std::time::{Duration, Instant};

use coral_api::Prefetch;
use coral_tests::hollow::Site;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    actor::{Actor, seen},
    gate::{Gate, Way},
    site::NAMESPACE,
};

/// How long the first may take to lead, with a cluster that is busy with itself.
const SOON: Duration = Duration::from_secs(15);
/// How long a hand-over may take when the leader was killed.
const AFTER_A_KILL: Duration = Duration::from_secs(20);
/// How long a hand-over may take when the leader was told to stop.
const AFTER_A_STOP: Duration = Duration::from_secs(3);

/// Two controllers, of which the first leads.
async fn pair(site: &Site) -> (Actor, Actor) {
    let first = Actor::start(site, "first");
    first.leads(SOON).await;
    let second = Actor::start(site, "second");
    second.knows(SOON).await;
    (first, second)
}

async fn make_prefetch(site: &Site, name: &str) {
    let prefetches: Api<Prefetch> = Api::default_namespaced(site.client.clone());
    let object = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": name},
        "spec": {"images": ["nginx:1.29"]},
    });
    let object = serde_json::from_value(object).unwrap();
    prefetches.create(&PostParams::default(), &object).await.unwrap();
}

/// Waits until somebody has seen to the Prefetch.
async fn is_seen_to(site: &Site, name: &str, patience: Duration) {
    let prefetches: Api<Prefetch> = Api::default_namespaced(site.client.clone());
    seen(&format!("Prefetch {name} to have a status"), patience, async || {
        Ok(prefetches.get(name).await?.status)
    })
    .await;
}

async fn lease(site: &Site) -> Lease {
    let leases: Api<Lease> = Api::namespaced(site.client.clone(), NAMESPACE);
    leases.get("coral-controller").await.unwrap()
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn transitions(lease: &Lease) -> i32 {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or_default()
}

pub(crate) async fn one_leads_and_the_other_knows_the_cluster(site: Site) {
    let (first, second) = pair(&site).await;
    make_prefetch(&site, "web").await;
    is_seen_to(&site, "web", SOON).await;
    assert_eq!(holder(&lease(&site).await), "first");
    assert!(!first.writes().is_empty());
    assert!(second.writes().is_empty());
    assert!(second.metrics.is_ready() && !second.metrics.is_leader());
}

pub(crate) async fn a_killed_leader_is_followed_in_time(site: Site) {
    let (mut first, second) = pair(&site).await;
    first.kill().await;
    let killed = Instant::now();
    make_prefetch(&site, "web").await;
    let followed = second.leads(AFTER_A_KILL).await;
    is_seen_to(&site, "web", AFTER_A_KILL.saturating_sub(killed.elapsed())).await;
    let lease = lease(&site).await;
    assert_eq!((holder(&lease), transitions(&lease)), ("second", 2));
    // What the first has sent may be under way for as long as this.
    let last = first.writes().last().copied().unwrap_or(killed);
    assert!(second.writes().iter().all(|write| *write > last));
    assert!(followed - killed > Duration::from_secs(5), "{:?}", followed - killed);
}

pub(crate) async fn a_stopped_leader_hands_over_at_once(site: Site) {
    let (mut first, second) = pair(&site).await;
    let stopped = Instant::now();
    first.stop().await;
    let released = lease(&site).await;
    assert!(["", "second"].contains(&holder(&released)), "{released:?}");
    make_prefetch(&site, "web").await;
    second.leads(AFTER_A_STOP.saturating_sub(stopped.elapsed())).await;
    is_seen_to(&site, "web", AFTER_A_STOP.saturating_sub(stopped.elapsed())).await;
    assert_eq!(holder(&lease(&site).await), "second");
}

pub(crate) async fn a_leader_that_is_cut_off_stops_before_the_next_begins(site: Site) {
    let gate = Gate::start(&site).await;
    let first = Actor::start_at(&site, "first", Some(gate.address()));
    first.leads(SOON).await;
    let second = Actor::start(&site, "second");
    second.knows(SOON).await;
    gate.set(Way::Cut).await;
    let cut = Instant::now();
    make_prefetch(&site, "web").await;
    let (ended, began) = tokio::join!(first.leads_no_more(AFTER_A_KILL), second.leads(AFTER_A_KILL));
    assert!(
        ended < began,
        "the second led {:?} before the first had stopped",
        ended - began
    );
    assert!(
        began - ended > Duration::from_secs(2),
        "they are only {:?} apart",
        began - ended
    );
    assert!(
        ended - cut <= Duration::from_secs(11),
        "it led on for {:?}",
        ended - cut
    );
    is_seen_to(&site, "web", SOON).await;
    gate.set(Way::Open).await;
    // Back again, it sees that somebody else leads, and writes nothing.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!first.metrics.is_leader() && second.metrics.is_leader());
    let late = first.writes().into_iter().filter(|write| *write > began).count();
    assert_eq!(late, 0);
}

/// A load balancer that forgets connections tells nobody. The next renewal makes a new one.
pub(crate) async fn dead_connections_cost_nobody_the_lead(site: Site) {
    let gate = Gate::start(&site).await;
    let first = Actor::start_at(&site, "first", Some(gate.address()));
    first.leads(SOON).await;
    let second = Actor::start(&site, "second");
    second.knows(SOON).await;
    gate.kill_silently();
    let looked = tokio::time::timeout(AFTER_A_KILL, second.leads(AFTER_A_KILL * 2)).await;
    assert!(looked.is_err(), "the second took over");
    assert!(first.metrics.is_leader());
    assert_eq!(transitions(&lease(&site).await), 1);
}

pub(crate) async fn a_lease_that_somebody_else_takes_ends_the_lead(site: Site) {
    let first = Actor::start(&site, "first");
    first.leads(SOON).await;
    let leases: Api<Lease> = Api::namespaced(site.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3}}));
    leases
        .patch("coral-controller", &PatchParams::default(), &patch)
        .await
        .unwrap();
    first.leads_no_more(AFTER_A_STOP).await;
    // That somebody gives no sign of life.
    first.leads(SOON).await;
    make_prefetch(&site, "web").await;
    is_seen_to(&site, "web", SOON).await;
}

/// The kubelet starts a container again when it has ended, and the Pod keeps its name.
pub(crate) async fn a_controller_of_the_same_name_goes_on_at_once(site: Site) {
    let mut first = Actor::start(&site, "first");
    first.leads(SOON).await;
    first.kill().await;
    make_prefetch(&site, "web").await;
    let again = Actor::start(&site, "first");
    again.leads(AFTER_A_STOP).await;
    is_seen_to(&site, "web", AFTER_A_STOP).await;
    assert_eq!(transitions(&lease(&site).await), 1);
}
