//! nginx, trusted in the compute VM: a master, four workers that inherit its listener, `sendfile`
//! and `epoll`; under `ab` on this machine.
use crate::served::Served;
use anyhow::{Result, ensure};

const SETTINGS: &str = "
daemon off;
user www-data;
worker_processes 4;
pid /tmp/nginx/pid;
error_log /tmp/nginx/error warn;
events { worker_connections 256; use epoll; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 20;
    server { listen 8090; root /tmp/www; }
}
";

/// Its port.
pub const PORT: u16 = 8090;

/// Starts it; its process number.
pub fn start(served: &Served) -> Result<u32> {
    served.web_folder()?;
    served.rig.succeed(&format!(
        "mkdir -p /tmp/nginx /var/lib/nginx /var/log/nginx && \
         cat > /tmp/nginx/conf <<'END'\n{SETTINGS}END"
    ))?;
    served.start("nginx -c /tmp/nginx/conf")
}

/// The scenario.
pub fn run() -> Result<()> {
    let served = Served::boot(&["/usr/sbin/nginx"], PORT)?;
    let pid = start(&served)?;
    served.reach(|| served.numbers())?;
    served.ab("/small", 160, &[])?;
    served.ab("/small", 200, &["-k"])?;
    served.ab("/numbers", 40, &["-k"])?;
    // New workers take the listener over; the old ones end when they have nothing left to do.
    let workers = "ps -o pid= --ppid $(cat /tmp/nginx/pid) | sort";
    let before = served.rig.succeed(workers)?;
    served.rig.succeed(&format!("kill -HUP {pid}"))?;
    served.ab("/small", 96, &[])?;
    let after = served.rig.succeed(workers)?;
    ensure!(before != after, "the same workers after a reload: {after}");
    served.numbers()?;
    served.stop(pid)
}
