//! Who of several controllers works, and what it tells people, against a real API server.
//!
//! ```text
//!   case ──start, stop, kill──► controllers ──Lease, status, Events──► API server ◄──look── case
//! ```
//!
//! Every controller has the rights of the one that is deployed, and no more: its requests are made in the name of its service account. Its
//! writes are counted on their way out. The cases run one after another, for a controller works for the whole cluster; the cluster has no
//! nodes but those that a case writes down.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod actor;
mod election;
mod events;
#[path = "../e2e_agent/gate.rs"]
mod gate;
mod site;

use std::{process::ExitCode, sync::Arc, time::Duration};

use coral_tests::hollow::Stage;
use libtest_mimic::{Arguments, Trial};

/// Longest time for one case.
const TIME_FOR_A_CASE: Duration = Duration::from_secs(100);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let stage = Arc::new(Stage::new(env!("CARGO_TARGET_TMPDIR"), "e2e-lease").unwrap());
    let mut trials = Vec::new();
    macro_rules! cases {
        ($($module:ident: $($case:ident)*;)*) => {$($(
            let stage_of_case = Arc::clone(&stage);
            trials.push(Trial::test(
                concat!(stringify!($module), "::", stringify!($case)),
                move || {
                    let case = async |site| {
                        site::prepare(&site).await.unwrap();
                        $module::$case(site).await;
                    };
                    stage_of_case.run(TIME_FOR_A_CASE, case).unwrap();
                    Ok(())
                },
            ));
        )*)*};
    }
    cases! {
        election:
            one_leads_and_the_other_knows_the_cluster
            a_killed_leader_is_followed_in_time
            a_stopped_leader_hands_over_at_once
            a_leader_that_is_cut_off_stops_before_the_next_begins
            dead_connections_cost_nobody_the_lead
            a_lease_that_somebody_else_takes_ends_the_lead
            a_controller_of_the_same_name_goes_on_at_once;
        events:
            a_prefetch_tells_its_story
            a_failure_on_many_nodes_is_one_event
            pods_that_need_a_lost_label_are_named;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    stage.clear().unwrap();
    conclusion.exit_code()
}
