//! Who uses images: Pods, the pod templates of workloads, and Prefetches.
//!
//! Of these objects only the images, the labels and the name are read, and kept: there are many of them.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{ImageReference, keys};
use kube::{
    ResourceExt as _,
    core::{ApiResource, GroupVersionKind, NotUsed, Object},
};
use serde::Deserialize;

/// The kinds of objects that use images.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A pod that is there.
    Pod,
    /// A template of a workload.
    Deployment,
    /// A template of a workload, or, where something else made it, what that may go back to.
    ReplicaSet,
    /// A template of a workload.
    ReplicationController,
    /// A template of a workload.
    StatefulSet,
    /// A template of a workload.
    DaemonSet,
    /// A template of a workload.
    Job,
    /// A template of a template.
    CronJob,
    /// A list of images.
    Prefetch,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Pod,
        Self::Deployment,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Prefetch,
    ];

    /// The kind as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Prefetch => "Prefetch",
        }
    }

    /// Where the API server has objects of this kind.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        let (group, version, plural) = match self {
            Self::Pod => ("", "v1", "pods"),
            Self::ReplicationController => ("", "v1", "replicationcontrollers"),
            Self::Deployment => ("apps", "v1", "deployments"),
            Self::ReplicaSet => ("apps", "v1", "replicasets"),
            Self::StatefulSet => ("apps", "v1", "statefulsets"),
            Self::DaemonSet => ("apps", "v1", "daemonsets"),
            Self::Job => ("batch", "v1", "jobs"),
            Self::CronJob => ("batch", "v1", "cronjobs"),
            Self::Prefetch => (keys::GROUP, "v1alpha1", "prefetches"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.as_str()), plural)
    }
}

/// An object that uses images, as it is read.
pub type Sketch = Object<SketchSpec, NotUsed>;

/// What is read of the `spec` of any of the kinds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SketchSpec {
    #[serde(flatten)]
    pod: PodSketch,
    template: Option<TemplateSketch>,
    job_template: Option<JobTemplateSketch>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSketch {
    containers: Vec<ContainerSketch>,
    init_containers: Vec<ContainerSketch>,
    ephemeral_containers: Vec<ContainerSketch>,
    volumes: Vec<VolumeSketch>,
    /// A Prefetch's.
    images: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateSketch {
    metadata: LabelsSketch,
    spec: PodSketch,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobTemplateSketch {
    spec: JobSketch,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobSketch {
    template: TemplateSketch,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LabelsSketch {
    labels: Option<Labels>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSketch {
    name: String,
    image: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeSketch {
    name: String,
    image: Option<ImageVolumeSketch>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ImageVolumeSketch {
    reference: Option<String>,
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Somebody who uses images.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// What it is.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Labels of the pods that it is, or is to make.
    pub labels: Labels,
    /// What it uses, each once, as people wrote it: where Coral has sent a pod to a copy, the original.
    pub images: BTreeSet<String>,
    /// Whether something else made it, which says itself what it uses: a `ReplicaSet` of a Deployment, a Job of a `CronJob`. Its images
    /// are in use, for the Deployment may go back to them, but are no reason to make a copy.
    pub is_history: bool,
}

impl User {
    /// What such an object uses.
    #[must_use]
    pub fn new(kind: Kind, object: &Sketch) -> Self {
        let SketchSpec {
            pod,
            template,
            job_template,
        } = &object.spec;
        let template = template
            .as_ref()
            .or_else(|| job_template.as_ref().map(|job| &job.spec.template));
        let (labels, spec) = match template {
            Some(template) => (template.metadata.labels.clone().unwrap_or_default(), &template.spec),
            None => (object.labels().clone(), pod),
        };
        let originals: BTreeMap<String, String> = object
            .annotations()
            .get(keys::ORIGINAL_IMAGES_ANNOTATION)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let is_made = object
            .owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true));
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            labels,
            images: spec.images(&originals),
            is_history: is_made && matches!(kind, Kind::ReplicaSet | Kind::Job),
        }
    }

    /// How people call it: `Deployment shop/web`.
    #[must_use]
    pub fn display(&self) -> String {
        format!("{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

impl PodSketch {
    /// The identities of the images; what is no image's name is left out.
    fn images(&self, originals: &BTreeMap<String, String>) -> BTreeSet<String> {
        let containers = [&self.containers, &self.init_containers, &self.ephemeral_containers];
        let of_containers = containers
            .into_iter()
            .flatten()
            .filter_map(|container| Some((container.name.clone(), container.image.as_ref()?)));
        let of_volumes = self.volumes.iter().filter_map(|volume| {
            let image = volume.image.as_ref()?.reference.as_ref()?;
            Some((format!("volumes/{}", volume.name), image))
        });
        let written = of_containers
            .chain(of_volumes)
            .map(|(name, image)| originals.get(&name).unwrap_or(image))
            .chain(&self.images);
        written
            .filter_map(|image| image.parse::<ImageReference>().ok())
            .map(|image| image.identity())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn user(kind: Kind, object: Value) -> User {
        User::new(kind, &serde_json::from_value(object).unwrap())
    }

    fn images(user: &User) -> Vec<&str> {
        user.images.iter().map(String::as_str).collect()
    }

    #[test]
    fn images_are_found_in_every_kind() {
        let pod = json!({
            "containers": [{"name": "a", "image": "nginx:1"}, {"name": "b", "image": "Not An Image"}],
            "initContainers": [{"name": "c", "image": "ghcr.io/x/init"}],
            "ephemeralContainers": [{"name": "d", "image": "busybox"}],
            "volumes": [{"name": "e", "image": {"reference": "models/m:2"}}, {"name": "f", "emptyDir": {}}],
            "nodeName": "n",
        });
        let expected = [
            "docker.io/library/busybox:latest",
            "docker.io/library/nginx:1",
            "docker.io/models/m:2",
            "ghcr.io/x/init:latest",
        ];
        let metadata = json!({"name": "x", "namespace": "shop", "labels": {"app": "outer"}});
        let of_pod = user(Kind::Pod, json!({"metadata": metadata, "spec": pod}));
        assert_eq!(images(&of_pod), expected);
        assert_eq!(of_pod.labels["app"], "outer");
        let template = json!({"metadata": {"labels": {"app": "inner"}}, "spec": pod});
        for (kind, spec) in [
            (Kind::Deployment, json!({"template": template})),
            (
                Kind::CronJob,
                json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}),
            ),
        ] {
            let user = user(kind, json!({"metadata": metadata, "spec": spec}));
            assert_eq!(images(&user), expected, "{kind:?}");
            assert_eq!(user.labels["app"], "inner");
            assert!(!user.is_history);
        }
        let prefetch = user(
            Kind::Prefetch,
            json!({"metadata": metadata, "spec": {"images": ["nginx"]}}),
        );
        assert_eq!(images(&prefetch), ["docker.io/library/nginx:latest"]);
        assert_eq!(prefetch.display(), "Prefetch shop/x");
    }

    #[test]
    fn a_pod_that_was_sent_to_a_copy_uses_the_original() {
        let originals = json!({"a": "nginx:1", "volumes/a": "models/m:2"}).to_string();
        let object = json!({
            "metadata": {"name": "x", "annotations": {"image.stvz.io/original-images": originals}},
            "spec": {"containers": [
                {"name": "a", "image": "localhost:7439/docker.io/library/nginx:1"},
                {"name": "b", "image": "redis:7"},
            ], "volumes": [{"name": "a", "image": {"reference": "localhost:7439/docker.io/models/m:2"}}]},
        });
        let user = user(Kind::Pod, object);
        assert_eq!(
            images(&user),
            [
                "docker.io/library/nginx:1",
                "docker.io/library/redis:7",
                "docker.io/models/m:2"
            ]
        );
    }

    #[test]
    fn what_a_deployment_made_is_its_history() {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "1", "controller": true}]);
        let object = json!({"metadata": {"name": "x", "ownerReferences": owner}, "spec": {}});
        assert!(user(Kind::ReplicaSet, object.clone()).is_history);
        assert!(!user(Kind::Pod, object).is_history);
        assert!(!user(Kind::ReplicaSet, json!({"metadata": {"name": "x"}, "spec": {}})).is_history);
    }
}
