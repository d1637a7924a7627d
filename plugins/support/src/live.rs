//! What a configuration says, in force; its files are read again when they have changed.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use plugin_api::config::ConfigError;

use crate::files::{Seen, Watch};

/// Checks a configuration and reads its files, and says what those looked like before they were read.
pub type Read<C, T> = fn(&C) -> Result<(T, Seen), ConfigError>;

/// What a configuration says, in force.
pub struct Live<C, T> {
    current: Arc<RwLock<Arc<T>>>,
    read: Read<C, T>,
    /// Told when files have changed: whether they count now.
    told: Arc<dyn Fn(Result<(), ConfigError>) + Send + Sync>,
    watch: Mutex<Option<Watch>>,
}

impl<C: Send + 'static, T: Send + Sync + 'static> Live<C, T> {
    /// Puts a configuration in force, and looks at its files from now on.
    ///
    /// # Errors
    /// The configuration has a fault, or no thread can be started.
    pub fn start(
        config: C,
        read: Read<C, T>,
        told: impl Fn(Result<(), ConfigError>) + Send + Sync + 'static,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let (value, seen) = read(&config)?;
        let current = Arc::new(RwLock::new(Arc::new(value)));
        let live = Self { current, read, told: Arc::new(told), watch: Mutex::new(None) };
        *live.watch.lock().unwrap_or_else(PoisonError::into_inner) = live.watching(config, seen)?;
        Ok(live)
    }

    /// What is in force.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another configuration in force.
    ///
    /// # Errors
    /// It has a fault, and the one before stays in force; or no thread can be started.
    pub fn replace(&self, config: C) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (value, seen) = (self.read)(&config)?;
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        // First of all: what it does about the old configuration must not come behind the new one.
        *watch = None;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        *watch = self.watching(config, seen)?;
        Ok(())
    }

    fn watching(&self, config: C, seen: Seen) -> std::io::Result<Option<Watch>> {
        let (current, told) = (Arc::clone(&self.current), Arc::clone(&self.told));
        let read = self.read;
        Watch::start(seen, move || {
            told(read(&config).map(|(value, _)| {
                *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
            }));
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::files;

    /// A configuration that names a file.
    struct Config(PathBuf);

    fn read(Config(file): &Config) -> Result<(String, Seen), ConfigError> {
        let seen = Seen::now(vec![file.clone()]);
        let text = files::read(file, "file")?;
        if text == "wrong" { Err(ConfigError::new("file", "it is wrong")) } else { Ok((text, seen)) }
    }

    #[test]
    fn what_is_in_force_follows_the_files_unless_there_is_a_fault() {
        let dir = std::env::temp_dir().join(format!("plugin-support-live-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).expect("written");
            Config(dir.join(name))
        };
        let (sender, told) = mpsc::channel();
        let told_by = move |done: Result<(), ConfigError>| sender.send(done.is_ok()).expect("it is waited for");
        let live = Live::start(file("a", "1"), read, told_by).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*live.get(), "1");
        for (text, expected) in [("22", "22"), ("wrong", "22"), ("333", "333")] {
            file("a", text);
            assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(text != "wrong"));
            assert_eq!(*live.get(), expected);
        }
        assert!(live.replace(file("b", "wrong")).is_err());
        assert_eq!(*live.get(), "333");
        live.replace(file("b", "4")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*live.get(), "4");
        drop(live);
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
