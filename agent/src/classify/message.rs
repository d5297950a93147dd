//! The words of a runtime, as people are shown them.

use coral_api::node_images::MAX_MESSAGE_LENGTH;

/// What newer CRI-O says when an image is no artifact either; what comes behind it says the same once more.
const ARTIFACT: &str = "; artifact err: ";

/// How messages begin, with the quotation of the image's name in between.
const QUOTING_PREFIXES: &[(&str, &str)] = &[
    ("failed to pull and unpack image \"", "\": "),
    ("failed to resolve reference \"", "\": "),
    ("initializing source docker://", ": "),
];

/// How messages begin that say nothing which is not known.
const PREFIXES: &[&str] = &[
    "failed to resolve image: ",
    "unable to pull image or OCI artifact: pull image err: ",
];

/// The message without the image's name, which stands beside it, without credentials, and short enough.
pub(super) fn shown(message: &str) -> String {
    let message = without_artifact(message.trim());
    shorten(&without_secrets(without_prefixes(message)))
}

/// What CRI-O says of the image alone.
pub(super) fn without_artifact(message: &str) -> &str {
    message.split_once(ARTIFACT).map_or(message, |(image, _)| image)
}

fn without_prefixes(message: &str) -> &str {
    let mut rest = message;
    while let Some(shorter) = without_prefix(rest).filter(|shorter| !shorter.is_empty()) {
        rest = shorter;
    }
    rest
}

fn without_prefix(message: &str) -> Option<&str> {
    let quoting = QUOTING_PREFIXES
        .iter()
        .find_map(|(start, end)| Some(message.strip_prefix(start)?.split_once(end)?.1));
    quoting.or_else(|| PREFIXES.iter().find_map(|prefix| message.strip_prefix(prefix)))
}

/// What tells most stands at the end of a runtime's message, so a long one loses its middle.
fn shorten(message: &str) -> String {
    let characters: Vec<char> = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.len() <= MAX_MESSAGE_LENGTH {
        return characters.into_iter().collect();
    }
    let half = (MAX_MESSAGE_LENGTH - 3) / 2;
    let start: String = characters[..half].iter().collect();
    let end: String = characters[characters.len() - half..].iter().collect();
    format!("{start} … {end}")
}

/// Takes `user:password@` and query strings, which carry tokens and signatures, out of the URLs of a message. containerd up to 1.7
/// and CRI-O show both, and containerd 2 still shows queries.
fn without_secrets(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(position) = rest.find("://") {
        let (before, after) = rest.split_at(position + "://".len());
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>'))
            .unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let authority = url.find(['/', '?']).unwrap_or(url.len());
        let url = match url[..authority].rfind('@') {
            Some(at) => &url[at + 1..],
            None => url,
        };
        match url.split_once('?') {
            Some((path, query)) => {
                shown.push_str(path);
                shown.push_str("?…");
                // The colon that ends a URL in Go's error chains is not part of the query.
                if query.ends_with(':') {
                    shown.push(':');
                }
            }
            None => shown.push_str(url),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_image_is_not_said_again() {
        let cases = [
            (
                r#"failed to pull and unpack image "h:5000/a:b": failed to resolve reference "h:5000/a:b": failed to do request: Head "https://h:5000/v2/a/manifests/b": EOF"#,
                r#"failed to do request: Head "https://h:5000/v2/a/manifests/b": EOF"#,
            ),
            (
                r#"failed to pull and unpack image "h/a:b": failed to resolve image: h/a:b: not found"#,
                "h/a:b: not found",
            ),
            (
                "initializing source docker://h:5000/a:b: reading manifest b in h:5000/a: manifest unknown",
                "reading manifest b in h:5000/a: manifest unknown",
            ),
            (
                "unable to pull image or OCI artifact: pull image err: initializing source docker://h/a:b: reading manifest b in h/a: denied; artifact err: get manifest: build image source: reading manifest b in h/a: denied",
                "reading manifest b in h/a: denied",
            ),
            ("failed to resolve image: ", "failed to resolve image:"),
            (
                r#"failed to pull and unpack image "h/a:b"#,
                r#"failed to pull and unpack image "h/a:b"#,
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(shown(message), expected);
        }
    }

    #[test]
    fn urls_lose_their_credentials() {
        let cases = [
            (
                r#"Get "https://user:secret@h:5000/v2/?token=abc": EOF, see https://h/x?sig=abc: no"#,
                r#"Get "https://h:5000/v2/?…": EOF, see https://h/x?…: no"#,
            ),
            ("https://user:secret@h?x=@y", "https://h?…"),
            ("https://h?mail=a@b", "https://h?…"),
            ("nothing to see", "nothing to see"),
            ("https://", "https://"),
        ];
        for (message, expected) in cases {
            assert_eq!(without_secrets(message), expected);
        }
    }

    #[test]
    fn long_messages_keep_both_ends() {
        let shown = shorten(&format!("start{}\nend", "x".repeat(5_000)));
        assert!(shown.chars().count() <= MAX_MESSAGE_LENGTH);
        assert!(shown.starts_with("start") && shown.ends_with("end"));
    }
}
