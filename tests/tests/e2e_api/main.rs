//! The schema on a real API server: what it takes and what it refuses, with which sentence.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod mirror;
mod prefetch;

use coral_api::{Mirror, Prefetch};
use coral_tests::Cluster;
use kube::{
    Api, Resource,
    api::{DynamicObject, PostParams},
    core::ApiResource,
};
use serde_json::{Value, json};

/// A digest of the right form.
const SHA256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A resource whose schema is tested.
trait Checked: Resource<DynamicType = ()> {
    /// Where its objects are.
    fn api(cluster: &Cluster) -> Api<DynamicObject>;
}

impl Checked for Prefetch {
    fn api(cluster: &Cluster) -> Api<DynamicObject> {
        Api::namespaced_with(cluster.client(), "default", &ApiResource::erase::<Self>(&()))
    }
}

impl Checked for Mirror {
    fn api(cluster: &Cluster) -> Api<DynamicObject> {
        Api::all_with(cluster.client(), &ApiResource::erase::<Self>(&()))
    }
}

/// What the API server makes of an object with this spec, or what it says against it. Nothing is stored.
async fn create<K: Checked>(cluster: &Cluster, spec: Value) -> Result<Value, String> {
    let object = serde_json::from_value(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": "checked"},
        "spec": spec,
    }));
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match K::api(cluster).create(&parameters, &object.unwrap()).await {
        Ok(object) => Ok(object.data),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

async fn accepted<K: Checked>(cluster: &Cluster, specs: impl IntoIterator<Item = Value>) {
    for spec in specs {
        if let Err(message) = create::<K>(cluster, spec.clone()).await {
            panic!("{spec} was refused: {message}");
        }
    }
}

async fn refused<K: Checked>(cluster: &Cluster, cases: impl IntoIterator<Item = (Value, &str)>) {
    for (spec, sentence) in cases {
        match create::<K>(cluster, spec.clone()).await {
            Ok(_) => panic!("{spec} was accepted"),
            Err(message) => assert!(
                message.contains(sentence),
                "{spec} was refused with other words: {message}"
            ),
        }
    }
}
