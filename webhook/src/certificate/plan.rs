//! What to do about the certificates now. Pure.
//!
//! ```text
//!   nothing ──MakeAll──► authority, certificate
//!   authority is old ──PrepareNext──► next authority: in the caBundle, signs nothing yet
//!        ──(every API server knows it)──NotePublished──► ──(overlap)──Promote──► signs; the old one is still in the caBundle
//!        ──(overlap: every replica shows the new certificate)──DropPrevious──►
//! ```
//!
//! So at any time every certificate that some replica may still show is signed by an authority that every API server knows.

use jiff::{SignedDuration, Timestamp};

use super::{Validity, authority::Pair};

/// How long things last.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The names by which the API server calls the webhook.
    pub(crate) hosts: Vec<String>,
    /// How long an authority is valid.
    pub(crate) authority_validity: SignedDuration,
    /// How long a certificate is valid.
    pub(crate) certificate_validity: SignedDuration,
    /// How long it may take until every API server has read a new `caBundle`, and every replica a new certificate.
    pub(crate) overlap: SignedDuration,
}

/// The certificates that there are. What cannot be read is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// What signs.
    pub(crate) authority: Option<Dated>,
    /// What is shown.
    pub(crate) serving: Option<Serving>,
    /// What will sign.
    pub(crate) next: Option<Next>,
    /// What signed before.
    pub(crate) previous: Option<Previous>,
}

/// A certificate with its key and its time.
#[derive(Clone, Debug)]
pub(crate) struct Dated {
    pub(crate) pair: Pair,
    pub(crate) validity: Validity,
}

/// A server's certificate.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    pub(crate) dated: Dated,
    /// Whether the authority signed it, for all the names.
    pub(crate) is_right: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Next {
    pub(crate) dated: Dated,
    /// Since when it is in the `caBundle`.
    pub(crate) published: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Previous {
    pub(crate) certificate: String,
    /// Since when it signs no more.
    pub(crate) since: Timestamp,
}

/// The next step. Each is one write of the Secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Make an authority and a certificate, at once: there is nothing to overlap with.
    MakeAll,
    /// Make a certificate by the authority that is there.
    Issue,
    /// Make the next authority.
    PrepareNext,
    /// Write down that the `caBundle` has the next authority now.
    NotePublished,
    /// Let the next authority sign.
    Promote,
    /// Forget the authority that signed before.
    DropPrevious,
    /// Nothing, until then.
    Wait(Timestamp),
}

/// Decides the next step. `is_published` says whether the `caBundle` has every authority of `stored`.
pub(crate) fn next_step(stored: &Stored, settings: &Settings, is_published: bool, now: Timestamp) -> Step {
    let is_valid = |dated: &&Dated| dated.validity.not_before <= now && now < dated.validity.not_after;
    let Some(authority) = stored.authority.as_ref().filter(is_valid) else {
        // The next one is known to more API servers than one that is yet to be made.
        return match &stored.next {
            Some(next) if is_valid(&&next.dated) => Step::Promote,
            _ => Step::MakeAll,
        };
    };
    let serving = stored.serving.as_ref().filter(|serving| serving.is_right);
    let Some(serving) = serving.map(|serving| &serving.dated).filter(is_valid) else {
        return Step::Issue;
    };
    let mut wait = Vec::new();
    match &stored.next {
        Some(next) if !is_valid(&&next.dated) => return Step::PrepareNext,
        Some(Next { published: None, .. }) if is_published => return Step::NotePublished,
        Some(Next { published: None, .. }) => {}
        Some(Next {
            published: Some(published),
            ..
        }) => {
            // When the authority ends sooner than that, half of the time that is left is all there is.
            let left = authority.validity.not_after.duration_since(*published);
            match *published + settings.overlap.min(left / 2) {
                due if due <= now && is_published => return Step::Promote,
                due => wait.push(due),
            }
        }
        None => match renewal(authority, settings.authority_validity, now) {
            // One change at a time.
            due if due <= now && stored.previous.is_none() => return Step::PrepareNext,
            due => wait.push(due),
        },
    }
    match renewal(serving, settings.certificate_validity, now) {
        // One that ends with its authority cannot be made to last longer.
        due if due <= now && serving.validity.not_after < authority.validity.not_after => return Step::Issue,
        due => wait.push(due),
    }
    if let Some(previous) = &stored.previous {
        match previous.since + settings.overlap {
            due if due <= now => return Step::DropPrevious,
            due => wait.push(due),
        }
    }
    // Whatever is in the way of that: what has expired is replaced at once.
    wait.extend([authority.validity.not_after, serving.validity.not_after]);
    let wait = wait.into_iter().filter(|&due| due > now).min();
    Step::Wait(wait.unwrap_or(now + settings.overlap))
}

/// When something is to be made anew: with a third of its time left, and at once when it lasts longer than it should.
fn renewal(dated: &Dated, validity: SignedDuration, now: Timestamp) -> Timestamp {
    let not_after = dated.validity.not_after;
    if not_after.duration_since(now) > validity {
        return now;
    }
    not_after - validity / 3
}

/// When a certificate that is made now ends: never after the authority that signs it.
pub(crate) fn certificate_end(authority: &Validity, settings: &Settings, now: Timestamp) -> Timestamp {
    authority.not_after.min(now + settings.certificate_validity)
}

#[cfg(test)]
mod tests;
