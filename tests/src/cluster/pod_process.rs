//! The processes of pods, as the host sees them: to kill one as the kernel would, and to see what it holds on to.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{Cluster, node_handle::PATIENCE, process::ProcessRecord};

/// A process in a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodProcess {
    /// The node that it runs on.
    pub node: String,
    /// The UID of its pod.
    pub pod_uid: String,
    /// The process.
    pub process: ProcessRecord,
}

impl PodProcess {
    /// Kills it: it is not asked, and can clean nothing up.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::KILL);
        ensure!(self.process.wait(PATIENCE), "process {} does not end", self.process.pid);
        Ok(())
    }
}

impl Cluster {
    /// The processes in the pods of this cluster that run this program, by its path in the container. Those of light nodes are in no pod.
    pub fn pod_processes(&self, program: &str) -> Result<Vec<PodProcess>> {
        let cluster = self.site.layout.cgroup();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("list processes")? {
            let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok()) else {
                continue;
            };
            // It may end at any moment.
            found.extend(pod_process(pid, program, &cluster));
        }
        found.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(found)
    }
}

fn pod_process(pid: i32, program: &str, cluster: &Path) -> Option<PodProcess> {
    let folder = Path::new("/proc").join(pid.to_string());
    let command = fs::read(folder.join("cmdline")).ok()?;
    if command.split(|byte| *byte == 0).next()? != program.as_bytes() {
        return None;
    }
    let cgroups = fs::read_to_string(folder.join("cgroup")).ok()?;
    let (node, pod_uid) = place(&cgroups, cluster)?;
    Some(PodProcess {
        node,
        pod_uid,
        process: ProcessRecord::of(pid).ok()?,
    })
}

/// The node and the UID of the pod, from the lines of `/proc/<pid>/cgroup`: `5:pids:/CLUSTER/node-1/kubepods/burstable/podUID/…`.
fn place(cgroups: &str, cluster: &Path) -> Option<(String, String)> {
    cgroups.lines().find_map(|line| {
        let path = Path::new(line.splitn(3, ':').nth(2)?.trim_start_matches('/'));
        let mut below = path.strip_prefix(cluster).ok()?.iter().filter_map(|part| part.to_str());
        let node = below.next()?.to_owned();
        let uid = below.find_map(|part| part.strip_prefix("pod").filter(|uid| uid.contains('-')))?;
        Some((node, uid.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_tells_the_node_and_the_pod() {
        let cluster = Path::new("coral-ab");
        let lines = "12:cpu:/\n5:pids:/coral-ab/node-2/kubepods/burstable/pod1f-2e/77aa\n";
        assert_eq!(place(lines, cluster), Some(("node-2".to_owned(), "1f-2e".to_owned())));
        assert_eq!(place("5:pids:/coral-cd/node-2/kubepods/pod1f-2e/7\n", cluster), None);
        assert_eq!(place("5:pids:/coral-ab/node-2/parts\n", cluster), None);
    }
}
