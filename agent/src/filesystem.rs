//! How much room there is where the images lie, as far as the agent sees it.
//!
//! CRI tells how many bytes images take and where they lie on the node, not how many are free. A path of the node is nothing to a
//! process in a container, but the root of the container itself mostly lies on that very file system: `statvfs` of an
//! overlay tells of the file system of its upper layer, and the upper layer is below the runtime's folder. So no mount is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The mounts of this process.
const MOUNTS: &str = "/proc/self/mountinfo";
/// What CRI-O's folder of images has at its end; the folder of layers beside it is named without it.
const CRI_O_SUFFIX: &str = "-images";

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// What processes without privileges may still take, which is what the kubelet looks at.
    pub free: i64,
    /// All of it.
    pub capacity: i64,
}

/// Finds out how much room there is at a path of the node; `None` where the agent does not see it.
pub type SpaceProbe = Arc<dyn Fn(&str) -> Option<Space> + Send + Sync>;

/// Asks the kernel.
#[must_use]
pub fn probe() -> SpaceProbe {
    Arc::new(|folder| {
        let is_visible = Path::new(folder).is_dir();
        let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
        let path = stand_in(folder, is_visible, &mounts)?;
        let statistics = rustix::fs::statvfs(&path).ok()?;
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(statistics.f_frsize)).unwrap_or(i64::MAX);
        Some(Space {
            free: bytes(statistics.f_bavail),
            capacity: bytes(statistics.f_blocks),
        })
    })
}

/// A path of this process on the file system that has `folder` of the node, given the mounts of this process. `is_visible` says whether
/// this process sees the folder itself, as one outside of a container does.
#[must_use]
pub fn stand_in(folder: &str, is_visible: bool, mounts: &str) -> Option<PathBuf> {
    if is_visible {
        return Some(PathBuf::from(folder));
    }
    // A later mount hides an earlier one.
    let root = mounts
        .lines()
        .filter_map(Mount::read)
        .rfind(|mount| mount.point == "/")?;
    let folders = [Some(folder), folder.strip_suffix(CRI_O_SUFFIX)];
    let mut folders = folders.into_iter().flatten();
    let is_there = match root.upper_layer() {
        Some(layer) => folders.any(|folder| Path::new(&layer).starts_with(folder)),
        // A layer that is bound: the kernel tells where in its file system it lies, which may be mounted anywhere.
        None => folders.any(|folder| ends_of(folder).any(|end| Path::new(&root.root).starts_with(end))),
    };
    is_there.then(|| PathBuf::from("/"))
}

/// `/a/b/c`, `/b/c` and `/c`.
fn ends_of(folder: &str) -> impl Iterator<Item = &str> {
    folder
        .match_indices('/')
        .map(|(index, _)| &folder[index..])
        .filter(|end| end.len() > 1)
}

/// What a line of mountinfo says, see proc(5).
struct Mount<'a> {
    /// What of the file system is mounted.
    root: String,
    /// Where it is mounted.
    point: &'a str,
    file_system: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (mount, super_block) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut super_block = super_block.split(' ');
        Some(Self {
            root: unescaped(mount.next()?),
            point: mount.next()?,
            file_system: super_block.next()?,
            options: super_block.nth(1)?,
        })
    }

    /// Where the upper layer of an overlay lies on the node.
    fn upper_layer(&self) -> Option<String> {
        let mut options = self.options.split(',').filter(|_| self.file_system == "overlay");
        options
            .find_map(|option| option.strip_prefix("upperdir="))
            .map(unescaped)
    }
}

/// Undoes the kernel's `\040` for a space.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code.filter(u8::is_ascii) {
            plain.push(char::from(code));
            plain.push_str(&part[3..]);
        } else {
            plain.push('\\');
            plain.push_str(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINERD: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs";
    const CRI_O: &str = "/var/lib/containers/storage/overlay-images";

    fn overlay(upper: &str) -> String {
        format!(
            "610 540 0:95 / / ro,relatime - overlay overlay rw,lowerdir=/l/1:/l/2,upperdir={upper},workdir=/w,uuid=on\n\
             611 610 0:97 / /proc rw,nosuid - proc proc rw\n"
        )
    }

    fn bound(root: &str, file_system: &str) -> String {
        format!("610 540 259:1 {root} / rw,relatime master:1 - {file_system} /dev/nvme0n1p1 rw\n")
    }

    #[test]
    fn the_root_of_a_container_tells_of_the_images_where_it_lies_beside_them() {
        #[rustfmt::skip]
        let cases = [
            ("containerd", CONTAINERD, overlay(&format!("{CONTAINERD}/snapshots/41/fs")), true),
            ("CRI-O", CRI_O, overlay("/var/lib/containers/storage/overlay/0fa1/diff"), true),
            ("a path with a space", "/mnt/a b/overlayfs", overlay(r"/mnt/a\040b/overlayfs/snapshots/1/fs"), true),
            ("layers on another disk", CONTAINERD, overlay("/data/containerd/snapshots/41/fs"), false),
            ("a name that only begins alike", "/var/lib/containerd/over", overlay("/var/lib/containerd/overlayfs/1/fs"), false),
            ("no upper layer", CONTAINERD, "1 2 0:95 / / ro - overlay overlay ro,lowerdir=/l/1:/l/2\n".to_owned(), false),
            ("containerd's native snapshotter", "/var/lib/containerd/io.containerd.snapshotter.v1.native",
                bound("/var/lib/containerd/io.containerd.snapshotter.v1.native/snapshots/9", "ext4"), true),
            ("the same with a disk of its own", "/var/lib/containerd/io.containerd.snapshotter.v1.native",
                bound("/io.containerd.snapshotter.v1.native/snapshots/9", "xfs"), true),
            ("devmapper", "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper", bound("/", "ext4"), false),
            ("zfs", "/var/lib/containerd/io.containerd.snapshotter.v1.zfs", bound("/", "zfs"), false),
            ("a later mount hides it", CONTAINERD,
                overlay(&format!("{CONTAINERD}/snapshots/41/fs")) + "700 610 0:99 / / rw - tmpfs tmpfs rw\n", false),
            ("no root", CONTAINERD, String::new(), false),
            ("what is no mount", CONTAINERD, "overlay / upperdir=x\n610 - \n".to_owned(), false),
        ];
        for (name, folder, mounts, is_there) in cases {
            let found = stand_in(folder, false, &mounts);
            assert_eq!(found, is_there.then(|| PathBuf::from("/")), "{name}");
        }
    }

    #[test]
    fn a_folder_that_is_there_stands_for_itself() {
        assert_eq!(stand_in(CONTAINERD, true, ""), Some(PathBuf::from(CONTAINERD)));
    }

    #[test]
    fn the_kernel_tells_of_a_folder() {
        let space = probe()(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert!(space.free > 0 && space.free <= space.capacity, "{space:?}");
        assert_eq!(probe()("/nonexistent/folder"), None);
    }
}
