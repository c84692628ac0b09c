//! The order of the collector's modules: each may use only what lies before it.

/// Modules in one group may use one another; every group may use the groups before it.
const ORDER: [&[&str]; 14] = [
    &["event", "error", "clock", "ledger"],
    &["collector"],
    &["host"],
    &["kernel"],
    &["drain"],
    &["pu"],
    &["policy"],
    &["aggregate"],
    &["sink"],
    &["config"],
    &["read"],
    &["daemon"],
    &["selftest"],
    &["cli"],
];

/// Whether `module` may stand at the crate root.
pub(super) fn is_known(module: &str) -> bool {
    rank(module).is_some()
}

/// Whether `module` may use `used`; modules that are not in the order decide nothing.
pub(super) fn may_use(module: &str, used: &str) -> bool {
    module == used || rank(module).zip(rank(used)).is_none_or(|(own, other)| other <= own)
}

/// What `module` may use, for people.
pub(super) fn before(module: &str) -> String {
    let groups = ORDER.iter().take(rank(module).unwrap_or_default() + 1);
    let names: Vec<_> =
        groups.flat_map(|group| group.iter().copied()).filter(|name| *name != module).collect();
    names.join(", ")
}

/// All modules in their order, for people.
pub(super) fn all() -> String {
    ORDER.map(|group| group.join(", ")).join(" < ")
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|group| group.contains(&module))
}

#[cfg(test)]
mod tests {
    use super::{all, before, is_known, may_use};

    #[test]
    fn the_order_runs_one_way() {
        assert!(may_use("cli", "event") && may_use("drain", "kernel") && may_use("host", "collector"));
        assert!(!may_use("event", "collector") && !may_use("kernel", "drain") && !may_use("sink", "daemon"));
    }

    #[test]
    fn the_first_group_is_one_level() {
        assert!(may_use("event", "ledger") && may_use("ledger", "event") && may_use("clock", "error"));
    }

    #[test]
    fn the_order_reads_as_it_is_written_down() {
        assert!(is_known("aggregate") && !is_known("util"));
        assert_eq!(before("host"), "event, error, clock, ledger, collector");
        assert!(all().starts_with("event, error, clock, ledger < collector < host"));
    }
}
