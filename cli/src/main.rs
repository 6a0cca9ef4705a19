//! The command `trapline`.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    let cache = trapline::cache::Cache::open()?;
    let progress = trapline::progress::Progress::new(true);
    let root = trapline::image::root::image(&cache, &[], &progress)?;
    let kernel = trapline::image::kernel::stock(&cache, &progress)?;
    println!("{} {}", root.display(), kernel.image.display());
    progress.step("done");
    Ok(())
}
