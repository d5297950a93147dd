//! What only measurements need: the same server with nothing behind it.

use std::{fs, path::Path};

use anyhow::Context as _;
use coral_admission::bench::{admit, answer};
use jiff::{SignedDuration, Timestamp};

use crate::{
    Args,
    certificate::authority::{issue, make_authority},
    run::run_with,
};

/// Runs the server until SIGTERM or SIGINT, and admits everything. It does what no webhook can do without: it reads the whole review, and finds
/// out which it is.
pub async fn run_without_review(args: Args) -> anyhow::Result<()> {
    run_with(args, |_, _| admit).await
}

/// Runs the server until SIGTERM or SIGINT, and says the same to everybody, which is of no use to an API server.
pub async fn run_without_reading(args: Args) -> anyhow::Result<()> {
    run_with(args, |_, _| |_: &[u8]| Ok(answer("0"))).await
}

/// Writes what `--cert-dir` takes, valid for a day, and beside it the authority, `ca.crt`.
pub fn write_certificate(folder: &Path, hosts: &[String]) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let authority = make_authority(now, SignedDuration::from_hours(24)).context("failed to make an authority")?;
    let pair = issue(&authority, hosts, now, now + SignedDuration::from_hours(24));
    let pair = pair.context("failed to make a certificate")?;
    for (name, text) in [
        ("ca.crt", &authority.certificate),
        ("tls.crt", &pair.certificate),
        ("tls.key", &pair.key),
    ] {
        fs::write(folder.join(name), text).with_context(|| format!("failed to write {name}"))?;
    }
    Ok(())
}
