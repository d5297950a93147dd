//! Whose turn it is to pull.
//!
//! A node pulls an image that it lacks, or refreshes one that it has, only while it holds a turn of a Prefetch that wants the image. Each
//! Prefetch has as many turns as its `parallelism` says, and the nodes that hold any turn are bounded, too. A turn ends when every
//! image is there or has failed; the entries that failed are held back then, so that the slow attempts that follow, too, are made
//! within the budgets. Priority decides which Prefetch gives its turns first; it takes none away.
//!
//! Which turns were given stands in the objects of the nodes. The [`Memory`](super::Memory) only adds since when a node has made no progress,
//! and which attempts a turn was given for; without it, turns are read from the objects and their time begins anew.

mod held;

use std::collections::HashMap;

use coral_api::node_images::DesiredState;
use jiff::{SignedDuration, Timestamp};

use held::{HeldTurn, Outcome, Progress};

use super::{
    Limits, Wish,
    view::{NodeView, Standing},
};

/// Pause before a node that made no progress in a turn gets another one.
const LOST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// The turns that were given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Turns {
    /// Whether there was a plan before: then a node that is not listed has no turn.
    has_begun: bool,
    /// The Prefetches (`namespace/name`) in the order in which they gave turns.
    prefetches: Vec<String>,
    /// By name of the node: what is known of one lies together.
    by_node: HashMap<String, NodeTurns>,
}

/// The turns of one node, each with the place of its Prefetch in the order in which they give turns; ascending.
type NodeTurns = Vec<(usize, Turn)>;

/// What a node has to do with a Prefetch's budget.
#[derive(Clone, Debug, PartialEq)]
enum Turn {
    /// It is the node's turn.
    Held(HeldTurn),
    /// The turn is over, but a pull that was begun goes on; until the agent has answered, one may have begun that it has not told of.
    Finishing { since: Timestamp, progress: Progress },
    /// The turn was taken away, because the agent was silent or made no progress.
    Lost {
        since: Timestamp,
        was_silent: bool,
        progress: Progress,
    },
}

/// What came of giving turns.
pub(super) struct Given {
    pub(super) turns: Turns,
    /// Nodes that count against a budget.
    pub(super) pulling_nodes: usize,
    /// Nodes that wait for a turn.
    pub(super) waiting_nodes: usize,
}

/// One Prefetch, while turns are given.
struct Desk<'a, 'b> {
    wish: &'a Wish<'b>,
    /// Its place in the list of Prefetches.
    number: usize,
    /// Its place in the order in which turns were given the last time.
    before: Option<usize>,
    /// Turns that were read from objects, for want of a memory.
    read: usize,
    /// Nodes that may have a turn at the same time.
    budget: usize,
    /// Nodes that count against the budget.
    busy: usize,
    /// Those of them that do not only pull what another Prefetch has given them a turn for.
    own: usize,
    /// Nodes that lack images which have not been tried, and have not lost a turn.
    fresh: Vec<Candidate>,
    /// Nodes that are to try again or to refresh.
    later: Vec<Candidate>,
}

/// A node that could use a turn.
struct Candidate {
    place: usize,
    /// Since when it could.
    since: Timestamp,
    /// How it counts against the budget as it is.
    load: Load,
}

/// How a node counts against the budget of a Prefetch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Load {
    Nothing,
    /// It pulls what another Prefetch has given it a turn for, and nothing else of this one.
    ByAnother,
    /// It has a turn of this Prefetch, or had one and is not known to have stopped.
    Own,
}

/// Gives the turns of every Prefetch to its nodes and notes on the nodes which images may be pulled. `selecting` has, for each node, the
/// numbers of the Prefetches that select it.
///
/// It goes from node to node, and at each from Prefetch to Prefetch: what there is to know of one node is in the processor's cache then, and what there
/// is to know of thousands is not.
pub(super) fn give(
    wishes: &[Wish<'_>],
    selecting: &[Vec<usize>],
    nodes: &mut [NodeView<'_>],
    previous: &Turns,
    limits: &Limits,
    now: Timestamp,
) -> Given {
    let mut eligible = vec![0; wishes.len()];
    for (_, selecting) in nodes.iter().zip(selecting).filter(|(node, _)| node.is_eligible) {
        for &number in selecting {
            eligible[number] += 1;
        }
    }
    let before: HashMap<&str, usize> = previous.prefetches.iter().map(String::as_str).zip(0..).collect();
    let mut desks: Vec<Desk<'_, '_>> = wishes
        .iter()
        .enumerate()
        .map(|(number, wish)| Desk::new(wish, number, eligible[number], before.get(wish.key.as_str()).copied()))
        .collect();
    desks.sort_by(|a, b| a.wish.order().cmp(&b.wish.order()));
    let mut places = vec![0; wishes.len()];
    for (place, desk) in desks.iter().enumerate() {
        places[desk.number] = place;
    }

    let mut is_pulling = vec![false; nodes.len()];
    let mut turns: Vec<NodeTurns> = Vec::with_capacity(nodes.len());
    let mut in_order = Vec::new();
    let mut going_on = Vec::new();
    for (place, node) in nodes.iter_mut().enumerate() {
        in_order.clear();
        in_order.extend(selecting[place].iter().map(|&number| places[number]));
        in_order.sort_unstable();
        let known = previous.has_begun.then(|| {
            let known = previous.by_node.get(node.name);
            known.map_or(&[][..], Vec::as_slice)
        });
        for &desk in &in_order {
            going_on.push((desk, desks[desk].go_on(node, known, now)));
        }
        // Every turn that goes on is known by now.
        let mut remembered = Vec::new();
        for (desk, turn) in going_on.drain(..) {
            let (turn, is_busy) = desks[desk].count(place, node, turn, now);
            is_pulling[place] |= is_busy;
            remembered.extend(turn.map(|turn| (desk, turn)));
        }
        turns.push(remembered);
    }
    for desk in &mut desks {
        desk.line_up(nodes);
    }
    let mut cluster = ClusterBudget {
        left: limits.max_pulling_nodes.map_or(usize::MAX, |most| {
            most.saturating_sub(is_pulling.iter().filter(|is_pulling| **is_pulling).count())
        }),
        is_pulling,
    };
    // A node that has not had its chance goes before one that has, whichever Prefetch it is for: what fails must not hold up what may succeed.
    for (place, desk) in desks.iter_mut().enumerate() {
        let fresh = std::mem::take(&mut desk.fresh);
        let give = |node: usize, turn| note(&mut turns[node], place, turn);
        desk.fresh = desk.grant(fresh, false, nodes, &mut cluster, give, now);
    }
    for (place, desk) in desks.iter_mut().enumerate() {
        let later = std::mem::take(&mut desk.later);
        let give = |node: usize, turn| note(&mut turns[node], place, turn);
        desk.later = desk.grant(later, true, nodes, &mut cluster, give, now);
    }

    let mut is_waiting = vec![false; nodes.len()];
    for candidate in desks.iter().flat_map(|desk| desk.fresh.iter().chain(&desk.later)) {
        is_waiting[candidate.place] = true;
    }
    let count = |which: &[bool]| which.iter().filter(|is| **is).count();
    let turns = nodes.iter().zip(turns).filter(|(_, turns)| !turns.is_empty());
    Given {
        pulling_nodes: count(&cluster.is_pulling),
        waiting_nodes: count(&is_waiting),
        turns: Turns {
            has_begun: true,
            prefetches: desks.iter().map(|desk| desk.wish.key.clone()).collect(),
            by_node: turns.map(|(node, turns)| (node.name.to_owned(), turns)).collect(),
        },
    }
}

/// Takes a turn in, in place of one that is over.
fn note(turns: &mut NodeTurns, place: usize, turn: Turn) {
    match turns.binary_search_by_key(&place, |(place, _)| *place) {
        Ok(known) => turns[known].1 = turn,
        Err(next) => turns.insert(next, (place, turn)),
    }
}

/// The budget of the whole cluster.
struct ClusterBudget {
    /// Further nodes that may begin.
    left: usize,
    /// For each node, whether it counts.
    is_pulling: Vec<bool>,
}

impl<'a, 'b> Desk<'a, 'b> {
    fn new(wish: &'a Wish<'b>, number: usize, eligible: usize, before: Option<usize>) -> Self {
        Self {
            wish,
            number,
            before,
            read: 0,
            budget: wish.parallelism(eligible),
            busy: 0,
            own: 0,
            fresh: Vec::new(),
            later: Vec::new(),
        }
    }

    /// Lets a node whose turn it is go on, or takes the turn away if it is over. `known` are the turns of the node as they were; none for want of
    /// a memory.
    fn go_on(&mut self, node: &mut NodeView<'_>, known: Option<&[(usize, Turn)]>, now: Timestamp) -> Option<Turn> {
        let turn = match known {
            Some(known) => match self.turn_among(known)? {
                Turn::Held(turn) => turn.clone(),
                other => return Some(other.clone()),
            },
            // What the objects show beyond the budget was begun by turns of other Prefetches, which may be gone.
            None => HeldTurn::read(self.wish, node, now).filter(|_| {
                self.read += 1;
                self.read <= self.budget
            })?,
        };
        match turn.go_on(self.wish, node, now) {
            Outcome::Ends => None,
            Outcome::GoesOn(turn) => {
                turn.release(self.wish, node);
                Some(Turn::Held(turn))
            }
            Outcome::IsStopped(progress) => Some(Turn::Finishing { since: now, progress }),
            Outcome::IsLost { was_silent, progress } => Some(Turn::Lost {
                since: now,
                was_silent,
                progress,
            }),
        }
    }

    /// The turn of this Prefetch among those that a node had.
    fn turn_among<'t>(&self, known: &'t [(usize, Turn)]) -> Option<&'t Turn> {
        let before = self.before?;
        let place = known.binary_search_by_key(&before, |(place, _)| *place).ok()?;
        Some(&known[place].1)
    }

    /// Counts a node if it is busy, and notes it if it could use a turn. Every turn that goes on must be known by then. Returns what is to be
    /// remembered of its turn, and whether it counts against a budget.
    fn count(&mut self, place: usize, node: &NodeView<'_>, turn: Option<Turn>, now: Timestamp) -> (Option<Turn>, bool) {
        let needs = Needs::of(self.wish, node, now);
        if needs.is_nothing() {
            return (None, false);
        }
        let (turn, load) = self.weigh(turn, &needs, node, now);
        self.busy += usize::from(load != Load::Nothing);
        self.own += usize::from(load == Load::Own);
        if !matches!(turn, Some(Turn::Held(_))) {
            self.gather(place, node, turn.as_ref(), &needs, load, now);
        }
        (turn, load != Load::Nothing)
    }

    /// Puts those that could use a turn in order.
    fn line_up(&mut self, nodes: &[NodeView<'_>]) {
        // Agents that are known to be there come first; the sort is stable.
        self.fresh
            .sort_by_key(|candidate| !nodes[candidate.place].is_acknowledged);
        self.later.sort_by_key(|candidate| candidate.since);
    }

    /// What is to be remembered of a node, and how it counts against the budget.
    fn weigh(&self, turn: Option<Turn>, needs: &Needs, node: &NodeView<'_>, now: Timestamp) -> (Option<Turn>, Load) {
        let by_another = if needs.is_released {
            Load::ByAnother
        } else {
            Load::Nothing
        };
        match turn {
            Some(Turn::Held(_)) => (turn, Load::Own),
            Some(Turn::Lost {
                since,
                was_silent,
                progress,
            }) => {
                // It may have begun a pull after all, before it learnt that its turn is over.
                let progress = Progress::of(Some(&progress), None, self.wish, node, now);
                let is_own = needs.is_left_over || (needs.is_being_pulled && !progress.has_stopped(now));
                let turn = Turn::Lost {
                    since,
                    was_silent,
                    progress,
                };
                (Some(turn), if is_own { Load::Own } else { by_another })
            }
            None if needs.is_left_over => (None, Load::Own),
            None if !needs.is_being_pulled => (None, by_another),
            finishing => {
                let (since, before) = match finishing {
                    Some(Turn::Finishing { since, progress }) => (since, Some(progress)),
                    _ => (now, None),
                };
                let progress = Progress::of(before.as_ref(), None, self.wish, node, now);
                let is_moving = needs.is_being_pulled && !progress.has_stopped(now);
                let has_not_answered =
                    before.is_some() && !node.is_acknowledged && now.duration_since(since) < held::SILENCE;
                let is_own = needs.is_left_over || is_moving || has_not_answered;
                let turn = Turn::Finishing { since, progress };
                (
                    (is_own || needs.is_being_pulled).then_some(turn),
                    if is_own { Load::Own } else { by_another },
                )
            }
        }
    }

    /// Notes the node as one that could use a turn, if it could.
    fn gather(
        &mut self,
        place: usize,
        node: &NodeView<'_>,
        turn: Option<&Turn>,
        needs: &Needs,
        load: Load,
        now: Timestamp,
    ) {
        if !node.can_pull() || self.wish.is_at_rest() {
            return;
        }
        let candidate = |since| Candidate { place, since, load };
        if let Some(Turn::Lost { since, was_silent, .. }) = turn {
            // An agent that has been silent has to answer first. One that answers, but got nothing done, is left alone for a while.
            let is_over = *was_silent || *since + LOST_PAUSE <= now;
            if node.is_acknowledged && is_over && needs.could_begin() {
                self.later.push(candidate(*since));
            }
        } else if needs.untried > 0 {
            self.fresh.push(candidate(now));
        } else if let Some(since) = needs.due {
            self.later.push(candidate(since));
        }
    }

    /// Gives turns to the first candidates that the budgets allow, by their places, and returns the others.
    fn grant(
        &mut self,
        candidates: Vec<Candidate>,
        tries_again: bool,
        nodes: &mut [NodeView<'_>],
        cluster: &mut ClusterBudget,
        mut give: impl FnMut(usize, Turn),
        now: Timestamp,
    ) -> Vec<Candidate> {
        let mut waiting = Vec::new();
        for candidate in candidates {
            let place = candidate.place;
            let used = match candidate.load {
                Load::Nothing => self.busy,
                Load::ByAnother => self.own,
                // It counts as it is.
                Load::Own => self.own - 1,
            };
            if used >= self.budget || !(cluster.is_pulling[place] || cluster.left > 0) {
                waiting.push(candidate);
                continue;
            }
            self.busy += usize::from(candidate.load == Load::Nothing);
            self.own += usize::from(candidate.load != Load::Own);
            if !cluster.is_pulling[place] {
                cluster.is_pulling[place] = true;
                cluster.left -= 1;
            }
            let node = &mut nodes[place];
            let turn = HeldTurn::new(self.wish, node, tries_again, now);
            turn.release(self.wish, node);
            give(place, Turn::Held(turn));
        }
        waiting
    }
}

/// What a Prefetch could do on a node with a turn.
#[derive(Default)]
struct Needs {
    /// Images that are missing and have not used up their attempts.
    untried: usize,
    /// Since when an image that failed could be tried again, or one that is there be refreshed.
    due: Option<Timestamp>,
    /// Whether the node has a turn for an image that it lacks, of this Prefetch or another one.
    is_released: bool,
    /// Whether the node may still take it that it has one. What is taken back counts until it is written that it is.
    is_left_over: bool,
    /// Whether the runtime is at work on an image that the node has no turn for.
    is_being_pulled: bool,
}

impl Needs {
    fn of(wish: &Wish<'_>, node: &NodeView<'_>, now: Timestamp) -> Self {
        let mut needs = Self::default();
        let mut target = None;
        for cell in node.cells_of(wish).flatten().filter(|cell| !cell.askers.is_empty()) {
            let is_released = cell.is_released || cell.refresh.is_some();
            needs.is_being_pulled |= cell.is_being_pulled() && !is_released;
            let next_attempt = cell.failure().1.unwrap_or(Timestamp::UNIX_EPOCH);
            let is_asked = match cell.standing() {
                Standing::There => {
                    let target = *target.get_or_insert_with(|| wish.refresh_after(node.name, now));
                    let since = if cell.has_failed_refresh() {
                        next_attempt
                    } else {
                        Timestamp::UNIX_EPOCH
                    };
                    let asked = cell.asked_refresh();
                    let is_asked = since <= now && asked.is_some_and(|time| cell.is_older_than(time));
                    if let Some(target) = target.filter(|target| since <= now && cell.is_older_than(*target)) {
                        needs.note_due(target.max(since), is_asked);
                    }
                    is_asked
                }
                Standing::Failed => {
                    let is_asked = next_attempt <= now && cell.is_asked(DesiredState::Present);
                    if next_attempt <= now {
                        needs.note_due(next_attempt, is_asked);
                    }
                    is_asked
                }
                Standing::Pulling | Standing::Missing => {
                    needs.untried += 1;
                    cell.is_asked(DesiredState::Present)
                }
            };
            needs.is_released |= is_released;
            needs.is_left_over |= is_asked && !is_released;
        }
        needs
    }

    /// What an earlier turn released is taken back first, so that whoever waits has a chance in between.
    fn note_due(&mut self, since: Timestamp, is_asked: bool) {
        if is_asked {
            return;
        }
        self.due = Some(self.due.map_or(since, |due| due.min(since)));
    }

    const fn could_begin(&self) -> bool {
        self.untried > 0 || self.due.is_some()
    }

    const fn is_nothing(&self) -> bool {
        !self.could_begin() && !self.is_released && !self.is_left_over && !self.is_being_pulled
    }
}
