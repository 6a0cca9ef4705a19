//! The disk for swapped pages is not what it was: harmed is who needs what was there, and nobody else.
use crate::bare::has_lines;
use crate::rig::{LIMIT, Rig, succeeded};
use crate::swapped::{SLOT, ledger};
use anyhow::{Context, Result, bail, ensure};
use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Instant;
use trapline::cache::Cache;
use trapline::launch::Options;
use trapline::machine::Vm;
use trapline::machine::kernel_test::{self, Program};
use trapline::parts::Repository;
use trapline::progress::Progress;
use trapline::web::Server;

const PROGRAM: &[u8] = include_bytes!("damaged.py");
/// Only pages that can't be compressed, which are random numbers here, have anything at this offset of their places.
const IN_RANDOM_PAGES: u64 = 4000;
/// All have at this one.
const IN_ANY_PAGE: u64 = 40;

fn boot() -> Result<Rig> {
    let trust = vec!["python3".to_owned(), "curl".to_owned()];
    let (memory, resident) = (256 << 20, Some(64 << 20));
    Rig::boot_with(Options { memory, resident, trust, ..Options::default() })
}

/// The byte at that offset of every place on the disk.
fn bytes_on_disk(rig: &Rig, offset: u64) -> Result<Vec<u8>> {
    let disk = rig.machine.disk().context("the machine has no disk")?;
    let places = (offset..disk.metadata()?.len()).step_by(SLOT as usize);
    let byte = |at| {
        let mut byte = [0];
        disk.read_exact_at(&mut byte, at).map(|()| byte[0])
    };
    Ok(places.map(byte).collect::<Result<_, _>>()?)
}

/// Flips a bit of that byte of every place where it is no longer what it was `before`.
fn damage(rig: &Rig, offset: u64, before: &[u8]) -> Result<()> {
    ensure!(ledger(rig)?.row.disk > 0, "nothing is on the disk");
    let disk = rig.machine.disk().context("the machine has no disk")?;
    let now = bytes_on_disk(rig, offset)?;
    for (place, (byte, before)) in now.iter().zip(before).enumerate() {
        if byte != before {
            disk.write_all_at(&[byte ^ 1], place as u64 * SLOT + offset)?;
        }
    }
    Ok(())
}

/// Files' and programs' pages are lost.
pub fn pages() -> Result<()> {
    let server = Server::start(1 << 20)?;
    let rig = boot()?;
    rig.put(PROGRAM, "/tmp/damaged.py")?;
    // What the first process needs now and then is on the disk already, and stays there.
    rig.succeed("head -c 110M /dev/urandom > /tmp/file; rm /tmp/file")?;
    let before = bytes_on_disk(&rig, IN_RANDOM_PAGES)?;
    rig.succeed("head -c 30M /dev/urandom > /tmp/file; head -c 70M /dev/urandom > /tmp/other")?;
    damage(&rig, IN_RANDOM_PAGES, &before)?;
    let reading = rig.compute("cat /tmp/file")?;
    let error = String::from_utf8_lossy(&reading.stderr);
    ensure!(reading.status == 1 && error.contains("Bad address"), "{error}");
    let said = rig.succeed(&format!("trusted python3 /tmp/damaged.py {}", server.url()))?;
    let expected = "reading -7\ncopy on write -7\nlost True others True\nsent {'EFAULT'}\nanswer 200\n\
                    received EFAULT\nfilled anew True its neighbour EFAULT\n";
    ensure!(said == expected, "{said}");
    let row = ledger(&rig)?.row;
    ensure!(row.lost > 1000, "{row:?}");
    used_again(&rig)?;
    let sum = rig.succeed(&format!("trusted curl -sS {} | sha256sum", server.url()))?;
    ensure!(sum.starts_with(&server.sha256()), "{sum}");
    let log = std::fs::read_to_string(rig.machine.logs().join("kernel.log"))?;
    ensure!(log.contains("does not hold what was written there"), "no page is named: {log}");
    ensure!(log.contains("which is lost: error"), "nobody is named who needed one: {log}");
    others_go_on(&rig)
}

/// What nobody needs any more is memory like any other.
fn used_again(rig: &Rig) -> Result<()> {
    let sums = rig.succeed(
        "rm /tmp/file /tmp/other
         for n in 1 2; do
             yes \"line $n\" | head -c 50M > /tmp/new.$n
             sha256sum < /tmp/new.$n
             yes \"line $n\" | head -c 50M | sha256sum
         done",
    )?;
    let sums: Vec<&str> = sums.lines().collect();
    ensure!(sums.len() == 4 && sums.chunks(2).all(|pair| pair[0] == pair[1]), "{sums:?}");
    Ok(())
}

fn others_go_on(rig: &Rig) -> Result<()> {
    let service = succeeded("the service VM", &rig.service("echo still here")?)?;
    ensure!(service.trim() == "still here", "{service}");
    rig.machine.stats()?;
    Ok(())
}

/// All that is on the disk is lost, what the kernel needs too: the VM ends and says why.
pub fn everything() -> Result<()> {
    let rig = boot()?;
    // Processes that sleep, so that their page tables leave memory.
    rig.succeed(
        "for n in 1 2 3 4 5 6; do
             python3 -c 'import time; data = bytes(range(256)) * 40000; time.sleep(20); print(sum(data))' &
         done > /dev/null 2>&1
         sleep 2; head -c 90M /dev/urandom > /tmp/file",
    )?;
    let none = vec![0; bytes_on_disk(&rig, IN_ANY_PAGE)?.len()];
    damage(&rig, IN_ANY_PAGE, &none)?;
    let end = Instant::now() + LIMIT;
    let error = loop {
        match rig.machine.run(Vm::Compute, &["sh", "-c", "cat /tmp/* /proc/*/maps"], LIMIT) {
            Err(error) => break format!("{error:#}"),
            Ok(_) if Instant::now() > end => bail!("the damage harms nobody"),
            Ok(_) => {}
        }
    };
    ensure!(error.contains("needs a part of its memory that is lost"), "{error}");
    others_go_on(&rig)
}

const NATIVE: Program = Program {
    name: "root",
    files: &["anon", "image", "swap", "native-swapped"],
    system: Some(include_str!("swapped.toml")),
    command_line: "resident=32M",
    disk: Some(128 << 20),
    ..kernel_test::TESTS
};

/// Native programs, whose disk is cut off behind its first place.
pub fn native() -> Result<()> {
    let repository = Repository::find()?;
    repository.build(false, &Progress::new(false))?;
    let cut = Cell::new(false);
    let report = kernel_test::run_until(&Cache::open()?, &repository, NATIVE, |log, disk| {
        if log.contains("cut the disk off now") && !cut.get() {
            cut.set(
                OpenOptions::new().write(true).open(disk).is_ok_and(|f| f.set_len(SLOT).is_ok()),
            );
        }
        false
    })?;
    println!("{}", report.log.trim_end());
    ensure!(report.passed && cut.get(), "{}", report.why);
    has_lines(
        &report.log,
        &[
            ("program 'reader' ended: page fault", 1),
            ("not resolved: object gone, at instruction", 1),
            ("owner: all is as it should be", 1),
            ("program 'owner' ended", 0),
            ("FAILED", 0),
            ("panic", 0),
        ],
    )
}
