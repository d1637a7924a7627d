//! `kill -9` at random moments, and everything that was acknowledged is still there.
//!
//! A campaign starts the server again and again on one data directory. Honest clients, which do not die, publish,
//! subscribe, acknowledge late, go and come back; the server is killed when they have read a random number of packets.
//! Nothing that was acknowledged may be lost, QoS 2 comes exactly once, order is kept, what is retained is the last that
//! was acknowledged or something that was sent later, and sessions are there if their clients were told so.
//!
//! `CRASH_ROUNDS=200` makes campaigns that long, `CRASH_SEED=7` gives them another seed. The seed says what clients do;
//! when the process dies between two of its instructions it cannot say. Of a campaign that fails all that has happened
//! is written into a file.

mod client;
mod link;
mod load;
mod model;
mod oracle;
mod world;

use std::time::Duration;

use self::model::Nature;
use self::world::{Campaign, World};
use crate::harness::PATIENCE;

/// Rounds of an ordinary test run.
const ROUNDS: usize = 8;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What a campaign is like.
fn plan(workers: &'static [usize], durability: Option<&'static str>) -> Campaign {
    let seed = number("CRASH_SEED").unwrap_or(1) * 1000 + workers.iter().sum::<usize>() as u64;
    let rounds = number("CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    Campaign { seed, rounds, workers, durability, plugin: false, loses_power: false, patience: PATIENCE }
}

fn run(campaign: Campaign) {
    let rounds = campaign.rounds;
    let mut world = World::new(campaign);
    world.start();
    world.begin();
    for round in 1..=rounds {
        let most = world.random.pick(&[5, 50, 300, 300, 1000]);
        let events = world.random.below(most);
        world.load(events as u64);
        if round == rounds || world.random.percent(25) {
            world.rest(round == rounds);
        }
        let killed = !world.random.percent(10);
        world.end(killed);
        if round < rounds {
            world.start();
            world.look_at_what_is_kept();
        }
    }
    world.report();
}

impl World {
    /// What holds from the beginning to the end: somebody hears of wills, and somebody of everything else.
    fn begin(&mut self) {
        for (number, filter) in [(0, "w/#"), (1, "t/#")] {
            self.connect(number, false);
            self.wait_for_answers();
            self.subscribe(number, filter, 2);
            self.wait_for_answers();
        }
        for _ in 0..3 {
            let mortal = self.add_client(Nature::Mortal);
            self.connect(mortal, false);
        }
    }

    fn report(&self) {
        println!("{:?}: {} messages", self.campaign, self.msgs.len());
        for (what, count) in &self.cover {
            println!("{count:>9} {what}");
        }
    }
}

#[test]
fn clients_and_oracle_agree_as_long_as_nothing_dies() {
    for workers in [&[1][..], &[2]] {
        let mut world = World::new(plan(workers, None));
        world.start();
        world.begin();
        for is_last in [false, false, true] {
            world.load(700);
            world.rest(is_last);
        }
        world.report();
    }
}

#[test]
#[should_panic(expected = "durability: None")]
fn broker_that_keeps_nothing_is_found_out() {
    // What is lost need not be waited for.
    run(Campaign { patience: Duration::from_secs(1), ..plan(&[1], None) });
}

#[test]
fn one_worker_loses_nothing_when_it_is_killed() {
    run(plan(&[1], Some("buffered")));
    run(plan(&[1], Some("fsync")));
}

#[test]
fn nothing_is_lost_when_the_power_goes() {
    run(Campaign { loses_power: true, ..plan(&[1, 2], Some("fsync")) });
}

#[test]
fn two_workers_lose_nothing_when_they_are_killed() {
    run(plan(&[2], Some("buffered")));
    run(plan(&[2], Some("fsync")));
}

#[test]
fn another_number_of_workers_has_what_there_was() {
    run(Campaign { plugin: true, ..plan(&[1, 2, 3], Some("buffered")) });
}
