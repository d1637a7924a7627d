//! Swaps while many clients send as fast as they can: nobody is disconnected, no message is lost or comes twice, and what
//! the plugin knows of each connection goes on without a gap.
//!
//! `SWAP_LOAD=long` makes it 100 swaps. The figures of README are printed by
//! `cargo test --release -p host --test it swap_load -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use host::{Limits, ServerHandle, SwapReport, SwapRequest};

use crate::harness::{PATIENCE, eventually, eventually_within, library, start};
use crate::pump::Pump;

/// Swaps the plugin that counts to the other version.
fn swap(server: &ServerHandle, number: usize) -> SwapReport {
    let version = if number.is_multiple_of(2) { "counting_v2" } else { "counting_v1" };
    let request = SwapRequest { wait: 3 * PATIENCE, ..SwapRequest::new(library(version)) };
    let report = server.swap(&request).expect("it fits");
    assert!(report.migration.is_some() && report.late == 0, "{report}");
    report
}

/// Ends the traffic when it is dropped, so that a test that fails does not wait for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn milliseconds(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |place: usize| times[place].as_secs_f64() * 1000.0;
    format!("median {:.2} ms, longest {:.2} ms", at(times.len() / 2), at(times.len() - 1))
}

#[test]
fn swaps_under_load_lose_nobody_and_nothing() {
    let is_long = std::env::var("SWAP_LOAD").is_ok_and(|form| form == "long");
    let (swaps, threads, clients) = if is_long { (100, 2, 600) } else { (20, 2, 500) };
    // Calls on the pool are waited for by a swap; and a machine that is busy makes each callback one that takes long.
    let mut limits = Limits::default();
    limits.callback_budget = Duration::ZERO;
    let server = start(2, |builder| builder.limits(limits).plugin(library("counting_v1"), "{}"));
    let (end, began) = (AtomicBool::new(false), Instant::now());
    let mut reports = Vec::new();
    let progress: Arc<AtomicU64> = Arc::default();
    let mut idle = Pump::connect(server.local_addr(), "idle", 50, began);
    idle.once();
    let pumps: Vec<Pump> = std::thread::scope(|scope| {
        let pump = |thread: usize| {
            let (server, end, progress) = (&server, &end, Arc::clone(&progress));
            scope.spawn(move || {
                let mut pump = Pump::connect(server.local_addr(), &format!("pump{thread}"), clients, began);
                pump.progress = progress;
                pump.run(end);
                pump
            })
        };
        let pumps: Vec<_> = (0..threads).map(pump).collect();
        let ends = Ends(&end);
        eventually_within(6 * PATIENCE, "all are connected", || {
            server.status().plugins[0].instances[0].connections == threads * clients + 50
        });
        for number in 0..swaps {
            let before = progress.load(Ordering::Relaxed);
            reports.push(swap(&server, number));
            // Some traffic with each version, however fast or slow the machine is.
            eventually("there is traffic", || {
                assert!(!pumps.iter().any(|pump| pump.is_finished()), "a client has failed");
                progress.load(Ordering::Relaxed) > before + 1000
            });
        }
        drop(ends);
        pumps.into_iter().map(|pump| pump.join().expect("its clients got everything")).collect()
    });
    let took = began.elapsed();
    idle.once();
    let received: u64 = pumps.iter().map(Pump::received).sum();
    let by = |version: usize| pumps.iter().map(|pump| pump.by_version[version]).sum::<u64>();
    assert!(by(1) > 1000 && by(2) > 1000, "both versions are asked: {} and {}", by(1), by(2));
    let status = server.status();
    let active = &status.plugins[0].instances[0];
    assert_eq!((active.generation, active.connections), (swaps as u64 + 1, threads * clients + 50));
    assert!(status.mapped_libraries > swaps, "{status:?}");
    eventually("all but the last two instances are dropped", || server.status().plugins[0].instances.len() == 2);
    println!(
        "{} connections, {swaps} swaps, {received} messages of QoS 0, 1 and 2 ({:.0} a second), {} and {} by version",
        threads * clients,
        received as f64 / took.as_secs_f64(),
        by(1),
        by(2)
    );
    println!("request to flip: {}", milliseconds(reports.iter().map(|report| report.flip).collect()));
    println!(
        "flip to last connection: {}",
        milliseconds(reports.iter().filter_map(|report| report.migration).collect())
    );
    println!("mapped: {} libraries, {} KiB", status.mapped_libraries, status.mapped_bytes >> 10);
    server.stop().unwrap();
}

/// The latency of 99 of 100 messages, in microseconds.
fn p99(mut latencies: Vec<u64>) -> f64 {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100] as f64 / 1000.0
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[test]
#[ignore = "figures, for a release build on a quiet machine"]
fn latency_with_swaps() {
    const WINDOWS: usize = 14;
    const WINDOW: Duration = Duration::from_secs(1);
    let server = start(2, |builder| builder.plugin(library("counting_v1"), "{}"));
    let (end, began) = (AtomicBool::new(false), Instant::now());
    let mut swaps = Vec::new();
    let mut pump = Pump::connect(server.local_addr(), "steady", 1000, began);
    let first = began.elapsed() + WINDOW;
    std::thread::scope(|scope| {
        scope.spawn(|| pump.run_steadily(5000, &end));
        let _ends = Ends(&end);
        for window in 0..WINDOWS {
            // In each second window, a quarter into it.
            let at = first + WINDOW * window as u32 + WINDOW / 4;
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            if window % 2 == 1 {
                swaps.push(swap(&server, window / 2));
            }
        }
        std::thread::sleep((first + WINDOW * WINDOWS as u32).saturating_sub(began.elapsed()));
    });
    let window = |number: usize| {
        let from = (first + WINDOW * number as u32).as_nanos() as u64;
        let to = from + WINDOW.as_nanos() as u64;
        let sent_in_it = pump.latencies.iter().filter(|(sent_at, _)| (from..to).contains(sent_at));
        p99(sent_in_it.map(|(_, took)| *took).collect())
    };
    let (without, with): (Vec<_>, Vec<_>) =
        (0..WINDOWS / 2).map(|pair| (window(2 * pair), window(2 * pair + 1))).unzip();
    println!("p99 in microseconds, windows without a swap: {without:.0?}, with: {with:.0?}");
    println!("median {:.0} without, {:.0} with", median(without.clone()), median(with.clone()));
    println!("request to flip: {}", milliseconds(swaps.iter().map(|report| report.flip).collect()));
    println!("flip to last connection: {}", milliseconds(swaps.iter().filter_map(|report| report.migration).collect()));
    assert!(median(with) <= 2.0 * median(without));
    server.stop().unwrap();
}

#[test]
#[ignore = "figures, for a release build on a quiet machine"]
fn idle_connections_go_over_soon() {
    /// Both ends of each take a descriptor of this process.
    const IDLE: usize = 9_800;
    let server = start(2, |builder| builder.plugin(library("counting_v1"), "{}"));
    let (end, began) = (AtomicBool::new(false), Instant::now());
    let mut idle = Pump::connect(server.local_addr(), "idle", IDLE, began);
    let mut busy = Pump::connect(server.local_addr(), "busy", 50, began);
    let mut reports = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| busy.run_steadily(5000, &end));
        let _ends = Ends(&end);
        for number in 0..7 {
            std::thread::sleep(Duration::from_millis(300));
            reports.push(swap(&server, number));
        }
    });
    idle.once();
    println!("{IDLE} idle connections, {} messages of others meanwhile", busy.received());
    println!("request to flip: {}", milliseconds(reports.iter().map(|report| report.flip).collect()));
    println!(
        "flip to last connection: {}",
        milliseconds(reports.iter().filter_map(|report| report.migration).collect())
    );
    server.stop().unwrap();
}
