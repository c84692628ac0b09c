//! How far the verifier has to look.

use anyhow::{Context as _, ensure};
use collector_tests::{Result, filters, release, testrun::Datapath};
use collector_user::kernel::settings::{Ends, Settings};

/// The first version that tells (`verified_insns`).
const TELLS: (u32, u32) = (5, 16);
/// Both at TC, that at XDP, and that at the drops' tracepoint.
const PROGRAMS: usize = 4;

/// `cargo xtask vm` compares the numbers with those of `data/verified.txt`.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
#[expect(clippy::print_stdout, reason = "the numbers are for who runs the test")]
fn the_verifier_says_how_many_instructions_it_looked_at() -> Result<()> {
    // With all that the daemon may ask for: what it does not ask for, the verifier does not look at.
    let settings = Settings {
        cgroups: true,
        ends: Ends { users: true, declared_users: true, declared_ports: true },
        xdp: true,
        filter: Some(filters::of("tcp port 443")?),
        ..Settings::default()
    };
    let mut datapath = Datapath::load_without_lease(&settings)?;
    // Every kernel has to take them so.
    let verified = datapath.programs.verified();
    ensure!(verified.len() == PROGRAMS, "not every program is loaded: {verified:?}");
    if release::lacks("for the numbers, instruction counts of the verifier", TELLS) {
        return Ok(());
    }
    for (program, count) in verified {
        let count = count.with_context(|| format!("no number of {program}"))?;
        println!("VERIFIED {program} {count}");
    }
    Ok(())
}
