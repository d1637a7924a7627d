//! The guide for authors (plugin-api/guide), from an empty folder to production: its commands are run, in their order, by one
//! shell, and what it says that they print is compared.

use std::path::Path;

use super::shell::Shell;
use super::{Reader, blocks, page};
use crate::harness::{TempDir, have};

pub(super) const PAGE: &str = "plugin-api/guide/README.md";

#[test]
fn commands_of_the_guide_do_what_it_says() {
    if !have("sh", &["-c", "command -v mosquitto_pub mosquitto_sub bash"], "apt-get install mosquitto-clients") {
        return;
    }
    let dir = TempDir::new("guide");
    let shell = Shell::start(&dir, &[]);
    let page = page(PAGE);
    let mut reader = Reader::new(PAGE, shell);
    blocks(&page).iter().for_each(|block| reader.read(block));
    assert!(reader.shell.blocks > 10, "the guide has {} blocks", reader.shell.blocks);
    // And nothing else: the first ones have heard all until their broker ended, and they with it.
    let heard = |file: &str| std::fs::read_to_string(dir.path().join("work/my-handler").join(file)).unwrap();
    assert_eq!(heard("heard.txt"), "pump-7/pressure 3.1\npump-8/pressure 4.2\n");
    assert_eq!(heard("production.txt"), "pump-9/pressure 5.3\npump-9/pressure 6.4\n");
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
