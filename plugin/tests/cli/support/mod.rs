//! What the tests of the command share: the command with nothing of this machine around it, and a small API server.

#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod fake_api;
pub(crate) mod objects;

use std::path::Path;

use assert_cmd::Command;
use tempfile::TempDir;

/// A home without a kubeconfig, or with one.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    /// An empty home.
    pub(crate) fn empty() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    /// A home whose kubeconfig has two contexts with this server; the namespace is `shop`.
    pub(crate) fn with_server(server: &str) -> Self {
        let home = Self::empty();
        home.write_kubeconfig(&format!(
            "apiVersion: v1
kind: Config
current-context: dev
clusters:
- {{name: dev, cluster: {{server: '{server}'}}}}
users:
- {{name: me, user: {{token: secret}}}}
contexts:
- {{name: dev, context: {{cluster: dev, user: me, namespace: shop}}}}
- {{name: prod, context: {{cluster: dev, user: me}}}}
"
        ));
        home
    }

    /// Writes `~/.kube/config`.
    pub(crate) fn write_kubeconfig(&self, text: &str) {
        let directory = self.path().join(".kube");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("config"), text).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The command in this home.
    pub(crate) fn coral(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kubectl-coral"));
        command
            .env_clear()
            .env("HOME", self.path())
            .env("COLUMNS", "100")
            .args(arguments);
        command.timeout(std::time::Duration::from_mins(1));
        command
    }

    /// Runs the command: exit code, stdout, stderr.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self.coral(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// How a run of the command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}
