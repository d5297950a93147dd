//! What takes ten minutes of real time: a kubelet that keeps collecting, an API server that is gone, and one that has forgotten.
//!
//! The cases have clusters of their own and mostly wait, so that `cargo xtask test e2e` runs them beside everything else.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod collector;
mod forgetting;
mod outage;
#[path = "../support/solo.rs"]
mod solo;

use std::{process::ExitCode, time::Duration};

use libtest_mimic::{Arguments, Trial};

/// Longest time for one case, with the start of its cluster.
const TIME_FOR_A_CASE: Duration = Duration::from_mins(18);
/// How long trouble lasts.
const TEN_MINUTES: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle();
    let mut trials = Vec::new();
    macro_rules! cases {
        ($($module:ident: $($case:ident)*;)*) => {$($(
            let runtime = handle.clone();
            trials.push(Trial::test(
                concat!(stringify!($module), "::", stringify!($case)),
                move || {
                    runtime.block_on(async {
                        let in_time = tokio::time::timeout(TIME_FOR_A_CASE, $module::$case()).await;
                        assert!(in_time.is_ok(), "the case did not end in {TIME_FOR_A_CASE:?}");
                    });
                    Ok(())
                },
            ));
        )*)*};
    }
    cases! {
        collector:
            ten_minutes_of_a_kubelet_that_keeps_collecting_are_no_fight;
        outage:
            an_api_server_that_is_gone_for_ten_minutes_is_survived;
        forgetting:
            what_changed_while_etcd_forgot_is_found;
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
