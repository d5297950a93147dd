//! Hollow nodes: real agents on nodes of which nothing else is real, hundreds of them in one process.
//!
//! ```text
//!                     ┌──────────────────── Fleet ────────────────────┐
//!   API server ◄──────┤ Node object, Lease    (the harness, as a kubelet would)
//!        ▲            │ NodeImages            (the real agent) ──CRI──► FakeRuntime ──► Catalogue
//!        └────────────┴──────────────────────────────────────┬────────┘
//!   controller under test                                    └──► Timeline: what the runtimes really did
//! ```
//!
//! What is measured is asked of the fake runtimes and of the clients' connections, never of Coral itself: [`Timeline`]
//! says how many nodes pulled at the same time, [`Tally`] how often anybody wrote.

mod control_plane;
mod leases;
mod node;
mod stage;
mod tally;
mod timeline;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{Api, Client, Config};

pub use self::{
    control_plane::ControlPlane,
    node::{HollowNode, HollowOptions},
    stage::{Site, Stage},
    tally::Tally,
    timeline::{Pull, Timeline},
};
use self::{leases::Leases, node::Apiary};
use crate::cri::Attempt;

/// Label of every hollow node; the value is the name of its fleet.
pub const FLEET: &str = "hollow.coral.invalid/fleet";
/// Agents that share one client, and with it the connections that are not watches.
const AGENTS_PER_CLIENT: usize = 50;
/// Nodes that are made at the same time.
const PARALLEL_JOINS: usize = 16;

/// Hollow nodes that came together. When it is dropped the agents end; the Node objects stay, unless [`Fleet::leave`] is called.
pub struct Fleet {
    name: String,
    apiary: Apiary,
    clients: Vec<Client>,
    tally: Tally,
    nodes: BTreeMap<String, HollowNode>,
    /// What became of nodes that have left.
    past: Vec<(String, Vec<Attempt>)>,
    joined: usize,
}

impl Fleet {
    /// Makes `count` nodes, each as `options` says of its number, and returns when all of them are Ready and have an agent.
    ///
    /// The nodes are called `<name>-0`, `<name>-1`, … and have the label [`FLEET`] with the name of the fleet.
    ///
    /// # Errors
    /// When the API server refuses a node, or the process may not open enough files.
    pub async fn start(
        config: &Config,
        name: &str,
        count: usize,
        options: impl Fn(usize) -> HollowOptions,
    ) -> Result<Self> {
        Self::start_with(config, config, name, count, options).await
    }

    /// The same, with agents that are somebody else than the harness.
    ///
    /// # Errors
    /// As [`Self::start`] says.
    pub async fn start_with(
        own: &Config,
        agents: &Config,
        name: &str,
        count: usize,
        options: impl Fn(usize) -> HollowOptions,
    ) -> Result<Self> {
        let tally = Tally::default();
        let clients = (0..count.div_ceil(AGENTS_PER_CLIENT).max(1))
            .map(|_| tally.client(agents))
            .collect::<Result<Vec<Client>>>()?;
        // The harness's own requests are not the agents'.
        let own = Client::try_from(own.clone()).context("make a client")?;
        let apiary = Apiary {
            fleet: name.to_owned(),
            nodes: Api::all(own.clone()),
            leases: Arc::new(Leases::keep(own)),
        };
        let mut fleet = Self {
            name: name.to_owned(),
            apiary,
            clients,
            tally,
            nodes: BTreeMap::new(),
            past: Vec::new(),
            joined: 0,
        };
        let joins = (0..count).map(|number| {
            let client = fleet.clients[number / AGENTS_PER_CLIENT].clone();
            fleet.apiary.join(client, format!("{name}-{number}"), options(number))
        });
        let nodes: Vec<HollowNode> = stream::iter(joins.collect::<Vec<_>>())
            .buffer_unordered(PARALLEL_JOINS)
            .try_collect()
            .await?;
        fleet.joined = count;
        fleet.nodes = nodes.into_iter().map(|node| (node.name().to_owned(), node)).collect();
        Ok(fleet)
    }

    /// A label selector of all nodes of the fleet, as a Prefetch has it.
    #[must_use]
    pub fn selector(&self) -> serde_json::Value {
        serde_json::json!({"matchLabels": {FLEET: self.name}})
    }

    /// The nodes, ordered by name.
    pub fn nodes(&self) -> impl Iterator<Item = &HollowNode> {
        self.nodes.values()
    }

    /// The node `<fleet>-<number>`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn node(&self, number: usize) -> &HollowNode {
        let name = format!("{}-{number}", self.name);
        let Some(node) = self.nodes.get(&name) else {
            panic!("the fleet has no node {name}")
        };
        node
    }

    /// The same, to change it.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn node_mut(&mut self, number: usize) -> &mut HollowNode {
        let name = format!("{}-{number}", self.name);
        let Some(node) = self.nodes.get_mut(&name) else {
            panic!("the fleet has no node {name}")
        };
        node
    }

    /// How many nodes there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Makes one more node: a new one, or one that has left under the same name, as another machine.
    pub async fn join(&mut self, number: usize, options: HollowOptions) -> Result<()> {
        let name = format!("{}-{number}", self.name);
        if self.nodes.contains_key(&name) {
            bail!("the fleet has a node {name} already");
        }
        let client = self.clients[self.joined / AGENTS_PER_CLIENT % self.clients.len()].clone();
        let node = self.apiary.join(client, name.clone(), options).await?;
        self.joined += 1;
        self.nodes.insert(name, node);
        Ok(())
    }

    /// Switches a node off and deletes its Node object, as a cloud does.
    pub async fn remove(&mut self, number: usize) -> Result<()> {
        let name = format!("{}-{number}", self.name);
        let node = self
            .nodes
            .remove(&name)
            .with_context(|| format!("the fleet has no node {name}"))?;
        self.past.push((name, node.runtime().attempts()));
        self.apiary.leave(node).await
    }

    /// What the agents have asked of the API server.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What all runtimes have done so far, also those of nodes that have left.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let present = self
            .nodes
            .values()
            .map(|node| (node.name().to_owned(), node.runtime().attempts()));
        Timeline::new(self.past.iter().cloned().chain(present))
    }

    /// Switches every node off and deletes its objects.
    pub async fn leave(self) -> Result<()> {
        let Self { apiary, nodes, .. } = self;
        let leaves: Vec<_> = nodes.into_values().map(|node| apiary.leave(node)).collect();
        stream::iter(leaves)
            .buffer_unordered(PARALLEL_JOINS)
            .try_collect()
            .await
    }
}
