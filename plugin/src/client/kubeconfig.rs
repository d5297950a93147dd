//! Which cluster, and as whom: kubectl's flags, `KUBECONFIG`, `~/.kube/config`, and the Pod that the command runs in.

use std::{
    env,
    path::{Path, PathBuf},
};

use coral_registry::is_proxied;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::{cli::ClusterArgs, human};

/// Why there is no cluster to talk to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("failed to find a kubeconfig: {} not exist", listed(.looked_at))]
    NoKubeconfig { looked_at: Vec<PathBuf> },
    #[error("failed to read the kubeconfig {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("failed to choose a cluster: the kubeconfig has no current context")]
    NoCurrentContext { contexts: Vec<String> },
    #[error("failed to choose a cluster: the kubeconfig has no context {name:?}")]
    UnknownContext { name: String, contexts: Vec<String> },
    #[error("failed to choose a cluster: the kubeconfig has no cluster {name:?}")]
    UnknownCluster { name: String, clusters: Vec<String> },
    #[error("failed to choose a user: the kubeconfig has no user {name:?}")]
    UnknownUser { name: String, users: Vec<String> },
    #[error("failed to use the kubeconfig: {reason}")]
    Unusable { reason: String },
    #[error("failed to prepare the connection to the Kubernetes API server at {server}: {reason}")]
    Client { server: String, reason: String },
}

impl ConnectError {
    pub(super) fn from_client(error: &kube::Error, server: &str) -> Self {
        Self::Client {
            server: server.to_owned(),
            reason: error.to_string(),
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let known = |what: &str, names: &[String]| match names {
            [] => format!("the kubeconfig has no {what} at all: is KUBECONFIG set to the right file?"),
            names => format!("its {what}s are {}", human::some_of(names, 12)),
        };
        match self {
            Self::NoKubeconfig { .. } => {
                Some("set KUBECONFIG or pass --kubeconfig with the file that kubectl uses for your cluster".to_owned())
            }
            Self::NoCurrentContext { contexts } if contexts.is_empty() => Some(known("context", contexts)),
            Self::NoCurrentContext { contexts } => Some(format!(
                "choose one with --context or `kubectl config use-context`; {}",
                known("context", contexts)
            )),
            Self::UnknownContext { contexts, .. } => Some(known("context", contexts)),
            Self::UnknownCluster { clusters, .. } => Some(known("cluster", clusters)),
            Self::UnknownUser { users, .. } => Some(known("user", users)),
            Self::Unreadable { .. } | Self::Unusable { .. } => {
                Some("`kubectl config view` shows what kubectl reads".to_owned())
            }
            Self::Client { .. } => None,
        }
    }
}

/// What can be chosen from a kubeconfig.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) contexts: Vec<String>,
    pub(crate) clusters: Vec<String>,
    pub(crate) users: Vec<String>,
}

/// What can be chosen from the kubeconfig that the arguments and the environment name.
pub(crate) fn names(arguments: &ClusterArgs) -> Result<Names, ConnectError> {
    let kubeconfig = read(&paths(arguments), arguments.kubeconfig.is_some())?.unwrap_or_default();
    Ok(Names {
        contexts: kubeconfig.contexts.into_iter().map(|context| context.name).collect(),
        clusters: kubeconfig.clusters.into_iter().map(|cluster| cluster.name).collect(),
        users: kubeconfig.auth_infos.into_iter().map(|user| user.name).collect(),
    })
}

/// Reads the configuration.
pub(super) async fn load(arguments: &ClusterArgs) -> Result<Config, ConnectError> {
    let paths = paths(arguments);
    let kubeconfig = match read(&paths, arguments.kubeconfig.is_some())? {
        Some(kubeconfig) => kubeconfig,
        None if is_in_cluster() => return in_cluster(arguments),
        None => return Err(ConnectError::NoKubeconfig { looked_at: paths }),
    };
    let mut config = from_kubeconfig(kubeconfig, arguments).await?;
    impersonate(&mut config, arguments);
    Ok(config)
}

fn paths(arguments: &ClusterArgs) -> Vec<PathBuf> {
    match &arguments.kubeconfig {
        Some(path) => vec![path.clone()],
        None => default_paths(),
    }
}

/// The files of `KUBECONFIG`, else the one in the home directory.
fn default_paths() -> Vec<PathBuf> {
    let named: Vec<PathBuf> = env::var_os("KUBECONFIG")
        .map(|value| {
            env::split_paths(&value)
                .filter(|path| !path.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    let home = env::home_dir().unwrap_or_default();
    vec![home.join(".kube").join("config")]
}

/// Reads and merges the files. As for kubectl, those that do not exist are left out, unless the file was named by a flag.
fn read(paths: &[PathBuf], must_exist: bool) -> Result<Option<Kubeconfig>, ConnectError> {
    let mut merged: Option<Kubeconfig> = None;
    for path in paths.iter().filter(|path| must_exist || path.exists()) {
        let unreadable = |error: &KubeconfigError| ConnectError::Unreadable {
            path: path.clone(),
            reason: reason(error),
        };
        let next = Kubeconfig::read_from(path).map_err(|error| unreadable(&error))?;
        merged = Some(match merged {
            Some(earlier) => earlier.merge(next).map_err(|error| unreadable(&error))?,
            None => next,
        });
    }
    Ok(merged)
}

async fn from_kubeconfig(mut kubeconfig: Kubeconfig, arguments: &ClusterArgs) -> Result<Config, ConnectError> {
    kubeconfig.current_context = kubeconfig.current_context.filter(|name| !name.is_empty());
    let contexts: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let clusters: Vec<String> = kubeconfig.clusters.iter().map(|cluster| cluster.name.clone()).collect();
    let users: Vec<String> = kubeconfig.auth_infos.iter().map(|user| user.name.clone()).collect();
    if let Some(name) = arguments.user.as_ref().filter(|name| !users.contains(name)) {
        let name = name.clone();
        return Err(ConnectError::UnknownUser { name, users });
    }
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        cluster: arguments.cluster.clone(),
        user: arguments.user.clone(),
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| match error {
        KubeconfigError::CurrentContextNotSet => ConnectError::NoCurrentContext { contexts },
        KubeconfigError::LoadContext(name) => ConnectError::UnknownContext { name, contexts },
        KubeconfigError::LoadClusterOfContext(name) => ConnectError::UnknownCluster { name, clusters },
        other => ConnectError::Unusable { reason: reason(&other) },
    })?;
    // The library compares NO_PROXY with the proxy instead of the server.
    let usual_port = if config.cluster_url.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    let port = config.cluster_url.port_u16().unwrap_or(usual_port);
    if config.cluster_url.host().is_some_and(|host| !is_proxied(host, port)) {
        config.proxy_url = None;
    }
    Ok(config)
}

fn is_in_cluster() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn in_cluster(arguments: &ClusterArgs) -> Result<Config, ConnectError> {
    let mut config = Config::incluster().map_err(|error| ConnectError::Unusable {
        reason: error.to_string(),
    })?;
    impersonate(&mut config, arguments);
    Ok(config)
}

fn impersonate(config: &mut Config, arguments: &ClusterArgs) {
    if let Some(user) = &arguments.impersonate {
        config.auth_info.impersonate = Some(user.clone());
    }
    if !arguments.impersonate_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(arguments.impersonate_groups.clone());
    }
}

/// The error without the path, which the sentence around it has already, and without the pages of context of the YAML parser.
fn reason(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        KubeconfigError::Parse(error) => {
            let text = error.to_string();
            format!(
                "it is not YAML of a kubeconfig: {}",
                text.lines().next().unwrap_or_default()
            )
        }
        other => other.to_string(),
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path: &PathBuf| Path::display(path).to_string())
        .collect();
    let verb = if names.len() == 1 { "does" } else { "do" };
    format!("{} {verb}", names.join(" and "))
}
