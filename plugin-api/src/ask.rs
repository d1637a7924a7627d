//! Requests that the host answers later: to a closure, to a thread that waits, or to a future.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};

use crate::HostError;
use crate::abi::{AnswerKey, RawPiece, Reply, Status, ask};
use crate::host::result;

/// A request to the host whose answer is a `T`. It is made by [`then`](Asking::then), [`wait`](Asking::wait),
/// [`start`](Asking::start) or `.await`, and answered exactly once, also if the server stops meanwhile
/// ([`HostError::NotRunning`]).
#[must_use = "nothing is asked before `then`, `wait`, `start` or `.await`"]
pub struct Asking<'a, T> {
    request: Box<dyn FnOnce(Reply) -> Status + 'a>,
    read: fn(Pieces<'_>) -> T,
}

impl<'a, T: Send + 'static> Asking<'a, T> {
    pub(crate) fn new(request: impl FnOnce(Reply) -> Status + 'a, read: fn(Pieces<'_>) -> T) -> Self {
        Self { request: Box::new(request), read }
    }

    fn ask(self, waits: bool, take: impl FnOnce(Result<T, HostError>) + Send + 'static) -> Result<(), HostError> {
        let read = self.read;
        let take = move |status, pieces: &[RawPiece<'_>]| take(result(status).map(|()| read(Pieces(pieces))));
        result(ask(waits, take, self.request))
    }

    /// Gives the answer to a closure, on a thread of the server, which it must not block. What it asks the host for takes
    /// effect when it has returned. Made inside a callback, the request begins when that has returned.
    ///
    /// # Errors
    /// The request was refused; the closure is dropped.
    pub fn then(self, take: impl FnOnce(Result<T, HostError>) + Send + 'static) -> Result<(), HostError> {
        self.ask(false, take)
    }

    /// Makes the request, whatever comes of it.
    ///
    /// # Errors
    /// As [`then`](Asking::then).
    pub fn start(self) -> Result<(), HostError> {
        self.ask(false, drop)
    }

    /// Waits for the answer: on a thread of the plugin's own. Inside a callback it would wait for itself, and is refused
    /// with [`HostError::NotHere`].
    ///
    /// # Errors
    /// The request was refused, or the answer is an error.
    pub fn wait(self) -> Result<T, HostError> {
        let (sender, answer) = mpsc::sync_channel(1);
        self.ask(true, move |answer| {
            let _ = sender.send(answer); // Its receiver waits.
        })?;
        answer.recv().unwrap_or(Err(HostError::NotRunning))
    }
}

impl<T: Send + 'static> IntoFuture for Asking<'_, T> {
    type Output = Result<T, HostError>;
    type IntoFuture = Answer<T>;

    /// Makes the request now. The future needs no particular runtime. One that is polled inside a callback is ready at the
    /// earliest when the callback has returned.
    fn into_future(self) -> Answer<T> {
        let shared = Arc::new(Mutex::new(Shared { answer: None, waker: None }));
        let taken = self.ask(false, {
            let shared = Arc::clone(&shared);
            move |answer| Shared::put(&shared, answer)
        });
        if let Err(error) = taken {
            Shared::put(&shared, Err(error));
        }
        Answer(shared)
    }
}

/// A future of an answer of the host's: an [`Asking`] with `.await` behind it.
#[derive(Debug)]
pub struct Answer<T>(Arc<Mutex<Shared<T>>>);

#[derive(Debug)]
struct Shared<T> {
    answer: Option<Result<T, HostError>>,
    waker: Option<Waker>,
}

impl<T> Shared<T> {
    fn put(shared: &Mutex<Self>, answer: Result<T, HostError>) {
        let mut shared = lock(shared);
        shared.answer = Some(answer);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Future for Answer<T> {
    type Output = Result<T, HostError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = lock(&self.0);
        if let Some(answer) = shared.answer.take() {
            return Poll::Ready(answer);
        }
        shared.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The pieces of an answer, or of one of its rows.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a>(pub(crate) &'a [RawPiece<'a>]);

impl<'a> Pieces<'a> {
    pub(crate) fn find(self, key: AnswerKey) -> Option<&'a RawPiece<'a>> {
        self.0.iter().find(|piece| piece.key == key)
    }

    /// The number of a piece; 0 if there is none.
    pub(crate) fn number(self, key: AnswerKey) -> u64 {
        self.find(key).map_or(0, |piece| piece.number)
    }

    /// The same where it has to be smaller.
    pub(crate) fn small<N: TryFrom<u64> + Default>(self, key: AnswerKey) -> N {
        N::try_from(self.number(key)).unwrap_or_default()
    }

    /// The bytes of a piece; none if there is none.
    pub(crate) fn bytes(self, key: AnswerKey) -> &'a [u8] {
        self.find(key).map_or(&[], |piece| piece.bytes.as_slice())
    }

    pub(crate) fn text(self, key: AnswerKey) -> String {
        String::from_utf8_lossy(self.bytes(key)).into_owned()
    }

    /// The rows: what stands between two pieces that begin one.
    pub(crate) fn rows(self) -> impl Iterator<Item = Pieces<'a>> {
        let rows = self.0.split(|piece| piece.key == AnswerKey::ROW);
        rows.skip(1).map(Pieces)
    }
}
