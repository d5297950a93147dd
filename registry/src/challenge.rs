//! What a registry says of how it wants to be asked: `WWW-Authenticate`.

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token, from somewhere else.
    Bearer {
        /// Address of the server that gives tokens.
        realm: String,
        /// What the registry is called there.
        service: Option<String>,
        /// What the token is to allow, where the registry says so.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of the ways that an answer offers: a token, else a password.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let offered: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let bearer = offered.iter().position(|offer| *offer != Self::Basic);
        offered.into_iter().nth(bearer.unwrap_or(0))
    }
}

/// The ways that one header offers. What is neither `Basic` nor a whole `Bearer` is passed over.
fn parse(value: &str) -> Vec<Challenge> {
    let mut offers = Vec::new();
    let mut rest = value;
    let mut scheme = None;
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            break;
        }
        if let Some(after) = after.trim_start().strip_prefix('=')
            && scheme.is_some()
        {
            let (value, after) = split_value(after.trim_start());
            parameters.push((word.to_ascii_lowercase(), value));
            rest = after;
        } else {
            offers.extend(offer(scheme.replace(word), std::mem::take(&mut parameters)));
            rest = after;
        }
    }
    offers.extend(offer(scheme, parameters));
    offers
}

fn offer(scheme: Option<&str>, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let scheme = scheme?;
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer {
        realm: realm?,
        service,
        scope,
    })
}

/// A token of HTTP, and what stands behind it.
fn split_token(text: &str) -> (&str, &str) {
    let is_separator = |character: char| character.is_ascii_whitespace() || matches!(character, '=' | ',' | '"');
    text.split_at(text.find(is_separator).unwrap_or(text.len()))
}

/// The value of a parameter, quoted or not, and what stands behind it.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    fn read(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::from_headers(&headers)
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let cases: [(&[&str], Option<Challenge>); 14] = [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push""#,
                ],
                Some(bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/nginx:pull,push"),
                )),
            ),
            (
                &[r#"bearer  Realm = "https://a/t" , Service=b"#],
                Some(bearer("https://a/t", Some("b"), None)),
            ),
            (
                &[r#"Bearer realm="a\"b\\c",error="invalid_token""#],
                Some(bearer("a\"b\\c", None, None)),
            ),
            (&[r#"Basic realm="Registry, private""#], Some(Challenge::Basic)),
            (&["BASIC"], Some(Challenge::Basic)),
            (
                &[r#"Basic realm="x", Bearer realm="https://a/t",service="s""#],
                Some(bearer("https://a/t", Some("s"), None)),
            ),
            (
                &[r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#],
                Some(bearer("https://a/t", None, None)),
            ),
            (&[r#"Negotiate, Basic realm="x""#], Some(Challenge::Basic)),
            (&[r#"Negotiate abc==, Basic realm="x""#], Some(Challenge::Basic)),
            (&["Bearer service=x"], None),
            (&["Bearer realm=\"unclosed"], Some(bearer("unclosed", None, None))),
            (&["Negotiate"], None),
            (&[",,, =x \"\""], None),
            (&[], None),
        ];
        for (values, expected) in cases {
            assert_eq!(read(values), expected, "{values:?}");
        }
    }
}
