//! One tag that goes, with what only it named.

use std::collections::BTreeSet;

use coral_registry::{Document, Error as RegistryError, Repository, Result};

/// Most tags of a repository that are looked at, to find out what they need. Where there are more, the space stays taken.
const MAX_TAGS: usize = 500;
/// What follows the digest in the tags of what refers to it: the specification's list, and what cosign makes.
const SUFFIXES: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// Removes a tag. That it was not there is no error.
///
/// # Caveats
///
/// Somebody who gives the same manifest another tag between the look at the tags and its removal loses that tag; a cluster notices that
/// with its next look, and copies again.
pub(super) async fn remove(repository: &Repository, tag: &str) -> Result<()> {
    let within = match within(repository, tag).await {
        Err(RegistryError::NotFound { .. }) => return Ok(()),
        other => other?,
    };
    repository.delete_manifest(tag).await?;
    // The tag is gone, which is what was asked for. What is left costs space and nothing else.
    let _ = free(repository, within).await;
    Ok(())
}

/// Removes those of these manifests that no tag needs.
async fn free(repository: &Repository, mut unneeded: BTreeSet<String>) -> Result<()> {
    let tags = match repository.tags().await {
        Err(RegistryError::NotFound { .. }) => Vec::new(),
        other => other?,
    };
    if tags.len() > MAX_TAGS {
        return Ok(());
    }
    let of_unneeded = |tag: &str, unneeded: &BTreeSet<String>| {
        let mut stems = unneeded.iter().map(|digest| digest.replacen(':', "-", 1));
        stems.any(|stem| tag.strip_prefix(&stem).is_some_and(|suffix| SUFFIXES.contains(&suffix)))
    };
    // What belongs to what goes needs nothing.
    let (satellites, others): (Vec<String>, Vec<String>) =
        tags.into_iter().partition(|tag| of_unneeded(tag, &unneeded));
    for tag in &others {
        match within(repository, tag).await {
            Ok(needed) => unneeded.retain(|digest| !needed.contains(digest)),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for tag in satellites.iter().filter(|tag| of_unneeded(tag, &unneeded)) {
        repository.delete_manifest(tag).await?;
    }
    for digest in &unneeded {
        repository.delete_manifest(digest).await?;
    }
    Ok(())
}

/// The digest that a tag names, and, where that is an index, those that it names in turn.
async fn within(repository: &Repository, tag: &str) -> Result<BTreeSet<String>> {
    let manifest = repository.manifest(tag).await?;
    let mut within = BTreeSet::new();
    if let Some(Document::Index { manifests }) = manifest.document() {
        within.extend(manifests.into_iter().map(|entry| entry.digest));
    }
    within.insert(manifest.digest);
    Ok(within)
}
