//! Command line of the agent. Every flag has an environment variable, for the DaemonSet.

use std::num::NonZeroUsize;

use clap::{Args as ClapArgs, Parser, ValueEnum};

/// Keeps the images on this node that the NodeImages object of the node names.
#[derive(Debug, Parser)]
#[command(name = "coral-agent", version)]
pub struct Args {
    /// Name of the node, which is also the name of its NodeImages object.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// Where the container runtime listens for CRI calls.
    #[arg(
        long,
        env = "CORAL_RUNTIME_ENDPOINT",
        default_value = "unix:///run/containerd/containerd.sock"
    )]
    pub runtime_endpoint: String,

    /// Most pulls at the same time on this node.
    #[arg(long, env = "CORAL_MAX_PARALLEL_PULLS", default_value = "4")]
    pub max_parallel_pulls: NonZeroUsize,

    /// Kubeconfig file; without it the agent uses its service account.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<std::path::PathBuf>,

    /// How the agent logs.
    #[command(flatten)]
    pub log: Log,
}

/// How a server logs.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Logging")]
pub struct Log {
    /// Format of the log on standard error.
    #[arg(long, env = "CORAL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged, as directives of tracing's `EnvFilter`, e.g. `info,coral_agent=debug`.
    #[arg(long, env = "CORAL_LOG", default_value = "info")]
    pub log_filter: String,
}

/// Format of a log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Log {
    /// Installs the subscriber. Called once, before anything is logged.
    pub fn init(&self) {
        let filter = tracing_subscriber::EnvFilter::new(&self.log_filter);
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => builder
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        super::Args::command().debug_assert();
    }
}
