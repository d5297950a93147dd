//! What a runtime holds, what it is told to do wrong, and what it has seen. No clock, no socket.

mod containers;
mod records;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use coral_api::ImageReference;
use coral_proto::runtime_v1::{Container, Image, ImageSpec};
use tonic::Status;

pub(super) use self::records::{Labels, PINNED, Record};
use super::{
    catalogue::{Artifact, Catalogue},
    credential::CredentialPrint,
    flavour::{Flavour, Trouble},
};

/// How one attempt at an image ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// As the catalogue has it: well, where the image is to be had with the credential.
    Normal,
    /// With the runtime's words for this trouble.
    Fail(Trouble),
    /// Never.
    Hang,
    /// With the loss of every connection to the runtime.
    Disconnect,
}

/// An attempt at an image, as the runtime saw it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// The identity of the image.
    pub image: String,
    /// When the call came in.
    pub began: Instant,
    /// When and how it ended.
    pub ended: Option<(Instant, Ending)>,
    /// What the client sent, if it sent any.
    pub credential: Option<CredentialPrint>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The image was there.
    Succeeded,
    /// The runtime answered with an error.
    Failed,
    /// The client gave up.
    Cancelled,
    /// The runtime broke the connection, or ended.
    Cut,
}

/// How many attempts there were.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// All of them.
    pub begun: usize,
    /// Those that are under way.
    pub running: usize,
    /// The most that were under way at the same time.
    pub most_at_once: usize,
    /// Those that ended with the image there.
    pub succeeded: usize,
    /// Those that ended with an error.
    pub failed: usize,
    /// Those that the client gave up.
    pub cancelled: usize,
    /// Those that the runtime cut off.
    pub cut: usize,
}

/// How often each call that only asks or removes came in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Calls {
    /// `Version`.
    pub version: usize,
    /// `ListImages`.
    pub list_images: usize,
    /// `ImageStatus`.
    pub image_status: usize,
    /// `RemoveImage`.
    pub remove_image: usize,
    /// `ImageFsInfo`.
    pub image_fs_info: usize,
}

/// An image that is there.
#[derive(Clone, Debug)]
struct Held {
    tags: BTreeSet<String>,
    /// `repository@digest`, in the order in which lists have them.
    digests: Vec<String>,
    /// Digest of the index.
    digest: String,
    /// By name.
    labels: BTreeMap<String, Labels>,
    size_bytes: u64,
}

/// A pull that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    /// Which of the attempts it is.
    pub(super) attempt: usize,
    /// How long it takes; without it, for ever.
    pub(super) takes: Option<Duration>,
    /// Whether it ends with the connection.
    pub(super) disconnects: bool,
    reference: ImageReference,
    result: Result<Artifact, Trouble>,
}

/// All that a runtime knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) flavour: Flavour,
    catalogue: Catalogue,
    latency: Duration,
    bytes_per_second: Option<u64>,
    /// By ID.
    held: BTreeMap<String, Held>,
    scripts: HashMap<String, VecDeque<Outcome>>,
    /// Identities of images that vanish when they are asked for.
    fleeting: BTreeSet<String>,
    containers: Vec<Container>,
    pub(super) sandbox_image: Option<String>,
    /// Where images lie, if it is not where this runtime keeps them.
    pub(super) image_folder: Option<String>,
    /// Names of which containerd's own service was asked to delete the record.
    pub(super) deleted_records: Vec<String>,
    attempts: Vec<Attempt>,
    counts: Counts,
    pub(super) calls: Calls,
}

impl State {
    pub(super) fn new(flavour: Flavour, catalogue: Catalogue) -> Self {
        Self {
            flavour,
            catalogue,
            latency: Duration::ZERO,
            bytes_per_second: None,
            held: BTreeMap::new(),
            scripts: HashMap::new(),
            fleeting: BTreeSet::new(),
            containers: Vec::new(),
            sandbox_image: None,
            image_folder: None,
            deleted_records: Vec::new(),
            attempts: Vec::new(),
            counts: Counts::default(),
            calls: Calls::default(),
        }
    }

    pub(super) const fn set_pace(&mut self, latency: Duration, bytes_per_second: Option<u64>) {
        self.latency = latency;
        self.bytes_per_second = bytes_per_second;
    }

    pub(super) fn script(&mut self, image: &str, outcomes: impl IntoIterator<Item = Outcome>) {
        self.scripts.entry(identity(image)).or_default().extend(outcomes);
    }

    pub(super) fn vanish_when_asked_for(&mut self, image: &str) {
        self.fleeting.insert(identity(image));
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.held.values().map(|held| held.size_bytes).sum()
    }

    /// Begins a pull of `image`, which is what the client sent.
    pub(super) fn begin(
        &mut self,
        image: &str,
        credential: Option<CredentialPrint>,
        now: Instant,
    ) -> Result<Begun, Status> {
        let reference: ImageReference = image
            .parse()
            .map_err(|_| Status::invalid_argument(format!("failed to parse image reference {image:?}")))?;
        let identity = reference.identity();
        let outcome = self.scripts.get_mut(&identity).and_then(VecDeque::pop_front);
        let result = match &outcome {
            Some(Outcome::Fail(trouble)) => Err(trouble.clone()),
            _ => self.catalogue.resolve(&reference, credential),
        };
        let bytes = result.as_ref().map_or(0, |artifact| artifact.size_bytes);
        let transfer = self.bytes_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1))
        });
        self.attempts.push(Attempt {
            image: identity,
            began: now,
            ended: None,
            credential,
        });
        self.counts.begun += 1;
        self.counts.running += 1;
        self.counts.most_at_once = self.counts.most_at_once.max(self.counts.running);
        Ok(Begun {
            attempt: self.attempts.len() - 1,
            takes: (outcome != Some(Outcome::Hang)).then_some(self.latency + transfer),
            disconnects: outcome == Some(Outcome::Disconnect),
            reference,
            result,
        })
    }

    /// Ends a pull whose time is over; what is returned is the answer to the client.
    pub(super) fn finish(&mut self, begun: &Begun, now: Instant) -> Result<String, Status> {
        match &begun.result {
            Ok(artifact) => {
                self.end(begun.attempt, Ending::Succeeded, now);
                self.put(&begun.reference, artifact);
                Ok(self.flavour.id(&artifact.id))
            }
            Err(trouble) => {
                self.end(begun.attempt, Ending::Failed, now);
                let (code, words) = self.flavour.words(trouble, &begun.reference.identity());
                Err(Status::new(code, words))
            }
        }
    }

    /// Ends an attempt, if it has not ended.
    pub(super) fn end(&mut self, attempt: usize, ending: Ending, now: Instant) {
        let attempt = &mut self.attempts[attempt];
        if attempt.ended.is_some() {
            return;
        }
        attempt.ended = Some((now, ending));
        self.counts.running -= 1;
        let count = match ending {
            Ending::Succeeded => &mut self.counts.succeeded,
            Ending::Failed => &mut self.counts.failed,
            Ending::Cancelled => &mut self.counts.cancelled,
            Ending::Cut => &mut self.counts.cut,
        };
        *count += 1;
    }

    /// Puts an image there under the name by which it was asked for. A tag that another image has moves to this one.
    fn put(&mut self, reference: &ImageReference, artifact: &Artifact) {
        let tag = reference.identity();
        for held in self.held.values_mut() {
            held.tags.remove(&tag);
            held.labels.remove(&tag);
        }
        self.add(reference, artifact);
    }

    fn add(&mut self, reference: &ImageReference, artifact: &Artifact) {
        let held = self.held.entry(artifact.id.clone()).or_insert_with(|| Held {
            tags: BTreeSet::new(),
            digests: Vec::new(),
            digest: artifact.digest.clone(),
            labels: BTreeMap::new(),
            size_bytes: artifact.size_bytes,
        });
        if reference.digest().is_none() {
            held.tags.insert(reference.identity());
        }
        for digest in self.flavour.digests(artifact) {
            let digest = format!("{}@{digest}", reference.name());
            if !held.digests.contains(&digest) {
                held.digests.push(digest);
            }
        }
    }

    pub(super) fn hold(&mut self, image: &str) -> Option<()> {
        let reference: ImageReference = image.parse().ok()?;
        let artifact = self.catalogue.resolve(&reference, None).ok()?;
        self.put(&reference, &artifact);
        Some(())
    }

    pub(super) fn fill(&mut self, count: usize) {
        let everything = Catalogue::of_everything(1_000_000);
        let names = (0..count).map(|number| format!("filler.example/some/team/application-{number:06}:v1.2.3"));
        for reference in names.filter_map(|name| name.parse().ok()) {
            if let Ok(artifact) = everything.resolve(&reference, None) {
                self.add(&reference, &artifact);
            }
        }
    }

    /// The ID of the image with this name: a tag, a digest in a repository, or an ID.
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        let id = name.strip_prefix("sha256:").unwrap_or(name);
        if let Some((id, _)) = self.held.get_key_value(id) {
            return Some(id);
        }
        let has_name =
            |held: &Held| held.tags.contains(name) || held.digests.iter().any(|digest| digest.as_str() == name);
        self.held
            .iter()
            .find(|(_, held)| has_name(held))
            .map(|(id, _)| id.as_str())
    }

    /// Removes the image with this name, whatever other names it has. Says whether it was there.
    pub(super) fn vanish(&mut self, name: &str) -> bool {
        let id = self.find(&identity(name)).map(str::to_owned);
        id.is_some_and(|id| self.held.remove(&id).is_some())
    }

    /// Answers `ListImages`.
    pub(super) fn list(&mut self, only: Option<&str>) -> Vec<Image> {
        self.calls.list_images += 1;
        match only.filter(|name| !name.is_empty()) {
            None => self.held.iter().map(|(id, held)| self.image(id, held)).collect(),
            Some(name) => self.by_name(&identity(name)).into_iter().collect(),
        }
    }

    /// Answers `ImageStatus`.
    pub(super) fn status(&mut self, name: &str) -> Option<Image> {
        self.calls.image_status += 1;
        let name = identity(name);
        if self.find(&name).is_some() && self.fleeting.remove(&name) {
            self.vanish(&name);
        }
        self.by_name(&name)
    }

    /// Answers `RemoveImage`, which succeeds also when the image is not there. containerd takes all names of the image, and CRI-O the one
    /// that it was asked for, and the image with its last tag.
    pub(super) fn remove(&mut self, name: &str) {
        self.calls.remove_image += 1;
        let tag = identity(name);
        let other_tags = |held: &&mut Held| held.tags.iter().any(|other| *other != tag);
        if self.flavour == Flavour::CriO
            && let Some(id) = self.find(&tag).map(str::to_owned)
            && id != tag
            && let Some(held) = self.held.get_mut(&id).filter(other_tags)
        {
            held.tags.remove(&tag);
            return;
        }
        self.vanish(&tag);
    }

    fn by_name(&self, name: &str) -> Option<Image> {
        let (id, held) = self.held.get_key_value(self.find(name)?)?;
        Some(self.image(id, held))
    }

    fn image(&self, id: &str, held: &Held) -> Image {
        let id = self.flavour.id(id);
        Image {
            spec: Some(ImageSpec {
                image: id.clone(),
                ..ImageSpec::default()
            }),
            id,
            repo_tags: held.tags.iter().cloned().collect(),
            repo_digests: held.digests.clone(),
            size: held.size_bytes,
            pinned: held.is_pinned(),
        }
    }
}

/// The one spelling of an image. An ID, and what nobody can read, stays as it is.
pub(super) fn identity(image: &str) -> String {
    // To those who read references this is the repository `sha256` with a tag.
    if image.starts_with("sha256:") {
        return image.to_owned();
    }
    image
        .parse()
        .map_or_else(|_| image.to_owned(), |reference: ImageReference| reference.identity())
}

/// The most of these attempts that were under way at the same time.
pub(super) fn most_at_once(attempts: &[Attempt]) -> usize {
    let at = |time: Instant| {
        let runs = |attempt: &&Attempt| attempt.began <= time && attempt.ended.is_none_or(|(ended, _)| ended > time);
        attempts.iter().filter(runs).count()
    };
    attempts.iter().map(|attempt| at(attempt.began)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
