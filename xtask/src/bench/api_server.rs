//! What was asked of the API server, by its own count.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kube::Client;

const METRIC: &str = "apiserver_request_total{";
/// Verbs that change something.
const WRITES: &[&str] = &["APPLY", "DELETE", "DELETECOLLECTION", "PATCH", "POST", "PUT"];

/// What kind of request it is.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Kind {
    pub(super) verb: String,
    pub(super) resource: String,
    pub(super) subresource: String,
}

impl Kind {
    pub(super) fn is_write(&self) -> bool {
        WRITES.contains(&self.verb.as_str())
    }

    pub(super) fn is_of(&self, resources: &[&str]) -> bool {
        resources.contains(&self.resource.as_str())
    }
}

/// Requests, counted by kind, whatever the answer was. A watch counts when it ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Requests(BTreeMap<Kind, u64>);

impl Requests {
    /// All requests since the API server began.
    pub(super) async fn count(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = client
            .request_text(request)
            .await
            .context("ask the API server what it counts")?;
        Ok(Self::parse(&text))
    }

    /// Waits until these requests have not become more for `rest`, and returns all.
    pub(super) async fn settle(
        client: &Client,
        rest: Duration,
        patience: Duration,
        is_wanted: impl Fn(&Kind) -> bool,
    ) -> Result<Self> {
        let began = Instant::now();
        let mut last = Self::count(client).await?;
        let mut changed = Instant::now();
        while changed.elapsed() < rest {
            ensure!(began.elapsed() < patience, "the requests do not end in {patience:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = Self::count(client).await?;
            if now.total(&is_wanted) != last.total(&is_wanted) {
                changed = Instant::now();
            }
            last = now;
        }
        Ok(last)
    }

    fn parse(text: &str) -> Self {
        let mut requests = Self::default();
        for line in text.lines().filter_map(|line| line.strip_prefix(METRIC)) {
            let Some((labels, count)) = line.rsplit_once("} ") else {
                continue;
            };
            let Ok(count) = count.parse::<f64>() else { continue };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let count = count as u64;
            *requests.0.entry(kind(labels)).or_default() += count;
        }
        requests
    }

    /// Those that have come since.
    pub(super) fn since(&self, before: &Self) -> Self {
        let difference = |(kind, count): (&Kind, &u64)| {
            let before = before.0.get(kind).copied().unwrap_or_default();
            let more = count.saturating_sub(before);
            (more > 0).then(|| (kind.clone(), more))
        };
        Self(self.0.iter().filter_map(difference).collect())
    }

    pub(super) fn total(&self, is_wanted: impl Fn(&Kind) -> bool) -> u64 {
        self.0
            .iter()
            .filter(|(kind, _)| is_wanted(kind))
            .map(|(_, count)| count)
            .sum()
    }

    /// The kinds for which this holds, each with its count, as a table.
    pub(super) fn table(&self, is_wanted: impl Fn(&Kind) -> bool) -> String {
        let rows = self.0.iter().filter(|(kind, _)| is_wanted(kind)).map(|(kind, count)| {
            let Kind {
                verb,
                resource,
                subresource,
            } = kind;
            let name = format!("{resource}/{subresource}");
            format!("  {verb:<18} {:<28} {count:>8}", name.trim_end_matches('/'))
        });
        rows.collect::<Vec<_>>().join("\n")
    }
}

/// From `verb="PATCH",resource="nodes",…`. No value that is looked at has a comma.
fn kind(labels: &str) -> Kind {
    let value = |name: &str| {
        let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
        let found = labels.find(|(key, _)| *key == name);
        found.map_or_else(String::new, |(_, value)| value.trim_matches('"').to_owned())
    };
    Kind {
        verb: value("verb"),
        resource: value("resource"),
        subresource: value("subresource"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="image.stvz.io",resource="nodeimages",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 12
apiserver_request_total{code="409",component="apiserver",dry_run="",group="image.stvz.io",resource="nodeimages",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="nodes",scope="cluster",subresource="",verb="WATCH",version="v1"} 1e+06
apiserver_request_duration_seconds_count{verb="APPLY"} 9
"#;

    #[test]
    fn requests_count_by_kind_whatever_the_answer() {
        let requests = Requests::parse(TEXT);
        assert_eq!(requests.total(Kind::is_write), 15);
        assert_eq!(requests.total(|kind| kind.is_of(&["nodes"])), 1_000_000);
        let table = requests.table(Kind::is_write);
        let words: Vec<&str> = table.split_whitespace().collect();
        assert_eq!(words, ["APPLY", "nodeimages/status", "15"]);
    }

    #[test]
    fn only_what_has_come_since_is_left() {
        let before = Requests::parse(TEXT);
        let after = Requests::parse(&TEXT.replace("} 12", "} 14"));
        let since = after.since(&before);
        assert_eq!((since.total(|_| true), since.0.len()), (2, 1));
    }
}
