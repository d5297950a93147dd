//! The runtime is found by its socket.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use coral_api::{
    NodeImagesStatus,
    conditions::{self, READY},
};
use coral_tests::{
    cri::{Catalogue, FakeRuntime, Flavour},
    hollow::Site,
};
use tokio::net::UnixListener;

use crate::hollow::{Hollow, SOON, image};

fn is_ready(status: &NodeImagesStatus) -> bool {
    conditions::is_true(&status.conditions, READY)
}

/// Puts the socket of the runtime where the agent looks for one.
fn link(runtime: &FakeRuntime, folder: &Path, socket: &str) {
    let path = folder.join(socket);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(runtime.endpoint().strip_prefix("unix://").unwrap(), path).unwrap();
}

pub(crate) async fn the_first_socket_that_answers_is_the_runtime_s(site: Site) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Hollow::new(&site, "sockets", Flavour::Containerd);
    node.finds_its_runtime_below(folder.path());
    node.asks(&[image("a")]).await;
    node.start_agent(2);
    let told = |status: &NodeImagesStatus| {
        let condition = conditions::find(&status.conditions, READY);
        let says = |word: &str| condition.is_some_and(|condition| condition.message.contains(word));
        !is_ready(status) && says("containerd/containerd.sock (not there)") && says("crio/crio.sock (not there)")
    };
    node.until("the agent to say what it looks for", SOON, told).await;

    // As where Docker's containerd has its CRI plugin disabled.
    fs::create_dir_all(folder.path().join("containerd")).unwrap();
    let mute = UnixListener::bind(folder.path().join("containerd/containerd.sock")).unwrap();
    let task = tokio::spawn(async move { while mute.accept().await.is_ok() {} });
    link(&node.runtime, folder.path(), "k3s/containerd/containerd.sock");
    node.all_present(SOON).await;
    task.abort();
}

/// Two runtimes on one node: while the one that was found restarts, the other is not asked.
pub(crate) async fn a_restart_does_not_lead_to_another_runtime(site: Site) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Hollow::new(&site, "two-sockets", Flavour::Containerd);
    node.finds_its_runtime_below(folder.path());
    link(&node.runtime, folder.path(), "containerd/containerd.sock");
    let other = FakeRuntime::start(Flavour::CriO, Catalogue::of_everything(1)).unwrap();
    link(&other, folder.path(), "crio/crio.sock");
    node.asks(&[image("a")]).await;
    node.start_agent(2);
    node.all_present(SOON).await;

    node.runtime.stop().await;
    node.until("the runtime to be missed", SOON, |status| !is_ready(status))
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    node.runtime.resume().unwrap();
    let status = node.until("the runtime to be back", SOON, is_ready).await;
    assert_eq!(status.runtime.unwrap().name, "containerd");
    assert_eq!(other.calls().version, 0);
}
