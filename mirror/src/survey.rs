//! What an image is made of, and what its destination has of it.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::ImageReference;
use coral_registry::{Credential, Descriptor, Document, Error as RegistryError, Manifest, Platform, Repository};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    budget::Budgets,
    copier::{Job, Options},
    error::{Error, Result},
};

/// Most manifests in one another, and most manifests that refer to one another.
pub(crate) const MAX_DEPTH: usize = 4;
/// Most manifests of one image, with those that refer to it.
const MAX_MANIFESTS: usize = 4096;
/// Tags that signatures and their like have where they are not referrers: cosign's.
const DIGEST_TAGS: [&str; 3] = ["sig", "att", "sbom"];
/// The platform that indexes give to what runs nowhere, such as attestations.
const NOWHERE: &str = "unknown";

/// Who is asked for credentials.
pub trait Credentials: Send + Sync + 'static {
    /// The credentials for a repository, e.g. `docker.io/library/nginx`, in the order in which to try them.
    fn lookup(&self, repository: &str) -> Vec<Credential>;
}

impl Credentials for coral_registry::Keyring {
    fn lookup(&self, repository: &str) -> Vec<Credential> {
        Self::lookup(self, repository).into_iter().cloned().collect()
    }
}

/// The two ends of a copy.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) source: Repository,
    pub(crate) destination: Repository,
}

/// What the source says of an image.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    pub(crate) ends: Ends,
    /// Digest of what the reference names.
    pub(crate) root: String,
    /// All manifests that are to be copied, by digest.
    pub(crate) manifests: BTreeMap<String, Manifest>,
    /// What each of them names that is to be copied, too.
    pub(crate) children: BTreeMap<String, Vec<String>>,
    /// Manifests that refer to one of these, with what they refer to. A referrer of a referrer comes after that.
    pub(crate) referrers: Vec<(String, String)>,
    /// Further tags, and what they name.
    pub(crate) tags: Vec<(String, String)>,
    /// All blobs that these manifests name, each once.
    pub(crate) blobs: Vec<Descriptor>,
    /// Whether images of other platforms were left out.
    pub(crate) is_partial: bool,
}

impl Survey {
    fn new(ends: Ends, root: String) -> Self {
        Self {
            ends,
            root,
            manifests: BTreeMap::new(),
            children: BTreeMap::new(),
            referrers: Vec::new(),
            tags: Vec::new(),
            blobs: Vec::new(),
            is_partial: false,
        }
    }
}

/// What is to be done for an image.
pub(crate) enum Found {
    /// Nothing: the destination has it.
    Unchanged {
        digest: String,
    },
    ToCopy(Box<Survey>),
}

/// Asks both ends.
pub(crate) struct Surveyor<'copier> {
    pub(crate) client: &'copier coral_registry::Client,
    pub(crate) credentials: &'copier dyn Credentials,
    pub(crate) options: &'copier Options,
    pub(crate) budgets: &'copier Budgets,
}

impl Surveyor<'_> {
    /// Looks at an image. Where the destination has its digest under its name, that is all: everything else was there before the name.
    pub(crate) async fn survey(&self, job: &Job) -> Result<Found> {
        let Job { source, destination } = job;
        let from = self.source(source).await?;
        let to = self.destination(destination);
        let digest = self.digest(source, &from).await?;
        if !self.options.verify && self.is_there(&to, destination, &digest).await? {
            return Ok(Found::Unchanged { digest });
        }
        let ends = Ends {
            source: from.repository,
            destination: to,
        };
        self.look(source, ends, digest).await.map(Box::new).map(Found::ToCopy)
    }

    /// What the name of an original names now.
    pub(crate) async fn original(&self, image: &ImageReference) -> Result<String> {
        let source = self.ask(image).await?;
        self.digest(image, &source).await
    }

    async fn digest(&self, image: &ImageReference, source: &Source) -> Result<String> {
        match (&source.digest, image.digest()) {
            (_, Some(digest)) => Ok(digest.to_owned()),
            (Some(digest), None) => Ok(digest.clone()),
            // The registry does not tell digests by themselves.
            (None, None) => {
                let tag = image.tag().unwrap_or_default();
                let _turn = self.budgets.turn(&[image.registry()]).await;
                let manifest = source.repository.manifest(tag).await;
                Ok(manifest.map_err(Error::read(image.to_string()))?.digest)
            }
        }
    }

    /// Whether a destination has this digest under this name.
    pub(crate) async fn has(&self, copy: &ImageReference, digest: &str) -> Result<bool> {
        self.is_there(&self.destination(copy), copy, digest).await
    }

    /// The source, asked with the first credentials that it takes, and what the tag names.
    async fn source(&self, image: &ImageReference) -> Result<Source> {
        // Nobody needs to be asked what a digest names, and one who knows no credentials has no choice.
        if image.digest().is_some() && self.credentials.lookup(&image.name()).is_empty() {
            return Ok(Source {
                repository: self.client.repository(image, None),
                digest: None,
            });
        }
        self.ask(image).await
    }

    async fn ask(&self, image: &ImageReference) -> Result<Source> {
        let reference = image.digest().or(image.tag()).unwrap_or_default();
        let credentials = self.credentials.lookup(&image.name());
        let mut refusal = None;
        for credential in credentials.iter().map(Some).chain([None]) {
            let repository = self.client.repository(image, credential);
            let _turn = self.budgets.turn(&[image.registry()]).await;
            match repository.manifest_head(reference).await {
                Ok(Some(head)) => {
                    return Ok(Source {
                        repository,
                        digest: head.digest,
                    });
                }
                Ok(None) => {
                    refusal.get_or_insert(RegistryError::NotFound {
                        host: image.registry().to_owned(),
                        what: format!("{} {reference}", image.repository()),
                    });
                }
                // That access is refused says more than that nothing is there.
                Err(error) if error.may_be_about_credentials() => {
                    if !matches!(refusal, Some(RegistryError::Unauthorized { .. })) {
                        refusal = Some(error);
                    }
                }
                Err(error) => return Err(Error::read(image.to_string())(error)),
            }
        }
        Err(Error::read(image.to_string())(refusal.unwrap_or_else(|| {
            RegistryError::Unauthorized {
                host: image.registry().to_owned(),
                said: None,
            }
        })))
    }

    pub(crate) fn destination(&self, image: &ImageReference) -> Repository {
        let credentials = self.credentials.lookup(&image.name());
        self.client.repository(image, credentials.first())
    }

    /// Digests of the blobs that a copy has, as far as they can be told.
    pub(crate) async fn blobs(&self, copy: &ImageReference, digest: String) -> Vec<String> {
        let repository = self.destination(copy);
        let ends = Ends {
            source: repository.clone(),
            destination: repository,
        };
        let mut survey = Survey::new(ends, digest.clone());
        // What was found before it went wrong holds.
        let _ = self
            .descend(copy, &mut survey, vec![digest], &self.options.platforms)
            .await;
        survey.blobs.into_iter().map(|blob| blob.digest).collect()
    }

    async fn is_there(&self, repository: &Repository, image: &ImageReference, digest: &str) -> Result<bool> {
        let _turn = self.budgets.turn(&[image.registry()]).await;
        let reference = image.tag().unwrap_or(digest);
        match repository.manifest_head(reference).await {
            Ok(head) => Ok(head.is_some_and(|head| {
                // A registry that has something by its digest need not say which.
                head.digest.as_deref().or(image.tag().is_none().then_some(digest)) == Some(digest)
            })),
            // A registry may let somebody write who may not see what is not there yet.
            Err(error) if error.may_be_about_credentials() => Ok(false),
            Err(error) => Err(Error::write(image.to_string())(error)),
        }
    }

    async fn look(&self, image: &ImageReference, ends: Ends, root: String) -> Result<Survey> {
        let mut survey = Survey::new(ends, root.clone());
        self.descend(image, &mut survey, vec![root], &self.options.platforms)
            .await?;
        if self.options.referrers {
            self.refer(image, &mut survey).await?;
            self.tags(image, &mut survey).await?;
        }
        Ok(survey)
    }

    /// Takes these manifests, and all that they name.
    async fn descend(
        &self,
        image: &ImageReference,
        survey: &mut Survey,
        roots: Vec<String>,
        platforms: &[Platform],
    ) -> Result<()> {
        let mut level = roots;
        for depth in 0..=MAX_DEPTH {
            level.retain(|digest| !survey.manifests.contains_key(digest));
            if level.is_empty() {
                return Ok(());
            }
            if survey.manifests.len() + level.len() > MAX_MANIFESTS {
                return Err(not_an_image(image, "it has too many manifests"));
            }
            let source = survey.ends.source.clone();
            let fetched: Vec<Manifest> = stream::iter(level)
                .map(|digest| {
                    let source = source.clone();
                    async move {
                        let _turn = self.budgets.turn(&[image.registry()]).await;
                        let manifest = source.manifest(&digest).await;
                        manifest.map_err(Error::read(format!("{}@{digest}", image.name())))
                    }
                })
                .buffer_unordered(self.options.parallel.max(1))
                .try_collect()
                .await?;
            level = Vec::new();
            for manifest in fetched {
                let below = open(image, survey, &manifest, platforms, depth == 0)?;
                level.extend(below.iter().cloned());
                survey.children.insert(manifest.digest.clone(), below);
                survey.manifests.insert(manifest.digest.clone(), manifest);
            }
            level.sort_unstable();
            level.dedup();
        }
        if level.is_empty() {
            Ok(())
        } else {
            Err(not_an_image(image, "it has indexes of indexes without end"))
        }
    }

    /// Takes what refers to the manifests, and what refers to that.
    async fn refer(&self, image: &ImageReference, survey: &mut Survey) -> Result<()> {
        let mut subjects: Vec<String> = survey.manifests.keys().cloned().collect();
        for _ in 0..MAX_DEPTH {
            let source = survey.ends.source.clone();
            let listed: Vec<(String, Vec<Descriptor>)> = stream::iter(subjects)
                .map(|subject| {
                    let source = source.clone();
                    async move {
                        let _turn = self.budgets.turn(&[image.registry()]).await;
                        match source.referrers(&subject).await {
                            Ok(listed) => Ok((subject, listed)),
                            Err(error) => Err(Error::read(format!("the referrers of {}@{subject}", image.name()))(
                                error,
                            )),
                        }
                    }
                })
                .buffer_unordered(self.options.parallel.max(1))
                .try_collect()
                .await?;
            let mut found = Vec::new();
            for (subject, referrers) in listed {
                for referrer in referrers {
                    let is_new = coral_registry::is_digest(&referrer.digest)
                        && !survey.manifests.contains_key(&referrer.digest)
                        && !found.contains(&referrer.digest);
                    if is_new {
                        survey.referrers.push((subject.clone(), referrer.digest.clone()));
                        found.push(referrer.digest);
                    }
                }
            }
            if found.is_empty() {
                return Ok(());
            }
            found.sort_unstable();
            self.descend(image, survey, found.clone(), &[]).await?;
            subjects = found;
        }
        Ok(())
    }

    /// Takes what has a tag that is made of the image's digest.
    async fn tags(&self, image: &ImageReference, survey: &mut Survey) -> Result<()> {
        let stem = survey.root.replacen(':', "-", 1);
        for kind in DIGEST_TAGS {
            let tag = format!("{stem}.{kind}");
            let head = {
                let _turn = self.budgets.turn(&[image.registry()]).await;
                survey.ends.source.manifest_head(&tag).await
            };
            let head = head.map_err(Error::read(format!("{}:{tag}", image.name())))?;
            if let Some(digest) = head.and_then(|head| head.digest) {
                self.descend(image, survey, vec![digest.clone()], &[]).await?;
                survey.tags.push((tag, digest));
            }
        }
        Ok(())
    }
}

struct Source {
    repository: Repository,
    digest: Option<String>,
}

/// Takes up the blobs of a manifest, and gives the manifests that it names.
fn open(
    image: &ImageReference,
    survey: &mut Survey,
    manifest: &Manifest,
    platforms: &[Platform],
    is_top: bool,
) -> Result<Vec<String>> {
    match manifest.document() {
        Some(Document::Image { config, layers }) => {
            let mut known: BTreeSet<String> = survey.blobs.iter().map(|blob| blob.digest.clone()).collect();
            for blob in std::iter::once(config).chain(layers) {
                if is_distributable(&blob) && known.insert(blob.digest.clone()) {
                    if !coral_registry::is_digest(&blob.digest) {
                        return Err(not_an_image(image, "it names something else than digests"));
                    }
                    survey.blobs.push(blob);
                }
            }
            Ok(Vec::new())
        }
        Some(Document::Index { manifests }) => {
            if !manifests.iter().all(|entry| coral_registry::is_digest(&entry.digest)) {
                return Err(not_an_image(image, "it names something else than digests"));
            }
            let chosen = choose(&manifests, platforms);
            if is_top && chosen.is_none() {
                return Err(Error::NoPlatform {
                    image: image.familiar(),
                });
            }
            let chosen = chosen.unwrap_or_default();
            survey.is_partial |= chosen.len() < manifests.len();
            Ok(chosen.into_iter().map(|entry| entry.digest.clone()).collect())
        }
        None => Err(not_an_image(image, "it is neither an image nor an index")),
    }
}

/// The entries of an index that are for these platforms, and those that run nowhere. `None` if there is nothing for any of them.
fn choose<'index>(entries: &'index [Descriptor], platforms: &[Platform]) -> Option<Vec<&'index Descriptor>> {
    if platforms.is_empty() {
        return Some(entries.iter().collect());
    }
    let is_wanted = |entry: &&Descriptor| {
        let offered = entry.platform.as_ref();
        offered.is_some_and(|offered| platforms.iter().any(|platform| platform.covers(offered)))
    };
    let is_nowhere = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|offered| offered.os == NOWHERE);
    entries.iter().find(is_wanted)?;
    Some(
        entries
            .iter()
            .filter(|entry| is_wanted(entry) || is_nowhere(entry))
            .collect(),
    )
}

/// Whether a registry has the blob at all: Windows' base layers are had from elsewhere.
fn is_distributable(blob: &Descriptor) -> bool {
    !blob.media_type.contains(".foreign.") && !blob.media_type.contains(".nondistributable.")
}

fn not_an_image(image: &ImageReference, why: &'static str) -> Error {
    Error::NotAnImage {
        what: image.familiar(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(platforms: &[&str]) -> Vec<Descriptor> {
        let entry = |platform: &&str| Descriptor {
            digest: (*platform).to_owned(),
            platform: platform.parse().ok(),
            ..Descriptor::default()
        };
        platforms.iter().map(entry).collect()
    }

    #[test]
    fn platforms_choose_among_the_entries_of_an_index() {
        let all = ["linux/amd64", "linux/arm/v6", "linux/arm/v7", "unknown/unknown"];
        let cases: [(&[&str], Option<&[&str]>); 6] = [
            (&[], Some(&all)),
            (&["linux/amd64"], Some(&["linux/amd64", "unknown/unknown"])),
            (&["linux/arm/v7"], Some(&["linux/arm/v7", "unknown/unknown"])),
            (
                &["linux/arm"],
                Some(&["linux/arm/v6", "linux/arm/v7", "unknown/unknown"]),
            ),
            (
                &["linux/s390x", "linux/amd64"],
                Some(&["linux/amd64", "unknown/unknown"]),
            ),
            (&["linux/s390x"], None),
        ];
        for (wanted, expected) in cases {
            let platforms: Vec<Platform> = wanted.iter().map(|text| text.parse().unwrap()).collect();
            let entries = entries(&all);
            let chosen = choose(&entries, &platforms);
            let chosen: Option<Vec<&str>> =
                chosen.map(|chosen| chosen.iter().map(|entry| entry.digest.as_str()).collect());
            assert_eq!(chosen.as_deref(), expected, "{wanted:?}");
        }
    }

    #[test]
    fn layers_that_no_registry_has_are_left_out() {
        for (media_type, expected) in [
            ("application/vnd.oci.image.layer.v1.tar+gzip", true),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", false),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", false),
            ("", true),
        ] {
            let blob = Descriptor {
                media_type: media_type.to_owned(),
                ..Descriptor::default()
            };
            assert_eq!(is_distributable(&blob), expected, "{media_type}");
        }
    }
}
