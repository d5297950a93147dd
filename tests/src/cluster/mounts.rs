//! What is mounted where.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub target: PathBuf,
    /// The kind of file system.
    pub kind: String,
    /// The options of the file system.
    pub options: Vec<String>,
}

/// What is mounted, oldest first.
pub fn read() -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// `36 35 98:0 /root /target rw,noatime shared:1 - ext4 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let target = unescape(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    let options = right.nth(1)?.split(',').map(str::to_owned).collect();
    Some(Mount { target, kind, options })
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The mounts at or below one of `prefixes`, those to unmount first at the front.
#[must_use]
pub fn below<'a>(mounts: &'a [Mount], prefixes: &[&Path]) -> Vec<&'a Path> {
    // The kernel lists them in the order in which they were made: the last one lies on top.
    mounts
        .iter()
        .rev()
        .map(|mount| mount.target.as_path())
        .filter(|target| prefixes.iter().any(|prefix| target.starts_with(prefix)))
        .collect()
}

/// Unmounts everything at or below one of `prefixes`.
pub fn unmount_below(prefixes: &[&Path]) -> Result<()> {
    for target in below(&read()?, prefixes) {
        unmount(target, UnmountFlags::empty())
            .or_else(|_| unmount(target, UnmountFlags::DETACH))
            .with_context(|| format!("unmount {}", target.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:4 net:[4026532000] /run/coral/ab/netns rw shared:2 master:1 - nsfs nsfs rw
41 27 0:50 / /tmp/a\\040b/nodes rw - tmpfs coral rw,size=300m
42 41 0:51 / /tmp/a\\040b/nodes/x rw - overlay overlay rw
43 27 0:52 / /tmp/a\\040bc rw - tmpfs other rw
";

    #[test]
    fn mountinfo_is_understood_with_and_without_optional_fields() {
        let mounts: Vec<Mount> = LINES.lines().filter_map(parse).collect();
        assert_eq!(mounts.len(), 5);
        assert_eq!(mounts[1].target, Path::new("/run/coral/ab/netns"));
        assert_eq!(mounts[1].kind, "nsfs");
        assert_eq!(mounts[2].options, ["rw", "size=300m"]);
    }

    #[test]
    fn only_what_lies_below_goes_and_the_deepest_first() {
        let mounts: Vec<Mount> = LINES.lines().filter_map(parse).collect();
        let found = below(&mounts, &[Path::new("/tmp/a b"), Path::new("/run/coral/ab")]);
        let expected = ["/tmp/a b/nodes/x", "/tmp/a b/nodes", "/run/coral/ab/netns"].map(Path::new);
        assert_eq!(found, expected);
    }
}
