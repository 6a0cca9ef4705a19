//! Whole scenarios: what is booted, what is run, and what must come out. One file each.
//!
//! `cargo run -p scenarios -- [FILTER] [--include-ignored]`; see `./trapline test`.
#![forbid(unsafe_code)]

mod bad_input;
mod bare;
mod damaged;
mod demo;
mod devices;
mod differential;
mod doctor;
mod forms;
mod four_at_once;
mod guest_panics;
mod identity;
mod illegal_acts;
mod interrupted;
mod kernel;
mod kernel_costs;
mod killed_delegate;
mod killed_dispatcher;
mod killed_monitor;
mod killed_service_vm;
mod listening;
mod listening_in_both;
mod load;
mod malware;
mod managers;
mod policy;
mod processes;
mod programs;
mod real_apache;
mod real_git;
mod real_iperf;
mod real_names;
mod real_nginx;
mod real_python;
mod real_redis;
mod real_ssh;
mod real_sshd;
mod real_static;
mod regressions;
mod remote_files;
mod rig;
mod rights;
mod served;
mod shared;
mod sharing;
mod soak;
mod status;
mod swapped;
mod table;
mod timeline;
mod tools;
mod untrusted;

use libtest_mimic::{Arguments, Failed, Trial};

/// A scenario: name, and what it does.
type Scenario = (&'static str, fn() -> anyhow::Result<()>);

/// All that end within a minute or two.
const SCENARIOS: &[Scenario] = &[
    ("kernel", kernel::run),
    ("managers", managers::run),
    ("managers_silent", managers::silent),
    ("managers_given_up", managers::given_up),
    ("managers_under_machines", managers::under_machines),
    ("devices", devices::run),
    ("shared", shared::run),
    ("shared_ending", shared::ending),
    ("shared_silent", shared::silent),
    ("costs_in_instructions", kernel_costs::run),
    ("bad_input_unknown_package", bad_input::unknown_package),
    ("bad_input_unknown_program", bad_input::unknown_program),
    ("bad_input_port_in_use", bad_input::port_in_use),
    ("bad_input_memory", bad_input::memory),
    ("bad_input_missing_qemu", bad_input::missing_qemu),
    ("bad_input_malformed_description", bad_input::malformed_description),
    ("bad_input_damaged_archive", bad_input::damaged_archive),
    ("bad_input_never_boots", bad_input::never_boots),
    ("doctor", doctor::run),
    ("processes", processes::run),
    ("kernel_pages", kernel::pages),
    ("sharing", sharing::run),
    ("timeline", timeline::run),
    ("demo", demo::run),
    ("untrusted_is_refused", untrusted::run),
    ("differential", differential::run),
    ("forms", forms::run),
    ("four_at_once", four_at_once::run),
    ("server_reached_from_the_host", listening::run),
    ("server_reached_from_both_sides", listening_in_both::run),
    ("policy_check", policy::check),
    ("policy_rules", policy::rules),
    ("identity", identity::run),
    ("identity_sums", identity::sums),
    ("malware_in_the_kernel", malware::run),
    ("programs", programs::run),
    ("rights", rights::run),
    ("programs_table", table::run),
    ("real_ssh", real_ssh::run),
    ("real_git", real_git::run),
    ("real_iperf", real_iperf::run),
    ("real_python", real_python::run),
    ("remote_files", remote_files::run),
    ("real_apache", real_apache::run),
    ("real_nginx", real_nginx::run),
    ("real_redis", real_redis::run),
    ("real_sshd", real_sshd::run),
    ("real_names", real_names::run),
    ("load", load::run),
    ("soak_short", soak::short),
    ("real_static", real_static::run),
    ("regressions", regressions::run),
    ("status_and_streams", status::run),
    ("killed_delegate", killed_delegate::run),
    ("killed_dispatcher", killed_dispatcher::run),
    ("killed_monitor_of_service", killed_monitor::service),
    ("killed_monitor_loops", killed_monitor::looping),
    ("killed_monitor_of_compute", killed_monitor::compute),
    ("killed_service_vm", killed_service_vm::run),
    ("guest_panics", guest_panics::run),
    ("swapped", swapped::run),
    ("swapped_downloads", swapped::downloads),
    ("swapped_restarted", swapped::restarted),
    ("swapped_disk_damaged", damaged::pages),
    ("swapped_disk_damaged_all_over", damaged::everything),
    ("swapped_disk_cut_off", damaged::native),
    ("nothing_is_left", interrupted::run),
];

/// Those that take long; only with `--include-ignored`.
const LONG: &[Scenario] = &[
    ("soak", soak::run),
    ("full_size_swapped", swapped::full),
    ("regressions_long", regressions::long),
];

/// Names of all scenarios.
fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().chain(LONG).map(|(name, _)| *name)
}

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Two processors carry one machine at a time.
    arguments.test_threads.get_or_insert(1);
    let trial = |(name, body): &Scenario| {
        let body = *body;
        Trial::test(*name, move || body().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let trials = SCENARIOS
        .iter()
        .map(trial)
        .chain(LONG.iter().map(|scenario| trial(scenario).with_ignored_flag(true)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
