//! Puts the parts of the server together.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use coral_admission::review::Malformed;
use kube::Client;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    Args,
    args::CertificateArgs,
    certificate::{
        ServedCertificate, files,
        keeper::{Keeper, Names},
        plan::Settings,
    },
    copies::{self, KnownCopies},
    coverage::{self, KnownCoverage},
    handler::{image_reviewer, reviewer, router},
    metrics::Metrics,
    server::{Limits, serve, tls_config},
};

/// Runs the webhook until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    run_with(args, reviewer).await
}

/// The same, with something else that answers.
pub(crate) async fn run_with<A>(args: Args, answer: impl FnOnce(Metrics, KnownCoverage) -> A) -> anyhow::Result<()>
where
    A: Fn(&[u8]) -> Result<Vec<u8>, Malformed> + Send + Sync + 'static,
{
    let Args {
        listen_tls,
        watch_prefetches,
        rewrite,
        shutdown_delay,
        certificate,
        http,
        client,
        log: _,
    } = args;
    let shutdown = coral_runtime::shutdown()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let metrics = Metrics::default();
    let served = ServedCertificate::new(Arc::clone(&provider), metrics.clone());
    let coverage = KnownCoverage::default();
    let copies = KnownCopies::default();
    let listener = TcpListener::bind(listen_tls)
        .await
        .with_context(|| format!("failed to listen on {listen_tls}"))?;

    let mut background = JoinSet::new();
    let needs_client = watch_prefetches || rewrite || certificate.cert_dir.is_none();
    let client = if needs_client {
        Some(coral_runtime::client(&client).await?)
    } else {
        None
    };
    if let Some(client) = client.clone().filter(|_| watch_prefetches) {
        let (coverage, metrics) = (coverage.clone(), metrics.clone());
        background.spawn(async move { match coverage::follow(client, coverage, metrics).await {} });
    }
    if let Some(client) = client.clone().filter(|_| rewrite) {
        let (copies, metrics) = (copies.clone(), metrics.clone());
        background.spawn(async move { match copies::follow(client, copies, metrics).await {} });
    }
    if let Some(keep) = keep_certificate(certificate, client, served.clone()) {
        background.spawn(keep);
    }

    let health = metrics.clone();
    coral_runtime::serve(&http, metrics.registry(), move || health.is_ready()).await?;
    let limits = Limits::default();
    let answer_images = image_reviewer(metrics.clone(), copies);
    let router = router(
        answer(metrics.clone(), coverage),
        answer_images,
        metrics.clone(),
        limits,
    );
    let tls = tls_config(provider, served)?;
    tracing::info!(address = %listen_tls, "The webhook starts");
    let ending = metrics.clone();
    let shutdown = async move {
        shutdown.await;
        ending.ends();
        tokio::time::sleep(Duration::try_from(shutdown_delay).unwrap_or_default()).await;
    };
    let serving = serve(listener, tls, router, metrics, limits, shutdown);
    tokio::select! {
        () = serving => {}
        Some(ended) = background.join_next() => {
            ended.context("a part of the webhook failed")?;
            anyhow::bail!("a part of the webhook ended that should not");
        }
    }
    tracing::info!("The webhook ends as asked");
    Ok(())
}

/// What keeps the certificate that is served. `None` without a client for a Secret.
fn keep_certificate(
    args: CertificateArgs,
    client: Option<Client>,
    served: ServedCertificate,
) -> Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> {
    let CertificateArgs {
        cert_dir,
        namespace,
        service,
        secret,
        configuration,
        authority_validity,
        certificate_validity,
        overlap,
    } = args;
    if let Some(folder) = cert_dir {
        return Some(Box::pin(files::follow(folder, served)));
    }
    let settings = Settings {
        hosts: vec![format!("{service}.{namespace}.svc")],
        authority_validity,
        certificate_validity,
        overlap,
    };
    let names = Names {
        namespace,
        secret,
        service,
        configuration,
    };
    Some(Box::pin(Keeper::new(client?, names, settings, served).run()))
}
