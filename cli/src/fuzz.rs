//! `trapline fuzz`: one fuzz target under libFuzzer, for a while.
use crate::cache::Cache;
use crate::parts::Repository;
use crate::supervise;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Options of `trapline fuzz`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A target: wire, relay, relay-files, delegate, files, identity, policy, compiled-policy, virtio, apic, decode, lost, archive, hostlink, linuxboot
    target: String,
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Longest input in bytes
    #[arg(long, default_value_t = 4096)]
    longest: u32,
}

/// Where the harness is, in the repository.
const HARNESS: &str = "tests/fuzz/libfuzzer";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What makes the compiler count the edges that an input takes, for libFuzzer (the pass is part of the
/// stable compiler's LLVM; `-Zsanitizer`, which is not stable, would only add address checks).
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Builds the harness and runs it; inputs that it found worth keeping, and those that broke a promise,
/// stay in the cache. The exit status is libFuzzer's.
///
/// # Errors
/// It can't be built or started.
pub fn fuzz(arguments: &Arguments) -> Result<u8> {
    let repository = Repository::find()?;
    let seeds = repository.path("tests/fuzz/seeds").join(&arguments.target);
    if !seeds.is_dir() {
        bail!("no fuzz target is called '{}' (trapline fuzz --help lists them)", arguments.target);
    }
    let built = repository.path("target-fuzz");
    build(&repository.path(HARNESS), &built)?;
    let folder = Cache::open()?.folder("fuzz")?.join(&arguments.target);
    let corpus = folder.join("corpus");
    std::fs::create_dir_all(&corpus).with_context(|| format!("can't make {}", corpus.display()))?;
    println!("trapline: inputs are kept in {}", folder.display());
    // Alone with a loopback device: the target `delegate` may do anything there.
    let mut command = supervise::child("unshare");
    command.args(["--map-root-user", "--net", "--pid", "--fork", "--kill-child"]);
    command.arg(built.join(TRIPLE).join("release/trapline-fuzz"));
    command.arg(format!("-max_total_time={}", arguments.minutes.saturating_mul(60)));
    command.arg(format!("-max_len={}", arguments.longest));
    command.args(["-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", folder.display()));
    command.args([&corpus, &seeds]).env("TRAPLINE_FUZZ_TARGET", &arguments.target);
    let status = command.status().context("can't run the fuzzer")?;
    supervise::check()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn build(harness: &Path, target: &Path) -> Result<()> {
    let status = supervise::child("cargo")
        .args(["build", "--locked", "--release", "--target", TRIPLE])
        .arg("--target-dir")
        .arg(target)
        .current_dir(harness)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .status()
        .context("can't run cargo")?;
    supervise::check()?;
    if !status.success() {
        bail!("the fuzz harness can't be built (it needs a C++ compiler: the Debian package g++)");
    }
    Ok(())
}
