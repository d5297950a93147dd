//! What to tell of an image that was not copied.

pub(crate) use coral_mirror::chain;
use coral_registry::Error as RegistryError;

/// What to do about it.
pub(crate) fn hint(error: &coral_mirror::Error) -> Option<String> {
    let hint = match error.registry_error()? {
        RegistryError::Unauthorized { host, .. } => {
            format!("`docker login {host}` lets this command in, too: it reads what that writes")
        }
        RegistryError::NotFound { .. } if !error.is_about_destination() => {
            "there is no such image, or it is hidden from you: `docker login` lets this command in, too".to_owned()
        }
        error @ RegistryError::Unreachable { host, .. } if !error.is_transient() => {
            format!(
                "--ca-file {host}=FILE names the authority of its certificate; --plain-http {host} does without TLS"
            )
        }
        error if error.is_transient() => {
            "the same command goes on from here; what is there is not sent again".to_owned()
        }
        _ => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn hints_say_what_to_do() {
        let read = |source| coral_mirror::Error::Read {
            what: "r.lan/a:b".to_owned(),
            source: Arc::new(source),
        };
        let host = || "r.lan".to_owned();
        let refused = read(RegistryError::Unauthorized {
            host: host(),
            said: Some("DENIED".to_owned()),
        });
        assert_eq!(
            chain(&refused),
            "failed to read r.lan/a:b: r.lan refuses access: DENIED"
        );
        assert!(hint(&refused).unwrap().contains("docker login r.lan"));
        let limited = read(RegistryError::RateLimited {
            host: host(),
            retry_after: None,
        });
        assert!(hint(&limited).unwrap().contains("goes on from here"));
        let malformed = read(RegistryError::Malformed {
            host: host(),
            what: "nonsense",
        });
        assert_eq!(hint(&malformed), None);
    }
}
