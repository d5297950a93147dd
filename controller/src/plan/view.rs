//! A node, with what its object asks of it and what its agent has said.

use coral_api::{
    NodeImages,
    node_images::{DesiredImage, DesiredState, ImageFailure, ImageState, ImageStatus, PauseReason},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::{
    Wish,
    assignment::Askers,
    wish::{Catalogue, ImageNumber},
};

/// A node, with what its object asks of it and what its agent has said.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are facts about a node, each with its own source"
)]
pub(super) struct NodeView<'a> {
    pub(super) name: &'a str,
    pub(super) node: &'a Node,
    /// The object of this node.
    pub(super) object: Option<&'a NodeImages>,
    /// An object of this name that another node has left behind. What it says is not about this node.
    pub(super) stale_object: Option<&'a NodeImages>,
    pub(super) is_linux: bool,
    pub(super) is_ready: bool,
    /// Whether it may be asked for images that it was not asked for before.
    pub(super) is_eligible: bool,
    pub(super) paused: Option<PauseReason>,
    /// Whether the agent has answered to what the object asks now.
    pub(super) is_acknowledged: bool,
    /// Whether the object asks for what it should, but perhaps for when.
    pub(super) asks_the_same: bool,
    /// What is asked for, by images that no Prefetch names.
    pub(super) unnamed: Vec<&'a DesiredImage>,
    /// The images that some Prefetch names and that the node is, or was, or is to be asked for; by number.
    cells: Vec<Cell<'a>>,
}

/// One image on one node. What every plan looks at more than once is copied from the object, which lies elsewhere in memory.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are facts about an image, each with its own source"
)]
pub(super) struct Cell<'a> {
    pub(super) image: ImageNumber,
    /// What the object asks now.
    pub(super) asked: Option<&'a DesiredImage>,
    asked_state: Option<DesiredState>,
    /// Whether it asks for a refresh.
    asks_refresh: bool,
    /// What the agent has said.
    pub(super) reported: Option<&'a ImageStatus>,
    standing: Standing,
    has_failure: bool,
    /// Whether a pull is under way.
    is_under_way: bool,
    /// The Prefetches that want it here.
    pub(super) askers: Askers,
    /// Whether one of them is not at rest, so that what is there is kept there.
    pub(super) is_kept: bool,
    /// Whether the node has a turn for it.
    pub(super) is_released: bool,
    /// The time of the refresh that the node has a turn for.
    pub(super) refresh: Option<Timestamp>,
}

/// Where an image stands on a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    There,
    Pulling,
    /// Its attempts are used up.
    Failed,
    /// It is not there, and may be tried.
    Missing,
}

impl<'a> NodeView<'a> {
    pub(super) fn new(node: &'a Node, object: Option<&'a NodeImages>, catalogue: &Catalogue) -> Self {
        let is_own = |object: &&NodeImages| {
            let mut owners = object.owner_references().iter().filter(|owner| owner.kind == "Node");
            // An object without an owner is taken over.
            owners
                .next()
                .is_none_or(|owner| Some(&owner.uid) == node.metadata.uid.as_ref())
        };
        let own = object.filter(is_own);
        let mut view = Self {
            name: node.metadata.name.as_deref().unwrap_or_default(),
            node,
            object: own,
            stale_object: object.filter(|_| own.is_none()),
            is_linux: crate::node::is_linux(node),
            is_ready: crate::node::is_ready(node),
            is_eligible: crate::node::is_eligible(node),
            paused: crate::node::pause_reason(node),
            is_acknowledged: own.is_some_and(|object| {
                let status = object.status.as_ref();
                status.is_some_and(|status| status.observed_generation == object.metadata.generation)
            }),
            asks_the_same: false,
            unnamed: Vec::new(),
            cells: Vec::with_capacity(own.map_or(0, |object| object.spec.images.len())),
        };
        let Some(object) = own else {
            return view;
        };
        for entry in &object.spec.images {
            match catalogue.number(&entry.image) {
                Some(image) => view.cell_mut(image).ask(entry),
                None => view.unnamed.push(entry),
            }
        }
        for status in object.status.iter().flat_map(|status| &status.images) {
            if let Some(image) = catalogue.number(&status.image) {
                view.cell_mut(image).report(status);
            }
        }
        view
    }

    /// Whether its agent would begin a pull now.
    pub(super) const fn can_pull(&self) -> bool {
        self.is_eligible && self.paused.is_none()
    }

    pub(super) fn cells(&self) -> &[Cell<'a>] {
        &self.cells
    }

    pub(super) fn cell(&self, image: ImageNumber) -> Option<&Cell<'a>> {
        let place = self.cells.binary_search_by_key(&image, |cell| cell.image).ok()?;
        Some(&self.cells[place])
    }

    /// The cell of each image of a Prefetch, in the order of its images, where there is one.
    pub(super) fn cells_of<'n>(&'n self, wish: &'n Wish<'_>) -> impl Iterator<Item = Option<&'n Cell<'a>>> {
        // Both are in the order of the numbers, so the next one is most likely the one that comes after.
        let mut next = 0;
        wish.images.iter().map(move |image| {
            let rest = &self.cells[next..];
            let place = match rest.first() {
                Some(cell) if cell.image == image.number => Ok(0),
                _ => rest.binary_search_by_key(&image.number, |cell| cell.image),
            };
            next += place.map_or_else(|place| place, |place| place + 1);
            place.ok().map(|place| &rest[place])
        })
    }

    /// As [`cell`](Self::cell), for a walk over the images of a Prefetch: `from` is where the next is most likely.
    pub(super) fn cell_from(&mut self, image: ImageNumber, from: &mut usize, may_add: bool) -> Option<&mut Cell<'a>> {
        if self.cells.get(*from).is_none_or(|cell| cell.image != image) {
            let place = self.cells.binary_search_by_key(&image, |cell| cell.image);
            *from = place.unwrap_or_else(|place| place);
            if place.is_err() {
                may_add.then(|| self.cells.insert(*from, Cell::new(image)))?;
            }
        }
        *from += 1;
        self.cells.get_mut(*from - 1)
    }

    fn cell_mut(&mut self, image: ImageNumber) -> &mut Cell<'a> {
        let place = self.cells.binary_search_by_key(&image, |cell| cell.image);
        let place = place.unwrap_or_else(|place| {
            self.cells.insert(place, Cell::new(image));
            place
        });
        &mut self.cells[place]
    }

    /// Whether the image is there, as the agent has it.
    pub(super) fn holds(&self, image: ImageNumber) -> bool {
        self.cell(image).is_some_and(|cell| cell.standing() == Standing::There)
    }

    /// What the agent has said of an image, whether a Prefetch names it or not.
    pub(super) fn reported(&self, name: &str) -> Option<&'a ImageStatus> {
        let status = self.object?.status.as_ref()?;
        status.images.iter().find(|image| image.image == name)
    }
}

impl<'a> Cell<'a> {
    const fn new(image: ImageNumber) -> Self {
        Self {
            image,
            asked: None,
            asked_state: None,
            asks_refresh: false,
            reported: None,
            standing: Standing::Missing,
            has_failure: false,
            is_under_way: false,
            askers: Askers::NOBODY,
            is_kept: false,
            is_released: false,
            refresh: None,
        }
    }

    const fn ask(&mut self, entry: &'a DesiredImage) {
        self.asked = Some(entry);
        self.asked_state = Some(entry.state);
        self.asks_refresh = entry.refresh_after.is_some();
    }

    fn report(&mut self, status: &'a ImageStatus) {
        self.reported = Some(status);
        self.standing = match status.state {
            ImageState::Present => Standing::There,
            ImageState::Pulling => Standing::Pulling,
            ImageState::Failed => Standing::Failed,
            ImageState::Waiting | ImageState::Absent => Standing::Missing,
        };
        self.has_failure = status.failure.is_some();
        self.is_under_way = status.pull.as_ref().is_some_and(|pull| pull.seconds.is_none());
    }

    pub(super) const fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn is_asked(&self, state: DesiredState) -> bool {
        self.asked_state == Some(state)
    }

    /// The time of the refresh that the object asks for.
    pub(super) fn asked_refresh(&self) -> Option<Timestamp> {
        let asked = self.asked.filter(|_| self.asks_refresh)?;
        asked.refresh_after.as_ref().map(|time| time.0)
    }

    /// What the agent has said of a failure.
    pub(super) fn reported_failure(&self) -> Option<&'a ImageFailure> {
        self.reported.filter(|_| self.has_failure)?.failure.as_ref()
    }

    /// Attempts that have failed, and when the next is due.
    pub(super) fn failure(&self) -> (i32, Option<Timestamp>) {
        let failure = self.reported_failure();
        failure.map_or((0, None), |failure| {
            let next = failure.next_attempt_time.as_ref().map(|time| time.0);
            (failure.attempts, next)
        })
    }

    /// Whether its attempts are used up, though one more may be under way.
    pub(super) fn has_failed(&self) -> bool {
        match self.standing() {
            Standing::Failed => true,
            Standing::Pulling => self.asked.is_some_and(|entry| self.failure().0 >= entry.backoff_limit),
            Standing::There | Standing::Missing => false,
        }
    }

    /// Whether it is there, and the attempts at a newer one are used up.
    pub(super) fn has_failed_refresh(&self) -> bool {
        let (attempts, _) = self.failure();
        self.standing() == Standing::There
            && attempts > 0
            && self.asked.is_some_and(|entry| attempts >= entry.backoff_limit)
    }

    /// Whether it is there and is being pulled again.
    pub(super) fn is_being_refreshed(&self) -> bool {
        self.standing() == Standing::There && self.pull_under_way().is_some()
    }

    /// Whether the runtime is at work on it.
    pub(super) fn is_being_pulled(&self) -> bool {
        self.standing() == Standing::Pulling || self.is_being_refreshed()
    }

    /// Whether it is there, but not from a pull that began at this time or later.
    pub(super) fn is_older_than(&self, time: Timestamp) -> bool {
        self.standing() == Standing::There && self.pull_began().is_none_or(|began| began < time)
    }

    /// When the last successful pull began. Of one that an earlier run of the agent made only the end is known.
    fn pull_began(&self) -> Option<Timestamp> {
        let status = self.reported?;
        let pull = status.pull.as_ref().filter(|pull| pull.seconds.is_some());
        let began = pull.and_then(|pull| pull.start_time.as_ref());
        began.or(status.last_pull_time.as_ref()).map(|time| time.0)
    }

    /// When the pull began that is under way.
    pub(super) fn pull_under_way(&self) -> Option<Timestamp> {
        let pull = self.reported.filter(|_| self.is_under_way)?.pull.as_ref()?;
        pull.start_time.as_ref().map(|time| time.0)
    }

    /// Bytes that have arrived of a pull that is under way.
    pub(super) fn bytes(&self) -> i64 {
        let pull = self.reported.and_then(|status| status.pull.as_ref());
        pull.and_then(|pull| pull.done_bytes).unwrap_or_default()
    }
}
