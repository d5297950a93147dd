//! What the containerd of a node is told.

use super::{node::NODE_BIN, options::Containerd, registry::NODE_HOSTS};

/// The configuration of this containerd: what differs from its defaults.
#[must_use]
pub(super) fn config(containerd: Containerd, pause_image: &str) -> String {
    match containerd {
        Containerd::Bundled => version_3(pause_image),
        Containerd::Debian => version_2(pause_image),
    }
}

/// containerd 2.
fn version_3(pause_image: &str) -> String {
    format!(
        r#"version = 3
imports = []

# It would make a folder outside of the node's own ones.
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/coral/opt"

[plugins."io.containerd.nri.v1.nri"]
  disable = true

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause_image}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{NODE_HOSTS}"

[plugins."io.containerd.cri.v1.runtime"]
  # The machine may be a container itself, which may not lower its score.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{NODE_BIN}"]
  conf_dir = "/var/lib/coral/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{NODE_BIN}/runc"
  SystemdCgroup = false
"#
    )
}

/// containerd 1.6: one CRI plugin has everything.
fn version_2(pause_image: &str) -> String {
    format!(
        r#"version = 2
imports = []

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/coral/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{NODE_HOSTS}"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{NODE_BIN}"
  conf_dir = "/var/lib/coral/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "{NODE_BIN}/runc"
  SystemdCgroup = false
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_image_and_registries_are_those_of_the_cluster() {
        let bundled = config(Containerd::Bundled, "198.18.3.1:5000/pause:1");
        assert!(bundled.contains("sandbox = \"198.18.3.1:5000/pause:1\""), "{bundled}");
        let debian = config(Containerd::Debian, "198.18.3.1:5000/pause:1");
        assert!(
            debian.contains("sandbox_image = \"198.18.3.1:5000/pause:1\""),
            "{debian}"
        );
        for (config, version) in [(bundled, "version = 3"), (debian, "version = 2")] {
            assert!(config.starts_with(version));
            assert!(config.contains("config_path = \"/var/lib/coral/certs.d\""));
        }
    }
}
