//! Keeps the dispatcher running in the service VM.

use crate::agent::{Line, Reaper};
use crate::log;
use crate::parameters::Parameters;
use crate::settings::PROGRAMS;
use hostlink::agent::Exit;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A dispatcher that ran that long is worth an immediate restart.
const GOOD_RUN: Duration = Duration::from_secs(10);

fn run_once(program: &str, spin: Option<u32>, reaper: &Reaper) -> String {
    let mut command = Command::new(program);
    command.args(spin.map(|spin| spin.to_string()));
    command.env_clear().stdin(Stdio::null()).current_dir("/");
    match reaper.spawn(&mut command) {
        Err(error) => format!("{program}: {error}"),
        Ok((_, end)) => match end.recv() {
            Ok(Exit::Signal(signal)) => format!("dispatcher ended by signal {signal}"),
            Ok(Exit::Status(status)) => format!("dispatcher ended with status {status}"),
            Err(_) => "dispatcher lost".to_owned(),
        },
    }
}

/// Starts the dispatcher, and again whenever it ends.
pub fn start(parameters: &Parameters, reaper: &Arc<Reaper>, line: &Arc<Line>) {
    let (reaper, line, spin) = (reaper.clone(), line.clone(), parameters.spin);
    std::thread::spawn(move || {
        let program = format!("{PROGRAMS}/delegate");
        let mut pause = SHORTEST_PAUSE;
        loop {
            let start = Instant::now();
            let end = run_once(&program, spin, &reaper);
            let text = format!("{end}; starting it again");
            log::error(&text);
            line.log(text);
            pause = if start.elapsed() > GOOD_RUN {
                SHORTEST_PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            std::thread::sleep(pause);
        }
    });
}
