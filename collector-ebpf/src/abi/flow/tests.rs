use super::{
    FIRST_BOUNDARY, FLUSH_AT, FlowKey4, RX, Slot4, Slot6, SlotCounts, TX, host_pu_of, how, ports, rest_of,
};

#[test]
fn the_bits_of_how_do_not_meet() {
    let parts = [
        how::LOCAL_INITIATED,
        how::HOST_END,
        how::PROVISIONAL,
        how::INITIATOR_MASK << how::INITIATOR_SHIFT,
        how::ATTRIBUTION_MASK << how::ATTRIBUTION_SHIFT,
    ];
    assert_eq!(parts.iter().map(|it| u32::from(*it)).sum::<u32>(), 0xFF, "all bits, each once");
}

#[test]
fn how_gives_back_what_was_put_in() {
    const REST: u8 = how::LOCAL_INITIATED | how::HOST_END | how::PROVISIONAL;
    for initiator in how::BY_FIRST_PACKET..=how::BY_LISTENER {
        for attribution in how::BY_NONE..=how::BY_SILENCE {
            for rest in [0, how::LOCAL_INITIATED, how::HOST_END, how::PROVISIONAL, REST] {
                let bits = rest | initiator << how::INITIATOR_SHIFT | attribution << how::ATTRIBUTION_SHIFT;
                assert_eq!(how::initiator_by(bits), initiator);
                assert_eq!(how::attributed_by(bits), attribution);
                assert_eq!(bits & REST, rest);
            }
        }
    }
}

#[test]
fn no_key_equals_that_of_an_empty_slot() {
    for kind in [ports::TRANSPORT, ports::ECHO, ports::ICMP, ports::FRAGMENT] {
        assert_ne!(FlowKey4 { ports: kind, ..FlowKey4::default() }, Slot4::default().key);
    }
}

#[test]
fn slots_fill_cache_lines() {
    assert_eq!(Slot4::LAYOUT.size, 64);
    assert_eq!(Slot6::LAYOUT.size, 128);
}

#[test]
fn a_slot_cannot_wrap_before_it_is_flushed() {
    // The largest number of segments that one buffer can stand for.
    assert!((FLUSH_AT - 1).checked_add(u32::from(u16::MAX)).is_some());
}

#[test]
fn the_other_ends_unit_and_the_octets_do_not_meet() {
    let mut counts = SlotCounts::default();
    counts.set_host_pu(16_383);
    // More than a slot can hold before it is flushed.
    let most = u64::from(FLUSH_AT) << 16;
    counts.amounts[RX].bytes += most;
    counts.amounts[TX].bytes += 7;
    assert_eq!(
        (counts.host_pu(), counts.amounts[RX].octets(), counts.amounts[TX].octets()),
        (16_383, most, 7)
    );
    counts.set_host_pu(1);
    assert_eq!((counts.host_pu(), counts.amounts[RX].octets()), (1, most));
    counts.set_verdict(u16::MAX);
    assert_eq!((counts.verdict(), counts.host_pu(), counts.amounts[TX].octets()), (u16::MAX, 1, 7));
}

#[test]
fn a_tables_key_tells_the_other_end_and_a_guess() {
    for pu in [0, 1, 101, 16_383] {
        for how in [0, how::PROVISIONAL, how::HOST_END] {
            let rest = rest_of(how | 7, pu);
            assert_eq!((host_pu_of(rest), rest & 1 != 0), (pu, how == how::PROVISIONAL));
        }
    }
}

#[test]
fn boundaries_begin_where_vlan_ids_end() {
    assert_eq!(FIRST_BOUNDARY, crate::wire::ethernet::VLAN_ID + 1);
}
