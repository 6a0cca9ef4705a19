//! Objects by number. A number carries a generation, so that one that outlived its object is
//! noticed and never names the object's successor.
use abi::Error;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU64;

/// Names an object of one kind.
pub struct Id<T> {
    /// Slot in the low half, generation, which is never zero, in the high half: comparing names is
    /// comparing words, and an optional name is a word too.
    word: NonZeroU64,
    kind: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// Names nothing: no arena has that many slots.
    pub const NONE: Self = Self { word: NonZeroU64::MAX, kind: PhantomData };

    /// The slot's number: unique among the objects of a kind that exist now.
    #[must_use]
    pub fn index(self) -> u32 {
        self.word.get() as u32
    }

    /// Where the arena keeps it.
    #[inline(always)]
    fn place(self) -> usize {
        self.index() as usize
    }

    /// True when both are the same, or both are none: one comparison, where that of options is two.
    #[inline(always)]
    #[must_use]
    pub fn same(a: Option<Self>, b: Option<Self>) -> bool {
        let word = |id: Option<Self>| id.map_or(0, |id| id.word.get());
        word(a) == word(b)
    }

    /// The first name of a slot.
    const fn first(index: u32) -> Self {
        let word = match NonZeroU64::new(1 << 32 | index as u64) {
            Some(word) => word,
            None => NonZeroU64::MAX,
        };
        Self { word, kind: PhantomData }
    }

    /// The next name of the same slot. Names repeat after four thousand million objects.
    fn next(self) -> Self {
        let word = self.word.checked_add(1 << 32);
        word.map_or(Self::first(self.index()), |word| Self { word, kind: PhantomData })
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
        self.word == other.word
    }
}
impl<T> Eq for Id<T> {}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.word.get() >> 32)
    }
}

#[derive(Debug)]
struct Slot<T> {
    /// The name of the object that is here, or of the next one that will be.
    id: Id<T>,
    value: Option<T>,
}

/// Slots of the block in which the first objects are: most machines have no more, and these are
/// found in the fewest steps.
const FIRST: usize = 128;

/// Slots that are allocated together beyond that. Objects never move, so that growing takes no more
/// memory than what is added.
const CHUNK: usize = 32;

/// All objects of one kind.
#[derive(Debug)]
pub struct Arena<T> {
    first: Vec<Slot<T>>,
    chunks: Vec<Box<[Slot<T>; CHUNK]>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Arena<T> {
    /// Upper bound of the heap bytes that an object takes; the lists grow by doubling. What the
    /// first block has more slots than objects, nobody pays for.
    pub const COST: u64 = (size_of::<Slot<T>>() + 4 * size_of::<u32>()) as u64;

    /// No objects.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: Vec::new(), chunks: Vec::new(), free: Vec::new() }
    }

    #[inline(always)]
    fn slot(&self, id: Id<T>) -> Option<&Slot<T>> {
        match self.first.get(id.place()) {
            Some(slot) => Some(slot),
            None => self.far(id),
        }
    }

    #[cold]
    #[inline(never)]
    fn far(&self, id: Id<T>) -> Option<&Slot<T>> {
        let index = id.place().checked_sub(FIRST)?;
        Some(&self.chunks.get(index / CHUNK)?[index % CHUNK])
    }

    #[inline(always)]
    fn slot_mut(&mut self, id: Id<T>) -> Option<&mut Slot<T>> {
        if id.place() < self.first.len() {
            return Some(&mut self.first[id.place()]);
        }
        self.far_mut(id)
    }

    #[cold]
    #[inline(never)]
    fn far_mut(&mut self, id: Id<T>) -> Option<&mut Slot<T>> {
        let index = id.place().checked_sub(FIRST)?;
        Some(&mut self.chunks.get_mut(index / CHUNK)?[index % CHUNK])
    }

    /// Adds an object. The caller has charged [`Self::COST`].
    pub fn insert(&mut self, value: T) -> Id<T> {
        if self.free.is_empty() {
            self.grow();
        }
        let index = self.free.pop().unwrap_or_default();
        let Some(slot) = self.slot_mut(Id::first(index)) else { return Id::NONE };
        slot.value = Some(value);
        slot.id
    }

    fn slots(&self) -> usize {
        self.first.len() + self.chunks.len() * CHUNK
    }

    fn grow(&mut self) {
        let old = self.slots() as u32;
        let empty = |index: u32| Slot { id: Id::first(index), value: None };
        if self.first.is_empty() {
            self.first.reserve_exact(FIRST);
            self.first.extend((0..FIRST as u32).map(empty));
        } else {
            let slots = core::array::from_fn(|index| empty(old + index as u32));
            self.chunks.push(Box::new(slots));
        }
        // Room for every slot, so that giving one back never allocates.
        self.free.reserve(self.slots());
        self.free.extend((old..self.slots() as u32).rev());
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let slot = self.slot_mut(id).filter(|slot| slot.id == id)?;
        let value = slot.value.take()?;
        slot.id = id.next();
        self.free.push(id.index());
        Some(value)
    }

    /// The object of that name.
    ///
    /// # Errors
    /// `Gone` when it was removed.
    #[inline(always)]
    pub fn get(&self, id: Id<T>) -> Result<&T, Error> {
        match self.slot(id) {
            Some(Slot { id: own, value: Some(value) }) if *own == id => Ok(value),
            _ => Err(Error::Gone),
        }
    }

    /// The object of that name, to change it.
    ///
    /// # Errors
    /// `Gone` when it was removed.
    #[inline(always)]
    pub fn get_mut(&mut self, id: Id<T>) -> Result<&mut T, Error> {
        match self.slot_mut(id) {
            Some(Slot { id: own, value: Some(value) }) if *own == id => Ok(value),
            _ => Err(Error::Gone),
        }
    }

    /// Two different objects, to change both.
    ///
    /// # Errors
    /// `Gone` when either was removed, or both are the same.
    #[inline(always)]
    pub fn get_two_mut(&mut self, a: Id<T>, b: Id<T>) -> Result<(&mut T, &mut T), Error> {
        let near = self.first.len();
        let (first, second) = if a.place() < near && b.place() < near {
            let both = self.first.get_disjoint_mut([a.place(), b.place()]);
            let [first, second] = both.map_err(|_| Error::Gone)?;
            (first, second)
        } else {
            self.two_far(a, b)?
        };
        match (first, second) {
            (Slot { id, value: Some(first) }, Slot { id: other, value: Some(second) })
                if *id == a && *other == b =>
            {
                Ok((first, second))
            }
            _ => Err(Error::Gone),
        }
    }

    /// An object and another one that it names, to change both.
    ///
    /// # Errors
    /// `Gone` when it names none, either was removed, or both are the same.
    #[inline(always)]
    pub fn get_with_other(
        &mut self,
        id: Id<T>,
        other: impl FnOnce(&T) -> Option<Id<T>>,
    ) -> Result<(&mut T, Id<T>, &mut T), Error> {
        let other = match self.first.get(id.place()) {
            Some(slot) => slot.value.as_ref().and_then(other),
            None => self.get(id).ok().and_then(other),
        };
        let other = other.ok_or(Error::Gone)?;
        let (first, second) = self.get_two_mut(id, other)?;
        Ok((first, other, second))
    }

    /// Two slots that are not both in the first block.
    #[cold]
    #[inline(never)]
    fn two_far(&mut self, a: Id<T>, b: Id<T>) -> Result<(&mut Slot<T>, &mut Slot<T>), Error> {
        let (near, far) = if a.place() < b.place() { (a, b) } else { (b, a) };
        let Some(index) = far.place().checked_sub(FIRST) else { return Err(Error::Gone) };
        let (low, high) = self.chunks.split_at_mut_checked(index / CHUNK).ok_or(Error::Gone)?;
        let chunk = high.first_mut().ok_or(Error::Gone)?;
        let (near, far) = match near.place().checked_sub(FIRST) {
            None => (&mut self.first[near.place()], &mut chunk[index % CHUNK]),
            Some(near) if near / CHUNK == index / CHUNK => {
                let both = chunk.get_disjoint_mut([near % CHUNK, index % CHUNK]);
                let [near, far] = both.map_err(|_| Error::Gone)?;
                (near, far)
            }
            Some(near) => (&mut low[near / CHUNK][near % CHUNK], &mut chunk[index % CHUNK]),
        };
        Ok(if a.place() < b.place() { (near, far) } else { (far, near) })
    }

    /// Objects that exist.
    #[must_use]
    pub fn live(&self) -> usize {
        self.slots() - self.free.len()
    }

    /// All objects with their names.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        let slots = self.first.iter().chain(self.chunks.iter().flat_map(|chunk| chunk.iter()));
        slots.filter_map(|slot| slot.value.as_ref().map(|value| (slot.id, value)))
    }

    /// Name of the first object that fits.
    #[must_use]
    pub fn find(&self, mut fits: impl FnMut(&T) -> bool) -> Option<Id<T>> {
        self.iter().find(|(_, value)| fits(value)).map(|(id, _)| id)
    }
}
