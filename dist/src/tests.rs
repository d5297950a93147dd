//! A release as krew takes it: by its rules for manifests, archives and links, and then through kubectl.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::Component,
    process::Output,
};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn release(folder: &Path) -> Release<'static> {
    Release {
        root: workspace(),
        output: folder.to_owned(),
        version: "v1.2.3".to_owned(),
        base_url: "https://releases.example/v1.2.3/".to_owned(),
        homepage: "https://coral.example".to_owned(),
    }
}

fn manifest(release: &Release<'_>) -> Value {
    let text = fs::read_to_string(release.output.join(MANIFEST)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// A release of these platforms, whose program is this file.
fn released(platforms: &[&str], program: &Path) -> TempDir {
    let folder = TempDir::new().unwrap();
    let release = release(folder.path());
    for target in platforms {
        release.pack(Platform::of(target).unwrap(), program).unwrap();
    }
    release.finish().unwrap();
    folder
}

/// The plugin as the tests of the whole workspace have built it, or built now.
fn plugin() -> PathBuf {
    let path = target_dir().join("debug/kubectl-coral");
    if !path.exists() {
        let built = cargo(workspace(), &["build", "--quiet", "--locked", "--package", PLUGIN]).status();
        assert!(built.unwrap().success());
    }
    path
}

/// What krew checks in a manifest before it does anything.
fn is_valid(manifest: &Value, name: &str) -> Result<(), String> {
    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spec = &manifest["spec"];
    check(
        manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2",
        "apiVersion",
    )?;
    check(manifest["kind"] == "Plugin", "kind")?;
    let is_safe = name
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
    check(is_safe && manifest["metadata"]["name"] == name, "name")?;
    let short = text(&spec["shortDescription"]);
    check(!short.is_empty() && !short.contains(['\r', '\n']), "shortDescription")?;
    let version = text(&spec["version"]);
    let numbers: Vec<&str> = version.strip_prefix('v').unwrap_or_default().split('.').collect();
    check(
        numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok()),
        "version",
    )?;
    let platforms = spec["platforms"].as_array().ok_or("platforms")?;
    check(!platforms.is_empty(), "platforms")?;
    for platform in platforms {
        check(text(&platform["uri"]).starts_with("https://"), "uri")?;
        let sum = text(&platform["sha256"]);
        let is_sum = sum.len() == 64 && sum.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'));
        check(is_sum, "sha256")?;
        check(!text(&platform["bin"]).is_empty(), "bin")?;
        let files = platform["files"].as_array().ok_or("files")?;
        let are_named = files
            .iter()
            .all(|file| !text(&file["from"]).is_empty() && !text(&file["to"]).is_empty());
        check(!files.is_empty() && are_named, "files")?;
        let labels = platform["selector"]["matchLabels"].as_object().ok_or("selector")?;
        let are_known = labels.keys().all(|key| ["os", "arch"].contains(&key.as_str()));
        check(!labels.is_empty() && are_known, "selector")?;
    }
    Ok(())
}

/// krew's unpacking: regular files and folders below the folder, and nothing else.
fn unpack(archive: &Path, folder: &Path) {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive).unwrap()));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        assert!(
            path.components().all(|part| matches!(part, Component::Normal(_))),
            "{path:?}"
        );
        assert_eq!(entry.header().entry_type(), tar::EntryType::Regular, "{path:?}");
        let target = folder.join(&path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mode = entry.header().mode().unwrap();
        let mut file = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(target)
            .unwrap();
        std::io::copy(&mut entry, &mut file).unwrap();
    }
}

/// Installs as `kubectl krew install --manifest=coral.yaml --archive=…` does, and returns the folder of the links.
fn install(release: &Path, home: &Path) -> PathBuf {
    let text = fs::read_to_string(release.join(MANIFEST)).unwrap();
    let manifest: Value = serde_saphyr::from_str(&text).unwrap();
    is_valid(&manifest, "coral").unwrap();
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    let platform = platforms
        .iter()
        .find(|platform| platform["selector"]["matchLabels"] == json!({"os": "linux", "arch": "amd64"}))
        .unwrap();
    let archive = release.join(platform["uri"].as_str().unwrap().rsplit('/').next().unwrap());
    assert_eq!(hex(&Sha256::digest(fs::read(&archive).unwrap())), platform["sha256"]);
    let staging = home.join("staging");
    unpack(&archive, &staging);
    let store = home
        .join("store/coral")
        .join(manifest["spec"]["version"].as_str().unwrap());
    fs::create_dir_all(&store).unwrap();
    for file in platform["files"].as_array().unwrap() {
        let (from, to) = (file["from"].as_str().unwrap(), file["to"].as_str().unwrap());
        // A dot is the name that the file has.
        let to = if to == "." { from } else { to };
        fs::rename(staging.join(from), store.join(to)).unwrap();
    }
    let program = store.join(platform["bin"].as_str().unwrap());
    assert!(program.exists(), "{program:?}");
    let bin = home.join("bin");
    fs::create_dir_all(&bin).unwrap();
    // Dashes in the name of a plugin are underscores in that of its file.
    symlink(
        Path::new("..").join(program.strip_prefix(home).unwrap()),
        bin.join(format!("kubectl-{}", "coral".replace('-', "_"))),
    )
    .unwrap();
    bin
}

/// kubectl of the PATH, with these plugins and no others.
fn kubectl(bin: &Path, arguments: &[&str]) -> Output {
    let folders = env::split_paths(&env::var_os("PATH").unwrap()).collect::<Vec<_>>();
    let kubectl = folders
        .iter()
        .map(|folder| folder.join("kubectl"))
        .find(|path| path.exists());
    let system = ["/usr/bin", "/bin"].map(PathBuf::from);
    let path = env::join_paths([bin.to_owned()].into_iter().chain(system)).unwrap();
    let mut command = Command::new(kubectl.expect("kubectl is on the PATH"));
    command.env_clear().env("PATH", path).env("HOME", bin).args(arguments);
    command.output().unwrap()
}

#[test]
fn krew_installs_it_and_kubectl_runs_it() {
    let released = released(&["x86_64-unknown-linux-gnu"], &plugin());
    let home = TempDir::new().unwrap();
    let bin = install(released.path(), home.path());
    let store = home.path().join("store/coral/v1.2.3");
    assert_eq!(
        fs::read(store.join("LICENSE")).unwrap(),
        fs::read(workspace().join("LICENSE")).unwrap()
    );
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let list = kubectl(&bin, &["plugin", "list", "--name-only"]);
    assert_eq!(text(&list.stdout).lines().last(), Some("kubectl-coral"), "{list:?}");
    let version = kubectl(&bin, &["coral", "version", "--client"]);
    assert!(text(&version.stdout).contains(env!("CARGO_PKG_VERSION")), "{version:?}");

    // The second file, as the manifest tells people to make it.
    let script = kubectl(&bin, &["coral", "completion"]).stdout;
    let path = bin.join("kubectl_complete-coral");
    File::create(&path).unwrap().write_all(&script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let offered = kubectl(&bin, &["__complete", "coral", "prefe"]);
    assert_eq!(
        text(&offered.stdout),
        "prefetch\tHave images on nodes before anyone needs them\n:4\n",
        "{offered:?}"
    );
}

#[test]
fn the_same_program_gives_the_same_release_in_any_folder() {
    let program = workspace().join("LICENSE");
    let targets = [
        "x86_64-unknown-linux-musl",
        "aarch64-apple-darwin",
        "x86_64-pc-windows-msvc",
    ];
    let (one, other) = (released(&targets, &program), released(&targets, &program));
    let mut names = Vec::new();
    for entry in fs::read_dir(one.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let bytes = |folder: &TempDir| fs::read(folder.path().join(&name)).unwrap();
        assert!(bytes(&one) == bytes(&other), "{name} differs");
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "SHA256SUMS",
            "coral.yaml",
            "kubectl-coral_v1.2.3_darwin_arm64.tar.gz",
            "kubectl-coral_v1.2.3_linux_amd64.tar.gz",
            "kubectl-coral_v1.2.3_windows_amd64.tar.gz",
        ]
    );
}

#[test]
fn the_manifest_has_the_archives_that_are_there() {
    let program = workspace().join("LICENSE");
    let released = released(&["aarch64-apple-darwin", "x86_64-pc-windows-msvc"], &program);
    let release = release(released.path());
    let manifest = manifest(&release);
    is_valid(&manifest, "coral").unwrap();
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 2);
    assert_eq!(platforms[1]["bin"], "kubectl-coral.exe");
    assert_eq!(platforms[1]["files"][0]["from"], "kubectl-coral.exe");
    assert_eq!(
        platforms[0]["uri"],
        "https://releases.example/v1.2.3/kubectl-coral_v1.2.3_darwin_arm64.tar.gz"
    );
    let sums = fs::read_to_string(released.path().join(SUMS)).unwrap();
    for line in sums.lines() {
        let (sum, file) = line.split_once("  ").unwrap();
        assert_eq!(release.sum(file).unwrap(), sum, "{file}");
    }
    assert_eq!(sums.lines().count(), 3);
    assert!(sums.contains(platforms[0]["sha256"].as_str().unwrap()));
}

#[test]
fn other_versions_and_strange_files_are_left_out() {
    let program = workspace().join("LICENSE");
    let released = released(&["x86_64-unknown-linux-gnu"], &program);
    fs::write(released.path().join("kubectl-coral_v1.2.2_linux_amd64.tar.gz"), "old").unwrap();
    fs::write(released.path().join("notes.txt"), "").unwrap();
    let lines = release(released.path()).finish().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let empty = TempDir::new().unwrap();
    let error = release(empty.path()).finish().unwrap_err().to_string();
    assert!(error.contains("no archive of v1.2.3"), "{error}");
}

#[test]
fn rules_of_krew_are_looked_at() {
    let released = released(&["aarch64-apple-darwin"], &workspace().join("LICENSE"));
    let good = manifest(&release(released.path()));
    let breaks: [(&str, Value); 6] = [
        ("/metadata/name", "Coral!".into()),
        ("/spec/version", "1.2.3".into()),
        ("/spec/shortDescription", "a\nb".into()),
        ("/spec/platforms/0/sha256", "ABC".into()),
        ("/spec/platforms/0/files", json!([])),
        ("/spec/platforms/0/selector/matchLabels", json!({"libc": "musl"})),
    ];
    for (pointer, value) in breaks {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(is_valid(&bad, "coral").is_err(), "{pointer}");
    }
}

/// No compiler here knows the other platforms, so what cannot be compiled there is looked for by name.
#[test]
fn the_plugin_has_no_code_for_one_platform_only() {
    let mut folders = vec![workspace().join("plugin/src"), workspace().join("api/src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            for word in [
                "os::unix",
                "os::linux",
                "signal::unix",
                "libc::",
                "rustix::",
                "UnixStream",
            ] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
    assert!(files > 50, "only {files} files were looked at");
}
