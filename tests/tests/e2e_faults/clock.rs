//! A light node whose agent has a clock that can be set.
//!
//! The wall clock of a machine belongs to everybody on it, and the kernel's time namespaces do not cover it. But the agent that is built
//! for tests is linked with the C library, and so a library that is loaded before that one can tell it another time.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::{
    Cluster, NodeOptions,
    cluster::{AgentOptions, process},
};

/// Adds the seconds in a file to the wall clock, and leaves all other clocks alone.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) {
        char text[24] = {0};
        int file = open(getenv("CORAL_CLOCK"), O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0)
                time->tv_sec += atol(text);
            close(file);
        }
    }
    return result;
}
"#;

pub(crate) struct SkewedNode {
    name: String,
    offset: PathBuf,
}

impl SkewedNode {
    /// Joins such a node, unless the cluster has it.
    pub(crate) async fn join(cluster: &Cluster) -> Result<Self> {
        let folder = cluster.dir().join("clock");
        let offset = folder.join("offset");
        let present = cluster
            .nodes()?
            .into_iter()
            .find(coral_tests::cluster::NodeHandle::is_light);
        if let Some(node) = present {
            let name = node.name().to_owned();
            return Ok(Self { name, offset });
        }
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&offset, "0").context("write the offset")?;
        let options = AgentOptions::new(wrapper(&folder, &offset)?);
        let node = cluster
            .add_light_node(NodeOptions {
                agent: Some(options),
                ..NodeOptions::default()
            })
            .await?;
        Ok(Self {
            name: node.name().to_owned(),
            offset,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sets the clock of the agent to so much ahead of everybody else's.
    pub(crate) fn set(&self, ahead: Duration) -> Result<()> {
        // Whoever reads sees the old one or the new one.
        let beside = self.offset.with_extension("new");
        fs::write(&beside, ahead.as_secs().to_string()).context("write the offset")?;
        fs::rename(&beside, &self.offset).context("set the clock")
    }
}

/// A program that is the agent with the library.
fn wrapper(folder: &Path, offset: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, LIBRARY).context("write the library's source")?;
    let mut gcc = std::process::Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
    process::run_command(gcc.arg("-ldl")).context("compile the library")?;
    // It lies beside the tests: target/debug/coral-agent, target/debug/deps/….
    let tests = env::current_exe().context("find the tests")?;
    let agent = tests
        .ancestors()
        .nth(2)
        .context("the tests lie nowhere")?
        .join("coral-agent");
    ensure!(
        agent.exists(),
        "build the agent first: cargo build --package coral-agent"
    );
    let wrapper = folder.join("coral-agent");
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD='{}' CORAL_CLOCK='{}'\nexec '{}' \"$@\"\n",
        library.display(),
        offset.display(),
        agent.display()
    );
    fs::write(&wrapper, script).context("write the wrapper")?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).context("make the wrapper a program")?;
    Ok(wrapper)
}
