//! Trouble with the control plane, on demand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Cluster, control_plane, operation_lock, probe, process::ProcessRecord, state::State};

const API_SERVER: &str = "kube-apiserver";
/// How long a process that was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cluster {
    /// Stops the API server in its tracks: connections stay, and nothing answers.
    pub fn freeze_api_server(&self) -> Result<()> {
        self.api_server()?.signal(Signal::STOP);
        Ok(())
    }

    /// Lets a frozen API server go on.
    pub fn thaw_api_server(&self) -> Result<()> {
        self.api_server()?.signal(Signal::CONT);
        Ok(())
    }

    /// Kills the API server, also a frozen one. Nobody is told; every connection breaks.
    pub fn kill_api_server(&self) -> Result<()> {
        self.kill(API_SERVER)
    }

    /// Starts the API server again, and returns when it serves.
    pub async fn start_api_server(&self) -> Result<()> {
        let _lock = operation_lock(&self.site.layout).await?;
        control_plane::ensure_api_server(&self.site).await.map(drop)
    }

    /// Kills etcd. The API server stays, and can neither read nor write.
    pub fn kill_etcd(&self) -> Result<()> {
        self.kill("etcd")
    }

    /// Starts etcd again, and returns when it and the API server serve.
    pub async fn start_etcd(&self) -> Result<()> {
        self.start_api_server().await
    }

    /// Makes etcd forget all versions but the present ones, and returns its revision: whoever watches from before it is
    /// told that this is gone.
    pub async fn compact_etcd(&self) -> Result<i64> {
        let range = json!({"key": STANDARD.encode("/"), "count_only": true});
        let revision = revision(&self.etcd("/v3/kv/range", &range).await?)?;
        let compaction = json!({"revision": revision.to_string(), "physical": true});
        self.etcd("/v3/kv/compaction", &compaction).await?;
        Ok(revision)
    }

    /// Kills a process of the cluster, such as `registry-auth`. Starting the cluster once more brings it back.
    pub fn kill(&self, part: &str) -> Result<()> {
        let process = self.part(part)?;
        process.signal(Signal::KILL);
        ensure!(process.wait(PATIENCE), "{part} does not end");
        Ok(())
    }

    fn api_server(&self) -> Result<ProcessRecord> {
        self.part(API_SERVER)
    }

    fn part(&self, name: &str) -> Result<ProcessRecord> {
        let state = State::read(&self.site.layout)?.context("no state")?;
        let part = state
            .parts
            .get(name)
            .with_context(|| format!("no {name} was started"))?;
        Ok(part.process)
    }

    /// Asks etcd, through its JSON gateway.
    async fn etcd(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = probe::post_json(self.address(), control_plane::ETCD_PORT, path, body).await?;
        ensure!(answer.get("error").is_none(), "etcd refuses {path}: {answer}");
        Ok(answer)
    }
}

fn revision(answer: &Value) -> Result<i64> {
    let revision = answer["header"]["revision"].as_str();
    revision
        .and_then(|revision| revision.parse().ok())
        .with_context(|| format!("etcd tells no revision: {answer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_numbers_in_strings() {
        assert_eq!(revision(&json!({"header": {"revision": "17"}})).unwrap(), 17);
        assert!(revision(&json!({"header": {}})).is_err());
    }
}
