//! Parts of capture files, in either order of octets.

pub(super) type Words = fn(u32) -> [u8; 4];
pub(super) const ORDERS: [Words; 2] = [u32::to_le_bytes, u32::to_be_bytes];

/// Two numbers of two octets, one behind the other, in the order that a function gives to four.
pub(super) fn halves(words: Words, one: u16, other: u16) -> [u8; 4] {
    let [a, b, c, d] = words(u32::from(one) << 16 | u32::from(other));
    if words(1) == [1, 0, 0, 0] { [c, d, a, b] } else { [a, b, c, d] }
}

pub(super) fn pcap(words: Words, magic: u32, network: u32) -> Vec<u8> {
    let mut file = words(magic).to_vec();
    file.extend(halves(words, 2, 4));
    file.extend([words(0), words(0), words(65_535), words(network)].concat());
    file
}

pub(super) fn packet(words: Words, time: [u32; 2], octets: &[u8], length: u32) -> Vec<u8> {
    let [seconds, fraction] = time;
    let header = [words(seconds), words(fraction), words(octets.len() as u32), words(length)].concat();
    [header, octets.to_vec()].concat()
}

pub(super) fn block(words: Words, kind: u32, body: &[u8]) -> Vec<u8> {
    let body = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
    let length = words(body.len() as u32 + 12);
    [words(kind).to_vec(), length.to_vec(), body, length.to_vec()].concat()
}

pub(super) fn option(words: Words, code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = halves(words, code, value.len() as u16).to_vec();
    option.extend(value);
    option.resize(option.len().next_multiple_of(4), 0);
    option
}

pub(super) fn section(words: Words, application: &str) -> Vec<u8> {
    let body = [words(0x1A2B_3C4D), halves(words, 1, 0), [0xFF; 4], [0xFF; 4]].concat();
    block(words, 0x0A0D_0D0A, &[body, option(words, 4, application.as_bytes())].concat())
}

pub(super) fn interface(words: Words, link: u16, snap_length: u32, options: &[u8]) -> Vec<u8> {
    block(words, 1, &[&halves(words, link, 0), &words(snap_length)[..], options].concat())
}

pub(super) fn enhanced(
    words: Words,
    interface: u32,
    time: u64,
    octets: &[u8],
    length: u32,
    options: &[u8],
) -> Vec<u8> {
    let fields = [interface, (time >> 32) as u32, time as u32, octets.len() as u32, length];
    let mut body = fields.map(words).concat();
    body.extend(octets);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options);
    block(words, 6, &body)
}
