use coral_api::node_images::MAX_MESSAGE_LENGTH;
use tonic::Status;

use super::*;

/// What runtimes really said, with the reasons.
const MESSAGES: &str = include_str!("messages.txt");

/// What stands in the place of secrets in [`MESSAGES`].
const CANARY: &str = "coral-secret-canary";

fn messages() -> impl Iterator<Item = (FailureReason, &'static str)> {
    let lines = MESSAGES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (reason, message) = line.split_once(' ').unwrap();
        (serde_json::from_value(reason.into()).unwrap(), message)
    })
}

#[test]
fn real_messages_have_the_right_reason() {
    let wrong: Vec<String> = messages()
        .filter(|(reason, message)| classify_text(message) != *reason)
        .map(|(reason, message)| format!("{} instead of {reason}: {message}", classify_text(message)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(messages().count() > 200);
}

#[test]
fn real_messages_are_shown_short_and_without_secrets() {
    assert!(messages().any(|(_, message)| message.contains(CANARY)));
    for (_, message) in messages() {
        let shown = classify(&Status::unknown(message)).message;
        assert!(
            !shown.is_empty() && shown.chars().count() <= MAX_MESSAGE_LENGTH,
            "{message}"
        );
        assert!(!shown.contains(CANARY), "{shown}");
        assert!(!shown.contains("failed to pull and unpack"), "{shown}");
    }
}

#[test]
fn shortening_leaves_what_tells_the_reason() {
    for (reason, message) in messages() {
        let shown = classify(&Status::unknown(message)).message;
        assert_eq!(classify_text(&shown), reason, "{shown}");
    }
}

#[test]
fn text_has_the_first_word_and_the_code_the_second() {
    let registry = "failed to resolve image: unexpected status from HEAD request to https://h/v2/a/manifests/b: 503 Service Unavailable";
    let cases = [
        (Status::unavailable(registry), FailureReason::RegistryUnavailable),
        (Status::unavailable("closing"), FailureReason::RuntimeUnavailable),
        (
            Status::not_found("no match for platform in manifest: not found"),
            FailureReason::PlatformMismatch,
        ),
        (Status::not_found("gone"), FailureReason::NotFound),
        (
            Status::deadline_exceeded("dial tcp 10.0.0.1:443: i/o timeout"),
            FailureReason::RegistryUnavailable,
        ),
        (Status::deadline_exceeded("late"), FailureReason::Timeout),
        (Status::cancelled("stopped"), FailureReason::Timeout),
        (
            Status::unavailable("ref k8s.io/1/layer locked for 2ms: unavailable"),
            FailureReason::Unknown,
        ),
        (Status::internal("odd"), FailureReason::Unknown),
    ];
    for (status, reason) in cases {
        assert_eq!(classify(&status).reason, reason, "{status}");
    }
}

#[test]
fn runtime_without_cri_v1_is_told_apart() {
    // containerd 1.6.20 whose CRI plugin is disabled.
    let failure = classify(&Status::unimplemented("unknown service runtime.v1.ImageService"));
    assert_eq!(failure.reason, FailureReason::RuntimeUnavailable);
    assert!(failure.message.contains("does not speak CRI v1"), "{failure:?}");
    assert!(failure.message.contains("plugin is disabled"), "{failure:?}");
}

#[test]
fn answer_that_is_too_large_is_the_runtimes_failure() {
    let statuses = [
        Status::resource_exhausted("grpc: trying to send message larger than max (17825792 vs. 16777216)"),
        Status::out_of_range(
            "Error, decoded message length too large: found 70000000 bytes, the limit is: 67108864 bytes",
        ),
    ];
    for status in statuses {
        let failure = classify(&status);
        assert_eq!(failure.reason, FailureReason::RuntimeUnavailable);
        assert!(failure.message.contains("too large"), "{failure:?}");
    }
    let limited = classify(&Status::resource_exhausted("429 Too Many Requests"));
    assert_eq!(limited.reason, FailureReason::RateLimited);
}

#[test]
fn socket_that_may_not_be_opened_is_the_runtimes_failure() {
    let error = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let failure = classify(&Status::from_error(Box::new(error)));
    assert_eq!(failure.reason, FailureReason::RuntimeUnavailable);
    assert_eq!(
        failure.message,
        "the container runtime does not answer: permission denied"
    );
}

#[test]
fn end_of_a_calls_own_time_is_a_timeout() {
    let failure = classify(&Status::from_error(Box::new(TimeoutExpired(()))));
    assert_eq!(failure.reason, FailureReason::Timeout);
}
