//! Removes copies that nobody needs, and tells other clusters what this one needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coral_api::{ImageReference, Mirror, MirroredImage};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::access::Accesses;
use crate::{
    chain,
    destination::place,
    mark::{self, Mark},
    retention::{self, Marks, Plan, Removal, Situation},
};

/// What came of a collection.
pub(super) struct Collected {
    pub(super) plan: Plan,
    /// Each removal with why it failed, if it did.
    pub(super) ended: Vec<(Removal, Option<String>)>,
}

/// What a collection looks at.
pub(super) struct View {
    pub(super) mirrors: Vec<Arc<Mirror>>,
    pub(super) images: Vec<MirroredImage>,
    pub(super) in_use: BTreeSet<String>,
    pub(super) cluster: String,
    pub(super) now: Timestamp,
}

impl View {
    fn with<T>(&self, marks: &BTreeMap<String, Marks>, decide: impl FnOnce(&Situation<'_>) -> T) -> T {
        decide(&Situation {
            mirrors: &self.mirrors.iter().map(|mirror| &**mirror).collect::<Vec<_>>(),
            images: &self.images.iter().collect::<Vec<_>>(),
            in_use: &self.in_use,
            marks,
            cluster: &self.cluster,
            now: self.now,
        })
    }

    /// Whether anything might go.
    pub(super) fn has_candidates(&self) -> bool {
        self.with(&BTreeMap::new(), |situation| !retention::places(situation).is_empty())
    }

    /// The Mirror and the place in its list of a destination at this place.
    fn way(&self, wanted: &str) -> Option<(&Arc<Mirror>, usize)> {
        self.mirrors.iter().find_map(|mirror| {
            let mut destinations = mirror.spec.destinations.iter();
            let index = destinations.position(|destination| place(destination) == wanted)?;
            Some((mirror, index))
        })
    }
}

/// Reads the marks, plans, and carries out.
pub(super) async fn collect(accesses: Accesses, view: View) -> Collected {
    let places = view.with(&BTreeMap::new(), retention::places);
    let mut marks = BTreeMap::new();
    for place in places {
        let read = read_marks(&accesses, &view, &place).await;
        marks.insert(place, read.map_or_else(Marks::Unreadable, Marks::Read));
    }
    let plan = view.with(&marks, retention::plan);
    let mut repositories = BTreeMap::new();
    let mut refused = Vec::new();
    for removal in &plan.removals {
        match repository(&accesses, &view, removal).await {
            Ok(repository) => {
                repositories.insert(removal.reference.clone(), repository);
            }
            Err(why) => refused.push((removal.clone(), Some(why))),
        }
    }
    let removals = plan.removals.clone();
    let ended = retention::carry_out(removals, |removal| repositories.get(&removal.reference).cloned()).await;
    let told =
        |(removal, result): (Removal, coral_registry::Result<()>)| (removal, result.err().map(|error| chain(&error)));
    let ended = ended.into_iter().map(told).chain(refused).collect();
    Collected { plan, ended }
}

async fn read_marks(accesses: &Accesses, view: &View, place: &str) -> Result<Vec<Mark>, String> {
    let (mirror, index) = view.way(place).ok_or("no Mirror has this destination any more")?;
    let reference = mark::reference(&mirror.spec.destinations[index], &view.cluster).map_err(|error| chain(&error))?;
    let access = accesses.get(mirror, index).await.map_err(|verdict| verdict.message)?;
    let repository = access.copier.destination(&reference);
    mark::read_all(&repository).await.map_err(|error| chain(&error))
}

async fn repository(accesses: &Accesses, view: &View, removal: &Removal) -> Result<coral_registry::Repository, String> {
    let is_at = |mirror: &Arc<Mirror>, index: usize| {
        let destination = &mirror.spec.destinations[index];
        removal.mirrors.contains(&mirror.name_any())
            && crate::destination::holds(destination, &removal.reference)
            && destination.registry == removal.reference.registry()
    };
    for mirror in &view.mirrors {
        for index in 0..mirror.spec.destinations.len() {
            if is_at(mirror, index) {
                let access = accesses.get(mirror, index).await.map_err(|verdict| verdict.message)?;
                return Ok(access.copier.destination(&removal.reference));
            }
        }
    }
    Err("no Mirror has this destination any more".to_owned())
}

/// What this cluster needs at one place, to be told there.
#[derive(Clone)]
pub(super) struct Need {
    pub(super) mirror: Arc<Mirror>,
    pub(super) index: usize,
    pub(super) references: BTreeSet<String>,
}

/// What this cluster needs, by place.
pub(super) fn needs<'a>(
    mirrors: &[Arc<Mirror>],
    images: impl Iterator<Item = (&'a ImageReference, &'a [String])>,
) -> BTreeMap<String, Need> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    for mirror in mirrors.iter().filter(|mirror| !mirror.spec.suspend) {
        for (index, destination) in mirror.spec.destinations.iter().enumerate() {
            needs.entry(place(destination)).or_insert_with(|| Need {
                mirror: Arc::clone(mirror),
                index,
                references: BTreeSet::new(),
            });
        }
    }
    let by_name: BTreeMap<String, &Arc<Mirror>> = mirrors.iter().map(|mirror| (mirror.name_any(), mirror)).collect();
    for (image, requested_by) in images {
        let destinations = requested_by
            .iter()
            .filter_map(|name| by_name.get(name))
            .flat_map(|mirror| &mirror.spec.destinations);
        for destination in destinations {
            if let (Some(need), Ok(named)) = (
                needs.get_mut(&place(destination)),
                crate::destination::names(destination, image),
            ) {
                need.references.insert(mark::spelling(&named.reference));
            }
        }
    }
    needs
}

/// Tells other clusters.
pub(super) async fn tell(accesses: Accesses, need: Need, cluster: String) -> Result<(), String> {
    let Need {
        mirror,
        index,
        references,
    } = need;
    let reference = mark::reference(&mirror.spec.destinations[index], &cluster).map_err(|error| chain(&error))?;
    let access = accesses.get(&mirror, index).await.map_err(|verdict| verdict.message)?;
    let mark = Mark {
        cluster,
        written_at: Timestamp::now(),
        references,
    };
    let repository = access.copier.destination(&reference);
    mark::write(&repository, &mark).await.map_err(|error| chain(&error))
}
