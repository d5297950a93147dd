//! A destination whose disk is full.

use std::path::PathBuf;

use coral_api::FailureReason;
use coral_tests::images;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use serde_json::json;

use crate::{
    site::Site,
    trouble::{failed_for, is_present},
};

/// Bytes of an image that fits the disk only when there is more of it.
const LARGE: usize = 4_000_000;

/// A small disk in the place of a folder, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: PathBuf) -> Self {
        mount("coral-full", &folder, "tmpfs", MountFlags::empty(), Some(c"size=2m")).unwrap();
        Self(folder)
    }

    fn grow(&self) {
        mount_remount(&self.0, MountFlags::empty(), c"size=64m").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that fails must leave nothing behind that the folder's removal stumbles over.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The registry of the copies has lost what it had, and little room for more.
pub(crate) async fn what_does_not_fit_is_told_of_and_copied_when_it_does(site: &Site, small: &str) {
    let disk = Disk::new(site.plane.cluster().dir().join("registry-auth/data"));
    let published = images::tiny(&site.open, "large", "v1", LARGE, "1").unwrap();
    let large = published.reference;
    site.mirror("m", json!({"images": [small, large]})).await;
    let status = site
        .until("it does not fit", &large, |status| {
            failed_for(status, FailureReason::NoSpace)
        })
        .await;
    let message = &status.destinations[0].failure.as_ref().unwrap().message;
    assert!(message.contains("no space left on device"), "{message}");
    assert!(
        site.authenticated.digest(&site.copy(&large)).is_err(),
        "half an image has a tag"
    );
    disk.grow();
    site.until("there is room", &large, is_present).await;
    // What was lost is there again, although nobody had said that it was gone.
    site.until("it is there again", small, is_present).await;
    for image in [small, &large] {
        let copy = site.authenticated.digest(&site.copy(image)).unwrap();
        assert_eq!(copy, site.open.digest(image).unwrap());
    }
}
