//! XDP: what its program tells the one at TC's ingress, and what it counts of frames.

use super::{counter::UNPARSED_REASONS, layout::layout};

/// What the XDP program puts before a frame (`data_meta`), and `tc_ingress` reads: whose address the frame goes to, so that
/// nobody looks it up twice. The same for all packets of a flow, or GRO would not merge them.
///
/// Others put their own there too, and where a tunnel's header was taken off there lies whatever was before: it counts only
/// with the word of this load, on the interface that it names, and under the generation that holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// A random number of this load; 0 is none's.
    pub word: u64,
    /// The interface that the frame came in by.
    pub ifindex: u32,
    /// The configuration generation under which it was looked up.
    pub generation: u32,
    /// Whose the destination address is; 0 where it is nobody's.
    pub pu: u16,
    /// What it is ([`found`]).
    pub found: u8,
    /// What was decided about the frame ([`verdict`]).
    pub verdict: u8,
    #[doc(hidden)]
    pub _pad: u32,
}

layout!(Handed, 24, { word: 0, ifindex: 8, generation: 12, pu: 16, found: 18, verdict: 19, _pad: 20 });

/// What an address is: [`Handed::found`].
pub mod found {
    /// Neither of this host nor declared.
    pub const NOTHING: u8 = 0;
    /// This host's.
    pub const OWN: u8 = 1;
    /// Of a declared range.
    pub const DECLARED: u8 = 2;
}

/// What was decided about a frame: [`Handed::verdict`].
pub mod verdict {
    /// It goes on, and what policies say of it is asked by `tc_ingress`. A frame of which it is known that they reject it goes
    /// nowhere.
    pub const PASS: u8 = 0;
}

/// What became of the frames that the XDP program was run on.
///
/// `seen` = `passed` + `dropped`. Of the frames that passed each is at most one of `malformed`, `handed` and `unhanded`; the
/// others are no IP packets, or of an interface whose unit no address decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpLedger {
    /// Frames that the program looked at while its lease ran.
    pub seen: u64,
    /// Those that it let pass.
    pub passed: u64,
    /// Those that it dropped, for a policy rejects their flow: counted here as `tc_ingress` would have counted them.
    pub dropped: u64,
    /// Those that passed with what is known of their destination.
    pub handed: u64,
    /// Those that passed without, since their driver has no room for it.
    pub unhanded: u64,
    /// Socket buffers whose unit `tc_ingress` has from there.
    pub taken: u64,
    /// Socket buffers that came to `tc_ingress` without their link layer's header ([`role::COPIED`](super::pu::role::COPIED)).
    pub headless: u64,
    /// Frames that break the rules of their own protocol, by reason ([`Unparsed`](super::counter::Unparsed)).
    pub malformed: [u64; UNPARSED_REASONS],
}

layout!(XdpLedger, 176, {
    seen: 0, passed: 8, dropped: 16, handed: 24, unhanded: 32, taken: 40, headless: 48, malformed: 56,
});
