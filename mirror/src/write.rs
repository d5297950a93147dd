//! Manifests, written so that nothing is named before it is there, and the tag last.

use std::collections::BTreeMap;

use coral_api::ImageReference;
use coral_registry::{Error as RegistryError, Manifest};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    budget::Budgets,
    error::{Error, Result},
    plan, referrers,
    survey::Survey,
};

/// Writes all manifests of an image whose blobs are there: images, indexes, what refers to them, and at last the tag.
pub(crate) async fn write(
    survey: &Survey,
    destination: &ImageReference,
    budgets: &Budgets,
    parallel: usize,
) -> Result<()> {
    let Survey { root, children, .. } = survey;
    let writer = Writer {
        survey,
        destination,
        budgets,
        parallel: parallel.max(1),
    };
    let mut groups = plan::groups(root, children);
    let has_more = !survey.referrers.is_empty() || !survey.tags.is_empty();
    if destination.tag().is_some() && !has_more {
        // Its tag brings it along.
        groups.pop();
    }
    for group in groups {
        writer.group(group).await?;
    }
    let mut unlisted: BTreeMap<&str, Vec<&Manifest>> = BTreeMap::new();
    for (subject, referrer) in &survey.referrers {
        if let Some(manifest) = writer.referrer(referrer).await? {
            unlisted.entry(subject).or_default().push(manifest);
        }
    }
    for (subject, referrers) in unlisted {
        writer.list(subject, &referrers).await?;
    }
    for (tag, digest) in &survey.tags {
        for group in plan::groups(digest, children) {
            writer.group(group).await?;
        }
        writer.put(digest, tag).await?;
    }
    match destination.tag() {
        Some(tag) => writer.put(root, tag).await.map(drop),
        None => Ok(()),
    }
}

struct Writer<'write> {
    survey: &'write Survey,
    destination: &'write ImageReference,
    budgets: &'write Budgets,
    parallel: usize,
}

impl Writer<'_> {
    async fn group(&self, digests: Vec<String>) -> Result<()> {
        stream::iter(digests)
            .map(|digest| async move { self.put(&digest, &digest).await.map(drop) })
            .buffer_unordered(self.parallel)
            .try_collect()
            .await
    }

    /// Writes a manifest that refers to another one, with all that it names. Gives it if the registry does not list it by itself.
    async fn referrer(&self, digest: &str) -> Result<Option<&Manifest>> {
        let mut groups = plan::groups(digest, &self.survey.children);
        groups.pop();
        for group in groups {
            self.group(group).await?;
        }
        let is_listed = self.put(digest, digest).await?;
        Ok(self.survey.manifests.get(digest).filter(|_| !is_listed))
    }

    /// Keeps the list of what refers to a manifest, for a registry that does not.
    async fn list(&self, subject: &str, referrers: &[&Manifest]) -> Result<()> {
        let tag = referrers::tag(subject);
        let what = || format!("{}:{tag}", self.destination.name());
        let _turn = self.budgets.turn(&[self.destination.registry()]).await;
        let repository = &self.survey.ends.destination;
        let list = match repository.manifest(&tag).await {
            Ok(list) => Some(list),
            Err(RegistryError::NotFound { .. }) => None,
            Err(error) => return Err(Error::write(what())(error)),
        };
        match referrers::with(list.as_ref(), referrers) {
            Some(list) => {
                let written = repository.put_manifest(&tag, &list).await;
                written.map(drop).map_err(Error::write(what()))
            }
            None => Ok(()),
        }
    }

    /// Writes a manifest, and tells whether the registry lists it among the referrers of its subject.
    async fn put(&self, digest: &str, reference: &str) -> Result<bool> {
        let Some(manifest) = self.survey.manifests.get(digest) else {
            return Ok(false);
        };
        let _turn = self.budgets.turn(&[self.destination.registry()]).await;
        let separator = if reference == digest { '@' } else { ':' };
        let written = self.survey.ends.destination.put_manifest(reference, manifest).await;
        written.map_err(Error::write(format!(
            "{}{separator}{reference}",
            self.destination.name()
        )))
    }
}
