//! The READMEs of the shipped plugins: each of their blocks is run, or given to the plugin.
//!
//! What stands behind a paragraph that begins with the name of a file is written to this file. JSON is a configuration: `host
//! check` has to find nothing wrong with it once all has been run. Blocks of `sh`, `sh,background` and `text` are as on
//! [other pages](super); a message is taken, unless the comment behind it says that it is refused. Whoever publishes waits for
//! those who have begun to subscribe, and to these comes what is said to come, and nothing else until the server ends.

use std::fmt::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::shell::Shell;
use super::{Block, blocks, says};
use crate::harness::{PATIENCE, TempDir, eventually, have, host_output, package_library, target_root};

const MOSQUITTO_SUB: &str = "#!/bin/bash\n\
    PATH=${PATH#*:} stdbuf -oL mosquitto_sub -d \"$@\" 2>&1 | while IFS= read -r line; do\n\
      case $line in\n\
        *SUBACK*) touch \"$HOME_OF_TEST/subscribed.$$\";;\n\
        'Client '*|Subscribed*|'Received DISCONNECT'*) ;;\n\
        *) echo \"$line\"; echo \"$line\" >>\"$HOME_OF_TEST/heard\";;\n\
      esac\n\
    done\n";

const MOSQUITTO_PUB: &str = "#!/bin/bash\n\
    until [ \"$(compgen -G \"$HOME_OF_TEST/subscribed.*\" | wc -l)\" -ge \"$SUBSCRIBERS\" ]; do sleep 0.02; done\n\
    code=0; said=$(PATH=${PATH#*:} mosquitto_pub \"$@\" 2>&1) || code=$?\n\
    echo \"$code $said\" | tr '\\n' ' ' >>\"$HOME_OF_TEST/published\"; echo >>\"$HOME_OF_TEST/published\"\n";

/// Modules of Python that stand in for others: there is no terminal, and `argon2-cffi` is seldom installed.
const MODULES: [(&str, &str); 2] = [
    ("getpass.py", "import sys\ndef getpass():\n    return sys.stdin.readline().rstrip('\\n')\n"),
    (
        "argon2.py",
        "import subprocess\n\
         class PasswordHasher:\n    def __init__(self, *, time_cost, memory_cost, parallelism):\n        \
         self.costs = ['-t', str(time_cost), '-k', str(memory_cost), '-p', str(parallelism)]\n    \
         def hash(self, password):\n        command = ['argon2', 'saltsaltsaltsalt', '-id', '-e', *self.costs]\n        \
         return subprocess.run(command, input=password.encode(), stdout=subprocess.PIPE, check=True).stdout.decode().strip()\n",
    ),
];

/// Programs that blocks use, and where they come from.
const PROGRAMS: [(&str, &str); 5] = [
    ("mosquitto_pub", "apt-get install mosquitto-clients"),
    ("mosquitto_passwd", "host/tests/it/clients/install.sh"),
    ("argon2", "apt-get install argon2"),
    ("openssl", "apt-get install openssl"),
    ("python3", "apt-get install python3"),
];

/// Where `install.sh` puts Mosquitto's programs that come with a server, which is not installed.
fn unpacked() -> PathBuf {
    target_root().join("clients/mosquitto/usr/bin")
}

/// Whether a page is one of those.
pub(super) fn is_page(name: &str) -> bool {
    name.strip_prefix("plugins/").is_some_and(|name| name.ends_with("/README.md"))
}

fn plugins() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let pages = entries.filter_map(|entry| {
        let page = std::fs::read_to_string(entry.path().join("README.md")).ok()?;
        Some((entry.file_name().into_string().unwrap(), page))
    });
    pages.collect()
}

/// The name with which the paragraph before it begins.
fn file_name<'a>(block: &Block<'a>) -> Option<&'a str> {
    Some(block.before.strip_prefix('`')?.split_once('`')?.0)
}

/// One README, in a folder of its own.
struct Walk<'a> {
    plugin: &'a str,
    /// It ends before its folder does, in which it has noted what it has started.
    shell: Shell,
    dir: TempDir,
    /// Where the server listens that a plugin asks, or tells.
    http: u16,
    subscribers: usize,
    /// What the block before, and those that it has started, have printed. `None`: it was not run.
    printed: Option<String>,
}

impl<'a> Walk<'a> {
    fn new(plugin: &'a str) -> Self {
        let dir = TempDir::new("readme");
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut shell = Shell::start(&dir, &[("mosquitto_sub", MOSQUITTO_SUB), ("mosquitto_pub", MOSQUITTO_PUB)]);
        package_library(plugin);
        shell.enter_clone();
        std::fs::create_dir_all(dir.path().join("modules")).unwrap();
        for (name, text) in MODULES {
            dir.file(&format!("modules/{name}"), text);
        }
        // For a machine on which `mosquitto_passwd` is not run.
        dir.file("root/etc/host/passwd", "");
        let unpacked = unpacked();
        shell.tell(&format!("export PYTHONPATH=\"$HOME_OF_TEST\"/modules PATH=\"$PATH:{}\"", unpacked.display()));
        Self { plugin, dir, http, shell, subscribers: 0, printed: None }
    }

    /// A text with the server's place in it.
    fn with_server(&self, text: &str) -> String {
        let text = text.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.http));
        text.replace("server.py 8080", &format!("server.py {}", self.http))
    }

    fn write(&self, name: &str, text: &str) {
        let folder = self.dir.path().join(if name.starts_with('/') { "root" } else { "work/host" });
        let text = self.shell.placed(&self.with_server(text));
        std::fs::write(folder.join(name.trim_start_matches('/')), text).unwrap();
    }

    fn run(&mut self, block: &Block<'_>) {
        let names = |(program, _): &&(&str, &str)| block.text.contains(program);
        let is_there = |(program, install): &(&str, &str)| {
            have("sh", &["-c", &format!("PATH=$PATH:{}; command -v {program}", unpacked().display())], install)
        };
        if !PROGRAMS.iter().filter(names).all(is_there) {
            self.printed = None;
            return;
        }
        let is_server = block.text.contains("8080");
        if block.kind == "sh,background" && !is_server {
            self.shell.end_background();
        }
        self.subscribers += block.text.lines().filter(|line| line.starts_with("mosquitto_sub ")).count();
        self.shell.tell(&format!("export SUBSCRIBERS={}", self.subscribers));
        let text = self.with_server(block.text);
        self.printed = Some(self.shell.run(&Block { text: &text, ..*block }));
        if is_server {
            let open = || std::net::TcpStream::connect(("127.0.0.1", self.http)).is_ok();
            eventually("the server of the README listens", open);
        }
        self.check_published(block);
    }

    /// Whether the server has taken what it should, and refused the rest.
    fn check_published(&self, block: &Block<'_>) {
        let file = self.dir.path().join("published");
        let published = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        let lines: Vec<&str> = block.text.lines().filter(|line| line.starts_with("mosquitto_pub ")).collect();
        assert_eq!(lines.len(), published.lines().count(), "{published}");
        for (line, said) in lines.into_iter().zip(published.lines()) {
            let (_, comment) = line.rsplit_once(" # ").unwrap_or_default();
            let is_refused = ["refused", "does not come in"].iter().any(|refused| comment.contains(refused));
            assert_eq!(said.trim() != "0", is_refused, "{}: {line}\n{said}", self.plugin);
        }
    }

    /// Waits until these lines have been printed.
    fn check_printed(&mut self, block: &Block<'_>) {
        let Some(printed) = &mut self.printed else { return };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = says(printed, block.text) {
            let line = self.shell.next_line(deadline);
            let line = line.unwrap_or_else(|end| panic!("{}, line {}: {error}\n{end}", self.plugin, block.line));
            writeln!(printed, "{line}").expect("there is room");
        }
    }

    /// Ends the server, and whoever has subscribed with it: nothing has come to them but what is said.
    fn check_heard(&mut self, blocks: &[Block<'_>]) {
        let is_heard = |pair: &&[Block<'_>]| pair[0].text.contains("mosquitto_sub ") && pair[1].kind == "text";
        let expected: Vec<&str> = blocks.windows(2).filter(is_heard).flat_map(|pair| pair[1].text.lines()).collect();
        assert_eq!(self.subscribers > 0, !expected.is_empty(), "{}: what is heard is not said", self.plugin);
        self.shell.end_background();
        self.shell.run(&Block { kind: "sh", text: "wait", line: 0, before: "" });
        let heard = std::fs::read_to_string(self.dir.path().join("heard")).unwrap_or_default();
        assert_eq!(heard.lines().collect::<Vec<_>>(), expected, "{}", self.plugin);
    }

    fn check_config(&self, library: &Path, block: &Block<'_>) {
        let config = self.shell.placed(&self.with_server(block.text));
        let args = ["check".as_ref(), library.as_os_str(), "--plugin-config".as_ref(), config.as_ref()];
        let output = host_output(args);
        assert!(output.status.success(), "{}, line {}: {output:?}", self.plugin, block.line);
    }
}

#[test]
fn every_block_of_the_plugins_readmes_does_what_it_says() {
    let pages = plugins();
    assert!(pages.len() >= 7, "the READMEs of {} plugins", pages.len());
    for (plugin, page) in &pages {
        let started = Instant::now();
        let library = package_library(plugin);
        let mut walk = Walk::new(plugin);
        // A README may use what that of another plugin has written.
        for (_, page) in pages.iter().filter(|(other, _)| other != plugin).chain([&(plugin.clone(), page.clone())]) {
            for block in blocks(page) {
                if let Some(name) = file_name(&block).filter(|_| !block.kind.starts_with("sh")) {
                    walk.write(name, block.text);
                }
            }
        }
        let blocks = blocks(page);
        for block in &blocks {
            match (block.kind, file_name(block)) {
                ("sh" | "sh,background", _) => walk.run(block),
                ("text", None) => walk.check_printed(block),
                // Those are checked below, as they may name files that a block makes.
                ("json", _) => {}
                ("conf" | "python", Some(name)) => {
                    assert!(blocks.iter().any(|other| other.line != block.line && other.text.contains(name)), "{name}");
                }
                // `shipped` compares it with what is told.
                ("json,told", _) if plugin == "webhook" => {}
                (kind, _) => panic!("{plugin}, line {}: a block of {kind:?}, which nothing tests", block.line),
            }
        }
        let configs = blocks.iter().filter(|block| block.kind == "json");
        configs.for_each(|block| walk.check_config(&library, block));
        walk.check_heard(&blocks);
        println!("{plugin}: {} blocks in {:?}", blocks.len(), started.elapsed());
    }
}
