//! Objects as text, as kubectl prints them.

use clap::ValueEnum;
use kube::{api::DynamicObject, core::ApiResource};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{error::Error, printer::Printer};

/// How a command that changes an object shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ObjectFormat {
    Json,
    Yaml,
    Name,
}

/// Whether anything is kept, as for kubectl.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum DryRun {
    #[default]
    None,
    Client,
    Server,
}

impl DryRun {
    /// What stands behind the verb.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// Prints an object as `--output` says, or what became of it: `prefetch.image.stvz.io/web created`.
pub(crate) fn print(
    printer: &Printer,
    format: Option<ObjectFormat>,
    name: &str,
    verb: &str,
    object: &Value,
) -> Result<(), Error> {
    printer.data(match format {
        None => format!("{name} {verb}"),
        Some(ObjectFormat::Name) => name.to_owned(),
        Some(ObjectFormat::Json) => json(object)?,
        Some(ObjectFormat::Yaml) => yaml(object)?,
    })?;
    Ok(())
}

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
    let kind = resource.kind.to_lowercase();
    if resource.group.is_empty() {
        format!("{kind}/{object}")
    } else {
        format!("{kind}.{}/{object}", resource.group)
    }
}
