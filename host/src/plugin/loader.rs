//! From a file to a plugin.
//!
//! Three traps, and what is done about them:
//! - `dlopen` by path gives the old code again after the file was replaced, and a file that is overwritten while it is
//!   mapped kills the process. So a **sealed copy in memory** is loaded (or, where the system has none, a temporary copy
//!   that nobody else knows the name of), and its descriptor stays open: the loader recognises a library by its path,
//!   `/proc/self/fd/<number>`, and must not see that number again for other code.
//! - `abi_stable` remembers root modules by type, and its stock check keeps pointers into the library. So the header is
//!   taken from the library's own symbol, and each load is checked with **globals of its own**.
//! - The check takes the interface to be older than the implementation. So **the older API version goes first**, whichever
//!   side has it.
//!
//! A library stays mapped until the process ends: its threads and thread-locals may outlive the instance.
#![allow(unsafe_code)] // A library is mapped, and its symbol and table of functions are trusted after the checks.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityErrors, CheckingGlobals, ExpectedFound, check_layout_compatibility_with_globals,
};
use abi_stable::library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule};
use abi_stable::sabi_types::VersionNumber;
use abi_stable::type_layout::{TLFieldOrFunction, TypeLayout};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plugin_api::abi::{FLAG_UNWINDS, PluginVtRef, Verdict};
use plugin_api::reading::{Answer, unknown};
use plugin_api::{Callback, Callbacks, Handler};
use rustix::fs::{MemfdFlags, SealFlags};

use super::c;
use super::error::LoadError;
use super::instance::{NotReady, Plugin};
use super::services::{NO_CONNECTION, Panic, Services, inside};
use super::stats::Entry as Call;

/// Largest library that is loaded, in bytes.
const LIBRARY_BYTES_MAX: u64 = 1 << 30;

/// Bytes at the beginning of a library within which its program headers are looked for.
const HEADERS_BYTES_MAX: u64 = 64 * 1024;

/// Bytes that the name and the version of a plugin may have: they stand in each line of the log.
const NAME_BYTES_MAX: usize = 128;

/// Libraries that are mapped, and the bytes of the copies that they are mapped from.
static MAPPED: AtomicUsize = AtomicUsize::new(0);
static MAPPED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Libraries that this process has mapped, and the bytes of their copies. A library stays mapped until the process ends,
/// so that each swap adds to both.
#[must_use]
pub fn mapped() -> (usize, u64) {
    (MAPPED.load(Ordering::Relaxed), MAPPED_BYTES.load(Ordering::Relaxed))
}

/// The file that a plugin was loaded from, as it was then.
#[derive(Debug, Clone)]
pub struct Origin {
    path: PathBuf,
    stamp: Stamp,
    /// The copy that is mapped; `None` where the system has no files in memory.
    copy: Option<&'static File>,
}

/// What tells at a glance that a file is another one than before: device, inode, bytes, time of change in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self(metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    }
}

impl Origin {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is something else in the file now. A file that cannot be read has changed: trying to load it says
    /// why.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let is_the_same = || -> io::Result<bool> {
            let file = File::open(&self.path)?;
            Ok(Stamp::of(&file)? == self.stamp || self.copy.map_or(Ok(false), |copy| are_equal(&file, copy))?)
        };
        !is_the_same().unwrap_or(false)
    }
}

/// Whether two files have the same bytes.
fn are_equal(one: &File, other: &File) -> io::Result<bool> {
    let (mut ours, mut theirs) = ([0; 16 * 1024], [0; 16 * 1024]);
    let bytes = other.metadata()?.len();
    if one.metadata()?.len() != bytes {
        return Ok(false);
    }
    let mut at = 0;
    while at < bytes {
        let part = usize::try_from(bytes - at).map_or(ours.len(), |left| left.min(ours.len()));
        one.read_exact_at(&mut ours[..part], at)?;
        other.read_exact_at(&mut theirs[..part], at)?;
        if ours[..part] != theirs[..part] {
            return Ok(false);
        }
        at += part as u64;
    }
    Ok(true)
}

/// Which of the two symbols a library has, and with it how its instance is made.
#[derive(Clone, Copy)]
pub(super) enum Language {
    /// The one of `plugin_api::export!`, or none at all: the handler is linked in.
    Rust,
    /// The one of `mqtt_handler.h`.
    C(c::InstanceNew),
}

/// A library that is mapped and fits, and whose handler has not been initialised.
pub struct Prepared {
    table: PluginVtRef,
    language: Language,
    api_version: String,
    origin: Option<Origin>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("name", &self.name()).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Maps a copy of a library and checks it.
    ///
    /// # Errors
    /// See [`LoadError`]. A library that turned out not to fit stays mapped, as any other.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let (library, origin) = map(path)?;
        let (table, language, api_version) = match entry(path, library)? {
            Entry::Rust(header) => {
                check_version(path, header)?;
                check_layout(path, header)?;
                // SAFETY: version and layout of everything behind the header have just been checked.
                let table = unsafe { header.unchecked_layout::<PluginVtRef>() };
                let table = table.map_err(|error| not_a_library(path, &error))?;
                (table, Language::Rust, header.version_strings().version.as_str().to_owned())
            }
            Entry::C(head) => {
                // SAFETY: the library exports the symbol, and whoever wrote it has promised what the header says of it.
                let plugin = unsafe { c::read(path, head) }?;
                (plugin.table, Language::C(plugin.instance_new), plugin.api_version)
            }
        };
        check_table(path, table, language)?;
        Ok(Self { table, language, api_version, origin: Some(origin) })
    }

    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.table.name().as_str()
    }

    /// The callbacks that it implements.
    pub(crate) fn callbacks(&self) -> Callbacks {
        Callbacks::from_bits(self.table.callbacks())
    }

    /// The file; `None` if it is linked in.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// The JSON Schema of its configuration; `None` if it has none, or is older than that question.
    #[must_use]
    pub fn config_schema(&self) -> Option<String> {
        let (write, mut answer) = (self.table.config_schema()?, Answer::default());
        // SAFETY: the layout is right, and the library is never unmapped; the function needs no instance.
        let (verdict, _) = inside(Call::INIT, NO_CONNECTION, "", || unsafe { write(answer.sink()) });
        answer.whole_text().filter(|text| verdict == Verdict::OK && !text.is_empty())
    }

    /// Initialises the handler. `config` is JSON, `{}` if there is nothing to configure.
    ///
    /// # Errors
    /// `config` is not JSON or does not fit its schema, or `init` returned an error or panicked.
    pub fn init(self, config: &str, services: &Services) -> Result<Plugin, LoadError> {
        // SAFETY: the layout is right, and the library is never unmapped.
        unsafe { init(self.table, self.language, self.api_version, self.origin, config, services) }
    }
}

impl Plugin {
    /// Loads a library and initialises the handler in it. `config` is JSON, `{}` if there is nothing to configure.
    ///
    /// # Errors
    /// See [`LoadError`]. A library that turned out not to fit stays mapped, as any other.
    pub fn load(path: &Path, config: &str, services: &Services) -> Result<Self, LoadError> {
        Prepared::read(path)?.init(config, services)
    }

    /// Initialises a handler that is linked into this program. Its table of functions is never freed.
    ///
    /// # Errors
    /// `config` is not JSON, `init` returned an error or panicked, or the program was built with `panic = "abort"`.
    pub fn from_static<H: Handler>(
        name: &'static str,
        version: &'static str,
        config: &str,
        services: &Services,
    ) -> Result<Self, LoadError> {
        let table = plugin_api::__private::static_plugin::<H>(name, version);
        check_table(Path::new(name), table, Language::Rust)?;
        // SAFETY: `static_plugin` makes a table of the very type, which is never freed.
        unsafe { init(table, Language::Rust, api_version().to_owned(), None, config, services) }
    }
}

/// The version of `plugin-api` that this host has.
#[must_use]
pub(super) fn api_version() -> &'static str {
    PluginVtRef::VERSION_STRINGS.version.as_str()
}

/// # Safety
/// As [`Plugin::init`].
unsafe fn init(
    table: PluginVtRef,
    language: Language,
    api_version: String,
    origin: Option<Origin>,
    config: &str,
    services: &Services,
) -> Result<Plugin, LoadError> {
    let plugin = table.name().as_str().to_owned();
    if let Some(callback) = blocks_deliveries(table) {
        return Err(LoadError::BlocksDeliveries { plugin, callback: callback.name() });
    }
    if let Err(error) = serde_json::from_str::<serde_json::Value>(config) {
        return Err(LoadError::BadConfig { plugin, reason: error.to_string() });
    }
    if let Err(reason) = check_config(table, config) {
        return Err(LoadError::ConfigRefused { plugin, reason });
    }
    // SAFETY: the caller's promise.
    unsafe { Plugin::init(table, language, api_version, origin, config, services) }.map_err(|error| match error {
        NotReady::Refused(reason) => LoadError::InitRefused { plugin, reason },
        NotReady::Panicked(Panic { text, location }) => LoadError::InitPanicked { plugin, text, location },
    })
}

/// Has a plugin look at a configuration, without an instance.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn check_config(table: PluginVtRef, config: &str) -> Result<(), String> {
    let Some(check) = table.config_check() else { return Ok(()) }; // It is older than that question.
    let mut answer = Answer::default();
    // SAFETY: the layout was checked when the library was loaded; the function needs no instance.
    let (verdict, _) = inside(Call::INIT, NO_CONNECTION, "", || unsafe { check(config.into(), answer.sink()) });
    match verdict {
        Verdict::OK => Ok(()),
        _ => Err(answer.text().map_or_else(|| unknown(verdict), |(_, text)| text)),
    }
}

/// A callback that may have the state of a connection on another thread while a message is delivered to it, which cannot
/// wait.
fn blocks_deliveries(table: PluginVtRef) -> Option<Callback> {
    let blocking = Callbacks::from_bits(table.blocking() & table.callbacks());
    let has_state = |callback: &Callback| {
        // Not before the client is in, nor when it has gone.
        matches!(
            callback,
            Callback::Auth
                | Callback::Publish
                | Callback::Subscribe
                | Callback::Unsubscribe
                | Callback::Puback
                | Callback::Info
                | Callback::Connected
                | Callback::Deliver
        )
    };
    let delivers = Callbacks::from_bits(table.callbacks()).contains(Callback::Deliver);
    blocking.iter().find(has_state).filter(|_| delivers)
}

/// Maps a copy of the library, for good.
fn map(path: &Path) -> Result<(Library, Origin), LoadError> {
    let mut file = open(path)?;
    let unreadable = |error: io::Error| LoadError::Unreadable { path: path.into(), reason: error.to_string() };
    // Before anything is read: a change that comes meanwhile is noticed later.
    let stamp = Stamp::of(&file).map_err(unreadable)?;
    check_file(path, &mut file)?;
    let (library, descriptor) = match sealed_copy(&mut file) {
        Ok(copy) => {
            let library = dlopen(&PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd())));
            (library, Some(copy))
        }
        // No memfd, or none that may be mapped for execution.
        Err(_) => (temporary_copy(&mut file).map_err(unreadable)?, None),
    };
    let library = match library {
        Ok(library) => library,
        // Without /proc, or where memory files must not be executed, a file may still do. The message of this attempt
        // is the better one as well.
        Err(_) if descriptor.is_some() => {
            temporary_copy(&mut file).map_err(unreadable)?.map_err(|error| not_a_library(path, &error))?
        }
        Err(error) => return Err(not_a_library(path, &error)),
    };
    let mapped = MAPPED.fetch_add(1, Ordering::Relaxed) + 1;
    MAPPED_BYTES.fetch_add(stamp.2, Ordering::Relaxed);
    tracing::debug!(path = %path.display(), mapped, "mapped a library");
    // Kept open: see the module documentation.
    let copy: Option<&'static File> = descriptor.map(|copy| &*Box::leak(Box::new(File::from(copy))));
    Ok((library, Origin { path: path.into(), stamp, copy }))
}

fn open(path: &Path) -> Result<File, LoadError> {
    let unreadable = |reason: String| LoadError::Unreadable { path: path.into(), reason };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LoadError::NotFound { path: path.into() });
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err(unreadable(format!("it is {what}")));
    }
    if metadata.len() > LIBRARY_BYTES_MAX {
        let bytes = metadata.len();
        return Err(unreadable(format!("it has {bytes} bytes, more than {LIBRARY_BYTES_MAX}")));
    }
    File::open(path).map_err(|error| unreadable(error.to_string()))
}

/// Refuses what is not a library of this machine's, and one that ends before its segments do (a copy or a build that is not
/// finished): the system's loader would map what is not there, and the process would die of it.
fn check_file(path: &Path, file: &mut File) -> Result<(), LoadError> {
    let unreadable = |error: io::Error| LoadError::Unreadable { path: path.into(), reason: error.to_string() };
    let length = file.metadata().map_err(unreadable)?.len();
    let mut head = Vec::new();
    file.take(HEADERS_BYTES_MAX).read_to_end(&mut head).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    match elf_bytes(&head) {
        // The system's loader says "no such file" of it.
        Some(_) if is_foreign(&head) => Err(LoadError::NotALibrary {
            path: path.into(),
            reason: "it was built for another kind of processor".into(),
        }),
        Some(expected) if expected <= length => Ok(()),
        Some(expected) => Err(LoadError::NotALibrary {
            path: path.into(),
            reason: format!("it is cut off: {expected} bytes are expected, and it has {length}"),
        }),
        None => Err(LoadError::NotALibrary {
            path: path.into(),
            reason: "it does not begin as an ELF file with readable headers does".into(),
        }),
    }
}

/// Whether an ELF file is for another architecture than this program.
fn is_foreign(head: &[u8]) -> bool {
    // Class and data encoding (bytes 4 and 5), and e_machine (18 and 19).
    let kind = |head: &[u8]| Some((head.get(4..6)?.to_vec(), head.get(18..20)?.to_vec()));
    let mut own = [0; 20];
    let is_known = File::open("/proc/self/exe").and_then(|mut exe| exe.read_exact(&mut own)).is_ok();
    is_known && kind(&own) != kind(head)
}

/// The bytes that an ELF file has at least, by its program headers. `None` if they cannot be read.
fn elf_bytes(head: &[u8]) -> Option<u64> {
    let field = |at: usize, bytes: usize| -> Option<u64> {
        let mut number = [0; 8];
        let raw = head.get(at..at.checked_add(bytes)?)?;
        if cfg!(target_endian = "little") {
            number[..bytes].copy_from_slice(raw);
            Some(u64::from_le_bytes(number))
        } else {
            number[8 - bytes..].copy_from_slice(raw);
            Some(u64::from_be_bytes(number))
        }
    };
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    // e_phoff, e_phentsize, e_phnum; p_offset, p_filesz.
    let is_64_bit = *head.get(4)? == 2;
    let (word, table, entry_bytes, entries, offset, size) =
        if is_64_bit { (8, 32, 54, 56, 8, 32) } else { (4, 28, 42, 44, 4, 16) };
    let (table, entry_bytes, entries) = (field(table, word)?, field(entry_bytes, 2)?, field(entries, 2)?);
    let mut end = table.checked_add(entry_bytes.checked_mul(entries)?)?;
    for entry in 0..entries {
        let at = usize::try_from(table.checked_add(entry * entry_bytes)?).ok()?;
        let segment_end = field(at.checked_add(offset)?, word)?.checked_add(field(at.checked_add(size)?, word)?)?;
        end = end.max(segment_end);
    }
    Some(end)
}

/// A copy in memory that nobody can change any more.
fn sealed_copy(file: &mut File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(rustix::fs::memfd_create("plugin", flags)?);
    io::copy(file, &mut copy)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

/// Maps a copy in a file of its own, which is removed at once: the mapping stays.
fn temporary_copy(original: &mut File) -> io::Result<Result<Library, libloading::Error>> {
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    original.rewind()?;
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let copy = std::env::temp_dir().join(format!("host-plugin-{}-{number}.so", std::process::id()));
    // `create_new`, as whoever may write to the directory could have put a file or a link of that name there; and nobody
    // else may write to it.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&copy)?;
    let library = io::copy(original, &mut file).map(|_| dlopen(&copy));
    std::fs::remove_file(&copy)?;
    library
}

fn dlopen(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: this runs the library's initialisers: whoever names a plugin trusts its code, as the documentation says.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
}

/// What a library shows of itself.
enum Entry {
    Rust(&'static LibHeader),
    C(*const c::Head),
}

/// Finds one of the two symbols, and leaves the library mapped whatever comes next.
fn entry(path: &Path, library: Library) -> Result<Entry, LoadError> {
    // SAFETY: a library that has this symbol was made by abi_stable, whose headers begin in the same way in all versions.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = header.map(|symbol| *symbol).ok();
    // SAFETY: only the address is taken.
    let table = unsafe { library.get::<*const c::Head>(c::SYMBOL) };
    let table = table.map(|symbol| symbol.as_raw_ptr().cast_const().cast::<c::Head>()).ok();
    std::mem::forget(library);
    match (header, table) {
        (Some(header), _) => header.upgrade().map(Entry::Rust).map_err(|_| LoadError::OtherVersion {
            path: path.into(),
            found: "of an unknown version (its header was made by another abi_stable)".into(),
            expected: api_version().into(),
        }),
        (None, Some(table)) => Ok(Entry::C(table)),
        (None, None) => Err(LoadError::NoEntrySymbol { path: path.into() }),
    }
}

/// Checks what a table says in words and numbers.
fn check_table(path: &Path, table: PluginVtRef, language: Language) -> Result<(), LoadError> {
    for (what, text, least) in [("name", table.name(), 1), ("version", table.version(), 0)] {
        let bad = |why: String| LoadError::BadName { path: path.into(), reason: format!("its {what} {why}") };
        let bytes = text.as_rslice().as_slice(); // A table that was written by hand may have anything there.
        if !(least..=NAME_BYTES_MAX).contains(&bytes.len()) {
            return Err(bad(format!("has {} bytes; {least} to {NAME_BYTES_MAX} are possible", bytes.len())));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("is not UTF-8".into()))?;
        if text.chars().any(char::is_control) {
            return Err(bad(format!("has control characters: {text:?}")));
        }
    }
    // Only what Rust has built can unwind, and only that is asked whether it does.
    if matches!(language, Language::Rust) && table.flags() & FLAG_UNWINDS == 0 {
        return Err(LoadError::PanicAbort { plugin: table.name().as_str().to_owned() });
    }
    Ok(())
}

fn check_version(path: &Path, header: &LibHeader) -> Result<(), LoadError> {
    let (found, expected) = (header.version_strings(), PluginVtRef::VERSION_STRINGS);
    let same = match (VersionNumber::new(found), VersionNumber::new(expected)) {
        (Ok(found), Ok(expected)) => found.major == expected.major,
        _ => false,
    };
    if same {
        return Ok(());
    }
    Err(LoadError::OtherVersion {
        path: path.into(),
        found: found.version.as_str().into(),
        expected: expected.version.as_str().into(),
    })
}

fn check_layout(path: &Path, header: &LibHeader) -> Result<(), LoadError> {
    let ours = <PluginVtRef as StableAbi>::LAYOUT;
    let Some(theirs) = header.layout() else {
        return Err(LoadError::OtherLayout {
            path: path.into(),
            place: "the description of its types".into(),
            expected: "one".into(),
            found: "none".into(),
        });
    };
    let version = |strings| VersionNumber::new(strings).map(|version| (version.minor, version.patch)).ok();
    let theirs_is_older = version(header.version_strings()) < version(PluginVtRef::VERSION_STRINGS);
    let (older, newer) = if theirs_is_older { (theirs, ours) } else { (ours, theirs) };
    check_layout_compatibility_with_globals(older, newer, &CheckingGlobals::new())
        .map_err(|errors| other_layout(path, &errors, theirs_is_older))
}

/// Picks the one difference, of the many that follow from it, that says most: the innermost, which comes first.
fn other_layout(path: &Path, errors: &AbiInstabilityErrors, theirs_is_older: bool) -> LoadError {
    let first = errors.errors.iter().find_map(|error| error.errs.first().map(|what| (error, what)));
    let (place, (what, sides)) = match first {
        Some((error, what)) => (place(errors.interface, &error.stack_trace), describe(what)),
        None => ("the table of functions".into(), ("", sides("", ""))),
    };
    let (expected, found) = if theirs_is_older { (sides.found, sides.expected) } else { (sides.expected, sides.found) };
    LoadError::OtherLayout { path: path.into(), place: format!("{place}{what}"), expected, found }
}

fn sides(expected: impl ToString, found: impl ToString) -> ExpectedFound<String> {
    ExpectedFound { expected: expected.to_string(), found: found.to_string() }
}

/// Where the difference is: the innermost field, its type, and the entry of the table that led there.
fn place(root: &'static TypeLayout, stack: &[ExpectedFound<TLFieldOrFunction>]) -> String {
    // The pointers in between have fields that are called 0 or __something: they say nothing to anybody.
    let has_name = |name: &str| name.starts_with(|first: char| first.is_ascii_alphabetic());
    let (mut owner, mut path) = (root.full_type().name().to_owned(), Vec::new());
    for step in stack {
        if let TLFieldOrFunction::Field(field) = step.expected {
            if has_name(field.name()) {
                path.push(format!("`{}` of {owner}", field.name()));
            }
            owner = field.full_type().name().to_owned();
        }
    }
    match &path[..] {
        [] => root.full_type().to_string(),
        [field] => field.clone(),
        [entry, .., field] => format!("{field} (reached through {entry})"),
    }
}

/// What differs, and the two sides of it.
fn describe(what: &AbiInstability) -> (&'static str, ExpectedFound<String>) {
    use AbiInstability as What;
    match what {
        What::Name(v) => ("", sides(v.expected, v.found)),
        What::Package(v) => (" comes from another package", sides(v.expected, v.found)),
        What::PackageVersion(v) => (" comes from another version of its package", sides(v.expected, v.found)),
        What::Size(v) => (" has another size in bytes", sides(v.expected, v.found)),
        What::Alignment(v) => (" has another alignment in bytes", sides(v.expected, v.found)),
        What::FieldCountMismatch(v) => (" has another number of fields", sides(v.expected, v.found)),
        What::UnexpectedField(v) => (
            " has another field",
            sides(
                format_args!("`{}`: {}", v.expected.name(), v.expected.full_type()),
                format_args!("`{}`: {}", v.found.name(), v.found.full_type()),
            ),
        ),
        What::MismatchedPrimitive(v) => ("", sides(format_args!("{:?}", v.expected), format_args!("{:?}", v.found))),
        What::TLDataDiscriminant(v) => {
            (" is another kind of type", sides(format_args!("{:?}", v.expected), format_args!("{:?}", v.found)))
        }
        What::MismatchedPrefixSize(v) => (" has another number of first fields", sides(v.expected, v.found)),
        What::FnQualifierMismatch(v) | What::FnLifetimeMismatch(v) => {
            (" has another signature", sides(signature(&v.expected.to_string()), signature(&v.found.to_string())))
        }
        other => {
            // Rare kinds: the beginning of their own description.
            let text: String = format!("{other:?}").chars().take(200).collect();
            (" differs", sides("the same", text))
        }
    }
}

/// A signature as people write it: abi_stable's text has made-up names, and a second line about lifetimes.
fn signature(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let (name, parameters) = line.split_once('(').unwrap_or((line, ")"));
    let (parameters, result) = parameters.rsplit_once(")->").unwrap_or((parameters.trim_end_matches(')'), "()"));
    let types: Vec<&str> = parameters
        .split(", ")
        .map(|parameter| parameter.rsplit_once(": ").map_or(parameter, |(_, its_type)| its_type).trim())
        .collect();
    format!("{name}({}) -> {result}", types.join(", "))
}

fn not_a_library(path: &Path, error: &dyn std::error::Error) -> LoadError {
    // The outer error only says which function failed. The inner one begins with the name of the copy; whoever reads this
    // knows the original.
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let reason = match text.split_once(": ") {
        Some((copy, reason)) if copy.contains("host-plugin-") => reason.to_owned(),
        _ => text,
    };
    LoadError::NotALibrary { path: path.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_readable() {
        let text = "unsafe fn(,,,: *mut c_void , param_1: RSlice<'a>, param_2: u8)->()\nlifetime indices:Array(..)\n";
        assert_eq!(signature(text), "unsafe fn(*mut c_void, RSlice<'a>, u8) -> ()");
    }
}
