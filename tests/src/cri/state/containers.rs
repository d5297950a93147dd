//! Containers, which keep images from being removed.

use coral_proto::runtime_v1::{Container, ContainerMetadata, ImageSpec};

use super::{State, identity};

impl State {
    /// Makes a container of a pod of the namespace `shop` from an image that is there. It stays when the image goes.
    pub(crate) fn run(&mut self, image: &str, pod: &str, name: &str) -> Option<()> {
        let id = self.flavour.id(self.find(&identity(image))?);
        let labels = [
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.name", pod),
            ("io.kubernetes.container.name", name),
        ];
        self.containers.push(Container {
            id: format!("{:064x}", self.containers.len()),
            metadata: Some(ContainerMetadata { name: name.to_owned() }),
            image: Some(ImageSpec {
                image: id.clone(),
                ..ImageSpec::default()
            }),
            image_ref: id,
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            // Not before Kubernetes 1.29.
            image_id: String::new(),
        });
        Some(())
    }

    /// Takes the containers of a pod away.
    pub(crate) fn end_pod(&mut self, pod: &str) {
        self.containers
            .retain(|container| container.labels["io.kubernetes.pod.name"] != pod);
    }

    /// Answers `ListContainers`.
    pub(crate) fn containers(&self) -> Vec<Container> {
        self.containers.clone()
    }
}
