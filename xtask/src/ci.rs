//! `cargo xtask ci`: everything that must hold before a change lands, cheapest first.

use crate::{
    corpus::Corpus,
    error::Error,
    lint, object, say,
    setup::{self, Way},
    test, vm,
    workspace::Workspace,
};

/// Lint, the object by every compiler that can be had, all tests, then some of them in guests; the first failure ends it.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    say::step("ci", || {
        lint::run(workspace)?;
        let toolchain = say::step("setup", || setup::ensure(workspace))?;
        let name = format!("object by the {} compiler", toolchain.way);
        say::step(&name, || object::build(workspace, &toolchain))?;
        second_compiler(workspace, toolchain.way)?;
        test::all(workspace, &[])?;
        corpus(workspace)?;
        vm::ci(workspace)
    })
}

/// Reads the captures of others, where they are beside the project.
fn corpus(workspace: &Workspace) -> Result<(), Error> {
    let folder = workspace.root().join("../shared/frames");
    if !folder.is_dir() {
        say::line("== corpus: NOT RUN, there are no captures of others beside the project");
        return Ok(());
    }
    say::step("corpus", || Corpus::of(folder).run(workspace))
}

/// Builds the object with the other compiler too, where this machine can have it: whoever builds with that
/// one must not be the first to find out.
fn second_compiler(workspace: &Workspace, first: Way) -> Result<(), Error> {
    let second = match first {
        Way::Rustup => Way::Debian,
        Way::Debian => Way::Rustup,
    };
    match setup::with(workspace, second) {
        Ok(toolchain) => say::step(&format!("object by the {second} compiler"), || {
            object::compile(workspace, &toolchain).map(drop)
        }),
        Err(error) => {
            say::line(&format!(
                "== object by the {second} compiler: NOT RUN, it cannot be had here: {error}"
            ));
            Ok(())
        }
    }
}
