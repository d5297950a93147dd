//! A node in the hands of a test: what its containerd really holds, and ways to make trouble.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{
    Cluster, light_node,
    node::{self, PartNames},
    options::AGENT_PORT,
    probe,
    process::{self, ProcessRecord},
    registry,
    site::Site,
    state::{NodeRecord, State},
};

/// How long a part has for an orderly end.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// One node of a cluster.
#[derive(Clone)]
pub struct NodeHandle {
    site: Site,
    client: kube::Client,
    record: NodeRecord,
}

impl Cluster {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<NodeHandle> {
        let state = self.state()?;
        let record = state
            .node(name)
            .cloned()
            .with_context(|| format!("the cluster has no node {name}"))?;
        Ok(NodeHandle {
            site: self.site.clone(),
            client: self.client(),
            record,
        })
    }

    /// All nodes, in the order in which they joined.
    pub fn nodes(&self) -> Result<Vec<NodeHandle>> {
        let records = self.state()?.nodes;
        let handle = |record| NodeHandle {
            site: self.site.clone(),
            client: self.client(),
            record,
        };
        Ok(records.into_iter().map(handle).collect())
    }
}

impl NodeHandle {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Whether it is a light one.
    #[must_use]
    pub fn is_light(&self) -> bool {
        self.record.light
    }

    /// Its IP address.
    #[must_use]
    pub fn address(&self) -> std::net::Ipv4Addr {
        self.site.addresses.node(self.record.light, self.record.number)
    }

    /// The socket of its containerd.
    #[must_use]
    pub fn containerd_socket(&self) -> PathBuf {
        self.site.layout.containerd_socket(&self.record.name)
    }

    /// A path on the node (`/var/lib/…`), as this process can reach it.
    pub fn path(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let name = PartNames::of(&self.record.name).mounts;
        let holder = self
            .site
            .running(&name)?
            .with_context(|| format!("{} does not run", self.record.name))?;
        Ok(node::path_on_host(holder, path.as_ref()))
    }

    /// The names of the images that its containerd holds: tags, digests and ids, as containerd itself lists them.
    pub fn images(&self) -> Result<Vec<String>> {
        let output = self.ctr(&["images", "list", "--quiet"])?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// Whether its containerd holds an image of exactly this name.
    pub fn has_image(&self, name: &str) -> Result<bool> {
        Ok(self.images()?.iter().any(|image| image == name))
    }

    /// Pulls an image past Kubernetes and past Coral.
    pub fn pull_image(&self, name: &str) -> Result<()> {
        // containerd itself reads this folder, and so as the node sees it.
        self.ctr(&["images", "pull", "--hosts-dir", registry::NODE_HOSTS, name])
            .map(drop)
    }

    /// Removes an image behind everybody's back: the name itself and the other names of the same image, as the
    /// runtime's own `RemoveImage` does.
    pub fn remove_image(&self, name: &str) -> Result<()> {
        let listed = self.ctr(&["images", "list"])?;
        let names = names_of_same_image(&listed, name);
        let mut arguments = vec!["images", "remove", "--sync"];
        arguments.extend(names);
        self.ctr(&arguments).map(drop)
    }

    /// Puts a label on an image.
    pub fn label_image(&self, name: &str, label: &str) -> Result<()> {
        self.ctr(&["images", "label", name, label]).map(drop)
    }

    /// Runs `ctr` on the images and containers that Kubernetes sees.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.site.tools.node("ctr"));
        command
            .arg("--address")
            .arg(self.containerd_socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments);
        process::run_command(&mut command).with_context(|| format!("ask containerd on {}", self.record.name))
    }

    /// Ends its kubelet, in good order.
    pub fn stop_kubelet(&self) -> Result<()> {
        self.stop(&PartNames::of(&self.record.name).kubelet)
    }

    /// Ends its containerd, in good order. Pods keep running.
    pub fn stop_containerd(&self) -> Result<()> {
        self.stop(&PartNames::of(&self.record.name).containerd)
    }

    /// Ends the agent of a light node, in good order.
    pub fn stop_agent(&self) -> Result<()> {
        self.stop(&PartNames::of(&self.record.name).agent)
    }

    /// Kills its kubelet.
    pub fn kill_kubelet(&self) -> Result<()> {
        self.kill(&PartNames::of(&self.record.name).kubelet)
    }

    /// Kills its containerd.
    pub fn kill_containerd(&self) -> Result<()> {
        self.kill(&PartNames::of(&self.record.name).containerd)
    }

    /// Kills the agent of a light node.
    pub fn kill_agent(&self) -> Result<()> {
        self.kill(&PartNames::of(&self.record.name).agent)
    }

    /// Stops the agent of a light node in its tracks.
    pub fn freeze_agent(&self) -> Result<()> {
        self.agent_process()?.signal(Signal::STOP);
        Ok(())
    }

    /// Lets the frozen agent of a light node go on.
    pub fn thaw_agent(&self) -> Result<()> {
        self.agent_process()?.signal(Signal::CONT);
        Ok(())
    }

    /// The agent of a light node. As long as this is the same, it was not started again.
    pub fn agent_process(&self) -> Result<ProcessRecord> {
        self.process(&PartNames::of(&self.record.name).agent)
    }

    /// What the agent of a light node counts, as Prometheus would get it.
    pub async fn agent_metrics(&self) -> Result<String> {
        probe::http_get(self.address(), AGENT_PORT, "/metrics")
            .await
            .with_context(|| format!("ask the agent on {}", self.record.name))
    }

    /// Starts again what was stopped or killed, and returns when containerd serves.
    pub async fn start(&self) -> Result<()> {
        if self.record.light {
            let agent = State::read(&self.site.layout)?.and_then(|state| state.agent);
            light_node::ensure(&self.site, &self.client, &self.record, agent.as_ref()).await?;
        } else {
            node::ensure(&self.site, &self.record).await?;
        }
        Ok(())
    }

    fn stop(&self, part: &str) -> Result<()> {
        self.process(part)?.stop(PATIENCE);
        Ok(())
    }

    fn kill(&self, part: &str) -> Result<()> {
        let process = self.process(part)?;
        process.signal(Signal::KILL);
        anyhow::ensure!(process.wait(PATIENCE), "{part} does not end");
        Ok(())
    }

    fn process(&self, part: &str) -> Result<ProcessRecord> {
        self.site.running(part)?.with_context(|| format!("{part} does not run"))
    }
}

/// `ctr images list` prints a table whose first column is the name and whose third is the digest.
fn names_of_same_image<'a>(listed: &'a str, name: &'a str) -> Vec<&'a str> {
    let rows = || {
        listed.lines().filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            Some((columns.next()?, columns.nth(1)?))
        })
    };
    let digest = rows().find(|row| row.0 == name).map(|row| row.1);
    match digest {
        Some(digest) => rows().filter(|row| row.1 == digest).map(|row| row.0).collect(),
        None => vec![name],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_an_image_go_together() {
        let listed = "\
REF      TYPE  DIGEST    SIZE    PLATFORMS   LABELS
r/a:1    t     sha256:1  1 KiB   linux/amd64 -
r/a@x    t     sha256:1  1 KiB   linux/amd64 -
r/b:1    t     sha256:2  1 KiB   linux/amd64 -
";
        assert_eq!(names_of_same_image(listed, "r/a:1"), ["r/a:1", "r/a@x"]);
        assert_eq!(names_of_same_image(listed, "r/c:1"), ["r/c:1"]);
    }
}
