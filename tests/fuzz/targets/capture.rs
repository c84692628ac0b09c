//! Captures of any octets: read to their end or refused with a sentence, in frames that are what their lengths say.

#![no_main]

use collector_user::{
    collector::memory::Recorder,
    read::{
        container::{Capture, MOST_FRAME},
        frames,
        replay::{LocalNetworks, Options, Replay},
        seen::Seen,
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let recorder = Recorder::new();
    let options = Options {
        units: Vec::new(),
        networks: Vec::new(),
        local: LocalNetworks::default(),
        inner: true,
        flow_interval: std::time::Duration::from_secs(5),
        counter_interval: std::time::Duration::from_secs(30),
        most_flows: 64,
    };
    let mut replay = Replay::new(&options, &recorder).expect("no unit is declared");
    let (mut read, mut text) = (0, String::new());
    let outcome = Capture::open(octets).and_then(|mut capture| {
        while let Some(record) = capture.next_record()? {
            assert!(record.octets.len() <= record.length as usize && record.octets.len() <= MOST_FRAME as usize);
            let seen = Seen::of(&record);
            text.clear();
            frames::line(&mut text, std::path::Path::new("x"), read, &record, &seen);
            assert_eq!(text.matches('\t').count() + 1, frames::COLUMNS.len());
            replay.take(&record);
            read += 1;
        }
        Ok(())
    });
    if let Err(error) = outcome {
        assert!(error.to_string().starts_with("at byte "), "{error}");
    }
    let ledger = replay.finish().ledger;
    assert_eq!((ledger.seen, ledger.explained()), (read, read));
});
