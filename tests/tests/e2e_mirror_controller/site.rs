//! A control plane with two registries, the controller's rights, and the Secrets that it needs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coral_api::{ImageReference, Mirror, MirroredImage, MirroredImageStatus, mirrored_image};
use coral_mirror::{Controller, ControllerOptions, LeaseOptions};
use coral_tests::{
    hollow::ControlPlane,
    images::{self, Registry},
    wait::{Look, eventually},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The folder that holds the clusters of such tests, so that whoever kills a test can take them away.
const FOLDER_VARIABLE: &str = "CORAL_OWN_CLUSTERS";
/// How long anything may take that is only a matter of work, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Namespace of what uses images.
pub(crate) const NAMESPACE: &str = "shop";
const SYSTEM: &str = coral_api::keys::SYSTEM_NAMESPACE;

pub(crate) struct Site {
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) open: Registry,
    pub(crate) authenticated: Registry,
}

impl Site {
    pub(crate) async fn start(name: &str) -> Self {
        let folder = env::var_os(FOLDER_VARIABLE)
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(), PathBuf::from);
        fs::create_dir_all(&folder).unwrap();
        let plane = ControlPlane::start(&folder, name).await.unwrap();
        let site = Self {
            client: plane.client(),
            open: plane.cluster().open_registry(),
            authenticated: plane.cluster().authenticated_registry().unwrap(),
            plane,
        };
        for crd in [Mirror::crd(), MirroredImage::crd()] {
            site.apply(serde_json::to_value::<CustomResourceDefinition>(crd).unwrap())
                .await;
        }
        for (name, labels) in [(SYSTEM, json!({})), (NAMESPACE, json!({"team": "shop"}))] {
            site.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
                .await;
        }
        let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/components/mirror/rbac.yaml");
        for object in serde_saphyr::from_multiple(&fs::read_to_string(rights).unwrap()).unwrap() {
            site.apply(object).await;
        }
        let authority = fs::read(site.plane.cluster().registry_auth().authority).unwrap();
        site.secret("coral-mirror-ca", "Opaque", "ca.crt", &authority).await;
        let password = site.plane.cluster().registry_auth().password;
        site.push_secret(&password).await;
        eventually("the API server to serve Mirrors", PATIENCE, async || {
            let list = ListParams::default().limit(1);
            site.mirrors().list(&list).await?;
            site.images().list(&list).await?;
            Ok(Look::<(), ()>::Done(()))
        })
        .await
        .unwrap();
        site
    }

    /// Starts a controller that has just the rights of the ServiceAccount.
    pub(crate) fn controller(&self, identity: &str) -> JoinHandle<()> {
        self.controller_with(ControllerOptions {
            identity: identity.to_owned(),
            plain_http: [self.plane.cluster().registry()].into(),
            ..ControllerOptions::default()
        })
    }

    /// The same with options of one's own, and a Lease and a pace for tests.
    pub(crate) fn controller_with(&self, options: ControllerOptions) -> JoinHandle<()> {
        let mut config = self.plane.config().clone();
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{SYSTEM}:coral-mirror"));
        config.auth_info.impersonate_groups = Some(
            ["system:serviceaccounts", "system:authenticated"]
                .map(str::to_owned)
                .to_vec(),
        );
        let options = ControllerOptions {
            lease: Some(LeaseOptions {
                duration: Duration::from_secs(6),
                renew_deadline: Duration::from_secs(4),
                retry_period: Duration::from_secs(1),
                ..LeaseOptions::new(SYSTEM, "coral-mirror")
            }),
            collection_interval: Duration::from_secs(3),
            ..options
        };
        let controller = Controller::new(Client::try_from(config).unwrap(), options);
        tokio::spawn(controller.run(std::future::pending::<()>()))
    }

    pub(crate) fn mirrors(&self) -> Api<Mirror> {
        Api::all(self.client.clone())
    }

    pub(crate) fn images(&self) -> Api<MirroredImage> {
        Api::all(self.client.clone())
    }

    /// The password with which the controller pushes.
    pub(crate) async fn push_secret(&self, password: &str) {
        let registry = self.plane.cluster().registry_auth();
        let login = STANDARD.encode(format!("{}:{password}", registry.user));
        let config = json!({"auths": {registry.host: {"auth": login}}}).to_string();
        self.secret(
            "coral-mirror-push",
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            config.as_bytes(),
        )
        .await;
    }

    async fn secret(&self, name: &str, kind: &str, key: &str, data: &[u8]) {
        self.apply(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": SYSTEM},
            "type": kind,
            "data": {key: STANDARD.encode(data)},
        }))
        .await;
    }

    /// A spec of images behind the password, and of copies in the open registry, both reached by `sources` and the destination's fields.
    pub(crate) fn outwards(&self, images: &[&str], sources: &Value) -> Value {
        json!({
            "images": images,
            "destinations": [{"registry": self.open.host(), "repositoryPrefix": "out", "plainHttp": true}],
            "sourceSecrets": [{"namespace": SYSTEM, "name": "coral-mirror-push"}],
            "sources": sources,
        })
    }

    /// Applies a Mirror with copies below `m/` behind the password.
    pub(crate) async fn mirror(&self, name: &str, spec: Value) {
        let destination = json!({
            "registry": self.authenticated.host(),
            "nodeAddress": "localhost:7439",
            "repositoryPrefix": "m",
            "secretName": "coral-mirror-push",
            "caSecretName": "coral-mirror-ca",
        });
        let mut object = json!({"destinations": [destination], "refreshInterval": "10s"});
        object
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        self.apply(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Mirror",
            "metadata": {"name": name},
            "spec": object,
        }))
        .await;
    }

    /// A Deployment without pods.
    pub(crate) async fn deployment(&self, name: &str, image: &str) {
        let labels = json!({"app": name});
        self.apply(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}},
            },
        }))
        .await;
    }

    /// An image in the open registry, with other content for another seed.
    pub(crate) fn image(&self, name: &str, seed: &str) -> String {
        images::tiny(&self.open, name, "v1", 100_000, seed).unwrap().reference
    }

    /// What the copy of an image is called behind the password.
    pub(crate) fn copy(&self, image: &str) -> String {
        let place = format!("{}/m", self.authenticated.host());
        let place = coral_mirror::Place::new(&place, coral_mirror::Naming::Path).unwrap();
        place.copy_of(&image.parse().unwrap()).unwrap().to_string()
    }

    pub(crate) async fn apply(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let kind = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let resource = match kind.kind.as_str() {
            "Prefetch" => ApiResource::from_gvk_with_plural(&kind, "prefetches"),
            _ => ApiResource::from_gvk(&kind),
        };
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let parameters = PatchParams::apply("coral-tests").force();
        eventually("the API server to take an object", PATIENCE, async || {
            api.patch(&object.name_any(), &parameters, &Patch::Apply(&object))
                .await?;
            Ok(Look::<(), ()>::Done(()))
        })
        .await
        .unwrap();
    }

    /// The status of an image, if there is any.
    pub(crate) async fn status(&self, image: &str) -> Option<MirroredImageStatus> {
        let name = mirrored_image::name(&image.parse::<ImageReference>().unwrap());
        self.images().get_opt(&name).await.unwrap()?.status
    }

    /// Waits until the status of an image is as it should be.
    pub(crate) async fn until(
        &self,
        what: &str,
        image: &str,
        is_so: impl Fn(&MirroredImageStatus) -> bool,
    ) -> MirroredImageStatus {
        eventually(&format!("{image}: {what}"), PATIENCE, async || {
            Ok(match self.status(image).await {
                Some(status) if is_so(&status) => Look::Done(status),
                other => Look::NotYet(other),
            })
        })
        .await
        .unwrap()
    }

    /// Waits until the status of a Mirror is as it should be.
    pub(crate) async fn until_mirror(&self, what: &str, name: &str, is_so: impl Fn(&Mirror) -> bool) {
        eventually(&format!("the Mirror {name}: {what}"), PATIENCE, async || {
            let mirror = self.mirrors().get(name).await?;
            Ok(if is_so(&mirror) {
                Look::Done(())
            } else {
                Look::NotYet(mirror.status)
            })
        })
        .await
        .unwrap();
    }

    /// Kills one of the registries: `registry` or `registry-auth`.
    pub(crate) fn kill(&self, part: &str) {
        let state = self.plane.cluster().state().unwrap();
        let process = state.parts[part].process;
        process.signal(Signal::KILL);
        assert!(process.wait(Duration::from_secs(10)), "{part} does not end");
    }
}
