//! What a kubelet changes about the whole machine, and how that is put back.

use std::{collections::BTreeMap, fs};

/// The kernel parameters that a kubelet sets when it starts.
const SET_BY_KUBELET: &[&str] = &[
    "/proc/sys/kernel/keys/root_maxbytes",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
];

/// What they are now.
#[must_use]
pub(super) fn read() -> BTreeMap<String, String> {
    let value = |path: &&str| Some(((*path).to_owned(), fs::read_to_string(path).ok()?.trim().to_owned()));
    SET_BY_KUBELET.iter().filter_map(value).collect()
}

/// Puts back what has changed. A machine that does not allow it did not allow the change either.
pub(super) fn restore(values: &BTreeMap<String, String>) {
    let now = read();
    for (path, value) in values.iter().filter(|(path, value)| now.get(*path) != Some(value)) {
        let _ = fs::write(path, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unchanged_stays() {
        let before = read();
        restore(&before);
        assert_eq!(read(), before);
    }
}
