//! Label selectors as kubectl writes them, read into the `LabelSelector` of the API.
//!
//! ```text
//! gpu=true,tier!=dev,zone in (a,b),disk notin (hdd),ssd,!spot
//! ```

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Why a text is not a label selector.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidSelector {
    #[error("it is empty; leave it out to select every Linux node")]
    Empty,
    #[error("a requirement is missing before or after a comma")]
    EmptyRequirement,
    #[error("{0:?} is not a requirement; write key=value, key!=value, key in (a,b), key notin (a,b), key or !key")]
    Requirement(String),
    #[error("{0:?} needs its values in parentheses, such as {0} (a,b)")]
    Values(String),
    #[error("a parenthesis is open in {0:?}")]
    Parenthesis(String),
    #[error("a node selector has no '>' and '<': {0:?}")]
    Comparison(String),
    #[error(
        "{0:?} is not a label key: a name has at most 63 letters, digits, '-', '_' and '.', begins and ends with a letter or digit, and may have a DNS name and '/' in front"
    )]
    Key(String),
    #[error(
        "{0:?} is not a label value: it has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit"
    )]
    Value(String),
}

/// Reads a selector.
pub(crate) fn parse(text: &str) -> Result<LabelSelector, InvalidSelector> {
    if text.trim().is_empty() {
        return Err(InvalidSelector::Empty);
    }
    let mut labels = BTreeMap::new();
    let mut expressions = Vec::new();
    for requirement in split(text)? {
        match parse_requirement(requirement)? {
            Requirement::Equals(key, value) => match labels.get(&key) {
                // Two values for one key: nothing matches, and the object must say so rather than forget one.
                Some(other) if *other != value => expressions.push(expression(key, "In", vec![value])),
                _ => {
                    labels.insert(key, value);
                }
            },
            Requirement::Expression(expression) => expressions.push(expression),
        }
    }
    Ok(LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    })
}

/// The selector as kubectl would write it, for messages.
pub(crate) fn display(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    labels
        .map(|(key, value)| format!("{key}={value}"))
        .chain(expressions.map(|expression| {
            let LabelSelectorRequirement { key, operator, values } = expression;
            let values = values.as_deref().unwrap_or_default().join(",");
            match operator.as_str() {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.clone(),
            }
        }))
        .collect::<Vec<_>>()
        .join(",")
}

enum Requirement {
    Equals(String, String),
    Expression(LabelSelectorRequirement),
}

/// Cuts at the commas that are not in parentheses.
fn split(text: &str) -> Result<Vec<&str>, InvalidSelector> {
    let mut requirements = Vec::new();
    let mut start = 0;
    let mut open = false;
    for (index, character) in text.char_indices() {
        match character {
            '(' if !open => open = true,
            ')' if open => open = false,
            '(' | ')' => return Err(InvalidSelector::Parenthesis(text.to_owned())),
            ',' if !open => {
                requirements.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(InvalidSelector::Parenthesis(text.to_owned()));
    }
    requirements.push(&text[start..]);
    Ok(requirements)
}

fn parse_requirement(text: &str) -> Result<Requirement, InvalidSelector> {
    let text = text.trim();
    if text.is_empty() {
        return Err(InvalidSelector::EmptyRequirement);
    }
    if let Some(values) = text.strip_suffix(')') {
        return parse_set(text, values);
    }
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement::Expression(expression(
            parse_key(key)?,
            "DoesNotExist",
            Vec::new(),
        )));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Requirement::Expression(expression(
            parse_key(key)?,
            "NotIn",
            vec![parse_value(value)?],
        )));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::Equals(parse_key(key)?, parse_value(value)?));
    }
    if text.contains(['<', '>']) {
        return Err(InvalidSelector::Comparison(text.to_owned()));
    }
    if let Some((_, "in" | "notin")) = text.split_once(char::is_whitespace) {
        return Err(InvalidSelector::Values(text.to_owned()));
    }
    if text.contains(char::is_whitespace) {
        return Err(InvalidSelector::Requirement(text.to_owned()));
    }
    Ok(Requirement::Expression(expression(
        parse_key(text)?,
        "Exists",
        Vec::new(),
    )))
}

/// `zone in (a,b)`, given also without the closing parenthesis.
fn parse_set(text: &str, without_parenthesis: &str) -> Result<Requirement, InvalidSelector> {
    let malformed = || InvalidSelector::Requirement(text.to_owned());
    let (head, values) = without_parenthesis.split_once('(').ok_or_else(malformed)?;
    let (key, operator) = head.trim().split_once(char::is_whitespace).ok_or_else(malformed)?;
    let operator = match operator.trim() {
        "in" => "In",
        "notin" => "NotIn",
        _ => return Err(malformed()),
    };
    let values = values.split(',').map(parse_value).collect::<Result<Vec<_>, _>>()?;
    Ok(Requirement::Expression(expression(parse_key(key)?, operator, values)))
}

fn expression(key: String, operator: &str, values: Vec<String>) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key,
        operator: operator.to_owned(),
        values: (!values.is_empty()).then_some(values),
    }
}

fn parse_key(text: &str) -> Result<String, InvalidSelector> {
    let key = text.trim();
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| !crate::naming::is_dns_subdomain(prefix)) || name.is_empty() || !is_label_word(name)
    {
        return Err(InvalidSelector::Key(key.to_owned()));
    }
    Ok(key.to_owned())
}

fn parse_value(text: &str) -> Result<String, InvalidSelector> {
    let value = text.trim();
    if value.is_empty() || is_label_word(value) {
        Ok(value.to_owned())
    } else {
        Err(InvalidSelector::Value(value.to_owned()))
    }
}

fn is_label_word(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The selector as one line: labels, then expressions in the API's own words.
    fn parsed(text: &str) -> Result<String, InvalidSelector> {
        let selector = parse(text)?;
        let mut parts = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            parts.push(format!("{key}={value}"));
        }
        for LabelSelectorRequirement { key, operator, values } in selector.match_expressions.iter().flatten() {
            parts.push(format!(
                "{key} {operator} {}",
                values.as_deref().unwrap_or_default().join("|")
            ));
        }
        Ok(parts.join("; "))
    }

    #[test]
    fn selectors_of_kubectl_are_read() {
        for (text, expected) in [
            ("gpu=true", "gpu=true"),
            ("gpu==true", "gpu=true"),
            (" gpu = true , a=b ", "a=b; gpu=true"),
            ("a=", "a="),
            ("tier!=dev", "tier NotIn dev"),
            ("zone in (a,b)", "zone In a|b"),
            ("zone in(a, b )", "zone In a|b"),
            ("zone  notin  (a)", "zone NotIn a"),
            ("x", "x Exists "),
            ("!x", "x DoesNotExist "),
            ("! x", "x DoesNotExist "),
            (
                "gpu=true,tier!=dev,zone in (a,b),!x,x",
                "gpu=true; tier NotIn dev; zone In a|b; x DoesNotExist ; x Exists ",
            ),
            (
                "node-role.kubernetes.io/worker=,topology.kubernetes.io/zone=eu-1a",
                "node-role.kubernetes.io/worker=; topology.kubernetes.io/zone=eu-1a",
            ),
            ("a=1,a=2", "a=1; a In 2"),
            ("a=1,a=1", "a=1"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused_with_their_reason() {
        use InvalidSelector as E;
        for (text, expected) in [
            ("", E::Empty),
            ("  ", E::Empty),
            ("a=b,", E::EmptyRequirement),
            (",a", E::EmptyRequirement),
            ("a b", E::Requirement("a b".into())),
            ("zone in", E::Values("zone in".into())),
            ("zone in (a", E::Parenthesis("zone in (a".into())),
            ("zone in a)", E::Parenthesis("zone in a)".into())),
            ("zone under (a)", E::Requirement("zone under (a)".into())),
            ("cpu>3", E::Comparison("cpu>3".into())),
            ("=b", E::Key(String::new())),
            ("-a=b", E::Key("-a".into())),
            ("A_B/c=d", E::Key("A_B/c".into())),
            ("a=b c", E::Value("b c".into())),
            ("a=b=c", E::Value("b=c".into())),
            ("a=ä", E::Value("ä".into())),
        ] {
            assert_eq!(parsed(text), Err(expected), "{text:?}");
        }
        let long = "v".repeat(64);
        assert_eq!(parsed(&format!("a={long}")), Err(E::Value(long)));
    }

    #[test]
    fn what_is_displayed_reads_back_the_same() {
        for text in ["gpu=true", "a=b,zone in (a,b),tier notin (dev),x,!y", "a="] {
            let selector = parse(text).unwrap();
            assert_eq!(display(&selector), text);
        }
        assert_eq!(display(&parse("tier!=dev").unwrap()), "tier notin (dev)");
    }
}
