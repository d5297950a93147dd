//! `AdmissionReview` in, `AdmissionReview` out. No network and no clock: bytes to bytes.
//!
//! The envelope is read into types of our own, and of the object what is needed: kube's `DynamicObject` has all of it, and typed metadata, which
//! forgets what it does not know.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::mutate::{Coverage, Kind, Operation, Options, Outcome, Sketch, mutate};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// As many warnings as are of use; the API server cuts off what is too much, without a word.
const MAX_WARNINGS: usize = 12;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    operation: String,
    #[serde(default)]
    object: Sketch,
    #[serde(default)]
    old_object: Sketch,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

/// What an answer says, for the count.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Verdict {
    Patched,
    Unchanged,
    Refused,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// An answer to the API server.
#[derive(Debug)]
pub(crate) struct Reviewed {
    /// The answer, as JSON.
    pub(crate) body: Vec<u8>,
    /// The kind of the object, if it is one of ours.
    pub(crate) kind: Option<Kind>,
    pub(crate) verdict: Verdict,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("failed to read the AdmissionReview")]
    Json(#[source] serde_json::Error),
    #[error("failed to understand the review: it is {api_version} {kind}, and should be {API_VERSION} {KIND}")]
    Version { api_version: String, kind: String },
    #[error("failed to understand the review: it has no request")]
    NoRequest,
}

/// Answers one review.
pub(crate) fn review(body: &[u8], coverage: Option<&Coverage>) -> Result<Reviewed, Malformed> {
    let review: Review = serde_json::from_slice(body).map_err(Malformed::Json)?;
    let Review {
        api_version,
        kind,
        request,
    } = review;
    if api_version != API_VERSION || kind != KIND {
        return Err(Malformed::Version { api_version, kind });
    }
    let request = request.ok_or(Malformed::NoRequest)?;
    let (Sketch(object), Sketch(stored)) = (&request.object, &request.old_object);
    let operation = match request.operation.as_str() {
        "CREATE" => Some(Operation::Create),
        "UPDATE" => Some(Operation::Update(stored)),
        // Nothing can be done about an object that goes.
        _ => None,
    };
    let outcome = operation.map_or(Ok(Outcome::default()), |operation| {
        mutate(object, &Options { operation, coverage })
    });
    let kind = Kind::of(object);
    let (response, verdict) = match outcome {
        Ok(Outcome { patch, mut warnings }) => {
            warnings.truncate(MAX_WARNINGS);
            let is_patched = !patch.is_empty();
            let patch = is_patched
                .then(|| serde_json::to_vec(&patch))
                .transpose()
                .map_err(Malformed::Json)?;
            let response = Response {
                uid: &request.uid,
                allowed: true,
                status: None,
                patch_type: is_patched.then_some("JSONPatch"),
                patch: patch.map(|patch| BASE64_STANDARD.encode(patch)),
                warnings,
            };
            (
                response,
                if is_patched {
                    Verdict::Patched
                } else {
                    Verdict::Unchanged
                },
            )
        }
        Err(refusal) => {
            let response = Response {
                uid: &request.uid,
                allowed: false,
                status: Some(Status {
                    code: 403,
                    reason: "Forbidden",
                    message: refusal.to_string(),
                }),
                patch_type: None,
                patch: None,
                warnings: Vec::new(),
            };
            (response, Verdict::Refused)
        }
    };
    let answer = Answer {
        api_version: API_VERSION,
        kind: KIND,
        response,
    };
    let body = serde_json::to_vec(&answer).map_err(Malformed::Json)?;
    Ok(Reviewed { body, kind, verdict })
}

#[cfg(test)]
mod tests {
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
        }
    }
}
