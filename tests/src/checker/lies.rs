//! Labels that claim an image that is gone, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{claims::label_key, truth::Truth};

/// A label that claimed an image that was gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lie {
    /// The node.
    pub node: String,
    /// The image.
    pub image: String,
    /// What was being done to the cluster when it began.
    pub during: String,
    /// For how long at least: from a moment at which the runtime no longer held the image to the last one at which the label was there.
    pub lasted: Duration,
}

/// What is known of labels and images over time.
#[derive(Debug, Default)]
pub(super) struct Lies {
    during: String,
    /// The images that have ever been named, by the keys of their labels.
    images: BTreeMap<String, String>,
    /// Since when an image is known to be gone from a node, and what was being done then.
    gone: BTreeMap<(String, String), (Instant, String)>,
    told: Vec<Lie>,
    looks: usize,
    longest_look: Duration,
}

impl Lies {
    pub(super) fn during(&mut self, what: &str) {
        what.clone_into(&mut self.during);
    }

    /// Takes in images that are named.
    pub(super) fn knows(&mut self, images: BTreeSet<String>) {
        for image in images {
            self.images.entry(label_key(&image)).or_insert(image);
        }
    }

    /// Takes in what the runtimes held when they had answered. Of one that does not answer nothing new is known: its images neither
    /// come nor go.
    pub(super) fn holds(&mut self, truth: &Truth, answered: Instant) {
        self.gone.retain(|(node, _), _| truth.0.contains_key(node));
        for (node, held) in &truth.0 {
            let Some(held) = held else {
                continue;
            };
            for image in self.images.values() {
                let key = (node.clone(), image.clone());
                if held.contains_key(image) {
                    self.gone.remove(&key);
                } else {
                    let during = || (answered, self.during.clone());
                    self.gone.entry(key).or_insert_with(during);
                }
            }
        }
    }

    /// Takes in the labels that were there when the API server was asked at `asked`, or later, and what the runtimes held after that:
    /// an image that came meanwhile is no lie.
    pub(super) fn claimed(&mut self, labels: &BTreeMap<&str, Vec<&str>>, asked: Instant, after: &Truth) {
        self.looks += 1;
        for (node, keys) in labels {
            for image in keys.iter().filter_map(|key| self.images.get(*key)) {
                let is_gone = after
                    .0
                    .get(*node)
                    .and_then(Option::as_ref)
                    .is_some_and(|held| !held.contains_key(image));
                if !is_gone {
                    continue;
                }
                let Some((since, during)) = self.gone.get(&((*node).to_owned(), image.clone())) else {
                    continue;
                };
                let lie = Lie {
                    node: (*node).to_owned(),
                    image: image.clone(),
                    during: during.clone(),
                    lasted: asked.saturating_duration_since(*since),
                };
                let is_same = |other: &&mut Lie| {
                    (&other.node, &other.image, &other.during) == (&lie.node, &lie.image, &lie.during)
                };
                match self.told.iter_mut().find(is_same) {
                    Some(known) => known.lasted = known.lasted.max(lie.lasted),
                    None => self.told.push(lie),
                }
            }
        }
    }

    /// All of them, the longest first.
    pub(super) fn all(&self) -> Vec<Lie> {
        let mut all = self.told.clone();
        all.sort_by_key(|lie| std::cmp::Reverse(lie.lasted));
        all
    }

    /// Takes in how long a look took.
    pub(super) fn looked(&mut self, took: Duration) {
        self.longest_look = self.longest_look.max(took);
    }

    pub(super) const fn longest_look(&self) -> Duration {
        self.longest_look
    }

    pub(super) const fn looks(&self) -> usize {
        self.looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "r:5000/a:1";

    fn truth(held: Option<&[&str]>) -> Truth {
        let images = held.map(|held| held.iter().map(|image| ((*image).to_owned(), Vec::new())).collect());
        Truth(BTreeMap::from([("node-1".to_owned(), images)]))
    }

    /// What the runtime held, if it answered.
    type Held = Option<&'static [&'static str]>;

    /// A look: seconds, what the runtime held before and after, whether the label was there in between.
    type Seen = (u64, Held, Held, bool);

    /// The longest lie after these looks.
    fn longest(looks: &[Seen]) -> Option<u64> {
        let began = Instant::now();
        let key = label_key(IMAGE);
        let mut lies = Lies::default();
        lies.knows(BTreeSet::from([IMAGE.to_owned()]));
        for (seconds, held, after, has_label) in looks {
            let at = began + Duration::from_secs(*seconds);
            lies.holds(&truth(*held), at);
            let labels = if *has_label { vec![key.as_str()] } else { Vec::new() };
            lies.claimed(&BTreeMap::from([("node-1", labels)]), at, &truth(*after));
        }
        lies.all().first().map(|lie| lie.lasted.as_secs())
    }

    #[test]
    fn a_lie_lasts_from_the_loss_of_the_image_to_the_last_sight_of_its_label() {
        const THERE: Held = Some(&[IMAGE]);
        const GONE: Held = Some(&[]);
        const SILENT: Held = None;
        let cases: &[(&[Seen], Option<u64>)] = &[
            (&[(0, THERE, THERE, true), (9, THERE, THERE, true)], None),
            (
                &[
                    (0, THERE, THERE, true),
                    (1, GONE, GONE, true),
                    (8, GONE, GONE, true),
                    (9, GONE, GONE, false),
                ],
                Some(7),
            ),
            // It came back before the label went.
            (
                &[(1, GONE, GONE, true), (4, GONE, GONE, true), (60, THERE, THERE, true)],
                Some(3),
            ),
            // It came for the first time, and its label with it, in the middle of a look.
            (&[(1, GONE, GONE, false), (30, GONE, THERE, true)], None),
            // Nothing is known of a runtime that does not answer; what was gone stays gone.
            (&[(0, THERE, THERE, true), (50, SILENT, SILENT, true)], None),
            (
                &[
                    (1, GONE, GONE, true),
                    (2, SILENT, SILENT, true),
                    (12, SILENT, GONE, true),
                ],
                Some(11),
            ),
            (&[(1, GONE, GONE, false), (50, GONE, GONE, false)], None),
        ];
        for (number, (looks, expected)) in cases.iter().enumerate() {
            assert_eq!(longest(looks), *expected, "case {number}");
        }
    }
}
