//! Addresses from which nobody gets in, again and again: after so many failures in a time, who comes from there is turned
//! away for a time, before anything of it is read. Shared by all workers, and touched when somebody fails and, while an
//! address is turned away, when a connection opens.
//!
//! A failure is a CONNECT or AUTH that was refused as not authorised, whatever plugin said so; a packet that is Malformed or
//! a Protocol Error before CONNACK; a CONNECT that has not come in time; a peer that hangs up while a plugin decides whether it
//! may come in, as otherwise it could have passwords looked at for nothing; a TLS handshake or a WebSocket upgrade that the
//! listener has refused, or that has not come in time; and a peer that had to make room for others there, a second after it
//! came, and had not said a word. None is a connection that ends before it has said anything (which is how a load balancer looks
//! whether the server is there), and what the server does or lacks: that it stops, room, a plugin's answer, a place under a
//! rate.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::PoisonError;

use foldhash::fast::RandomState;
use plugin_api::ReasonCode;

use crate::clock::Millis;
use crate::limits::Limits;
use crate::packed::{Reader, Unreadable, Write};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Addresses that are known at one time: `SETS` times `WAYS`, in less than 1 MiB, which is taken with the first failure. An
/// address can be in one set only, which somebody who does not know the hash's keys cannot choose.
const SETS: usize = if cfg!(any(test, fuzzing)) { 1 } else { 4096 };
const WAYS: usize = 8;

/// What is known of addresses.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// No entries before the first failure.
    sets: Mutex<Vec<[Entry; WAYS]>>,
    hash: RandomState,
    /// When the last address that is turned away no longer is: nobody has to look in `sets` from then on.
    turned_away_until: AtomicU64,
}

/// One address.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    address: Address,
    /// When its failures begin anew: at the end of their period, or of the time for which it is turned away.
    ends_at: Millis,
    failures: u32,
    is_turned_away: bool,
}

impl Entry {
    /// What would be lost if it were forgotten, least first: nothing, failures, that it is turned away.
    fn weight(&self, now: Millis) -> (bool, bool, u32, Millis) {
        let counts = self.ends_at > now;
        (counts && self.is_turned_away, counts, self.failures, self.ends_at)
    }
}

/// An IPv4 address, or the /64 of an IPv6 address: who has one address of such a network has all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Address(u64);

impl Address {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // There are no hosts in 0:1::/32.
            IpAddr::V4(ip) => Self(1 << 32 | u64::from(u32::from(ip))),
            IpAddr::V6(ip) => Self((u128::from(ip) >> 64) as u64),
        }
    }
}

impl Failures {
    /// Somebody from this address has failed. `true` if who comes from there is turned away from now on.
    pub(super) fn note(&self, ip: IpAddr, limits: &Limits, now: Millis) -> bool {
        if limits.failures_per_address_max == 0 || limits.failures_ban.is_zero() || is_spared(ip, limits) {
            return false;
        }
        let address = Address::of(ip);
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.is_empty() {
            sets.resize(SETS, [Entry::default(); WAYS]);
        }
        let number = self.set_of(address, &sets);
        let set = &mut sets[number];
        let known = set.iter().position(|entry| entry.address == address && entry.ends_at > now);
        // Without room, what matters least is forgotten.
        let place = known.or_else(|| (0..WAYS).min_by_key(|place| set[*place].weight(now)));
        let entry = &mut set[place.expect("a set has places")];
        if known.is_none() {
            *entry = Entry { address, ends_at: now + limits.failures_period, failures: 0, is_turned_away: false };
        }
        if entry.is_turned_away {
            return false; // A connection that was there already.
        }
        entry.failures += 1;
        if entry.failures < limits.failures_per_address_max {
            return false;
        }
        entry.is_turned_away = true;
        entry.ends_at = now + limits.failures_ban;
        // Written under the lock only.
        let until = self.turned_away_until.load(Ordering::Relaxed).max(entry.ends_at.0);
        self.turned_away_until.store(until, Ordering::Relaxed);
        true
    }

    /// Whether who comes from this address is turned away now.
    pub(super) fn turns_away(&self, ip: IpAddr, limits: &Limits, now: Millis) -> bool {
        if now.0 >= self.turned_away_until.load(Ordering::Relaxed) || is_spared(ip, limits) {
            return false;
        }
        let address = Address::of(ip);
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.is_empty() {
            return false;
        }
        let mut set = sets[self.set_of(address, &sets)].iter();
        set.any(|entry| entry.address == address && entry.is_turned_away && entry.ends_at > now)
    }

    /// Writes what is known and counts still.
    pub(super) fn write(&self, now: Millis, out: &mut Vec<u8>) {
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<_> = sets.iter().flatten().filter(|entry| entry.ends_at > now).collect();
        out.put_count(known.len());
        for Entry { address, ends_at, failures, is_turned_away } in known {
            out.put_u64(address.0);
            out.put_u64(ends_at.0);
            out.put_u32(*failures);
            out.put_flag(*is_turned_away);
        }
    }

    /// Takes that in.
    pub(super) fn inherit(&self, reader: &mut Reader<'_>) -> Result<(), Unreadable> {
        let known = reader.list(|reader| {
            let (address, ends_at) = (Address(reader.u64()?), Millis(reader.u64()?));
            Ok(Entry { address, ends_at, failures: reader.u32()?, is_turned_away: reader.flag()? })
        })?;
        if known.is_empty() {
            return Ok(());
        }
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.resize(SETS, [Entry::default(); WAYS]);
        for entry in known {
            let number = self.set_of(entry.address, &sets);
            let weights = sets[number].iter().map(|known| known.weight(Millis(0))).enumerate();
            // The hash has other keys here, so that some may have no room.
            let (place, least) = weights.min_by_key(|(_, weight)| *weight).expect("a set has places");
            if least < entry.weight(Millis(0)) {
                sets[number][place] = entry;
            }
            if entry.is_turned_away {
                self.turned_away_until.fetch_max(entry.ends_at.0, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Which of the sets an address may be in; there is at least one.
    fn set_of(&self, address: Address, sets: &[[Entry; WAYS]]) -> usize {
        self.hash.hash_one(address) as usize % sets.len()
    }
}

/// Behind a proxy on this machine all clients have its address, and one of them must not keep out the others.
fn is_spared(ip: IpAddr, limits: &Limits) -> bool {
    !limits.failures_count_loopback && ip.to_canonical().is_loopback()
}

/// Whether a refusal with this Reason Code says that the client may not come in, rather than that the server cannot take it.
pub(super) fn is_failure(reason_code: ReasonCode) -> bool {
    matches!(
        reason_code,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD
            | ReasonCode::NOT_AUTHORIZED
            | ReasonCode::BANNED
            | ReasonCode::BAD_AUTHENTICATION_METHOD
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Limits {
            failures_per_address_max: 3,
            failures_period: Duration::from_secs(10),
            failures_ban: Duration::from_secs(30),
            ..Limits::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_turned_away_after_its_failures_and_for_a_time() {
        let (failures, limits) = (Failures::default(), limits());
        let note = |text, at| failures.note(ip(text), &limits, Millis(at));
        let turns_away = |text, at| failures.turns_away(ip(text), &limits, Millis(at));
        assert!(!note("192.0.2.1", 0) && !note("192.0.2.1", 9_999));
        assert!(!note("192.0.2.1", 10_000), "the first ones are forgotten");
        assert!(!note("192.0.2.1", 10_001) && !turns_away("192.0.2.1", 10_001));
        assert!(note("::ffff:192.0.2.1", 10_002), "an IPv4 address in IPv6 form is that address");
        assert!(!note("192.0.2.1", 10_003), "said once");
        assert!(turns_away("192.0.2.1", 10_003) && turns_away("::ffff:192.0.2.1", 40_001));
        assert!(!turns_away("192.0.2.2", 10_003));
        assert!(!turns_away("192.0.2.1", 40_002), "what came meanwhile does not prolong it");
        assert!(!note("192.0.2.1", 40_002), "it begins anew");
    }

    #[test]
    fn another_process_turns_away_whom_this_one_does() {
        let (failures, limits) = (Failures::default(), limits());
        let note = |failures: &Failures, text, at| failures.note(ip(text), &limits, Millis(at));
        assert!(
            !note(&failures, "192.0.2.1", 0) && !note(&failures, "192.0.2.1", 1) && note(&failures, "192.0.2.1", 2)
        );
        assert!(!note(&failures, "192.0.2.2", 3) && !note(&failures, "192.0.2.2", 4));
        let mut image = Vec::new();
        failures.write(Millis(5), &mut image);
        let heir = Failures::default();
        heir.inherit(&mut Reader::new(&image)).unwrap();
        let turns_away = |text, at| heir.turns_away(ip(text), &limits, Millis(at));
        assert!(turns_away("192.0.2.1", 6) && turns_away("192.0.2.1", 30_001) && !turns_away("192.0.2.1", 30_002));
        assert!(!turns_away("192.0.2.2", 6));
        assert!(note(&heir, "192.0.2.2", 7), "the third one");
        let mut later = Vec::new();
        failures.write(Millis(50_000), &mut later);
        assert_eq!(later, [0; 4], "what counts no more is not told");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let (failures, limits) = (Failures::default(), limits());
        for text in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"] {
            failures.note(ip(text), &limits, Millis(0));
        }
        assert!(failures.turns_away(ip("2001:db8::3"), &limits, Millis(1)));
        assert!(!failures.turns_away(ip("2001:db8:0:1::1"), &limits, Millis(1)));
    }

    #[test]
    fn this_machine_is_spared_unless_it_is_to_be_counted() {
        for (text, counted) in [("127.0.0.1", false), ("::1", false), ("::ffff:127.0.0.1", false), ("127.0.0.1", true)]
        {
            let (failures, mut limits) = (Failures::default(), limits());
            limits.failures_count_loopback = counted;
            for _ in 0..9 {
                failures.note(ip(text), &limits, Millis(0));
            }
            assert_eq!(failures.turns_away(ip(text), &limits, Millis(0)), counted, "{text}");
        }
    }

    #[test]
    fn zero_is_no_bound() {
        for change in [(|limits: &mut Limits| limits.failures_per_address_max = 0) as fn(&mut Limits), |limits| {
            limits.failures_ban = Duration::ZERO
        }] {
            let (failures, mut limits) = (Failures::default(), limits());
            change(&mut limits);
            assert!((0..9).all(|_| !failures.note(ip("192.0.2.1"), &limits, Millis(0))));
            assert!(!failures.turns_away(ip("192.0.2.1"), &limits, Millis(0)));
        }
    }

    /// However many addresses fail, the table stays as large as it is, and who is turned away stays so before those who
    /// have only failed.
    #[test]
    fn the_table_is_bounded_and_forgets_what_matters_least() {
        let (failures, limits) = (Failures::default(), limits());
        for _ in 0..3 {
            failures.note(ip("192.0.2.1"), &limits, Millis(0));
        }
        for last in 0..=255 {
            failures.note(ip(&format!("198.51.100.{last}")), &limits, Millis(1));
        }
        assert!(failures.turns_away(ip("192.0.2.1"), &limits, Millis(2)));
        assert_eq!(failures.sets.lock().unwrap().len(), SETS);
        // Where all are turned away, the one whose time is over first makes room.
        for last in 0..WAYS {
            for _ in 0..3 {
                failures.note(ip(&format!("203.0.113.{last}")), &limits, Millis(10 + last as u64));
            }
        }
        assert!(!failures.turns_away(ip("192.0.2.1"), &limits, Millis(20)));
        for last in 0..WAYS {
            assert!(failures.turns_away(ip(&format!("203.0.113.{last}")), &limits, Millis(20)), "{last}");
        }
    }
}
