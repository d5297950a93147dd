//! Exit codes. Scripts rely on them, so they are here and in the help text, and change only with a reason.

/// All went well.
pub(crate) const SUCCESS: u8 = 0;
/// Something went wrong; the sentence on stderr says what.
pub(crate) const ERROR: u8 = 1;
/// The command line is wrong: nothing was sent to the cluster.
pub(crate) const USAGE: u8 = 2;
/// With `--wait`: images failed, and nothing will change without help.
pub(crate) const IMAGES_FAILED: u8 = 3;
/// The time was up: with `--wait` before every image was there, for the installation before everything ran or was gone.
pub(crate) const TIMED_OUT: u8 = 4;
/// With `--wait` and `--watch`: interrupted by Ctrl-C. The Prefetch stays.
pub(crate) const INTERRUPTED: u8 = 130;

/// The codes as the help text shows them.
pub(crate) const HELP: &str = "\
Exit codes:
  0    success
  1    an error; the message says what
  2    a wrong command line; nothing was sent to the cluster
  3    --wait: images failed, and nothing will change without help
  4    the time was up before every image was there (--wait), or before everything ran or was gone (install, upgrade, uninstall)
  130  --wait, --watch: interrupted by Ctrl-C; the Prefetch stays";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_help_text() {
        for code in [SUCCESS, ERROR, USAGE, IMAGES_FAILED, TIMED_OUT, INTERRUPTED] {
            let start = format!("  {code:<5}");
            assert!(HELP.lines().any(|line| line.starts_with(&start)), "{code}");
        }
    }
}
