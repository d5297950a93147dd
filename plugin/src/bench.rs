//! What only measurements need.

use coral_api::{NodeImages, Prefetch};
use jiff::Timestamp;

use crate::{
    layout::{Wanted, table},
    matrix::Matrix,
};

/// What `kubectl coral status` makes of what it has read: the table of nodes and images, for a terminal of this width, or for a file.
#[must_use]
pub fn status(prefetches: &[Prefetch], nodes: &[NodeImages], width: Option<usize>, now: Timestamp) -> String {
    let mut matrix = Matrix::new(prefetches);
    for node in nodes {
        matrix.insert(node, now);
    }
    table(&matrix, Wanted { width, wide: false }).render(true, false)
}
