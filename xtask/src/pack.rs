//! Boot archives from files.
use anyhow::{Context, Result, anyhow};
use archive::Input;
use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor};
use std::path::Path;

/// Packs `files` (`[+]NAME=PATH`), and the description as `system` behind the first of them.
pub fn pack(out: &Path, system: Option<&Path>, files: &[String]) -> Result<()> {
    let mut inputs = Vec::new();
    for file in files {
        let (name, path) =
            file.split_once('=').ok_or_else(|| anyhow!("'{file}' is not NAME=PATH"))?;
        let (name, large) = match name.strip_prefix('+') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let from = File::open(path).with_context(|| format!("cannot open '{path}'"))?;
        let length = from.metadata().with_context(|| format!("cannot read '{path}'"))?.len();
        inputs.push(Input {
            name: name.to_owned(),
            length,
            large,
            from: Box::new(BufReader::new(from)),
        });
    }
    if let Some(path) = system {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read '{}'", path.display()))?;
        let description = system::from_text(&text)
            .with_context(|| format!("'{}' is not usable", path.display()))?;
        let bytes = system::encode(&description);
        let entry = Input {
            name: system::DESCRIPTION_FILE.to_owned(),
            length: bytes.len() as u64,
            large: false,
            from: Box::new(Cursor::new(bytes)),
        };
        inputs.insert(inputs.len().min(1), entry);
    }
    let target = File::create(out).with_context(|| format!("cannot create '{}'", out.display()))?;
    archive::write(inputs, &mut BufWriter::new(target))
        .with_context(|| format!("cannot write '{}'", out.display()))?;
    Ok(())
}
