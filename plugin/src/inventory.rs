//! What the nodes hold, as their agents report it: which images, how large, and for whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use coral_api::{
    ImageReference, NodeImages,
    node_images::{DesiredImage, DesiredState, ImageState, ImageStatus},
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::{
    human,
    matrix::short_digest,
    table::{Table, Text},
};

/// Nodes that a terminal shows; the largest ones come first.
const MOST_NODES: usize = 40;
/// Prefetches that are named before the rest is counted.
const PREFETCHES_NAMED: usize = 2;
/// What stands where nothing is known.
const UNKNOWN: &str = "-";

/// One image that is on one node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    /// The name that people know.
    pub(crate) image: String,
    pub(crate) size: Option<u64>,
    pub(crate) digest: Option<String>,
    pub(crate) pinned: bool,
    /// `namespace/name` of the Prefetches that want it there.
    pub(crate) wanted_by: Vec<String>,
    /// Nobody wants it any more, and it is to go.
    pub(crate) is_leaving: bool,
    pub(crate) last_pull: Option<Timestamp>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Holding {
    pub(crate) images: Vec<Held>,
    /// Images that are wanted there and not there.
    pub(crate) missing: usize,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) capacity_bytes: Option<u64>,
}

/// One image over all nodes.
#[derive(Clone, Debug, Default)]
struct Spread {
    nodes: usize,
    pinned: usize,
    size: Option<u64>,
    digests: BTreeSet<String>,
    wanted_by: BTreeSet<String>,
}

/// The nodes by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    nodes: BTreeMap<String, Holding>,
}

impl Holding {
    /// What a node reports.
    pub(crate) fn of(node: &NodeImages) -> Self {
        let desired: HashMap<&str, &DesiredImage> = node
            .spec
            .images
            .iter()
            .map(|desired| (desired.image.as_str(), desired))
            .collect();
        let status = node.status.clone().unwrap_or_default();
        let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        let mut images: Vec<Held> = status
            .images
            .iter()
            .filter(|image| image.state == ImageState::Present)
            .map(|image| held(image, desired.get(image.image.as_str()).copied()))
            .collect();
        images.sort_by(|one, other| one.image.cmp(&other.image));
        let wanted = desired.values().filter(|image| image.state != DesiredState::Absent);
        let there: BTreeSet<&str> = status
            .images
            .iter()
            .filter(|image| image.state == ImageState::Present)
            .map(|image| image.image.as_str())
            .collect();
        Self {
            missing: wanted.filter(|image| !there.contains(image.image.as_str())).count(),
            images,
            free_bytes: bytes(status.image_filesystem.and_then(|filesystem| filesystem.free_bytes)),
            capacity_bytes: bytes(status.image_filesystem.and_then(|filesystem| filesystem.capacity_bytes)),
        }
    }

    /// The sum of the sizes. Layers that images share count for each of them.
    fn bytes(&self) -> u64 {
        self.images.iter().filter_map(|image| image.size).sum()
    }
}

fn held(image: &ImageStatus, desired: Option<&DesiredImage>) -> Held {
    let is_leaving = desired.is_none_or(|desired| desired.state == DesiredState::Absent);
    Held {
        image: familiar(&image.image),
        size: image.size_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        digest: image.digest.clone(),
        pinned: image.pinned,
        wanted_by: desired
            .filter(|_| !is_leaving)
            .map(|desired| desired.requested_by.clone())
            .unwrap_or_default(),
        is_leaving,
        last_pull: image.last_pull_time.as_ref().map(|time| time.0),
    }
}

fn familiar(image: &str) -> String {
    image
        .parse()
        .map_or_else(|_| image.to_owned(), |reference: ImageReference| reference.familiar())
}

impl Inventory {
    /// Takes up what a node reports.
    pub(crate) fn insert(&mut self, node: &NodeImages) {
        self.nodes.insert(node.name_any(), Holding::of(node));
    }

    /// Whether no node holds or wants anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A row for each node, with its images counted; on a terminal the fullest nodes only, and the rest summed up.
    pub(crate) fn totals(&self, is_limited: bool) -> Table {
        let mut table = Table::new(["NODE", "IMAGES", "MISSING", "SIZE", "FREE", "CAPACITY"]);
        let mut nodes: Vec<(&String, &Holding)> = self.nodes.iter().collect();
        let mut rest = Vec::new();
        if is_limited && nodes.len() > MOST_NODES {
            nodes.sort_by_key(|(name, holding)| (std::cmp::Reverse(holding.bytes()), name.as_str()));
            rest = nodes.split_off(MOST_NODES);
        }
        for (name, holding) in nodes {
            table.rows.push(vec![
                name.as_str().into(),
                human::count(holding.images.len()).into(),
                human::count(holding.missing).into(),
                human::bytes(holding.bytes()).into(),
                bytes(holding.free_bytes),
                bytes(holding.capacity_bytes),
            ]);
        }
        if !rest.is_empty() {
            let images = rest.iter().map(|(_, holding)| holding.images.len()).sum();
            let missing = rest.iter().map(|(_, holding)| holding.missing).sum();
            let size = rest.iter().map(|(_, holding)| holding.bytes()).sum();
            table.rows.push(vec![
                format!("({} more nodes)", human::count(rest.len())).into(),
                human::count(images).into(),
                human::count(missing).into(),
                human::bytes(size).into(),
                Text::default(),
                Text::default(),
            ]);
        }
        table
    }

    /// A row for each image, with the nodes that hold it counted.
    pub(crate) fn by_image(&self, wide: bool) -> Table {
        let mut spreads: BTreeMap<&str, Spread> = BTreeMap::new();
        for image in self.nodes.values().flat_map(|holding| &holding.images) {
            let spread = spreads.entry(&image.image).or_default();
            spread.nodes += 1;
            spread.pinned += usize::from(image.pinned);
            spread.size = spread.size.max(image.size);
            spread.digests.extend(image.digest.clone());
            spread.wanted_by.extend(image.wanted_by.iter().cloned());
        }
        let mut table = Table::new(["IMAGE", "NODES", "SIZE", "DIGEST", "PINNED", "WANTED BY"]);
        for (image, spread) in spreads {
            let digests: Vec<String> = spread.digests.iter().map(|digest| shown(digest, wide)).collect();
            let wanted_by: Vec<&String> = spread.wanted_by.iter().collect();
            table.rows.push(vec![
                image.into(),
                human::count(spread.nodes).into(),
                bytes(spread.size),
                or_unknown(human::some_of(&digests, 2)),
                human::count(spread.pinned).into(),
                or_unknown(some_prefetches(&wanted_by, wide)),
            ]);
        }
        table
    }

    /// A row for each image on each node, and one with the sum of each node.
    pub(crate) fn by_node(&self, wide: bool, now: Timestamp) -> Table {
        let mut table = Table::new(["NODE", "IMAGE", "SIZE", "DIGEST", "PINNED", "WANTED BY"]);
        if wide {
            table.header.push("LAST PULL".to_owned());
        }
        for (node, holding) in &self.nodes {
            for image in &holding.images {
                let wanted_by: Vec<&String> = image.wanted_by.iter().collect();
                let wanted_by = some_prefetches(&wanted_by, wide);
                let mut row = vec![
                    node.as_str().into(),
                    image.image.as_str().into(),
                    bytes(image.size),
                    or_unknown(
                        image
                            .digest
                            .as_deref()
                            .map(|digest| shown(digest, wide))
                            .unwrap_or_default(),
                    ),
                    if image.pinned { "yes" } else { "no" }.into(),
                    if image.is_leaving {
                        "nobody; it is to go".into()
                    } else {
                        or_unknown(wanted_by)
                    },
                ];
                if wide {
                    row.push(or_unknown(
                        image
                            .last_pull
                            .map(|time| format!("{} ago", human::age(time, now)))
                            .unwrap_or_default(),
                    ));
                }
                table.rows.push(row);
            }
            let mut sum: Vec<Text> = vec![
                node.as_str().into(),
                format!("({})", human::counted(holding.images.len(), "image")).into(),
                human::bytes(holding.bytes()).into(),
            ];
            sum.resize(table.header.len(), Text::default());
            table.rows.push(sum);
        }
        table
    }
}

fn shown(digest: &str, wide: bool) -> String {
    if wide { digest.to_owned() } else { short_digest(digest) }
}

fn some_prefetches(names: &[&String], wide: bool) -> String {
    human::some_of(names, if wide { usize::MAX } else { PREFETCHES_NAMED })
}

fn bytes(bytes: Option<u64>) -> Text {
    bytes.map_or_else(|| UNKNOWN.to_owned(), human::bytes).into()
}

fn or_unknown(text: String) -> Text {
    if text.is_empty() { UNKNOWN.into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::node_images;

    fn node(name: &str) -> NodeImages {
        let (nginx, redis) = ("docker.io/library/nginx:1.29", "docker.io/library/redis:8");
        node_images(json!({
            "metadata": {"name": name},
            "spec": {"images": [
                {"image": nginx, "requestedBy": ["ops/all", "shop/api", "shop/web"]},
                {"image": redis, "requestedBy": ["shop/web"], "state": "Absent"},
                {"image": "docker.io/library/busy:1", "requestedBy": ["shop/web"]},
            ]},
            "status": {
                "imageFilesystem": {"usedBytes": 0, "freeBytes": 9_000_000_000_i64, "capacityBytes": 50_000_000_000_i64},
                "images": [
                    {"image": nginx, "state": "Present", "digest": format!("sha256:{}", "1a".repeat(32)), "sizeBytes": 67_400_000,
                        "pinned": true, "lastPullTime": "2026-01-01T00:00:00Z"},
                    {"image": redis, "state": "Present", "sizeBytes": 40_000_000},
                    {"image": "docker.io/library/busy:1", "state": "Pulling"},
                ],
            },
        }))
    }

    fn inventory(names: &[&str]) -> Inventory {
        let mut inventory = Inventory::default();
        for name in names {
            inventory.insert(&node(name));
        }
        inventory
    }

    #[test]
    fn nodes_have_sums_and_images_their_nodes() {
        let inventory = inventory(&["node-1", "node-2"]);
        insta::assert_snapshot!(inventory.totals(true).render(true, false), @r"
        NODE     IMAGES   MISSING   SIZE     FREE      CAPACITY
        node-1   2        1         107 MB   9.00 GB   50.0 GB
        node-2   2        1         107 MB   9.00 GB   50.0 GB
        ");
        insta::assert_snapshot!(inventory.by_image(false).render(true, false), @r"
        IMAGE        NODES   SIZE      DIGEST         PINNED   WANTED BY
        nginx:1.29   2       67.4 MB   1a1a1a1a1a1a   2        ops/all, shop/api and 1 more
        redis:8      2       40.0 MB   -              0        -
        ");
    }

    #[test]
    fn a_node_has_a_row_for_each_image() {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        insta::assert_snapshot!(inventory(&["node-1"]).by_node(false, now).render(true, false), @r"
        NODE     IMAGE        SIZE      DIGEST         PINNED   WANTED BY
        node-1   nginx:1.29   67.4 MB   1a1a1a1a1a1a   yes      ops/all, shop/api and 1 more
        node-1   redis:8      40.0 MB   -              no       nobody; it is to go
        node-1   (2 images)   107 MB
        ");
        let wide = inventory(&["node-1"]).by_node(true, now).render(true, false);
        assert!(wide.contains(&"1a".repeat(32)) && wide.contains("10m ago"), "{wide}");
        assert!(wide.contains("ops/all, shop/api, shop/web"), "{wide}");
    }

    #[test]
    fn of_many_nodes_the_rest_is_summed_up() {
        let names: Vec<String> = (0..5_000).map(|index| format!("node-{index:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let inventory = inventory(&names);
        let table = inventory.totals(true);
        assert_eq!(table.rows.len(), MOST_NODES + 1);
        assert_eq!(table.rows[MOST_NODES][0].text, "(4,960 more nodes)");
        assert_eq!(table.rows[MOST_NODES][1].text, "9,920");
        assert_eq!(inventory.totals(false).rows.len(), 5_000);
    }
}
