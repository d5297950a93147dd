//! Platforms, in the words of the compiler, of Go and of krew.

use std::fmt;

use anyhow::Context as _;

/// A platform that the plugin is released for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Platform {
    pub(crate) os: &'static str,
    pub(crate) arch: &'static str,
}

const PLATFORMS: [Platform; 5] = [
    Platform::new("darwin", "amd64"),
    Platform::new("darwin", "arm64"),
    Platform::new("linux", "amd64"),
    Platform::new("linux", "arm64"),
    Platform::new("windows", "amd64"),
];

impl Platform {
    const fn new(os: &'static str, arch: &'static str) -> Self {
        Self { os, arch }
    }

    /// Every platform.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        PLATFORMS.into_iter()
    }

    /// The platform of a target such as `x86_64-unknown-linux-musl`.
    pub(crate) fn of(target: &str) -> anyhow::Result<Self> {
        let part = |words: &[(&str, &'static str)]| {
            let found = words
                .iter()
                .find(|(word, _)| target.split('-').any(|part| part == *word));
            found.map(|(_, name)| *name)
        };
        let os = part(&[("linux", "linux"), ("darwin", "darwin"), ("windows", "windows")]);
        let arch = part(&[("x86_64", "amd64"), ("aarch64", "arm64")]);
        let platform = os.zip(arch).map(|(os, arch)| Self { os, arch });
        platform
            .filter(|platform| PLATFORMS.contains(platform))
            .with_context(|| {
                format!(
                    "{target} is none of the platforms {}",
                    PLATFORMS.map(|platform| platform.to_string()).join(", ")
                )
            })
    }

    /// The file that people run.
    pub(crate) fn program(self) -> &'static str {
        if self.os == "windows" {
            "kubectl-coral.exe"
        } else {
            "kubectl-coral"
        }
    }

    /// The file that people download.
    pub(crate) fn archive(self, version: &str) -> String {
        format!("kubectl-coral_{version}_{self}.tar.gz")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_{}", self.os, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_platforms() {
        let named = |target| Platform::of(target).map(|platform| platform.to_string()).ok();
        let cases = [
            ("x86_64-unknown-linux-gnu", Some("linux_amd64")),
            ("x86_64-unknown-linux-musl", Some("linux_amd64")),
            ("aarch64-unknown-linux-musl", Some("linux_arm64")),
            ("x86_64-apple-darwin", Some("darwin_amd64")),
            ("aarch64-apple-darwin", Some("darwin_arm64")),
            ("x86_64-pc-windows-msvc", Some("windows_amd64")),
            ("aarch64-pc-windows-msvc", None),
            ("riscv64gc-unknown-linux-gnu", None),
        ];
        for (target, expected) in cases {
            assert_eq!(named(target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn windows_has_its_own_name_for_programs() {
        let windows = Platform::of("x86_64-pc-windows-msvc").unwrap();
        assert_eq!(windows.program(), "kubectl-coral.exe");
        assert_eq!(windows.archive("v1.2.3"), "kubectl-coral_v1.2.3_windows_amd64.tar.gz");
    }
}
