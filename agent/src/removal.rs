//! Taking an image away: whether that may be, and how much of it goes.
//!
//! CRI's `RemoveImage` means the image, not the name: containerd takes every name of the image's ID. So the runtime is asked anew
//! just before each removal, and where somebody else's name leads to the same image, only Coral's own name goes.

use std::{collections::BTreeSet, time::Duration};

use coral_api::{
    FailureReason,
    node_images::{DesiredState, MAX_MESSAGE_LENGTH},
};

use crate::{
    classify::{Failure, classify},
    runtime::{Container, Listing, Runtime},
    situation::Situation,
};

/// Longest time for a removal: containerd answers when the content of the image is off the disk.
const REMOVAL_TIMEOUT: Duration = Duration::from_mins(2);
/// How long the image may still be listed after it was removed: containerd's CRI plugin learns of the end of a name by an event.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked whether the image is gone.
const GONE_INTERVAL: Duration = Duration::from_millis(50);

/// What is asked of the images of a node, by their names for the runtime.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wishes {
    /// Those that are to go.
    pub going: BTreeSet<String>,
    /// Those that are to be there.
    pub staying: BTreeSet<String>,
}

/// What the runtime says that decides over a removal.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The image with all of its names; `None` when it is not there.
    pub image: Option<Listing>,
    /// Every container of the node, running or not.
    pub containers: Vec<Container>,
    /// The image that every pod needs, where the runtime tells.
    pub sandbox_image: Option<String>,
    /// Whether somebody other than Coral has pinned the image.
    pub is_pinned_by_others: bool,
}

/// What is to become of an image that is to go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is not there.
    Gone,
    /// It goes with all of its names.
    Image,
    /// Only these names go; the image stays under others.
    Names(Vec<String>),
    /// It stays, for this reason.
    Refused(String),
}

impl Wishes {
    /// What the situation asks for.
    #[must_use]
    pub fn of(situation: &Situation) -> Self {
        let mut wishes = Self::default();
        for wanted in &situation.wanted {
            let names = match wanted.entry.state {
                DesiredState::Absent => &mut wishes.going,
                DesiredState::Present | DesiredState::Held => &mut wishes.staying,
            };
            names.extend(wanted.identity());
        }
        wishes
    }

    fn go(&self, name: &str) -> bool {
        self.going.contains(name) && !self.staying.contains(name)
    }
}

/// Whether the image that the runtime names `identity` may go, and with which names.
#[must_use]
pub fn decide(identity: &str, wishes: &Wishes, evidence: &Evidence) -> Verdict {
    let Some(image) = &evidence.image else {
        return Verdict::Gone;
    };
    let is_tag = image.tags.iter().any(|tag| tag == identity);
    if !is_tag && !image.digests.iter().any(|digest| digest == identity) {
        return Verdict::Gone;
    }
    if let Some(why) = objection(identity, image, wishes, evidence) {
        return Verdict::Refused(why);
    }
    let tag_stays = |repository: &str| {
        image
            .tags
            .iter()
            .find(|tag| !wishes.go(tag) && repository_of(tag) == repository)
    };
    // The runtime has the digest of a tagged image from the tag: it is the tag's, not a name of its own.
    if !is_tag && let Some(tag) = tag_stays(repository_of(identity)) {
        return Verdict::Refused(format!("the same image is there as {tag}, which stays"));
    }
    let digest_goes = |digest: &&String| {
        let repository = repository_of(digest);
        let came_with_a_tag = || {
            image
                .tags
                .iter()
                .any(|tag| wishes.go(tag) && repository_of(tag) == repository)
        };
        !wishes.staying.contains(*digest) && tag_stays(repository).is_none() && (wishes.go(digest) || came_with_a_tag())
    };
    if image.tags.iter().all(|tag| wishes.go(tag)) && image.digests.iter().all(|digest| digest_goes(&digest)) {
        return Verdict::Image;
    }
    let mut names = vec![identity.to_owned()];
    if is_tag {
        let repository = repository_of(identity);
        let own_digests = image
            .digests
            .iter()
            .filter(|digest| repository_of(digest) == repository);
        names.extend(own_digests.filter(digest_goes).cloned());
    }
    Verdict::Names(names)
}

/// What speaks against the removal of an image, whatever names it has.
fn objection(identity: &str, image: &Listing, wishes: &Wishes, evidence: &Evidence) -> Option<String> {
    if !wishes.go(identity) {
        return Some("it is also asked for".to_owned());
    }
    let mut users: Vec<&Container> = evidence
        .containers
        .iter()
        .filter(|container| container.images.iter().any(|name| image.is_named(name)))
        .collect();
    users.sort();
    if let Some(user) = users.first() {
        let others = match users.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        return Some(format!("in use by {user}{others}"));
    }
    if evidence.sandbox_image.as_ref().is_some_and(|name| image.is_named(name)) {
        return Some("every pod needs it (sandbox image)".to_owned());
    }
    evidence
        .is_pinned_by_others
        .then(|| "it is pinned, and not by Coral".to_owned())
}

/// The repository of a tag or of a digest.
fn repository_of(name: &str) -> &str {
    match name.split_once('@') {
        Some((repository, _)) => repository,
        None => name.rsplit_once(':').map_or(name, |(repository, _)| repository),
    }
}

/// Takes an image away, if that may be, and returns when it is gone.
///
/// # Errors
/// With `RemovalRefused` when something needs the image, or the runtime keeps it.
pub(crate) async fn remove(runtime: &Runtime, identity: &str, wishes: &Wishes) -> Result<(), Failure> {
    let removal = async {
        let is_containerd = runtime.version().await?.name == "containerd";
        let evidence = evidence(runtime, identity, is_containerd).await?;
        match decide(identity, wishes, &evidence) {
            Verdict::Gone => return Ok(()),
            Verdict::Refused(why) => return Err(refused(&why)),
            Verdict::Names(names) if is_containerd => {
                tracing::info!(?names, "Names of the image are removed; the image stays under others");
                let removed = runtime.containerd().remove_names(&names).await;
                removed.map_err(|status| refused_by_the_runtime(classify(&status)))?;
            }
            // CRI-O takes the one name by which it is asked, and the image with its last.
            Verdict::Image | Verdict::Names(_) => {
                tracing::info!("The image is removed");
                runtime.remove(identity).await.map_err(refused_by_the_runtime)?;
            }
        }
        until_gone(runtime, identity).await
    };
    tokio::time::timeout(REMOVAL_TIMEOUT, removal)
        .await
        .unwrap_or_else(|_| {
            Err(Failure {
                reason: FailureReason::Timeout,
                message: format!("the removal took longer than {} s", REMOVAL_TIMEOUT.as_secs()),
            })
        })
}

async fn evidence(runtime: &Runtime, identity: &str, is_containerd: bool) -> Result<Evidence, Failure> {
    let Some(image) = runtime.listing(identity).await? else {
        return Ok(Evidence::default());
    };
    let is_pinned_by_others = if image.is_pinned && is_containerd {
        let pinned = runtime.containerd().is_pinned_by_others(&image.names()).await;
        pinned.map_err(|status| classify(&status))?
    } else {
        image.is_pinned
    };
    Ok(Evidence {
        sandbox_image: runtime.sandbox_image().await?,
        // Last, so that a container that comes meanwhile is seen.
        containers: runtime.containers().await?,
        image: Some(image),
        is_pinned_by_others,
    })
}

async fn until_gone(runtime: &Runtime, identity: &str) -> Result<(), Failure> {
    let gone = async {
        while runtime.listing(identity).await?.is_some() {
            tokio::time::sleep(GONE_INTERVAL).await;
        }
        Ok(())
    };
    tokio::time::timeout(GONE_TIMEOUT, gone)
        .await
        .unwrap_or_else(|_| Err(refused("the container runtime has it again, or still")))
}

fn refused(why: &str) -> Failure {
    Failure {
        reason: FailureReason::RemovalRefused,
        message: why.chars().take(MAX_MESSAGE_LENGTH).collect(),
    }
}

/// A runtime that answers with an error refuses; one that does not answer says nothing about the image.
fn refused_by_the_runtime(failure: Failure) -> Failure {
    match failure.reason {
        FailureReason::RuntimeUnavailable | FailureReason::Timeout => failure,
        _ => refused(&format!("the container runtime refuses: {}", failure.message)),
    }
}

#[cfg(test)]
mod tests;
