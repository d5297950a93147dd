//! What creating a Deployment takes, with and without the webhook.
//!
//! The API server is a real one, and the webhook the process that was measured already, called by its address. Objects are created for show
//! (a dry run on the server): everything is done but keeping them, so that what etcd does is not measured, and the webhook's part is larger than
//! it would be.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::{
    Cluster, ClusterOptions,
    wait::{Look, eventually},
};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, WebhookClientConfig},
        apps::v1::Deployment,
    },
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};

use super::{Figure, Samples, servers::Servers};
use crate::cluster::{Lines, target_dir};

const PATIENCE: Duration = Duration::from_secs(30);
const CONFIGURATION: &str = "coral-webhook";

/// A control plane without nodes.
pub(super) async fn start_cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        dir: target_dir().join("bench/webhook-cluster"),
        nodes: 0,
        progress: std::sync::Arc::new(Lines),
        ..ClusterOptions::default()
    })
    .await
}

#[derive(Default)]
struct Times {
    half: Samples,
    most: Samples,
}

impl Times {
    /// Takes the times of a round in, and returns the one in their middle.
    fn push(&mut self, mut milliseconds: Vec<f64>) -> f64 {
        milliseconds.sort_by(f64::total_cmp);
        let at = |percent: usize| milliseconds.get(milliseconds.len() * percent / 100).copied();
        let half = at(50).unwrap_or(f64::NAN);
        self.half.push(half);
        self.most.push(at(99).unwrap_or(f64::NAN));
        half
    }

    fn figures(self, name: &'static str) -> [Figure; 2] {
        [
            Figure::new(name, "ms", self.half),
            Figure::new("  99 of 100 are faster than", "ms", self.most),
        ]
    }
}

/// Creates Deployments in turns: without the webhook, with it, and with it for objects that have no annotations.
pub(super) async fn measure(
    root: &Path,
    cluster: &Cluster,
    servers: &Servers,
    rounds: usize,
    creations: usize,
) -> Result<Vec<Figure>> {
    let client = cluster.client();
    let api: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
    let url = format!("https://{}:{}/mutate", cluster.host_address(), servers.port(0));
    let configuration = configuration(root, &url, servers.authority())?;
    let asking: Deployment = serde_json::from_value(servers.object("deployment").await?)?;
    let mut plain = asking.clone();
    plain.metadata.annotations = None;

    let (mut without, mut with, mut passed_by) = (Times::default(), Times::default(), Times::default());
    let (mut ratio, mut passed_by_ratio) = (Samples::default(), Samples::default());
    for round in 0..=rounds {
        let none = create(&api, &asking, creations, false).await?;
        configurations.create(&PostParams::default(), &configuration).await?;
        is_injected(&api, &asking, true).await?;
        let injected = create(&api, &asking, creations, true).await?;
        let unasked = create(&api, &plain, creations, false).await?;
        configurations.delete(CONFIGURATION, &DeleteParams::default()).await?;
        is_injected(&api, &asking, false).await?;
        if round == 0 {
            continue;
        }
        let bare = without.push(none);
        ratio.push(with.push(injected) / bare);
        passed_by_ratio.push(passed_by.push(unasked) / bare);
    }
    let mut figures = Vec::new();
    figures.extend(without.figures("Deployment through the API server, no webhook"));
    figures.extend(with.figures("  with the webhook, injected"));
    figures.push(Figure::new("  with / without", "×", ratio));
    figures.extend(passed_by.figures("  with the webhook, without annotations"));
    figures.push(Figure::new("  with / without", "×", passed_by_ratio));
    Ok(figures)
}

/// The configuration that is shipped, but for where the webhook is.
fn configuration(root: &Path, url: &str, authority: &Path) -> Result<MutatingWebhookConfiguration> {
    let file = root.join("deploy/base/webhook-configuration.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let mut configuration: MutatingWebhookConfiguration =
        serde_saphyr::from_str(&text).context("failed to understand the configuration")?;
    let authority = fs::read(authority).context("failed to read the authority")?;
    for webhook in configuration.webhooks.iter_mut().flatten() {
        webhook.client_config = WebhookClientConfig {
            ca_bundle: Some(ByteString(authority.clone())),
            service: None,
            url: Some(url.to_owned()),
        };
    }
    Ok(configuration)
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn has_selectors(deployment: &Deployment) -> bool {
    let spec = deployment.spec.template.spec.as_ref();
    let selector = spec.and_then(|spec| spec.node_selector.as_ref());
    selector.is_some_and(|selector| selector.len() > 1)
}

/// Milliseconds that each creation took, one after the other.
async fn create(
    api: &Api<Deployment>,
    deployment: &Deployment,
    creations: usize,
    is_injected: bool,
) -> Result<Vec<f64>> {
    let mut milliseconds = Vec::with_capacity(creations);
    for _ in 0..creations {
        let began = Instant::now();
        let created = api.create(&dry_run(), deployment).await?;
        milliseconds.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(
            has_selectors(&created) == is_injected,
            "a Deployment should be injected into: {is_injected}"
        );
    }
    Ok(milliseconds)
}

/// Waits until API server has heard of the configuration.
async fn is_injected(api: &Api<Deployment>, deployment: &Deployment, expected: bool) -> Result<()> {
    eventually("the API server to know the configuration", PATIENCE, async || {
        let created = api.create(&dry_run(), deployment).await?;
        Ok(if has_selectors(&created) == expected {
            Look::Done(())
        } else {
            Look::NotYet(created.spec)
        })
    })
    .await
}
