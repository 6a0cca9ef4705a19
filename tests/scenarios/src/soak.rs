//! Mixed load for a while: downloads, `ssh`, `git`, Python, and nginx and redis under load from this
//! machine, several at a time; no error, no leak, no growth.
use crate::load::as_before;
use crate::real_ssh::OPTIONS;
use crate::rig::Rig;
use crate::served::Served;
use crate::{load, real_git, real_nginx, real_redis, real_ssh};
use anyhow::{Context, Result, ensure};
use hostlink::memory::{Heap, Sample};
use hostlink::relay::Stats;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use trapline::web::Server;

/// How long the short form takes, start and end apart.
const SHORT: Duration = Duration::from_secs(25);
/// Minutes of the long form, unless `$TRAPLINE_SOAK_MINUTES` says otherwise.
const MINUTES: u64 = 60;
/// Trusted processes of the servers: nginx with its workers, and redis.
const SERVERS: u64 = 1 + 4 + 1;
/// Jobs at the same time.
const AT_ONCE: usize = 3;

/// Everything that is running.
struct Soak {
    served: Served,
    redis: u16,
    files: Server,
    head: String,
}

/// The scenario's short form.
pub fn short() -> Result<()> {
    soak(SHORT)
}

/// The scenario.
pub fn run() -> Result<()> {
    let minutes = match std::env::var("TRAPLINE_SOAK_MINUTES") {
        Ok(text) => text.parse().context("TRAPLINE_SOAK_MINUTES is no number of minutes")?,
        Err(_) => MINUTES,
    };
    soak(Duration::from_secs(minutes * 60))
}

fn soak(time: Duration) -> Result<()> {
    let soak = Soak::start()?;
    // The first round fills caches and pools.
    (0..JOBS.len()).try_for_each(|number| soak.job(number, 0))?;
    let (before, memory) = (soak.idle()?, soak.rig().machine.memory()?);
    let jobs = soak.work_until(Instant::now() + time)?;
    let after = as_before(soak.rig(), &before)?;
    soak.kernel_as_before(&memory)?;
    soak.heaps_as_before(&memory)?;
    let calls = after.calls_remote - before.calls_remote;
    println!(
        "{jobs} jobs, {calls} remote calls, heap {} before, {} after",
        before.heap, after.heap
    );
    Ok(())
}

/// A job, with its name; the number of the thread keeps files apart.
type Job = (&'static str, fn(&Soak, usize) -> Result<()>);

const JOBS: &[Job] = &[
    ("curl", Soak::curl),
    ("nginx", Soak::nginx),
    ("ssh", Soak::ssh),
    ("redis", Soak::redis),
    ("git", Soak::git),
    ("python, many connections", Soak::many),
    ("python, threads", Soak::threads),
];

impl Soak {
    fn start() -> Result<Self> {
        let own = ["curl", "ssh", "python3", "/usr/sbin/nginx", "redis-server"];
        let trust = [&own, real_git::TRUST].concat();
        let ports = [real_nginx::PORT, real_redis::PORT];
        let (served, ports) = Served::boot_several(&trust, &ports)?;
        let redis = *ports.last().context("no port")?;
        real_ssh::serve(&served.rig)?;
        load::serve(&served.rig)?;
        let head = real_git::serve(&served.rig)?;
        real_nginx::start(&served)?;
        served.reach(|| served.numbers())?;
        real_redis::start(&served)?;
        served.reach(|| real_redis::benchmark(&served, redis, "ping_mbulk", &["-n", "1"]))?;
        Ok(Self { served, redis, files: Server::start(2 << 20)?, head })
    }

    fn rig(&self) -> &Rig {
        &self.served.rig
    }

    fn job(&self, number: usize, thread: usize) -> Result<()> {
        let Some((name, job)) = JOBS.get(number % JOBS.len()) else { return Ok(()) };
        job(self, thread).with_context(|| format!("job {number}, {name}"))
    }

    /// Works on several jobs at a time; how many were done. The first failure ends it.
    fn work_until(&self, end: Instant) -> Result<usize> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = &|thread: usize| {
            while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                let done = self.job(next.fetch_add(1, Ordering::Relaxed), thread);
                done.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| self.tell_until(end, &next, &failed));
            let start = |number| scope.spawn(move || work(number));
            let threads: Vec<_> = (0..AT_ONCE).map(start).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
            })
        })?;
        Ok(next.load(Ordering::Relaxed))
    }

    /// Says every minute how far it is, so that growth has a curve and not just two points.
    fn tell_until(&self, end: Instant, next: &AtomicUsize, failed: &AtomicBool) {
        let start = Instant::now();
        let mut told = 0;
        while Instant::now() < end && !failed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
            let minute = start.elapsed().as_secs() / 60;
            if minute > told
                && let Ok(stats) = self.rig().machine.stats()
            {
                told = minute;
                let jobs = next.load(Ordering::Relaxed);
                println!("minute {minute}: {jobs} jobs begun, {stats:?}");
            }
        }
    }

    /// The machine when nothing but the servers is left.
    fn idle(&self) -> Result<Stats> {
        self.rig().wait_for_stats("something is left", |s| s.processes == SERVERS)?;
        // Connections end on their own time on the other side.
        std::thread::sleep(Duration::from_secs(1));
        self.rig().machine.stats()
    }

    /// The kernel has no more objects than before. Its memory may grow by nested tables of memory that
    /// the VMs had not touched yet, so it is only told.
    fn kernel_as_before(&self, Sample { kernel: before, .. }: &Sample) -> Result<()> {
        let after = self.rig().machine.memory()?.kernel;
        println!("the kernel before: {before:?}; after: {after:?}");
        ensure!(after.objects <= before.objects, "objects of the kernel are left");
        ensure!(after.faults_late == before.faults_late, "faults were not resolved in time");
        Ok(())
    }

    /// No server's heap holds more than before, but for what waits to be given back.
    fn heaps_as_before(&self, before: &Sample) -> Result<()> {
        ensure!(before.heaps.len() >= 7, "too few servers tell of their heaps: {:?}", before.heaps);
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let after = self.rig().machine.memory()?.heaps;
            let grown = |(old, new): &(&Heap, &Heap)| {
                let more = new.used > old.used + old.used / 20 + (16 << 10);
                // The relay's has been looked at, with its own limit.
                old.program != new.program || more && new.program != "relay"
            };
            let pairs = before.heaps.iter().zip(&after);
            let told: Vec<_> = pairs
                .clone()
                .map(|(old, new)| format!("{} {} {}", new.program, old.used, new.used))
                .collect();
            if after.len() == before.heaps.len() && !pairs.clone().any(|pair| grown(&pair)) {
                println!("heaps before and after: {}", told.join(", "));
                return Ok(());
            }
            ensure!(Instant::now() < end, "a heap has grown: {}", told.join(", "));
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn curl(&self, thread: usize) -> Result<()> {
        let file = format!("/tmp/curl{thread}");
        let get = format!("curl -sS -o {file} {} && sha256sum {file}", self.files.url());
        let sum = self.rig().succeed(&get)?;
        ensure!(sum.starts_with(&self.files.sha256()), "another file arrived");
        Ok(())
    }

    fn nginx(&self, _: usize) -> Result<()> {
        self.served.ab("/small", 48, &["-c", "8"])
    }

    fn redis(&self, _: usize) -> Result<()> {
        let options = ["-c", "8", "-n", "256", "-P", "16"];
        real_redis::benchmark(&self.served, self.redis, "set,get", &options)
    }

    fn ssh(&self, _: usize) -> Result<()> {
        let said = self.rig().succeed(&format!(
            "seq 20000 | ssh {OPTIONS} -p 2222 root@10.0.2.15 'sha1sum; seq 20000' | tail -n 20000 | \
             sha1sum; seq 20000 | sha1sum"
        ))?;
        let (back, own) = said.trim().split_once('\n').context("two sums")?;
        ensure!(back == own, "ssh: {said}");
        Ok(())
    }

    fn git(&self, thread: usize) -> Result<()> {
        let cloned = real_git::clone(self.rig(), &format!("clone{thread}"))?;
        ensure!(cloned == self.head, "there '{}', cloned '{cloned}'", self.head);
        Ok(())
    }

    fn many(&self, _: usize) -> Result<()> {
        let said = self.rig().succeed("python3 /tmp/many.py 24")?;
        ensure!(said == "right: 24\n", "{said}");
        Ok(())
    }

    fn threads(&self, _: usize) -> Result<()> {
        let said = self.rig().succeed("python3 /tmp/threads.py 3")?;
        ensure!(said == "right: 48\n", "{said}");
        Ok(())
    }
}
