//! Whatever a runtime says.

use coral_api::node_images::MAX_MESSAGE_LENGTH;
use proptest::prelude::*;
use tonic::{Code, Status};

use super::{classify, classify_text};

/// Pieces of what runtimes say, which look like a message more often than chance would have it.
const PIECES: &[&str] = &[
    "failed to pull and unpack image \"",
    "\": ",
    "initializing source docker://",
    "; artifact err: ",
    "unable to pull image or OCI artifact: pull image err: ",
    "://",
    "@",
    "?",
    "/",
    "no space left on device",
    "\n",
    "…",
    " ",
];

fn message() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(PIECES).prop_map(str::to_owned),
        1 => ".{0,12}",
        1 => (0usize..3_000).prop_map(|length| "x".repeat(length)),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_words_are_too_odd(message in message(), code in 0i32..20) {
        let failure = classify(&Status::new(Code::from(code), message.clone()));
        prop_assert!(failure.message.chars().count() <= MAX_MESSAGE_LENGTH);
        prop_assert!(!failure.message.contains(char::is_control));
        let _ = classify_text(&message);
    }

    /// Wherever an address with a password stands, and whatever stands around it.
    #[test]
    fn no_password_and_no_token_is_shown(
        before in "[a-z \":\n]{0,20}",
        after in "[a-z \":\n]{0,20}",
        user in "[a-z0-9:]{0,8}",
        path in "[a-z0-9/._-]{0,12}",
    ) {
        let message = format!("{before}https://{user}:canary1@h.example/{path}?token=canary2 {after}");
        let shown = classify(&Status::unknown(message)).message;
        prop_assert!(!shown.contains("canary"), "{}", shown);
    }
}
