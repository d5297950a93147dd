//! `coral-agent restart-registry`: lets the registry in the cluster begin anew, which is when it gives the space of removed images back.

use anyhow::Context as _;
use clap::Parser;
use coral_api::keys;
use coral_runtime::{ClientArgs, LogArgs};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};

/// Deletes the pod of the registry in the cluster; its `StatefulSet` makes another, which collects what nobody names any more.
#[derive(Debug, Parser)]
#[command(
    name = "coral-agent-restart-registry",
    bin_name = "coral-agent restart-registry",
    version
)]
pub struct RestartArgs {
    /// Namespace of the registry.
    #[arg(long, env = "CORAL_NAMESPACE", default_value = keys::SYSTEM_NAMESPACE)]
    pub namespace: String,

    /// How the Kubernetes API is reached.
    #[command(flatten)]
    pub client: ClientArgs,

    /// How it logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Deletes the pod, if it is there.
pub async fn run(args: RestartArgs) -> anyhow::Result<()> {
    let RestartArgs {
        namespace,
        client,
        log: _,
    } = args;
    let client = coral_runtime::client(&client).await?;
    let pod = format!("{}-0", keys::REGISTRY_SERVICE);
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    match api.delete(&pod, &DeleteParams::default()).await {
        Ok(_) => tracing::info!(namespace, pod, "The registry begins anew"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            tracing::info!(namespace, pod, "There is no pod of the registry");
        }
        Err(error) => return Err(error).with_context(|| format!("failed to delete pod {namespace}/{pod}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        super::RestartArgs::command().debug_assert();
    }
}
