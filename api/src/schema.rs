//! Schemas for fields whose rules the derive cannot express. The API server enforces them, so each rule has a sentence for people.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Longest image reference: a path of 255 characters, a tag of 128 and a SHA-512 digest, with room for the host.
const MAX_REFERENCE_LENGTH: usize = 639;

/// The grammar of [`crate::ImageReference`] as an expression of RE2; a test holds the two together.
pub(crate) const REFERENCE_PATTERN: &str = concat!(
    r"^((localhost|[a-zA-Z0-9][a-zA-Z0-9-]*([.][a-zA-Z0-9-]+)*|\[[a-fA-F0-9:.]+\])(:[0-9]{1,5})?/)?",
    r"[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*",
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?",
    r"(@(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?$"
);

/// Go's durations without a sign.
const DURATION_PATTERN: &str = "^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$";

/// `spec.images` of a Prefetch.
pub(crate) fn images(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 256,
        "x-kubernetes-list-type": "set",
        "items": image_reference(),
    })
}

/// `spec.images` of a Mirror, which may discover its images instead.
pub(crate) fn any_images(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = images(generator);
    schema.remove("minItems");
    schema
}

fn image_reference() -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_REFERENCE_LENGTH,
        "x-kubernetes-validations": [{
            "rule": format!("self.matches({REFERENCE_PATTERN:?})"),
            "messageExpression": "'\"' + self + '\" is not an image reference: want [HOST[:PORT]/]PATH[:TAG][@DIGEST] with a lower-case path \
                and a tag of at most 128 characters, such as nginx:1.29 or ghcr.io/acme/app@sha256:<64 hex digits>'",
            "message": "must be an image reference such as nginx:1.29",
        }],
    })
}

const HOST_PATTERN: &str =
    r"^(localhost|[a-zA-Z0-9][a-zA-Z0-9-]*([.][a-zA-Z0-9-]+)*|\[[a-fA-F0-9:.]+\])(:[0-9]{1,5})?$";

/// A registry's host, with or without a port.
pub(crate) fn registry_host(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 261,
        "x-kubernetes-validations": [{
            "rule": format!("self.matches({HOST_PATTERN:?})"),
            "message": "must be a host, with or without a port, such as registry.example:5000; no protocol and no path",
        }],
    })
}

/// [`registry_host`], or nothing.
pub(crate) fn optional_registry_host(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = registry_host(generator);
    schema.insert("nullable".to_owned(), true.into());
    schema
}

/// The first part of the path of every copy.
pub(crate) fn repository_prefix(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 128,
        "x-kubernetes-validations": [{
            "rule": "self == '' || self.matches('^[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*$')",
            "message": "must be a path in lower case, such as mirror or team/mirror; no slash at either end",
        }],
    })
}

/// Platforms as `os/architecture` or `os/architecture/variant`.
pub(crate) fn platforms(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": 64,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$')",
                "message": "must be os/architecture or os/architecture/variant, such as linux/amd64 or linux/arm/v7",
            }],
        },
    })
}

/// Patterns over the names of images.
pub(crate) fn patterns(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[a-zA-Z0-9*._:/-]+$')",
                "message": "must be the name of an image without tag and digest, in which * and ** stand for anything, such as *.internal/**",
            }],
        },
    })
}

/// A duration of at least a minute.
pub(crate) fn retention(_: &mut SchemaGenerator) -> Schema {
    duration_between("1m", "87600h", "must be a duration from 1m to 87600h, such as 720h")
}

/// A label selector whose size is bounded and whose operators are checked: the API server looks at neither in a custom resource.
pub(crate) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("a node")
}

/// [`node_selector`] for pods and namespaces.
pub(crate) fn object_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("an object")
}

fn label_selector(of: &str) -> Schema {
    let label_value = json_schema!({"type": "string", "maxLength": 63});
    let label_key = json_schema!({"type": "string", "minLength": 1, "maxLength": 317});
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": format!("Labels that {of} must have, all of them."),
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": label_value,
            },
            "matchExpressions": {
                "description": format!("Requirements that {of} must meet, all of them."),
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": label_key,
                        "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": {"type": "array", "maxItems": 256, "items": label_value, "x-kubernetes-list-type": "atomic"},
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                        "message": "operators In and NotIn need values; Exists and DoesNotExist must have none",
                    }],
                },
            },
        },
    })
}

/// A duration of at least one second and at most a day.
pub(crate) fn timeout(_: &mut SchemaGenerator) -> Schema {
    duration_between(
        "1s",
        "24h",
        "must be a duration from 1s to 24h, such as 30s, 10m or 1h30m",
    )
}

/// Zero, or a duration of at least ten seconds.
pub(crate) fn refresh_interval(_: &mut SchemaGenerator) -> Schema {
    let mut schema = duration(
        &format!(
            "self.matches({DURATION_PATTERN:?}) && (duration(self) == duration('0s') || (duration(self) >= duration('10s') && duration(self) <= duration('8760h')))"
        ),
        "must be 0s (only on demand) or a duration from 10s to 8760h, such as 15m or 1h",
    );
    schema.insert("nullable".to_owned(), true.into());
    schema
}

fn duration_between(least: &str, most: &str, message: &str) -> Schema {
    duration(
        &format!(
            "self.matches({DURATION_PATTERN:?}) && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
        ),
        message,
    )
}

fn duration(rule: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [{"rule": rule, "message": message}],
    })
}

/// A number of nodes, or a share of them.
pub(crate) fn parallelism(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "default": "25%",
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 10,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self >= 1 : self.matches('^(100|[1-9][0-9]?)%$')",
            "message": "must be a number of nodes, at least 1, or a share of them from \"1%\" to \"100%\"",
        }],
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ImageReference;

    fn pattern() -> regex::Regex {
        regex::Regex::new(REFERENCE_PATTERN).unwrap()
    }

    /// What the parser takes, the API server must take; it may take a little more (ports over 65535, a malformed address in
    /// brackets), which the controller then reports as `InvalidReference`.
    #[test]
    fn the_pattern_takes_what_the_parser_takes() {
        let pattern = pattern();
        let sha = "a".repeat(64);
        for reference in [
            "nginx".to_owned(),
            "nginx:1.29".to_owned(),
            format!("ghcr.io/acme/model:v7@sha256:{sha}"),
            "localhost/a".to_owned(),
            "[::1]:5000/a".to_owned(),
            "HOST/a".to_owned(),
            "a--b/c__d.e:_x".to_owned(),
        ] {
            assert!(reference.parse::<ImageReference>().is_ok(), "{reference}");
            assert!(pattern.is_match(&reference), "{reference}");
        }
    }

    #[test]
    fn the_pattern_refuses_what_people_get_wrong() {
        let pattern = pattern();
        for reference in [
            "",
            "Nginx",
            "a/Nginx",
            "ngi nx",
            "nginx:",
            "nginx:-a",
            "nginx@sha256:abc",
            "https://x/y",
            "a//b",
            "nginx/",
            "x/a___b",
            "nginx:a:b",
            "-nginx",
        ] {
            assert!(!pattern.is_match(reference), "{reference}");
        }
    }

    proptest! {
        #[test]
        fn pattern_covers_the_parser(text in "[a-zA-Z0-9:/@.\\[\\]_-]{0,60}") {
            if text.parse::<ImageReference>().is_ok() && text.len() < 200 {
                prop_assert!(pattern().is_match(&text), "{}", text);
            }
        }
    }
}
