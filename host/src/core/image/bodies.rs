//! Messages that several sessions have, which are told once, before the first image that refers to them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::message::{read_message, write_message};
use crate::core::Core;
use crate::core::budget::Kept;
use crate::packed::{Reader, Unreadable, Write};

/// How a message stands in an image.
const INLINE: u8 = 0;
const NUMBERED: u8 = 1;

/// What a worker has told, or been told, of them.
#[derive(Default)]
pub(in crate::core) struct Bodies {
    told: RefCell<Told>,
    /// Those of each worker of the other process, by their numbers.
    inherited: HashMap<u32, Vec<Inherited>, RandomState>,
}

#[derive(Default)]
struct Told {
    /// Numbers, by the address of what sessions have in common. The sessions have it until all has been told.
    numbers: HashMap<usize, u32, RandomState>,
    /// Those that were not sent yet.
    unsent: Vec<u8>,
}

/// A message that another process has told.
struct Inherited {
    image: Image,
    /// Once a session of this worker has it.
    kept: RefCell<Option<Kept>>,
}

/// Where it stands. All workers have the same bytes.
struct Image {
    bytes: Arc<[u8]>,
    start: usize,
    length: usize,
}

impl Bodies {
    /// Nothing more is told, or taken in.
    pub(in crate::core) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Writes a message, or its number if several have it.
    pub(super) fn write(&self, message: &Kept, out: &mut Vec<u8>) {
        let Some(address) = message.shared_at() else {
            out.put_u8(INLINE);
            return write_message(message, out);
        };
        let Told { numbers, unsent } = &mut *self.told.borrow_mut();
        let next = u32::try_from(numbers.len()).expect("bounded by the memory that a worker may hold");
        let number = *numbers.entry(address).or_insert_with(|| {
            let mut image = Vec::new();
            write_message(message, &mut image);
            unsent.put_bytes(&image);
            next
        });
        out.put_u8(NUMBERED);
        out.put_u32(number);
    }

    /// Reads one that the worker `teller` has written.
    pub(super) fn read<'a>(
        &self,
        teller: u32,
        reader: &mut Reader<'a>,
        keep: impl Fn(&mut Reader<'_>) -> Result<Kept, Unreadable>,
    ) -> Result<Kept, Unreadable> {
        match reader.u8()? {
            INLINE => keep(reader),
            NUMBERED => {
                let number = reader.u32()?;
                let inherited = self.inherited.get(&teller).and_then(|all| all.get(number as usize));
                let unknown = || Unreadable(format!("message {number} of worker {teller} was not told"));
                let Inherited { image, kept } = inherited.ok_or_else(unknown)?;
                if let Some(kept) = &*kept.borrow() {
                    return Ok(kept.clone());
                }
                let new = keep(&mut Reader::new(&image.bytes[image.start..][..image.length]))?;
                *kept.borrow_mut() = Some(new.clone());
                Ok(new)
            }
            other => Err(Unreadable(format!("a message begins with {other}: expected 0 or 1"))),
        }
    }
}

impl Core {
    /// Bytes of messages that images refer to, and that were not taken yet.
    pub(crate) fn untold_bytes(&self) -> usize {
        self.bodies.told.borrow().unsent.len()
    }

    /// Takes them. They have to be told before the images.
    pub(crate) fn take_untold(&mut self) -> Vec<u8> {
        mem::take(&mut self.bodies.told.get_mut().unsent)
    }

    /// Takes in what the worker `teller` of another process has told of messages that its images refer to.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn inherit_bodies(&mut self, teller: u32, bytes: &Arc<[u8]>) -> Result<(), Unreadable> {
        let (mut reader, all) = (Reader::new(bytes), self.bodies.inherited.entry(teller).or_default());
        while !reader.rest().is_empty() {
            let length = reader.bytes()?.len();
            let start = bytes.len() - reader.rest().len() - length;
            let image = Image { bytes: Arc::clone(bytes), start, length };
            all.push(Inherited { image, kept: RefCell::default() });
        }
        Ok(())
    }

    pub(super) fn read_inline(&self, reader: &mut Reader<'_>) -> Result<Kept, Unreadable> {
        let (parts, token) = read_message(reader, &self.shared.places_before)?;
        Ok(Kept::with_token(&parts, token, &self.account))
    }
}

impl Kept {
    /// Where it is, if it is kept more than once.
    fn shared_at(&self) -> Option<usize> {
        let counted = self.counted();
        (Rc::strong_count(counted) > 1).then(|| Rc::as_ptr(counted).addr())
    }
}
