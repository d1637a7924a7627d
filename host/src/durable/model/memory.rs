//! A journal and a checkpoint in memory, for tests.

use std::collections::BTreeMap;
use std::io;

use super::{Delta, Model, Op, Place, layout};
use crate::durable::ReadJournal;
use crate::durable::image::{Entry, ReadCheckpoint};

/// A journal and a checkpoint in memory.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) journal: Vec<u8>,
    pub(super) entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads what stands there.
pub(crate) struct Journal<'a>(pub(crate) &'a [u8]);

impl ReadJournal for Journal<'_> {
    fn read(&mut self, place: Place, into: &mut Vec<u8>) -> io::Result<()> {
        let start = usize::try_from(place.at).expect("in memory");
        into.extend_from_slice(&self.0[start..start + place.bytes as usize]);
        Ok(())
    }
}

impl ReadCheckpoint for Disk {
    fn scan(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = io::Result<Entry>> + '_> {
        let prefix = prefix.to_vec();
        let from = self.entries.range(prefix.clone()..);
        Box::new(from.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(k, v)| Ok((k.clone(), v.clone()))))
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.entries.get(key).cloned())
    }
}

impl Disk {
    /// Does what a delta says.
    pub(crate) fn commit(&mut self, delta: &Delta) {
        let before: Vec<_> = self.entries.keys().cloned().collect();
        for op in delta.ops() {
            match op {
                Op::Put(key, value) => {
                    let mut bytes = Vec::new();
                    value.write(&mut Journal(&self.journal), &mut bytes).expect("the journal is there");
                    self.entries.insert(key, bytes);
                }
                Op::Remove(key) => drop(self.entries.remove(&key)),
                Op::RemoveAll(prefix) => {
                    before.iter().filter(|key| key.starts_with(&prefix)).for_each(|key| drop(self.entries.remove(key)));
                }
            }
        }
    }

    /// A model as it is loaded.
    pub(crate) fn load(&self) -> Model {
        let Some(head) = self.entries.get(layout::HEAD_KEY) else {
            let mut model = Model::default();
            model.apply(&self.journal, 0).expect("the journal is sound");
            return model;
        };
        let head = layout::Head::decode(head).expect("a head");
        let mut model = Model::new(&head);
        let add = |entry: io::Result<Entry>| entry.expect("in memory");
        self.scan(layout::SESSIONS)
            .map(add)
            .for_each(|(key, value)| model.add_session(&key, &value).expect("a session"));
        self.scan(layout::TRANSIT).map(add).for_each(|(key, _)| model.add_transit(&key).expect("a message"));
        let start = usize::try_from(head.up_to[0]).expect("in memory");
        model.apply(&self.journal[start..], head.up_to[0]).expect("the journal is sound");
        model
    }
}
