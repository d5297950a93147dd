//! One request: its body is read, within limits, and what answers is a function of bytes.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
    routing::post,
};
use coral_admission::review::{Malformed, review, review_images};
use futures::StreamExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{copies::KnownCopies, coverage::KnownCoverage, metrics::Metrics, server::Limits};

/// Where the API server sends reviews of annotated objects.
pub(crate) const PATH: &str = "/mutate";
/// Where it sends reviews of pods whose images may have copies.
pub(crate) const REWRITE_PATH: &str = "/rewrite";

const JSON: &str = "application/json";

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the media type of a review is {JSON}")]
    MediaType,
    #[error("a review has at most {0} bytes")]
    TooLarge(usize),
    #[error("there are too many requests; try again")]
    Busy,
    #[error("the request took too long")]
    Slow,
    #[error("failed to read the request: {0}")]
    Broken(#[source] axum::Error),
    #[error("{}", with_cause(.0))]
    Malformed(#[source] Malformed),
}

impl Unanswered {
    fn status(&self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }
}

fn with_cause(error: &Malformed) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    error.to_string() + &cause.unwrap_or_default()
}

/// What answers reviews, with what is known of Prefetches.
pub(crate) fn reviewer(
    metrics: Metrics,
    coverage: KnownCoverage,
) -> impl Fn(&[u8]) -> Result<Vec<u8>, Malformed> + Send + Sync + 'static {
    move |body| {
        let began = Instant::now();
        let reviewed = review(body, coverage.get(began).as_deref());
        metrics.answered(&reviewed, began.elapsed());
        reviewed.map(|reviewed| reviewed.body)
    }
}

/// What answers reviews of pods, with what is known of copies.
pub(crate) fn image_reviewer(
    metrics: Metrics,
    copies: KnownCopies,
) -> impl Fn(&[u8]) -> Result<Vec<u8>, Malformed> + Send + Sync + 'static {
    move |body| {
        let began = Instant::now();
        let reviewed = review_images(body, copies.get(began).as_deref());
        metrics.answered(&reviewed, began.elapsed());
        reviewed.map(|reviewed| reviewed.body)
    }
}

/// What answers requests: the paths, the limits, which are for both together, and `answer` and `answer_images` for what is within them.
pub(crate) fn router<A, I>(answer: A, answer_images: I, metrics: Metrics, limits: Limits) -> Router
where
    A: Fn(&[u8]) -> Result<Vec<u8>, Malformed> + Send + Sync + 'static,
    I: Fn(&[u8]) -> Result<Vec<u8>, Malformed> + Send + Sync + 'static,
{
    let desk = Arc::new(Desk {
        answer,
        metrics,
        body: limits.body,
        time: limits.request,
        requests: Arc::new(Semaphore::new(limits.requests)),
        bodies: Arc::new(Semaphore::new(limits.bodies)),
    });
    let image_desk = Arc::new(desk.with(answer_images));
    Router::new()
        .route(PATH, post(admit::<A>))
        .with_state(desk)
        .route(REWRITE_PATH, post(admit::<I>))
        .with_state(image_desk)
}

/// Where requests come in.
struct Desk<A> {
    answer: A,
    metrics: Metrics,
    /// Bytes that one body may have.
    body: usize,
    /// How long one body may take.
    time: Duration,
    /// Requests for which there is room.
    requests: Arc<Semaphore>,
    /// Bytes of bodies for which there is room.
    bodies: Arc<Semaphore>,
}

impl<A> Desk<A> {
    /// With something else that answers, and the same room.
    fn with<B>(&self, answer: B) -> Desk<B> {
        Desk {
            answer,
            metrics: self.metrics.clone(),
            body: self.body,
            time: self.time,
            requests: Arc::clone(&self.requests),
            bodies: Arc::clone(&self.bodies),
        }
    }
}

async fn admit<A>(State(desk): State<Arc<Desk<A>>>, request: Request) -> Response
where
    A: Fn(&[u8]) -> Result<Vec<u8>, Malformed>,
{
    match desk.answered(request).await {
        Ok(body) => ([(CONTENT_TYPE, JSON)], body).into_response(),
        Err(unanswered) => {
            let status = unanswered.status();
            desk.metrics.request_failed(status.as_u16());
            let mut response = (status, unanswered.to_string()).into_response();
            if let Unanswered::Slow = unanswered {
                // What is left of the request is not waited for.
                response
                    .headers_mut()
                    .insert(CONNECTION, axum::http::HeaderValue::from_static("close"));
            }
            response
        }
    }
}

impl<A: Fn(&[u8]) -> Result<Vec<u8>, Malformed>> Desk<A> {
    async fn answered(&self, request: Request) -> Result<Vec<u8>, Unanswered> {
        let _request = self.requests.try_acquire().map_err(|_| Unanswered::Busy)?;
        let (parts, body) = request.into_parts();
        is_json(&parts.headers)?;
        let length = parts.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: usize| length > self.body) {
            return Err(Unanswered::TooLarge(self.body));
        }
        let body = timeout(self.time, self.read(body))
            .await
            .map_err(|_| Unanswered::Slow)??;
        (self.answer)(&body.bytes).map_err(Unanswered::Malformed)
    }

    /// Reads a body. What has come of it is counted, not what is announced: announcing is cheap.
    async fn read(&self, body: Body) -> Result<Whole, Unanswered> {
        let mut chunks = body.into_data_stream();
        let mut whole = Whole::default();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(Unanswered::Broken)?;
            if whole.bytes.len() + chunk.len() > self.body {
                return Err(Unanswered::TooLarge(self.body));
            }
            let size = u32::try_from(chunk.len()).map_err(|_| Unanswered::Busy)?;
            let room = Arc::clone(&self.bodies)
                .try_acquire_many_owned(size)
                .map_err(|_| Unanswered::Busy)?;
            whole.bytes.extend_from_slice(&chunk);
            match &mut whole.room {
                Some(all) => all.merge(room),
                none => *none = Some(room),
            }
        }
        Ok(whole)
    }
}

/// A body, and the room that it takes.
#[derive(Default)]
struct Whole {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

fn is_json(headers: &HeaderMap) -> Result<(), Unanswered> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case(JSON) {
        Ok(())
    } else {
        Err(Unanswered::MediaType)
    }
}
