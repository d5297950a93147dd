//! `kubectl coral` as people run it: through kubectl, from the PATH.

use std::{
    env,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use coral_tests::Cluster;

use super::Scene;

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Ended with this code, and said each of these on standard error.
    pub(crate) fn failed(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        for words in said {
            assert!(self.stderr.contains(words), "{words:?} is missing in: {}", self.stderr);
        }
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `kubectl coral …` in the namespace of the scene.
pub(crate) fn coral(scene: &Scene, arguments: &[&str]) -> Ran {
    command(&scene.cluster, arguments)
        .args(["--namespace", scene.namespace.name()])
        .output()
        .unwrap()
        .into()
}

/// The same, with something to read.
pub(crate) fn coral_with(scene: &Scene, arguments: &[&str], input: &str) -> Ran {
    let mut command = command(&scene.cluster, arguments);
    fed(command.args(["--namespace", scene.namespace.name()]), input)
}

/// What a command does that reads this.
pub(crate) fn fed(command: &mut Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

/// `kubectl coral …`, in whatever namespace.
pub(crate) fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    // The plugin lies beside the tests: target/debug/kubectl-coral, target/debug/deps/….
    let tests = env::current_exe().unwrap();
    let plugin = tests.ancestors().nth(2).unwrap();
    assert!(
        plugin.join("kubectl-coral").exists(),
        "build kubectl-coral first: cargo build --package kubectl-coral"
    );
    let folders: Vec<PathBuf> = [plugin.to_owned()]
        .into_iter()
        .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default()))
        .collect();
    let mut command = Command::new(cluster.tools().control_plane("kubectl"));
    command
        .arg("coral")
        .args(arguments)
        .env("PATH", env::join_paths(folders).unwrap())
        .env("KUBECONFIG", cluster.kubeconfig());
    command
}
