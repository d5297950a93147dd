//! Workloads that Coral has changed, and what becomes of their pods when it goes.

use coral_api::keys;
use coral_webhook::mutate;
use json_patch::PatchOperation;
use kube::{Api, Client, ResourceExt as _, api::DynamicObject, core::ApiResource};
use serde_json::Value;

use crate::{apply, client::Cluster, error::Error, human, output, workload};

/// Workloads that are named before the rest is counted.
const WORKLOADS_NAMED: usize = 5;

/// A workload with something of Coral's in it.
#[derive(Debug)]
pub(super) struct Injected {
    pub(super) resource: ApiResource,
    pub(super) object: DynamicObject,
    pub(super) judgement: Judgement,
}

/// What taking back means for a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// The operations that take back; none where there is nothing to take back.
    pub(super) patch: Vec<PatchOperation>,
    /// New pods would find no node, or no image, without Coral.
    pub(super) is_stranded: bool,
    /// The same after taking back: somebody wrote a selector of Coral's labels by hand.
    pub(super) stays_stranded: bool,
}

impl Judgement {
    /// Judges an object; `None` where Coral has nothing to do with it.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let patch = mutate::uninject(object).ok()?;
        let mut after = object.clone();
        let stays_stranded = match json_patch::patch(&mut after, &patch) {
            Ok(()) => needs_coral(&after),
            Err(_) => needs_coral(object),
        };
        let judgement = Self {
            is_stranded: needs_coral(object),
            stays_stranded,
            patch,
        };
        (judgement != Self::default()).then_some(judgement)
    }
}

impl Injected {
    /// Looks for all of them, also for those of the system.
    pub(super) async fn find(cluster: &Cluster) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        for kind in workload::KINDS.iter().filter(|kind| !kind.is_fixed()) {
            let resource = kind.resource();
            let mut objects: Vec<DynamicObject> = Vec::new();
            let api = |client: Client| -> Api<DynamicObject> { Api::all_with(client, &resource) };
            cluster.list(api, |object| objects.push(object)).await?;
            for object in objects {
                let judgement = Judgement::of(&output::object(&object, &resource)?);
                if let Some(judgement) = judgement.filter(|_| !workload::is_owned(&object)) {
                    found.push(Self {
                        resource: resource.clone(),
                        object,
                        judgement,
                    });
                }
            }
        }
        Ok(found)
    }

    /// `shop/deployment/web`
    fn place(&self) -> String {
        let namespace = self.object.namespace().unwrap_or_default();
        format!(
            "{namespace}/{}/{}",
            self.resource.kind.to_lowercase(),
            self.object.name_any()
        )
    }

    /// `deployment.apps/web`
    pub(super) fn name(&self) -> String {
        output::name(&self.object.name_any(), &self.resource)
    }

    /// The object as it is now; `None` where it has gone.
    pub(super) async fn read_again(&self, cluster: &Cluster) -> Result<Option<DynamicObject>, Error> {
        let (name, namespace) = (self.object.name_any(), self.object.namespace());
        let api = |client: Client| apply::api(client, &self.resource, namespace.as_deref());
        Ok(cluster.request(async |client| api(client).get_opt(&name).await).await?)
    }
}

/// The workloads of which this is true, the first of them by name; `None` where there is none.
pub(super) fn named(injected: &[Injected], is_meant: impl Fn(&Judgement) -> bool) -> Option<String> {
    let places = injected
        .iter()
        .filter(|one| is_meant(&one.judgement))
        .map(Injected::place);
    let places: Vec<String> = places.collect();
    (!places.is_empty()).then(|| human::some_of(&places, WORKLOADS_NAMED))
}

/// Whether new pods of a workload start only with Coral's labels on a node, or with an image that Coral brings.
fn needs_coral(object: &Value) -> bool {
    let template = match object["spec"].get("jobTemplate") {
        Some(job) => &job["spec"]["template"],
        None => &object["spec"]["template"],
    };
    let has_key = |value: &Value| {
        let fields = value.as_object();
        fields.is_some_and(|fields| fields.keys().any(|key| key.starts_with(keys::PREFIX)))
    };
    let required = template.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    has_key(&template["spec"]["nodeSelector"])
        || required.is_some_and(|terms| terms.to_string().contains(&format!("\"key\":\"{}", keys::PREFIX)))
        || must_never_pull(object)
}

/// Whether Coral forbade the kubelet to pull.
fn must_never_pull(object: &Value) -> bool {
    let record = object["metadata"]["annotations"][keys::INJECTED_ANNOTATION].as_str();
    let record: Option<Value> = record.and_then(|record| serde_json::from_str(record).ok());
    let policies = record.as_ref().and_then(|record| record["pullPolicy"].as_object());
    policies.is_some_and(|policies| policies.values().any(|policy| policy["set"] == "Never"))
}

#[cfg(test)]
mod tests {
    use coral_webhook::mutate::{Containers, Placement, PullPolicy, Wish};
    use serde_json::json;

    use super::*;

    const KEY: &str = "image.stvz.io/0123456789abcdef0123456789abcdef";

    fn deployment(pod: &Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": pod}}})
    }

    fn injected(placement: Option<Placement>, pull_policy: Option<PullPolicy>) -> Value {
        let mut object = deployment(&json!({"containers": [{"name": "a", "image": "nginx:1.29"}]}));
        let wish = Wish {
            placement,
            pull_policy,
            containers: Containers::All,
        };
        let outcome = mutate::inject(&object, &wish, None).unwrap();
        json_patch::patch(&mut object, &outcome.patch).unwrap();
        object
    }

    #[test]
    fn workloads_whose_pods_would_not_start_are_found() {
        let affinity = |kind: &str, terms: &Value| json!({"affinity": {"nodeAffinity": {kind: terms}}});
        let term = json!({"matchExpressions": [{"key": KEY}]});
        for (pod, expected) in [
            (json!({"nodeSelector": {KEY: "available"}}), true),
            (json!({"nodeSelector": {"zone": "a"}}), false),
            (
                affinity(
                    "requiredDuringSchedulingIgnoredDuringExecution",
                    &json!({"nodeSelectorTerms": [term]}),
                ),
                true,
            ),
            (
                affinity(
                    "preferredDuringSchedulingIgnoredDuringExecution",
                    &json!([{"preference": term}]),
                ),
                false,
            ),
        ] {
            let object = deployment(&pod);
            assert_eq!(needs_coral(&object), expected, "{pod}");
            let cron_job = json!({"spec": {"jobTemplate": {"spec": object["spec"]}}});
            assert_eq!(needs_coral(&cron_job), expected, "{cron_job}");
        }
    }

    #[test]
    fn what_was_injected_can_be_taken_back_and_what_was_written_by_hand_cannot() {
        for (object, is_stranded, stays_stranded) in [
            (injected(Some(Placement::Required), None), true, false),
            (injected(None, Some(PullPolicy::Never)), true, false),
            (
                injected(Some(Placement::Preferred), Some(PullPolicy::IfNotPresent)),
                false,
                false,
            ),
            (deployment(&json!({"nodeSelector": {KEY: "available"}})), true, true),
        ] {
            let judgement = Judgement::of(&object).unwrap();
            assert_eq!(
                (judgement.is_stranded, judgement.stays_stranded),
                (is_stranded, stays_stranded),
                "{object}"
            );
            assert_eq!(judgement.patch.is_empty(), stays_stranded, "{object}");
        }
        assert_eq!(Judgement::of(&deployment(&json!({"containers": []}))), None);
        assert_eq!(Judgement::of(&json!({"kind": "ConfigMap"})), None);
    }
}
