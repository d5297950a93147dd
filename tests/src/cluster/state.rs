//! The file that says what runs, so that another process, or the next one after a crash, can take it over or end it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{AgentOptions, Containerd, layout::Layout, process::ProcessRecord};

/// The state of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The boot that the process ids below belong to.
    pub boot_id: String,
    /// `N` in the cluster's network `198.18.N.0/24` (and `198.19.…` from 256 on).
    pub subnet: u16,
    /// Whether `up` came to its end. A cluster that is not complete is cleaned away by the next `up`.
    pub complete: bool,
    /// The nodes, real and light.
    pub nodes: Vec<NodeRecord>,
    /// The processes, by the name of their part.
    pub parts: BTreeMap<String, PartRecord>,
    /// The agent that light nodes run.
    pub agent: Option<AgentOptions>,
    /// Where the built programs lie.
    pub tools: Vec<PathBuf>,
    /// Kernel parameters as they were before the kubelets changed them.
    #[serde(default)]
    pub tunables: BTreeMap<String, String>,
    /// Arguments of parts, by name, beside those that each part always has.
    #[serde(default)]
    pub arguments: BTreeMap<String, Vec<String>>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// `node-1`, `light-1`.
    pub name: String,
    /// Whether it goes without a kubelet.
    pub light: bool,
    /// Its number among the nodes of its kind.
    pub number: u8,
    /// The size of its own disk, if it has one.
    pub disk: Option<String>,
    /// Which containerd it runs.
    #[serde(default)]
    pub containerd: Containerd,
    /// Taints that its kubelet registers it with.
    #[serde(default)]
    pub register_with_taints: Vec<String>,
    /// The agent that it runs, if not the one of all light nodes.
    #[serde(default)]
    pub agent: Option<AgentOptions>,
}

/// One process that `up` started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessRecord,
    /// Where its output goes.
    pub log: PathBuf,
}

impl State {
    /// The state of a cluster of which nothing runs yet.
    #[must_use]
    pub fn new(boot_id: String, subnet: u16) -> Self {
        Self {
            boot_id,
            subnet,
            complete: false,
            nodes: Vec::new(),
            parts: BTreeMap::new(),
            agent: None,
            tools: Vec::new(),
            tunables: BTreeMap::new(),
            arguments: BTreeMap::new(),
        }
    }

    /// Reads the state; `None` when there is no cluster in that directory.
    pub fn read(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        serde_json::from_str(&text)
            .with_context(|| format!("understand {}", path.display()))
            .map(Some)
    }

    /// Writes the state; whoever reads at the same time sees the old one or the new one.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("serialise the cluster's state")?;
        replace(&layout.state_file(), &text)
    }

    /// Changes the state under a lock (on the folder of the logs, which outlives everything else): several processes may
    /// be attached to one cluster.
    pub fn update<T>(layout: &Layout, change: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let _lock = lock(&layout.logs())?;
        let mut state = Self::read(layout)?.with_context(|| format!("no cluster in {}", layout.dir.display()))?;
        let result = change(&mut state);
        state.write(layout)?;
        Ok(result)
    }

    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeRecord> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The smallest number that no node of that kind has.
    #[must_use]
    pub fn free_node_number(&self, light: bool) -> Option<u8> {
        (1..=MAX_NODES).find(|number| {
            !self
                .nodes
                .iter()
                .any(|node| node.light == light && node.number == *number)
        })
    }
}

/// How many nodes of each kind a cluster may have: as many as its network has addresses for.
pub const MAX_NODES: u8 = 100;

/// Locks a folder, so that no lock file is left anywhere. The lock ends with the returned file.
pub fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let file = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    file.lock().with_context(|| format!("lock {}", folder.display()))?;
    Ok(file)
}

/// Writes a file of JSON in such a way that whoever reads it sees the old one or the new one.
pub(super) fn replace(file: &Path, text: &str) -> Result<()> {
    let beside = file.with_extension("json.new");
    fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, file).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, light: bool, number: u8) -> NodeRecord {
        NodeRecord {
            name: name.to_owned(),
            light,
            number,
            disk: None,
            containerd: Containerd::default(),
            register_with_taints: Vec::new(),
            agent: None,
        }
    }

    #[test]
    fn numbers_of_removed_nodes_are_used_again() {
        let mut state = State::new("boot".to_owned(), 7);
        state.nodes = vec![
            node("node-1", false, 1),
            node("node-3", false, 3),
            node("light-1", true, 1),
        ];
        assert_eq!(state.free_node_number(false), Some(2));
        assert_eq!(state.free_node_number(true), Some(2));
    }

    #[test]
    fn state_survives_the_file() {
        let mut state = State::new("boot".to_owned(), 7);
        state.nodes.push(node("node-1", false, 1));
        let record = PartRecord {
            process: ProcessRecord { pid: 4, start_time: 99 },
            log: "/logs/etcd.log".into(),
        };
        state.parts.insert("etcd".to_owned(), record);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}
