//! The Prefetches that a command line is about.

use clap::Args;
use coral_api::Prefetch;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::Value;

use crate::{
    client::{Cluster, RequestError},
    error::Error,
    naming, near, output,
    printer::Printer,
};

/// Which Prefetches, as kubectl has it: by name, by label, or all.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// Names of Prefetches, also as prefetch/NAME
    #[arg(
        value_name = "NAME",
        value_parser = naming::parse_prefetch,
        required_unless_present_any = ["selector", "all"]
    )]
    pub(crate) names: Vec<String>,

    /// The Prefetches with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    pub(crate) selector: Option<String>,

    /// Every Prefetch of the namespace
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub(crate) all: bool,

    /// With --all or -l: of all namespaces
    #[arg(short = 'A', long, conflicts_with = "names")]
    pub(crate) all_namespaces: bool,
}

impl Selection {
    /// The objects that are there, and an error about those that are not.
    pub(crate) async fn find(&self, cluster: &Cluster) -> Result<(Vec<DynamicObject>, Option<Error>), Error> {
        find(cluster, &self.names, self.selector.as_deref(), self.all_namespaces).await
    }

    /// Says that nothing was selected, where nothing was named.
    pub(crate) fn tell_if_empty(&self, found: &[DynamicObject], cluster: &Cluster, printer: &Printer) {
        if found.is_empty() && self.names.is_empty() {
            tell_empty(cluster, self.all_namespaces, printer);
        }
    }
}

/// kubectl's words for an empty list.
pub(crate) fn tell_empty(cluster: &Cluster, all_namespaces: bool, printer: &Printer) {
    printer.note(if all_namespaces {
        "No resources found".to_owned()
    } else {
        format!("No resources found in {} namespace.", cluster.namespace())
    });
}

/// What Prefetches are to the API server.
pub(crate) fn resource() -> ApiResource {
    ApiResource::erase::<Prefetch>(&())
}

/// The Prefetches of a namespace.
pub(crate) fn api(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}

/// The object as what it is.
pub(crate) fn parse(object: &DynamicObject) -> Result<Prefetch, Error> {
    object
        .clone()
        .try_parse()
        .map_err(|error| Error::Format(error.to_string()))
}

/// `prefetch.image.stvz.io/web`
pub(crate) fn name(object: &DynamicObject) -> String {
    output::name(&object.name_any(), &resource())
}

/// The objects with these names, or all; and an error about those that are not there.
pub(crate) async fn find(
    cluster: &Cluster,
    names: &[String],
    selector: Option<&str>,
    all_namespaces: bool,
) -> Result<(Vec<DynamicObject>, Option<Error>), Error> {
    let resource = resource();
    let of_namespaces = |client| -> Api<DynamicObject> {
        if all_namespaces {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, cluster.namespace(), &resource)
        }
    };
    let list = async || {
        let mut objects = Vec::new();
        let each = |object| objects.push(object);
        cluster
            .list_selected(of_namespaces, selector, each)
            .await
            .map(|()| objects)
    };
    if names.is_empty() {
        return Ok((list().await?, None));
    }
    let mut objects = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match cluster
            .request(async |client| of_namespaces(client).get(name).await)
            .await
        {
            Ok(object) => objects.push(object),
            Err(RequestError::NotFound { .. }) => missing.push(name.clone()),
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok((objects, None));
    }
    // Who may read one object need not be allowed to list them: then there are no suggestions.
    let others: Vec<String> = list()
        .await
        .unwrap_or_default()
        .iter()
        .map(kube::ResourceExt::name_any)
        .collect();
    let near = missing
        .iter()
        .flat_map(|name| near::nearest(name, others.iter().map(String::as_str)));
    let error = Error::NoSuchPrefetch {
        near: near.map(str::to_owned).collect(),
        namespace: cluster.namespace().to_owned(),
        names: missing,
    };
    Ok((objects, Some(error)))
}

/// Changes a few fields of a Prefetch, and gives what it is then.
pub(crate) async fn patch(
    cluster: &Cluster,
    object: &DynamicObject,
    change: &Value,
) -> Result<DynamicObject, RequestError> {
    let parameters = PatchParams {
        field_manager: Some(coral_api::keys::PLUGIN_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let change = Patch::Merge(change);
    cluster
        .request(async |client| api(client, &namespace).patch(&name, &parameters, &change).await)
        .await
}
