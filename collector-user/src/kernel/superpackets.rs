//! Where the programs find how the kernel will cut a super-packet.

use std::sync::Arc;

use aya::EbpfLoader;

use super::btf::{Btf, BtfError, Wanted};

/// Fields that say it, which the drop program reads as well.
pub(super) const FIELDS: [Wanted; 6] = [
    ("SKB_HEAD", "sk_buff", &["head"], 8),
    ("SKB_DATA", "sk_buff", &["data"], 8),
    ("SKB_END", "sk_buff", &["end"], 4),
    ("SKB_TRANSPORT", "sk_buff", &["transport_header"], 2),
    ("SKB_INNER_TRANSPORT", "sk_buff", &["inner_transport_header"], 2),
    ("SHARED_TYPE", "skb_shared_info", &["gso_type"], 4),
];

/// What the programs are told of it before they are loaded. Those that are told nothing go by what the octets of packets say.
#[derive(Default)]
pub(super) struct Told {
    places: Vec<(&'static str, u32)>,
    are_known: u32,
    /// Why they are told nothing.
    pub(super) missing: Option<Arc<BtfError>>,
}

impl Told {
    /// On the kernel with this type information, if there is any.
    pub(super) fn new(btf: Result<&Btf, Arc<BtfError>>) -> Self {
        match btf.and_then(|btf| btf.places(&FIELDS).map_err(Arc::new)) {
            Ok(places) => Self { places, are_known: 1, missing: None },
            Err(error) => Self { missing: Some(error), ..Self::default() },
        }
    }

    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (global, place) in &self.places {
            loader.override_global(global, place, true);
        }
        loader.override_global("KNOWS_SUPER_PACKETS", &self.are_known, true);
    }
}
