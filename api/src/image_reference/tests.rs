use proptest::prelude::*;

use super::*;

const SHA256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn image(text: &str) -> ImageReference {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn valid_references_are_normalised() {
    // What is written, what it means, what people see.
    let cases = [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.29", "docker.io/library/nginx:1.29", "nginx:1.29"),
        ("library/nginx:1.29", "docker.io/library/nginx:1.29", "nginx:1.29"),
        ("docker.io/nginx:1.29", "docker.io/library/nginx:1.29", "nginx:1.29"),
        (
            "docker.io/library/nginx:1.29",
            "docker.io/library/nginx:1.29",
            "nginx:1.29",
        ),
        (
            "index.docker.io/nginx:1.29",
            "docker.io/library/nginx:1.29",
            "nginx:1.29",
        ),
        (
            "index.docker.io/library/nginx",
            "docker.io/library/nginx:latest",
            "nginx:latest",
        ),
        (
            "bitnami/redis",
            "docker.io/bitnami/redis:latest",
            "bitnami/redis:latest",
        ),
        ("docker.io/library/a/b:1", "docker.io/library/a/b:1", "library/a/b:1"),
        (
            "ghcr.io/acme/model:v7",
            "ghcr.io/acme/model:v7",
            "ghcr.io/acme/model:v7",
        ),
        ("quay.io/nginx", "quay.io/nginx:latest", "quay.io/nginx:latest"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("host:5000/a", "host:5000/a:latest", "host:5000/a:latest"),
        ("HOST/a", "HOST/a:latest", "HOST/a:latest"),
        ("host/a", "docker.io/host/a:latest", "host/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("[fd00:1:2::3]/a:x", "[fd00:1:2::3]/a:x", "[fd00:1:2::3]/a:x"),
        ("10.0.0.1/a", "10.0.0.1/a:latest", "10.0.0.1/a:latest"),
        ("a.b/c", "a.b/c:latest", "a.b/c:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        (
            "docker.io/localhost/c",
            "docker.io/localhost/c:latest",
            "docker.io/localhost/c:latest",
        ),
        ("host:5000", "docker.io/library/host:5000", "host:5000"),
        ("docker.io", "docker.io/library/docker.io:latest", "docker.io:latest"),
        ("a--b/c__d.e", "docker.io/a--b/c__d.e:latest", "a--b/c__d.e:latest"),
        ("nginx:_TAG.x-1", "docker.io/library/nginx:_TAG.x-1", "nginx:_TAG.x-1"),
    ];
    for (written, canonical, familiar) in cases {
        let parsed = image(written);
        assert_eq!(parsed.to_string(), canonical, "{written}");
        assert_eq!(parsed.familiar(), familiar, "{written}");
    }
}

#[test]
fn the_digest_decides_and_the_tag_is_kept_for_people() {
    let both = image(&format!("nginx:1.29@{SHA256}"));
    let digest_only = image(&format!("docker.io/nginx@{SHA256}"));
    assert_eq!(both, digest_only);
    assert_eq!(both.label_key(), digest_only.label_key());
    assert_eq!(both.identity(), format!("docker.io/library/nginx@{SHA256}"));
    assert_eq!(both.to_string(), format!("docker.io/library/nginx:1.29@{SHA256}"));
    assert_eq!(digest_only.familiar(), format!("nginx@{SHA256}"));
    assert_eq!(digest_only.tag(), None);
    assert_ne!(both, image("nginx:1.29"));
}

#[test]
fn malformed_references_are_refused_with_the_reason() {
    let long_tag = format!("nginx:{}", "a".repeat(129));
    let long_path = "a".repeat(256);
    let image_id = "0".repeat(64);
    let sha512_too_short = format!("a@sha512:{}", "a".repeat(64));
    let upper_digest = format!("a@{}", SHA256.replace('e', "E"));
    let cases = [
        ("", InvalidReason::Empty),
        ("nginx ", InvalidReason::WhiteSpace),
        ("ngi\nnx", InvalidReason::WhiteSpace),
        ("https://ghcr.io/a/b", InvalidReason::Scheme),
        ("docker://nginx", InvalidReason::Scheme),
        ("Nginx", InvalidReason::UpperCase),
        ("ghcr.io/Acme/app", InvalidReason::UpperCase),
        ("a/Nginx:1", InvalidReason::UpperCase),
        ("/nginx", InvalidReason::Path),
        ("nginx/", InvalidReason::Path),
        ("a//b", InvalidReason::Path),
        ("-nginx", InvalidReason::Path),
        ("nginx-", InvalidReason::Path),
        ("a..b/c", InvalidReason::Host),
        ("x/a..b", InvalidReason::Path),
        ("x/a___b", InvalidReason::Path),
        ("x/a._b", InvalidReason::Path),
        ("x/ä", InvalidReason::Path),
        ("ghcr.io/", InvalidReason::Path),
        (":1.29", InvalidReason::Path),
        ("-a.io/b", InvalidReason::Host),
        ("a_b.io/c", InvalidReason::Host),
        ("[::1/a", InvalidReason::Host),
        ("[::zz]:5000/a", InvalidReason::Host),
        ("[::1]5000/a", InvalidReason::Host),
        ("host:/a", InvalidReason::Port),
        ("host:port/a", InvalidReason::Port),
        ("host:0/a", InvalidReason::Port),
        ("host:65536/a", InvalidReason::Port),
        ("host:+80/a", InvalidReason::Port),
        ("nginx:", InvalidReason::Tag),
        ("nginx:-a", InvalidReason::Tag),
        ("nginx:.a", InvalidReason::Tag),
        ("nginx:a:b", InvalidReason::Tag),
        ("nginx:1,29", InvalidReason::Tag),
        (&long_tag, InvalidReason::TagLength),
        (&long_path, InvalidReason::PathLength),
        (&image_id, InvalidReason::ImageId),
        ("nginx@", InvalidReason::Digest),
        ("nginx@sha256", InvalidReason::Digest),
        ("nginx@sha256:abc", InvalidReason::Digest),
        ("nginx@md5:0123456789abcdef0123456789abcdef", InvalidReason::Digest),
        (&sha512_too_short, InvalidReason::Digest),
        (&upper_digest, InvalidReason::Digest),
    ];
    for (written, reason) in cases {
        let error = written.parse::<ImageReference>().expect_err(written);
        assert_eq!(error.reason, reason, "{written}");
        assert_eq!(error.reference, written);
    }
}

#[test]
fn errors_quote_and_shorten_what_was_written() {
    let error = "ngi\nnx".parse::<ImageReference>().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#""ngi\nnx" is not an image reference: it contains white space"#
    );
    let long = format!("{} ", "a".repeat(5_000)).parse::<ImageReference>().unwrap_err();
    assert!(long.to_string().len() < 200);
}

#[test]
fn label_keys_are_stable() {
    // Printed once with `printf %s docker.io/library/nginx:latest | sha256sum`: selectors in people's objects hold it.
    assert_eq!(
        image("nginx").label_key(),
        "image.stvz.io/86cee2c10898a48ff47a0626f8202a24"
    );
}

fn registry() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("docker.io/".to_owned()),
        Just("index.docker.io/".to_owned()),
        Just("localhost/".to_owned()),
        "[a-z0-9]{1,8}\\.[a-z]{2,5}(:[1-9][0-9]{0,3})?/",
        "[a-z]{1,8}:[1-9][0-9]{0,3}/",
        Just("[::1]:5000/".to_owned()),
    ]
}

fn suffix() -> impl Strategy<Value = String> {
    (
        "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
        prop_oneof![Just(String::new()), "@sha256:[0-9a-f]{64}"],
    )
        .prop_map(|(tag, digest)| tag + &digest)
}

fn path() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,6}(([._]|__|-{1,3})[a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}){0,3}"
}

proptest! {
    #[test]
    fn parse_after_display_is_the_identity((registry, path, suffix) in (registry(), path(), suffix())) {
        if let Ok(parsed) = format!("{registry}{path}{suffix}").parse::<ImageReference>() {
            for spelling in [parsed.to_string(), parsed.familiar(), parsed.identity()] {
                let again: ImageReference = spelling.parse().unwrap();
                prop_assert_eq!(&again, &parsed);
                prop_assert_eq!(again.label_key(), parsed.label_key());
            }
            prop_assert_eq!(parsed.to_string().parse::<ImageReference>().unwrap().to_string(), parsed.to_string());
        }
    }

    #[test]
    fn docker_hub_spellings_have_one_label((name, suffix) in ("[a-z]{1,12}", suffix())) {
        let short = image(&format!("{name}{suffix}"));
        for prefix in ["library/", "docker.io/", "docker.io/library/", "index.docker.io/", "index.docker.io/library/"] {
            let long = image(&format!("{prefix}{name}{suffix}"));
            prop_assert_eq!(&long, &short);
            prop_assert_eq!(long.label_key(), short.label_key());
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<ImageReference>();
    }

    #[test]
    fn near_references_do_not_make_the_parser_panic(text in "[a-zA-Z0-9:/@.\\[\\]_-]{0,80}") {
        if let Ok(parsed) = text.parse::<ImageReference>() {
            prop_assert_eq!(parsed.to_string().parse::<ImageReference>().unwrap(), parsed);
        }
    }
}
