//! Drops of which no report is wanted, by reason and by place. Asked once for each row, never for each drop.

use collector_ebpf::abi::drop::PLACE_BITS;

use crate::{
    maps::FOLDED_PLACES,
    packet::opaque,
    settings::{FOLDED_0, FOLDED_1, FOLDED_2, FOLDED_3, PLACES},
};

/// 1 where no report is wanted of drops with this reason, at this place.
#[inline(always)]
pub(super) fn is_folded(reason: u32, place: u64) -> u32 {
    let word = match reason / 64 {
        0 => FOLDED_0.load(),
        1 => FOLDED_1.load(),
        2 => FOLDED_2.load(),
        3 => FOLDED_3.load(),
        _ => 0,
    };
    if word >> (reason % 64) & 1 != 0 { 1 } else { at(place, reason) }
}

/// 1 where the function that the place is in makes such drops no news.
#[inline(never)]
fn at(place: u64, reason: u32) -> u32 {
    let count = PLACES.load();
    if count == 0 || reason >= u64::BITS {
        return 0;
    }
    // The address that a call returns to may be that behind the function's end.
    let place = place.wrapping_sub(1);
    let mut found = 0_usize;
    for bit in (0..PLACE_BITS).rev() {
        // The number of entries that begin before it, less one: bit by bit, from the highest.
        let next = found | 1 << bit;
        if let Some(entry) = FOLDED_PLACES.get(next as u32)
            && (next as u32) < count
            && entry.begin <= place
        {
            found = next;
        }
        // The verifier shall not follow both ways of each step by themselves.
        found = opaque(found);
    }
    FOLDED_PLACES.get(found as u32).map_or(0, |entry| {
        u32::from(place.wrapping_sub(entry.begin) < entry.length && entry.reasons >> reason & 1 != 0)
    })
}
