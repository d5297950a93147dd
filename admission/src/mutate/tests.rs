//! Cases in `cases/`, written by hand, and properties of generated objects. `json-patch` applies the patches.

mod cases;
mod properties;

use json_patch::PatchOperation;
use serde_json::Value;

fn patched(object: &Value, patch: &[PatchOperation]) -> Value {
    let mut patched = object.clone();
    json_patch::patch(&mut patched, patch).expect("the patch applies");
    patched
}
