//! A real Kubernetes cluster for tests, and the end-to-end tests that run on it.
//!
//! The crate builds a cluster out of Go modules (see [`cluster::tools`]), starts it without any container engine, and
//! hands tests a [`kube::Client`], the registries, and a way to look at every node's containerd. The same code is
//! behind `cargo xtask cluster`.
//!
//! ```text
//!   host                 │ network namespace of the cluster, 198.18.N.0/24
//!                        │
//!   test, kubectl ───────┼─► kube-apiserver ─ etcd       registry      registry-auth
//!        │        veth   │        │      kube-controller-manager, kube-scheduler, kube-proxy
//!        │               │        │
//!        │               │   ┌────┴── mount namespace of node-1 ──┐  ┌── of node-2 ──┐
//!        └─ unix socket ─┼──►│ containerd ─ kubelet ─ pods        │  │ …             │
//!                        │   └── own /run, own /var ──────────────┘  └───────────────┘
//! ```

pub mod bad_registry;
pub mod bare_cri;
pub mod checker;
pub mod cluster;
pub mod cri;
pub mod faulty_registry;
pub mod hollow;
pub mod images;
pub mod progress;
pub mod relay;
pub mod wait;

pub use cluster::{Cluster, ClusterOptions, NodeOptions};
