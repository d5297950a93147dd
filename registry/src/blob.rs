//! Blobs on their way from a registry.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use http::{
    HeaderValue, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::{
    digest::Hasher,
    error::{Error, Result},
    patience::{Patience, spread},
    repository::{Access, Repository, text},
};

/// Interruptions in a row, without a byte in between, after which a blob is given up.
const MAX_INTERRUPTIONS: u32 = 4;
/// Pause after the first interruption; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause, where the client has no longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A blob that is being fetched. It is asked for when the first piece is wanted.
///
/// Where the connection breaks it goes on where it was. The last piece is given out only if all of them have the digest that was asked
/// for, so that nobody has the whole of something else.
pub struct Blob {
    repository: Repository,
    digest: String,
    size: u64,
    /// Bytes that were given out.
    offset: u64,
    /// Bytes that come again, from a registry that does not begin in the middle.
    surplus: u64,
    check: Check,
    body: Option<Incoming>,
    interruptions: u32,
}

/// What of a blob was held against its digest, so that it can be fetched again from the middle on.
#[derive(Clone)]
pub struct Check {
    checked: Arc<Mutex<Checked>>,
}

struct Checked {
    hasher: Hasher,
    /// Bytes that went through it.
    bytes: u64,
}

impl Checked {
    fn new(digest: &str) -> Self {
        Self {
            hasher: Hasher::like(digest),
            bytes: 0,
        }
    }
}

impl Check {
    /// Nothing so far.
    #[must_use]
    pub fn new(digest: &str) -> Self {
        Self {
            checked: Arc::new(Mutex::new(Checked::new(digest))),
        }
    }

    fn reset(&self, digest: &str) {
        *self.lock() = Checked::new(digest);
    }

    fn lock(&self) -> MutexGuard<'_, Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a piece that begins at that byte, as far as it is new.
    fn take(&self, begin: u64, piece: &[u8]) {
        let mut checked = self.lock();
        let known = checked
            .bytes
            .checked_sub(begin)
            .and_then(|known| usize::try_from(known).ok());
        if let Some(new) = known.and_then(|known| piece.get(known..)) {
            checked.hasher.update(new);
            checked.bytes += new.len() as u64;
        }
    }

    fn is_whole(&self, digest: &str, size: u64) -> bool {
        let checked = self.lock();
        checked.bytes == size && checked.hasher.clone().digest() == digest
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Check")
            .field("bytes", &self.lock().bytes)
            .finish()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Blob")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Size in bytes of a blob of this repository. `None` if it is not there.
    pub async fn blob_size(&self, digest: &str) -> Result<Option<u64>> {
        self.patiently(|| async {
            let call = self.call(Method::HEAD, &format!("blobs/{digest}"))?;
            let answer = self.ask(call, Access::Pull).await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let answer = self.expect(answer, StatusCode::OK, digest).await?;
            text(answer.headers(), &CONTENT_LENGTH)
                .and_then(|size| size.parse().ok())
                .map(Some)
                .ok_or_else(|| self.malformed("a blob without its size"))
        })
        .await
    }

    /// A blob of this repository, of the size in bytes that its manifest says.
    #[must_use]
    pub fn blob(&self, digest: &str, size: u64) -> Blob {
        self.blob_from(digest, size, 0, &Check::new(digest))
    }

    /// The same from that byte on. `check` is that of the fetches before it, and has seen all that comes before that byte; what they have
    /// seen behind it is not looked at again. From the beginning on everything is.
    #[must_use]
    pub fn blob_from(&self, digest: &str, size: u64, offset: u64, check: &Check) -> Blob {
        if offset == 0 {
            check.reset(digest);
        }
        Blob {
            repository: self.clone(),
            digest: digest.to_owned(),
            size,
            offset,
            surplus: 0,
            check: check.clone(),
            body: None,
            interruptions: 0,
        }
    }
}

impl Blob {
    /// The next piece. `None` after the last.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.offset == self.size {
                return self.end().map(|()| None);
            }
            let interruption = match self.next_frame().await {
                Ok(frame) => match self.piece(frame)? {
                    Some(piece) => return Ok(Some(piece)),
                    None => continue,
                },
                Err(error) => error,
            };
            // A stream is taken up again even by those who ask once.
            let patience = Patience {
                attempts: MAX_INTERRUPTIONS + 1,
                first_pause: FIRST_PAUSE,
                longest_pause: self.repository.client().patience().longest_pause.max(LONGEST_PAUSE),
            };
            self.interruptions += 1;
            match patience.pause(self.interruptions, &interruption, spread()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(interruption),
            }
        }
    }

    /// The pieces as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::try_unfold(self, async |mut blob| {
            Ok(blob.chunk().await?.map(|piece| (piece, blob)))
        })
    }

    async fn next_frame(&mut self) -> Result<Bytes> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let limit = self.repository.client().timeout();
        match tokio::time::timeout(limit, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                self.body = Some(body);
                Ok(frame.into_data().unwrap_or_default())
            }
            Ok(Some(Err(source))) => Err(self.unreachable(source.into())),
            Ok(None) => Err(self.unreachable("the blob ended too early".into())),
            Err(_) => Err(self.repository.timeout()),
        }
    }

    /// Takes up what came: nothing, if that was there before.
    fn piece(&mut self, mut piece: Bytes) -> Result<Option<Bytes>> {
        let known = usize::try_from(self.surplus).unwrap_or(usize::MAX).min(piece.len());
        let _ = piece.split_to(known);
        self.surplus -= known as u64;
        if piece.is_empty() {
            return Ok(None);
        }
        self.interruptions = 0;
        let begin = self.offset;
        self.offset += piece.len() as u64;
        if self.offset > self.size {
            return Err(Error::TooLarge {
                host: self.repository.origin().authority.clone(),
                limit: usize::try_from(self.size).unwrap_or(usize::MAX),
            });
        }
        self.check.take(begin, &piece);
        if self.offset == self.size {
            self.end()?;
        }
        Ok(Some(piece))
    }

    fn end(&self) -> Result<()> {
        if self.check.is_whole(&self.digest, self.size) {
            Ok(())
        } else {
            Err(self.repository.mismatch(&self.digest))
        }
    }

    async fn open(&mut self) -> Result<Incoming> {
        let Self { repository, digest, .. } = self;
        let mut call = repository.call(Method::GET, &format!("blobs/{digest}"))?;
        if self.offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.offset));
            call.headers
                .insert(RANGE, range.map_err(|_| repository.malformed("an impossible range"))?);
        }
        let answer = repository.in_time(repository.ask(call, Access::Pull)).await?;
        let begins_where_asked = || {
            let wanted = format!("bytes {}-", self.offset);
            text(answer.headers(), &CONTENT_RANGE).is_some_and(|range| range.starts_with(&wanted))
        };
        self.surplus = match answer.status() {
            StatusCode::OK => self.offset,
            StatusCode::PARTIAL_CONTENT if self.offset > 0 && begins_where_asked() => 0,
            StatusCode::PARTIAL_CONTENT => return Err(repository.malformed("another part of a blob")),
            _ => return Err(repository.failure(answer, digest).await),
        };
        Ok(answer.into_body())
    }

    fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::Unreachable {
            host: self.repository.origin().authority.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests;
