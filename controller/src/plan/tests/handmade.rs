//! `NodeImages` that somebody wrote by hand: whatever they say, the plan puts them right and comes to rest.

use coral_api::{ImageReference, keys, node_images::DesiredState};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::Model;

const WANTED: &str = "nginx";

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("docker.io/library/nginx:latest".to_owned()),
        Just("nginx".to_owned()),
        Just("docker.io/library/redis:8".to_owned()),
        Just("shop/web".to_owned()),
        Just("no / reference".to_owned()),
        Just(String::new()),
        "\\PC{0,40}",
    ]
}

fn wish() -> impl Strategy<Value = Value> {
    let state = prop::sample::select(vec!["Present", "Absent", "Held"]);
    let removal = prop::sample::select(vec!["Retain", "Remove"]);
    let numbers = (any::<i32>(), any::<i32>(), any::<bool>());
    let texts = (text(), prop::collection::vec(text(), 0..3), text(), text());
    (texts, state, removal, numbers).prop_map(
        |((image, requested_by, namespace, name), state, removal, (priority, limit, pin))| {
            json!({
                "image": image, "requestedBy": requested_by, "pullSecrets": [{"namespace": namespace, "name": name}],
                "state": state, "removalPolicy": removal, "priority": priority, "backoffLimit": limit, "pin": pin,
                "pullAs": name,
            })
        },
    )
}

fn report() -> impl Strategy<Value = Value> {
    let state = prop::sample::select(vec!["Present", "Pulling", "Waiting", "Failed", "Absent"]);
    (text(), text(), text(), state, any::<i64>(), any::<i32>()).prop_map(
        |(image, digest, message, state, bytes, attempts)| {
            let failure = json!({"reason": "Unknown", "message": message, "attempts": attempts});
            json!({
                "image": image, "digest": digest, "state": state, "sizeBytes": bytes,
                "pull": {"doneBytes": bytes, "totalBytes": bytes.wrapping_neg(), "seconds": bytes},
                "failure": (state == "Failed").then_some(failure),
            })
        },
    )
}

proptest! {
    #[test]
    fn what_somebody_wrote_by_hand_is_put_right(
        wishes in prop::collection::vec(wish(), 0..6),
        reports in prop::collection::vec(report(), 0..6),
        generation in any::<i64>(),
    ) {
        let mut model = Model::with_nodes(&["a"]);
        model.add("web", &json!({"images": [WANTED]}));
        model.settle();
        let object = model.object("a");
        object.spec = serde_json::from_value(json!({"images": wishes})).unwrap();
        object.status = Some(serde_json::from_value(json!({"observedGeneration": generation, "images": reports})).unwrap());
        // Whoever writes by hand makes a new generation, as the API server does.
        object.metadata.generation = Some(7);
        model.settle();

        let wanted: ImageReference = WANTED.parse().unwrap();
        let spec = &model.object("a").spec;
        let kept: Vec<&str> = spec
            .images
            .iter()
            .filter(|image| image.state != DesiredState::Absent)
            .map(|image| image.image.as_str())
            .collect();
        prop_assert_eq!(kept, [wanted.identity()]);
        let labels = model.node("a").metadata.labels.clone().unwrap();
        for key in labels.keys().filter(|key| key.starts_with(keys::PREFIX)) {
            prop_assert_eq!(key, &wanted.label_key());
        }
    }
}
