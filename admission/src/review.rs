//! `AdmissionReview` in, `AdmissionReview` out. No network and no clock: bytes to bytes.
//!
//! The envelope is read into types of our own, and of the object what is needed: kube's `DynamicObject` has all of it, and typed metadata, which
//! forgets what it does not know.

use crate::{
    mutate::{Coverage, Decision, Kind, OBJECT, Part, Refusal, Tree, decide, write_json},
    rewrite::{self, Copies, POD, Rewriting},
};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// As many warnings as are of use; the API server cuts off what is too much, without a word.
const MAX_WARNINGS: usize = 12;

/// What is looked at of a review, for placement and pull policies.
const REVIEW: Part = Part::Keys(&[
    ("apiVersion", &Part::All),
    ("kind", &Part::All),
    (
        "request",
        &Part::Keys(&[
            ("uid", &Part::All),
            ("operation", &Part::All),
            ("object", &OBJECT),
            ("oldObject", &OBJECT),
        ]),
    ),
]);
/// The same for copies.
const POD_REVIEW: Part = Part::Keys(&[
    ("apiVersion", &Part::All),
    ("kind", &Part::All),
    (
        "request",
        &Part::Keys(&[
            ("uid", &Part::All),
            ("operation", &Part::All),
            ("subResource", &Part::All),
            ("object", &POD),
            ("oldObject", &POD),
        ]),
    ),
]);

/// What an answer says, for the count.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// The object is changed.
    Patched,
    /// It is right as it is.
    Unchanged,
    /// It must not be stored.
    Refused,
}

impl Verdict {
    /// As metrics have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// An answer to the API server.
#[derive(Debug)]
pub struct Reviewed {
    /// The answer, as JSON.
    pub body: Vec<u8>,
    /// The kind of the object, if it is one of ours.
    pub kind: Option<Kind>,
    /// What it says.
    pub verdict: Verdict,
    /// Images that are replaced by copies.
    pub rewritten: usize,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is no JSON, or too much of it.
    #[error("failed to read the AdmissionReview")]
    Json(#[from] serde_json::Error),
    /// A field that every review has.
    #[error("failed to read the AdmissionReview: {0} is missing, or no text")]
    Missing(&'static str),
    /// It is something else, or of a version that is not spoken here.
    #[error("failed to understand the review: it is {api_version} {kind}, and should be {API_VERSION} {KIND}")]
    Version {
        /// What it says of itself.
        api_version: String,
        /// The same.
        kind: String,
    },
    /// It is an answer, perhaps.
    #[error("failed to understand the review: it has no request")]
    NoRequest,
}

/// Answers one review: where the pods of an object are to run, and with which pull policies.
pub fn review(body: &[u8], coverage: Option<&Coverage>) -> Result<Reviewed, Malformed> {
    let review = Tree::read(body, &REVIEW)?;
    let request = request(&review)?;
    let (uid, operation) = (text(request, "uid")?, text(request, "operation")?);
    let nothing = Tree::Null;
    let object = request.get("object").unwrap_or(&nothing);
    let stored = request.get("oldObject").unwrap_or(&nothing);
    let decided = match operation {
        "CREATE" => decide(object, None, coverage),
        "UPDATE" => decide(object, Some(stored), coverage),
        // Nothing can be done about an object that goes.
        _ => Ok(Decision::default()),
    };
    let (body, verdict) = answer(uid, decided);
    Ok(Reviewed {
        body,
        kind: Kind::of_tree(object),
        verdict,
        rewritten: 0,
    })
}

/// Answers one review: which images of a pod are replaced by copies. Where nothing is known of copies, none is.
pub fn review_images(body: &[u8], copies: Option<&Copies>) -> Result<Reviewed, Malformed> {
    let review = Tree::read(body, &POD_REVIEW)?;
    let request = request(&review)?;
    let (uid, operation) = (text(request, "uid")?, text(request, "operation")?);
    let nothing = Tree::Null;
    let pod = request.get("object").unwrap_or(&nothing);
    let stored = request.get("oldObject").unwrap_or(&nothing);
    let sub_resource = request.get("subResource").and_then(Tree::as_str).unwrap_or_default();
    let Rewriting { patch, images } = match (copies, operation, sub_resource) {
        (Some(copies), "CREATE", "") => rewrite::decide(pod, None, copies),
        (Some(copies), "UPDATE", "ephemeralcontainers") => rewrite::decide(pod, Some(stored), copies),
        // Images of containers that are there are not Coral's to change.
        _ => Rewriting::default(),
    };
    let decision = Decision {
        patch,
        ..Decision::default()
    };
    let (body, verdict) = answer(uid, Ok(decision));
    Ok(Reviewed {
        body,
        kind: Kind::of_tree(pod),
        verdict,
        rewritten: images,
    })
}

fn request<'t, 'a>(review: &'t Tree<'a>) -> Result<&'t Tree<'a>, Malformed> {
    let (api_version, kind) = (text(review, "apiVersion")?, text(review, "kind")?);
    if (api_version, kind) != (API_VERSION, KIND) {
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        return Err(Malformed::Version { api_version, kind });
    }
    let request = review.get("request").filter(|request| **request != Tree::Null);
    request.ok_or(Malformed::NoRequest)
}

fn text<'t>(tree: &'t Tree<'_>, key: &'static str) -> Result<&'t str, Malformed> {
    let text = tree.get(key).and_then(Tree::as_str);
    text.ok_or(Malformed::Missing(key))
}

/// The answer, written piece by piece into the one buffer that is sent.
fn answer(uid: &str, decided: Result<Decision, Refusal>) -> (Vec<u8>, Verdict) {
    let (decision, refusal) = match decided {
        Ok(decision) => (decision, None),
        Err(refusal) => (Decision::default(), Some(refusal)),
    };
    let Decision { patch, mut warnings } = decision;
    let is_patched = !patch.is_empty();
    let patch = if is_patched { patch.into_json() } else { Vec::new() };
    let mut body = Vec::with_capacity(256 + patch.len() / 3 * 4 + 256 * warnings.len());
    body.extend_from_slice(br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#);
    write_json(&mut body, uid);
    body.extend_from_slice(br#","allowed":"#);
    write_json(&mut body, &refusal.is_none());
    if let Some(refusal) = &refusal {
        body.extend_from_slice(br#","status":{"code":403,"reason":"Forbidden","message":"#);
        write_json(&mut body, &refusal.to_string());
        body.push(b'}');
    }
    if is_patched {
        body.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
        base64_simd::STANDARD.encode_append(&patch, &mut body);
        body.push(b'"');
    }
    if !warnings.is_empty() {
        warnings.truncate(MAX_WARNINGS);
        body.extend_from_slice(br#","warnings":"#);
        write_json(&mut body, &warnings);
    }
    body.extend_from_slice(b"}}");
    let verdict = match (refusal, is_patched) {
        (Some(_), _) => Verdict::Refused,
        (None, true) => Verdict::Patched,
        (None, false) => Verdict::Unchanged,
    };
    (body, verdict)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn deployment(inject: &str) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "annotations": {"image.stvz.io/inject": inject}},
            "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:1.29"}]}}},
        })
    }

    fn ask(operation: &str, object: &Value, old_object: &Value) -> (Value, Verdict) {
        let request = json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "request": {
                "uid": "7",
                "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                "operation": operation,
                "object": object,
                "oldObject": old_object,
                "userInfo": {},
            },
        });
        let reviewed = review(&serde_json::to_vec(&request).unwrap(), None).unwrap();
        (serde_json::from_slice(&reviewed.body).unwrap(), reviewed.verdict)
    }

    #[test]
    fn patch_is_base64_of_operations() {
        let (answer, verdict) = ask("CREATE", &deployment("pull-policy"), &Value::Null);
        assert_eq!(verdict, Verdict::Patched);
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!(API_VERSION), &json!(KIND))
        );
        let response = &answer["response"];
        assert_eq!(
            (&response["uid"], &response["allowed"], &response["patchType"]),
            (&json!("7"), &json!(true), &json!("JSONPatch"))
        );
        let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        assert_eq!(
            patch[0],
            json!({"op": "add", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "Never"})
        );
        assert_eq!(response["warnings"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn refusal_says_why() {
        let (answer, verdict) = ask("CREATE", &deployment("selector"), &Value::Null);
        assert_eq!(verdict, Verdict::Refused);
        let response = &answer["response"];
        assert_eq!(response["allowed"], json!(false));
        assert_eq!(response["status"]["code"], json!(403));
        assert!(
            response["status"]["message"]
                .as_str()
                .unwrap()
                .ends_with("valid are: selectors, pull-policy")
        );
        assert!(response.get("patch").is_none());
    }

    #[test]
    fn what_was_wrong_before_is_let_through() {
        let (answer, verdict) = ask("UPDATE", &deployment("selector"), &deployment("selector"));
        assert_eq!(verdict, Verdict::Unchanged);
        assert_eq!(answer["response"]["allowed"], json!(true));
    }

    #[test]
    fn deletion_is_nothing_to_us() {
        let (answer, verdict) = ask("DELETE", &Value::Null, &deployment("selector"));
        assert_eq!(verdict, Verdict::Unchanged);
        assert_eq!(answer["response"], json!({"uid": "7", "allowed": true}));
    }

    #[test]
    fn images_are_replaced_when_a_pod_or_an_ephemeral_container_is_new() {
        let copies = crate::rewrite::tests::copies();
        let container = json!([{"name": "web", "image": "nginx:1.29"}]);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {},
            "spec": {"containers": container, "ephemeralContainers": container},
        });
        let old = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": container}});
        for (operation, sub_resource, known, expected) in [
            (
                "CREATE",
                "",
                Some(&copies),
                &["/spec/containers/0/image", "/metadata/annotations"][..],
            ),
            ("CREATE", "", None, &[]),
            (
                "UPDATE",
                "ephemeralcontainers",
                Some(&copies),
                &["/spec/ephemeralContainers/0/image"],
            ),
            ("UPDATE", "", Some(&copies), &[]),
            ("CREATE", "binding", Some(&copies), &[]),
            ("DELETE", "", Some(&copies), &[]),
        ] {
            let request = json!({
                "apiVersion": API_VERSION, "kind": KIND,
                "request": {"uid": "7", "operation": operation, "subResource": sub_resource, "object": pod, "oldObject": old},
            });
            let reviewed = review_images(&serde_json::to_vec(&request).unwrap(), known).unwrap();
            let answer: Value = serde_json::from_slice(&reviewed.body).unwrap();
            assert_eq!(answer["response"]["allowed"], json!(true));
            let patch = answer["response"]["patch"].as_str().unwrap_or("W10=");
            let patch: Vec<Value> = serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
            let paths: Vec<&str> = patch
                .iter()
                .map(|operation| operation["path"].as_str().unwrap())
                .collect();
            assert_eq!(paths, expected, "{operation} {sub_resource}");
            assert_eq!(reviewed.rewritten, expected.len().min(1));
            assert_eq!(reviewed.kind, Some(Kind::Pod));
        }
    }

    #[test]
    fn what_is_no_review_is_malformed() {
        for (body, expected) in [
            ("", "failed to read"),
            ("[]", "failed to read"),
            (
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
                "it has no request",
            ),
            (
                r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#,
                "should be admission.k8s.io/v1 AdmissionReview",
            ),
            (
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":1}}"#,
                "failed to read",
            ),
        ] {
            let error = review(body.as_bytes(), None).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
        // Deeper than any reader should follow.
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(review(deep.as_bytes(), None).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..600_usize, flip in 0..600_usize) {
            let _ = review(&bytes, None);
            let mut good = serde_json::to_vec(&json!({
                "apiVersion": API_VERSION, "kind": KIND,
                "request": {"uid": "7", "operation": "CREATE", "object": deployment("selectors,pull-policy")},
            })).unwrap();
            if let Some(byte) = good.get_mut(flip) {
                *byte ^= bytes.first().copied().unwrap_or(1);
            }
            good.truncate(cut);
            let _ = review(&good, None);
            let _ = review_images(&good, Some(&crate::rewrite::tests::copies()));
        }
    }
}
