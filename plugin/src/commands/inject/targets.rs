//! The workloads that are changed: of the cluster, or in manifests.

use std::path::PathBuf;

use clap::Args;
use coral_api::{Prefetch, prefetch};
use coral_webhook::mutate::{Coverage, Refusal};
use json_patch::{Patch, PatchOperation, TestOperation};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, PatchParams},
    core::ApiResource,
};
use serde_json::Value;

use super::{Change, ShownArgs, print};
use crate::{
    apply,
    cli::ClusterArgs,
    client::{Cluster, RequestError},
    error::Error,
    exit, files,
    output::{self, DryRun},
    prefetches,
    printer::Printer,
    workload::{self, KINDS, Kind, Workload},
};

/// Kinds that replace their pods when the template changes.
const ROLLING: [&str; 3] = ["DaemonSet", "Deployment", "StatefulSet"];

/// Which workloads.
#[derive(Args, Debug)]
pub(super) struct TargetArgs {
    /// Workloads of the cluster, such as deploy/web
    #[arg(
        value_name = "TYPE/NAME",
        value_parser = workload::parse,
        required_unless_present_any = ["files", "selector", "all"]
    )]
    workloads: Vec<Workload>,

    /// Manifests in this file or folder, or in standard input (-), which are printed as they would be; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with_all = ["workloads", "selector", "all"])]
    files: Vec<PathBuf>,

    /// The workloads with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "workloads")]
    selector: Option<String>,

    /// Every workload of the namespace
    #[arg(long, conflicts_with_all = ["workloads", "selector"])]
    all: bool,

    /// With -l or --all: of all namespaces
    #[arg(short = 'A', long, conflicts_with = "workloads")]
    all_namespaces: bool,
}

impl TargetArgs {
    /// Changes each of them.
    pub(super) async fn change(
        &self,
        arguments: &ClusterArgs,
        printer: &Printer,
        shown: ShownArgs,
        verb: &str,
        change: impl Fn(&Value, Option<&Coverage>) -> Result<Change, Refusal>,
    ) -> Result<u8, Error> {
        if !self.files.is_empty() {
            return self.change_files(printer, change);
        }
        let cluster = Cluster::connect(arguments).await?;
        let coverage = coverage(&cluster).await?;
        let found = self.find(&cluster).await?;
        if found.is_empty() {
            prefetches::tell_empty(&cluster, self.all_namespaces, printer);
        }
        for (resource, object) in found {
            let name = output::name(&object.name_any(), &resource);
            if Kind::named(&resource.kind).is_some_and(Kind::is_fixed) {
                return Err(Error::FixedTemplate { object: name });
            }
            let mut value = output::object(&object, &resource)?;
            let Change { patch, warnings } = change(&value, coverage.as_ref()).map_err(|refusal| Error::Refused {
                object: name.clone(),
                reason: refusal.to_string(),
            })?;
            for warning in warnings {
                printer.warning(format_args!("{name}: {warning}"));
            }
            let changes_template = patch
                .iter()
                .any(|operation| operation.path().to_string().starts_with("/spec"));
            if changes_template && ROLLING.contains(&resource.kind.as_str()) {
                let verb = if shown.dry_run == DryRun::None {
                    "are"
                } else {
                    "would be"
                };
                printer.note(format_args!(
                    "{name}: its pods {verb} replaced, as its update strategy says"
                ));
            }
            if shown.dry_run == DryRun::Client || patch.is_empty() {
                apply_to(&mut value, &patch, &name)?;
            } else {
                value = send(&cluster, &resource, &object, &patch, shown.dry_run).await?;
            }
            print(printer, shown, &name, verb, &value, &patch)?;
        }
        Ok(exit::SUCCESS)
    }

    /// Prints the manifests with the changes; what has no pods stays as it is.
    fn change_files(
        &self,
        printer: &Printer,
        change: impl Fn(&Value, Option<&Coverage>) -> Result<Change, Refusal>,
    ) -> Result<u8, Error> {
        let mut documents = Vec::new();
        for file in &self.files {
            for mut object in files::documents(file)? {
                let items = object.get_mut("items").and_then(Value::as_array_mut);
                let is_list = items.is_some();
                for item in items.into_iter().flatten() {
                    change_document(item, printer, &change)?;
                }
                if !is_list {
                    change_document(&mut object, printer, &change)?;
                }
                documents.push(output::yaml(&object)?);
            }
        }
        printer.data(documents.join("---\n"))?;
        Ok(exit::SUCCESS)
    }

    async fn find(&self, cluster: &Cluster) -> Result<Vec<(ApiResource, DynamicObject)>, Error> {
        let mut found = Vec::new();
        for Workload { kind, name } in &self.workloads {
            let resource = kind.resource();
            let api = |client: Client| apply::api(client, &resource, Some(cluster.namespace()));
            let object = cluster.request(async |client| api(client).get(name).await).await?;
            found.push((resource, object));
        }
        if !self.workloads.is_empty() {
            return Ok(found);
        }
        for kind in KINDS.iter().filter(|kind| !kind.is_fixed()) {
            let resource = kind.resource();
            let api = |client: Client| -> Api<DynamicObject> {
                let namespace = (!self.all_namespaces).then(|| cluster.namespace());
                apply::api(client, &resource, namespace)
            };
            let each = |object: DynamicObject| {
                let namespace = object.namespace().unwrap_or_default();
                if !workload::is_owned(&object) && !is_of_the_system(&namespace) {
                    found.push((resource.clone(), object));
                }
            };
            cluster.list_selected(api, self.selector.as_deref(), each).await?;
        }
        Ok(found)
    }
}

/// Namespaces that the webhook leaves alone, too.
fn is_of_the_system(namespace: &str) -> bool {
    namespace.starts_with("kube-") || namespace.ends_with("-system") || ["coral", "cert-manager"].contains(&namespace)
}

fn change_document(
    object: &mut Value,
    printer: &Printer,
    change: impl Fn(&Value, Option<&Coverage>) -> Result<Change, Refusal>,
) -> Result<(), Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = format!(
        "{}/{}",
        text(&object["kind"]).to_lowercase(),
        text(&object["metadata"]["name"])
    );
    match change(object, None) {
        Ok(Change { patch, warnings }) => {
            for warning in warnings {
                printer.warning(format_args!("{name}: {warning}"));
            }
            apply_to(object, &patch, &name)
        }
        Err(Refusal::NoWorkload) => Ok(()),
        Err(refusal) => Err(Error::Refused {
            object: name,
            reason: refusal.to_string(),
        }),
    }
}

fn apply_to(object: &mut Value, patch: &[PatchOperation], name: &str) -> Result<(), Error> {
    json_patch::patch(object, patch).map_err(|error| Error::Refused {
        object: name.to_owned(),
        reason: error.to_string(),
    })
}

/// Sends the patch, for the object as it was read and no other.
pub(crate) async fn send(
    cluster: &Cluster,
    resource: &ApiResource,
    object: &DynamicObject,
    patch: &[PatchOperation],
    dry_run: DryRun,
) -> Result<Value, Error> {
    let mut operations = Vec::new();
    if let (Some(version), Ok(path)) = (object.resource_version(), "/metadata/resourceVersion".parse()) {
        operations.push(PatchOperation::Test(TestOperation {
            path,
            value: version.into(),
        }));
    }
    operations.extend(patch.iter().cloned());
    let patch = kube::api::Patch::<()>::Json(Patch(operations));
    let parameters = PatchParams {
        dry_run: dry_run == DryRun::Server,
        field_manager: Some(coral_api::keys::PLUGIN_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let (name, namespace) = (object.name_any(), object.namespace());
    let patched: DynamicObject = cluster
        .request(async |client| {
            apply::api(client, resource, namespace.as_deref())
                .patch(&name, &parameters, &patch)
                .await
        })
        .await?;
    output::object(&patched, resource)
}

/// What is being prefetched, as far as one may know.
async fn coverage(cluster: &Cluster) -> Result<Option<Coverage>, Error> {
    let mut coverage = Coverage::default();
    let each = |prefetch: Prefetch| {
        let is_refreshed = prefetch.spec.pull_policy == prefetch::PullPolicy::Always;
        for image in prefetch.spec.images.iter().filter_map(|image| image.parse().ok()) {
            coverage.insert(image, is_refreshed);
        }
    };
    match cluster.list(Api::<Prefetch>::all, each).await {
        Ok(()) => Ok(Some(coverage)),
        Err(RequestError::Forbidden { .. } | RequestError::NotInstalled) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
