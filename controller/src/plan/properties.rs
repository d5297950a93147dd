//! What holds of the plan whatever happens, shown on a world of a few nodes, agents and Prefetches in which anything may happen at any time.

mod world;

use proptest::{collection::vec, prelude::*, sample::Index};

use world::{MOST_PULLING_NODES, Wanted, World};

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// Somebody creates a Prefetch.
    Create(Wanted),
    /// Somebody deletes one.
    Delete(Index),
    /// Somebody gives one another list of images, or suspends it.
    Change(Index, Wanted),
    Join(u8),
    Leave(u8),
    /// A node becomes Ready, or not.
    Ready(u8, bool),
    Cordon(u8, bool),
    /// The agent of a node dies, or begins anew and knows nothing.
    Agent(u8, bool),
    /// The kubelet collects an image.
    Vanish(u8, Index),
    /// The controller plans, and carries out those writes whose bit is set.
    Plan(u64),
    /// Another controller leads.
    Restart,
    /// The agents of the nodes whose bit is set do something; pulls whose bit is set end.
    Work(u8, u64),
    /// Time passes.
    Wait(u8),
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (
        0..64_u8,
        1..4_usize,
        any::<bool>(),
        -1..2_i32,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(images, parallelism, removes, priority, is_suspended, has_selector)| Wanted {
                images,
                parallelism,
                removes,
                priority,
                is_suspended: is_suspended && images % 3 == 0,
                has_selector: has_selector && images % 2 == 0,
            },
        )
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = || 0..8_u8;
    prop_oneof![
        2 => wanted().prop_map(Happening::Create),
        1 => any::<Index>().prop_map(Happening::Delete),
        1 => (any::<Index>(), wanted()).prop_map(|(which, wanted)| Happening::Change(which, wanted)),
        3 => node().prop_map(Happening::Join),
        1 => node().prop_map(Happening::Leave),
        1 => (node(), any::<bool>()).prop_map(|(node, is)| Happening::Ready(node, is)),
        1 => (node(), any::<bool>()).prop_map(|(node, is)| Happening::Cordon(node, is)),
        1 => (node(), any::<bool>()).prop_map(|(node, is)| Happening::Agent(node, is)),
        1 => (node(), any::<Index>()).prop_map(|(node, image)| Happening::Vanish(node, image)),
        8 => any::<u64>().prop_map(Happening::Plan),
        1 => Just(Happening::Restart),
        8 => (any::<u8>(), any::<u64>()).prop_map(|(nodes, pulls)| Happening::Work(nodes, pulls)),
        2 => (1..40_u8).prop_map(Happening::Wait),
    ]
}

impl World {
    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Create(wanted) => self.create(wanted),
            Happening::Delete(which) => self.delete(*which),
            Happening::Change(which, wanted) => self.change(*which, wanted),
            Happening::Join(node) => self.join(*node),
            Happening::Leave(node) => self.leave(*node),
            Happening::Ready(node, is_ready) => self.set_ready(*node, *is_ready),
            Happening::Cordon(node, is_cordoned) => self.cordon(*node, *is_cordoned),
            Happening::Agent(node, is_up) => self.set_agent(*node, *is_up),
            Happening::Vanish(node, image) => self.vanish(*node, *image),
            Happening::Plan(writes) => self.plan(*writes),
            Happening::Restart => self.restart(),
            Happening::Work(nodes, pulls) => self.work(*nodes, *pulls),
            Happening::Wait(seconds) => self.wait(*seconds),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn budgets_hold_and_the_world_comes_to_rest_as_it_was_wanted(happenings in vec(happening(), 1..90)) {
        let mut world = World::default();
        for happening in &happenings {
            world.happens(happening);
            let (per_prefetch, nodes) = world.pulling();
            for (prefetch, (pulling, parallelism)) in per_prefetch {
                prop_assert!(pulling <= parallelism, "{pulling} nodes pull for {prefetch}, which may have {parallelism}");
            }
            prop_assert!(nodes <= MOST_PULLING_NODES, "{nodes} nodes pull");
        }
        world.heal();
        prop_assert!(world.comes_to_rest(), "the world does not come to rest");
        world.is_as_it_was_wanted();
    }

    #[test]
    fn the_order_of_events_does_not_change_where_they_end(
        prefetches in vec(wanted(), 1..4),
        order in vec((any::<u64>(), any::<u8>()), 16),
        other in vec((any::<u64>(), any::<u8>()), 16),
    ) {
        let end = |order: &[(u64, u8)]| {
            let mut events: Vec<(u64, Event)> = Vec::new();
            let mut order = order.iter().copied();
            events.extend(order.by_ref().zip(&prefetches).enumerate().map(|(number, ((place, _), wanted))| {
                (place, Event::Create(format!("p{number}"), wanted.without_failures()))
            }));
            events.extend(order.by_ref().zip(0..6).map(|((place, _), node)| (place, Event::Other(Happening::Join(node)))));
            events.extend(order.map(|(place, bits)| (place, Event::Other(match bits % 2 {
                0 => Happening::Plan(place),
                _ => Happening::Work(bits, place),
            }))));
            events.sort_by_key(|(place, _)| *place);
            let mut world = World::default();
            for (_, event) in &events {
                match event {
                    Event::Create(name, wanted) => world.create_as(name, wanted),
                    Event::Other(happening) => world.happens(happening),
                }
            }
            assert!(world.comes_to_rest(), "the world does not come to rest");
            world.summary()
        };
        prop_assert_eq!(end(&order), end(&other));
    }
}

/// A step of a history whose Prefetches have the same names in whichever order they come.
enum Event {
    Create(String, Wanted),
    Other(Happening),
}
