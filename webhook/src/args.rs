//! Command line of the webhook. Every flag has an environment variable, for the Deployment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Args as ArgGroup, Parser};
use coral_api::keys;
use coral_runtime::{ClientArgs, HttpArgs, LogArgs};
use jiff::SignedDuration;

/// Changes annotated workloads so that their pods run where their images are.
#[derive(Debug, Parser)]
#[command(name = "coral-webhook", version)]
pub struct Args {
    /// Address for the API server, over TLS.
    #[arg(long, env = "CORAL_LISTEN_TLS", default_value = "0.0.0.0:8443")]
    pub listen_tls: SocketAddr,

    /// Watch Prefetches, so that warnings can tell of images that none of them covers.
    #[arg(long, env = "CORAL_WATCH_PREFETCHES", default_value_t = true, action = ArgAction::Set)]
    pub watch_prefetches: bool,

    /// Watch `MirroredImages`, and send new pods to the copies of their images where a Mirror says so.
    #[arg(long, env = "CORAL_REWRITE", default_value_t = false, action = ArgAction::Set)]
    pub rewrite: bool,

    /// How long requests are still taken after SIGTERM. It takes a moment until nobody sends any.
    #[arg(long, env = "CORAL_SHUTDOWN_DELAY", default_value = "5s")]
    pub shutdown_delay: SignedDuration,

    /// Where the certificate comes from.
    #[command(flatten)]
    pub certificate: CertificateArgs,

    /// Metrics and health.
    #[command(flatten)]
    pub http: HttpArgs,

    /// How the webhook reaches the Kubernetes API.
    #[command(flatten)]
    pub client: ClientArgs,

    /// How the webhook logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, ArgGroup)]
#[command(next_help_heading = "Certificate")]
pub struct CertificateArgs {
    /// Folder with tls.crt and tls.key, which somebody else renews. Without it the webhook keeps certificates of its own in a Secret.
    #[arg(long, env = "CORAL_CERT_DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Namespace of the Service and the Secret.
    #[arg(long, env = "CORAL_NAMESPACE", default_value = keys::SYSTEM_NAMESPACE)]
    pub namespace: String,

    /// Service by which the API server calls the webhook.
    #[arg(long, env = "CORAL_SERVICE", default_value = keys::WEBHOOK_SERVICE)]
    pub service: String,

    /// Secret with the certificates.
    #[arg(long, env = "CORAL_SECRET", default_value = keys::WEBHOOK_SECRET)]
    pub secret: String,

    /// `MutatingWebhookConfiguration` whose caBundle is kept.
    #[arg(long, env = "CORAL_CONFIGURATION", default_value = keys::WEBHOOK_CONFIGURATION)]
    pub configuration: String,

    /// How long an authority is valid. It is replaced with a third of that left.
    #[arg(long, env = "CORAL_AUTHORITY_VALIDITY", default_value = "8760h", value_parser = positive)]
    pub authority_validity: SignedDuration,

    /// How long a certificate is valid. It is replaced with a third of that left.
    #[arg(long, env = "CORAL_CERTIFICATE_VALIDITY", default_value = "2160h", value_parser = positive)]
    pub certificate_validity: SignedDuration,

    /// How long a replaced authority stays in the caBundle, and a new one is there before it is used.
    #[arg(long, env = "CORAL_OVERLAP", default_value = "1h", value_parser = positive)]
    pub overlap: SignedDuration,
}

fn positive(text: &str) -> Result<SignedDuration, String> {
    let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    if duration.is_positive() && duration < SignedDuration::from_hours(24 * 365 * 100) {
        Ok(duration)
    } else {
        Err("must be positive, and less than a hundred years".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_are_positive() {
        let parse = |text: &str| Args::try_parse_from(["coral-webhook", "--overlap", text]);
        assert_eq!(parse("90s").unwrap().certificate.overlap, SignedDuration::from_secs(90));
        for text in ["0s", "-1h", "soon", "9000000h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
