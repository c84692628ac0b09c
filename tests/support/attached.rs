//! The programs on interfaces of a lab, without the daemon: what they make of real sockets.

use collector_ebpf::abi::{
    flow::how,
    pu::{Role, index, role},
};
use collector_user::{
    drain::flow::FlowDelta,
    kernel::{
        attach::{Attachments, Choice},
        filters::Place,
        settings::Settings,
    },
};

use crate::{
    Result,
    lab::End,
    testrun::{Datapath, INTERFACE},
};

/// The programs at an interface, and a list of free indexes.
pub struct Attached {
    /// The programs.
    pub datapath: Datapath,
    /// The index that the next entry of the list will have.
    next: u16,
    /// The first index that nobody shall have.
    end: u16,
}

/// The first index of the list.
pub const FIRST_FREE: u16 = 110;

/// What flows of a unit counted, with how that was found: packets received and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

impl Attached {
    /// At the host's end of a wire, which is an uplink, with sockets' groups asked for.
    pub fn at_uplink(host: &End, settings: &Settings) -> Result<Self> {
        let role = Role {
            ifindex: host.ifindex,
            pu: index::HOST,
            interface: INTERFACE,
            flags: role::UPLINK,
            ..Role::default()
        };
        let mut attached = Self::at(host, role, settings)?;
        for version in [4, 6] {
            attached.datapath.controller.add_local(host.address(version), index::HOST)?;
        }
        Ok(attached)
    }

    /// At an interface with this role.
    pub fn at(end: &End, role: Role, settings: &Settings) -> Result<Self> {
        let settings = Settings { cgroups: true, ..settings.clone() };
        let mut datapath = Datapath::load(&settings)?;
        datapath.controller.set_role(role)?;
        let mut attached = Self { datapath, next: FIRST_FREE, end: 256 };
        attached.refill()?;
        let _there = end.place.enter()?;
        let place = Place { preference: 1, behind_others: false, qdisc_is_ours: false, has_ingress: false };
        let programs = &mut attached.datapath.programs;
        // The links go with the programs.
        Attachments::default().attach(programs, end.ifindex, &end.dev, Choice::Auto, place)?;
        attached.datapath.renew()?;
        Ok(attached)
    }

    /// The groups that the programs have given an index since the last call, and these; the list is full again, as long as
    /// there are indexes.
    pub fn refill(&mut self) -> Result<Vec<(u64, u16)>> {
        let (next, end) = (&mut self.next, self.end);
        self.datapath.refill(|| {
            let index = *next;
            (index < end).then(|| {
                *next += 1;
                index
            })
        })
    }

    /// From now on the list is not filled.
    pub fn spare(&mut self) {
        self.end = 0;
    }

    /// Ends the epoch: what was counted in it, by unit and method.
    pub fn sums(&mut self) -> Result<std::collections::BTreeMap<(u16, u8), Sum>> {
        let mut sums = std::collections::BTreeMap::<_, Sum>::new();
        for FlowDelta { pu, how, packets: [received, sent], .. } in self.datapath.deltas()? {
            let sum = sums.entry((pu, how::attributed_by(how))).or_default();
            sum.received += received;
            sum.sent += sent;
        }
        self.datapath.renew()?;
        Ok(sums)
    }
}
