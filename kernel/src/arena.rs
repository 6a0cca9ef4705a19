//! Objects by number. A number carries a generation, so that one that outlived its object is
//! noticed and never names the object's successor.
use abi::Error;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

/// Names an object of one kind.
pub struct Id<T> {
    index: u32,
    generation: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// The slot's number: unique among the objects of a kind that exist now.
    pub fn index(self) -> u32 {
        self.index
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Id<T> {}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// All objects of one kind.
#[derive(Debug)]
pub struct Arena<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    /// Upper bound of the heap bytes that an object takes: the list grows by doubling.
    pub const COST: u64 = 2 * (size_of::<Slot<T>>() + size_of::<u32>()) as u64;

    /// No objects.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Adds an object. The caller has charged [`Self::COST`].
    pub fn insert(&mut self, value: T) -> Id<T> {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Id { index, generation: slot.generation, kind: PhantomData };
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot { generation: 1, value: Some(value) });
        // Room for every slot, so that giving one back never allocates.
        self.free.reserve(self.slots.len());
        Id { index, generation: 1, kind: PhantomData }
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// The object of that name.
    ///
    /// # Errors
    /// `Gone` when it was removed.
    #[inline]
    pub fn get(&self, id: Id<T>) -> Result<&T, Error> {
        match self.slots.get(id.index as usize) {
            Some(slot) if slot.generation == id.generation => {
                slot.value.as_ref().ok_or(Error::Gone)
            }
            _ => Err(Error::Gone),
        }
    }

    /// The object of that name, to change it.
    ///
    /// # Errors
    /// `Gone` when it was removed.
    #[inline]
    pub fn get_mut(&mut self, id: Id<T>) -> Result<&mut T, Error> {
        match self.slots.get_mut(id.index as usize) {
            Some(slot) if slot.generation == id.generation => {
                slot.value.as_mut().ok_or(Error::Gone)
            }
            _ => Err(Error::Gone),
        }
    }

    /// Objects that exist.
    pub fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All objects with their names.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = Id { index: index as u32, generation: slot.generation, kind: PhantomData };
            slot.value.as_ref().map(|value| (id, value))
        })
    }

    /// Name of the first object that fits.
    pub fn find(&self, mut fits: impl FnMut(&T) -> bool) -> Option<Id<T>> {
        self.iter().find(|(_, value)| fits(value)).map(|(id, _)| id)
    }
}
