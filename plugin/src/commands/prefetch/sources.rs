//! Where the images of a command line come from: its arguments, manifests, and workloads of the cluster.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Args;
use kube::{Api, Client, api::DynamicObject};
use serde_json::Value;

use crate::{
    apply,
    client::{Cluster, RequestError},
    error::Error,
    files, output,
    printer::Printer,
    workload::{self, Workload},
};

/// Where images come from.
#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    /// Images, as in a Pod: nginx:1.29, ghcr.io/acme/model@sha256:…
    #[arg(
        value_name = "IMAGE",
        required_unless_present_any = ["files", "workloads", "selector", "all_workloads"]
    )]
    images: Vec<String>,

    /// Manifests: the images of all that has pods in this file or folder, or in standard input (-); may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Workloads of the cluster whose images are meant, such as deploy/web, separated by commas
    #[arg(long = "from", value_name = "TYPE/NAME", value_delimiter = ',', value_parser = workload::parse)]
    workloads: Vec<Workload>,

    /// The images of the workloads with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// The images of every workload of the namespace
    #[arg(long, conflicts_with = "selector")]
    all_workloads: bool,

    /// With -l or --all-workloads: of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Images in their order, as they were written.
    pub(super) images: Vec<String>,
    /// Secrets that the pods in question are pulled with.
    pub(super) pull_secrets: BTreeSet<String>,
}

impl Found {
    fn take(&mut self, object: &Value) {
        for pod in workload::pod_specs(object) {
            self.images.extend(workload::images_of_pod(pod));
            self.pull_secrets
                .extend(workload::pull_secrets_of_pod(pod).map(str::to_owned));
        }
    }
}

impl SourceArgs {
    /// Whether the cluster has to be asked.
    pub(super) fn need_cluster(&self) -> bool {
        !self.workloads.is_empty() || self.selector.is_some() || self.all_workloads
    }

    /// Whether an image may well come twice, which is worth no remark then.
    pub(super) fn are_many(&self) -> bool {
        self.need_cluster() || !self.files.is_empty()
    }

    /// What needs no cluster.
    pub(super) fn read(&self) -> Result<Found, Error> {
        let mut found = Found {
            images: self.images.clone(),
            ..Found::default()
        };
        for file in &self.files {
            let before = found.images.len();
            for document in files::documents(file)? {
                found.take(&document);
            }
            if found.images.len() == before {
                return Err(Error::NoImages {
                    place: file.display().to_string(),
                });
            }
        }
        Ok(found)
    }

    /// What the workloads of the cluster have.
    pub(super) async fn ask(&self, cluster: &Cluster, found: &mut Found, printer: &Printer) -> Result<(), Error> {
        for Workload { kind, name } in &self.workloads {
            let resource = kind.resource();
            let api = |client: Client| apply::api(client, &resource, Some(cluster.namespace()));
            let object = cluster.request(async |client| api(client).get(name).await).await?;
            let before = found.images.len();
            found.take(&output::object(&object, &resource)?);
            if found.images.len() == before {
                return Err(Error::NoImages {
                    place: output::name(name, &resource),
                });
            }
        }
        if self.selector.is_none() && !self.all_workloads {
            return Ok(());
        }
        let before = found.images.len();
        for kind in workload::KINDS {
            let resource = kind.resource();
            let api = |client: Client| -> Api<DynamicObject> {
                let namespace = (!self.all_namespaces).then(|| cluster.namespace());
                apply::api(client, &resource, namespace)
            };
            let each = |object: DynamicObject| {
                if let (false, Ok(object)) = (workload::is_owned(&object), output::object(&object, &resource)) {
                    found.take(&object);
                }
            };
            match cluster.list_selected(api, self.selector.as_deref(), each).await {
                Ok(()) => {}
                Err(error @ RequestError::Forbidden { .. }) => {
                    printer.warning(format_args!("{error}; so images of these are left out"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if found.images.len() == before {
            let place = if self.all_namespaces {
                "the workloads of all namespaces".to_owned()
            } else {
                format!("the workloads of namespace {}", cluster.namespace())
            };
            return Err(Error::NoImages { place });
        }
        Ok(())
    }
}
