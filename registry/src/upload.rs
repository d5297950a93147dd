//! Blobs on their way to a registry.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use form_urlencoded::Serializer;
use futures::{Stream, StreamExt as _, stream};
use http::{
    HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;

use crate::{
    error::{Error, Result},
    origin::join,
    repository::{Access, Repository, text},
    transport::{Answer, Body, Call},
};

/// How registries tell how small a piece may be.
const SMALLEST_PIECE: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// Bytes of a piece, where a registry does not take a blob as a whole; where it does not take these, the next.
const PIECES: [u64; 3] = [16 * 1024 * 1024, 4 * 1024 * 1024, 512 * 1024];
/// Bytes that an attempt has to bring along to be no failure: it may be cut as often as it likes.
const PROGRESS: u64 = 1024 * 1024;

/// A place that a registry has made for a blob. Registries clear away those that are not used.
pub struct Upload {
    repository: Repository,
    location: Uri,
    /// What the registry gave its authorization for.
    access: Access,
    /// Fewest bytes of a piece, except the last.
    smallest_piece: u64,
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
    moved_at: Instant,
    /// Whether it is not the registry that is waited for. Where content comes from has limits of its own.
    waits_for_content: bool,
    /// Why there is no more to send.
    failure: Option<Error>,
}

impl Repository {
    /// Asks for a place for a blob.
    pub async fn begin_upload(&self) -> Result<Upload> {
        self.patiently(|| async {
            let call = self.call(Method::POST, "blobs/uploads/")?;
            let answer = self.ask(call, Access::Push).await?;
            let answer = self.expect(answer, StatusCode::ACCEPTED, "place for blobs").await?;
            self.place(&answer, Access::Push)
        })
        .await
    }

    /// Puts a blob that the repository `from` of the same registry has into this one, without sending it. Where the registry does
    /// not do that, it gives a place to send it to.
    pub async fn mount(&self, digest: &str, from: &str) -> Result<Option<Upload>> {
        self.patiently(|| async {
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
                _ => Err(self.failure(answer, "place for blobs").await),
            }
        })
        .await
    }

    /// Sends a blob, again where the registry fails for the moment, where it no longer takes its own token, and where it takes no blob of
    /// this size in one piece. An upload that was cut in the middle goes on there, where the registry tells how much it has; else it
    /// begins anew. `content` gives the blob from that byte on; `place` is where it goes first, if there is such a place.
    pub async fn send_blob<Content>(
        &self,
        place: Option<Upload>,
        digest: &str,
        size: u64,
        content: impl Fn(u64) -> Content,
    ) -> Result<()>
    where
        Content: Stream<Item = Result<Bytes>> + Send + 'static,
    {
        let mut place = place.map(|upload| (upload, 0));
        let (mut attempt, mut is_renewed) = (1, false);
        loop {
            let (mut upload, offset) = match place.take() {
                Some(place) => place,
                None => (Box::pin(self.begin_upload()).await?, 0),
            };
            let piece = self.client().piece(self.authority()).filter(|piece| *piece < size);
            let given = Arc::new(AtomicU64::new(offset));
            let content = counted(content(offset), Arc::clone(&given));
            let sent = Box::pin(upload.send_from(offset, digest, size, piece, content)).await;
            let Err(error) = sent else { return Ok(()) };
            let smaller = PIECES.into_iter().find(|next| *next < piece.unwrap_or(size));
            if error.wants_smaller_pieces()
                && let Some(smaller) = smaller
            {
                self.client().limit_piece(self.authority(), smaller);
            } else if matches!(error, Error::Unauthorized { .. }) && !is_renewed {
                self.forget_authorization(&upload.access);
                is_renewed = true;
            } else if self.pause(attempt, &error).await {
                attempt += 1;
                if let Some(has) = upload.resume(given.load(Relaxed)).await {
                    if has >= offset.saturating_add(PROGRESS) {
                        attempt = 1;
                    }
                    place = Some((upload, has));
                    continue;
                }
            } else {
                upload.cancel(&error).await;
                return Err(error);
            }
            upload.cancel(&error).await;
        }
    }

    fn place(&self, answer: &Answer, access: Access) -> Result<Upload> {
        let own = self.call(Method::PUT, "blobs/uploads/")?;
        let smallest = text(answer.headers(), &SMALLEST_PIECE).and_then(|bytes| bytes.parse().ok());
        Ok(Upload {
            repository: self.clone(),
            location: self.next_location(&own.uri, answer)?,
            access,
            smallest_piece: smallest.unwrap_or_default(),
        })
    }

    fn next_location(&self, base: &Uri, answer: &Answer) -> Result<Uri> {
        text(answer.headers(), &LOCATION)
            .and_then(|location| join(base, location).ok())
            .ok_or_else(|| self.malformed("no place for a blob"))
    }
}

impl Upload {
    /// Sends a blob in one piece. The registry holds it against its digest, and forgets it where it is not whole.
    pub async fn send(
        mut self,
        digest: &str,
        size: u64,
        content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        self.send_from(0, digest, size, None, content).await
    }

    /// Sends what the registry does not have of a blob: all of it in one request, or, from the middle on, in pieces of so many bytes, or of
    /// more where the registry takes no smaller ones. No piece is held in memory.
    async fn send_from(
        &mut self,
        offset: u64,
        digest: &str,
        size: u64,
        piece: Option<u64>,
        content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        if offset == 0 && piece.is_none() {
            return self.finish(digest, size, content).await;
        }
        let piece = piece.unwrap_or(size).max(self.smallest_piece).max(1);
        let content = Arc::new(tokio::sync::Mutex::new(Content {
            stream: Box::pin(content),
            rest: Bytes::new(),
        }));
        let mut offset = offset;
        while offset < size {
            let length = piece.min(size - offset);
            let call = patch(&self.location, offset, length);
            let answer = self.carry(call, part(Arc::clone(&content), length)).await?;
            let answer = self.repository.expect(answer, StatusCode::ACCEPTED, digest).await?;
            offset += length;
            let has = text(answer.headers(), &RANGE);
            if has.is_some_and(|range| range.rsplit('-').next() != Some(&(offset - 1).to_string())) {
                return Err(self.repository.malformed("another part of a blob than was sent"));
            }
            self.location = self.repository.next_location(&self.location, &answer)?;
        }
        self.finish(digest, 0, stream::empty()).await
    }

    /// Sends the rest, and ends the upload.
    async fn finish(
        &self,
        digest: &str,
        size: u64,
        content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let call = put(&self.location, digest, size).ok_or_else(|| self.repository.malformed("no place for a blob"))?;
        let answer = self.carry(call, content).await?;
        self.repository.expect(answer, StatusCode::CREATED, digest).await?;
        Ok(())
    }

    /// Asks how many bytes the registry has of an upload that was cut, of which so many were given out. `None` where it does not tell, has
    /// nothing, or says what cannot be: then the upload is of no use any more.
    async fn resume(&mut self, given: u64) -> Option<u64> {
        let Self { repository, access, .. } = &*self;
        let call = Call::get(self.location.clone());
        let asked = repository.in_time(repository.send_stream(call, access, nothing()));
        let answer = asked
            .await
            .ok()
            .filter(|answer| answer.status() == StatusCode::NO_CONTENT)?;
        let has = text(answer.headers(), &RANGE).and_then(bytes_in)?;
        if has > given {
            return None;
        }
        if answer.headers().contains_key(LOCATION) {
            self.location = repository.next_location(&self.location, &answer).ok()?;
        }
        Some(has)
    }

    /// Lets the registry forget what it has of an upload that is of no use any more, where it is there to be told: else a disk that is
    /// full would be fuller with each attempt.
    async fn cancel(&self, error: &Error) {
        if matches!(error, Error::Unreachable { .. } | Error::Timeout { .. }) {
            return;
        }
        let Self { repository, access, .. } = self;
        let call = Call::new(Method::DELETE, self.location.clone());
        // Registries clear away by themselves what they are not told to.
        let _ = repository
            .in_time(repository.send_stream(call, access, nothing()))
            .await;
    }

    /// Sends content, for as long as it moves.
    async fn carry(&self, call: Call, content: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Result<Answer> {
        let Self { repository, access, .. } = self;
        let course = Arc::new(Mutex::new(Course {
            moved_at: Instant::now(),
            waits_for_content: false,
            failure: None,
        }));
        let observed = Arc::clone(&course);
        let mut content = Box::pin(content);
        let frames = stream::poll_fn(move |context| {
            let polled = content.as_mut().poll_next(context);
            let mut course = observed.lock().unwrap_or_else(PoisonError::into_inner);
            course.moved_at = Instant::now();
            course.waits_for_content = polled.is_pending();
            polled.map(|next| {
                next.map(|piece| {
                    piece.map(Frame::data).map_err(|failure| {
                        course.failure = Some(failure);
                        io::Error::other("the content of the blob is not to be had")
                    })
                })
            })
        });
        let sent = repository.send_stream(call, access, StreamBody::new(frames).boxed_unsync());
        let answer = tokio::select! {
            answer = sent => answer,
            () = stalled(repository, &course) => Err(repository.timeout()),
        };
        // Where there was no more to send, that is the reason, and not what the connection made of it.
        match course.lock().unwrap_or_else(PoisonError::into_inner).failure.take() {
            Some(failure) => Err(failure),
            None => answer,
        }
    }
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Counts what is given out.
fn counted(
    content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    given: Arc<AtomicU64>,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    content.inspect(move |piece| {
        if let Ok(piece) = piece {
            given.fetch_add(piece.len() as u64, Relaxed);
        }
    })
}

/// How many bytes a range from the first byte on has, such as `0-1023`. `None` for other ranges, and for `0-0`, which some say of nothing.
fn bytes_in(range: &str) -> Option<u64> {
    let last = range.trim_start_matches("bytes=").strip_prefix("0-")?;
    last.parse().ok().filter(|last: &u64| *last > 0)?.checked_add(1)
}

/// A blob of which one part after the other is sent.
struct Content {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    /// What came with the part before.
    rest: Bytes,
}

/// The next so many bytes.
fn part(content: Arc<tokio::sync::Mutex<Content>>, length: u64) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::try_unfold((content, length), async |(content, left)| {
        if left == 0 {
            return Ok(None);
        }
        let mut open = content.lock().await;
        let mut bytes = std::mem::take(&mut open.rest);
        while bytes.is_empty() {
            match open.stream.next().await {
                Some(next) => bytes = next?,
                None => return Ok(None),
            }
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        open.rest = bytes.split_off(wanted);
        drop(open);
        let left = left - bytes.len() as u64;
        Ok(Some((bytes, (content, left))))
    })
}

/// The request that ends an upload.
fn put(location: &Uri, digest: &str, size: u64) -> Option<Call> {
    let separator = if location.query().is_some() { '&' } else { '?' };
    let query = Serializer::new(String::new()).append_pair("digest", digest).finish();
    let uri = format!("{location}{separator}{query}").parse().ok()?;
    Some(with_length(Call::new(Method::PUT, uri), size))
}

/// The request that adds a part to an upload.
fn patch(location: &Uri, offset: u64, length: u64) -> Call {
    let mut call = with_length(Call::new(Method::PATCH, location.clone()), length);
    let range = format!("{offset}-{}", offset + length - 1);
    if let Ok(range) = HeaderValue::from_str(&range) {
        call.headers.insert(CONTENT_RANGE, range);
    }
    call
}

fn with_length(mut call: Call, length: u64) -> Call {
    call.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    call
}

/// Completes when the registry has taken nothing for longer than the client waits.
async fn stalled(repository: &Repository, course: &Mutex<Course>) {
    let limit = repository.client().timeout();
    loop {
        let deadline = {
            let course = course.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = if course.waits_for_content {
                Instant::now()
            } else {
                course.moved_at
            };
            begin + limit
        };
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

#[cfg(test)]
mod tests;
