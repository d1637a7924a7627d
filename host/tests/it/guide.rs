//! The guide for authors (plugin-api/guide), from an empty folder to production: its commands are run, in their order, by one
//! shell, and what it says that they print is compared.
//!
//! A block of `sh` is sourced. `sh,background` is what goes on in another terminal: it is started, and the next block comes once
//! there is a broker; `sh,once` is not run, as what it makes is there already. Each line of a block of `text` has to be in what
//! the block before it has printed, in this order, or with `text,background` in the other terminal, in time; `…` stands for
//! anything.
//!
//! Some programs are stood in for, so that nothing outside of one folder is touched: `sudo` has its own `/usr`, `/etc` and
//! `/run`, and `systemctl` reads the units there and starts what they say. `cargo` makes of `--release` the profile that all else
//! is built with, as another one would take a minute.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::authors::in_ours;
use crate::harness::{TempDir, have, host_command, target_root};

/// How long a block may take: it may be a compiler's, on a busy machine.
const BLOCK_WITHIN: Duration = Duration::from_secs(600);

/// A block of a page.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    /// What stands behind its first three signs: `sh,background`.
    pub(crate) kind: &'a str,
    pub(crate) text: &'a str,
    /// The number of its first line.
    pub(crate) line: usize,
    /// The paragraph before it.
    pub(crate) before: &'a str,
}

/// The blocks of a page.
pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((before, behind)) = rest.split_once("\n```") {
        let (kind, behind) = behind.split_once('\n').expect("a block has lines");
        let (text, behind) = behind.split_once("```").expect("a block ends");
        let line = page[..page.len() - rest.len() + before.len()].lines().count() + 2;
        let before = before.trim_end().rsplit("\n\n").next().unwrap_or_default();
        found.push(Block { kind, text, line, before });
        rest = behind;
    }
    found
}

/// Whether each line of `expected` is in `found`, in this order.
pub(crate) fn says(found: &str, expected: &str) -> Result<(), String> {
    let mut lines = found.lines();
    for line in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let is_it = |found: &str| {
            let mut rest = Some(found);
            line.split('…').all(|part| {
                rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
                rest.is_some()
            })
        };
        if !lines.any(is_it) {
            return Err(format!("no line {line:?} in:\n{found}"));
        }
    }
    Ok(())
}

/// A shell that is given one block after the other. What it has started ends with it.
pub(crate) struct Shell {
    child: Child,
    commands: ChildStdin,
    output: Receiver<String>,
    folder: PathBuf,
    blocks: usize,
}

impl Shell {
    /// Starts it in `work` of this folder, with these programs in the place of others beside those that always are. A server
    /// is to listen at `port`, where Mosquitto's programs look for it.
    pub(crate) fn start(dir: &TempDir, port: u16, programs: &[(&str, &str)]) -> Self {
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
        std::fs::create_dir_all(folder.join("work")).unwrap();
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
        let mut shell = Self { child, commands, output, folder, blocks: 0 };
        shell.tell("exec 2>&1");
        shell
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.commands, "{line}").expect("bash reads");
    }

    /// Runs a block to its end, and returns what it has printed.
    pub(crate) fn run(&mut self, Block { kind, text, line, .. }: &Block<'_>) -> String {
        self.blocks += 1;
        let file = self.folder.join(format!("block-{}", self.blocks));
        std::fs::write(&file, text).unwrap();
        let (file, log) = (file.display().to_string(), self.background().display().to_string());
        match *kind {
            "sh,background" => {
                self.tell(&format!(
                    "setsid bash -eu {file} </dev/null >{log} 2>&1 & echo $! | tee -a \"$HOME_OF_TEST\"/started \
                     >\"$HOME_OF_TEST\"/background.pid"
                ));
                self.tell("until (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do kill -0 $!; sleep 0.05; done");
            }
            // Who types a password types this one.
            _ => self.tell(&format!(". {file} <<<'correct horse'")),
        }
        // The first crate is to build where all others do, and by the versions that are on this machine.
        self.tell("if [ -f Cargo.toml ] && [ ! -e target ]; then ln -s \"$HOME_OF_TEST\"/target target; cp \"$CLONE\"/Cargo.lock .; fi");
        self.tell("echo \"@@ end\"");
        let deadline = Instant::now() + BLOCK_WITHIN;
        let mut printed = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(end) if end == "@@ end" => return printed,
                Ok(line) => printed = printed + &line + "\n",
                Err(error) => {
                    let background = std::fs::read_to_string(self.background()).unwrap_or_default();
                    panic!("the block at line {line} has failed ({error}):\n{text}\n{printed}\n{background}")
                }
            }
        }
    }

    /// A line that something which a block has started prints later. `None`: there is none for so long.
    pub(crate) fn next_line(&self, patience: Duration) -> Option<String> {
        self.output.recv_timeout(patience).ok()
    }

    /// What the other terminal shows.
    pub(crate) fn background(&self) -> PathBuf {
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

/// Makes of `--release` the profile that is there. It is found behind this, as `host` is.
const CARGO: &str = "#!/bin/bash\n\
    args=(); for arg; do [ \"$arg\" = --release ] || args+=(\"$arg\"); done\n\
    PATH=${PATH#*:} exec cargo \"${args[@]}\"\n";

/// Does as whoever may do anything, in another root.
const SUDO: &str = "#!/bin/bash\n\
    root=$HOME_OF_TEST/root; mkdir -p \"$root/etc/systemd/system\" \"$root/usr/local/bin\" \"$root/run/host\" \"$root/var/lib/host\"\n\
    [ -e \"$root/usr/local/bin/host\" ] || cp \"$(command -v host)\" \"$root/usr/local/bin/host\"\n\
    place() { sed -E \"s#(^|[ =\\\"])/(usr/local|etc|run|var)/#\\\\1$root/\\\\2/#g\"; }\n\
    args=(); from_stdin=no\n\
    for arg; do\n\
      case $arg in\n\
        /dev/stdin) from_stdin=yes; args+=(\"$root/stdin\");;\n\
        /usr/local/*|/etc/*|/run/*|/var/*) args+=(\"$root$arg\");;\n\
        *) args+=(\"$arg\");;\n\
      esac\n\
    done\n\
    if [ $from_stdin = yes ]; then place >\"$root/stdin\"; fi\n\
    export -f place; export root\n\
    exec \"${args[@]}\"\n";

/// Starts what the units say.
const SYSTEMCTL: &str = "#!/bin/bash\n\
    set -eu\n\
    case \"$*\" in\n\
      daemon-reload) exit;;\n\
      'enable --now host.socket host.service') ;;\n\
      *) echo \"systemctl $*: the test knows nothing of it\"; exit 1;;\n\
    esac\n\
    units=$root/etc/systemd/system\n\
    test -f \"$units/host.socket\"\n\
    # Ctrl-C in the other terminal.\n\
    kill -INT -- -\"$(cat \"$HOME_OF_TEST/background.pid\")\"\n\
    while (exec 3<>\"/dev/tcp/127.0.0.1/$PORT\") 2>/dev/null; do sleep 0.05; done\n\
    export $(cat \"$units\"/host.service.d/*.conf | sed -n 's/^Environment=//p')\n\
    command=$(sed -n 's/^ExecStart=//p' \"$units/host.service\" | place)\n\
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

#[test]
fn commands_of_the_guide_do_what_it_says() {
    if !have("sh", &["-c", "command -v mosquitto_pub mosquitto_sub bash"], "apt-get install mosquitto-clients") {
        return;
    }
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api/guide/README.md")).unwrap();
    let dir = TempDir::new("guide");
    // It is used minutes later, so that it is none of those that the system gives to others meanwhile.
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let port = (first..32_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let mut shell = Shell::start(&dir, port, &[]);
    let mut printed = String::new();
    for block in
        blocks(&page).into_iter().filter(|block| ["sh", "text"].iter().any(|kind| block.kind.starts_with(kind)))
    {
        match block.kind {
            "sh" | "sh,background" => printed = shell.run(&block),
            "sh,once" => {}
            "text" => says(&printed, block.text).unwrap_or_else(|error| panic!("line {}: {error}", block.line)),
            "text,background" => {
                let deadline = Instant::now() + BLOCK_WITHIN;
                while let Err(error) = says(&std::fs::read_to_string(shell.background()).unwrap(), block.text) {
                    assert!(Instant::now() < deadline, "line {}: {error}", block.line);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            other => panic!("line {}: a block of {other}, of which the test knows nothing", block.line),
        }
    }
    assert!(shell.blocks > 10, "the guide has {} blocks", shell.blocks);
}

#[test]
fn every_callback_has_a_page_and_every_link_of_the_guide_leads_somewhere() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api/guide");
    let index = std::fs::read_to_string(guide.join("callbacks/README.md")).unwrap();
    let compiled = std::fs::read_to_string(guide.join("../src/guide.rs")).unwrap();
    let callbacks = plugin_api::Callback::ALL.into_iter().map(plugin_api::Callback::name);
    let mut pages = vec!["README.md".to_owned(), "hooks.md".to_owned(), "callbacks/README.md".to_owned()];
    for name in callbacks.chain(["init", "new_connection"]) {
        assert!(index.contains(&format!("| [{name}]({name}.md) |")), "the index has no {name}");
        assert!(compiled.lines().any(|line| line.trim() == name), "the example of {name} is not compiled");
        pages.push(format!("callbacks/{name}.md"));
    }
    for page in pages {
        let file = guide.join(&page);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{page}: {error}"));
        for (at, _) in text.match_indices("](") {
            let (link, _) = text[at + 2..].split_once(')').expect("it ends");
            let path = link.split('#').next().unwrap_or_default();
            let is_elsewhere = path.starts_with("https:") || path.contains("::") || path.is_empty();
            assert!(is_elsewhere || file.with_file_name(path).exists(), "{page}: there is no {link}");
        }
    }
}
