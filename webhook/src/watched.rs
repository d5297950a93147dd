//! What is known of the objects of one kind, kept up to date by a watch. Admissions are answered without it, too, and with what was true a while ago.
//!
//! A watch of one's own, and not kube's `watcher`, because that one keeps to itself when the API server says that nothing has changed. Here this
//! is what counts: an old list may be as good as new, or what is said because of it may be wrong.

use std::{
    convert::Infallible,
    fmt,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    Api, Client, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    core::{DeserializeGuard, Status},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

/// For how long what is known is used without word from the API server that it is true still.
pub(crate) const TRUSTED: Duration = Duration::from_mins(5);
/// How long a watch may be silent. The API server says every minute how far it is.
const SILENCE: Duration = Duration::from_secs(150);
/// How long one watch lasts; then everything is listed again.
const WATCH_SECONDS: u32 = 290;
/// Objects in one page of a list: some have thousands of lines of status, and are in memory all at once.
const PAGE: u32 = 50;

/// An object, or one that this version cannot read.
pub(crate) type Guarded<O> = DeserializeGuard<O>;

/// What is learnt from the objects of one kind. Their statuses change all the time, what matters of them hardly ever.
pub(crate) trait Lesson: Default + Send {
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static;
    type Knowledge: Send + Sync + 'static;
    /// What the objects are called.
    const OBJECTS: &'static str;

    /// Takes an object in. Returns whether anything is different now.
    fn learn(&mut self, object: &Guarded<Self::Object>) -> bool;

    /// The same when there is none of this name any more.
    fn forget(&mut self, object: &Guarded<Self::Object>) -> bool;

    /// All that has been learnt.
    fn knowledge(&self) -> Self::Knowledge;
}

/// The newest knowledge, if any. Clones share it.
#[derive(Debug)]
pub(crate) struct Known<K>(Arc<RwLock<Option<Confirmed<K>>>>);

#[derive(Debug)]
struct Confirmed<K> {
    knowledge: Arc<K>,
    /// When the API server last said that it is so.
    at: Instant,
}

impl<K> Clone for Known<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Known<K> {
    /// What is known at this time; nothing where it may not be true any more.
    pub(crate) fn get(&self, now: Instant) -> Option<Arc<K>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Confirmed { knowledge, at } = known.as_ref()?;
        (now.saturating_duration_since(*at) <= TRUSTED).then(|| Arc::clone(knowledge))
    }

    pub(crate) fn set(&self, knowledge: K) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Confirmed {
            knowledge: Arc::new(knowledge),
            at: Instant::now(),
        });
    }

    /// What is known is true still.
    fn confirm(&self) {
        if let Some(known) = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner) {
            known.at = Instant::now();
        }
    }
}

/// Why a watch is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("failed to list them")]
    List(#[source] kube::Error),
    #[error("failed to begin the watch")]
    Begin(#[source] kube::Error),
    #[error("failed to go on with the watch")]
    Watch(#[source] kube::Error),
    #[error("the API server ends the watch: {}", .0.message)]
    Told(Box<Status>),
    #[error("the API server has said nothing for {} s", SILENCE.as_secs())]
    Silent,
}

/// Takes an event in. Returns whether anything is different now.
pub(crate) fn take<L: Lesson>(lesson: &mut L, event: WatchEvent<Guarded<L::Object>>) -> Result<bool, Broken> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => Ok(lesson.learn(&object)),
        WatchEvent::Deleted(object) => Ok(lesson.forget(&object)),
        WatchEvent::Bookmark(_) => Ok(false),
        WatchEvent::Error(status) => Err(Broken::Told(status)),
    }
}

/// Keeps `known` up to date, for ever. `is_known` is told whenever it is.
pub(crate) async fn follow<L: Lesson>(client: Client, known: Known<L::Knowledge>, is_known: impl Fn()) -> Infallible {
    let api: Api<Guarded<L::Object>> = Api::all(client);
    // When it begins to be watched, too: from then on, it is missed.
    is_known();
    let mut pauses = coral_runtime::watch_backoff();
    loop {
        let began = Instant::now();
        if let Err(broken) = once::<L>(&api, &known, &is_known).await {
            let cause = std::error::Error::source(&broken).map(ToString::to_string);
            tracing::warn!(error = %broken, cause, objects = L::OBJECTS, "A watch broke; it is begun again");
        }
        if began.elapsed() >= SILENCE {
            pauses = coral_runtime::watch_backoff();
        }
        // Also behind one that ended in good order: it may have done so at once.
        tokio::time::sleep(pauses.next().unwrap_or(SILENCE)).await;
    }
}

/// Lists all objects, and watches them until the API server ends the watch in good order.
async fn once<L: Lesson>(
    api: &Api<Guarded<L::Object>>,
    known: &Known<L::Knowledge>,
    is_known: &impl Fn(),
) -> Result<(), Broken> {
    let mut lesson = L::default();
    let mut page = ListParams::default().limit(PAGE);
    let version = loop {
        let list = timeout(SILENCE, api.list(&page)).await.map_err(|_| Broken::Silent)?;
        let list = list.map_err(Broken::List)?;
        for object in &list.items {
            lesson.learn(object);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => break list.metadata.resource_version.unwrap_or_default(),
        }
    };
    known.set(lesson.knowledge());
    is_known();
    let parameters = WatchParams::default().timeout(WATCH_SECONDS);
    let begun = timeout(SILENCE, api.watch(&parameters, &version)).await;
    let events = begun.map_err(|_| Broken::Silent)?.map_err(Broken::Begin)?;
    let mut events = pin!(events);
    while let Some(event) = timeout(SILENCE, events.next()).await.map_err(|_| Broken::Silent)? {
        if take(&mut lesson, event.map_err(Broken::Watch)?)? {
            known.set(lesson.knowledge());
        } else {
            known.confirm();
        }
        is_known();
    }
    Ok(())
}
