//! Manifests in files, in folders, and in standard input.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::error::Error;

/// What a file of manifests may be called.
const MANIFESTS: [&str; 3] = ["json", "yaml", "yml"];

/// The objects in a file, in a folder, or in standard input (`-`).
pub(crate) fn documents(path: &Path) -> Result<Vec<Value>, Error> {
    let mut objects = Vec::new();
    for (path, text) in texts(path)? {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| Error::File {
            path: path.display().to_string(),
            reason: format!("it is neither YAML nor JSON: {}", first_line(&error.to_string())),
        })?;
        objects.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    Ok(objects)
}

/// Each text, with where it is from.
fn texts(path: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let failed = |path: &Path, error: &io::Error| Error::File {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .lock()
            .read_to_string(&mut text)
            .map_err(|error| failed(path, &error))?;
        return Ok(vec![(path.to_owned(), text)]);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|error| failed(path, &error))?;
        files = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| MANIFESTS.contains(&extension))
        });
        files.sort_unstable();
    }
    files
        .into_iter()
        .map(|file| match fs::read_to_string(&file) {
            Ok(text) => Ok((file, text)),
            Err(error) => Err(failed(&file, &error)),
        })
        .collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
