//! Software that lies on the machine, and how it becomes an image.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::oci::LayerContents;
use crate::{
    cluster::{prerequisites, process},
    progress::Progress,
};

/// What can become an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Software {
    /// The Go toolchain with its library's sources; about 270 MB. Always there.
    Go,
    /// The Rust compiler; about 380 MB. Always there.
    Rust,
    /// Node.js with npm; about 120 MB. Installed where it is missing.
    Node,
    /// Python with its library; about 100 MB. Installed where it is missing.
    Python,
}

/// Where it lies, and what an image of it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: &'static str,
    /// Says what it is: the path, size and time of its main file.
    pub(super) key: String,
    /// The programs and libraries whose shared libraries it needs.
    linked: Vec<PathBuf>,
    pub(super) layers: Vec<LayerContents>,
    pub(super) command: Vec<String>,
}

impl Software {
    /// All of it, the largest first.
    pub const ALL: [Self; 4] = [Self::Rust, Self::Go, Self::Node, Self::Python];

    /// The name of its image.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Rust => "rust",
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    pub(super) fn find(self, progress: &dyn Progress) -> Result<Found> {
        match self {
            Self::Go => go(),
            Self::Rust => rust(),
            Self::Node => node(progress),
            Self::Python => python(progress),
        }
        .with_context(|| format!("find what an image of {} is made of", self.name()))
    }
}

/// Layers of plain copies: links inside of them stay links.
fn trees(paths: Vec<PathBuf>, exclude: Vec<&'static str>) -> LayerContents {
    LayerContents {
        paths,
        exclude,
        ..LayerContents::default()
    }
}

/// Layers of single files, which may be links to what is not in the image.
fn files(paths: Vec<PathBuf>) -> LayerContents {
    LayerContents {
        paths,
        follow_links: true,
        ..LayerContents::default()
    }
}

fn go() -> Result<Found> {
    let root = canonical(&asked("go", &["env", "GOROOT"])?)?;
    let program = root.join("bin/go");
    let existing = |names: &[&str]| {
        names
            .iter()
            .map(|name| root.join(name))
            .filter(|path| path.exists())
            .collect()
    };
    Ok(Found {
        name: "go",
        key: key(&program)?,
        linked: vec![program.clone()],
        layers: vec![
            trees(existing(&["bin", "pkg", "lib", "VERSION", "go.env"]), Vec::new()),
            trees(existing(&["src"]), Vec::new()),
        ],
        command: vec![text(&program)?, "version".to_owned()],
    })
}

fn rust() -> Result<Found> {
    let root = canonical(&asked("rustc", &["--print", "sysroot"])?)?;
    let program = root.join("bin/rustc");
    let libraries = fs::read_dir(root.join("lib")).with_context(|| format!("read {}", root.join("lib").display()))?;
    let libraries: Vec<PathBuf> = libraries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    let (llvm, driver): (Vec<_>, Vec<_>) = libraries.iter().cloned().partition(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("libLLVM"))
    });
    let programs = [program.clone(), root.join("bin/cargo")]
        .into_iter()
        .filter(|path| path.exists());
    let layers = [llvm, driver.into_iter().chain(programs).collect()];
    Ok(Found {
        name: "rust",
        key: key(&program)?,
        linked: libraries.into_iter().chain([program.clone()]).collect(),
        layers: layers
            .into_iter()
            .filter(|paths: &Vec<PathBuf>| !paths.is_empty())
            .map(files)
            .collect(),
        command: vec![text(&program)?, "--version".to_owned()],
    })
}

fn node(progress: &dyn Progress) -> Result<Found> {
    if !prerequisites::on_path("node") {
        prerequisites::install(&["nodejs"], progress)?;
    }
    let program = canonical(&asked("node", &["-p", "process.execPath"])?)?;
    let mut layers = vec![files(vec![program.clone()])];
    // npm, where it came with Node.js.
    let modules = program.ancestors().nth(2).map(|prefix| prefix.join("lib/node_modules"));
    layers.extend(
        modules
            .filter(|path| path.is_dir())
            .map(|path| trees(vec![path], Vec::new())),
    );
    Ok(Found {
        name: "node",
        key: key(&program)?,
        linked: vec![program.clone()],
        layers,
        command: vec![
            text(&program)?,
            "-e".to_owned(),
            "console.log('Node.js', process.version)".to_owned(),
        ],
    })
}

fn python(progress: &dyn Progress) -> Result<Found> {
    if !prerequisites::on_path("python3") {
        prerequisites::install(&["python3"], progress)?;
    }
    let question = "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); \
                    print(sysconfig.get_path('stdlib')); import _ctypes; print(os.path.dirname(_ctypes.__file__))";
    let answer = asked("python3", &["-c", question])?;
    let [program, library, extensions] = answer.lines().collect::<Vec<_>>()[..] else {
        anyhow::bail!("python3 answered: {answer}");
    };
    let (program, library) = (PathBuf::from(program), PathBuf::from(library));
    let extensions = fs::read_dir(extensions).with_context(|| format!("read {extensions}"))?;
    let mut linked: Vec<PathBuf> = extensions
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "so"))
        .collect();
    linked.push(program.clone());
    linked.sort();
    // A Python that was built here has its own library beside it, which is no library of the system.
    let own: Vec<PathBuf> = shared_libraries(&linked)?
        .into_iter()
        .filter(|path| !is_of_system(path))
        .collect();
    let interpreter = own.into_iter().chain([program.clone()]).collect();
    let exclude = vec!["__pycache__", "site-packages", "dist-packages", "config-*", "*.a"];
    Ok(Found {
        name: "python",
        key: key(&program)?,
        linked,
        layers: vec![files(interpreter), trees(vec![library], exclude)],
        command: vec![
            text(&program)?,
            "-c".to_owned(),
            "import ctypes, json, sys; print('Python', sys.version)".to_owned(),
        ],
    })
}

/// The libraries of the system that this software needs. They make the layer that all images share.
pub(super) fn system_libraries(software: &[Found]) -> Result<Vec<PathBuf>> {
    let linked: Vec<PathBuf> = software.iter().flat_map(|found| found.linked.clone()).collect();
    Ok(shared_libraries(&linked)?
        .into_iter()
        .filter(|path| is_of_system(path))
        .collect())
}

fn is_of_system(path: &Path) -> bool {
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

fn shared_libraries(files: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    // It fails for a program that is linked statically and needs nothing.
    let output = Command::new("ldd").args(files).output().context("start ldd")?;
    Ok(libraries_in(&String::from_utf8_lossy(&output.stdout)))
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries_in(output: &str) -> BTreeSet<PathBuf> {
    output
        .lines()
        .filter_map(|line| {
            let (library, _address) = line.trim().split_once(" (0x")?;
            let path = library.split_once(" => ").map_or(library, |(_, path)| path);
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

/// Changes when the file does.
pub(super) fn key(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(format!("{} {} {}", path.display(), metadata.len(), metadata.mtime()))
}

fn asked(program: &str, arguments: &[&str]) -> Result<String> {
    let answer = process::run(program, arguments)?.trim().to_owned();
    ensure!(!answer.is_empty(), "{program} answered nothing");
    Ok(answer)
}

fn canonical(path: &str) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("find {path}"))
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("the path is not UTF-8")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_output_of_ldd() {
        let output = "\
/opt/python:
\tlinux-vdso.so.1 (0x00007f38b0a40000)
\tlibpython3.so => /opt/lib/libpython3.so (0x00007f38b0400000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f38b021e000)
\tlibgone.so => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f38b0a42000)
";
        let found: Vec<PathBuf> = libraries_in(output).into_iter().collect();
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
            "/opt/lib/libpython3.so",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(is_of_system(&found[0]) && !is_of_system(&found[2]));
    }
}
