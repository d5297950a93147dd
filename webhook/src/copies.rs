//! Which copies new pods use, as the `MirroredImage`s say. While that may not be true any more nothing is rewritten: a copy may have been removed since.

use std::{collections::HashMap, convert::Infallible};

use coral_admission::rewrite::Copies;
use coral_api::MirroredImage;
use kube::{Client, ResourceExt as _};

use crate::{
    metrics::Metrics,
    watched::{self, Guarded, Known, Lesson},
};

/// The newest copies, if any. Clones share them.
pub(crate) type KnownCopies = Known<Copies>;

/// The copies of every image. Of a `MirroredImage` that this version cannot read there are none.
#[derive(Debug, Default)]
struct ByImage(HashMap<String, Copies>);

impl Lesson for ByImage {
    type Object = MirroredImage;
    type Knowledge = Copies;
    const OBJECTS: &'static str = "MirroredImages";

    fn learn(&mut self, image: &Guarded<MirroredImage>) -> bool {
        let mut copies = Copies::default();
        if let Ok(image) = &image.0 {
            copies.insert(image);
        }
        self.0.insert(image.name_any(), copies.clone()) != Some(copies)
    }

    fn forget(&mut self, image: &Guarded<MirroredImage>) -> bool {
        self.0.remove(&image.name_any()).is_some()
    }

    fn knowledge(&self) -> Copies {
        let mut all = Copies::default();
        for copies in self.0.values() {
            all.extend(copies);
        }
        all
    }
}

/// Keeps `known` up to date, for ever.
pub(crate) async fn follow(client: Client, known: KnownCopies, metrics: Metrics) -> Infallible {
    watched::follow::<ByImage>(client, known, || metrics.copies_are_known()).await
}

#[cfg(test)]
mod tests {
    use kube::api::WatchEvent;
    use serde_json::{Value, json};

    use super::*;
    use coral_admission::rewrite::{Occasion, rewrite};

    #[test]
    fn only_what_pods_are_to_use_makes_a_difference() {
        let image = |state: &str, copied: i64| {
            json!({
                "apiVersion": "image.stvz.io/v1alpha1",
                "kind": "MirroredImage",
                "metadata": {"name": "x", "resourceVersion": "2"},
                "spec": {"image": "docker.io/library/nginx:1.29", "rewrite": "Always"},
                "status": {"destinations": [{
                    "mirror": "all", "reference": "r/nginx:1.29", "nodeReference": "localhost:7439/nginx:1.29",
                    "state": state, "copiedBytes": copied,
                }]},
            })
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a", "image": "nginx:1.29"}]},
        });
        let mut lesson = ByImage::default();
        let mut take = |kind: &str, image: Value| {
            let event = json!({"type": kind, "object": image});
            let event: WatchEvent<Guarded<MirroredImage>> = serde_json::from_value(event).unwrap();
            let is_different = watched::take(&mut lesson, event).unwrap();
            (
                is_different,
                rewrite(&pod, Occasion::Creation, &lesson.knowledge()).images,
            )
        };
        assert_eq!(take("ADDED", image("Copying", 5)), (true, 0));
        assert_eq!(take("MODIFIED", image("Copying", 9)), (false, 0));
        assert_eq!(take("MODIFIED", image("Present", 9)), (true, 1));
        // From a version to come, perhaps.
        assert_eq!(take("MODIFIED", image("Folded", 9)), (true, 0));
        assert_eq!(take("MODIFIED", image("Present", 9)), (true, 1));
        assert_eq!(take("DELETED", image("Present", 9)), (true, 0));
    }
}
