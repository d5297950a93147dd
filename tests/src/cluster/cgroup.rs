//! The cgroups of a cluster: where the kubelets put their pods, and how everything that belongs to the cluster is
//! found again, whatever became of its parents.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::mounts::{self, Mount};

/// The cgroup hierarchies of the machine: several with version 1, one with version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    roots: Vec<PathBuf>,
    cpuset: Option<PathBuf>,
    tracking: PathBuf,
}

impl Hierarchies {
    /// Finds them.
    pub fn find() -> Result<Self> {
        Self::among(&mounts::read()?).context("no cgroup hierarchy is mounted that can hold processes")
    }

    fn among(mounts: &[Mount]) -> Option<Self> {
        let version_1: Vec<&Mount> = mounts.iter().filter(|mount| mount.kind == "cgroup").collect();
        let of_controller = |name: &str| {
            version_1
                .iter()
                .find(|mount| mount.options.iter().any(|option| option == name))
        };
        let version_2 = mounts.iter().find(|mount| mount.kind == "cgroup2");
        // A process is in one cgroup of every hierarchy. The one for `pids` follows pods too, and unlike `cpu` and
        // `memory` the kubelet does not look at it to find out where it is itself.
        let tracking = of_controller("pids").copied().or(version_2)?;
        Some(Self {
            roots: version_1
                .iter()
                .copied()
                .chain(version_2)
                .map(|mount| mount.target.clone())
                .collect(),
            cpuset: of_controller("cpuset").map(|mount| mount.target.clone()),
            tracking: tracking.target.clone(),
        })
    }

    /// Makes a cgroup in every hierarchy, so that it can hold processes and hand resources on.
    pub fn create(&self, cgroup: &Path) -> Result<()> {
        for root in &self.roots {
            let path = root.join(cgroup);
            fs::create_dir_all(&path).with_context(|| format!("create the cgroup {}", path.display()))?;
        }
        if let Some(root) = &self.cpuset {
            fill_cpusets(root, cgroup)
        } else {
            enable_controllers(&self.tracking, cgroup);
            Ok(())
        }
    }

    /// The file that moves a process into this cgroup, in the hierarchy that keeps track of processes.
    pub fn procs_file(&self, cgroup: &Path) -> Result<PathBuf> {
        let path = self.tracking.join(cgroup);
        fs::create_dir_all(&path).with_context(|| format!("create the cgroup {}", path.display()))?;
        Ok(path.join("cgroup.procs"))
    }

    /// Every process in this cgroup and those below it.
    #[must_use]
    pub fn processes(&self, cgroup: &Path) -> Vec<i32> {
        directories(&self.tracking.join(cgroup))
            .iter()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Ends every process in this cgroup and those below it, for certain.
    pub fn kill(&self, cgroup: &Path) -> Result<()> {
        let started = Instant::now();
        loop {
            let processes = self.processes(cgroup);
            if processes.is_empty() {
                return Ok(());
            }
            if started.elapsed() > Duration::from_secs(20) {
                bail!("processes {processes:?} in the cgroup {} do not end", cgroup.display());
            }
            for pid in processes.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes this cgroup and those below it from every hierarchy; its processes have ended.
    pub fn remove(&self, cgroup: &Path) -> Result<()> {
        for root in &self.roots {
            for directory in directories(&root.join(cgroup)).iter().rev() {
                remove_one(directory)?;
            }
        }
        Ok(())
    }
}

/// With version 1 a new cpuset is empty and takes no process before it is filled.
fn fill_cpusets(root: &Path, cgroup: &Path) -> Result<()> {
    let mut parent = root.to_owned();
    for component in cgroup.components() {
        let child = parent.join(component);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let value = fs::read_to_string(parent.join(file)).unwrap_or_default();
            let target = child.join(file);
            fs::write(&target, value.trim()).with_context(|| format!("write {}", target.display()))?;
        }
        parent = child;
    }
    Ok(())
}

/// With version 2 a cgroup has the controllers that its parent hands on. Those that cannot be handed on, a kubelet
/// either does without or says so.
fn enable_controllers(root: &Path, cgroup: &Path) {
    let mut parent = root.to_owned();
    for component in cgroup.components() {
        let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        for controller in controllers.split_ascii_whitespace() {
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        parent.push(component);
    }
}

/// A process that has ended may keep its cgroup busy for a moment.
fn remove_one(directory: &Path) -> Result<()> {
    let started = Instant::now();
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if started.elapsed() > Duration::from_secs(5) => {
                return Err(error).with_context(|| format!("remove the cgroup {}", directory.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// `top` and the directories below it, parents first; nothing when there is no `top`.
fn directories(top: &Path) -> Vec<PathBuf> {
    if !top.is_dir() {
        return Vec::new();
    }
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let children = fs::read_dir(directory).map(|entries| {
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect::<Vec<_>>()
        });
        found.extend(children.unwrap_or_default());
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, target: &str, options: &[&str]) -> Mount {
        Mount {
            kind: kind.to_owned(),
            target: target.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn processes_are_tracked_in_the_pids_hierarchy_of_version_1() {
        let mounts = [
            mount("cgroup", "/cg/cpuset", &["rw", "cpuset"]),
            mount("cgroup", "/cg/pids", &["rw", "pids"]),
            mount("cgroup2", "/cg/unified", &["rw"]),
        ];
        let found = Hierarchies::among(&mounts).unwrap();
        assert_eq!(found.tracking, Path::new("/cg/pids"));
        assert_eq!(found.cpuset.as_deref(), Some(Path::new("/cg/cpuset")));
        assert_eq!(found.roots.len(), 3);
    }

    #[test]
    fn version_2_alone_is_enough() {
        let found = Hierarchies::among(&[mount("cgroup2", "/sys/fs/cgroup", &["rw"])]).unwrap();
        assert_eq!(found.tracking, Path::new("/sys/fs/cgroup"));
        assert_eq!(found.cpuset, None);
        assert_eq!(Hierarchies::among(&[]), None);
    }
}
