//! The server's side: a thread that accepts, and one for each client, of which there are few at a time.

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::lines::{Lines, NoLine};
use super::protocol::{self, Answer, REQUEST_BYTES_MAX, Refusal, Request};
use super::socket::{Socket, check_peer};

/// Clients that are served at a time.
const CLIENTS_MAX: usize = 16;

/// How long a client may take to send a request, or to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the accepting thread waits for a client that is turned away: nothing, almost, as what it is told fits.
const FAREWELL: Duration = Duration::from_millis(50);

/// Between attempts to accept while the system has no descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Carries requests out. Called on the threads of clients, several at a time.
pub(super) type Operator = dyn Fn(Request, &Asker<'_>) -> Answer + Send + Sync;

/// Whoever has asked for something.
pub(super) struct Asker<'a>(&'a Lines);

impl Asker<'_> {
    /// Whether nobody waits for all of it: the connection has been closed, or the half that requests come by.
    pub(super) fn has_left(&self) -> bool {
        self.0.has_ended()
    }
}

/// A socket that is served. Dropping it closes the socket; requests that are being carried out are left to themselves.
#[derive(Debug)]
pub(super) struct Serving {
    /// The thread is told to end. The socket itself may be another process's as well, which goes on with it.
    socket: Arc<Socket>,
    thread: Option<JoinHandle<()>>,
    /// How many requests are being carried out or answered.
    busy: Arc<AtomicUsize>,
}

impl Serving {
    pub(super) fn start(socket: Arc<Socket>, operator: Arc<Operator>) -> io::Result<Self> {
        Self::with_patience(socket, operator, PATIENCE)
    }

    fn with_patience(socket: Arc<Socket>, operator: Arc<Operator>, patience: Duration) -> io::Result<Self> {
        socket.listener.set_nonblocking(true)?;
        let busy = Arc::default();
        let served = Served { operator, busy: Arc::clone(&busy), patience };
        let accepting = Arc::clone(&socket);
        let thread = std::thread::Builder::new().name("control".to_owned());
        let thread = thread.spawn(move || accept_all(&accepting, &served))?;
        Ok(Self { socket, thread: Some(thread), busy })
    }

    /// Waits until what has come is answered, for so long at most.
    pub(super) fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.busy.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What all clients have in common.
#[derive(Clone)]
struct Served {
    operator: Arc<Operator>,
    busy: Arc<AtomicUsize>,
    patience: Duration,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.socket.bell.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept_all(socket: &Socket, served: &Served) {
    let clients = Arc::new(AtomicUsize::new(0));
    while socket.bell.wait(&socket.listener) {
        match socket.listener.accept() {
            Ok((stream, _)) => match stream.set_nonblocking(false) {
                Ok(()) => admit(stream, &clients, served),
                Err(error) => tracing::warn!(%error, "a client of the control socket cannot be served"),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// One client more that is served, or one request, until this is dropped.
struct Admitted(Arc<AtomicUsize>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives a client a thread, or turns it away.
fn admit(stream: UnixStream, clients: &Arc<AtomicUsize>, served: &Served) {
    let turn_away = |stream, refusal| {
        let _ = Lines::new(stream).write(&protocol::answer_line(&Err(refusal)), Instant::now() + FAREWELL);
    };
    if let Err(reason) = check_peer(&stream, false) {
        tracing::warn!(reason, "a client of the control socket was turned away");
        return turn_away(stream, Refusal::new("peer", format!("this socket is not for whoever asks: {reason}")));
    }
    let before = clients.fetch_add(1, Ordering::Relaxed);
    let admitted = Admitted(Arc::clone(clients));
    if before >= CLIENTS_MAX {
        let reason = format!("{CLIENTS_MAX} clients are being served, which is all that there may be: try again later");
        return turn_away(stream, Refusal::new("busy", reason));
    }
    let served = served.clone();
    let thread = std::thread::Builder::new().name("control-client".to_owned()).spawn(move || {
        serve(stream, &served);
        drop(admitted);
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "a client of the control socket gets no thread");
    }
}

fn serve(stream: UnixStream, Served { operator, busy, patience }: &Served) {
    let (mut lines, patience) = (Lines::new(stream), *patience);
    let mut say = protocol::greeting();
    let mut answering = None;
    loop {
        if lines.write(&say, Instant::now() + patience).is_err() {
            return;
        }
        drop(answering.take());
        let (answer, is_last) = match lines.read(REQUEST_BYTES_MAX, Instant::now() + patience) {
            Ok(line) => {
                busy.fetch_add(1, Ordering::Relaxed);
                answering = Some(Admitted(Arc::clone(busy)));
                let asker = Asker(&lines);
                (Request::from_line(&line).and_then(|request| carry_out(request, &asker, &**operator)), false)
            }
            Err(NoLine::Ended(false) | NoLine::Failed(_)) => return,
            Err(NoLine::Ended(true)) => (Err(cut_off()), true),
            Err(NoLine::TooLong) => (Err(too_long()), true),
            Err(NoLine::TimedOut) => (Err(too_late(patience)), true),
        };
        say = protocol::answer_line(&answer);
        if is_last {
            let _ = lines.write(&say, Instant::now() + patience);
            return;
        }
    }
}

/// A fault in the host must not look like a host that is gone.
fn carry_out(request: Request, asker: &Asker<'_>, operator: &Operator) -> Answer {
    let command = request.command();
    tracing::debug!(command, "asked over the control socket");
    catch_unwind(AssertUnwindSafe(|| operator(request, asker))).unwrap_or_else(|_| {
        tracing::error!(command, "a command of the control socket panicked");
        Err(Refusal::new(
            "host",
            format!("the command {command} panicked, which is a fault in the host; its log says where"),
        ))
    })
}

fn cut_off() -> Refusal {
    Refusal::new("request", "the request was not complete when the connection ended: expected a line, with its end")
}

fn too_long() -> Refusal {
    let reason =
        format!("the request has more than {REQUEST_BYTES_MAX} bytes, which is all that one may have: make it shorter");
    Refusal::new("request", reason)
}

fn too_late(patience: Duration) -> Refusal {
    let reason = format!("there was no complete request within {} s: connect again with one", patience.as_secs());
    Refusal::new("request", reason)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::path::Path;
    use std::sync::mpsc;

    use serde_json::{Value, json};

    use super::*;
    use crate::control::tests::{TempDir, eventually};

    const PLUGINS: &str = "{\"control\":1,\"command\":\"plugins\"}\n";

    fn serving(
        path: &Path,
        patience: Duration,
        operator: impl Fn(Request) -> Answer + Send + Sync + 'static,
    ) -> Serving {
        let operator = move |request: Request, _: &Asker<'_>| operator(request);
        Serving::with_patience(Arc::new(Socket::bind(path).unwrap()), Arc::new(operator), patience).unwrap()
    }

    fn echo(request: Request) -> Answer {
        Ok(json!(request.command()))
    }

    struct Client(BufReader<UnixStream>);

    impl Client {
        fn new(path: &Path) -> Self {
            Self(BufReader::new(UnixStream::connect(path).unwrap()))
        }

        /// Connects, and reads the greeting.
        fn greeted(path: &Path) -> Self {
            let mut client = Self::new(path);
            assert_eq!(client.line()["control"], 1);
            client
        }

        fn send(&mut self, bytes: impl AsRef<[u8]>) {
            self.0.get_mut().write_all(bytes.as_ref()).unwrap();
        }

        #[track_caller]
        fn line(&mut self) -> Value {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
        }

        #[track_caller]
        fn reason(&mut self) -> String {
            let line = self.line();
            assert_eq!((&line["ok"], &line["error"]["step"]), (&json!(false), &json!("request")), "{line}");
            line["error"]["reason"].as_str().unwrap().to_owned()
        }

        #[track_caller]
        fn expect_end(&mut self) {
            let mut rest = Vec::new();
            match self.0.read_to_end(&mut rest) {
                Ok(_) => assert_eq!(rest, b""),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            }
        }
    }

    #[test]
    fn requests_are_answered_in_order_and_mistakes_do_not_end_the_connection() {
        let dir = TempDir::new("serve");
        let path = dir.path().join("s");
        let _serving = serving(&path, PATIENCE, echo);
        let mut client = Client::greeted(&path);
        client.send(PLUGINS.repeat(2));
        client.send("{\"control\":1,\"comm");
        assert_eq!(client.line(), json!({"ok": true, "result": "plugins"}));
        assert_eq!(client.line()["result"], "plugins");
        client.send("and\":\"health\"}\n\n\u{1f600}\n");
        assert_eq!(client.line()["result"], "health");
        assert!(client.reason().contains("this is not: EOF"));
        assert!(client.reason().contains("this is not: expected value"));
        client.send([0xff, 0x00, b'\n']);
        client.reason();
        client.send("{\"control\":9,\"command\":\"plugins\"}\r\n");
        assert!(client.reason().contains("speaks version 1"));
        client.send(PLUGINS);
        assert_eq!(client.line()["result"], "plugins");
    }

    #[test]
    fn half_a_request_and_a_huge_one_are_refused() {
        let dir = TempDir::new("serve-half");
        let path = dir.path().join("s");
        let _serving = serving(&path, PATIENCE, echo);
        let mut half = Client::greeted(&path);
        half.send("{\"control\":1");
        half.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert!(half.reason().contains("not complete"));
        half.expect_end();

        let mut huge = Client::greeted(&path);
        let _ = huge.0.get_mut().write_all(&vec![b' '; REQUEST_BYTES_MAX + 5000]);
        assert!(huge.reason().contains("more than 1048576 bytes"));
        huge.expect_end();

        let mut largest = Client::greeted(&path);
        largest.send(" ".repeat(REQUEST_BYTES_MAX + 1 - PLUGINS.len()) + PLUGINS);
        assert_eq!(largest.line()["result"], "plugins");
    }

    #[test]
    fn clients_that_do_not_speak_or_do_not_read_are_let_go() {
        let dir = TempDir::new("serve-slow");
        let path = dir.path().join("s");
        let _serving = serving(&path, Duration::from_millis(50), |_| Ok(json!("x".repeat(8 << 20))));
        let mut silent = Client::greeted(&path);
        assert!(silent.reason().contains("no complete request within"));
        silent.expect_end();
        // What it sends now and then does not make it longer.
        let mut slow = Client::greeted(&path);
        let result = (0..20_000).try_for_each(|_| {
            std::thread::sleep(Duration::from_millis(1));
            slow.0.get_mut().write_all(b" ")
        });
        assert!(result.is_err(), "it was listened to for 20 s");
        assert!(slow.reason().contains("no complete request"));
        let mut deaf = Client::greeted(&path);
        deaf.send(PLUGINS);
        eventually("it is let go, though it has not read", || deaf.0.get_mut().write_all(PLUGINS.as_bytes()).is_err());
    }

    #[test]
    fn clients_are_bounded_and_a_request_that_hangs_does_not_stop_others() {
        let dir = TempDir::new("serve-many");
        let path = dir.path().join("s");
        let (release, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let _serving = serving(&path, PATIENCE, move |request| {
            if request == Request::Metrics {
                let _ = wait.lock().unwrap().recv();
            }
            echo(request)
        });
        let mut hangs = Client::greeted(&path);
        hangs.send("{\"control\":1,\"command\":\"metrics\"}\n");
        let mut clients: Vec<_> = (1..CLIENTS_MAX).map(|_| Client::greeted(&path)).collect();
        let mut refused = Client::new(&path);
        assert_eq!(refused.line()["error"]["step"], "busy");
        refused.expect_end();
        for client in &mut clients {
            client.send(PLUGINS);
            assert_eq!(client.line()["result"], "plugins");
        }
        drop(clients);
        eventually("there is room again", || Client::new(&path).line()["control"] == 1);
        drop(release);
        assert_eq!(hangs.line()["result"], "metrics");
    }

    #[test]
    fn command_that_panics_is_an_error() {
        let dir = TempDir::new("serve-panic");
        let path = dir.path().join("s");
        let _serving = serving(&path, PATIENCE, |request| {
            assert!(request != Request::Metrics, "on purpose");
            echo(request)
        });
        let mut client = Client::greeted(&path);
        client.send("{\"control\":1,\"command\":\"metrics\"}\n");
        assert_eq!(client.line()["error"]["step"], "host");
        client.send(PLUGINS);
        assert_eq!(client.line()["result"], "plugins");
    }

    #[test]
    fn another_user_is_turned_away() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: only root can be somebody else");
            return;
        }
        let dir = TempDir::new("serve-other");
        let path = dir.path().join("s");
        let _serving = serving(&path, PATIENCE, echo);
        // What the permissions would prevent.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let other = path.clone();
        std::thread::spawn(move || {
            rustix::thread::set_thread_res_uid(None, Some(rustix::process::Uid::from_raw(12345)), None).unwrap();
            let mut client = Client::new(&other);
            let line = client.line();
            assert_eq!(line["error"]["step"], "peer", "{line}");
            assert!(line["error"]["reason"].as_str().unwrap().contains("uid 12345"), "{line}");
            client.expect_end();
        })
        .join()
        .unwrap();
        Client::greeted(&path);
    }

    #[test]
    fn socket_is_gone_once_it_is_no_longer_served() {
        let dir = TempDir::new("serve-end");
        let path = dir.path().join("s");
        let serving = serving(&path, PATIENCE, echo);
        let _client = Client::greeted(&path);
        drop(serving);
        assert!(!path.exists());
    }
}
