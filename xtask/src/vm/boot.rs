//! QEMU, for as long as a guest may take.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use super::{guest::Guest, kernel::Unpacked};
use crate::{
    error::{Error, Tail},
    process,
};

pub(super) const QEMU: &str = "qemu-system-x86_64";

/// What executes the guest's instructions.
#[derive(Clone, Copy)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU.
    Tcg,
}

impl Accelerator {
    /// The processor only where it has been seen to: in some machines `/dev/kvm` opens and guests hang.
    pub(super) fn find(unpacked: &Unpacked, initramfs: &Path) -> Self {
        const SECONDS: u32 = 10;
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Self::Tcg;
        }
        let mut probe = qemu(unpacked, initramfs, Self::Kvm, SECONDS, "probe=1");
        let said = process::bytes(&mut probe).unwrap_or_default();
        if Guest::of(&String::from_utf8_lossy(&said)).release.is_empty() { Self::Tcg } else { Self::Kvm }
    }
}

/// Runs a guest to its end, and shows what it says as it comes. QEMU's exit code proves nothing, since a kernel that
/// panics powers off as well: what counts is that the guest has said that it is done.
pub(super) fn run(
    unpacked: &Unpacked,
    initramfs: &Path,
    accelerator: Accelerator,
    seconds: u32,
) -> Result<Guest, Error> {
    let (status, said) = process::relay(&mut qemu(unpacked, initramfs, accelerator, seconds, ""))?;
    let guest = Guest::of(&said);
    let tail = || {
        let console = fs::read(console(unpacked)).unwrap_or_default();
        Tail::of(&String::from_utf8_lossy(&console))
    };
    match status.code() {
        _ if guest.is_done => Ok(guest),
        Some(TIMED_OUT) => Err(Error::GuestLate { seconds, tail: tail() }),
        _ => Err(Error::GuestDied { status, tail: tail() }),
    }
}

/// `timeout`'s exit code where it had to end the program.
const TIMED_OUT: i32 = 124;

fn qemu(
    unpacked: &Unpacked,
    initramfs: &Path,
    accelerator: Accelerator,
    seconds: u32,
    more: &str,
) -> Command {
    let accelerator = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg,thread=multi",
    };
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &seconds.to_string(), QEMU, "-accel", accelerator]);
    command.args("-cpu max -smp 2 -m 2048 -M q35 -nodefaults -display none -no-reboot".split(' '));
    // Two network cards on each of two cables.
    for (cable, end) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        let name = format!("cable{cable}end{end}");
        command.arg("-netdev").arg(format!("hubport,id={name},hubid={cable}"));
        command
            .arg("-device")
            .arg(format!("virtio-net-pci,netdev={name},mac=02:77:00:00:0{cable}:0{end},romfile="));
    }
    // The first serial line is the kernel's, the second the tests'.
    command.arg("-serial").arg(format!("file:{}", console(unpacked).display())).args(["-serial", "stdio"]);
    command.arg("-kernel").arg(&unpacked.image).arg("-initrd").arg(initramfs);
    // A guest that goes on after an oops might pass. Without `tsc=reliable` old kernels take a slow clock when emulated.
    command
        .arg("-append")
        .arg(format!("console=ttyS0 rdinit=/init quiet panic=-1 oops=panic tsc=reliable {more}"));
    command.stdin(std::process::Stdio::null());
    command
}

fn console(unpacked: &Unpacked) -> PathBuf {
    unpacked.folder.join("console.log")
}
