//! Whatever is in a Secret, and whatever repository is asked for.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// As it is usually written: slow for many stars, and right.
fn matches_by_definition(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_by_definition(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, text)| matches_by_definition(glob, text))
        }
        (Some((b'?', rest)), Some((_, text))) => matches_by_definition(rest, text),
        (Some((wanted, rest)), Some((byte, text))) => wanted == byte && matches_by_definition(rest, text),
        _ => false,
    }
}

/// Bytes that are JSON of the right form more often than chance would have it.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let entry = prop_oneof![
        Just(json!({})),
        ".{0,8}".prop_map(|text| json!({ "auth": text })),
        ".{0,8}".prop_map(|text| json!({"auth": STANDARD.encode(text)})),
        (".{0,4}", ".{0,4}").prop_map(|(username, password)| json!({"username": username, "password": password})),
        Just(json!({"auth": 1})),
        Just(json!(null)),
    ];
    let auths = prop::collection::btree_map("[a-z.:/*?\\[\\]]{0,12}", entry, 0..4);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        auths
            .clone()
            .prop_map(|auths| json!({ "auths": auths }).to_string().into_bytes()),
        auths.prop_map(|auths| json!(auths).to_string().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn no_secret_and_no_repository_are_too_odd(data in data(), repository in ".{0,40}") {
        for keyring in [Keyring::from_config_json(&data), Keyring::from_legacy_config(&data)] {
            match keyring {
                Ok(keyring) => drop(keyring.lookup(&repository)),
                // It says nothing of the data.
                Err(error) => prop_assert!(
                    [Malformed::Json.to_string(), Malformed::Auth.to_string()].contains(&error.to_string())
                ),
            }
        }
    }

    #[test]
    fn what_a_login_wrote_is_read_again(
        host in "[a-z]{1,8}\\.[a-z]{2,3}(:[0-9]{1,5})?",
        username in "[^:\0]{1,16}",
        password in ".{0,24}",
        padded in any::<bool>(),
    ) {
        let auth = STANDARD.encode(format!("{username}:{password}"));
        let auth = if padded { auth } else { auth.trim_end_matches('=').to_owned() };
        for location in [host.clone(), format!("https://{host}/v2/")] {
            let data = json!({"auths": {location: {"auth": auth}}}).to_string();
            let keyring = Keyring::from_config_json(data.as_bytes()).unwrap();
            let found = keyring.lookup(&format!("{host}/team/app"));
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!((&*found[0].username, &*found[0].password), (&username, &password));
            // Never for another host, nor in what a log would have.
            let another = format!("x{host}/team/app");
            prop_assert!(keyring.lookup(&another).is_empty());
            prop_assert_eq!(format!("{:?}", found[0]), "Credential { .. }");
        }
    }

    #[test]
    fn globs_match_by_their_definition(glob in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        prop_assert_eq!(
            matches_glob(glob.as_bytes(), text.as_bytes()),
            matches_by_definition(glob.as_bytes(), text.as_bytes())
        );
    }
}

/// By definition this would take longer than the universe is old, and more stack than there is.
#[test]
fn a_glob_of_many_stars_is_cheap() {
    let text = "a".repeat(63);
    assert!(!matches_glob("*a".repeat(60).as_bytes(), format!("{text}b").as_bytes()));
    assert!(matches_glob("*".repeat(1_000_000).as_bytes(), text.as_bytes()));
}
