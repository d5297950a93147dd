//! Whether there is room for an image, and what to keep free.

use std::{fmt, str::FromStr};

use coral_api::FailureReason;

use crate::{
    classify::Failure,
    situation::{Situation, Wanted},
};

const KIB: i64 = 1024;
const GIB: i64 = KIB * KIB * KIB;

/// Room beside the reserve with which no registry is asked for the size of an image. A question costs up to two requests, which on
/// Docker Hub count as pulls; and images that take more than this, about 14 GiB compressed, are rare.
const PLENTY: i64 = 50 * GIB;
/// How many bytes a compressed byte of a layer becomes on the disk, in tenths. Images of distributions, languages and
/// GPU frameworks have 2.2 to 2.8.
const UNPACKED_TENTHS: i64 = 25;
/// The part of the file system by which its free bytes must change before a waiting image tells new figures.
const NEWS: i64 = 100;

/// What of the image filesystem is to stay free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reserve {
    /// Percent of its capacity.
    Percent(u8),
    /// Bytes.
    Bytes(i64),
}

/// Fifteen percent, the kubelet's own threshold: with fewer free bytes it evicts pods (`imagefs.available<15%`).
impl Default for Reserve {
    fn default() -> Self {
        Self::Percent(15)
    }
}

/// The text is no reserve.
#[derive(Debug, thiserror::Error)]
#[error("it must be a percentage such as 15%, or a quantity of bytes such as 10Gi")]
pub struct InvalidReserve;

impl FromStr for Reserve {
    type Err = InvalidReserve;

    fn from_str(text: &str) -> Result<Self, InvalidReserve> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent| *percent < 100);
            return percent.map(Self::Percent).ok_or(InvalidReserve);
        }
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit: i64 = match &text[digits.len()..] {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" => KIB,
            "Mi" => KIB * KIB,
            "Gi" => GIB,
            "Ti" => KIB * GIB,
            _ => return Err(InvalidReserve),
        };
        let number = digits.parse::<u32>().map_err(|_| InvalidReserve)?;
        i64::from(number)
            .checked_mul(unit)
            .map(Self::Bytes)
            .ok_or(InvalidReserve)
    }
}

impl Reserve {
    /// Bytes of a file system with this many.
    #[must_use]
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Percent(percent) => capacity / 100 * i64::from(percent),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// What is known of the bytes that an image takes while and after it is pulled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Need {
    /// No registry has been asked.
    #[default]
    Unasked,
    /// The registry did not tell; nobody asks again before the next attempt.
    Unknown,
    /// An estimate.
    Bytes(i64),
}

/// Whether a pull may begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It may, and takes this many bytes, as far as is known.
    Go(i64),
    /// The registry is to be asked for the size first.
    Ask,
    /// There is no room.
    Wait,
}

/// Why an image waits for room. The figures stand until they have changed noticeably, so that a status does not move with every file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shortage {
    needed: Option<i64>,
    free: i64,
    capacity: i64,
    reserve: i64,
    promised: i64,
}

/// Estimate of the bytes that an image takes whose layers have this many compressed. containerd keeps them beside what it unpacks.
#[must_use]
pub fn needed(compressed: i64, keeps_compressed: bool) -> i64 {
    let kept = if keeps_compressed { 10 } else { 0 };
    (compressed / 10).saturating_mul(UNPACKED_TENTHS + kept)
}

/// Bytes for further pulls, where the agent sees the image filesystem: what is free, without the reserve and without what the pulls
/// under way will still take.
#[must_use]
pub fn room(situation: &Situation, running: &[String]) -> Option<i64> {
    let (free, capacity) = sizes(situation)?;
    Some(free - situation.reserve.of(capacity) - promised(situation, running))
}

/// Whether a pull may begin with this room.
#[must_use]
pub fn admit(situation: &Situation, wanted: &Wanted, room: Option<i64>) -> Admission {
    let Some(room) = room else {
        return Admission::Go(0);
    };
    if room <= 0 {
        return Admission::Wait;
    }
    // What is looked up again has mostly not changed, or shares layers with what is there.
    if situation.held(wanted).is_some() {
        return Admission::Go(0);
    }
    match situation.pulls(wanted).map(|pulls| pulls.need).unwrap_or_default() {
        Need::Bytes(bytes) if bytes > room => Admission::Wait,
        Need::Bytes(bytes) => Admission::Go(bytes),
        Need::Unasked if room <= PLENTY => Admission::Ask,
        Need::Unasked | Need::Unknown => Admission::Go(0),
    }
}

/// Why the image waits for room, if it does. `before` is what was said last.
#[must_use]
pub fn shortage(
    situation: &Situation,
    wanted: &Wanted,
    running: &[String],
    before: Option<Shortage>,
) -> Option<Shortage> {
    let (free, capacity) = sizes(situation)?;
    if admit(situation, wanted, room(situation, running)) != Admission::Wait {
        return None;
    }
    let needed = match situation.pulls(wanted)?.need {
        Need::Bytes(bytes) => Some(bytes),
        Need::Unasked | Need::Unknown => None,
    };
    let now = Shortage {
        needed,
        free,
        capacity,
        reserve: situation.reserve.of(capacity),
        promised: promised(situation, running),
    };
    let is_news = |before: &Shortage| {
        let moved = (before.free - free).abs().max((before.promised - now.promised).abs());
        (before.needed, before.capacity, before.reserve) != (now.needed, now.capacity, now.reserve)
            || moved > capacity / NEWS
    };
    Some(before.filter(|before| !is_news(before)).unwrap_or(now))
}

/// Free bytes and capacity.
fn sizes(situation: &Situation) -> Option<(i64, i64)> {
    let filesystem = situation.filesystem?;
    filesystem.free_bytes.zip(filesystem.capacity_bytes)
}

/// What the pulls under way will still take. What has arrived of them is not free any more.
fn promised(situation: &Situation, running: &[String]) -> i64 {
    let keeps_compressed = situation.keeps_compressed();
    running
        .iter()
        .filter_map(|image| situation.pulls.get(image))
        .filter(|pulls| pulls.running_since.is_some())
        .map(|pulls| {
            let bytes = pulls.bytes.unwrap_or_default();
            let all = match pulls.need {
                Need::Bytes(all) => all,
                Need::Unasked | Need::Unknown => needed(bytes.total, keeps_compressed),
            };
            (all - bytes.done).max(0)
        })
        .fold(0, i64::saturating_add)
}

impl From<Shortage> for Failure {
    fn from(shortage: Shortage) -> Self {
        Self {
            reason: FailureReason::NoSpace,
            message: shortage.to_string(),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            needed,
            free,
            capacity,
            reserve,
            promised,
        } = *self;
        formatter.write_str("the image waits for space on the image filesystem: ")?;
        if let Some(needed) = needed {
            write!(formatter, "it takes about {}, and ", Bytes(needed))?;
        }
        write!(formatter, "{} of {} are free", Bytes(free), Bytes(capacity))?;
        if promised > 0 {
            write!(formatter, ", {} of them for pulls under way", Bytes(promised))?;
        }
        write!(formatter, "; {} are to stay free", Bytes(reserve))
    }
}

/// Bytes for people.
struct Bytes(i64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(KIB * GIB, "TiB"), (GIB, "GiB"), (KIB * KIB, "MiB"), (KIB, "KiB")];
        let unit = units.into_iter().find(|(unit, _)| self.0 >= *unit);
        let Some((unit, name)) = unit else {
            return write!(formatter, "{} bytes", self.0);
        };
        let tenths = self.0.saturating_mul(10) / unit;
        write!(formatter, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests;
