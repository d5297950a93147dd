//! The controller against a real API server, with hollow nodes: real agents, hundreds of them, on runtimes that only pretend.
//!
//! ```text
//!   case ──Prefetch, trouble──► API server ◄──watch, write──► controller (in this process)
//!     ▲                             ▲
//!     │                             └──watch, write──► agents ──CRI──► fake runtimes
//!     └───────────what really happened: pulls, times, writes──────────────┘
//! ```
//!
//! Cases in which few nodes take part run at the same time, under one controller. The others have the control plane for
//! themselves, with controllers of their own: the rest waits meanwhile.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod budgets;
mod controllers;
mod failures;
mod gate;
mod ground;
mod modes;
mod node_life;
mod order;
mod outages;
mod removal;
mod scale;
mod stage;
mod truth;

use std::{
    fs::File,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use libtest_mimic::{Arguments, Trial};
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::stage::Stage;

/// Longest time for one case, once its turn has come.
const TIME_FOR_A_CASE: Duration = Duration::from_mins(6);

/// What the controllers say, in the folder for temporary files of this target, for those who look for the cause of a failure.
const LOG: &str = "e2e-controller.log";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(64);
    log_controllers();
    let stage = Arc::new(Stage::new());
    let mut trials = Vec::new();
    macro_rules! cases {
        ($run:ident; $($module:ident: $($case:ident)*;)*) => {$($(
            let stage_of_case = Arc::clone(&stage);
            trials.push(Trial::test(
                concat!(stringify!($module), "::", stringify!($case)),
                move || {
                    stage_of_case.$run(TIME_FOR_A_CASE, $module::$case);
                    Ok(())
                },
            ));
        )*)*};
    }
    cases! {
        together;
        node_life:
            a_node_that_joins_is_asked_within_two_seconds
            labels_decide_which_nodes_are_asked
            a_cordoned_node_stops_and_goes_on_afterwards
            a_node_under_pressure_is_paused_and_goes_on_afterwards
            a_node_that_is_not_ready_does_not_count
            the_labels_of_a_silent_node_go_and_come_back
            a_node_replaced_under_its_name_gets_the_images_again;
        modes:
            once_is_done_when_done
            once_goes_after_its_time
            suspend_stops_what_has_not_begun
            nothing_is_written_when_nothing_changes;
        gate:
            a_new_node_keeps_its_taint_until_the_images_are_there;
        removal:
            a_deleted_prefetch_takes_its_images_away_but_not_those_of_others
            an_image_that_leaves_the_list_is_taken_away;
    }
    cases! {
        alone;
        scale:
            twenty_images_reach_three_hundred_nodes;
        budgets:
            a_number_and_a_share_are_never_exceeded
            the_budget_of_the_cluster_is_never_exceeded;
        gate:
            a_node_whose_images_do_not_come_loses_its_taint_in_time;
        failures:
            a_tenth_of_the_nodes_fails_and_the_status_is_true;
        outages:
            a_killed_leader_in_the_middle_loses_nothing
            an_api_server_that_restarts_in_the_middle_loses_nothing;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    stage.clear().unwrap();
    conclusion.exit_code()
}

fn log_controllers() {
    let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join(LOG)).unwrap();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Mutex::new(file));
    // Hundreds of agents have more to say than anybody can read.
    let targets: Targets = "warn,coral_agent=off,coral_controller=debug".parse().unwrap();
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}
