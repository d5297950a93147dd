//! Many Prefetches that come and go at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use crate::site::{NODES, Site, on};

/// How many images they name together: each image has more who ask for it than an object lists.
const IMAGES: usize = 10;
/// How many requests are under way at once.
const AT_ONCE: usize = 50;

/// Creates them, waits until all are Ready and deletes them; says how long the first took. What the deletion leads to is for the caller to
/// wait for.
pub(crate) async fn storm(
    site: &Site,
    name: &str,
    count: usize,
    patience: Duration,
) -> Result<(Vec<String>, Duration, Instant)> {
    let images: Vec<String> = (0..IMAGES)
        .map(|number| site.publish(&format!("{name}-{number}"), 2_000))
        .collect();
    let began = Instant::now();
    let created = futures::stream::iter(0..count).map(|number| {
        let spec = json!({"images": [images[number % IMAGES]], "nodeSelector": on(&NODES), "parallelism": 2});
        let name = format!("{name}-{number}");
        async move { site.prefetch(&name, spec).await }
    });
    created.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    let created = began.elapsed();
    site.checker
        .right(Instant::now(), patience, |wrong| site.concerns(wrong, name))
        .await
        .with_context(|| format!("{count} Prefetches, created in {created:?}"))?;
    let ready = began.elapsed();
    let deleted = futures::stream::iter(0..count).map(|number| {
        let name = format!("{name}-{number}");
        async move { site.delete(&name).await }
    });
    deleted.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok((images, ready, Instant::now()))
}
