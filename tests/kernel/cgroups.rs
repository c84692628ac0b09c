//! Cgroups that come, are peopled and go: each is told once and in order, whatever the notices are worth when they are read.
//!
//! [`Follower`] fails at whatever is told twice, of none, or in another order.

use std::{fs, thread};

use collector_tests::{
    Result,
    cgroups::{Ground, Guest},
    follower::{Follower, Hidden, hide_proc, hiding},
};
use collector_user::host::cgroups::{
    CgroupError,
    hierarchy::{Hierarchy, Place},
};

/// How many the storms are of.
const STORM: usize = 1000;

#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn one_is_made_peopled_left_and_removed() -> Result<()> {
    let ground = Ground::new()?;
    let mut follower = Follower::new()?;
    let (path, directory) = (ground.told("web"), ground.make("web")?);
    follower.until(|told| !told.at(&path).is_empty())?;
    let is = |told: &Follower, wanted: &[bool]| told.at(&path).iter().any(|story| story.populated == wanted);
    assert!(is(&follower, &[false]));
    let id = *follower.stories.iter().find(|(_, story)| story.path == path).map(|(id, _)| id).unwrap();
    assert_eq!(id, std::os::unix::fs::MetadataExt::ino(&fs::metadata(&directory)?));

    let guest = Guest::enter(&directory)?;
    follower.until(|told| is(told, &[false, true]))?;
    assert_eq!(follower.tree.processes(id, 10), [guest.id()]);
    assert!(follower.tree.processes(id, 0).is_empty());
    let found = follower.tree.get(id).unwrap();
    assert_eq!((found.path.as_str(), found.populated), (path.as_str(), true));
    drop(guest);
    follower.until(|told| is(told, &[false, true, false]))?;
    ground.remove("web")?;
    follower.until(|told| told.at(&path).iter().all(|story| story.gone))?;
    assert!(follower.at(&path).len() == 1 && follower.tree.get(id).is_none());
    assert!(follower.tree.processes(id, 10).is_empty());
    Ok(())
}

#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn what_is_there_already_is_listed() -> Result<()> {
    let ground = Ground::new()?;
    let guest = Guest::enter(&ground.make("a/b/c")?)?;
    let follower = Follower::new()?;
    for (path, populated) in [("a", true), ("a/b", true), ("a/b/c", true)] {
        let found = follower.at(&ground.told(path));
        assert!(found.len() == 1 && found[0].populated == [populated], "{path}: {found:?}");
    }
    let root = follower.tree.hierarchy();
    assert!(root.is_whole() && follower.stories.contains_key(&1), "{}", root.place());
    assert!(follower.tree.missing().is_empty(), "{:?}", follower.tree.missing());
    // Of one above it, too.
    let above = follower.stories.iter().find(|(_, story)| story.path == ground.told("a")).unwrap();
    assert_eq!(follower.tree.processes(*above.0, 1), [guest.id()]);
    Ok(())
}

/// Threads, of which `cgroup.procs` tells nothing.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn threaded_cgroups_have_processes_too() -> Result<()> {
    let ground = Ground::new()?;
    let guest = Guest::enter(ground.directory())?;
    let directory = ground.make("threads")?;
    fs::write(directory.join("cgroup.type"), "threaded")?;
    fs::write(directory.join("cgroup.threads"), guest.id().to_string())?;
    let follower = Follower::new()?;
    let path = ground.told("threads");
    let (id, _) = follower.stories.iter().find(|(_, story)| story.path == path).unwrap();
    assert_eq!(follower.tree.processes(*id, 10), [guest.id()]);
    Ok(())
}

/// Names are octets, and may be of any kind.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn names_that_are_no_text_are_followed() -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let ground = Ground::new()?;
    let mut follower = Follower::new()?;
    let name = std::ffi::OsStr::from_bytes(b"w\xFF \x1B");
    let directory = ground.directory().join(name);
    fs::create_dir(&directory)?;
    let path = ground.told("w\u{FFFD} \u{1B}");
    follower.until(|told| !told.at(&path).is_empty())?;
    let _guest = Guest::enter(&directory)?;
    follower.until(|told| told.at(&path)[0].populated == [false, true])
}

#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn a_storm_is_told_once_each() -> Result<()> {
    let ground = Ground::new()?;
    let mut follower = Follower::new()?;
    let missed = follower.tree.losses().missed;
    let all = ground.told("c");
    thread::scope(|scope| -> Result<()> {
        let made =
            scope.spawn(|| (0..STORM).try_for_each(|number| ground.make(&format!("c{number}")).map(|_| ())));
        follower.until(|told| told.below(&all) == (STORM, 0))?;
        made.join().unwrap()?;
        let removed = scope.spawn(|| (0..STORM).try_for_each(|number| ground.remove(&format!("c{number}"))));
        follower.until(|told| told.below(&all) == (STORM, STORM))?;
        removed.join().unwrap()
    })?;
    assert_eq!(follower.tree.losses().missed, missed);
    Ok(())
}

/// Removed as soon as they are made, each by the name of the one before: what was not told is counted.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn those_that_go_at_once_are_told_or_counted() -> Result<()> {
    let ground = Ground::new()?;
    let mut follower = Follower::new()?;
    let missed = follower.tree.losses().missed;
    let (all, end) = (ground.told("c"), ground.told("end"));
    thread::scope(|scope| -> Result<()> {
        let churn = scope.spawn(|| {
            (0..STORM).try_for_each(|number| {
                let name = format!("c{}", number % 3);
                ground.make(&name).and_then(|_| ground.remove(&name))
            })?;
            ground.make("end")
        });
        follower.until(|told| !told.at(&end).is_empty())?;
        churn.join().unwrap().map(|_| ())
    })?;
    let (told, gone) = follower.below(&all);
    let losses = follower.tree.losses();
    assert_eq!((told, told + (losses.missed - missed) as usize), (gone, STORM), "{losses:?}");
    Ok(())
}

/// Chains of directories whose watches come too late for what is made in them.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn what_is_made_before_the_watch_is_not_missed() -> Result<()> {
    const CHAINS: usize = 200;
    let ground = Ground::new()?;
    let mut follower = Follower::new()?;
    let all = ground.told("c");
    thread::scope(|scope| -> Result<()> {
        let chain = |number| ground.make(&format!("c{number}/a/b/c/d"));
        let made = scope.spawn(move || (0..CHAINS).try_for_each(|number| chain(number).map(|_| ())));
        follower.until(|told| told.below(&all) == (5 * CHAINS, 0))?;
        made.join().unwrap()
    })?;
    // With what is in them, from the innermost on.
    for number in 0..CHAINS {
        for below in ["/a/b/c/d", "/a/b/c", "/a/b", "/a", ""] {
            ground.remove(&format!("c{number}{below}"))?;
        }
    }
    follower.until(|told| told.below(&all) == (5 * CHAINS, 5 * CHAINS))
}

#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn a_look_at_everything_tells_what_was_not_read() -> Result<()> {
    let ground = Ground::new()?;
    for name in ["stays", "goes", "again", "goes/a"] {
        ground.make(name)?;
    }
    let mut follower = Follower::new()?;
    let missed = follower.tree.losses().missed;
    let told = |follower: &Follower, name: &str| {
        let stories = follower.at(&ground.told(name));
        stories.into_iter().map(|story| (story.populated.clone(), story.gone)).collect::<Vec<_>>()
    };
    ground.remove("goes/a")?;
    ground.remove("goes")?;
    ground.remove("again")?;
    let _guests = [Guest::enter(&ground.make("again")?)?, Guest::enter(&ground.make("stays")?)?];
    ground.make("new/below")?;
    follower.rescan()?;
    for (name, wanted) in [
        ("stays", vec![(vec![false, true], false)]),
        ("goes", vec![(vec![false], true)]),
        ("goes/a", vec![(vec![false], true)]),
        ("again", vec![(vec![false], true), (vec![true], false)]),
        ("new", vec![(vec![false], false)]),
        ("new/below", vec![(vec![false], false)]),
    ] {
        assert_eq!(told(&follower, name), wanted, "{name}");
    }
    // Nothing more, and of nothing that it was missed.
    let all = |follower: &Follower| follower.below(&ground.told(""));
    let before = all(&follower);
    follower.rescan()?;
    assert_eq!((all(&follower), follower.tree.losses().missed), (before, missed));
    Ok(())
}

/// More notices than the kernel has room for: what they would have told is found out.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn an_overflow_is_repaired() -> Result<()> {
    let room: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?.trim().parse()?;
    let ground = Ground::new()?;
    ground.make("before")?;
    let mut follower = Follower::new()?;
    for _ in 0..=room / 2 {
        ground.make("c")?;
        ground.remove("c")?;
    }
    ground.remove("before")?;
    ground.make("after/below")?;
    let before = ground.told("before");
    let after = ground.told("after/below");
    follower.until(|told| !told.at(&after).is_empty() && told.at(&before)[0].gone)?;
    assert!(follower.tree.losses().overflows > 0);
    // And goes on as before.
    let later = ground.told("later");
    ground.make("later")?;
    follower.until(|told| !told.at(&later).is_empty())
}

/// As under `ip netns exec`, and where not even the host's first process can be asked.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn hidden_cgroups_are_found() -> Result<()> {
    let whole = Hierarchy::find()?;
    // By `/proc/1/root`, or aside where this process may not look there.
    let hidden = hiding(Hidden::Sysfs, || Ok(Hierarchy::find()?))?;
    assert!(whole.is_whole() && hidden.is_whole());
    assert_ne!(hidden.place(), whole.place());
    let aside = hiding(Hidden::Host, || Ok(Hierarchy::find()?))?;
    assert!(*aside.place() == Place::Aside && aside.is_whole());
    // What is found by such a mount is followed by it, too.
    let ground = Ground::new()?;
    let mut follower = Follower::of(aside)?;
    let _guest = Guest::enter(&ground.make("web")?)?;
    let path = ground.told("web");
    follower.until(|told| told.at(&path).iter().any(|story| story.populated.last() == Some(&true)))?;
    Ok(())
}

/// The options of the host's own mount are another mount's, too: without them nothing is mounted.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn nothing_is_mounted_over_unknown_options() -> Result<()> {
    let found = hiding(Hidden::First, || Ok(Hierarchy::find()))?;
    assert!(matches!(found, Err(CgroupError::OptionsUnknown { .. })), "{found:?}");
    Ok(())
}

/// Watches that the kernel refuses are named, and what they would have told is told late.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn what_cannot_be_watched_is_looked_at() -> Result<()> {
    let ground = Ground::new()?;
    ground.make("before")?;
    let mut follower = hiding(Hidden::Host, || {
        let hierarchy = Hierarchy::find()?;
        // Files are watched by their names in there.
        hide_proc()?;
        Follower::of(hierarchy)
    })?;
    let missing = follower.tree.missing();
    assert!(missing.len() == 1 && missing[0].contains("is found late"), "{missing:?}");
    ground.make("after")?;
    let guest = Guest::enter(&ground.make("before")?)?;
    follower.rescan()?;
    assert_eq!(follower.at(&ground.told("before"))[0].populated, [false, true]);
    assert_eq!(follower.at(&ground.told("after")).len(), 1);
    // Now they are watched.
    assert!(follower.tree.missing().is_empty(), "{:?}", follower.tree.missing());
    drop(guest);
    let (before, later) = (ground.told("before"), ground.told("after/later"));
    ground.make("after/later")?;
    let is_left = |told: &Follower| told.at(&before)[0].populated == [false, true, false];
    follower.until(|told| is_left(told) && !told.at(&later).is_empty())
}

/// Longer than the kernel takes a path.
#[test]
#[ignore = "needs CAP_SYS_ADMIN: cargo xtask test kernel"]
fn what_lies_too_deep_is_left_out() -> Result<()> {
    let ground = Ground::new()?;
    let mut follower = Follower::new()?;
    // 15 times 251 octets are less than 4,000, and 16 times are more.
    let name = "n".repeat(250);
    ground.make(&[name.as_str(); 16].join("/"))?;
    let last = ground.told(&[name.as_str(); 15].join("/"));
    follower.until(|told| !told.at(&last).is_empty() && told.tree.losses().left_out == 1)?;
    let missing = follower.tree.missing();
    assert!(missing.len() == 1 && missing[0].starts_with("1 cgroups and those in them"), "{missing:?}");
    follower.rescan()?;
    assert_eq!(follower.tree.losses().left_out, 1);
    ground.remove(&[name.as_str(); 16].join("/"))?;
    follower.rescan()?;
    assert_eq!((follower.tree.losses().left_out, follower.tree.missing().len()), (0, 0));
    Ok(())
}
