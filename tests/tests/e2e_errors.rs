//! What a real containerd says of registries that misbehave, and the reasons that Coral gives.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::time::Duration;

use coral_agent::{classify::Failure, runtime::Runtime};
use coral_api::{FailureReason, node_images::MAX_MESSAGE_LENGTH};
use coral_tests::{
    Cluster,
    bad_registry::{BadRegistry, Misbehaviour, SECRET},
    wait::{Look, eventually},
};
use futures::{StreamExt as _, stream};
use serde_json::json;
use support::{PATIENCE, Scene, on};

/// How long a pull may take that is to fail by itself. containerd answers within a second.
const FAILS_WITHIN: Duration = Duration::from_secs(20);

/// How long a pull is watched that is to hang. The agent gives one up after the Prefetch's `timeout`.
const HANGS_FOR: Duration = Duration::from_secs(2);

/// How many pulls run at once.
const AT_ONCE: usize = 8;

/// What containerd 2.4 makes of each misbehaviour; `None` is a pull that succeeds.
const EXPECTED: &[(Misbehaviour, Option<FailureReason>)] = {
    use FailureReason::{NotFound, PlatformMismatch, RateLimited, RegistryUnavailable, Unauthorized, Unknown};
    use Misbehaviour as M;
    &[
        (M::None, None),
        (M::UnauthorizedWithoutChallenge, Some(Unauthorized)),
        (M::UnauthorizedBasic, Some(Unauthorized)),
        (M::TokenUnauthorized, Some(Unauthorized)),
        (M::TokenForbidden, Some(Unauthorized)),
        (M::TokenUseless, Some(Unauthorized)),
        (M::Forbidden, Some(Unauthorized)),
        (M::ForbiddenByProxy, Some(Unauthorized)),
        (M::BlobRedirectForbidden, Some(Unauthorized)),
        (M::ManifestUnknown, Some(NotFound)),
        (M::NameUnknown, Some(NotFound)),
        (M::NotFoundPage, Some(NotFound)),
        (M::BlobUnknown, Some(NotFound)),
        (M::ConfigUnknown, Some(NotFound)),
        (M::VariantUnknown, Some(NotFound)),
        (M::TokenRateLimited, Some(RateLimited)),
        (M::RateLimited, Some(RateLimited)),
        (M::RateLimitedManifest, Some(RateLimited)),
        (M::RateLimitedBlob, Some(RateLimited)),
        (M::TokenUnavailable, Some(RegistryUnavailable)),
        (M::TokenGarbage, Some(RegistryUnavailable)),
        (M::TokenClosed, Some(RegistryUnavailable)),
        (M::InternalServerError, Some(RegistryUnavailable)),
        (M::BadGateway, Some(RegistryUnavailable)),
        (M::ServiceUnavailable, Some(RegistryUnavailable)),
        (M::GatewayTimeout, Some(RegistryUnavailable)),
        (M::BlobServerError, Some(RegistryUnavailable)),
        (M::RedirectLoop, Some(RegistryUnavailable)),
        (M::BlobRedirectRefused, Some(RegistryUnavailable)),
        (M::ConnectionClosed, Some(RegistryUnavailable)),
        (M::ConnectionReset, Some(RegistryUnavailable)),
        (M::ManifestPage, Some(RegistryUnavailable)),
        (M::ManifestWrongDigest, Some(RegistryUnavailable)),
        (M::BlobWrongContent, Some(RegistryUnavailable)),
        (M::BlobTruncated, Some(RegistryUnavailable)),
        (M::OtherPlatform, Some(PlatformMismatch)),
        (M::ManifestGarbage, Some(Unknown)),
        (M::ManifestSchema1, Some(Unknown)),
        (M::LayerNotTar, Some(Unknown)),
        (M::WrongDiffId, Some(Unknown)),
        // containerd 2 holds what it cannot run.
        (M::Artifact, None),
        (M::NoLayers, None),
    ]
};

/// Those that no table can have: the pulls do not end, or not before the disk is full.
const ENDLESS: &[Misbehaviour] = &[
    Misbehaviour::ConnectionHangs,
    Misbehaviour::BlobHangs,
    Misbehaviour::HugeLayer,
];

/// A registry on the host whose plain HTTP the nodes know.
async fn trusted_registry(cluster: &Cluster) -> BadRegistry {
    let registry = BadRegistry::start(cluster.host_address()).await.unwrap();
    cluster.trust_plain_http(&registry.host()).unwrap();
    registry
}

/// Pulls all these images at once on node-1, past the agent; those that arrive are removed again.
async fn pull(cluster: &Cluster, images: &[String]) -> Vec<Result<(), Failure>> {
    let node = cluster.node("node-1").unwrap();
    let runtime = Runtime::new(node.containerd_socket().to_str().unwrap()).unwrap();
    let pulls = images.iter().map(async |image| {
        let pull = tokio::time::timeout(FAILS_WITHIN, runtime.pull(image, None)).await;
        pull.unwrap_or_else(|_| panic!("the pull of {image} does not end"))
    });
    let results: Vec<_> = stream::iter(pulls).buffered(AT_ONCE).collect().await;
    for (image, _) in images.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
        node.remove_image(image).unwrap();
    }
    results
}

/// What is wrong with a result, in words.
fn complaint(expected: Option<FailureReason>, result: &Result<(), Failure>) -> Option<String> {
    let reason = result.as_ref().err().map(|failure| failure.reason);
    let message = result.as_ref().err().map_or("", |failure| failure.message.as_str());
    let is_shown_well = message.len() <= 4 * MAX_MESSAGE_LENGTH
        && message.chars().count() <= MAX_MESSAGE_LENGTH
        && !message.contains(SECRET)
        && !message.contains("failed to pull and unpack")
        && message.is_empty() == result.is_ok();
    (reason != expected || !is_shown_well).then(|| format!("{result:?} instead of {expected:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_misbehaviour_has_its_reason() {
    let covered = EXPECTED.iter().map(|(misbehaviour, _)| misbehaviour).chain(ENDLESS);
    let missing: Vec<_> = Misbehaviour::ALL
        .iter()
        .filter(|one| !covered.clone().any(|other| other == *one))
        .collect();
    assert!(missing.is_empty(), "nothing is expected of {missing:?}");

    let cluster = Cluster::shared().await.unwrap();
    let registry = trusted_registry(&cluster).await;
    let images: Vec<String> = EXPECTED.iter().map(|(one, _)| registry.image(*one)).collect();
    let results = pull(&cluster, &images).await;
    let complaints: Vec<String> = EXPECTED
        .iter()
        .zip(&results)
        .filter_map(|((misbehaviour, expected), result)| {
            complaint(*expected, result).map(|complaint| format!("{misbehaviour:?}: {complaint}"))
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_that_cannot_be_spoken_with_is_unavailable() {
    let cluster = Cluster::shared().await.unwrap();
    let host = cluster.host_address();
    let untrusted = BadRegistry::start(host).await.unwrap();
    let unknown_authority = BadRegistry::start_tls(host).await.unwrap();
    let tls_where_plain = BadRegistry::start_tls(host).await.unwrap();
    cluster.trust_plain_http(&tls_where_plain.host()).unwrap();
    let unavailable = Some(FailureReason::RegistryUnavailable);
    let cases = [
        (
            untrusted.image(Misbehaviour::None),
            unavailable,
            "HTTP response to HTTPS client",
        ),
        (
            unknown_authority.image(Misbehaviour::None),
            unavailable,
            "unknown authority",
        ),
        (
            tls_where_plain.image(Misbehaviour::None),
            unavailable,
            "malformed HTTP response",
        ),
        (format!("{host}:1/app:v1"), unavailable, "connection refused"),
        (
            "registry.does-not-exist.invalid/app:v1".to_owned(),
            unavailable,
            "lookup registry.does-not-exist.invalid",
        ),
        (
            format!("{host}:1/UPPER:v1"),
            Some(FailureReason::InvalidReference),
            "must be lowercase",
        ),
        // No digit of a name is a status.
        (
            format!("{}/unauthorized/429-401:403", cluster.registry()),
            Some(FailureReason::NotFound),
            "not found",
        ),
    ];
    let images: Vec<String> = cases.iter().map(|(image, ..)| image.clone()).collect();
    for ((image, expected, words), result) in cases.iter().zip(pull(&cluster, &images).await) {
        assert_eq!(complaint(*expected, &result), None, "{image}");
        assert!(result.as_ref().unwrap_err().message.contains(words), "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_pull_ends_when_it_is_given_up() {
    let cluster = Cluster::shared().await.unwrap();
    let registry = trusted_registry(&cluster).await;
    let node = cluster.node("node-1").unwrap();
    let runtime = Runtime::new(node.containerd_socket().to_str().unwrap()).unwrap();
    let hang = async |misbehaviour| {
        let image = registry.image(misbehaviour);
        let pull = tokio::time::timeout(HANGS_FOR, runtime.pull(&image, None)).await;
        assert!(pull.is_err(), "{misbehaviour:?}: {pull:?}");
    };
    let waiting = async |expected, timeout| {
        let what = format!("{expected} pulls to wait for the registry");
        eventually(&what, timeout, async || {
            let open = registry.open_connections();
            Ok(if open == expected {
                Look::Done(())
            } else {
                Look::NotYet(open)
            })
        })
        .await
        .unwrap();
    };
    let (silent, stopped) = (Misbehaviour::ConnectionHangs, Misbehaviour::BlobHangs);
    tokio::join!(hang(silent), hang(stopped), waiting(2, HANGS_FOR));
    waiting(0, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_tells_the_reason_of_each_of_its_failures() {
    let scene = Scene::new("errors").await;
    let registry = trusted_registry(&scene.cluster).await;
    // While a registry limits requests, Coral asks it for less; the others are not to wait for that.
    let limiting = trusted_registry(&scene.cluster).await;
    let good = scene.image("good");
    let expected = [
        (registry.image(Misbehaviour::TokenUseless), FailureReason::Unauthorized),
        (registry.image(Misbehaviour::ManifestUnknown), FailureReason::NotFound),
        (
            registry.image(Misbehaviour::OtherPlatform),
            FailureReason::PlatformMismatch,
        ),
        (
            registry.image(Misbehaviour::ServiceUnavailable),
            FailureReason::RegistryUnavailable,
        ),
        (
            registry.image(Misbehaviour::BlobRedirectForbidden),
            FailureReason::Unauthorized,
        ),
        (limiting.image(Misbehaviour::RateLimited), FailureReason::RateLimited),
    ];
    let mut images: Vec<&str> = expected.iter().map(|(image, _)| image.as_str()).collect();
    images.push(&good);
    let spec = json!({"images": images, "nodeSelector": on(&["node-1"]), "backoffLimit": 2});
    scene.prefetch("web", spec).await;
    let status = eventually("all failures to be told", PATIENCE, async || {
        let status = scene.prefetches().get("web").await?.status.unwrap_or_default();
        let is_told = |(image, reason): &(String, FailureReason)| {
            let of_image = |failure: &&coral_api::prefetch::NodeFailure| failure.image == *image;
            status
                .failures
                .iter()
                .find(of_image)
                .is_some_and(|failure| failure.reason == *reason && failure.node == "node-1")
        };
        Ok(if expected.iter().all(is_told) {
            Look::Done(status)
        } else {
            Look::NotYet(status.failures)
        })
    })
    .await
    .unwrap();
    assert_eq!(status.failures.len(), expected.len(), "{:?}", status.failures);
    let text = serde_json::to_string(&status).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    scene.held("node-1", &good).await;
}
