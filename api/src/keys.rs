//! Keys that Coral puts on objects, and the names that it uses in the cluster.

/// API group of every resource of Coral's.
pub const GROUP: &str = "image.stvz.io";

/// Prefix of every label, annotation and taint that Coral puts on an object that is not its own.
/// Nothing without this prefix, slash included, is ever removed.
pub const PREFIX: &str = "image.stvz.io/";

/// Value of a node label [`ImageReference::label_key`](crate::ImageReference::label_key): the image is on the node.
pub const AVAILABLE: &str = "available";

/// Annotation on a Prefetch: an RFC 3339 time at which every image is to be resolved again.
pub const REFRESH_ANNOTATION: &str = "image.stvz.io/refresh";

/// Label that Coral puts on the runtime's image records that it has pinned, so that it never unpins what others pinned.
pub const PINNED_IMAGE_LABEL: &str = "image.stvz.io/pinned";

/// Key of the startup taint: a node that registers with `image.stvz.io/not-ready:NoSchedule` loses it when every Prefetch with
/// `gate: true` that selects the node is there.
pub const STARTUP_TAINT: &str = "image.stvz.io/not-ready";

/// Annotation on a workload or a Pod: what to inject, a comma list of `selectors` and `pull-policy`.
pub const INJECT_ANNOTATION: &str = "image.stvz.io/inject";

/// Annotation beside [`INJECT_ANNOTATION`]: names of the containers that it is about; all others are left alone.
pub const INCLUDE_ANNOTATION: &str = "image.stvz.io/include";

/// Another spelling of [`INCLUDE_ANNOTATION`].
pub const INCLUDED_ANNOTATION: &str = "image.stvz.io/included";

/// Annotation beside [`INJECT_ANNOTATION`]: names of the containers that are left alone. Ignored where the containers to include are named.
pub const EXCLUDE_ANNOTATION: &str = "image.stvz.io/exclude";

/// Another spelling of [`EXCLUDE_ANNOTATION`].
pub const EXCLUDED_ANNOTATION: &str = "image.stvz.io/excluded";

/// Annotation beside [`INJECT_ANNOTATION`]: `required` or `preferred` placement.
pub const PLACEMENT_ANNOTATION: &str = "image.stvz.io/placement";

/// Annotation beside [`INJECT_ANNOTATION`]: the pull policy to set, `Never` or `IfNotPresent`.
pub const PULL_POLICY_ANNOTATION: &str = "image.stvz.io/pull-policy";

/// Annotation that Coral writes: what was injected and what stood there before, as JSON.
pub const INJECTED_ANNOTATION: &str = "image.stvz.io/injected";

/// Namespace of the in-cluster parts.
pub const SYSTEM_NAMESPACE: &str = "coral-system";

/// Service account of the node agents, in [`SYSTEM_NAMESPACE`].
pub const AGENT_SERVICE_ACCOUNT: &str = "coral-agent";

/// Field manager of the node agent: it owns `NodeImages.status`.
pub const AGENT_FIELD_MANAGER: &str = "coral-agent";

/// Field manager of the controller: it owns `NodeImages.spec`, `Prefetch.status` and the node labels.
pub const CONTROLLER_FIELD_MANAGER: &str = "coral-controller";

/// Field manager of the plugin: it owns what people asked for with `kubectl coral`.
pub const PLUGIN_FIELD_MANAGER: &str = "kubectl-coral";

/// Service of the admission webhook, in [`SYSTEM_NAMESPACE`].
pub const WEBHOOK_SERVICE: &str = "coral-webhook";

/// Secret with the certificates of the admission webhook, in [`SYSTEM_NAMESPACE`].
pub const WEBHOOK_SECRET: &str = "coral-webhook-tls";

/// Name of the `MutatingWebhookConfiguration`.
pub const WEBHOOK_CONFIGURATION: &str = "coral-webhook";

/// Name of the webhook, within a registration, that sends new pods to the copies of their images.
pub const REWRITE_WEBHOOK: &str = "rewrite.image.stvz.io";

/// Field manager of the webhook: it owns its Secret and the `caBundle` of its configuration.
pub const WEBHOOK_FIELD_MANAGER: &str = "coral-webhook";

/// Label on a Pod: `false` leaves its images alone, whatever a Mirror says.
pub const MIRROR_LABEL: &str = "image.stvz.io/mirror";

/// Annotation that Coral writes on a Pod whose images it has sent to their copies: the originals by container, as JSON.
pub const ORIGINAL_IMAGES_ANNOTATION: &str = "image.stvz.io/original-images";

/// Service account and Deployment of the mirror controller, in [`SYSTEM_NAMESPACE`].
pub const MIRROR_SERVICE_ACCOUNT: &str = "coral-mirror";

/// Field manager of the mirror controller: it owns `MirroredImage` and `Mirror.status`.
pub const MIRROR_FIELD_MANAGER: &str = "coral-mirror";

/// Name of the internal registry and of its Service, in [`SYSTEM_NAMESPACE`].
pub const REGISTRY_SERVICE: &str = "coral-registry";

/// Port on each node's loopback address at which the agent relays to the internal registry: `localhost:7439`.
pub const RELAY_PORT: u16 = 7439;

/// Port of that Service at which images are read; writing is at [`REGISTRY_PUSH_PORT`].
pub const REGISTRY_PULL_PORT: u16 = 5001;

/// Port of that Service at which images are written.
pub const REGISTRY_PUSH_PORT: u16 = 5000;

/// Secret of that registry with the authorities that its certificate may be from, in `ca.crt`.
pub const REGISTRY_CA_SECRET: &str = "coral-registry-ca";

/// Secret of that registry with a credential to push, of type `kubernetes.io/dockerconfigjson`.
pub const REGISTRY_PUSH_SECRET: &str = "coral-registry-push";
