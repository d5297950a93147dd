//! Blobs on their way to a registry.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use form_urlencoded::Serializer;
use futures::{Stream, StreamExt as _};
use http::{
    HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;

use crate::{
    error::{Error, Result},
    origin::join,
    repository::{Access, Repository, text},
    transport::{Answer, Call},
};

/// A place that a registry has made for a blob. Registries clear away those that are not used.
pub struct Upload {
    repository: Repository,
    location: Uri,
    /// What the registry gave its authorization for.
    access: Access,
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The location is a secret of sorts.
        formatter
            .debug_struct("Upload")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

/// How an upload goes.
struct Course {
    last_piece: Instant,
    /// Why there is no more to send.
    failure: Option<Error>,
}

impl Repository {
    /// Asks for a place for a blob.
    pub async fn begin_upload(&self) -> Result<Upload> {
        self.in_time(async {
            let call = self.call(Method::POST, "blobs/uploads/")?;
            let answer = self.ask(call, Access::Push).await?;
            self.expect(&answer, StatusCode::ACCEPTED, "place for blobs")?;
            self.place(&answer, Access::Push)
        })
        .await
    }

    /// Puts a blob that the repository `from` of the same registry has into this one, without sending it. Where the registry does
    /// not do that, it gives a place to send it to.
    pub async fn mount(&self, digest: &str, from: &str) -> Result<Option<Upload>> {
        self.in_time(async {
            let query = Serializer::new(String::new())
                .append_pair("mount", digest)
                .append_pair("from", from)
                .finish();
            let call = self.call(Method::POST, &format!("blobs/uploads/?{query}"))?;
            let access = Access::Mount { from: from.to_owned() };
            let answer = self.ask(call, access.clone()).await?;
            match answer.status() {
                StatusCode::CREATED => Ok(None),
                StatusCode::ACCEPTED => self.place(&answer, access).map(Some),
                _ => Err(self.failure(&answer, "place for blobs")),
            }
        })
        .await
    }

    fn place(&self, answer: &Answer, access: Access) -> Result<Upload> {
        let own = self.call(Method::PUT, "blobs/uploads/")?;
        let location = text(answer.headers(), &LOCATION)
            .and_then(|location| join(&own.uri, location).ok())
            .ok_or_else(|| self.malformed("no place for a blob"))?;
        Ok(Upload {
            repository: self.clone(),
            location,
            access,
        })
    }
}

impl Upload {
    /// Sends a blob in one piece. The registry holds it against its digest, and forgets it where it is not whole.
    pub async fn send(
        self,
        digest: &str,
        size: u64,
        content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let Self {
            repository,
            location,
            access,
        } = self;
        let call = put(&location, digest, size).ok_or_else(|| repository.malformed("no place for a blob"))?;
        let course = Arc::new(Mutex::new(Course {
            last_piece: Instant::now(),
            failure: None,
        }));
        let observed = Arc::clone(&course);
        let frames = content.map(move |piece| {
            let mut course = observed.lock().unwrap_or_else(PoisonError::into_inner);
            course.last_piece = Instant::now();
            piece.map(Frame::data).map_err(|failure| {
                course.failure = Some(failure);
                io::Error::other("the content of the blob is not to be had")
            })
        });
        let sent = repository.send_stream(call, &access, StreamBody::new(frames).boxed_unsync());
        let answer = tokio::select! {
            answer = sent => answer,
            () = stalled(&repository, &course) => Err(repository.timeout()),
        };
        // Where there was no more to send, that is the reason, and not what the connection made of it.
        if let Some(failure) = course.lock().unwrap_or_else(PoisonError::into_inner).failure.take() {
            return Err(failure);
        }
        repository.expect(&answer?, StatusCode::CREATED, digest)
    }
}

/// The request that ends an upload.
fn put(location: &Uri, digest: &str, size: u64) -> Option<Call> {
    let separator = if location.query().is_some() { '&' } else { '?' };
    let query = Serializer::new(String::new()).append_pair("digest", digest).finish();
    let mut call = Call::new(Method::PUT, format!("{location}{separator}{query}").parse().ok()?);
    call.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    Some(call)
}

/// Completes when nothing has been sent for longer than the client waits.
async fn stalled(repository: &Repository, course: &Mutex<Course>) {
    let limit = repository.client().timeout();
    loop {
        let deadline = course.lock().unwrap_or_else(PoisonError::into_inner).last_piece + limit;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

#[cfg(test)]
mod tests;
