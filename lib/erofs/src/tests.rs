use super::*;
use proptest::prelude::*;

const BLOCK: usize = 4096;

/// A small image: block 0 the superblock, block 1 inodes of two slots each, data behind.
struct Made {
    bytes: Vec<u8>,
    inodes: u64,
}

impl Made {
    fn new() -> Self {
        let mut bytes = vec![0; 2 * BLOCK];
        bytes[1024..1028].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[1024 + 12] = 12;
        bytes[1024 + 40] = 1;
        Self { bytes, inodes: 0 }
    }

    fn inode(&mut self, mode: u16, data: &[u8], extended: bool) -> u64 {
        let number = self.inodes * 2;
        self.inodes += 1;
        let block = self.bytes.len() / BLOCK;
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        let at = BLOCK + number as usize * 32;
        let inode = &mut self.bytes[at..at + 64];
        inode[0] = u8::from(extended);
        inode[4..6].copy_from_slice(&mode.to_le_bytes());
        inode[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
        inode[16..20].copy_from_slice(&(block as u32).to_le_bytes());
        number
    }

    /// One whose data end behind it.
    fn inline(&mut self, mode: u16, data: &[u8]) -> u64 {
        assert!(data.len() <= 32);
        let number = self.inode(mode, &[], false);
        let at = BLOCK + number as usize * 32;
        self.bytes[at] = 2 << 1;
        self.bytes[at + 8] = data.len() as u8;
        self.bytes[at + 32..at + 32 + data.len()].copy_from_slice(data);
        number
    }

    fn folder(&mut self, entries: &[(&str, u64)]) -> u64 {
        let mut block = Vec::new();
        let mut at = entries.len() * 12;
        for (name, number) in entries {
            block.extend_from_slice(&number.to_le_bytes());
            block.extend_from_slice(&(at as u16).to_le_bytes());
            block.extend_from_slice(&[0; 2]);
            at += name.len();
        }
        entries.iter().for_each(|(name, _)| block.extend_from_slice(name.as_bytes()));
        self.inode(0o040_755, &block, true)
    }

    fn root(&mut self, number: u64) {
        self.bytes[1024 + 14..1024 + 16].copy_from_slice(&(number as u16).to_le_bytes());
    }
}

fn sample() -> (Vec<u8>, Vec<u8>) {
    let text: Vec<u8> = (0..9000u32).map(|n| n as u8).collect();
    let mut made = Made::new();
    let file = made.inode(0o100_755, &text, false);
    let link = made.inline(0o120_777, b"../usr/./bin/tool");
    let around = made.inline(0o120_777, b"/usr/around");
    let bin = made.folder(&[(".", 0), ("tool", file)]);
    let usr = made.folder(&[("around", around), ("bin", bin), ("link", link)]);
    let root = made.folder(&[("usr", usr), ("x", file)]);
    made.root(root);
    (made.bytes, text)
}

#[test]
fn paths_lead_to_files_through_links() {
    let (bytes, text) = sample();
    let image = Image::open(&bytes[..]).expect("an image");
    for path in ["/usr/bin/tool", "/usr/link", "/usr/../x", "//usr/./bin/../link"] {
        let inode = image.find(path.as_bytes()).expect(path);
        assert_eq!((inode.kind, inode.executable, inode.size), (Kind::File, true, 9000), "{path}");
        let at = image.place(&inode).expect("a place") as usize;
        assert_eq!(bytes[at..at + 9000], text);
    }
    let find = |path: &str| image.find(path.as_bytes());
    assert_eq!(find("/usr/bin/none"), Err(Error::NotFound));
    assert_eq!(find("/usr/bin/tool/x"), Err(Error::NotFound));
    assert_eq!(find("/usr/around"), Err(Error::TooManyLinks));
    assert_eq!(find("/").expect("root").kind, Kind::Folder);
    let names: Vec<_> = image.list(&find("/usr").expect("usr")).expect("a folder");
    let names: Vec<_> = names.iter().map(|e| String::from_utf8_lossy(&e.name)).collect();
    assert_eq!(names, ["around", "bin", "link"]);
    assert_eq!(image.list(&find("/x").expect("x")), Err(Error::NotFound));
}

#[test]
fn what_is_no_image_is_refused() {
    assert!(Image::open(&[0; 4096][..]).is_err_and(|e| e == Error::NoImage));
    assert!(Image::open(&[][..]).is_err());
    let (mut bytes, _) = sample();
    bytes[1024 + 12] = 40;
    assert!(Image::open(&bytes[..]).is_err_and(|e| e == Error::Damaged));
}

fn walk(image: &Image<'_, [u8]>, folder: &Inode, depth: u32) {
    for entry in image.list(folder).unwrap_or_default() {
        let Ok(inode) = image.inode(entry.number) else { continue };
        if let Ok(at) = image.place(&inode) {
            assert!(at + inode.size <= image.source.length());
        }
        let _ = image.target(&inode);
        if depth > 0 {
            walk(image, &inode, depth - 1);
        }
    }
}

proptest! {
    /// A damaged image is survived, and no file is said to lie outside of it.
    #[test]
    fn damage_is_survived(damage in prop::collection::vec((0usize..40_000, any::<u8>()), 1..30)) {
        let (mut bytes, _) = sample();
        for (at, value) in damage {
            let at = if at % 3 == 0 { 1024 + at % 128 } else { at % bytes.len() };
            bytes[at] = value;
        }
        if let Ok(image) = Image::open(&bytes[..]) {
            for path in ["/usr/link", "/usr/around", "/usr/bin/tool/x"] {
                let _ = image.find(path.as_bytes());
            }
            if let Ok(root) = image.root() {
                walk(&image, &root, 3);
            }
        }
    }
}
