//! How long policies take to load: thousands of rules over as many units as a great host has.

use std::{hint::black_box, sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use collector_tests::{Result, measure::median};
use collector_user::{
    event::TagStore,
    policy::{
        rule::{Action, Observe, Policy, Ports, Remote, Rule, Selector, Service, Subject},
        sets::{Change, Sets},
    },
    pu::trace::Directions,
};

const RULES: u16 = 10_000;
const UNITS: u16 = 1_000;

/// Prints medians over the rounds.
pub(crate) fn run(rounds: usize) -> Result<()> {
    let ways = [
        ("each of one unit, by its id", policies(unit_of, "")?),
        ("each of ten units, by a pattern", policies(|rule| format!("u{:02}?", rule % 100), "")?),
        ("each of ten units, by a tag", policies(|_| "*".to_owned(), "group=")?),
        ("all of one unit", policies(|_| "u000".to_owned(), "")?),
        ("all of all units", policies(|_| "*".to_owned(), "")?),
    ];
    println!("Policies: {RULES} rules, {UNITS} units, ms");
    println!("{:<36} {:>8} {:>12} {:>8} {:>10}", "rules", "load", "one changed", "sets", "entries");
    for (name, policies) in ways {
        let (mut loads, mut changes) = (Vec::new(), Vec::new());
        let mut size = (0, 0);
        for _ in 0..rounds {
            let mut sets = Sets::default();
            for number in 0..UNITS {
                sets.put(unit(number), 0)?;
            }
            let begun = Instant::now();
            let change = sets.load(black_box(&policies), true, 1)?;
            let entries = entries(&change);
            loads.push(milliseconds(begun));
            ensure!(
                change.units.len() == usize::from(UNITS) || name == "all of one unit",
                "{}",
                change.units.len()
            );
            size = (change.new.len(), entries);
            let mut others = policies.clone();
            let other = others.last_mut().context("there are policies")?;
            Arc::make_mut(&mut other.rule).log = true;
            let begun = Instant::now();
            let change = sets.load(black_box(&others), true, 2)?;
            self::entries(&change);
            changes.push(milliseconds(begun));
        }
        let (sets, entries) = size;
        println!(
            "{name:<36} {:>8.1} {:>12.1} {sets:>8} {entries:>10}",
            median(&mut loads),
            median(&mut changes)
        );
    }
    println!();
    Ok(())
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// What would be written, counted.
fn entries(change: &Change) -> usize {
    let of_set = change.new.iter().map(|set| {
        black_box(set.remotes()).count()
            + black_box(set.services()).count()
            + black_box(set.verdicts()).count()
    });
    of_set.sum()
}

fn unit_of(rule: u16) -> String {
    format!("u{:03}", rule % UNITS)
}

fn unit(number: u16) -> Subject {
    let tags: TagStore = [format!("group={}", number % 100), "app=web".to_owned()].into_iter().collect();
    Subject { index: 101 + number, id: unit_of(number).into(), namespace: "".into(), tags: Arc::new(tags) }
}

/// Each rule names a network and a port of its own.
fn policies(unit: impl Fn(u16) -> String, tag: &str) -> Result<Vec<Policy>> {
    let policy = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let is_tagged = !tag.is_empty();
        Ok(Policy {
            selector: Selector {
                units: vec![unit(number).parse()?],
                tags: is_tagged.then(|| format!("{tag}{}", number % 100).into()).into_iter().collect(),
                ..Selector::default()
            },
            directions: Directions::In,
            rule: Arc::new(Rule {
                id: format!("p{number}").into(),
                remote: Remote { cidr: vec![format!("10.{high}.{low}.0/24").parse()?], networks: Vec::new() },
                service: Service { protocol: Some(6), ports: vec![Ports::one(number)] },
                action: Action::Accept { encrypt: false },
                log: false,
                observe: Observe::None,
            }),
        })
    };
    (0..RULES).map(policy).collect()
}
