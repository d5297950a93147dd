//! The images of a command line, checked before anything is sent.

use coral_api::{ImageReference, InvalidReference};

/// Images that mean different things, in the order in which they were given.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Images {
    /// Each image once.
    pub(crate) references: Vec<ImageReference>,
    /// Spellings that were left out, each with the spelling that stays.
    pub(crate) duplicates: Vec<(String, String)>,
}

/// All that is wrong with the images of a command line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", sentences(.invalid))]
pub(crate) struct InvalidImages {
    invalid: Vec<InvalidReference>,
}

impl InvalidImages {
    /// What was probably meant.
    pub(crate) fn hint(&self) -> Option<String> {
        let suggestions: Vec<String> = self.invalid.iter().filter_map(suggestion).collect();
        (!suggestions.is_empty()).then(|| format!("did you mean {}?", suggestions.join(", ")))
    }
}

/// Reads all images, and reports all that are wrong.
pub(crate) fn parse<S: AsRef<str>>(images: &[S]) -> Result<Images, InvalidImages> {
    let mut seen: Vec<(&str, ImageReference)> = Vec::new();
    let mut duplicates = Vec::new();
    let mut invalid = Vec::new();
    for image in images.iter().map(AsRef::as_ref) {
        match image.parse::<ImageReference>() {
            Ok(reference) => match seen.iter().find(|(_, earlier)| *earlier == reference) {
                Some((earlier, _)) => duplicates.push((image.to_owned(), (*earlier).to_owned())),
                None => seen.push((image, reference)),
            },
            Err(error) => invalid.push(error),
        }
    }
    if !invalid.is_empty() {
        return Err(InvalidImages { invalid });
    }
    Ok(Images {
        references: seen.into_iter().map(|(_, reference)| reference).collect(),
        duplicates,
    })
}

fn sentences(invalid: &[InvalidReference]) -> String {
    match invalid {
        [only] => only.to_string(),
        several => {
            let mut text = format!("{} image references are malformed:", several.len());
            for error in several {
                text.push_str("\n  ");
                text.push_str(&error.to_string());
            }
            text
        }
    }
}

/// The reference without what people get wrong most often, if that makes it one.
fn suggestion(error: &InvalidReference) -> Option<String> {
    let text = error.reference.trim();
    let text = text
        .split_once("://")
        .map_or(text, |(_, rest)| rest)
        .trim_end_matches('/');
    let (name, digest) = text
        .split_once('@')
        .map_or((text, None), |(name, digest)| (name, Some(digest)));
    // A tag may have upper-case letters; the path in front of it may not.
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let mut suggestion = path.to_ascii_lowercase();
    for (separator, part) in [(':', tag), ('@', digest)] {
        if let Some(part) = part {
            suggestion.push(separator);
            suggestion.push_str(part);
        }
    }
    suggestion.parse::<ImageReference>().is_ok().then_some(suggestion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_image_are_one() {
        let images = parse(&["nginx", "redis:8", "docker.io/library/nginx:latest"]).unwrap();
        let familiar: Vec<String> = images.references.iter().map(ImageReference::familiar).collect();
        assert_eq!(familiar, ["nginx:latest", "redis:8"]);
        assert_eq!(
            images.duplicates,
            [("docker.io/library/nginx:latest".into(), "nginx".into())]
        );
    }

    #[test]
    fn every_malformed_image_is_reported() {
        let error = parse(&["nginx", "Nginx:1.29", "a b", "https://ghcr.io/acme/app:V7"]).unwrap_err();
        insta::assert_snapshot!(error, @r#"
        3 image references are malformed:
          "Nginx:1.29" is not an image reference: the repository path must be lower case
          "a b" is not an image reference: it contains white space
          "https://ghcr.io/acme/app:V7" is not an image reference: an image reference has no scheme; leave out what stands before the host
        "#);
        assert_eq!(error.hint().unwrap(), "did you mean nginx:1.29, ghcr.io/acme/app:V7?");
    }

    #[test]
    fn one_malformed_image_is_one_sentence_without_a_wrong_guess() {
        let error = parse(&["a//b"]).unwrap_err();
        assert!(error.to_string().starts_with("\"a//b\" is not an image reference: "));
        assert_eq!(error.hint(), None);
    }
}
