//! Who is told how a copy goes.

use crate::copier::Outcome;

/// How a blob came to where it is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It was there.
    Present,
    /// The registry had it in another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// Is told how a copy goes, from many tasks at once. What it does must be short.
pub trait Observer: Send + Sync + 'static {
    /// So many bytes of a blob were taken from the source, and are on their way.
    fn moved(&self, bytes: u64) {
        let _ = bytes;
    }

    /// An upload begins anew: so many bytes that were counted will be counted again.
    fn moved_in_vain(&self, bytes: u64) {
        let _ = bytes;
    }

    /// A blob is in a repository.
    fn settled(&self, how: Settled, bytes: u64) {
        let _ = (how, bytes);
    }

    /// An image is copied, or is not going to be.
    fn ended(&self, outcome: &Outcome) {
        let _ = outcome;
    }
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
