//! A cluster: starting it, looking at it, taking it away.
//!
//! [`Cluster::start`] makes one, or brings back what has died of one that is there; [`Cluster::attach`] uses one that
//! somebody else started. What runs is written to a file in the cluster's directory, so that any process can take it
//! over.

pub mod certificates;
pub mod cgroup;
mod check;
mod containerd;
mod control_plane;
mod debian;
mod diagnose;
pub(crate) mod fingerprint;
pub mod kubeconfig;
mod layout;
mod light_node;
mod membership;
pub mod mounts;
mod namespace;
pub mod network;
mod node;
mod node_handle;
mod options;
mod partition;
pub(crate) mod pause;
mod pod_process;
pub mod prerequisites;
mod probe;
pub mod process;
mod registry;
mod site;
pub mod state;
mod teardown;
pub mod tools;
mod trouble;
mod tunables;

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use kube::Client;

use self::{
    cgroup::Hierarchies,
    network::Addresses,
    process::boot_id,
    site::Site,
    state::{NodeRecord, State},
    teardown::CleanUp,
    tools::Tools,
};
pub use self::{
    diagnose::DiagnoseOnPanic,
    layout::Layout,
    light_node::LIGHT,
    namespace::TempNamespace,
    node_handle::NodeHandle,
    options::{AgentOptions, ClusterOptions, Containerd, NodeOptions},
    pod_process::PodProcess,
    registry::RegistryAuth,
};
use crate::{
    images::{self, Registry},
    progress::{Progress, Silent},
};

/// The environment variable that names the directory of the cluster to use.
pub const DIRECTORY_VARIABLE: &str = "CORAL_CLUSTER_DIR";

/// A running cluster.
///
/// One that was started here ends when this is dropped, also on a panic, unless [`ClusterOptions::keep`] says that it
/// stays. One that was attached to is left alone.
pub struct Cluster {
    site: Site,
    client: Client,
    owned: Option<CleanUp>,
}

impl Cluster {
    /// Starts a cluster, and returns when a pod runs on every node.
    ///
    /// Where a cluster runs already in that directory, what has died of it is started again and nodes are added until
    /// there are as many as asked for; what a crash left behind is cleaned away first.
    ///
    /// # Errors
    /// With the end of the log of the part that failed. Nothing is left behind then, but for the logs.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let layout = Layout::new(&options.dir)?;
        fs::create_dir_all(layout.logs()).with_context(|| format!("create {}", layout.logs().display()))?;
        let _lock = operation_lock(&layout).await?;
        let progress = &options.progress;
        let started = Instant::now();
        prerequisites::ensure(progress.as_ref())?;
        let tools = Tools::build(progress.as_ref()).await?;
        progress.step("programs", started.elapsed());

        let mut clean_up = CleanUp::new(layout.clone());
        let cluster = if can_be_healed(&layout) {
            match Box::pin(Self::bring_up(&layout, &tools, &options)).await {
                Ok(cluster) => cluster,
                Err(error) => {
                    progress.note(&format!(
                        "starting afresh, because the old cluster does not come back: {error:#}"
                    ));
                    Box::pin(Self::start_afresh(&layout, &tools, &options)).await?
                }
            }
        } else {
            Box::pin(Self::start_afresh(&layout, &tools, &options)).await?
        };
        clean_up.disarm();
        let owned = (!options.keep).then(|| CleanUp::new(layout));
        Ok(Self { owned, ..cluster })
    }

    async fn start_afresh(layout: &Layout, tools: &Tools, options: &ClusterOptions) -> Result<Self> {
        let started = Instant::now();
        if layout.state_file().exists() || layout.runtime_dir().exists() {
            teardown::clean(layout).context("clean up what the last cluster left")?;
            options.progress.step("cleaned up the last one", started.elapsed());
        }
        teardown::empty(&layout.logs())?;
        // A cluster that is about to be made is one that a crash can leave behind.
        State::new(boot_id()?, 0).write(layout)?;
        let started = Instant::now();
        let subnet = network::create(layout)?;
        State::update(layout, |state| {
            state.subnet = subnet;
            state.tools = tools.folders().map(Path::to_owned).to_vec();
            state.tunables = tunables::read();
        })?;
        options.progress.step("network", started.elapsed());
        Box::pin(Self::bring_up(layout, tools, options)).await
    }

    /// Starts everything that does not run.
    async fn bring_up(layout: &Layout, tools: &Tools, options: &ClusterOptions) -> Result<Self> {
        let site = Site {
            layout: layout.clone(),
            addresses: Addresses::new(read_state(layout)?.subnet),
            tools: tools.clone(),
            hierarchies: Hierarchies::find()?,
            progress: Arc::clone(&options.progress),
        };
        let node_options = NodeOptions {
            disk: options.node_disk.clone(),
            containerd: options.containerd,
            ..NodeOptions::default()
        };
        State::update(layout, |state| {
            state.agent = options.agent.clone().or(state.agent.take());
            state.arguments.extend(options.arguments.clone());
            for (light, wanted) in [(false, options.nodes), (true, options.light_nodes)] {
                let count = |state: &State| state.nodes.iter().filter(|node| node.light == light).count();
                while count(state) < wanted as usize {
                    let Some(record) = membership::new_record(state, light, node_options.clone()) else {
                        break;
                    };
                    state.nodes.push(record);
                }
            }
        })?;
        let state = read_state(layout)?;
        site.hierarchies.create(&layout.cgroup())?;
        control_plane::write_credentials(&site)?;
        let mut any = registry::ensure(&site).await?;
        if any {
            images::push_pause(&open_registry(&site), pause::NAME)?;
        }
        any |= control_plane::ensure_api_server(&site).await?;
        any |= control_plane::ensure_controllers(&site)?;
        let client = control_plane::client(&site).await?;
        let started = Instant::now();
        let nodes: Vec<NodeRecord> = state.nodes.iter().filter(|node| !node.light).cloned().collect();
        let mut node_started = false;
        for node in &nodes {
            node_started |= node::ensure(&site, node).await?;
        }
        if node_started {
            site.step("containerd and kubelet", started);
        }
        any |= node_started;
        let first = nodes.first().map_or("control-plane", |node| node.name.as_str());
        any |= control_plane::ensure_proxy(&site, first)?;
        for node in state.nodes.iter().filter(|node| node.light) {
            any |= light_node::ensure(&site, &client, node, state.agent.as_ref()).await?;
        }
        any |= light_node::ensure_heartbeat(&site)?;
        if any || !state.complete {
            node::wait_ready(&site, &client, &state.nodes).await?;
            check::run_pods(&site, &client, &nodes).await?;
        } else {
            site.progress.note("everything runs already");
        }
        State::update(layout, |state| state.complete = true)?;
        Ok(Self {
            site,
            client,
            owned: None,
        })
    }

    /// Uses the cluster that runs in `dir`. It is left alone when this is dropped.
    pub async fn attach(dir: &Path) -> Result<Self> {
        Self::attach_with(dir, Arc::new(Silent)).await
    }

    /// Like [`Self::attach`], and tells `progress` how far things are.
    pub async fn attach_with(dir: &Path, progress: Arc<dyn Progress>) -> Result<Self> {
        let layout = Layout::new(dir)?;
        let state = read_state(&layout)?;
        if !state.complete || boot_id()? != state.boot_id {
            bail!(
                "the cluster in {} does not run; `cargo xtask cluster up` starts it",
                layout.dir.display()
            );
        }
        let [control_plane, node] = state.tools.as_slice() else {
            bail!("the cluster's state names no programs")
        };
        let site = Site {
            addresses: Addresses::new(state.subnet),
            tools: Tools {
                control_plane: control_plane.clone(),
                node: node.clone(),
            },
            hierarchies: Hierarchies::find()?,
            progress,
            layout,
        };
        let client = control_plane::client(&site).await?;
        Ok(Self {
            site,
            client,
            owned: None,
        })
    }

    /// The cluster that all tests of a run share: the one that `CORAL_CLUSTER_DIR` names.
    pub async fn shared() -> Result<Self> {
        let dir = env::var_os(DIRECTORY_VARIABLE).filter(|dir| !dir.is_empty()).context(
            "this test needs a cluster: run `cargo xtask test e2e`, or `cargo xtask cluster up` and \
             `eval \"$(cargo xtask cluster env)\"` before `cargo test`",
        )?;
        Self::attach(Path::new(&dir)).await
    }

    /// The directory of the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.site.layout.dir
    }

    /// A client with an administrator's rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.site.layout.kubeconfig()
    }

    /// Where the API server and the registries are.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.site.addresses.cluster()
    }

    /// Where nodes and pods reach servers on the host, if those listen on this address.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.site.addresses.host()
    }

    /// `host:port` of the open registry. It speaks plain HTTP, which the nodes know.
    #[must_use]
    pub fn registry(&self) -> String {
        self.site.addresses.registry()
    }

    /// The registry that wants a password. Its certificate is from the cluster's own authority, which the nodes know.
    #[must_use]
    pub fn registry_auth(&self) -> RegistryAuth {
        RegistryAuth {
            host: self.site.addresses.registry_auth(),
            user: registry::USER.to_owned(),
            password: registry::PASSWORD.to_owned(),
            authority: self.site.layout.certificates().join("ca.crt"),
        }
    }

    /// The open registry, to push images to.
    #[must_use]
    pub fn open_registry(&self) -> Registry {
        open_registry(&self.site)
    }

    /// The registry that wants a password, to push images to.
    pub fn authenticated_registry(&self) -> Result<Registry> {
        let RegistryAuth {
            host,
            user,
            password,
            authority,
        } = self.registry_auth();
        let folder = self.dir().join("registry-auth/client");
        Registry::with_password(host, self.tools().node("crane"), authority, (&user, &password), &folder)
    }

    /// Tells the nodes that the registry at `host` (`host:port`) speaks plain HTTP.
    pub fn trust_plain_http(&self, host: &str) -> Result<()> {
        registry::trust_plain_http(&self.site.layout, host)
    }

    /// The built programs of the cluster.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.site.tools
    }

    /// The pause image, which every node has.
    #[must_use]
    pub fn pause_image(&self) -> String {
        pause::reference(&self.registry())
    }

    /// What runs, as the state file says.
    pub fn state(&self) -> Result<State> {
        read_state(&self.site.layout)
    }

    /// Where the logs of all parts are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.site.layout.logs()
    }

    /// Ends every process of this cluster and removes everything but its logs.
    pub async fn down(mut self) -> Result<()> {
        if let Some(owned) = &mut self.owned {
            owned.disarm();
        }
        let layout = self.site.layout.clone();
        drop(self);
        down(&layout).await
    }
}

/// Takes away the cluster of this layout, in whatever state it is. Does nothing where there is none.
pub async fn down(layout: &Layout) -> Result<()> {
    if !layout.dir.exists() && !layout.runtime_dir().exists() {
        return Ok(());
    }
    let _lock = operation_lock(layout).await?;
    let layout = layout.clone();
    tokio::task::spawn_blocking(move || teardown::clean(&layout)).await?
}

/// Takes away, at once, what a process that was killed has left of the cluster in this directory. Nobody else may be at
/// work on it.
pub fn clean_up(dir: &Path) -> Result<()> {
    teardown::clean(&Layout::new(dir)?)
}

/// One operation at a time that starts or ends parts.
async fn operation_lock(layout: &Layout) -> Result<fs::File> {
    let dir = layout.dir.clone();
    tokio::task::spawn_blocking(move || state::lock(&dir)).await?
}

fn open_registry(site: &Site) -> Registry {
    Registry::plain_http(site.addresses.registry(), site.tools.node("crane"))
}

fn read_state(layout: &Layout) -> Result<State> {
    State::read(layout)?.with_context(|| {
        format!(
            "there is no cluster in {}; `cargo xtask cluster up` starts one",
            layout.dir.display()
        )
    })
}

/// Whether what is there came up once, in this boot, and still has its network.
fn can_be_healed(layout: &Layout) -> bool {
    let complete = State::read(layout)
        .ok()
        .flatten()
        .is_some_and(|state| state.complete && boot_id().is_ok_and(|boot| boot == state.boot_id));
    let namespace = layout.network_namespace();
    complete && mounts::read().is_ok_and(|mounts| mounts.iter().any(|mount| mount.target == namespace))
}
