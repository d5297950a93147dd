//! Where a value of JSON ends, without a look at what is in it.
//!
//! Nearly all of a review is skipped, and to read it as JSON takes longer than everything else that becomes of it. So it is gone over in blocks
//! of 64 bytes, as simdjson does (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019): one bit for each byte tells whether it is a
//! quote or a bracket, and what is between quotes is masked out.
//!
//! What is skipped is not checked. The API server has written it, and it alone applies patches.

use wide::u8x16;

use crate::mutate::lanes::{LANE, is, is_special, position};

const BLOCK: usize = 64;
const EVEN: u64 = 0x5555_5555_5555_5555;
/// The bit in which curly brackets differ from square ones.
const CURLY: u8 = b'{' ^ b'[';
/// A bit that closing brackets have, and opening ones have not.
const CLOSING: u8 = b'}' & !b'{';

/// Where the value ends that is the rest of a map or a list: behind its closing bracket. `rest` begins behind the opening one.
pub(super) fn length_to_closing(rest: &[u8]) -> Option<usize> {
    let mut depth = 1;
    let mut strings = Strings::default();
    let (blocks, tail) = rest.as_chunks::<BLOCK>();
    for (number, block) in blocks.iter().enumerate() {
        if let Some(at) = closing(block, &mut strings, &mut depth) {
            return Some(number * BLOCK + at + 1);
        }
    }
    let mut last = [b' '; BLOCK];
    last[..tail.len()].copy_from_slice(tail);
    let at = closing(&last, &mut strings, &mut depth)?;
    Some(blocks.len() * BLOCK + at + 1)
}

/// Where in a block the bracket is that closes what is `depth` deep. If it is not there, `depth` is that of the block's end.
fn closing(block: &[u8; BLOCK], strings: &mut Strings, depth: &mut usize) -> Option<usize> {
    let (mut quotes, mut brackets) = (0, 0);
    let mut backslashes = [u8x16::default(); BLOCK / LANE];
    let (lanes, _) = block.as_chunks();
    for (number, lane) in lanes.iter().enumerate() {
        let lane = u8x16::new(*lane);
        let curly = lane | u8x16::splat(CURLY);
        quotes |= bits(is(lane, b'"'), number);
        brackets |= bits(is(curly, b'{') | is(curly, b'}'), number);
        backslashes[number] = is(lane, b'\\');
    }
    let [one, two, three, four] = backslashes;
    // Most blocks have none.
    let backslashes = if (one | two | three | four).any() {
        bits(one, 0) | bits(two, 1) | bits(three, 2) | bits(four, 3)
    } else {
        0
    };
    let mut left = brackets & !strings.go_over(quotes, backslashes);
    while left != 0 {
        let at = left.trailing_zeros() as usize;
        // Without a branch: which bracket comes next cannot be foretold.
        *depth = *depth + 1 - 2 * usize::from(block[at] & CLOSING != 0);
        if *depth == 0 {
            return Some(at);
        }
        left &= left - 1;
    }
    None
}

/// The bits of a lane, in the place that it has in its block.
fn bits(lane: u8x16, number: usize) -> u64 {
    u64::from(lane.to_bitmask()) << (LANE * number)
}

/// How long a text is up to its closing quote, and whether it stands for itself: nothing in it is escaped, and nothing should have been. `rest`
/// begins behind the opening quote.
#[inline]
pub(super) fn length_to_quote(rest: &[u8]) -> Option<(usize, bool)> {
    // Most keys are that short.
    if let Some(lane) = rest.first_chunk() {
        let at = is_special(u8x16::new(*lane)).to_bitmask().trailing_zeros() as usize;
        if lane.get(at) == Some(&b'"') {
            return Some((at, true));
        }
    }
    length_of_longer(rest)
}

fn length_of_longer(rest: &[u8]) -> Option<(usize, bool)> {
    let mut at = position(rest, is_special)?;
    let is_plain = rest[at] == b'"';
    while rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
        at += position(rest.get(at..)?, is_special)?;
    }
    Some((at, is_plain))
}

/// What is known of the text before a block.
#[derive(Default)]
struct Strings {
    /// All bits, where the block begins within a string.
    are_open: u64,
    /// 1, where its first byte is escaped.
    is_escaped: u64,
}

impl Strings {
    /// What of a block is within strings, with the quote that begins one and without the one that ends it. A bit for each byte, the lowest for
    /// the first.
    fn go_over(&mut self, quotes: u64, backslashes: u64) -> u64 {
        let mut inside = quotes & !self.escaped(backslashes);
        // Every bit becomes the parity of those up to it.
        for distance in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << distance;
        }
        inside ^= self.are_open;
        self.are_open = 0_u64.wrapping_sub(inside >> 63);
        inside
    }

    /// What of a block stands behind a backslash that is not itself escaped: behind an odd number of them.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        if backslashes | self.is_escaped == 0 {
            return 0;
        }
        let escaping = backslashes & !self.is_escaped;
        let follows = escaping << 1 | self.is_escaped;
        // A carry runs through each row of backslashes that begins at an odd byte, and turns around which of its bytes are escaped.
        let odd_starts = escaping & !EVEN & !follows;
        let (carried, goes_on) = odd_starts.overflowing_add(escaping);
        self.is_escaped = u64::from(goes_on);
        (EVEN ^ (carried << 1)) & follows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, byte by byte.
    fn counted(rest: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (1, false, false);
        for (at, &byte) in rest.iter().enumerate() {
            match byte {
                b'"' if !escaped => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth -= 1,
                _ => {}
            }
            escaped = byte == b'\\' && !escaped;
            if depth == 0 {
                return Some(at + 1);
            }
        }
        None
    }

    #[test]
    fn brackets_in_strings_are_text() {
        for (rest, expected) in [
            ("}", Some(1)),
            ("]]", Some(1)),
            ("", None),
            ("{}", None),
            ("[]{}] ]", Some(5)),
            (r#""}"}"#, Some(4)),
            (r#""\"}"}"#, Some(6)),
            (r#""\\"}"}"#, Some(5)),
            (r#""\\\"}"}"#, Some(8)),
            (r#""}"#, None),
        ] {
            for before in 0..3 * BLOCK {
                let text = " ".repeat(before) + rest;
                let expected = expected.map(|length| before + length);
                assert_eq!(length_to_closing(text.as_bytes()), expected, "{before} {rest}");
            }
        }
    }

    #[test]
    fn texts_end_at_the_first_quote_that_is_not_escaped() {
        for (rest, expected) in [
            (r#"""#, Some((0, true))),
            (r#"é" ""#, Some((2, true))),
            (r#"\"""#, Some((2, false))),
            (r#"\\\"""#, Some((4, false))),
            ("\t\"", Some((1, false))),
            ("", None),
            ("\\", None),
            (r#"\""#, None),
        ] {
            for before in 0..3 * LANE {
                let text = "x".repeat(before) + rest;
                let expected = expected.map(|(length, is_plain)| (before + length, is_plain));
                assert_eq!(length_to_quote(text.as_bytes()), expected, "{before} {rest}");
            }
        }
    }

    proptest! {
        #[test]
        fn texts_are_as_long_as_others_find_them(text in r#"([a-zé"\\\x00-\x1f ]|\PC){0,80}"#) {
            let json = serde_json::to_string(&text).unwrap();
            let is_plain = json.len() == text.len() + 2;
            prop_assert_eq!(length_to_quote(&json.as_bytes()[1..]), Some((json.len() - 2, is_plain)));
            prop_assert_eq!(length_to_quote(&json.as_bytes()[1..json.len() - 1]), None);
        }

        #[test]
        fn blocks_are_gone_over_as_bytes_are(text in r#"(["\\\\\\\[\]{}a]|\PC){0,400}"#) {
            prop_assert_eq!(length_to_closing(text.as_bytes()), counted(text.as_bytes()));
        }
    }
}
