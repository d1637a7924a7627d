//! How long a server with much to load takes to start, and how much memory: `cargo bench -p host --bench startup`, with a
//! directory for the data (default: the one for temporary files), and the millions of messages (default: 1).
//!
//! 100,000 sessions, with 10 messages of 100 bytes each that wait, and 1,000,000 retained messages of 100 bytes; all of it in the
//! checkpoint, as after a stop, or all in the journal, which is what a killed server leaves at the worst. "Peak" is what the
//! process has had at most until it has loaded everything, "after" what it has then.

mod fill;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use fill::{End, Size, fill};

fn main() {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let below = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let millions: f64 = arguments.next().map_or(1.0, |text| text.parse().expect("a number of millions"));
    let sessions = (millions * 1e5) as u64;
    let size = Size { sessions, queued: 10, retained: sessions * 10, payload_bytes: 100 };
    let data = below.join(format!("host-bench-startup-{}", std::process::id()));
    for end in [End::Stopped, End::Killed] {
        let began = Instant::now();
        fill(&data, &size, end);
        println!("{end:?}: {size:?} in {} MB, made in {:.1} s", megabytes(&data), began.elapsed().as_secs_f64());
        for workers in ["1", "2"] {
            start(&data, workers, &size);
        }
        std::fs::remove_dir_all(&data).expect("it was made");
    }
}

/// Starts a server, and says what it takes. It is killed, so that the next one finds the same.
fn start(data: &Path, workers: &str, size: &Size) {
    let began = Instant::now();
    let retained = (size.retained + 1).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.args(["--listen", "127.0.0.1:0", "--control", "none", "--workers", workers, "--data-dir"]).arg(data);
    command.args(["--retained-messages-max", &retained]).stderr(Stdio::piped());
    let mut child = command.spawn().expect("host runs");
    let mut log = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut progress = 0;
    let loaded = log.find(|line| {
        progress += u32::from(line.contains("loading what was kept"));
        line.contains("loaded what was kept")
    });
    let (secs, cpu, after) = (began.elapsed().as_secs_f64(), cpu_secs(child.id()), memory(child.id(), "VmRSS"));
    let loaded = loaded.expect("it says when it is done");
    let loaded = &loaded[loaded.find("loaded").expect("it was searched for")..];
    println!(
        "  {workers} workers: ready after {secs:.1} s, {cpu:.1} s of processor time, peak {} MB, after {after} MB, {progress} lines \
         of progress; {loaded}",
        memory(child.id(), "VmHWM")
    );
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
}

/// Of a process, in MB.
fn memory(process: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("Linux says it");
    let kilobytes: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kilobytes / 1024
}

/// What a process has taken of the processors' time so far.
fn cpu_secs(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let fields: Vec<_> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    // User and system time, in hundredths of a second.
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

fn megabytes(directory: &Path) -> u64 {
    let output = Command::new("du").arg("-sm").arg(directory).output().expect("du is there");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().next().expect("a number").parse().expect("a number")
}
