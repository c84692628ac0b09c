//! How far the verifier has to look.

use anyhow::Context as _;
use collector_tests::{
    Result, release,
    testrun::{Datapath, Hook},
};
use collector_user::kernel::settings::Settings;

/// The first version that tells (`verified_insns`).
const TELLS: (u32, u32) = (5, 16);

/// `cargo xtask vm` compares the numbers with those of `data/verified.txt`.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
#[expect(clippy::print_stdout, reason = "the numbers are for who runs the test")]
fn the_verifier_says_how_many_instructions_it_looked_at() -> Result<()> {
    if release::lacks("for the test, instruction counts of the verifier", TELLS) {
        return Ok(());
    }
    // With all that the daemon may ask for.
    let settings = Settings { cgroups: true, ..Settings::default() };
    let mut datapath = Datapath::load_without_lease(&settings)?;
    for hook in Hook::BOTH {
        let info = datapath.programs.classifier(hook.program())?.info()?;
        let count = info.verified_instruction_count().context("the kernel does not tell")?;
        println!("VERIFIED {} {count}", hook.program());
    }
    Ok(())
}
