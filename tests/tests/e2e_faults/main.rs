//! Bad days on a real cluster: everything around Coral fails, one thing after another, and an independent checker watches all the time.
//!
//! ```text
//!   table ──row──► play ──begin, meanwhile, undo──► cluster with Coral ◄──looks── Checker
//!                    └──────────── since when is everything right? ◄────────────────┘
//! ```
//!
//! `cargo xtask test faults` starts the cluster and installs Coral. Every row of the table of faults is one run of one loop; what it
//! measured is printed and written as JSON. With `--soak 30m` the rows come in a random order until the time is over.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]
#![expect(clippy::print_stdout, reason = "the report of a test is what it prints")]

mod clock;
mod play;
mod random;
mod report;
mod site;
mod storm;
mod table;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use coral_tests::checker::{footprints, unfinished_downloads};

use self::{
    random::Random,
    report::Report,
    site::Site,
    table::{ALONE, Row, TOGETHER},
};

/// For how many seconds to go on with random faults; unset, every row of the table is played once.
const SOAK_VARIABLE: &str = "CORAL_FAULTS_SOAK";
/// What the order of the faults follows from.
const SEED_VARIABLE: &str = "CORAL_FAULTS_SEED";
/// Only rows whose name contains this.
const ONLY_VARIABLE: &str = "CORAL_FAULTS_ONLY";
/// How long a label may claim what is gone, as users are promised.
const LONGEST_LIE: Duration = Duration::from_secs(15);
/// How many more descriptors and threads a process may have in the end.
const SPARE: usize = 8;
/// How long processes may take to let go of what they need no more: connections that are kept for the next request.
const SETTLING: Duration = Duration::from_secs(90);

/// What users read of the faults.
const DOCUMENTED: &str = include_str!("../../../docs/faults.md");

fn main() -> ExitCode {
    // Rows block now and then, on programs that they run; the checker must not wait for them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(8)
        .enable_all()
        .build()
        .unwrap();
    if runtime.block_on(run()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plays the faults and prints what came of them; says whether all went as it should.
async fn run() -> bool {
    let mut report = Report::default();
    for row in TOGETHER.iter().chain(ALONE) {
        if !DOCUMENTED.contains(&format!("| {} |", row.name)) {
            report
                .complaints
                .push(format!("docs/faults.md has no row {:?}", row.name));
        }
    }
    let site = Site::start().await;
    let before = footprints(&site.cluster).unwrap();
    match env::var(SOAK_VARIABLE).ok() {
        Some(seconds) => soak(&site, Duration::from_secs(seconds.parse().unwrap()), &mut report).await,
        None => once(&site, &mut report).await,
    }
    site.checker.during("the end");
    report.complain(
        site.checker
            .right(Instant::now(), table::PATIENCE, |_| true)
            .await
            .err(),
    );
    site.clear().await;
    report.lies = site.checker.lies();
    let limit = LONGEST_LIE + site.checker.longest_look();
    for lie in &report.lies {
        // Whoever is not running takes no label away.
        let limit = limit + report.without_agents(lie).unwrap_or_default();
        if lie.lasted > limit {
            report.complaints.push(format!(
                "a label claimed for longer than {limit:?} what was gone: {lie:?}"
            ));
        }
    }
    report.looks = site.checker.looks();
    leaks(&site, &before, &mut report).await;
    for node in site.cluster.nodes().unwrap() {
        let unfinished = unfinished_downloads(&node).unwrap();
        report.unfinished_downloads.push((node.name().to_owned(), unfinished));
    }
    report.tell();
    if !report.complaints.is_empty() {
        let folder = site.cluster.diagnose().unwrap();
        println!("what the cluster looked like is in {}", folder.display());
    }
    report.complaints.is_empty()
}

async fn once(site: &Site, report: &mut Report) {
    let only = env::var(ONLY_VARIABLE).unwrap_or_default();
    let is_meant = |row: &&Row| row.name.contains(&only);
    let rows: Vec<&Row> = TOGETHER.iter().filter(is_meant).collect();
    site.checker
        .during("faults of registries, of a disk and of a clock, all at once");
    let played = futures::future::join_all(rows.iter().map(|row| play::play(site, row, row.lasting))).await;
    for (row, played) in rows.into_iter().zip(played) {
        report.played(row, played);
    }
    for row in ALONE.iter().filter(is_meant) {
        site.checker.during(row.name);
        report.played(row, play::play(site, row, row.lasting).await);
    }
}

/// Random faults, each between half and twice as long as in the table, until the time is over.
async fn soak(site: &Site, time: Duration, report: &mut Report) {
    let seed = env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    let mut random = Random::new(seed.unwrap_or_else(|| u64::from(std::process::id())));
    println!("the faults follow from the seed {}", random.seed());
    let rows: Vec<&Row> = TOGETHER.iter().chain(ALONE).collect();
    let began = Instant::now();
    while began.elapsed() < time && report.complaints.is_empty() {
        let row = rows[random.below(rows.len())];
        let half = row.lasting / 2;
        let percent = u32::try_from(random.below(301)).unwrap();
        let lasting = half + half * percent / 100;
        site.checker.during(row.name);
        report.played(row, play::play(site, row, lasting).await);
    }
}

/// Compares what Coral's processes hold on to with what they held on to before, until it is no more or the time is over.
async fn leaks(site: &Site, before: &[coral_tests::checker::Footprint], report: &mut Report) {
    let began = Instant::now();
    loop {
        report.footprints = footprints(&site.cluster).unwrap();
        let mut grown = Vec::new();
        for now in &report.footprints {
            let most = |what: fn(&coral_tests::checker::Footprint) -> usize| {
                before
                    .iter()
                    .filter(|it| it.program == now.program)
                    .map(what)
                    .max()
                    .unwrap_or_default()
                    + SPARE
            };
            if now.files > most(|it| it.files) || now.threads > most(|it| it.threads) || now.written > 0 {
                grown.push(format!("it has grown: {now}; before: {before:?}"));
            }
        }
        if grown.is_empty() || began.elapsed() > SETTLING {
            report.complaints.append(&mut grown);
            return;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
