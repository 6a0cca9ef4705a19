//! Objects by number. A number carries a generation, so that one that outlived its object is
//! noticed and never names the object's successor.
use abi::Error;
use alloc::boxed::Box;
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
    /// Names nothing.
    pub const NONE: Self = Self { index: u32::MAX, generation: 0, kind: PhantomData };

    /// The slot's number: unique among the objects of a kind that exist now.
    #[must_use]
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

/// Slots that are allocated together. Objects never move, so that growing takes no more memory than
/// what is added.
const CHUNK: usize = 32;

/// All objects of one kind.
#[derive(Debug)]
pub struct Arena<T> {
    chunks: Vec<Box<[Slot<T>; CHUNK]>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Arena<T> {
    /// Upper bound of the heap bytes that an object takes; the lists grow by doubling.
    pub const COST: u64 = (size_of::<Slot<T>>() + 4 * size_of::<u32>()) as u64;

    /// No objects.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new() }
    }

    #[inline]
    fn slot(&self, id: Id<T>) -> Option<&Slot<T>> {
        let chunk = self.chunks.get(id.index as usize / CHUNK)?;
        Some(&chunk[id.index as usize % CHUNK])
    }

    #[inline]
    fn slot_mut(&mut self, id: Id<T>) -> Option<&mut Slot<T>> {
        let chunk = self.chunks.get_mut(id.index as usize / CHUNK)?;
        Some(&mut chunk[id.index as usize % CHUNK])
    }

    /// Adds an object. The caller has charged [`Self::COST`].
    pub fn insert(&mut self, value: T) -> Id<T> {
        if self.free.is_empty() {
            self.grow();
        }
        let index = self.free.pop().unwrap_or_default();
        let mut id = Id { index, generation: 0, kind: PhantomData };
        if let Some(slot) = self.slot_mut(id) {
            slot.value = Some(value);
            id.generation = slot.generation;
        }
        id
    }

    fn grow(&mut self) {
        let first = (self.chunks.len() * CHUNK) as u32;
        let slots = core::array::from_fn(|_| Slot { generation: 1, value: None });
        self.chunks.push(Box::new(slots));
        // Room for every slot, so that giving one back never allocates.
        self.free.reserve(self.chunks.len() * CHUNK);
        self.free.extend((first..first + CHUNK as u32).rev());
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let slot = self.slot_mut(id).filter(|slot| slot.generation == id.generation)?;
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
        match self.slot(id) {
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
        match self.slot_mut(id) {
            Some(slot) if slot.generation == id.generation => {
                slot.value.as_mut().ok_or(Error::Gone)
            }
            _ => Err(Error::Gone),
        }
    }

    /// Two different objects, to change both.
    ///
    /// # Errors
    /// `Gone` when either was removed, or both are the same.
    #[inline]
    pub fn get_two_mut(&mut self, a: Id<T>, b: Id<T>) -> Result<(&mut T, &mut T), Error> {
        let place = |id: Id<T>| (id.index as usize / CHUNK, id.index as usize % CHUNK);
        let ((chunk_a, a_in), (chunk_b, b_in)) = (place(a), place(b));
        let (first, second) = if chunk_a == chunk_b {
            let chunk = self.chunks.get_mut(chunk_a).ok_or(Error::Gone)?;
            let [first, second] = chunk.get_disjoint_mut([a_in, b_in]).map_err(|_| Error::Gone)?;
            (first, second)
        } else {
            let chunks = self.chunks.get_disjoint_mut([chunk_a, chunk_b]);
            let [first, second] = chunks.map_err(|_| Error::Gone)?;
            (&mut first[a_in], &mut second[b_in])
        };
        if first.generation != a.generation || second.generation != b.generation {
            return Err(Error::Gone);
        }
        match (&mut first.value, &mut second.value) {
            (Some(first), Some(second)) => Ok((first, second)),
            _ => Err(Error::Gone),
        }
    }

    /// Objects that exist.
    #[must_use]
    pub fn live(&self) -> usize {
        self.chunks.len() * CHUNK - self.free.len()
    }

    /// All objects with their names.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter());
        slots.zip(0..).filter_map(|(slot, index)| {
            let id = Id { index, generation: slot.generation, kind: PhantomData };
            slot.value.as_ref().map(|value| (id, value))
        })
    }

    /// Name of the first object that fits.
    #[must_use]
    pub fn find(&self, mut fits: impl FnMut(&T) -> bool) -> Option<Id<T>> {
        self.iter().find(|(_, value)| fits(value)).map(|(id, _)| id)
    }
}
