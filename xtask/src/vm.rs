//! `cargo xtask vm`: the kernel tests on Debian's kernels, each in a guest of its own.
//!
//! [`kernel`] fetches, [`payload`] builds what runs in the guest, [`initramfs`] packs it with the
//! [`modules`] it uses into an [`archive`], [`boot`] runs it and [`guest`] reads what it said: a [`table`] for people, and
//! instruction counts for the next run ([`verified`]).

use std::cell::OnceCell;

use clap::Args;

use crate::{
    build,
    error::Error,
    say,
    tools::{self, Tool},
    workspace::Workspace,
};

mod archive;
mod boot;
mod guest;
mod initramfs;
mod kernel;
mod modules;
mod payload;
mod table;
mod verified;

use self::{
    boot::Accelerator,
    guest::Guest,
    kernel::{Choice, Kernel},
    payload::Payload,
    table::Row,
};

/// What this side uses.
const HOST: [Tool; 3] = [(boot::QEMU, "qemu-system-x86"), ("depmod", "kmod"), ("xz", "xz-utils")];

/// Runs some tests on two kernels, where this machine can have those; that it cannot is said, and no fault of a change.
pub(crate) fn ci(workspace: &Workspace) -> Result<(), Error> {
    let vm = Vm::of_ci();
    match vm.ready(workspace) {
        Ok(()) => say::step("guests", || vm.run(workspace)),
        Err(error) => {
            say::line(&format!("== guests: NOT RUN, they cannot be had here: {error}"));
            Ok(())
        }
    }
}

/// Arguments of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Vm {
    /// Which kernel: 5.10, 6.1, 6.12, 6.12-rt, 7, or all
    #[arg(long, default_value = "all")]
    kernel: Choice,
    /// Write the verifier's instruction counts to the file that later runs are compared with
    #[arg(long)]
    record: bool,
    /// Seconds that a guest may take
    #[arg(long, default_value_t = 3600)]
    limit: u32,
    /// Arguments of the test programs: a filter, `--skip`, ...
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

impl Vm {
    /// What a change has to pass in guests: the oldest kernel and the newest, the programs on single frames, that of drops and
    /// that at XDP at all, the devices that no host has, the self-test.
    fn of_ci() -> Self {
        let args = [
            "programs::",
            "drops::what_nobody_listens_for",
            "xdp::a_declared_range",
            "found::a_container_is_found",
            "services::what_a_services",
            "policy::rules_are",
            "users::a_connection",
            "stacked::",
            "offloaded::",
            "tunnels::",
            "verified::",
        ];
        let args = args.map(str::to_owned).to_vec();
        Self { kernel: Choice(vec![Kernel::V5_10, Kernel::V7]), record: false, limit: 1200, args }
    }

    /// Fetches what guests need.
    fn ready(&self, workspace: &Workspace) -> Result<(), Error> {
        tools::ensure("guests", &[&HOST[..], &initramfs::PROGRAMS, &[initramfs::BUSYBOX]].concat())?;
        self.kernel.0.iter().try_for_each(|kernel| kernel::ensure(workspace, *kernel).map(drop))
    }

    /// Runs every guest, whatever became of the one before; fails unless all is well in each.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        tools::ensure("guests", &[&HOST[..], &initramfs::PROGRAMS, &[initramfs::BUSYBOX]].concat())?;
        build::object(workspace)?;
        let payload = say::step("programs for guests", || payload::build(workspace))?;
        let accelerator = OnceCell::new();
        let rows: Vec<_> = self
            .kernel
            .0
            .iter()
            .map(|kernel| {
                let outcome = say::step(&format!("guest with Linux {kernel}"), || {
                    self.guest(workspace, &payload, &accelerator, *kernel)
                });
                Row { kernel: *kernel, outcome }
            })
            .collect();
        say::line(&table::of(&rows));
        let failed: Vec<_> =
            rows.iter().filter(|row| !row.is_well()).map(|row| row.kernel.to_string()).collect();
        let verified = verified::check(workspace, &rows, self.record);
        if failed.is_empty() {
            return verified;
        }
        if let Err(error) = verified {
            say::error(&error);
        }
        Err(Error::Guests { kernels: failed })
    }

    fn guest(
        &self,
        workspace: &Workspace,
        payload: &Payload,
        accelerator: &OnceCell<Accelerator>,
        kernel: Kernel,
    ) -> Result<Guest, Error> {
        let unpacked = kernel::ensure(workspace, kernel)?;
        let initramfs = initramfs::pack(&unpacked, payload, &self.args)?;
        // What is true of one guest is true of all.
        let accelerator = accelerator.get_or_init(|| Accelerator::find(&unpacked, &initramfs));
        boot::run(&unpacked, &initramfs, *accelerator, self.limit)
    }
}
