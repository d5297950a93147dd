//! Patterns over the names of images: `*` is anything within one part of the path, `**` any number of parts.

/// Whether a name such as `docker.io/library/nginx` is meant.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), name.split('/').collect());
    parts(&pattern, &name)
}

fn parts(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => parts(rest, name) || (!name.is_empty() && parts(pattern, &name[1..])),
        (Some((glob, pattern)), Some((part, name))) => within(glob.as_bytes(), part.as_bytes()) && parts(pattern, name),
        _ => false,
    }
}

/// The usual way to match with one kind of wildcard: what the last `*` stands for grows until the rest fits.
fn within(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while position < text.len() {
        if glob.get(at) == Some(&b'*') {
            last = Some((at, position));
            at += 1;
        } else if glob.get(at) == Some(&text[position]) {
            at += 1;
            position += 1;
        } else if let Some((star, taken)) = last {
            last = Some((star, taken + 1));
            (at, position) = (star + 1, taken + 1);
        } else {
            return false;
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stays_within_a_part_and_two_do_not() {
        for (pattern, name, expected) in [
            ("*.internal/**", "registry.internal/a/b", true),
            ("*.internal/**", "registry.internal/a", true),
            ("*.internal/**", "internal/a", false),
            ("*.internal/**", "a.internal.example/b", false),
            ("*.internal/*", "registry.internal/a/b", false),
            ("docker.io/library/*", "docker.io/library/nginx", true),
            ("docker.io/library/*", "docker.io/acme/nginx", false),
            ("**/nginx", "docker.io/library/nginx", true),
            ("**/nginx", "docker.io/library/nginx-x", false),
            ("**", "docker.io/library/nginx", true),
            ("docker.io", "docker.io/library/nginx", false),
            ("quay.io/**/test-*", "quay.io/a/b/test-1", true),
            ("quay.io/**/test-*", "quay.io/test-1", true),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxax", false),
            ("r.lan:5000/*", "r.lan:5000/x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(100);
        assert!(!matches(&pattern, &"a".repeat(99)));
        assert!(!matches(&pattern, &format!("{}b", "a".repeat(5000))));
    }
}
