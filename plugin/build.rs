//! Puts the manifests of `deploy/` into the binary, as they are: what is applied is composed from them when it is needed.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let deploy = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../deploy");
    println!("cargo::rerun-if-changed={}", deploy.display());
    println!("cargo::rerun-if-env-changed=CORAL_IMAGE");
    let mut files = Vec::new();
    collect(&deploy, &mut files)?;
    files.sort_unstable();
    let mut source = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&deploy)?.to_string_lossy().replace('\\', "/");
        let path = file.canonicalize()?;
        writeln!(
            source,
            "    ({name:?}, include_str!({:?})),",
            path.display().to_string()
        )?;
    }
    source.push_str("]\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("manifests.rs"), source)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "json")
        {
            files.push(path);
        }
    }
    Ok(())
}
