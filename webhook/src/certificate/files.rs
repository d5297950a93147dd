//! A certificate that somebody else puts into a folder, as a Secret volume does it: `tls.crt` and `tls.key` behind a link `..data` that is
//! swapped.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    ServedCertificate,
    stored::{CERTIFICATE, KEY},
};

/// How often the folder is looked at. A volume follows its Secret after a minute or so; nothing is gained by being told of it at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Serves what is in `folder`, for ever.
pub(crate) async fn follow(folder: PathBuf, served: ServedCertificate) {
    let mut shown = None;
    let mut was_told = false;
    loop {
        match read(&folder) {
            Ok(found) if shown.as_ref() == Some(&found) => was_told = false,
            Ok(found) => {
                match served.set(&found.0, &found.1) {
                    Ok(()) => was_told = false,
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(error = %error, cause, "The certificate in the folder is of no use; the last one is served on");
                    }
                }
                shown = Some(found);
            }
            Err(error) => {
                if !was_told {
                    tracing::warn!(error = %error, folder = %folder.display(), "There is no certificate in the folder");
                }
                was_told = true;
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The certificate and its key, both from before or both from after a swap.
fn read(folder: &Path) -> io::Result<(Vec<u8>, Vec<u8>)> {
    // The link is followed once, for both.
    let data = fs::canonicalize(folder.join("..data")).unwrap_or_else(|_| folder.to_owned());
    Ok((fs::read(data.join(CERTIFICATE))?, fs::read(data.join(KEY))?))
}
