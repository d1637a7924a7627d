//! The side of whoever asks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::ControlError;
use super::lines::{Interrupt, Lines, NoLine};
use super::place::Place;
use super::protocol::{Answer, REQUEST_BYTES_MAX, Refusal, Request, VERSION, read_answer};
use super::socket::{check_peer, connect_until};

/// How long a host may take to say that it is there.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that a greeting may have.
const GREETING_BYTES_MAX: usize = 64 << 10;

/// Bytes that an answer may have.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Asks the host at `place`, and waits for its answer for `timeout` at most. Whether anybody is there is known after some
/// seconds.
///
/// # Errors
/// Nobody is there, or somebody else than a host of this user, or the host does not answer in time.
pub fn ask(place: &Place, request: &Request, timeout: Duration) -> Result<Answer, ControlError> {
    ask_until(place, request, timeout, |_| {})
}

/// The same; before it is asked, `asking` gets something to [interrupt](Interrupt) it with.
///
/// # Errors
/// As for [`ask`].
pub fn ask_until(
    place: &Place,
    request: &Request,
    timeout: Duration,
    asking: impl FnOnce(Interrupt),
) -> Result<Answer, ControlError> {
    ask_within(place, request, GREETING_TIMEOUT.min(timeout), timeout, asking)
}

fn ask_within(
    place: &Place,
    request: &Request,
    greeting_timeout: Duration,
    timeout: Duration,
    asking: impl FnOnce(Interrupt),
) -> Result<Answer, ControlError> {
    let line = request.to_line();
    if line.len() > REQUEST_BYTES_MAX {
        let reason = format!(
            "the request has {} bytes, most of them the plugin's configuration, and may have {REQUEST_BYTES_MAX}: make that \
             shorter, or let the plugin read a file of its own",
            line.len()
        );
        return Ok(Err(Refusal::new("request", reason)));
    }
    let (path, mut lines) = connect(place, Instant::now() + greeting_timeout)?;
    match greeting(&path, &mut lines, Instant::now() + greeting_timeout)? {
        Ok(()) => {}
        Err(refusal) => return Ok(Err(refusal)),
    }
    let deadline = Instant::now() + timeout;
    if let Ok(interrupt) = lines.interrupt() {
        asking(interrupt);
    }
    // Where it cannot be sent to the end, the host may have said why.
    let sent = lines.write(&line, deadline);
    let no_answer = |reason: String| ControlError::NoAnswer { path: path.clone(), reason };
    let line = lines.read(ANSWER_BYTES_MAX, deadline).map_err(|error| {
        no_answer(match (error, sent) {
            (NoLine::TimedOut, _) => format!("has not answered within {} s", timeout.as_secs_f32()),
            (NoLine::TooLong, _) => format!("its answer has more than {ANSWER_BYTES_MAX} bytes"),
            (_, Err(error)) => format!("the request did not get through: {error}"),
            (NoLine::Failed(error), _) => format!("its answer did not get through: {error}"),
            (NoLine::Ended(_), _) => "it has closed the connection without an answer".to_owned(),
        })
    })?;
    read_answer(&line).ok_or_else(|| no_answer(format!("its answer makes no sense: {}", shown(&line))))
}

/// Connects to the first of the places where somebody listens.
fn connect(place: &Place, deadline: Instant) -> Result<(PathBuf, Lines), ControlError> {
    let mut tried = Vec::new();
    for (path, may_be_ours) in place.for_client()? {
        if let Err(reason) = may_be_ours {
            tried.push((path, reason));
            continue;
        }
        match connect_until(&path, deadline) {
            Ok(stream) => {
                check_peer(&stream, true).map_err(|reason| ControlError::Stranger { path: path.clone(), reason })?;
                return Ok((path, Lines::new(stream)));
            }
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::NotFound => "there is no such socket".to_owned(),
                    io::ErrorKind::ConnectionRefused => "nobody listens there any more".to_owned(),
                    io::ErrorKind::TimedOut => "it accepts nobody: the host there hangs, or is stopped".to_owned(),
                    _ => error.to_string(),
                };
                tried.push((path, reason));
            }
        }
    }
    Err(ControlError::Unreachable { tried })
}

/// Reads what the host says first: who it is, or why it does not serve us.
fn greeting(path: &Path, lines: &mut Lines, deadline: Instant) -> Result<Answer<()>, ControlError> {
    let stranger = |reason: String| ControlError::Stranger { path: path.into(), reason };
    let line = match lines.read(GREETING_BYTES_MAX, deadline) {
        Ok(line) => line,
        Err(NoLine::TimedOut) => {
            let reason =
                "somebody listens there, but has not said who it is: the host is starting, hangs, or is stopped";
            return Err(ControlError::Unreachable { tried: vec![(path.into(), reason.to_owned())] });
        }
        Err(NoLine::Ended(false)) => {
            let reason = "it has closed the connection: the host is ending";
            return Err(ControlError::Unreachable { tried: vec![(path.into(), reason.to_owned())] });
        }
        Err(other) => return Err(stranger(format!("it does not say that it is a host ({other:?})"))),
    };
    if let Some(Err(refusal)) = read_answer(&line) {
        return Ok(Err(refusal));
    }
    let greeting: Value = serde_json::from_slice(&line).unwrap_or_default();
    let (Some(host), Some(found)) = (greeting["host"].as_str(), greeting["control"].as_u64()) else {
        return Err(stranger(format!("it does not say that it is a host, but: {}", shown(&line))));
    };
    if found != VERSION {
        return Err(ControlError::OtherVersion { path: path.into(), host: host.into(), found, expected: VERSION });
    }
    Ok(Ok(()))
}

/// The beginning of a line that makes no sense.
fn shown(line: &[u8]) -> String {
    const BYTES_MAX: usize = 80;
    let text = String::from_utf8_lossy(&line[..line.len().min(BYTES_MAX)]).into_owned();
    format!("{text:?}{}", if line.len() > BYTES_MAX { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use serde_json::json;

    use super::*;
    use crate::control::tests::TempDir;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    /// What comes of a request to a server that does `serve` with its only client.
    fn asked(
        (greeting_timeout, timeout): (Duration, Duration),
        serve: impl FnOnce(UnixStream) + Send + 'static,
    ) -> Result<Answer, ControlError> {
        let dir = TempDir::new("client");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        let answer = ask_within(&Place::Path(path), &Request::Plugins, greeting_timeout, timeout, |_| {});
        thread.join().unwrap();
        answer
    }

    fn says(text: &'static str) -> impl FnOnce(UnixStream) + Send {
        move |mut stream| {
            let _ = stream.write_all(text.as_bytes());
        }
    }

    /// Reads until the client goes away.
    fn hang(mut stream: UnixStream) {
        let _ = stream.read_to_end(&mut Vec::new());
    }

    #[test]
    fn answers_are_handed_on() {
        let hello = "{\"host\":\"9.9\",\"control\":1,\"more\":2}\n";
        let answer =
            asked((LONG, LONG), says(Box::leak(format!("{hello}{{\"ok\":true,\"result\":[7]}}\n").into_boxed_str())));
        assert_eq!(answer, Ok(Ok(json!([7]))));
        let busy = asked((LONG, LONG), says("{\"ok\":false,\"error\":{\"step\":\"busy\",\"reason\":\"full\"}}\n"));
        assert_eq!(busy, Ok(Err(Refusal::new("busy", "full"))));
    }

    #[test]
    fn whoever_is_no_host_of_ours_is_told_apart() {
        let table = [
            ("220 mail.example ESMTP\r\n", "does not say that it is a host, but: \"220 mail.example ESMTP"),
            ("{\"control\":1}\n", "does not say that it is a host"),
            ("{\"host\":\"3.0\",\"control\":2}\n", "is version 3.0 and speaks version 2"),
            ("{\"host\":\"3.0\"", "does not say that it is a host"),
            ("", "the host is ending"),
        ];
        for (text, expected) in table {
            let error = asked((LONG, LONG), says(text)).expect_err(text);
            assert!(!error.is_sent(), "{text}");
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_became_of_a_request_may_not_be_known() {
        const HELLO: &str = "{\"host\":\"9.9\",\"control\":1}\n";
        let greets_and = |then: &'static str| {
            move |mut stream: UnixStream| {
                stream.write_all(HELLO.as_bytes()).unwrap();
                let mut request = [0; 10];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(then.as_bytes()).unwrap();
            }
        };
        for (then, expected) in
            [("{}\n", "makes no sense: \"{}\""), ("", "without an answer"), ("{\"ok\":", "closed the")]
        {
            let error = asked((LONG, LONG), greets_and(then)).expect_err(then);
            assert!(error.is_sent(), "{then}");
            let text = error.to_string();
            assert!(text.contains(expected) || text.contains("did not get through"), "{then}: {text}");
        }
        let error = asked((LONG, SHORT), |mut stream| {
            stream.write_all(HELLO.as_bytes()).unwrap();
            hang(stream);
        });
        let error = error.unwrap_err();
        assert!(error.is_sent() && error.to_string().contains("has not answered within 0.05 s"), "{error}");
    }

    #[test]
    fn host_that_hangs_is_told() {
        let error = asked((SHORT, LONG), hang).unwrap_err();
        assert!(!error.is_sent() && error.to_string().contains("has not said who it is"), "{error}");
    }

    #[test]
    fn nobody_there_is_told_with_all_places() {
        let dir = TempDir::new("client-nobody");
        let path = dir.path().join("s");
        let ask = || ask(&Place::Path(path.clone()), &Request::Plugins, LONG).unwrap_err().to_string();
        let error = ask();
        assert!(error.contains("there is no such socket") && error.contains("--control PATH"), "{error}");
        drop(UnixListener::bind(&path).unwrap());
        let error = ask();
        assert!(error.contains("nobody listens there any more"), "{error}");
    }

    #[test]
    fn request_that_is_too_long_is_not_sent() {
        let request = Request::Configure { plugin: "p".to_owned(), config: "x".repeat(REQUEST_BYTES_MAX) };
        let refusal = ask(&Place::Path("/no/such".into()), &request, LONG).unwrap().unwrap_err();
        assert!(refusal.step == "request" && refusal.reason.contains("and may have 1048576"), "{refusal:?}");
    }
}
