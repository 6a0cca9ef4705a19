//! What a program's executable pages must be: pages of files of the root image.
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Consecutive pages (4 KiB) of the root image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Extent {
    /// Number of the first.
    pub first: u32,
    /// How many.
    pub pages: u32,
}

/// Sorted, disjoint extents.
pub mod extents {
    use super::Extent;
    use alloc::vec::Vec;

    /// Sorts extents and joins those that touch.
    #[must_use]
    pub fn join(mut extents: Vec<Extent>) -> Vec<Extent> {
        extents.retain(|e| e.pages > 0);
        extents.sort_unstable();
        let mut out: Vec<Extent> = Vec::with_capacity(extents.len());
        for next in extents {
            let end = u64::from(next.first) + u64::from(next.pages);
            match out.last_mut() {
                Some(last)
                    if u64::from(last.first) + u64::from(last.pages) >= u64::from(next.first) =>
                {
                    let pages = end.saturating_sub(u64::from(last.first));
                    last.pages = last.pages.max(u32::try_from(pages).unwrap_or(u32::MAX));
                }
                _ => out.push(next),
            }
        }
        out
    }

    /// True when they are what [`join`] makes.
    #[must_use]
    pub fn are_sorted(extents: &[Extent]) -> bool {
        extents.windows(2).all(|pair| match pair {
            [a, b] => u64::from(a.first) + u64::from(a.pages) < u64::from(b.first),
            _ => true,
        })
    }

    /// True when a page is in one of them.
    #[must_use]
    pub fn contain(extents: &[Extent], page: u64) -> bool {
        let after = extents.partition_point(|e| u64::from(e.first) <= page);
        let before = after.checked_sub(1).and_then(|n| extents.get(n));
        before.is_some_and(|e| page - u64::from(e.first) < u64::from(e.pages))
    }
}

/// What a process must consist of to be a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Code {
    /// False: the program is known by its path alone (for programs that are not in the root image).
    pub verify: bool,
    /// It makes code at run time: pages outside of the root image are not looked at.
    pub jit: bool,
    /// The shared libraries of the root image are allowed.
    pub image_libraries: bool,
    /// The program's own file (of a script: its interpreter's).
    pub own: Vec<Extent>,
    /// Further files that are allowed.
    pub libraries: Vec<Extent>,
}

impl Default for Code {
    fn default() -> Self {
        Self {
            verify: true,
            jit: false,
            image_libraries: true,
            own: Vec::new(),
            libraries: Vec::new(),
        }
    }
}

impl Code {
    /// True when a page of the root image belongs to the program's own file.
    #[must_use]
    pub fn is_own(&self, page: u64) -> bool {
        extents::contain(&self.own, page)
    }

    /// True when a page of the root image belongs to a file that is named for this program.
    #[must_use]
    pub fn may_hold(&self, page: u64) -> bool {
        self.is_own(page) || extents::contain(&self.libraries, page)
    }

    pub(crate) fn is_sound(&self) -> bool {
        extents::are_sorted(&self.own) && extents::are_sorted(&self.libraries)
    }
}
