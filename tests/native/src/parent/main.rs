//! A program of a system description that starts processes: the scenario `processes`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use abi::{EndCause, Selector};
use native_tests::child::{DONE, EACH};
use rt::process::{Error, Files, Processes, Start};
use rt::{log, sys};

rt::entry!(main);

fn main(_: u64) -> ! {
    let outcome = run();
    match &outcome {
        Ok(()) => log!("all processes did as they should"),
        Err(why) => log!("FAILED {why}"),
    }
    if let Some(system) = rt::config().capability("system") {
        let _ = sys::shutdown(Selector(system), u64::from(outcome.is_err()));
    }
    sys::exit(1)
}

fn run() -> Result<(), Error> {
    let files = Files::of_boot_archive()?;
    let mut processes = Processes::of_config(EACH)?;
    let child = files.find("native-child")?;
    let before = sys::space_quota(Selector(0)).map_err(|e| Error::Kernel("quota", e))?;
    let exit = |code| EndCause::Exit { code };
    let cases: [(&str, &[&str], EndCause); 5] = [
        ("teller", &["tell", "two words", ""], exit(3)),
        ("sleeper", &["sleep", "1500"], exit(DONE)),
        ("forger", &["forge"], exit(DONE)),
        ("writer", &["write", "4096"], EndCause::Fault { address: 4096 }),
        ("spinner", &["spin"], EndCause::Destroyed),
    ];
    for (name, arguments, cause) in cases {
        let id = processes.start(&child, &Start { name, arguments, cpu: 1, ..Start::SMALL })?;
        if name == "spinner" {
            rt::time::sleep(1000);
            processes.kill(id)?;
        }
        let Some(ended) = processes.wait(abi::NO_DEADLINE)? else { return Err(Error::NoProcess) };
        log!("{ended}");
        if ended.id != id || ended.end.cause != cause {
            return Err(Error::NoProcess);
        }
    }
    // Without the slots' part of this program's own table, made once, everything is back.
    let after = sys::space_quota(Selector(0)).map_err(|e| Error::Kernel("quota", e))?;
    log!("quota: {} bytes less than before", before - after);
    let missing = files.find("nobody").err();
    log!("nobody: {}", missing.unwrap_or(Error::NotAllowed));
    Ok(())
}
