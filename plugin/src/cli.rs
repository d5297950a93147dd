//! The command line: kubectl's manners, and Coral's verbs.

mod misread;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    commands::{
        allow_secret::AllowSecretArgs,
        completion::CompletionArgs,
        delete::DeleteArgs,
        doctor::DoctorArgs,
        explain::ExplainArgs,
        images::ImagesArgs,
        inject::{InjectArgs, UninjectArgs},
        install::{InstallArgs, UpgradeArgs},
        mirror::MirrorArgs,
        prefetch::PrefetchArgs,
        refresh::RefreshArgs,
        status::StatusArgs,
        suspend::{ResumeArgs, SuspendArgs},
        uninstall::UninstallArgs,
        version::VersionArgs,
    },
    exit, human, naming,
};

pub(crate) use misread::read;

/// Have images on nodes before anyone needs them, and see where they are.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-coral",
    bin_name = "kubectl coral",
    after_help = exit::HELP,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 120
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Install(InstallArgs),
    Upgrade(UpgradeArgs),
    Uninstall(UninstallArgs),
    Prefetch(PrefetchArgs),
    Status(StatusArgs),
    Images(ImagesArgs),
    Inject(InjectArgs),
    Uninject(UninjectArgs),
    Explain(ExplainArgs),
    Refresh(RefreshArgs),
    Suspend(SuspendArgs),
    Resume(ResumeArgs),
    Delete(DeleteArgs),
    AllowSecret(AllowSecretArgs),
    Mirror(Box<MirrorArgs>),
    Doctor(DoctorArgs),
    Version(VersionArgs),
    Completion(CompletionArgs),
}

/// kubectl's own flags: which cluster, as whom, in which namespace.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cluster options")]
pub(crate) struct ClusterArgs {
    /// Namespace to work in; default: that of the context
    #[arg(short, long, global = true, value_name = "NAME", value_parser = naming::parse_namespace)]
    pub(crate) namespace: Option<String>,

    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// Kubeconfig file; default: KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Cluster of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) cluster: Option<String>,

    /// User of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) user: Option<String>,

    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER", hide_short_help = true)]
    pub(crate) impersonate: Option<String>,

    /// Group to impersonate; may be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP", hide_short_help = true)]
    pub(crate) impersonate_groups: Vec<String>,

    /// How long a single request may take
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "15s",
        hide_short_help = true,
        value_parser = request_timeout
    )]
    pub(crate) request_timeout: Duration,
}

/// Zero means no limit, as for kubectl; a year is as good as none.
fn request_timeout(text: &str) -> Result<Duration, human::InvalidDuration> {
    let duration = human::parse_duration(text)?;
    Ok(if duration.is_zero() { human::YEAR } else { duration })
}

/// Says what is wrong with the command line, or shows the help that it asked for.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    // Where nobody reads the help, nobody misses it.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::SUCCESS })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_request_timeout_means_no_limit() {
        assert!(request_timeout("0").unwrap() > Duration::from_secs(1_000_000));
        assert_eq!(request_timeout("30s"), Ok(Duration::from_secs(30)));
    }
}
