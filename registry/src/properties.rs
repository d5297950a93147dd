//! Whatever a registry sends, nothing breaks, and what it means is what it says.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{LINK, RETRY_AFTER, WWW_AUTHENTICATE},
};
use proptest::prelude::*;

use crate::{
    Document, Manifest, RedirectRefusal,
    address::{Reach, reach_of_host},
    challenge::Challenge,
    error::{MAX_RETRY_AFTER, retry_after},
    listing::next_page,
    origin::{Origin, join},
};

fn headers(name: HeaderName, value: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(HeaderMap::from_iter([(name, value)]))
}

/// Bytes of a header, which look like one more often than chance would have it.
fn header_bytes(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let piece = prop_oneof![3 => word, 1 => prop::collection::vec(any::<u8>(), 0..6)];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    #[test]
    fn no_challenge_is_too_odd(
        bytes in header_bytes(&["Bearer", "Basic", " ", ",", "=", "\"", "\\", "realm", "scope", "service", "é"]),
    ) {
        if let Some(headers) = headers(WWW_AUTHENTICATE, &bytes) {
            let _ = Challenge::from_headers(&headers);
        }
    }

    #[test]
    fn a_challenge_says_what_it_was_made_of(realm in "[ -~]{0,20}", service in "[ -~]{0,20}", scope in "[ -~]{0,20}") {
        let text = format!(
            "Basic realm=\"x\", Bearer realm={},service={}, scope={}",
            quoted(&realm), quoted(&service), quoted(&scope)
        );
        let read = Challenge::from_headers(&headers(WWW_AUTHENTICATE, text.as_bytes()).unwrap());
        prop_assert_eq!(read, Some(Challenge::Bearer { realm, service: Some(service), scope: Some(scope) }));
    }

    #[test]
    fn no_pause_is_longer_than_the_longest(bytes in header_bytes(&["9", "999999999", "-", "Sun, 06 Nov 2094 08:49:37 GMT"])) {
        if let Some(headers) = headers(RETRY_AFTER, &bytes) {
            prop_assert!(retry_after(&headers).is_none_or(|pause| pause <= MAX_RETRY_AFTER));
        }
    }

    #[test]
    fn a_pause_in_seconds_is_that_many(seconds in 0u64..=86_400) {
        let headers = headers(RETRY_AFTER, seconds.to_string().as_bytes()).unwrap();
        prop_assert_eq!(retry_after(&headers).map(|pause| pause.as_secs()), Some(seconds));
    }

    #[test]
    fn no_link_is_too_odd(bytes in header_bytes(&["<", ">", ";", ",", " rel=next", " rel=\"next\"", "/v2/a", "https://b"])) {
        if let Some(headers) = headers(LINK, &bytes)
            && let Some(target) = next_page(&headers)
        {
            let text = String::from_utf8(bytes).unwrap();
            let bracketed = format!("<{target}>");
            prop_assert!(text.contains(&bracketed));
        }
    }

    #[test]
    fn a_link_leads_where_it_says(target in "/v2/[a-z/]{1,20}\\?last=[a-z]{1,5}&n=[0-9]{1,3}") {
        for rel in ["rel=next", "rel=\"next\"", "title=x; rel=\"next\""] {
            let headers = headers(LINK, format!("<{target}>; {rel}").as_bytes()).unwrap();
            prop_assert_eq!(next_page(&headers), Some(&*target));
        }
        let headers = headers(LINK, format!("<{target}>; rel=\"prev\"").as_bytes()).unwrap();
        prop_assert_eq!(next_page(&headers), None);
    }

    /// What does not name a host stays at the host that it came from, whatever it is.
    #[test]
    fn a_relative_location_stays_where_it_is(location in "[^:]{0,30}") {
        let base: Uri = "https://registry.example:5000/v2/a/blobs/x".parse().unwrap();
        if let Ok(target) = join(&base, &location)
            && !location.starts_with("//")
        {
            prop_assert_eq!(target.authority(), base.authority());
            prop_assert_eq!(target.scheme(), base.scheme());
        }
    }

    /// A registry that is elsewhere sends nobody to this machine or link, in whatever spelling.
    #[test]
    fn nobody_is_sent_to_this_machine(
        location in prop_oneof![
            "(https?:)?//[^/]{0,20}(/.{0,8})?",
            (0u8..=255, any::<[u8; 2]>(), prop::sample::select(&["127.", "169.254.", "0."][..])).prop_map(
                |(a, [b, c], start)| {
                    let dots = if start == "169.254." { format!("{b}.{c}") } else { format!("{a}.{b}.{c}") };
                    format!("https://{start}{dots}/latest/meta-data")
                }
            ),
            any::<[u8; 2]>().prop_map(|[b, c]| format!("https://[::ffff:127.0.{b}.{c}]:8443/")),
        ],
    ) {
        let origin = Origin::new("registry.example", false);
        let base = origin.uri("/v2/").unwrap();
        if let Ok(target) = join(&base, &location)
            && origin.way_to(&target).is_ok()
        {
            let reach = target.host().and_then(reach_of_host);
            prop_assert!(reach.is_none_or(|reach| reach == Reach::Beyond), "{}", target);
            prop_assert_eq!(target.scheme_str(), Some("https"));
            prop_assert!(!target.authority().unwrap().as_str().contains('@'));
        }
    }

    #[test]
    fn no_manifest_is_too_odd(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            header_bytes(&["{", "}", "[", "]", ":", ",", "\"config\"", "\"layers\"", "\"manifests\"", "\"digest\"", "\"size\"", "1", "null"]),
        ],
    ) {
        let manifest = Manifest { media_type: String::new(), digest: String::new(), bytes: Bytes::from(bytes) };
        let _ = manifest.document();
    }

    #[test]
    fn a_manifest_says_what_it_was_made_of(
        blobs in prop::collection::vec(("[a-z0-9:]{0,12}", any::<u64>()), 1..6),
        platform in prop::option::of(("[a-z]{1,8}", "[a-z0-9]{1,8}")),
    ) {
        let descriptor = |(digest, size): &(String, u64)| {
            let mut value = serde_json::json!({"mediaType": "m", "digest": digest, "size": size, "unknown": [1]});
            if let Some((os, architecture)) = &platform {
                value["platform"] = serde_json::json!({"os": os, "architecture": architecture});
            }
            value
        };
        let all: Vec<_> = blobs.iter().map(descriptor).collect();
        let read = |value: serde_json::Value| {
            let bytes = Bytes::from(value.to_string());
            Manifest { media_type: String::new(), digest: String::new(), bytes }.document()
        };
        let Some(Document::Index { manifests }) = read(serde_json::json!({"manifests": all})) else {
            return Err(TestCaseError::fail("it is an index"));
        };
        let Some(Document::Image { config, layers }) = read(serde_json::json!({"config": all[0], "layers": all})) else {
            return Err(TestCaseError::fail("it is an image"));
        };
        let pairs = |list: &[crate::Descriptor]| -> Vec<(String, u64)> {
            list.iter().map(|descriptor| (descriptor.digest.clone(), descriptor.size)).collect()
        };
        prop_assert_eq!(pairs(&manifests), blobs.clone());
        prop_assert_eq!(pairs(&layers), blobs.clone());
        prop_assert_eq!(pairs(&[config]), vec![blobs[0].clone()]);
        prop_assert_eq!(manifests[0].platform.is_some(), platform.is_some());
    }
}

/// The refusals that are looked at above are what is expected, and not that nothing is ever allowed.
#[test]
fn some_redirects_are_followed() {
    let origin = Origin::new("registry.example", false);
    let way = |target: &str| origin.way_to(&target.parse().unwrap());
    assert!(way("https://cdn.example/blob").is_ok());
    assert!(matches!(way("https://127.0.0.1/blob"), Err(RedirectRefusal::Local)));
}
