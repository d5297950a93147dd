//! What a command line asks to be copied.

use coral_api::ImageReference;
use coral_mirror::{Job, Naming, Place};

use super::Error;

/// The copies of these images. A destination that ends with a slash is a place, where each copy keeps its name; any other is the name of
/// the only copy, with the tag of the original unless it has one.
pub(crate) fn jobs(sources: &[ImageReference], destination: &str, naming: Naming) -> Result<Vec<Job>, Error> {
    let place_error = |source| Error::Place {
        destination: destination.to_owned(),
        source,
    };
    if destination.contains('@') {
        return Err(Error::Digest {
            destination: destination.to_owned(),
        });
    }
    if destination.ends_with('/') {
        let place = Place::new(destination, naming).map_err(place_error)?;
        return sources
            .iter()
            .map(|source| {
                Ok(Job {
                    source: source.clone(),
                    destination: place.copy_of(source)?,
                })
            })
            .collect();
    }
    let [source] = sources else {
        return Err(Error::OneName {
            destination: destination.to_owned(),
        });
    };
    let named = match (source.tag(), source.digest()) {
        _ if has_tag(destination) => destination.to_owned(),
        (Some(tag), _) => format!("{destination}:{tag}"),
        (None, Some(digest)) => format!("{destination}@{digest}"),
        (None, None) => destination.to_owned(),
    };
    Ok(vec![Job {
        source: source.clone(),
        destination: named.parse().map_err(place_error)?,
    }])
}

/// The colon of a port comes before a slash.
fn has_tag(reference: &str) -> bool {
    reference.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn destinations(sources: &[&str], destination: &str) -> Result<Vec<String>, Error> {
        let sources: Vec<ImageReference> = sources.iter().map(|source| source.parse().unwrap()).collect();
        let jobs = jobs(&sources, destination, Naming::Path)?;
        Ok(jobs.into_iter().map(|job| job.destination.to_string()).collect())
    }

    #[test]
    fn destinations_are_names_or_places() {
        let by_digest = format!("ghcr.io/a/b@{DIGEST}");
        let both = format!("ghcr.io/a/b:v1@{DIGEST}");
        let cases: [(&[&str], &str, &[&str]); 7] = [
            (&["nginx:1.29"], "r.lan/web", &["r.lan/web:1.29"]),
            (&["nginx:1.29"], "r.lan:5000/web:prod", &["r.lan:5000/web:prod"]),
            (&["nginx"], "localhost:5000/web", &["localhost:5000/web:latest"]),
            (&[&by_digest], "r.lan/b", &[&format!("r.lan/b@{DIGEST}")]),
            (&[&both], "r.lan/b", &["r.lan/b:v1"]),
            (&["nginx:1"], "r.lan/m/", &["r.lan/m/docker.io/library/nginx:1"]),
            (
                &["nginx:1", "ghcr.io/a/b:c"],
                "r.lan/",
                &["r.lan/docker.io/library/nginx:1", "r.lan/ghcr.io/a/b:c"],
            ),
        ];
        for (sources, destination, expected) in cases {
            assert_eq!(destinations(sources, destination).unwrap(), expected, "{destination}");
        }
    }

    #[test]
    fn destinations_that_make_no_sense_are_refused() {
        let error = destinations(&["a", "b"], "r.lan/x").unwrap_err();
        assert!(error.hint().unwrap().contains("r.lan/x/"), "{error}");
        for destination in ["", "/", "https://r.lan/x", "r.lan/X", &format!("r.lan/x@{DIGEST}")] {
            let error = destinations(&["a"], destination).unwrap_err();
            assert!(error.exit_code() == crate::exit::USAGE, "{destination}: {error}");
        }
    }
}
