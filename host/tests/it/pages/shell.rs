//! A shell that runs the blocks of a page, in a folder of its own.
//!
//! Nothing outside of that folder is touched: `/etc`, `/run` and so on are below it in each block. Some programs are stood in
//! for: `systemctl` reads the units there and starts what they say; `cargo` makes of `--release` the profile that all else is
//! built with, as another one would take a minute, and has nothing to build of this repository.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::Block;
use crate::authors::in_ours;
use crate::harness::{TempDir, host_command, target_root};

/// How long a block may take: it may be a compiler's, on a busy machine.
pub(super) const BLOCK_WITHIN: Duration = Duration::from_secs(600);

/// A shell that is given one block after the other. What it has started ends with it.
pub(super) struct Shell {
    child: Child,
    commands: ChildStdin,
    output: Receiver<String>,
    folder: PathBuf,
    /// Where a server is to listen.
    pub(super) port: u16,
    /// How many it has run.
    pub(super) blocks: usize,
}

impl Shell {
    /// Starts it in `work` of this folder, with these programs in the place of others beside those that always are.
    /// Mosquitto's programs look for a server at its port.
    pub(super) fn start(dir: &TempDir, programs: &[(&str, &str)]) -> Self {
        // It is used minutes later, so that it is none of those that the system gives to others meanwhile.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap() + 100 * NEXT.fetch_add(1, Relaxed);
        let port = (first..32_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
        let folder = dir.path().to_owned();
        let stand_ins = folder.join("programs");
        put_programs(&stand_ins, &[("cargo", CARGO), ("sudo", SUDO), ("systemctl", SYSTEMCTL)]);
        put_programs(&stand_ins, programs);
        std::fs::create_dir_all(folder.join("home/.config")).unwrap();
        for program in ["mosquitto_pub", "mosquitto_sub"] {
            std::fs::write(folder.join("home/.config").join(program), format!("-p {port}\n")).unwrap();
        }
        // Where cargo would build, there is what it has built here.
        std::fs::create_dir_all(folder.join("target")).unwrap();
        for profile in ["debug", "release"] {
            std::os::unix::fs::symlink(target_root().join("debug"), folder.join("target").join(profile)).unwrap();
        }
        for folder in [
            "work",
            "root/etc/systemd/system",
            "root/etc/host",
            "root/usr/local/bin",
            "root/run/host",
            "root/var/lib/host",
        ]
        .map(|name| folder.join(name))
        {
            std::fs::create_dir_all(folder).unwrap();
        }
        let runtime = folder.join("runtime");
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&runtime).unwrap();
        let host = PathBuf::from(host_command().get_program());
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", stand_ins.display(), host.parent().expect("it lies in a folder").display());
        let mut bash = Command::new("bash");
        let clone = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
        in_ours(&mut bash).args(["-eu", "-o", "pipefail"]).current_dir(folder.join("work"));
        bash.env("PATH", path).env("HOME_OF_TEST", &folder).env("CLONE", clone).env("PORT", port.to_string());
        bash.env("XDG_CONFIG_HOME", folder.join("home/.config")).env("HOST_LISTEN", format!("127.0.0.1:{port}"));
        bash.env("XDG_RUNTIME_DIR", runtime).env("CARGO_TERM_COLOR", "never");
        // A group of its own, so that what is left over ends with it.
        bash.process_group(0);
        let mut child = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash can be run");
        let (sender, output) = channel();
        let stdout = child.stdout.take().expect("it is a pipe");
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        let commands = child.stdin.take().expect("it is a pipe");
        let mut shell = Self { child, commands, output, folder, port, blocks: 0 };
        shell.tell("exec 2>&1");
        shell
    }

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.commands, "{line}").expect("bash reads");
    }

    /// Runs a block to its end, and returns what it has printed.
    pub(super) fn run(&mut self, Block { kind, text, line, .. }: &Block<'_>) -> String {
        self.blocks += 1;
        let file = self.folder.join(format!("block-{}", self.blocks));
        std::fs::write(&file, self.placed(text)).unwrap();
        let (file, log) = (file.display().to_string(), self.background().display().to_string());
        match *kind {
            "sh,background" => {
                let failed = self.failed().display().to_string();
                self.tell(&format!(
                    "setsid bash -c 'bash -eu {file} || echo $? >{failed}' </dev/null >{log} 2>&1 & \
                     echo $! | tee -a \"$HOME_OF_TEST\"/started >\"$HOME_OF_TEST\"/background.pid"
                ));
                self.tell("until (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do kill -0 $!; sleep 0.05; done");
            }
            // Who types a password types this one.
            _ => self.tell(&format!(". {file} <<<'correct horse'")),
        }
        // A crate is built where all others are.
        self.tell("if [ -f Cargo.toml ] && [ ! -e target ]; then ln -s \"$HOME_OF_TEST\"/target target; fi");
        self.tell("echo \"@@ end\"");
        let deadline = Instant::now() + BLOCK_WITHIN;
        let mut printed = String::new();
        loop {
            match self.next_line(deadline) {
                Ok(end) if end == "@@ end" => return printed,
                Ok(line) => printed = printed + &line + "\n",
                Err(error) => panic!("the block at line {line} has failed: {error}\n{text}\n{printed}"),
            }
        }
    }

    /// The next line that something which a block has started prints. There may be none until then, or none any more.
    pub(super) fn next_line(&self, deadline: Instant) -> Result<String, String> {
        loop {
            self.check_background()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left.min(Duration::from_millis(100))) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(error) => return Err(format!("{error}\n{}", self.in_background())),
            }
        }
    }

    /// An error once what went on in the other terminal has ended with one: nothing comes from it any more.
    pub(super) fn check_background(&self) -> Result<(), String> {
        let Ok(code) = std::fs::read_to_string(self.failed()) else { return Ok(()) };
        Err(format!("exit code {} in the other terminal\n{}", code.trim(), self.in_background()))
    }

    /// Is written where the other terminal's block ends with an error, and not where it is ended.
    fn failed(&self) -> PathBuf {
        self.folder.join("background.failed")
    }

    /// A text with the places of this shell in it.
    pub(super) fn placed(&self, text: &str) -> String {
        let mut text = text.replace("0.0.0.0:1883", &format!("127.0.0.1:{}", self.port));
        let root = self.folder.join("root");
        for place in ["/etc/", "/run/", "/srv/", "/usr/lib/", "/usr/local/", "/var/"] {
            for before in [' ', '"', '=', ':', '\n'] {
                text = text.replace(&format!("{before}{place}"), &format!("{before}{}{place}", root.display()));
            }
        }
        text
    }

    /// Goes to a clone of this repository, in `host`, in which what has been built here has been built.
    pub(super) fn enter_clone(&mut self) {
        let clone = self.folder.join("work/host");
        std::fs::create_dir(&clone).unwrap();
        for entry in std::fs::read_dir(super::root()).unwrap().map(|entry| entry.unwrap()) {
            if !["target", ".git"].iter().any(|name| entry.file_name() == *name) {
                std::os::unix::fs::symlink(entry.path(), clone.join(entry.file_name())).unwrap();
            }
        }
        std::os::unix::fs::symlink(self.folder.join("target"), clone.join("target")).unwrap();
        self.tell("cd host");
    }

    /// Ends what the other terminal shows, as whoever starts something else there does.
    pub(super) fn end_background(&mut self) {
        self.tell(
            "if [ -e \"$HOME_OF_TEST\"/started ]; then for leader in $(cat \"$HOME_OF_TEST\"/started); do \
             kill -TERM -- -$leader || true; while kill -0 -- -$leader 2>/dev/null; do sleep 0.02; done; \
             done; rm \"$HOME_OF_TEST\"/started; fi",
        );
    }

    /// What the other terminal shows.
    pub(super) fn in_background(&self) -> String {
        std::fs::read_to_string(self.background()).unwrap_or_default()
    }

    fn background(&self) -> PathBuf {
        self.folder.join("background.log")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let noted = ["started", "service.pid"].map(|file| std::fs::read_to_string(self.folder.join(file)));
        for leader in noted.iter().flatten().flat_map(|noted| noted.lines()) {
            if let Some(leader) = leader.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(leader, Signal::TERM);
            }
        }
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Makes of `--release` the profile that is there. It is found behind this, as `host` is. A crate is built by the versions
/// that are on this machine, and with the `plugin-api` of this repository itself, which has been built.
const CARGO: &str = "#!/bin/bash\n\
    set -eu\n\
    if [ -d .ci ]; then\n\
      case \"$*\" in\n\
        'build --release -p '*) exit;;\n\
        *) echo \"cargo $* in the repository: the test knows nothing of it\"; exit 1;;\n\
      esac\n\
    fi\n\
    if [ -f Cargo.toml ] && [ ! -f Cargo.lock ]; then cp \"$CLONE\"/Cargo.lock .; fi\n\
    args=(); for arg; do [ \"$arg\" = --release ] || args+=(\"$arg\"); done\n\
    PATH=${PATH#*:} cargo \"${args[@]}\"\n\
    if [ \"$1\" = add ]; then sed -i \"s#path = \\\"../host/#path = \\\"$CLONE/#\" Cargo.toml; fi\n";

/// There is nothing that it takes to be somebody else.
const SUDO: &str = "#!/bin/bash\n\
    program=$HOME_OF_TEST/root/usr/local/bin/host\n\
    [ -e \"$program\" ] || cp \"$(command -v host)\" \"$program\"\n\
    exec \"$@\"\n";

/// Starts what the units say.
const SYSTEMCTL: &str = "#!/bin/bash\n\
    set -eu\n\
    case \"$*\" in\n\
      daemon-reload) exit;;\n\
      'enable --now host.socket host.service') ;;\n\
      *) echo \"systemctl $*: the test knows nothing of it\"; exit 1;;\n\
    esac\n\
    root=$HOME_OF_TEST/root\n\
    units=$root/etc/systemd/system\n\
    test -f \"$units/host.socket\"\n\
    # Ctrl-C in the other terminal.\n\
    kill -INT -- -\"$(cat \"$HOME_OF_TEST/background.pid\")\"\n\
    while (exec 3<>\"/dev/tcp/127.0.0.1/$PORT\") 2>/dev/null; do sleep 0.05; done\n\
    if [ -d \"$units\"/host.service.d ]; then export $(cat \"$units\"/host.service.d/*.conf | sed -n 's/^Environment=//p'); fi\n\
    command=$(sed -n 's/^ExecStart=//p' \"$units/host.service\" | sed -E \"s#(^| )/(usr|run|var)/#\\\\1$root/\\\\2/#g\")\n\
    setsid $command </dev/null >\"$HOME_OF_TEST/service.log\" 2>&1 &\n\
    echo $! >\"$HOME_OF_TEST/service.pid\"\n\
    until (exec 3<>\"/dev/tcp/127.0.0.1/$PORT\") 2>/dev/null; do\n\
      kill -0 $! || { cat \"$HOME_OF_TEST/service.log\"; exit 1; }\n\
      sleep 0.05\n\
    done\n";

/// Writes programs that stand in for others.
fn put_programs(folder: &Path, programs: &[(&str, &str)]) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, text) in programs {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).unwrap();
    }
}
