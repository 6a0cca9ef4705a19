//! Apache with its event MPM, trusted in the compute VM, under `ab` on this machine.
use crate::served::Served;
use anyhow::Result;

const SETTINGS: &str = "
ServerName trapline
ServerRoot /usr/lib/apache2
DefaultRuntimeDir /tmp/apache
PidFile /tmp/apache/pid
ErrorLog /tmp/apache/error
Listen 8080
User www-data
Group www-data
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
StartServers 2
ThreadsPerChild 25
MaxKeepAliveRequests 20
DocumentRoot /tmp/www
<Directory /tmp/www>
    Require all granted
</Directory>
";

/// The scenario.
pub fn run() -> Result<()> {
    let served = Served::boot(&["/usr/sbin/apache2"], 8080)?;
    served.web_folder()?;
    let write = format!("mkdir /tmp/apache && cat > /tmp/apache/conf <<'END'\n{SETTINGS}END");
    served.rig.succeed(&write)?;
    let pid = served.start("apache2 -f /tmp/apache/conf -D FOREGROUND")?;
    served.reach(|| served.numbers())?;
    served.ab("/small", 160, &[])?;
    served.ab("/small", 200, &["-k"])?;
    served.ab("/numbers", 40, &["-k"])?;
    served.numbers()?;
    served.stop(pid)
}
