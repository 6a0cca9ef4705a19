//! What happens elsewhere: records of both virtual-socket models, the service VM's hypercalls, time.
use super::Engine;
use linux_abi::Errno;
use wire::vsock::Record;

impl Engine {
    /// A record from the compute VM's virtual-socket model.
    pub fn compute_record(&mut self, record: &Record) {
        self.last = None;
        let core = &self.core;
        match *record {
            Record::Connected { connection, port, guest_port } => {
                if !core.wakes.connected(&*core.world, port, guest_port, connection) {
                    core.world.to_compute(&Record::Close { connection });
                }
            }
            Record::Closed { connection } => {
                if let Some(wake) = core.wakes.closed(connection) {
                    core.lifeline_closed(wake.table);
                }
            }
            Record::Ended => {
                core.wakes.ended();
                core.bury_all();
            }
            Record::Data { .. } | Record::Send { .. } | Record::Close { .. } => {}
        }
    }

    /// A record from the service VM's virtual-socket model.
    pub fn service_record(&mut self, record: &Record) {
        self.last = None;
        let core = &self.core;
        match *record {
            Record::Connected { connection, port, guest_port } => {
                if !core.delegates.connected(&*core.world, port, guest_port, connection) {
                    core.world.to_service(&Record::Close { connection });
                }
            }
            Record::Closed { connection } => {
                core.delegates.closed(&*core.world, &core.wakes, connection);
            }
            Record::Ended => core.delegates.ended(&*core.world, &core.wakes),
            Record::Data { .. } | Record::Send { .. } | Record::Close { .. } => {}
        }
    }

    /// Hypercall `REGISTER` of the service VM.
    ///
    /// # Errors
    /// What the hypercall answers.
    pub fn register(&mut self, cr3: u64, address: u64) -> Result<(), Errno> {
        self.last = None;
        self.core.delegates.register(&*self.core.world, &self.core.wakes, cr3, address)
    }

    /// Hypercall `DOORBELL` of the service VM.
    pub fn doorbell(&mut self) {
        self.last = None;
        self.core.pump();
    }

    /// Gives up on what is overdue. Answers when to call again at the latest.
    pub fn tick(&mut self) -> Option<u64> {
        let next = self.core.tick();
        if !(core::mem::replace(&mut self.idle, next.is_none()) && next.is_none()) {
            self.last = None;
        }
        next
    }
}
