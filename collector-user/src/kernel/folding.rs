//! Drops of which no report is wanted: which functions of this kernel those are, for the program that counts them.

use collector_ebpf::abi::drop::{FoldedPlace, MOST_PLACES};

use super::reasons::Reasons;
use crate::host::symbols::Symbols;

/// Which drops are counted and not reported.
#[derive(Clone, Debug)]
pub struct Folding {
    /// Whether those with the reason of this name are.
    pub reasons: fn(&str) -> bool,
    /// The names of reasons of which the place decides, the empty one where the kernel gives none.
    pub by_place: &'static [&'static str],
    /// Whether those with such a reason in a function of the kernel's are.
    pub places: fn(reason: &str, function: &str) -> bool,
}

impl Folding {
    /// The functions that fold, in the order of their addresses; neighbours that are alike are one.
    pub(super) fn places(&self, reasons: &Reasons, symbols: &Symbols) -> Vec<FoldedPlace> {
        let by_place: Vec<_> = self.by_place.iter().map(|name| (*name, reasons.mask(name))).collect();
        let mut places = Vec::<FoldedPlace>::new();
        for (begin, length, function) in symbols.functions() {
            let folds = |(reason, _): &&(&str, u64)| (self.places)(reason, function);
            let mask = by_place.iter().filter(folds).fold(0, |all, (_, mask)| all | mask);
            match places.last_mut() {
                _ if mask == 0 || length == 0 => {}
                Some(last) if last.begin + last.length == begin && last.reasons == mask => {
                    last.length += length;
                }
                _ => places.push(FoldedPlace { begin, length, reasons: mask }),
            }
        }
        // User space folds what finds no room here, when it has been reported.
        places.truncate(MOST_PLACES as usize);
        places
    }
}
