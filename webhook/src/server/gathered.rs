//! Answers that are ready at the same time leave together.
//!
//! The HTTP/2 library gathers small frames, but sends off what it has at every one that is larger, an answer with a patch for example. So each
//! such answer would be a TLS record and a system call of its own, which costs as much as to find it out.
//!
//! ```text
//!   HTTP/2 ──write, flush, write, flush──► Gathered ──write, flush──► TLS ──► socket
//! ```

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered: two records of TLS.
const MOST: usize = 32 << 10;

/// A stream that is written to in large pieces.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    stream: S,
    waits: bool,
    bytes: Vec<u8>,
    /// How many of the bytes are written already.
    written: usize,
    /// What has been asked to flush, and is not flushed yet.
    is_due: bool,
}

impl<S> Gathered<S> {
    /// With `waits`, what is flushed leaves when its task runs the next time and has nothing to read any more: behind the tasks that are ready
    /// now, whose answers then go with it. So the task must be one that reads whenever it runs, until there is nothing to read. HTTP/2 is; in
    /// HTTP/1, who writes an answer need not read.
    pub(super) fn new(stream: S, waits: bool) -> Self {
        Self {
            stream,
            waits,
            bytes: Vec::with_capacity(MOST),
            written: 0,
            is_due: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes what was gathered.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let left = &self.bytes[self.written..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.bytes.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes what was gathered, and makes the stream send it.
    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.is_due = false;
        Poll::Ready(Ok(()))
    }

    /// How many bytes there is room for, at least one.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= MOST {
            ready!(self.poll_send(context))?;
        }
        Poll::Ready(Ok(MOST - self.bytes.len()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() && self.is_due {
            // What cannot be written now wakes this task when it can.
            let _ = self.poll_finish(context)?;
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(context))?;
        let taken = bytes.len().min(room);
        self.bytes.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(context))?;
        let mut left = room;
        for slice in slices {
            let taken = slice.len().min(left);
            self.bytes.extend_from_slice(&slice[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waits {
            return self.poll_finish(context);
        }
        if !self.bytes.is_empty() && !self.is_due {
            self.is_due = true;
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_finish(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::*;

    /// Takes what is written, as long as there is room, and has nothing to read.
    #[derive(Default)]
    struct Wire {
        pieces: Vec<Vec<u8>>,
        room: usize,
        is_shut: bool,
    }

    impl AsyncRead for Wire {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Wire {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.pieces.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut = true;
            Poll::Ready(Ok(()))
        }
    }

    /// How often a task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Bench {
        gathered: Gathered<Wire>,
        woken: Arc<Woken>,
    }

    impl Bench {
        fn new(waits: bool, room: usize) -> Self {
            let wire = Wire {
                room,
                ..Wire::default()
            };
            Self {
                gathered: Gathered::new(wire, waits),
                woken: Arc::default(),
            }
        }

        fn run<T>(&mut self, poll: impl FnOnce(Pin<&mut Gathered<Wire>>, &mut Context<'_>) -> T) -> T {
            let waker = Waker::from(Arc::clone(&self.woken));
            poll(Pin::new(&mut self.gathered), &mut Context::from_waker(&waker))
        }

        fn write(&mut self, bytes: &[u8]) -> Option<usize> {
            match self.run(|gathered, context| gathered.poll_write(context, bytes)) {
                Poll::Ready(taken) => Some(taken.unwrap()),
                Poll::Pending => None,
            }
        }

        fn flush(&mut self) {
            assert!(matches!(self.run(AsyncWrite::poll_flush), Poll::Ready(Ok(()))));
        }

        fn read(&mut self) {
            let mut buffer = [0; 8];
            let read = self.run(|gathered, context| gathered.poll_read(context, &mut ReadBuf::new(&mut buffer)));
            assert!(read.is_pending());
        }

        fn pieces(&self) -> Vec<&[u8]> {
            self.gathered.stream.pieces.iter().map(Vec::as_slice).collect()
        }
    }

    #[test]
    fn what_is_ready_together_leaves_together_and_the_task_runs_once_more_for_it() {
        let mut bench = Bench::new(true, 1 << 20);
        bench.read();
        for answer in [b"one", b"two", b"six"] {
            assert_eq!(bench.write(answer), Some(3));
            bench.flush();
        }
        let slices = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        let taken = bench.run(|gathered, context| gathered.poll_write_vectored(context, &slices));
        assert!(matches!(taken, Poll::Ready(Ok(8))));
        assert!(bench.pieces().is_empty());
        assert_eq!(bench.woken.0.load(Ordering::Relaxed), 1);
        bench.read();
        assert_eq!(bench.pieces(), [b"onetwosixheadbody"]);
        bench.read();
        bench.flush();
        assert_eq!(bench.woken.0.load(Ordering::Relaxed), 1, "there is nothing to flush");
        bench.write(b"more");
        bench.flush();
        assert_eq!(bench.woken.0.load(Ordering::Relaxed), 2);
        bench.read();
        assert_eq!(bench.pieces().len(), 2);
    }

    #[test]
    fn nothing_waits_where_nobody_would_read() {
        let mut bench = Bench::new(false, 1 << 20);
        bench.write(b"HTTP/1.1 ");
        bench.write(b"200 OK");
        assert!(bench.pieces().is_empty());
        bench.flush();
        assert_eq!(bench.pieces(), [b"HTTP/1.1 200 OK"]);
        assert_eq!(bench.woken.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn whoever_does_not_read_answers_gets_no_more_of_them() {
        let mut bench = Bench::new(true, 100);
        assert_eq!(bench.write(&vec![1; MOST - 1]), Some(MOST - 1));
        assert_eq!(bench.write(&[2; 10]), Some(1));
        assert_eq!(bench.write(&[3; 10]), None);
        assert_eq!(bench.gathered.bytes.capacity(), MOST);
        bench.flush();
        bench.gathered.stream.room = 2 * MOST;
        bench.read();
        assert_eq!(bench.write(&[3; 10]), Some(10));
        bench.flush();
        bench.read();
        let all = bench.pieces().concat();
        assert_eq!(all.len(), MOST + 10);
        assert!(all.is_sorted());
    }

    #[test]
    fn what_is_gathered_is_written_before_the_end() {
        let mut bench = Bench::new(true, 1 << 20);
        bench.write(b"going away");
        bench.flush();
        assert!(matches!(bench.run(AsyncWrite::poll_shutdown), Poll::Ready(Ok(()))));
        assert_eq!(bench.pieces(), [b"going away"]);
        assert!(bench.gathered.stream.is_shut);
    }
}
