//! The Prefetch that a command line asks for, and what the API server made of it.

use coral_api::{ImageReference, Prefetch, keys};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::{Map, Value, json};

use crate::{
    apply::Change,
    client::{Cluster, RequestError},
    error::Error,
    human, output, selector,
};

/// What is asked for.
pub(super) struct Request {
    pub(super) name: String,
    pub(super) images: Vec<ImageReference>,
    pub(super) node_selector: Option<LabelSelector>,
    pub(super) pull_secrets: Vec<String>,
    /// Further fields of the spec.
    pub(super) policy: Map<String, Value>,
    pub(super) resource: ApiResource,
}

/// What the API server made of it.
pub(super) struct Applied {
    pub(super) change: Change,
    pub(super) object: DynamicObject,
    pub(super) prefetch: Prefetch,
}

impl Request {
    /// The object that is applied: only what was asked for, so that everything else stays with whoever set it.
    pub(super) fn object(&self, namespace: &str) -> Value {
        let mut spec = json!({"images": self.spellings()});
        if let Some(selector) = &self.node_selector {
            spec["nodeSelector"] = json!(selector);
        }
        if !self.pull_secrets.is_empty() {
            let references: Vec<Value> = self.pull_secrets.iter().map(|name| json!({"name": name})).collect();
            spec["imagePullSecrets"] = json!(references);
        }
        for (field, value) in &self.policy {
            spec[field.as_str()] = value.clone();
        }
        json!({
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": spec,
        })
    }

    /// The images as people know them, one spelling for each, so that asking again changes nothing.
    fn spellings(&self) -> Vec<String> {
        self.images.iter().map(ImageReference::familiar).collect()
    }

    /// `prefetch.image.stvz.io/web`
    pub(super) fn full_name(&self) -> String {
        output::name(&self.name, &self.resource)
    }

    fn api(&self, cluster: &Cluster, client: kube::Client) -> Api<DynamicObject> {
        Api::namespaced_with(client, cluster.namespace(), &self.resource)
    }

    pub(super) async fn get(&self, cluster: &Cluster) -> Result<DynamicObject, RequestError> {
        cluster
            .request(async |client| self.api(cluster, client).get(&self.name).await)
            .await
    }

    pub(super) async fn apply(&self, cluster: &Cluster, dry_run: bool) -> Result<Applied, Error> {
        let before = cluster
            .request(async |client| self.api(cluster, client).get_opt(&self.name).await)
            .await?;
        let patch = Patch::Apply(self.object(cluster.namespace()));
        let parameters = PatchParams {
            dry_run,
            ..PatchParams::apply(keys::PLUGIN_FIELD_MANAGER)
        };
        let after = cluster
            .request(async |client| self.api(cluster, client).patch(&self.name, &parameters, &patch).await)
            .await;
        let object = after.map_err(|error| match error {
            RequestError::Conflict { message } => Error::FieldConflict {
                namespace: cluster.namespace().to_owned(),
                name: self.name.clone(),
                message,
            },
            other => other.into(),
        })?;
        let prefetch = object
            .clone()
            .try_parse()
            .map_err(|error| Error::Format(error.to_string()))?;
        Ok(Applied {
            change: Change::between(before.as_ref(), &object),
            object,
            prefetch,
        })
    }

    /// What the object has beyond what was asked for, because somebody else manages it.
    pub(super) fn differences(&self, prefetch: &Prefetch) -> Vec<String> {
        let asked = self.spellings();
        let others: Vec<&str> = prefetch
            .spec
            .images
            .iter()
            .map(String::as_str)
            .filter(|image| !asked.iter().any(|asked| asked == image))
            .collect();
        let mut differences = Vec::new();
        if !others.is_empty() {
            differences.push(format!(
                "{} also has {}, which somebody else asked for",
                self.name,
                human::some_of(&others, 5)
            ));
        }
        let selects = |selector: Option<&LabelSelector>| selector.map(selector::display).unwrap_or_default();
        let (wanted, has) = (
            selects(self.node_selector.as_ref()),
            selects(prefetch.spec.node_selector.as_ref()),
        );
        if wanted != has {
            differences.push(format!(
                "{} selects the nodes with {has}, which somebody else asked for",
                self.name
            ));
        }
        if prefetch.spec.suspend {
            differences.push(format!(
                "{} is suspended: nothing is pulled until spec.suspend is false",
                self.name
            ));
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::prefetch;

    fn request(images: &[&str], node_selector: Option<&str>) -> Request {
        Request {
            name: "web".to_owned(),
            images: images.iter().map(|image| image.parse().unwrap()).collect(),
            node_selector: node_selector.map(|text| selector::parse(text).unwrap()),
            pull_secrets: Vec::new(),
            policy: Map::new(),
            resource: ApiResource::erase::<Prefetch>(&()),
        }
    }

    #[test]
    fn only_what_was_asked_for_is_applied() {
        let object = request(&["docker.io/library/nginx", "redis:8"], Some("gpu=true")).object("shop");
        assert_eq!(
            object,
            json!({
                "apiVersion": "image.stvz.io/v1alpha1",
                "kind": "Prefetch",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"images": ["nginx:latest", "redis:8"], "nodeSelector": {"matchLabels": {"gpu": "true"}}},
            })
        );
        assert_eq!(
            request(&["a"], None).object("shop")["spec"],
            json!({"images": ["a:latest"]})
        );
    }

    #[test]
    fn pull_secrets_are_named_in_their_order() {
        let mut request = request(&["a"], None);
        request.pull_secrets = vec!["second".to_owned(), "first".to_owned()];
        assert_eq!(
            request.object("shop")["spec"]["imagePullSecrets"],
            json!([{"name": "second"}, {"name": "first"}])
        );
    }

    #[test]
    fn what_others_asked_for_is_told() {
        let theirs = prefetch(json!({
            "metadata": {"name": "web"},
            "spec": {"images": ["nginx:1.29", "redis:8"], "nodeSelector": {"matchLabels": {"a": "b"}}, "suspend": true},
        }));
        assert_eq!(
            request(&["nginx:1.29"], None).differences(&theirs),
            [
                "web also has redis:8, which somebody else asked for",
                "web selects the nodes with a=b, which somebody else asked for",
                "web is suspended: nothing is pulled until spec.suspend is false",
            ]
        );
        let ours = prefetch(json!({"metadata": {"name": "web"}, "spec": {"images": ["nginx:1.29"]}}));
        assert_eq!(request(&["nginx:1.29"], None).differences(&ours), [""; 0]);
    }
}
