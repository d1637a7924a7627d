//! Where one thread lets connections in.

use std::io;

use rustix::io::Errno;

use super::listener::{Accepted, Listener};
use super::poller::Poller;
use crate::clock::Millis;

/// First and longest pause after the process or the system has run out of something, in milliseconds.
const BACK_OFF_MS: (u64, u64) = (20, 1_000);

/// Where one thread lets connections in: its listeners, watched by its epoll.
///
/// While the process or the system has run out of something they are not watched, so that nobody is woken up in vain; who
/// comes meanwhile waits in the kernel's queue.
pub(super) struct Entrance {
    listeners: Vec<Listener>,
    /// Numbers of those where somebody waits.
    knocking: Vec<usize>,
    /// When they are to be watched, if they are not yet, or not after a shortage.
    opens_at: Option<Millis>,
    /// How long the next shortage is taken to last, in milliseconds.
    pause_ms: u64,
}

impl Entrance {
    /// One that is to be opened at once.
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, knocking: Vec::new(), opens_at: Some(Millis(0)), pause_ms: BACK_OFF_MS.0 }
    }

    /// Goes on with other listeners, from the next time on that it is opened.
    pub(super) fn exchange(&mut self, listeners: Vec<Listener>, poller: &Poller) {
        self.close_until(poller, Millis(0));
        self.listeners = listeners;
    }

    /// When the entrance is to be opened, if it is to be.
    pub(super) fn opens_at(&self) -> Option<Millis> {
        self.opens_at
    }

    /// Opens the entrance if it is time to.
    pub(super) fn open(&mut self, poller: &Poller, now: Millis) {
        if self.opens_at.is_none_or(|at| at > now) {
            return;
        }
        self.opens_at = None;
        for number in 0..self.listeners.len() {
            if let Err(error) = poller.add_listener(&self.listeners[number], number) {
                return self.close_for_a_time(&error, number, poller, now);
            }
        }
    }

    /// Closes the entrance for good.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.knocking.clear();
        self.opens_at = None;
        for listener in &self.listeners {
            // It fails where it is not watched, which is what is wanted.
            let _ = poller.remove(listener);
        }
    }

    /// Somebody waits at the listener of this number.
    pub(super) fn knock(&mut self, number: usize) {
        if !self.knocking.contains(&number) {
            self.knocking.push(number);
        }
    }

    /// Accepts one of those who wait. `None` if there is nobody, or nobody can be let in for a time.
    pub(super) fn accept(&mut self, poller: &Poller, now: Millis) -> Option<Accepted> {
        while let Some(&number) = self.knocking.last() {
            match self.listeners[number].accept() {
                Ok(accepted) => {
                    self.pause_ms = BACK_OFF_MS.0;
                    // One by one, so that a listener where very many knock does not keep the others from their turn.
                    self.knocking.rotate_right(1);
                    return Some(accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(self.knocking.pop()),
                Err(error) if is_shortage(&error) => self.close_for_a_time(&error, number, poller, now),
                Err(error) => {
                    // The connection failed before we came to it; there is nobody to tell. Who is behind it is announced again.
                    tracing::debug!(listener = %self.listeners[number].name(), %error, "a connection was not accepted");
                    self.knocking.pop();
                }
            }
        }
        None
    }

    /// Closes the entrance until then.
    pub(super) fn close_until(&mut self, poller: &Poller, at: Millis) {
        self.close(poller);
        self.opens_at = Some(at);
    }

    fn close_for_a_time(&mut self, error: &io::Error, number: usize, poller: &Poller, now: Millis) {
        self.listeners[number].complain(error, now);
        self.close_until(poller, now + self.pause_ms);
        self.pause_ms = (self.pause_ms * 2).min(BACK_OFF_MS.1);
    }
}

/// Whether the process or the system has run out of something: trying again at once would only burn time.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::listener::tests::{connect, listener};
    use crate::io::poller::{Doorbell, Readiness};

    fn poller() -> Poller {
        Poller::new(Poller::create(&Doorbell::new().unwrap()).unwrap())
    }

    /// The numbers of the listeners that are reported, once there is something.
    fn reported(poller: &mut Poller, patience_ms: Option<u64>) -> Vec<usize> {
        poller.wait(patience_ms).unwrap();
        let listener = |readiness| match readiness {
            Readiness::Listener(number) => Some(number),
            _ => None,
        };
        poller.readiness().filter_map(listener).collect()
    }

    #[test]
    fn who_was_not_accepted_is_announced_again() {
        let listeners: Vec<_> = (0..2).map(|_| listener()).collect();
        let clients = [1, 1, 0].map(|number: usize| connect(&listeners[number]).unwrap());
        let (mut entrance, mut poller) = (Entrance::new(listeners), poller());
        entrance.open(&poller, Millis(0));
        let mut peers = Vec::new();
        while peers.len() < clients.len() {
            let numbers = reported(&mut poller, None);
            assert!(!numbers.is_empty());
            numbers.into_iter().for_each(|number| entrance.knock(number));
            // One of several, as when a turn has no time for more.
            peers.extend(entrance.accept(&poller, Millis(0)).map(|accepted| accepted.peer));
        }
        peers.sort_unstable();
        let mut expected = clients.map(|client| client.local_addr().unwrap());
        expected.sort_unstable();
        assert_eq!(peers, expected);
        assert_eq!(reported(&mut poller, Some(0)), [0; 0]);
    }

    #[test]
    fn a_listener_where_many_wait_does_not_keep_others_from_their_turn() {
        let listeners: Vec<_> = (0..2).map(|_| listener()).collect();
        let names = [0, 1].map(|number: usize| listeners[number].name().to_owned());
        let _clients = [0, 1, 1, 1, 1].map(|number: usize| connect(&listeners[number]).unwrap());
        let (mut entrance, mut poller) = (Entrance::new(listeners), poller());
        entrance.open(&poller, Millis(0));
        while reported(&mut poller, None).len() < 2 {}
        [0, 1].into_iter().for_each(|number| entrance.knock(number));
        for name in [&names[1], &names[0]] {
            assert_eq!(
                entrance.accept(&poller, Millis(0)).map(|accepted| accepted.listener.name().to_owned()).as_ref(),
                Some(name)
            );
        }
    }

    #[test]
    fn nobody_is_announced_while_something_has_run_out() {
        let listener = listener();
        let _client = connect(&listener).unwrap();
        let (mut entrance, mut poller) = (Entrance::new(vec![listener]), poller());
        entrance.open(&poller, Millis(0));
        let shortage = io::Error::from(Errno::MFILE);
        let mut now = Millis(5);
        for pause_ms in [20, 40, 80, 160, 320, 640, 1_000, 1_000] {
            assert_eq!(reported(&mut poller, None), [0]);
            entrance.knock(0);
            entrance.close_for_a_time(&shortage, 0, &poller, now);
            assert!(entrance.accept(&poller, now).is_none());
            assert_eq!(entrance.opens_at(), Some(now + pause_ms));
            entrance.open(&poller, now + (pause_ms - 1));
            assert_eq!(reported(&mut poller, Some(0)), [0; 0], "pause of {pause_ms} ms");
            now = now + pause_ms;
            entrance.open(&poller, now);
            assert_eq!(entrance.opens_at(), None);
        }
        entrance.knock(0);
        assert!(entrance.accept(&poller, now).is_some());
        entrance.close_for_a_time(&shortage, 0, &poller, now);
        assert_eq!(entrance.opens_at(), Some(now + 20), "the shortage was over");
        entrance.close(&poller);
        assert_eq!(entrance.opens_at(), None, "closed for good");
    }
}
