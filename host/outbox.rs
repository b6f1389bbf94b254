//! Small whole responses leave a thread together.
//!
//! Whoever waits for a response on this machine, a caller or a proxy, is woken by it, and waking a sleeping core costs the
//! host's thread a seventh of a short call. Written one after the other without a call between them, all but
//! the first find their reader awake. So a small response waits on its connection until its thread has nothing else
//! to do, or [`MOST`] wait, or the first has waited for [`LONGEST`], or a guest runs that may take long.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// So many responses wait at most.
const MOST: usize = 16;
/// Another response finds the first one of those that wait younger than this, or all leave.
const LONGEST: Duration = Duration::from_micros(200);
/// What a connection holds back, in bytes. What is larger is written at once.
const SMALL: usize = 16 << 10;

/// The responses that wait on this thread.
#[derive(Default)]
struct Outbox {
    /// The thread sends them before it sleeps.
    kept: bool,
    waiting: Vec<Arc<Out>>,
    /// When the first of them began to.
    since: Option<Instant>,
}

thread_local! {
    static OUTBOX: RefCell<Outbox> = RefCell::default();
}

/// From here on responses may wait on this thread, which must call [`send`] before it sleeps and before it ends.
pub fn keep() {
    OUTBOX.with_borrow_mut(|outbox| outbox.kept = true);
}

/// Sends all that waits on this thread.
pub fn send() {
    OUTBOX.with_borrow_mut(Outbox::send);
}

impl Outbox {
    fn send(&mut self) {
        for out in self.waiting.drain(..) {
            out.send();
        }
    }

    fn wait(&mut self, out: Arc<Out>) {
        let now = Instant::now();
        if self.waiting.is_empty() {
            self.since = Some(now);
        }
        self.waiting.push(out);
        let oldest = self.since.map_or(Duration::ZERO, |since| now - since);
        if self.waiting.len() >= MOST || oldest >= LONGEST {
            self.send();
        }
    }
}

/// A connection whose small whole responses may wait.
pub struct Connection {
    read: OwnedReadHalf,
    out: Arc<Out>,
}

/// What goes out on a connection.
pub struct Out {
    /// What is written next is a whole response.
    whole: AtomicBool,
    writer: Mutex<Writer>,
}

struct Writer {
    half: OwnedWriteHalf,
    held: Vec<u8>,
    /// It stands in a thread's outbox.
    listed: bool,
    failed: Option<io::Error>,
    /// Who goes on with what the socket did not take.
    waker: Option<Waker>,
}

impl Connection {
    /// Of this socket.
    pub fn new(stream: TcpStream) -> Self {
        let (read, half) = stream.into_split();
        let writer = Writer {
            half,
            held: Vec::new(),
            listed: false,
            failed: None,
            waker: None,
        };
        let out = Arc::new(Out {
            whole: AtomicBool::new(false),
            writer: Mutex::new(writer),
        });
        Self { read, out }
    }

    /// To say what is written next.
    pub fn out(&self) -> Arc<Out> {
        self.out.clone()
    }

    /// Holds a small whole response back, if it may wait.
    fn hold(&self, cx: &Context<'_>, parts: &[IoSlice<'_>]) -> Option<usize> {
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let kept = || OUTBOX.with_borrow(|outbox| outbox.kept);
        if !self.out.whole.load(Relaxed) || bytes > SMALL || !kept() {
            return None;
        }
        let mut writer = self.out.writer();
        // What the socket did not take goes first.
        let behind = !writer.listed && !writer.held.is_empty();
        if behind || writer.failed.is_some() || writer.held.len() + bytes > SMALL {
            return None;
        }
        for part in parts {
            writer.held.extend_from_slice(part);
        }
        if !writer
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            writer.waker = Some(cx.waker().clone());
        }
        let listed = std::mem::replace(&mut writer.listed, true);
        drop(writer);
        if !listed {
            OUTBOX.with_borrow_mut(|outbox| outbox.wait(self.out.clone()));
        }
        Some(bytes)
    }
}

impl Out {
    /// Whether what is written next is a whole response, and so may wait.
    pub fn whole(&self, whole: bool) {
        self.whole.store(whole, Relaxed);
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, as far as the socket takes it; the connection goes on with the rest.
    fn send(&self) {
        let mut writer = self.writer();
        writer.listed = false;
        if writer.held.is_empty() {
            return;
        }
        match writer.half.try_write(&writer.held) {
            Ok(count) if count == writer.held.len() => return writer.held.clear(),
            Ok(count) => drop(writer.held.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => writer.failed = Some(error),
        }
        let waker = writer.waker.take();
        drop(writer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Writer {
    /// Writes what was held back.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            self.held.clear();
            return Poll::Ready(Err(error));
        }
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.half).poll_write(cx, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(bytes) = self.hold(cx, parts) {
            return Poll::Ready(Ok(bytes));
        }
        let mut writer = self.out.writer();
        ready!(writer.poll_held(cx))?;
        Pin::new(&mut writer.half).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What waits counts as flushed: its thread sends it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writer = self.out.writer();
        match writer.listed {
            true => Poll::Ready(Ok(())),
            false => writer.poll_held(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writer = self.out.writer();
        ready!(writer.poll_held(cx))?;
        Pin::new(&mut writer.half).poll_shutdown(cx)
    }
}
