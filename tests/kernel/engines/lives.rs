//! What is told and counted of containers of Docker's that come and go.

#![expect(clippy::print_stdout, reason = "figures for who reads the output of a test that passed")]

use std::{thread, time::Duration};

use collector_tests::{
    Result,
    books::Books,
    engine::{Engine, unit},
    events,
    lives::{steps, wait_for_step, wait_for_steps},
    talk::{self, Talk},
    traffic::{ANSWERS, Host},
};
use collector_user::clock;

use super::{WHOLE, ask_and_end, ask_from, assert_few, assert_uplinks, behind, start, wire};
use crate::assert_balanced;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn one_that_lives_for_a_moment_is_named_and_counted() -> Result<()> {
    let wire = wire()?;
    let Some(docker) = Engine::docker(&wire.a.place, true)? else { return Ok(()) };
    let peer = Host::new(&wire.b, &[])?;
    let collector = start(&wire)?;
    let whole = ask_and_end(&docker, &[], talk::answers(&peer, 4))?;
    let id = unit(&whole);
    wait_for_step(&collector, id, "delete");
    let lived = docker.run(&["inspect", "--format", "{{.State.StartedAt}} {{.State.FinishedAt}}", &whole])?;
    let finished = collector.stop()?;
    println!("lived: {lived}; {:?} received, sent", events::unit(&finished.events, id));
    assert_balanced(&finished);
    assert_eq!(steps(&finished.events, id), WHOLE);
    assert_few(&finished, id, &wire, 1);
    assert_uplinks(&finished, &[]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_restart_ends_one_life_and_begins_another() -> Result<()> {
    let wire = wire()?;
    let Some(docker) = Engine::docker(&wire.a.place, true)? else { return Ok(()) };
    let peer = Host::new(&wire.b, &[])?;
    let collector = start(&wire)?;
    let mut web = docker.serve(&[])?;
    let id = web.unit().to_owned();
    let at_peer = talk::answers(&peer, 4);
    let mut books = Books::new();
    let mut counted = [0; 4];
    for (number, port) in [(1, 40_000), (2, 40_001)] {
        let started = |steps: &[&str]| steps.iter().filter(|step| **step == "start").count() == number;
        wait_for_steps(&collector, &id, started);
        let inside = docker.enter(&web.id)?;
        ask_from(&docker, &web.id, port, at_peer)?;
        let out = Talk::answered((inside.end.v4, port).into(), at_peer, 100, 100);
        books.flow(&id, &out).asked("forwarded", &out.between((wire.a.v4, port).into(), at_peer));
        for (sum, count) in counted.iter_mut().zip(behind(&inside.port.counters()?)) {
            *sum += count;
        }
        drop(inside);
        if number == 1 {
            docker.run(&["restart", "--time", "0", &web.id])?;
            web.wait()?;
        }
    }
    docker.run(&["rm", "--force", &web.id])?;
    wait_for_steps(&collector, &id, |steps| steps.len() >= 2 * WHOLE.len());
    let finished = collector.stop()?;
    books.counts(&id, counted);
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_uplinks(&finished, &[]);
    assert_eq!(steps(&finished.events, &id), [WHOLE, WHOLE].concat());
    Ok(())
}

/// How many come and go, unless this variable of the environment says another number.
const MANY: usize = 12;
const MANY_BY: &str = "ENGINE_CONTAINERS";
/// So many are started at once.
const AT_ONCE: usize = 3;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn many_come_and_go_while_others_talk() -> Result<()> {
    let many = std::env::var(MANY_BY).map_or(Ok(MANY), |many| many.parse())?;
    let wire = wire()?;
    let Some(docker) = Engine::docker(&wire.a.place, false)? else { return Ok(()) };
    let peer = Host::new(&wire.b, &[])?;
    let collector = start(&wire)?;
    let [one, two] = [docker.serve(&[])?, docker.serve(&[])?];
    let [in_one, in_two] = [docker.enter(&one.id)?, docker.enter(&two.id)?];
    for serving in [&one, &two] {
        wait_for_step(&collector, serving.unit(), "start");
    }
    let begun = clock::boot();
    let asking =
        talk::asker(&in_one.end.place, (in_one.end.v4, 41_000).into(), (in_two.end.v4, ANSWERS).into())?;
    let at_peer = talk::answers(&peer, 4);
    let come_and_go = || -> Result<Vec<String>> {
        (0..many.div_ceil(AT_ONCE)).map(|_| ask_and_end(&docker, &["--rm"], at_peer)).collect()
    };
    let (ids, talked) = thread::scope(|scope| -> Result<_> {
        let starting: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(come_and_go)).collect();
        let mut talked = talk::ask(&asking, 100, 100)?;
        while starting.iter().any(|thread| !thread.is_finished()) {
            talked = talked.and(&talk::ask(&asking, 100, 100)?);
        }
        let ids = starting.into_iter().map(|thread| thread.join().expect("no thread panics"));
        Ok((ids.collect::<Result<Vec<_>>>()?.concat(), talked))
    })?;
    for id in &ids {
        wait_for_step(&collector, unit(id), "delete");
    }
    let took = Duration::from_nanos(clock::boot() - begun);
    let mut of_both = Vec::new();
    for (serving, inside) in [(&one, in_one), (&two, in_two)] {
        of_both.push((serving.unit(), behind(&inside.port.counters()?)));
    }
    docker.run(&["rm", "--force", &one.id, &two.id])?;
    for serving in [&one, &two] {
        wait_for_step(&collector, serving.unit(), "delete");
    }
    let finished = collector.stop()?;
    println!(
        "{} containers came and went in {took:?}, beside {} packets; the daemon's CPU time is {:?}",
        ids.len(),
        talked.forth.packets + talked.back.packets,
        finished.cpu
    );
    assert_balanced(&finished);
    assert_uplinks(&finished, &[]);
    for id in &ids {
        assert_eq!(steps(&finished.events, unit(id)), WHOLE, "{id}");
        assert_few(&finished, unit(id), &wire, ids.len() as u64);
    }
    for (id, counted) in of_both {
        assert_eq!(steps(&finished.events, id), WHOLE);
        // The bridge asks later, too, for those that are gone.
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] = events::unit(&finished.events, id);
        let asked = rx_packets - counted[0];
        assert_eq!([rx_bytes - 42 * asked, tx_packets, tx_bytes], counted[1..], "{asked} frames later");
        let flow = events::total(&finished.events, |record| &*record.context_id == id);
        assert_eq!(
            [flow.packets, flow.bytes, flow.reply_packets, flow.reply_bytes],
            [talked.forth.packets, talked.forth.bytes, talked.back.packets, talked.back.bytes]
        );
    }
    let unnamed = ["unknown", "host"].map(|id| events::unit(&finished.events, id));
    assert_eq!(unnamed, [[0; 4]; 2]);
    Ok(())
}
