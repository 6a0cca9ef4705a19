//! A simple epoll instance: the fakes of both kernels have it, and it is the model that the whole
//! is compared with.

pub const ONESHOT: u32 = 1 << 30;
pub const EDGE: u32 = 1 << 31;

/// What a file says of itself: the events that it has, and how often some arrived.
pub type Level = (u32, u64);

#[derive(Clone, Debug)]
struct Item {
    file: u64,
    fd: i32,
    events: u32,
    data: u64,
    /// Arrivals that have been told; `None`: nothing has been told yet.
    told: Option<u64>,
    disabled: bool,
}

impl Item {
    fn found(&self, level: &impl Fn(u64) -> Option<Level>) -> u32 {
        let Some((has, arrivals)) = level(self.file) else { return 0 };
        let stale = self.events & EDGE != 0 && self.told.is_some_and(|told| told >= arrivals);
        if self.disabled || stale { 0 } else { has & (self.events | 0x18) }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Instance {
    items: Vec<Item>,
}

impl Instance {
    pub fn control(&mut self, op: u64, file: u64, fd: i32, events: u32, data: u64) -> i64 {
        let place = self.items.iter().position(|i| (i.file, i.fd) == (file, fd));
        let new = Item { file, fd, events, data, told: None, disabled: false };
        match (op, place) {
            (1, Some(_)) => -17,
            (1, None) => {
                self.items.push(new);
                0
            }
            (2 | 3, None) => -2,
            (2, Some(n)) => {
                self.items.remove(n);
                0
            }
            (3, Some(n)) => {
                self.items[n] = new;
                0
            }
            _ => -22,
        }
    }

    pub fn is_ready(&self, level: &impl Fn(u64) -> Option<Level>) -> bool {
        self.items.iter().any(|i| i.found(level) != 0)
    }

    /// What is pending, untouched.
    pub fn pending(&self, level: &impl Fn(u64) -> Option<Level>) -> Vec<(u32, u64)> {
        let all = self.items.iter().map(|i| (i.found(level), i.data));
        all.filter(|(events, _)| *events != 0).collect()
    }

    /// Takes events; those that were not told yet come first the next time.
    pub fn take(&mut self, max: usize, level: &impl Fn(u64) -> Option<Level>) -> Vec<(u32, u64)> {
        let mut found = Vec::new();
        let mut last = None;
        for (n, item) in self.items.iter_mut().enumerate() {
            let events = item.found(level);
            if events == 0 || found.len() == max {
                continue;
            }
            found.push((events, item.data));
            item.told = level(item.file).map(|l| l.1);
            item.disabled = item.events & ONESHOT != 0;
            last = Some(n);
        }
        if let Some(last) = last {
            self.items.rotate_left(last + 1);
        }
        found
    }

    /// Takes this very event.
    pub fn take_one(&mut self, data: u64, level: &impl Fn(u64) -> Option<Level>) -> Option<u32> {
        let item = self.items.iter_mut().find(|i| i.data == data)?;
        let events = item.found(level);
        item.told = level(item.file).map(|l| l.1);
        item.disabled = item.events & ONESHOT != 0;
        Some(events).filter(|e| *e != 0)
    }
}
