//! Bytes, sixteen at a time.

use wide::u8x16;

/// How many bytes are looked at at once.
pub(super) const LANE: usize = 16;

/// The first of these bytes that is found: `find` sets all bits of it, and none of the others.
pub(super) fn position(bytes: &[u8], find: impl Fn(u8x16) -> u8x16) -> Option<usize> {
    let (lanes, tail) = bytes.as_chunks::<LANE>();
    for (number, lane) in lanes.iter().enumerate() {
        let found = find(u8x16::new(*lane)).to_bitmask();
        if found != 0 {
            return Some(number * LANE + found.trailing_zeros() as usize);
        }
    }
    let mut last = [0; LANE];
    last[..tail.len()].copy_from_slice(tail);
    let found = find(u8x16::new(last)).to_bitmask();
    let at = found.trailing_zeros() as usize;
    (at < tail.len()).then_some(lanes.len() * LANE + at)
}

/// What does not stand for itself in a text of JSON.
pub(super) fn is_special(lane: u8x16) -> u8x16 {
    let is_control = lane.min(u8x16::splat(b' ' - 1)).simd_eq(lane);
    is(lane, b'"') | is(lane, b'\\') | is_control
}

/// Where a byte is.
pub(super) fn is(lane: u8x16, byte: u8) -> u8x16 {
    lane.simd_eq(u8x16::splat(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_wherever_it_is() {
        for length in 0..3 * LANE {
            assert_eq!(position(&vec![b'x'; length], is_special), None);
            for special in (0..b' ').chain([b'"', b'\\']) {
                for at in 0..length {
                    let mut bytes = vec![b'x'; length];
                    bytes[at..].fill(special);
                    assert_eq!(position(&bytes, is_special), Some(at), "{special} in {length}");
                }
            }
        }
    }
}
