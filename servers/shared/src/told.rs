//! What is told of the objects, in the manager's ledger: a row for each, by its number, which another object may have later.
use backing::shares::{MOST_OBJECTS, Shares};
use ledger::Row;
use rt::Shared;

/// The ledger, and what only it is counted for.
pub struct Told {
    ledger: Option<Shared>,
    /// Faults about each object that came to the manager, since it was started.
    faults: [u64; MOST_OBJECTS as usize],
}

impl Told {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self { ledger: Shared::region("ledger"), faults: [0; MOST_OBJECTS as usize] }
    }

    /// Somebody faulted where an object is shown, or was.
    pub fn asked(&mut self, object: u32, shares: &Shares<Shared>) {
        if let Some(faults) = self.faults.get_mut(object as usize) {
            *faults += 1;
            self.write(object, shares);
        }
    }

    /// Writes the row of an object, if there is room for it: zeros where there is no such object.
    pub fn write(&self, object: u32, shares: &Shares<Shared>) {
        let (Some(ledger), Ok(place)) = (&self.ledger, shares.place(object)) else {
            let nothing = Row::default();
            let _ = self.ledger.map(|ledger| nothing.write(&ledger, object.into()));
            return;
        };
        let seeing = shares.users(object).filter(|(_, user)| !user.rights.is_empty()).count();
        let row = Row {
            size: place.length,
            quota: shares.owner(object).map_or(0, |owner| shares.account(owner).limit),
            resident: place.length,
            resident_most: place.length,
            shown: place.length * seeing as u64,
            spaces: seeing as u64,
            faults: self.faults.get(object as usize).copied().unwrap_or(0),
            ..Row::default()
        };
        let _ = row.write(ledger, object.into());
    }
}
