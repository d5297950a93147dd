//! The copier: looks, plans, and carries out.

use std::{collections::BTreeSet, sync::Arc};

use coral_api::ImageReference;
use coral_registry::{Client, Platform, Repository};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Shared},
    stream,
};
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    budget::Budgets,
    error::{Error, Result},
    holdings::Holdings,
    observer::{Observer, Settled},
    plan::{self, Placement, Presence, Step, Wanted},
    send::{self, Means},
    survey::{Credentials, Ends, Found, Survey, Surveyor},
    write,
};

/// Images that are looked at, or whose manifests are written, at the same time. What goes on at each registry has its own bound.
const IMAGES_AT_ONCE: usize = 64;

/// One image to copy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Job {
    /// The original.
    pub source: ImageReference,
    /// What the copy is called. Without a tag it has none, and is found by its digest. A digest here plays no part: that of the original
    /// decides.
    pub destination: ImageReference,
}

/// How images are copied.
#[derive(Clone, Debug)]
pub struct Options {
    /// Platforms whose images are copied; none stands for all. The index stays as it is, so that its digest does, too. Where the
    /// destination wants everything that an index names, everything is copied after all.
    pub platforms: Vec<Platform>,
    /// Whether what refers to the images is copied, too: signatures, lists of contents.
    pub referrers: bool,
    /// Whether everything is looked at even where the destination has the image under its name.
    pub verify: bool,
    /// Requests at the same time at each registry.
    pub parallel: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platforms: Vec::new(),
            referrers: true,
            verify: false,
            parallel: 6,
        }
    }
}

/// Copies images. Cheap to clone.
#[derive(Clone)]
pub struct Copier {
    client: Client,
    credentials: Arc<dyn Credentials>,
    options: Arc<Options>,
    budgets: Budgets,
    holdings: Holdings,
}

/// What is going to be done.
pub struct Prepared {
    images: Vec<Image>,
    placements: Vec<Placement>,
}

struct Image {
    job: Job,
    found: Result<Found>,
    /// Its blobs, by their place among the placements.
    needs: Vec<usize>,
}

/// What became of an image.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The image.
    pub job: Job,
    /// How it went.
    pub result: Result<Copied>,
}

/// An image that the destination has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copied {
    /// Its digest, there and here.
    pub digest: String,
    /// Whether anything had to be done.
    pub state: State,
    /// Bytes of blobs that were sent for it. What several images of one repository share counts for each.
    pub sent_bytes: u64,
}

/// What was done for an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It was there.
    Unchanged,
    /// It was copied.
    Copied,
    /// It was copied for all platforms, because the destination takes no index without them.
    CopiedForAllPlatforms,
}

/// How a blob came to where it is, known to all that wait for it.
type Arrival = Shared<BoxFuture<'static, Result<Settled>>>;

impl Copier {
    /// A copier.
    #[must_use]
    pub fn new(client: Client, credentials: Arc<dyn Credentials>, options: Options) -> Self {
        let budgets = Budgets::new(options.parallel);
        Self::within(budgets, Holdings::default(), client, credentials, options)
    }

    /// A copier that shares with others what registries are asked at the same time, and what is known to be there.
    pub(crate) fn within(
        budgets: Budgets,
        holdings: Holdings,
        client: Client,
        credentials: Arc<dyn Credentials>,
        options: Options,
    ) -> Self {
        Self {
            client,
            credentials,
            options: Arc::new(options),
            budgets,
            holdings,
        }
    }

    fn surveyor(&self) -> Surveyor<'_> {
        Surveyor {
            client: &self.client,
            credentials: &*self.credentials,
            options: &self.options,
            budgets: &self.budgets,
        }
    }

    /// The digest of an original, as its registry tells it now: one question without credentials, or one for each that is refused.
    pub async fn original(&self, image: &ImageReference) -> Result<String> {
        self.surveyor().original(image).await
    }

    /// Whether there is a copy under this name with this digest: one question.
    pub async fn has(&self, copy: &ImageReference, digest: &str) -> Result<bool> {
        self.surveyor().has(copy, digest).await
    }

    /// A repository of a destination, with the credentials for it.
    #[must_use]
    pub fn destination(&self, copy: &ImageReference) -> Repository {
        self.surveyor().destination(copy)
    }

    /// Finds out which blobs these copies have, of which each is given with its digest: what others need of them is mounted from there,
    /// and not sent. Copies that were read before are not read again, and those that cannot be read are left out.
    pub async fn recall(&self, copies: Vec<(ImageReference, String)>) {
        let surveyor = self.surveyor();
        let new = copies.into_iter().filter(|(copy, digest)| {
            let name = format!("{}@{digest}", copy.name());
            self.holdings.is_to_recall(&name)
        });
        stream::iter(new)
            .for_each_concurrent(self.options.parallel.max(1), |(copy, digest)| {
                let (surveyor, holdings) = (&surveyor, &self.holdings);
                async move {
                    for blob in surveyor.blobs(&copy, digest).await {
                        holdings.note(copy.registry(), copy.repository(), &blob);
                    }
                }
            })
            .await;
    }

    /// Copies images, and tells of each how it went, in their order.
    pub async fn copy(&self, jobs: Vec<Job>, observer: Arc<dyn Observer>) -> Vec<Outcome> {
        let prepared = self.prepare(jobs).await;
        self.carry_out(prepared, observer).await
    }

    /// Looks at the images and at their destinations, and plans. Nothing is written.
    pub async fn prepare(&self, jobs: Vec<Job>) -> Prepared {
        let surveyor = self.surveyor();
        let mut images: Vec<Image> = stream::iter(jobs)
            .map(|job| async {
                let found = surveyor.survey(&job).await;
                Image {
                    job,
                    found,
                    needs: Vec::new(),
                }
            })
            .buffered(IMAGES_AT_ONCE)
            .collect()
            .await;
        let presence = self.presence(&mut images).await;
        let wanted: Vec<Wanted> = images.iter().map(wanted).collect();
        let (placements, needs) = plan::place(&wanted, &presence);
        for (image, needs) in images.iter_mut().zip(needs) {
            image.needs = needs;
        }
        Prepared { images, placements }
    }

    /// Which of the blobs are at their destinations. An image for which that cannot be told fails.
    async fn presence(&self, images: &mut [Image]) -> Presence {
        let mut questions: Vec<(usize, plan::Repository, String)> = Vec::new();
        let mut asked = BTreeSet::new();
        for (index, image) in images.iter().enumerate() {
            let Wanted { destination, blobs, .. } = wanted(image);
            for blob in blobs {
                if asked.insert((destination.clone(), blob.digest.clone())) {
                    questions.push((index, destination.clone(), blob.digest));
                }
            }
        }
        let ends: Vec<Option<Ends>> = images
            .iter()
            .map(|image| image.survey().map(|survey| survey.ends.clone()))
            .collect();
        let ends = &ends;
        let answers: Vec<_> = stream::iter(questions)
            .map(|(index, repository, digest)| async move {
                let destination = &ends[index].as_ref()?.destination;
                let _turn = self.budgets.turn(&[&repository.registry]).await;
                let size = destination.blob_size(&digest).await;
                Some((index, repository, digest, size))
            })
            .buffer_unordered(IMAGES_AT_ONCE)
            .collect()
            .await;
        let mut presence = Presence::new();
        for (index, repository, digest, size) in answers.into_iter().flatten() {
            match size {
                Ok(Some(_)) => {
                    presence.insert((repository, digest));
                }
                Ok(None) => {}
                // Somebody may write who may not see what is not there yet.
                Err(error) if error.may_be_about_credentials() => {}
                Err(error) => {
                    let what = format!("{}/{}@{digest}", repository.registry, repository.path);
                    images[index].found = Err(Error::write(what)(error));
                }
            }
        }
        presence
    }

    /// Does what was planned, and tells of each image how it went, in their order. When this is dropped everything stops.
    pub async fn carry_out(&self, prepared: Prepared, observer: Arc<dyn Observer>) -> Vec<Outcome> {
        let Prepared { images, placements } = prepared;
        let mut tasks = JoinSet::new();
        let arrivals = self.start(&placements, &images, &mut tasks, &observer);
        let outcomes: Vec<Outcome> = stream::iter(images)
            .map(|image| self.finish(image, &placements, &arrivals, &observer))
            .buffered(IMAGES_AT_ONCE)
            .collect()
            .await;
        outcomes
    }

    /// Lets each blob go its way.
    fn start(
        &self,
        placements: &[Placement],
        images: &[Image],
        tasks: &mut JoinSet<()>,
        observer: &Arc<dyn Observer>,
    ) -> Vec<Arrival> {
        let mut ends: Vec<Option<Ends>> = vec![None; placements.len()];
        for image in images {
            for index in &image.needs {
                if let Some(survey) = image.survey() {
                    ends[*index].get_or_insert_with(|| survey.ends.clone());
                }
            }
        }
        let mut arrivals: Vec<Arrival> = Vec::with_capacity(placements.len());
        for (placement, ends) in placements.iter().zip(ends) {
            let what = placement.digest.clone();
            let Some(ends) = ends else {
                // No image waits for it.
                arrivals.push(async move { Err(Error::Abandoned { what }) }.boxed().shared());
                continue;
            };
            let first = placement.after.and_then(|index| arrivals.get(index)).cloned();
            let (arrived_tx, arrived_rx) = oneshot::channel();
            let (placement, observer) = (placement.clone(), Arc::clone(observer));
            let (budgets, holdings) = (self.budgets.clone(), self.holdings.clone());
            tasks.spawn(async move {
                let is_at_hand = match first {
                    Some(first) => first.await.is_ok(),
                    None => true,
                };
                let means = Means {
                    budgets: &budgets,
                    holdings: &holdings,
                };
                let way = Box::pin(send::place(&placement, &ends, is_at_hand, means, &observer));
                let result = way.await;
                if let Ok(how) = &result {
                    observer.settled(*how, placement.size);
                }
                // Nobody may wait any more.
                let _ = arrived_tx.send(result);
            });
            let arrival = async move { arrived_rx.await.unwrap_or(Err(Error::Abandoned { what })) };
            arrivals.push(arrival.boxed().shared());
        }
        arrivals
    }

    /// Waits for the blobs of an image, and writes its manifests.
    async fn finish(
        &self,
        image: Image,
        placements: &[Placement],
        arrivals: &[Arrival],
        observer: &Arc<dyn Observer>,
    ) -> Outcome {
        let Image { job, found, needs } = image;
        let result = match found {
            Err(error) => Err(error),
            Ok(Found::Unchanged { digest }) => Ok(Copied {
                digest,
                state: State::Unchanged,
                sent_bytes: 0,
            }),
            Ok(Found::ToCopy(survey)) => {
                let needed: Vec<(u64, &Arrival)> = needs
                    .iter()
                    .map(|index| (placements[*index].size, &arrivals[*index]))
                    .collect();
                self.complete(&job, &survey, &needed, observer).await
            }
        };
        let outcome = Outcome { job, result };
        observer.ended(&outcome);
        outcome
    }

    async fn complete(
        &self,
        job: &Job,
        survey: &Survey,
        needed: &[(u64, &Arrival)],
        observer: &Arc<dyn Observer>,
    ) -> Result<Copied> {
        let mut sent_bytes = 0_u64;
        for (size, arrival) in needed {
            if (*arrival).clone().await? == Settled::Sent {
                sent_bytes = sent_bytes.saturating_add(*size);
            }
        }
        let digest = survey.root.clone();
        match write::write(survey, &job.destination, &self.budgets, self.options.parallel).await {
            Ok(()) => Ok(Copied {
                digest,
                state: State::Copied,
                sent_bytes,
            }),
            Err(error) if survey.is_partial && !self.options.platforms.is_empty() && wants_more(&error) => {
                let whole = Self {
                    options: Arc::new(Options {
                        platforms: Vec::new(),
                        verify: true,
                        ..(*self.options).clone()
                    }),
                    ..self.clone()
                };
                let silent = Arc::new(Within {
                    observer: Arc::clone(observer),
                });
                let outcome = Box::pin(whole.copy(vec![job.clone()], silent)).await.pop();
                let result = outcome.map_or(Err(Error::Abandoned { what: digest }), |outcome| outcome.result);
                result.map(|copied| Copied {
                    state: State::CopiedForAllPlatforms,
                    sent_bytes: sent_bytes.saturating_add(copied.sent_bytes),
                    ..copied
                })
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a registry may have refused an index because of what it names.
fn wants_more(error: &Error) -> bool {
    use coral_registry::Error as RegistryError;
    error.is_about_destination()
        && matches!(
            error.registry_error(),
            Some(RegistryError::Unexpected { status: 400 | 422, .. } | RegistryError::NotFound { .. })
        )
}

/// Tells of a copy within a copy, except that the image is through.
struct Within {
    observer: Arc<dyn Observer>,
}

impl Observer for Within {
    fn moved(&self, bytes: u64) {
        self.observer.moved(bytes);
    }

    fn moved_in_vain(&self, bytes: u64) {
        self.observer.moved_in_vain(bytes);
    }

    fn settled(&self, how: Settled, bytes: u64) {
        self.observer.settled(how, bytes);
    }
}

impl Image {
    fn survey(&self) -> Option<&Survey> {
        match &self.found {
            Ok(Found::ToCopy(survey)) => Some(survey),
            _ => None,
        }
    }
}

/// The blobs of an image; none if there is nothing to copy.
fn wanted(image: &Image) -> Wanted {
    let repository = |reference: &ImageReference| plan::Repository {
        registry: reference.registry().to_owned(),
        path: reference.repository().to_owned(),
    };
    Wanted {
        source: repository(&image.job.source),
        destination: repository(&image.job.destination),
        blobs: image.survey().map(|survey| survey.blobs.clone()).unwrap_or_default(),
    }
}

impl Prepared {
    /// How all blobs come to where they are wanted.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// Bytes that are going to be sent, if the registries mount what they can.
    #[must_use]
    pub fn bytes_to_send(&self) -> u64 {
        let sent = self.placements.iter().filter(|placement| placement.step == Step::Send);
        sent.fold(0, |sum, placement| sum.saturating_add(placement.size))
    }

    /// What is known of each image: the digest, and whether it is there; or why nothing is known.
    pub fn images(&self) -> impl Iterator<Item = (&Job, Result<(&str, bool), &Error>)> {
        self.images.iter().map(|image| {
            let known = match &image.found {
                Ok(Found::Unchanged { digest }) => Ok((digest.as_str(), true)),
                Ok(Found::ToCopy(survey)) => Ok((survey.root.as_str(), false)),
                Err(error) => Err(error),
            };
            (&image.job, known)
        })
    }
}
