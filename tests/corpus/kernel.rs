//! The same frames by the loaded programs.

use collector_tests::{
    Result,
    reading::Reading,
    testrun::{Counted, Datapath, Hook},
};
use collector_user::kernel::settings::Settings;

/// The kernel runs no program on a frame of less than an Ethernet header with an IP header behind it, nor on one of more than a
/// page with what a buffer has beside.
const LEGAL: std::ops::RangeInclusive<usize> = 54..=3000;
/// Frames between two drains.
const BATCH: usize = 1_000;

/// A frame that is waiting, and where it comes from.
pub(crate) struct Frame {
    pub(crate) capture: String,
    pub(crate) number: u64,
    pub(crate) octets: Vec<u8>,
}

/// The programs, and the frames that wait for them.
pub(crate) struct Kernel {
    datapath: Datapath,
    waiting: Vec<Frame>,
    /// Frames that were run.
    pub(crate) ran: u64,
    /// Those that the programs read in another way, and how.
    pub(crate) differing: Vec<(Frame, String)>,
}

impl Kernel {
    /// Loads the programs.
    pub(crate) fn load() -> Result<Self> {
        // A later fragment is by itself, as the parser has it.
        let datapath = Datapath::load(&Settings { fragment_seconds: 0, ..Settings::default() })?;
        Ok(Self { datapath, waiting: Vec::new(), ran: 0, differing: Vec::new() })
    }

    /// Adds a frame of Ethernet, if the kernel takes it.
    pub(crate) fn add(&mut self, frame: Frame) -> Result<()> {
        if LEGAL.contains(&frame.octets.len()) {
            self.waiting.push(frame);
        }
        if self.waiting.len() == BATCH { self.run() } else { Ok(()) }
    }

    /// Runs those that wait.
    pub(crate) fn run(&mut self) -> Result<()> {
        let frames = std::mem::take(&mut self.waiting);
        self.ran += frames.len() as u64;
        let (want, found) = self.both(&frames)?;
        if want == found {
            return Ok(());
        }
        for frame in frames {
            let (want, found) = self.both(std::slice::from_ref(&frame))?;
            if want != found {
                let said = |it: &Reading| format!("{:?} {:?}", it.reasons(), it.flows);
                let how = format!("the parser {}, the programs {}", said(&want), said(&found));
                self.differing.push((frame, how));
            }
        }
        Ok(())
    }

    fn both(&mut self, frames: &[Frame]) -> Result<(Reading, Reading)> {
        self.datapath.begin_anew(&[].into())?;
        let mut want = Reading::default();
        for frame in frames {
            want.add(&frame.octets)?;
            self.datapath.run(Hook::Egress, &frame.octets)?;
        }
        let found = Reading::counted(&mut self.datapath)?;
        let flows = found.flows.keys().map(|id| (*id, Counted::default())).collect();
        self.datapath.begin_anew(&flows)?;
        Ok((want, found))
    }
}
