//! How much memory each client of a manager may have.
use alloc::collections::BTreeMap;

/// A client's limit, and what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Most bytes that it may have.
    pub limit: u64,
    /// Bytes that it has.
    pub used: u64,
}

/// The accounts of all clients, by their numbers. Who has none may have nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Accounts(BTreeMap<u64, Account>);

/// A client has as much as it may have, or too little is left of it. Nothing was charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted {
    /// Bytes that it could still get.
    pub left: u64,
}

impl Accounts {
    /// Reads a list `client:limit,…`.
    ///
    /// # Errors
    /// The part of the list that is malformed.
    pub fn list(text: &str) -> Result<Self, &str> {
        let limits = crate::tuples(text)
            .map(|limit| limit.map(|[client, limit]| (client, Account { limit, used: 0 })));
        limits.collect::<Result<_, _>>().map(Self)
    }

    /// A client's account.
    #[must_use]
    pub fn of(&self, client: u64) -> Account {
        self.0.get(&client).copied().unwrap_or_default()
    }

    /// Charges bytes to a client.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn charge(&mut self, client: u64, bytes: u64) -> Result<(), Exhausted> {
        let Account { limit, used } = self.of(client);
        let left = limit.saturating_sub(used);
        match self.0.get_mut(&client) {
            Some(account) if bytes <= left => {
                account.used += bytes;
                Ok(())
            }
            _ if bytes == 0 => Ok(()),
            _ => Err(Exhausted { left }),
        }
    }

    /// Charges bytes that a client has already, even beyond its limit: it gets no more until it is below.
    pub fn take_over(&mut self, client: u64, bytes: u64) {
        let account = self.0.entry(client).or_default();
        account.used = account.used.saturating_add(bytes);
    }

    /// Gives bytes back.
    pub fn credit(&mut self, client: u64, bytes: u64) {
        if let Some(account) = self.0.get_mut(&client) {
            account.used = account.used.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_has_no_account_gets_nothing() {
        let mut accounts = Accounts::list("1:10").expect("a list");
        assert_eq!(accounts.charge(2, 1), Err(Exhausted { left: 0 }));
        assert_eq!(accounts.charge(2, 0), Ok(()));
        assert_eq!(Accounts::list("1:10,2"), Err("2"));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_limit_or_at_anothers_cost(
            limits in proptest::array::uniform3(0u64..100),
            steps in proptest::collection::vec((0u64..3, 0u64..50, any::<bool>()), 0..60),
        ) {
            let text = alloc::format!("0:{},1:{},2:{}", limits[0], limits[1], limits[2]);
            let mut accounts = Accounts::list(&text).expect("a list");
            let mut model = [0u64; 3];
            for (client, bytes, back) in steps {
                let used = &mut model[client as usize];
                let limit = limits[client as usize];
                if back {
                    accounts.credit(client, bytes);
                    *used = used.saturating_sub(bytes);
                } else {
                    let fits = *used + bytes <= limit;
                    let left = limit - *used;
                    let expected = if fits { Ok(()) } else { Err(Exhausted { left }) };
                    prop_assert_eq!(accounts.charge(client, bytes), expected);
                    *used += if fits { bytes } else { 0 };
                }
                for (client, used) in model.iter().enumerate() {
                    prop_assert_eq!(accounts.of(client as u64).used, *used);
                }
            }
        }
    }
}
