//! Objects as text, as kubectl prints them.

use kube::{api::DynamicObject, core::ApiResource};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;

/// JSON with kubectl's indentation.
pub(crate) fn json(value: &Value) -> Result<String, Error> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    value
        .serialize(&mut serializer)
        .map_err(|error| Error::Format(error.to_string()))?;
    String::from_utf8(text).map_err(|error| Error::Format(error.to_string()))
}

/// YAML.
pub(crate) fn yaml(value: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|error| Error::Format(error.to_string()))
}

/// The object as the server gave it, without the bookkeeping that kubectl, too, leaves out.
pub(crate) fn object(object: &DynamicObject, resource: &ApiResource) -> Result<Value, Error> {
    let mut value = serde_json::to_value(object).map_err(|error| Error::Format(error.to_string()))?;
    value["apiVersion"] = resource.api_version.clone().into();
    value["kind"] = resource.kind.clone().into();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    Ok(value)
}

/// Several objects as one.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// `prefetch.image.stvz.io/web`
pub(crate) fn name(object: &str, resource: &ApiResource) -> String {
    format!("{}.{}/{object}", resource.kind.to_lowercase(), resource.group)
}
