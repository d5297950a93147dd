//! Which image of an index a node runs.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use crate::manifest::Descriptor;

/// Operating system and processor, as indexes name them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Platform {
    /// Operating system, e.g. `linux`.
    #[serde(default)]
    pub os: String,
    /// Processor, e.g. `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// What of the processor there is, e.g. `v7` of `arm`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on the processor that this program was built for, which is that of the node where it runs.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            "x86" => "386",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: (architecture == "arm").then(|| "v7".to_owned()),
        }
    }

    /// Whether an entry of an index is for this platform. A platform without a variant stands for all of them.
    #[must_use]
    pub fn covers(&self, offered: &Self) -> bool {
        offered.os == self.os
            && offered.architecture == self.architecture
            && (self.variant.is_none() || self.variant == offered.variant)
    }

    /// The entry of an index that runs here: of the variants the newest that is not too new, of equals the first, as containerd
    /// chooses.
    pub(crate) fn choose<'index>(&self, entries: &'index [Descriptor]) -> Option<&'index Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for entry in entries {
            let Some(rank) = entry.platform.as_ref().and_then(|offered| self.rank(offered)) else {
                continue;
            };
            if best.is_none_or(|(best, _)| rank > best) {
                best = Some((rank, entry));
            }
        }
        best.map(|(_, entry)| entry)
    }

    /// How well an image for `offered` runs here: not at all, or the higher the better.
    fn rank(&self, offered: &Self) -> Option<u32> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        // 64-bit ARM begins with v8, which is often left out; 32-bit ARM without a variant is v7.
        let usual = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        let own = version(self.variant.as_deref(), usual)?;
        let offered = version(offered.variant.as_deref(), usual)?;
        (offered <= own).then_some(offered)
    }
}

/// The number in `v7`.
fn version(variant: Option<&str>, usual: u32) -> Option<u32> {
    match variant {
        None | Some("") => Some(usual),
        Some(variant) => variant.strip_prefix('v')?.parse().ok(),
    }
}

/// Why a text is not a platform.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a platform is an operating system and a processor, such as linux/amd64 or linux/arm/v7")]
pub struct InvalidPlatform;

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_word) {
            return Err(InvalidPlatform);
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(InvalidPlatform),
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    #[test]
    fn the_best_image_of_an_index_is_chosen() {
        let cases: [(&str, &[&str], Option<usize>); 12] = [
            ("linux/amd64", &["linux/arm64", "linux/amd64"], Some(1)),
            ("linux/amd64", &["windows/amd64", "linux/386"], None),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
            // Newer instructions than may be there are not chosen, as containerd does not.
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/amd64/v3"], None),
            ("linux/amd64", &["unknown/unknown", "linux/amd64"], Some(1)),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], Some(1)),
            ("linux/arm64", &["linux/arm64"], Some(0)),
            (
                "linux/arm/v7",
                &["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"],
                Some(1),
            ),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/arm/v6", &["linux/arm/v5"], Some(0)),
        ];
        for (own, offered, expected) in cases {
            let entries: Vec<Descriptor> = offered
                .iter()
                .enumerate()
                .map(|(index, offered)| Descriptor {
                    digest: index.to_string(),
                    platform: Some(platform(offered)),
                    ..Descriptor::default()
                })
                .collect();
            let chosen = platform(own).choose(&entries).map(|entry| entry.digest.clone());
            assert_eq!(
                chosen,
                expected.map(|index| index.to_string()),
                "{own} among {offered:?}"
            );
        }
    }

    #[test]
    fn entries_without_a_platform_are_passed_over() {
        assert_eq!(platform("linux/amd64").choose(&[Descriptor::default()]), None);
    }

    #[test]
    fn platforms_are_read_and_cover_others() {
        for text in [
            "",
            "linux",
            "linux/",
            "linux/arm/v7/x",
            "linux/a b",
            "linux/amd64,linux/arm64",
        ] {
            assert_eq!(text.parse::<Platform>(), Err(InvalidPlatform), "{text}");
        }
        for (own, offered, expected) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm/v7", "linux/arm", false),
            ("linux/amd64", "windows/amd64", false),
        ] {
            let own: Platform = own.parse().unwrap();
            assert_eq!(own.covers(&platform(offered)), expected, "{own} and {offered}");
        }
    }

    #[test]
    fn this_machine_has_a_name() {
        let platform = Platform::of_this_machine();
        assert_eq!(platform.os, "linux");
        assert!(!platform.architecture.contains('_'), "{platform}");
    }
}
