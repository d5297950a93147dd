//! Objects and answers of an API server.

use serde_json::{Value, json};

/// An answer that refuses.
pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message, "details": {}})
}

/// A condition of a Prefetch.
pub(crate) fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// The status of a Prefetch of `nginx:1.29`.
pub(crate) fn status(desired: i32, ready: i32, conditions: &[Value]) -> Value {
    json!({
        "nodes": {"desired": desired, "ready": ready, "pulling": 0, "failed": 0},
        "imageCount": 1,
        "images": [{"image": "nginx:1.29", "desired": desired, "available": ready, "pulling": 0, "failed": 0}],
        "conditions": conditions,
    })
}

/// A node that is to hold images for `shop/<prefetch>`, with the status of each.
pub(crate) fn node(prefetch: &str, images: &[Value]) -> Value {
    let wanted: Vec<Value> = images
        .iter()
        .map(|image| json!({"image": image["image"], "requestedBy": [format!("shop/{prefetch}")]}))
        .collect();
    json!({"spec": {"images": wanted}, "status": {"images": images}})
}

/// An image that is there.
pub(crate) fn present(image: &str) -> Value {
    json!({"image": image, "state": "Present", "sizeBytes": 67_400_000})
}

/// An image that the registry does not have.
pub(crate) fn not_found(image: &str) -> Value {
    let failure = json!({"reason": "NotFound", "message": "manifest unknown", "attempts": 3});
    json!({"image": image, "state": "Failed", "failure": failure})
}
