//! The Mirror that a command line asks for, and what the API server made of it.

use std::{collections::BTreeMap, fmt::Write as _, str::FromStr};

use coral_api::{ImageReference, Mirror, keys, mirror::Rewrite};
use kube::{
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    apply::{self, Change},
    client::{Cluster, RequestError},
    error::Error,
    human, mirror, naming, output,
};

/// A name below a place, to see what the place is. One with two levels is never one of Docker Hub's official images.
const PROBE: &str = "x/x";
/// Bytes of the hash in a name that nobody chose, as two hex digits each.
const HASH_BYTES: usize = 4;
/// Longest part of such a name before the hash.
const LONGEST_BASE: usize = 54;

/// A registry for copies, and the path that they are put below.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    registry: String,
    prefix: String,
}

impl Place {
    /// Reads `registry.example:5000` or `registry.example/mirror`. A slash at the end is left out.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/');
        let probe: ImageReference = format!("{text}/{PROBE}")
            .parse()
            .map_err(|error: coral_api::InvalidReference| error.reason.to_string())?;
        let registry = probe.registry().to_owned();
        // As in the name of an image, a first part without a dot would be a path of Docker Hub, which nobody means here.
        if text.split('/').next() != Some(registry.as_str()) {
            return Err("it begins with the host of a registry, such as registry.example:5000".to_owned());
        }
        let prefix = probe.repository().strip_suffix(PROBE).unwrap_or_default();
        Ok(Self {
            registry,
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }

    /// The fields of a destination.
    pub(crate) fn field(&self) -> Value {
        let mut field = json!({"registry": self.registry});
        if !self.prefix.is_empty() {
            field["repositoryPrefix"] = self.prefix.as_str().into();
        }
        field
    }

    /// As it is written on a command line.
    fn text(&self) -> String {
        let Self { registry, prefix } = self;
        if prefix.is_empty() {
            registry.clone()
        } else {
            format!("{registry}/{prefix}")
        }
    }
}

/// A Secret of a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SecretName {
    namespace: String,
    name: String,
}

impl FromStr for SecretName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or("write NAMESPACE/NAME")?;
        let namespace = naming::parse_namespace(namespace).map_err(|error| error.to_string())?;
        let name = naming::parse_name(name).map_err(|error| error.to_string())?;
        Ok(Self { namespace, name })
    }
}

impl SecretName {
    /// The fields of a reference.
    pub(crate) fn field(&self) -> Value {
        json!({"namespace": self.namespace, "name": self.name})
    }
}

/// What vouches for a registry of originals: a Secret in Coral's namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SourceAuthority {
    registry: String,
    secret: String,
}

impl FromStr for SourceAuthority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (registry, secret) = text.split_once('=').ok_or("write REGISTRY=SECRET")?;
        let secret = naming::parse_name(secret).map_err(|error| error.to_string())?;
        let registry = parse_registry(registry)?;
        Ok(Self { registry, secret })
    }
}

/// Reads the host of a registry, such as `registry.example:5000`.
pub(crate) fn parse_registry(text: &str) -> Result<String, String> {
    let place = Place::parse(text)?;
    if place.prefix.is_empty() {
        Ok(place.registry)
    } else {
        Err(format!("write only the host, {}", place.registry))
    }
}

/// The field that says how registries of originals are reached, each of them in one way.
pub(crate) fn sources(authorities: &[SourceAuthority], plain: &[String]) -> Result<Value, mirror::Error> {
    let with_authority = authorities
        .iter()
        .map(|SourceAuthority { registry, secret }| (registry, json!({"registry": registry, "caSecretName": secret})));
    let without_tls = plain
        .iter()
        .map(|registry| (registry, json!({"registry": registry, "plainHttp": true})));
    let mut sources = BTreeMap::new();
    for (registry, source) in with_authority.chain(without_tls) {
        let other = sources.insert(registry, source.clone());
        if other.is_some_and(|other| other != source) {
            return Err(mirror::Error::TwoWays {
                registry: registry.clone(),
            });
        }
    }
    Ok(sources.into_values().collect())
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Request {
    name: String,
    spec: Map<String, Value>,
}

/// What the API server made of it.
pub(crate) struct Applied {
    pub(crate) change: Change,
    pub(crate) object: DynamicObject,
    pub(crate) mirror: Mirror,
}

impl Request {
    /// A Mirror of this name, or of one that is the same for the same images and places.
    pub(crate) fn new(name: Option<String>, images: &[ImageReference], places: &[Place]) -> Self {
        Self {
            name: name.unwrap_or_else(|| default_name(images, places)),
            spec: Map::new(),
        }
    }

    /// Asks for a field of the spec.
    pub(crate) fn set(&mut self, field: &str, value: Value) {
        self.spec.insert(field.to_owned(), value);
    }

    /// What a Mirror is to the API server.
    #[expect(clippy::unused_self, reason = "as the other requests have it")]
    pub(crate) fn resource(&self) -> ApiResource {
        ApiResource::erase::<Mirror>(&())
    }

    /// The object that is applied: only what was asked for, so that everything else stays with whoever set it.
    pub(crate) fn object(&self) -> Value {
        let resource = self.resource();
        json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": self.name},
            "spec": self.spec,
        })
    }

    /// `mirror.image.stvz.io/web`
    pub(crate) fn full_name(&self) -> String {
        output::name(&self.name, &self.resource())
    }

    /// Applies it.
    pub(crate) async fn apply(&self, cluster: &Cluster, dry_run: bool) -> Result<Applied, Error> {
        let resource = self.resource();
        let api = |client| apply::api(client, &resource, None);
        let before = cluster
            .request(async |client| api(client).get_opt(&self.name).await)
            .await?;
        let parameters = PatchParams {
            dry_run,
            ..PatchParams::apply(keys::PLUGIN_FIELD_MANAGER)
        };
        let patch = Patch::Apply(self.object());
        let after = cluster
            .request(async |client| api(client).patch(&self.name, &parameters, &patch).await)
            .await;
        let object = after.map_err(|error| match error {
            RequestError::Conflict { message } => mirror::Error::Conflict {
                name: self.name.clone(),
                message,
            }
            .into(),
            other => Error::from(other),
        })?;
        let mirror = object
            .clone()
            .try_parse()
            .map_err(|error| Error::Format(error.to_string()))?;
        Ok(Applied {
            change: Change::between(before.as_ref(), &object),
            object,
            mirror,
        })
    }

    /// What the object has beyond what was asked for, because somebody else manages it, and what keeps it from acting.
    pub(crate) fn differences(&self, mirror: &Mirror) -> Vec<String> {
        let name = &self.name;
        let mut differences = Vec::new();
        let asked = self.spec.get("images").and_then(Value::as_array);
        let is_asked = |image: &&String| {
            asked.is_some_and(|asked| asked.iter().any(|asked| asked.as_str() == Some(image.as_str())))
        };
        let others: Vec<&String> = mirror.spec.images.iter().filter(|image| !is_asked(image)).collect();
        if !others.is_empty() {
            differences.push(format!(
                "{name} also has {}, which somebody else asked for",
                human::some_of(&others, 5)
            ));
        }
        if !self.spec.contains_key("rewrite") && mirror.spec.rewrite != Rewrite::Never {
            differences.push(format!(
                "{name} sends new pods to the copies ({:?}), which was asked for before",
                mirror.spec.rewrite
            ));
        }
        if mirror.spec.suspend {
            differences.push(format!(
                "{name} is suspended: nothing is copied until spec.suspend is false"
            ));
        }
        differences
    }
}

/// The name for copies of these images in these places, whatever the order and spelling.
fn default_name(images: &[ImageReference], places: &[Place]) -> String {
    let mut places: Vec<String> = places.iter().map(Place::text).collect();
    let named = naming::default_name(images, None);
    let base = match (images.is_empty(), named.rsplit_once('-')) {
        (false, Some((base, _))) => base.to_owned(),
        _ => label(places.first().map(String::as_str).unwrap_or_default()),
    };
    places.sort_unstable();
    places.dedup();
    let mut digest = Sha256::new();
    digest.update(&named);
    for place in places {
        digest.update(b"\n");
        digest.update(place);
    }
    let hash = digest.finalize();
    hash[..HASH_BYTES].iter().fold(format!("{base}-"), |mut name, byte| {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// A text as the beginning of a DNS label.
fn label(text: &str) -> String {
    let mut name = String::new();
    for character in text.to_ascii_lowercase().chars() {
        if character.is_ascii_alphanumeric() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(LONGEST_BASE);
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(images: &[&str], places: &[&str]) -> String {
        let images: Vec<ImageReference> = images.iter().map(|image| image.parse().unwrap()).collect();
        let places: Vec<Place> = places.iter().map(|place| Place::parse(place).unwrap()).collect();
        default_name(&images, &places)
    }

    #[test]
    fn places_are_registries_with_or_without_a_path() {
        for (text, registry, prefix) in [
            ("r.lan", "r.lan", ""),
            ("r.lan:5000/", "r.lan:5000", ""),
            ("r.lan/mirror", "r.lan", "mirror"),
            ("localhost:7439/a/b/", "localhost:7439", "a/b"),
            ("[fd00::1]:5000/m", "[fd00::1]:5000", "m"),
            ("docker.io/acme", "docker.io", "acme"),
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!(
                (place.registry.as_str(), place.prefix.as_str()),
                (registry, prefix),
                "{text}"
            );
        }
        for text in [
            "",
            "/",
            "https://r.lan",
            "r.lan/Upper",
            "mirror",
            "acme/mirror",
            "r.lan/a:b",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_same_images_in_the_same_places_have_one_name() {
        let one = name(&["nginx", "redis:8"], &["r.lan/m", "s.lan"]);
        assert!(
            one.starts_with("nginx-") && one.len() == "nginx-".len() + 2 * HASH_BYTES,
            "{one}"
        );
        assert_eq!(
            one,
            name(&["docker.io/library/nginx:latest", "redis:8"], &["s.lan", "r.lan/m/"])
        );
        assert_ne!(one, name(&["nginx", "redis:8"], &["r.lan/m"]));
        assert_ne!(one, name(&["nginx"], &["r.lan/m", "s.lan"]));
        assert!(name(&[], &["r.lan:5000/m"]).starts_with("r-lan-5000-m-"));
        assert!(naming::is_dns_subdomain(&name(
            &[],
            &[&format!("{}.lan", "a".repeat(80))]
        )));
    }

    #[test]
    fn secrets_have_a_namespace() {
        let secret: SecretName = "shop/regcred".parse().unwrap();
        assert_eq!(secret.field(), json!({"namespace": "shop", "name": "regcred"}));
        for text in ["regcred", "shop/", "/regcred", "shop/a/b", "Shop/a"] {
            assert!(text.parse::<SecretName>().is_err(), "{text}");
        }
    }

    #[test]
    fn registries_of_originals_are_reached_in_one_way() {
        let authority = |text: &str| text.parse::<SourceAuthority>();
        let one = authority("r.lan:5000=ca").unwrap();
        assert_eq!(
            sources(&[one.clone(), one.clone()], &["s.lan".to_owned()]).unwrap(),
            json!([{"registry": "r.lan:5000", "caSecretName": "ca"}, {"registry": "s.lan", "plainHttp": true}])
        );
        let other = authority("r.lan:5000=other").unwrap();
        assert!(sources(&[one.clone(), other], &[]).is_err());
        assert!(sources(&[one], &["r.lan:5000".to_owned()]).is_err());
        for text in ["ca", "r.lan/path=ca", "https://r.lan=ca", "r.lan=", "r.lan=Ca"] {
            assert!(authority(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_others_asked_for_is_told() {
        let mut request = Request::new(Some("web".to_owned()), &[], &[]);
        request.set("images", json!(["nginx:1.29"]));
        let mirror = |spec: Value| -> Mirror {
            serde_json::from_value(json!({
                "apiVersion": "image.stvz.io/v1alpha1", "kind": "Mirror", "metadata": {"name": "web"}, "spec": spec,
            }))
            .unwrap()
        };
        let theirs = mirror(json!({
            "images": ["nginx:1.29", "redis:8"], "destinations": [{"registry": "r.lan"}], "rewrite": "Always", "suspend": true,
        }));
        assert_eq!(
            request.differences(&theirs),
            [
                "web also has redis:8, which somebody else asked for",
                "web sends new pods to the copies (Always), which was asked for before",
                "web is suspended: nothing is copied until spec.suspend is false",
            ]
        );
        let ours = mirror(json!({"images": ["nginx:1.29"], "destinations": [{"registry": "r.lan"}]}));
        assert_eq!(request.differences(&ours), [""; 0]);
    }
}
