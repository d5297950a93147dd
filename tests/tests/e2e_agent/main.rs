//! The real agent against a real API server, and a container runtime that fails as it is told to.
//!
//! ```text
//!   case ──spec──► API server ──watch──► agent ──CRI──► FakeRuntime ◄──script, counts── case
//!     ▲               │    ▲               │
//!     └───history─────┘    └────status─────┘
//! ```
//!
//! Every case has a NodeImages object, an agent and a runtime of its own. They need no node, and no controller either: one
//! would delete objects that belong to no Node. So the cases have a cluster of their own without nodes, which is there in a
//! few seconds, and takes nothing from the shared one.
//!
//! The cases mostly wait, for backoffs, timeouts and outages. libtest would run as many at a time as there are processors;
//! this target has a harness that runs all of them at once. It also knows when the last one has ended, so that the
//! cluster can go.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod failures;
mod gate;
mod history;
mod hollow;
mod outages;
mod pulls;
mod references;
mod removal;
mod reports;
mod sockets;
mod space;

use std::{process::ExitCode, sync::Arc, time::Duration};

use coral_tests::hollow::Stage;
use libtest_mimic::{Arguments, Trial};

/// Longest time for one case.
const TIME_FOR_A_CASE: Duration = Duration::from_secs(100);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(64);
    let stage = Arc::new(Stage::new(env!("CARGO_TARGET_TMPDIR"), "e2e-agent").unwrap());
    let mut trials = Vec::new();
    macro_rules! cases {
        ($($module:ident: $($case:ident)*;)*) => {$($(
            let stage_of_case = Arc::clone(&stage);
            trials.push(Trial::test(
                concat!(stringify!($module), "::", stringify!($case)),
                move || {
                    stage_of_case.run(TIME_FOR_A_CASE, $module::$case).unwrap();
                    Ok(())
                },
            ));
        )*)*};
    }
    cases! {
        pulls:
            there_are_never_more_pulls_than_the_limit
            higher_priority_goes_first
            a_spec_that_keeps_changing_begins_no_pull_twice
            two_spellings_of_an_image_are_one_pull
            an_unwanted_pull_is_cancelled_and_makes_room
            a_held_image_waits_for_its_turn
            under_pressure_nothing_begins_until_it_is_over
            a_deleted_object_ends_its_pulls
            a_shutdown_ends_pulls_and_agent_promptly
            a_restarted_agent_pulls_nothing_again
            without_an_object_the_agent_sleeps;
        references:
            a_digest_decides_over_a_tag
            with_two_digests_the_one_that_was_asked_for_is_reported
            a_moved_tag_is_pulled_again_after_its_refresh_time
            a_refresh_time_in_the_future_is_waited_for
            images_that_are_there_are_found_in_a_list_of_megabytes
            containerd_pins_and_cri_o_does_without
            credentials_are_tried_in_order_and_never_told;
        failures:
            a_timeout_ends_a_pull
            attempts_grow_apart
            success_clears_the_failure
            containerd_s_words_have_a_reason
            cri_o_s_words_have_a_reason
            a_vanished_image_is_reported_and_pulled_again
            an_image_that_keeps_vanishing_is_not_fought_for
            a_registry_that_limits_the_rate_is_asked_for_one_image_at_a_time
            an_image_that_vanishes_after_its_pull_is_told_and_pulled_again
            an_image_that_vanishes_in_a_refresh_is_not_reported_as_there
            a_refresh_that_fails_is_told_and_the_image_stays
            a_restart_of_the_runtime_in_the_middle_of_pulls_is_survived
            a_broken_connection_in_the_middle_of_a_pull_is_survived
            a_hanging_pull_holds_nothing_else_up
            a_frozen_runtime_is_told_and_holds_nothing_else_up
            a_runtime_that_comes_late_is_found;
        removal:
            an_image_goes_when_it_is_to_go_also_under_pressure
            nothing_is_called_gone_before_a_fresh_look
            many_images_go_with_few_writes
            what_a_container_uses_stays_until_it_ends
            what_others_pinned_and_what_every_pod_needs_stays
            only_coral_s_own_name_of_a_shared_image_goes
            a_pull_ends_before_its_image_goes
            nothing_is_removed_or_called_gone_while_the_runtime_is_away
            an_image_that_comes_back_goes_again
            a_turn_that_comes_again_is_one_more_attempt;
        space:
            an_image_that_does_not_fit_waits_until_it_does
            in_the_reserve_nothing_begins_and_nothing_is_written_over_and_over
            a_registry_that_does_not_tell_the_size_holds_nothing_up_for_long
            pulls_under_way_need_room_too
            the_agent_tells_how_much_room_there_is;
        sockets:
            the_first_socket_that_answers_is_the_runtime_s
            a_restart_does_not_lead_to_another_runtime;
        reports:
            twenty_images_take_few_writes_and_the_last_is_told_at_once
            nothing_is_written_when_nothing_changes
            a_status_that_somebody_else_wrote_is_corrected
            a_status_that_somebody_keeps_writing_is_right_in_the_end
            a_status_that_somebody_wrote_before_an_answer_came_is_corrected;
        outages:
            a_pull_that_ends_while_the_api_server_is_away_is_told_afterwards
            a_spec_that_changes_while_the_api_server_is_away_is_found_afterwards
            a_shutdown_without_an_api_server_is_prompt
            dead_connections_delay_a_status_by_little
            dead_connections_delay_a_private_image_by_little;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    stage.clear().unwrap();
    conclusion.exit_code()
}
