//! How many requests each registry gets at the same time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests under way, by registry.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    each: usize,
    registries: Arc<Mutex<BTreeMap<String, Arc<Semaphore>>>>,
}

/// The right to ask one registry, or two.
pub(crate) type Turn = Vec<OwnedSemaphorePermit>;

impl Budgets {
    /// Each registry gets at most `each` requests at a time.
    pub(crate) fn new(each: usize) -> Self {
        Self {
            each: each.max(1),
            registries: Arc::default(),
        }
    }

    /// Waits for the turn at all of these registries.
    ///
    /// They are waited for in the order of their names, so that two that want the same two never wait for one another.
    pub(crate) async fn turn(&self, registries: &[&str]) -> Turn {
        let mut names = registries.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut turn = Turn::with_capacity(names.len());
        for name in names {
            // Nobody closes them.
            if let Ok(permit) = self.of(name).acquire_owned().await {
                turn.push(permit);
            }
        }
        turn
    }

    fn of(&self, registry: &str) -> Arc<Semaphore> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = registries
            .entry(registry.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Arc::clone(budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_registry_has_its_own_budget() {
        let budgets = Budgets::new(1);
        let both = budgets.turn(&["b", "a"]).await;
        let other = budgets.turn(&["c"]).await;
        assert_eq!((both.len(), other.len()), (2, 1));
        let next = budgets.turn(&["a"]);
        tokio::pin!(next);
        assert!(futures::poll!(&mut next).is_pending());
        drop(both);
        assert_eq!(next.await.len(), 1);
    }

    #[tokio::test]
    async fn a_copy_within_one_registry_takes_one_turn() {
        assert_eq!(Budgets::new(1).turn(&["a", "a"]).await.len(), 1);
    }

    #[tokio::test]
    async fn copies_in_both_directions_do_not_wait_for_one_another() {
        let budgets = Budgets::new(1);
        let there = async {
            for _ in 0..100 {
                let _turn = budgets.turn(&["a", "b"]).await;
                tokio::task::yield_now().await;
            }
        };
        let back = async {
            for _ in 0..100 {
                let _turn = budgets.turn(&["b", "a"]).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(there, back);
    }
}
