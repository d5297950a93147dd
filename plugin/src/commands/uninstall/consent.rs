//! What somebody has agreed to, or is asked.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::injected::{Injected, named};
use crate::{error::Error, printer::Printer};

/// What the command line says about workloads that were injected.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags that have nothing to do with each other"
)]
pub(super) struct Consent {
    pub(super) uninject: bool,
    pub(super) leave_injected: bool,
    /// Somebody may be asked, if somebody is there.
    pub(super) can_ask: bool,
    pub(super) is_dry: bool,
}

impl Consent {
    /// Whether what was injected is to be taken back; `None` where somebody was asked and said no.
    ///
    /// # Errors
    /// When pods would be stranded, nobody said what to do about it, and nobody can be asked.
    pub(super) fn about_workloads(&self, injected: &[Injected], printer: &Printer) -> Result<Option<bool>, Error> {
        if self.uninject {
            if let Some(workloads) = named(injected, |judgement| judgement.stays_stranded) {
                printer.warning(format_args!(
                    "{workloads} have node selectors of Coral's labels that were written by hand, and stay as they are: new pods will find no node"
                ));
            }
            return Ok(Some(true));
        }
        let Some(workloads) = named(injected, |judgement| judgement.is_stranded) else {
            return Ok(Some(false));
        };
        let error = Error::WouldStrand { workloads };
        if self.leave_injected || self.is_dry {
            printer.warning(&error);
            if let (false, Some(hint)) = (self.leave_injected, error.hint()) {
                printer.hint(hint);
            }
            return Ok(Some(false));
        }
        if !self.can_ask || !io::stdin().is_terminal() {
            return Err(error);
        }
        printer.warning(error);
        let is_agreed = agrees(
            "Take back what was injected into them first, which replaces their pods?",
            printer,
        )?;
        Ok(is_agreed.then_some(true))
    }
}

/// Asks, where somebody is there to answer.
///
/// # Errors
/// When nobody is.
pub(crate) fn agrees(question: &str, printer: &Printer) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::NotConfirmed);
    }
    // On stderr, where it does not mix with data.
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    drop(stderr);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let is_agreed = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !is_agreed {
        printer.note("nothing was changed");
    }
    Ok(is_agreed)
}
