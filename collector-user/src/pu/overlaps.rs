//! Flows that the matchers of several units hold for: whose they are, said before it happens.
//!
//! For what this host itself sends and takes the most specific matcher counts, in this order: the interface, the local port,
//! the local address (`cidr`), the cgroup of the socket, its user (`uid`), and last what was found. A port is one service of
//! the host; an address has all of its ports; a cgroup is what somebody has put together on purpose, and may listen anywhere;
//! a user may have processes in any cgroup. Of one kind, the narrower counts, and of equals the first.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use ipnet::IpNet;

use super::{
    registry::{Kind, Registry, Unit},
    user::User,
    workload,
};

/// Sentences of one kind that are said; the rest is counted.
const SAID: usize = 16;

/// Names in one sentence.
const NAMES: usize = 3;

/// Where the matchers of two declared units hold for the same, a sentence each, which says who has it. `id_of` knows users by
/// their names.
pub fn declared(units: &Registry, id_of: impl Fn(&str) -> Option<u32>) -> Vec<String> {
    let declared: Vec<&Unit> = units.iter().filter(|unit| unit.kind == Kind::Declared).collect();
    let mut said = ranges(&declared);
    said.extend(ports(&declared));
    said.extend(cgroups(&declared));
    said.extend(users(&declared, id_of));
    said.extend(kinds(&declared));
    few(said)
}

/// Where a declared unit has what would be found by itself, a sentence each. `cgroups` are the paths of those there are.
pub fn found<'a>(units: &Registry, cgroups: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut parts = BTreeSet::new();
    for path in cgroups {
        let Some((unit, root)) = units.of_cgroup(path) else { continue };
        let Some(found) = workload::of(path).filter(|found| found.id != *unit.id) else { continue };
        if found.root == path && root.len() <= path.len() {
            taken.entry(&unit.id).or_default().push(found.id);
        } else if root == path && found.root.len() < root.len() {
            parts.insert(format!(
                "cgroup {root} of {} lies in {}, which is found: what is made there is {}'s, for what is declared comes first",
                unit.id, found.id, unit.id
            ));
        }
    }
    let taken = taken.into_iter().map(|(unit, found)| {
        format!("{} would be found, and {} declares it: what is declared comes first", names(&found), unit)
    });
    few(taken.chain(parts).collect())
}

/// Where the addresses that a unit was found to have lie in ranges of declared ones, a sentence each.
pub fn addresses(units: &Registry, found: &Unit) -> Vec<String> {
    let said = found.addresses.iter().filter_map(|address| {
        let owner = units.of_address(*address).filter(|owner| owner.index != found.index)?;
        let ranges = owner.ranges.iter().filter(|range| range.contains(address));
        let range = ranges.max_by_key(|range| range.prefix_len())?;
        Some(format!(
            "the address {address} of {} lies in the cidr {range} of {}: what goes by it is {}'s, for what is declared comes first",
            found.id, owner.id, owner.id
        ))
    });
    few(said.collect())
}

/// As many as are worth reading.
fn few(mut said: Vec<String>) -> Vec<String> {
    let more = said.len().saturating_sub(SAID);
    said.truncate(SAID);
    said.extend((more > 0).then(|| format!("and {more} more of the kind")));
    said
}

fn names<T: AsRef<str>>(all: &[T]) -> String {
    let shown: Vec<&str> = all.iter().take(NAMES).map(AsRef::as_ref).collect();
    let more = all.len().saturating_sub(NAMES);
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Each range that lies in another unit's, with the smallest of those.
fn ranges(units: &[&Unit]) -> Vec<String> {
    let all = units.iter().flat_map(|unit| unit.ranges.iter().map(|range| (*range, *unit)));
    let mut all: Vec<_> = all.collect();
    // Whatever holds another comes before it.
    all.sort_by_key(|(range, _)| (range.network(), range.prefix_len()));
    let mut around: Vec<(IpNet, &Unit)> = Vec::new();
    let mut said = Vec::new();
    for (range, unit) in all {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&range)) {
            around.pop();
        }
        if let Some((outer, other)) = around.last().filter(|(_, other)| other.index != unit.index) {
            said.push(format!(
                "cidr {range} of {} lies in {outer} of {}: it is {}'s, for the longer prefix counts",
                unit.id, other.id, unit.id
            ));
        }
        around.push((range, unit));
    }
    said
}

fn ports(units: &[&Unit]) -> Vec<String> {
    let all = units.iter().flat_map(|unit| unit.ports.iter().map(|ports| (*ports, *unit)));
    let all: Vec<_> = all.collect();
    let mut said = Vec::new();
    for (place, (ports, unit)) in all.iter().enumerate() {
        let behind = all.get(place + 1..).unwrap_or_default();
        for (others, other) in behind {
            if unit.index == other.index || !ports.shares(*others) {
                continue;
            }
            let (winner, why) = match others.weight().cmp(&ports.weight()) {
                Ordering::Greater => (other, "for its ports are fewer, or name the protocol"),
                Ordering::Equal => (unit, "for it stands first"),
                Ordering::Less => (unit, "for its ports are fewer, or name the protocol"),
            };
            said.push(format!(
                "port {ports} of {} and {others} of {} share some: these are {}'s, {why}",
                unit.id, other.id, winner.id
            ));
        }
    }
    said
}

/// Cgroups that are named and lie in what another unit declares. Of two patterns nobody can say what both match.
fn cgroups(units: &[&Unit]) -> Vec<String> {
    let mut said = Vec::new();
    for unit in units {
        for path in unit.cgroups.iter().filter_map(|glob| glob.path()) {
            let above = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
            let above: Vec<&str> = above.filter_map(|end| path.get(..end)).collect();
            for other in units.iter().filter(|other| other.index != unit.index) {
                let holds = |glob: &&super::cgroup_glob::CgroupGlob| above.iter().any(|it| glob.matches(it));
                if let Some(glob) = other.cgroups.iter().find(holds) {
                    said.push(format!(
                        "cgroup {path} of {} lies in {glob} of {}: it is {}'s, for the innermost counts, and a path before a \
                         pattern",
                        unit.id, other.id, unit.id
                    ));
                }
            }
        }
    }
    said
}

fn users(units: &[&Unit], id_of: impl Fn(&str) -> Option<u32>) -> Vec<String> {
    let mut first: BTreeMap<u32, (&User, &Unit)> = BTreeMap::new();
    let mut said = Vec::new();
    for unit in units {
        for user in &unit.users {
            let Some(id) = user.id(&id_of) else { continue };
            let (other, owner) = *first.entry(id).or_insert((user, unit));
            if owner.index != unit.index {
                said.push(format!(
                    "uid {user} of {} is {other} of {}: it is {}'s, for that stands first",
                    unit.id, owner.id, owner.id
                ));
            }
        }
    }
    said
}

/// Matchers of two kinds that one flow may match.
fn kinds(units: &[&Unit]) -> Vec<String> {
    type Has = fn(&Unit) -> bool;
    let kinds: [(&str, Has); 4] = [
        ("port", |unit| !unit.ports.is_empty()),
        ("cidr", |unit| !unit.ranges.is_empty()),
        ("cgroup", |unit| !unit.cgroups.is_empty()),
        ("uid", |unit| !unit.users.is_empty()),
    ];
    let mut said = Vec::new();
    for (place, (kind, has)) in kinds.iter().enumerate() {
        for (other, other_has) in kinds.iter().skip(place + 1) {
            let of =
                |has: &Has| units.iter().filter(|unit| has(unit)).map(|unit| &*unit.id).collect::<Vec<_>>();
            let (winners, losers) = (of(has), of(other_has));
            let is_one = winners.len() == 1 && winners == losers;
            if !winners.is_empty() && !losers.is_empty() && !is_one {
                said.push(format!(
                    "what this host sends or takes by the {kind} of {} and matches the {other} of {}, too, is the former's: a \
                     {kind} counts before a {other}",
                    names(&winners),
                    names(&losers)
                ));
            }
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::{addresses, declared, found};
    use crate::pu::registry::{Declared, Found, Kind, Registry};

    fn unit(id: &str) -> Declared {
        Declared { id: id.into(), ..Declared::default() }
    }

    fn said(units: &[Declared]) -> Vec<String> {
        declared(&Registry::new(units).unwrap(), |name| (name == "www-data").then_some(33))
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(all: &[&str]) -> Vec<T> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_range_in_another_is_named_with_the_smallest_that_holds_it() {
        let of = |id, ranges: &[&str]| Declared { ranges: parsed(ranges), ..unit(id) };
        let said = said(&[
            of("all", &["10.0.0.0/8", "fd00::/16"]),
            of("part", &["10.1.0.0/16", "10.1.5.0/24"]),
            of("one", &["10.1.2.3/32", "fd00:1::/32"]),
            of("aside", &["10.0.0.0/9", "192.0.2.0/24"]),
        ]);
        let want = [
            "cidr 10.0.0.0/9 of aside lies in 10.0.0.0/8 of all: it is aside's, for the longer prefix counts",
            "cidr 10.1.0.0/16 of part lies in 10.0.0.0/9 of aside: it is part's, for the longer prefix counts",
            "cidr 10.1.2.3/32 of one lies in 10.1.0.0/16 of part: it is one's, for the longer prefix counts",
            "cidr fd00:1::/32 of one lies in fd00::/16 of all: it is one's, for the longer prefix counts",
        ];
        assert_eq!(said, want);
    }

    #[test]
    fn who_has_a_port_that_two_share_is_named() {
        let of = |id, ports: &[&str]| Declared { ports: parsed(ports), ..unit(id) };
        let said = said(&[of("low", &["1-1023", "9"]), of("web", &["tcp/443"]), of("same", &["1000-2022"])]);
        let want = [
            "port 1-1023 of low and tcp/443 of web share some: these are web's, for its ports are fewer, or name the protocol",
            "port 1-1023 of low and 1000-2022 of same share some: these are low's, for it stands first",
        ];
        assert_eq!(said, want);
    }

    #[test]
    fn cgroups_in_cgroups_and_users_by_two_names() {
        let slice = Declared { cgroups: parsed(&["/system.slice", "/a/*.service"]), ..unit("slice") };
        let web = Declared {
            cgroups: parsed(&["/system.slice/nginx.service", "/a/b.service", "/c"]),
            ..unit("web")
        };
        let of = |id, users: &[&str]| Declared { users: parsed(users), ..unit(id) };
        let said = said(&[slice, web, of("apache", &["www-data", "nobody"]), of("php", &["33", "1000"])]);
        let want = [
            "cgroup /system.slice/nginx.service of web lies in /system.slice of slice: it is web's, for the innermost counts, and \
             a path before a pattern",
            "cgroup /a/b.service of web lies in /a/*.service of slice: it is web's, for the innermost counts, and a path before a \
             pattern",
            "uid 33 of php is www-data of apache: it is apache's, for that stands first",
            "what this host sends or takes by the cgroup of slice, web and matches the uid of apache, php, too, is the former's: \
             a cgroup counts before a uid",
        ];
        assert_eq!(said, want);
    }

    #[test]
    fn nothing_is_said_of_who_is_alone_and_not_more_than_is_read() {
        let all = Declared {
            ranges: parsed(&["10.0.0.0/8", "10.1.0.0/16"]),
            ports: parsed(&["1-100", "5"]),
            users: parsed(&["33", "www-data"]),
            cgroups: parsed(&["/a", "/a/b"]),
            ..unit("all")
        };
        assert_eq!(said(&[all]), [""; 0]);
        let many: Vec<_> = (0..20_u16)
            .map(|number| Declared {
                ports: parsed(&[&format!("1-{}", 100 + number)]),
                ..unit(&number.to_string())
            })
            .collect();
        let said = said(&many);
        assert_eq!((said.len(), said.last().map(String::as_str)), (17, Some("and 174 more of the kind")));
    }

    #[test]
    fn an_address_of_a_container_in_a_declared_range_is_named() {
        let of = |id, ranges: &[&str]| Declared { ranges: parsed(ranges), ..unit(id) };
        let mut units =
            Registry::new(&[of("all", &["172.17.0.0/16"]), of("web", &["172.17.0.0/24"])]).unwrap();
        let found = Found { id: "0123456789ab".into(), kind: Kind::Container, tags: vec![] };
        let index = units.add(&found, 1).unwrap();
        assert!(units.set_addresses(index, parsed(&["172.17.0.2", "fe80::1", "172.18.0.2"])));
        let want = [
            "the address 172.17.0.2 of 0123456789ab lies in the cidr 172.17.0.0/24 of web: what goes by it is web's, for what is \
             declared comes first",
        ];
        assert_eq!(addresses(&units, units.get(index).unwrap()), want);
    }

    #[test]
    fn what_would_be_found_and_is_declared_is_named() {
        let slice = Declared { cgroups: parsed(&["/system.slice"]), ..unit("slice") };
        let part = Declared { cgroups: parsed(&["/other.slice/db.service/worker"]), ..unit("worker") };
        let units = Registry::new(&[slice, part]).unwrap();
        let paths = [
            "/system.slice",
            "/system.slice/a.service",
            "/system.slice/a.service/inner",
            "/system.slice/b.service",
            "/system.slice/c.service",
            "/system.slice/d.service",
            "/other.slice/db.service",
            "/other.slice/db.service/worker",
        ];
        let want = [
            "a.service, b.service, c.service and 1 more would be found, and slice declares it: what is declared comes first",
            "cgroup /other.slice/db.service/worker of worker lies in db.service, which is found: what is made there is \
             worker's, for what is declared comes first",
        ];
        assert_eq!(found(&units, paths), want);
    }
}
