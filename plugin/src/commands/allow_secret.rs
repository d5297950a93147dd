//! `kubectl coral allow-secret`: lets Coral's agents, or its mirror controller, read one Secret.

use clap::Args;
use coral_api::keys;

use crate::{client::Cluster, error::Error, exit, grant, naming, printer::Printer};

/// Let Coral's agents, or its mirror controller, read a pull secret
#[derive(Args, Debug)]
#[command(
    long_about = "\
Let Coral's agents, or its mirror controller, read a pull secret.

Nothing of Coral may read Secrets unless somebody says so by name. This makes a Role for this one Secret, and binds it to the \
service account of the agents, or with --mirror to that of the mirror controller, with your own rights: you must be allowed to read the Secret, and to make Roles in its namespace.",
    after_help = "\
Examples:
  # the pull secret regcred of the namespace shop
  kubectl coral allow-secret regcred -n shop

  # the same for a Mirror that names it in sourceSecrets
  kubectl coral allow-secret regcred -n shop --mirror

  # take it back
  kubectl delete role,rolebinding coral-agent-regcred -n shop"
)]
pub(crate) struct AllowSecretArgs {
    /// Names of the Secrets
    #[arg(required = true, value_name = "NAME", value_parser = naming::parse_name)]
    names: Vec<String>,

    /// Let the mirror controller read it, not the agents
    #[arg(long)]
    mirror: bool,
}

impl AllowSecretArgs {
    /// Gives the right.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self { names, mirror } = self;
        let reader = if mirror {
            keys::MIRROR_SERVICE_ACCOUNT
        } else {
            keys::AGENT_SERVICE_ACCOUNT
        };
        for name in names {
            warn_if_missing(cluster, &name, printer).await?;
            for outcome in grant::allow(cluster, &name, reader, false).await? {
                printer.data(format!("{} {}", outcome.object, outcome.change))?;
            }
        }
        Ok(exit::SUCCESS)
    }
}

/// Says so when there is no such Secret: it may come later, and a typo should not go unseen.
pub(crate) async fn warn_if_missing(cluster: &Cluster, secret: &str, printer: &Printer) -> Result<(), Error> {
    if grant::exists(cluster, secret).await? == Some(false) {
        let namespace = cluster.namespace();
        printer.warning(format_args!(
            "there is no Secret {secret:?} in namespace {namespace} yet"
        ));
    }
    Ok(())
}
