//! The log of a server, on standard error.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};

/// How a server logs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
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

impl LogArgs {
    /// Installs the subscriber. Called once, before anything is logged.
    pub fn init(&self) {
        let filter = tracing_subscriber::EnvFilter::new(&self.log_filter);
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}
