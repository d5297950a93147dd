//! What registries have, as far as a runtime that only pretends can tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coral_api::ImageReference;

use super::{credential::CredentialPrint, flavour::Trouble};
use crate::cluster::fingerprint::fingerprint;

/// Images that registries have. All clones are one catalogue.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    /// By identity: each tag, and each digest in its repository.
    images: HashMap<String, Artifact>,
    /// Size of every image that nobody published; without it they do not exist.
    generated_bytes: Option<u64>,
    /// What the repositories that need a credential ask for.
    locks: HashMap<String, CredentialPrint>,
}

/// One image of a registry: an index with one manifest for the platform of the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Artifact {
    /// Digest of the index, which is what a tag leads to.
    pub digest: String,
    /// Digest of the manifest in it.
    pub manifest_digest: String,
    /// 64 hex digits of the image's ID.
    pub id: String,
    /// Bytes that it takes on a node.
    pub size_bytes: u64,
}

impl Artifact {
    fn new(repository: &str, content: &str, size_bytes: u64) -> Self {
        Self::with_digest(format!("sha256:{}", hex(&["index", repository, content])), size_bytes)
    }

    fn with_digest(digest: String, size_bytes: u64) -> Self {
        Self {
            manifest_digest: format!("sha256:{}", hex(&["manifest", &digest])),
            id: hex(&["config", &digest]),
            digest,
            size_bytes,
        }
    }
}

impl Catalogue {
    /// A catalogue in which every image exists, made up from its name.
    #[must_use]
    pub fn of_everything(size_bytes: u64) -> Self {
        let catalogue = Self::default();
        catalogue.contents().generated_bytes = Some(size_bytes);
        catalogue
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an image there, or moves its tag: another `content` is another digest. Afterwards it is to be had under its tag and its digest.
    ///
    /// # Panics
    /// When `image` is no image reference.
    #[expect(clippy::must_use_candidate, reason = "what is made is not always of interest")]
    pub fn publish(&self, image: &str, content: &str, size_bytes: u64) -> Artifact {
        let reference = read(image);
        let artifact = Artifact::new(&reference.name(), content, size_bytes);
        let mut contents = self.contents();
        let by_digest = format!("{}@{}", reference.name(), artifact.digest);
        contents.images.insert(by_digest, artifact.clone());
        contents.images.insert(reference.identity(), artifact.clone());
        artifact
    }

    /// Wants this credential for every image of the repository of `image`.
    ///
    /// # Panics
    /// When `image` is no image reference.
    pub fn lock(&self, image: &str, credential: CredentialPrint) {
        self.contents().locks.insert(read(image).name(), credential);
    }

    /// What a registry answers to a runtime that asks for an image.
    pub(super) fn resolve(
        &self,
        reference: &ImageReference,
        credential: Option<CredentialPrint>,
    ) -> Result<Artifact, Trouble> {
        let contents = self.contents();
        let lock = contents.locks.get(&reference.name());
        if lock.is_some_and(|lock| credential != Some(*lock)) {
            return Err(Trouble::Unauthorized);
        }
        let identity = reference.identity();
        let generated = || {
            let size_bytes = contents.generated_bytes?;
            Some(match reference.digest() {
                Some(digest) => Artifact::with_digest(digest.to_owned(), size_bytes),
                None => Artifact::new(&reference.name(), &identity, size_bytes),
            })
        };
        contents
            .images
            .get(&identity)
            .cloned()
            .or_else(generated)
            .ok_or(Trouble::NotFound)
    }
}

fn read(image: &str) -> ImageReference {
    match image.parse() {
        Ok(reference) => reference,
        Err(error) => panic!("{error}"),
    }
}

/// 64 hex digits made from these words.
fn hex(words: &[&str]) -> String {
    fingerprint(words.join("\n"), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(catalogue: &Catalogue, image: &str) -> Result<Artifact, Trouble> {
        catalogue.resolve(&read(image), None)
    }

    #[test]
    fn an_image_is_under_its_tag_and_its_digest() {
        let catalogue = Catalogue::default();
        let image = catalogue.publish("nginx:1", "first", 7);
        assert_eq!(resolve(&catalogue, "docker.io/library/nginx:1"), Ok(image.clone()));
        let by_digest = format!("nginx:other@{}", image.digest);
        assert_eq!(resolve(&catalogue, &by_digest), Ok(image.clone()));
        assert_eq!(resolve(&catalogue, "nginx:2"), Err(Trouble::NotFound));
        assert_eq!(
            resolve(&catalogue, &format!("other@{}", image.digest)),
            Err(Trouble::NotFound)
        );
    }

    #[test]
    fn a_moved_tag_has_another_digest_and_the_old_one_stays() {
        let catalogue = Catalogue::default();
        let old = catalogue.publish("app:v1", "first", 7);
        let new = catalogue.publish("app:v1", "second", 7);
        assert_ne!((&old.digest, &old.id), (&new.digest, &new.id));
        assert_eq!(resolve(&catalogue, "app:v1"), Ok(new));
        assert_eq!(resolve(&catalogue, &format!("app@{}", old.digest)), Ok(old));
    }

    #[test]
    fn a_catalogue_of_everything_always_gives_the_same() {
        let catalogue = Catalogue::of_everything(9);
        let image = resolve(&catalogue, "registry.example/some/app:v1").unwrap();
        assert_eq!(image.size_bytes, 9);
        assert_eq!(resolve(&catalogue, "registry.example/some/app:v1").unwrap(), image);
        assert_ne!(resolve(&catalogue, "registry.example/some/app:v2").unwrap(), image);
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(resolve(&catalogue, &format!("app@{digest}")).unwrap().digest, digest);
    }

    #[test]
    fn a_locked_repository_opens_to_its_own_credential_only() {
        let catalogue = Catalogue::of_everything(1);
        let key = CredentialPrint::of("user", "right");
        catalogue.lock("private.example/app", key);
        let image = read("private.example/app:v3");
        assert_eq!(catalogue.resolve(&image, None), Err(Trouble::Unauthorized));
        let wrong = CredentialPrint::of("user", "wrong");
        assert_eq!(catalogue.resolve(&image, Some(wrong)), Err(Trouble::Unauthorized));
        assert!(catalogue.resolve(&image, Some(key)).is_ok());
        assert!(resolve(&catalogue, "private.example/open:v3").is_ok());
    }
}
