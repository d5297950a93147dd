//! Times, sizes and counts as people read and write them.

use std::time::Duration;

use jiff::Timestamp;

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a duration is numbers with the units ms, s, m and h, such as 30s, 10m or 1h30m, of at most a year")]
pub(crate) struct InvalidDuration;

/// As good as no end. Longer times are typing mistakes.
pub(crate) const YEAR: Duration = Duration::from_hours(365 * 24);

/// Reads a duration in Go's notation, without a sign: `10m`, `1h30m`, `1.5s`, `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_start = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(InvalidDuration)?;
        let number: f64 = rest[..unit_start].parse().map_err(|_| InvalidDuration)?;
        rest = &rest[unit_start..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(InvalidDuration),
        };
        seconds += number * unit;
        rest = &rest[unit_end..];
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !text.is_empty() && duration <= YEAR => Ok(duration),
        _ => Err(InvalidDuration),
    }
}

/// A duration with at most two units, as kubectl shows ages: `14s`, `3m20s`, `5h`, `12d`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |large: u64, large_unit: char, small: u64, small_unit: char| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match (seconds, minutes, hours, days) {
        (0..120, ..) => format!("{seconds}s"),
        (_, 0..10, ..) => pair(minutes, 'm', seconds % 60, 's'),
        (_, 0..180, ..) => format!("{minutes}m"),
        (_, _, 0..8, _) => pair(hours, 'h', minutes % 60, 'm'),
        (_, _, 0..48, _) => format!("{hours}h"),
        (_, _, _, 0..8) => pair(days, 'd', hours % 24, 'h'),
        (_, _, _, 0..730) => format!("{days}d"),
        _ => pair(days / 365, 'y', days % 365, 'd'),
    }
}

/// A limit that somebody set, which may be short: `350ms`, `15s`.
pub(crate) fn limit(limit: Duration) -> String {
    if limit < Duration::from_secs(1) {
        format!("{}ms", limit.as_millis())
    } else {
        duration(limit)
    }
}

/// A short duration with tenths below a minute: `3.2s`, `1m12s`.
pub(crate) fn elapsed(elapsed: Duration) -> String {
    if elapsed < Duration::from_mins(1) {
        format!("{:.1}s", elapsed.as_secs_f64())
    } else {
        duration(elapsed)
    }
}

/// How long ago `then` was; clocks that disagree give `0s`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    duration(between(then, now))
}

/// The time from `then` to `now`, zero when `then` is later.
pub(crate) fn between(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// Bytes with three significant digits and decimal units: `67 MB`, `1.24 GB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    match value {
        _ if unit == "B" => format!("{bytes} B"),
        value if value < 9.995 => format!("{value:.2} {unit}"),
        value if value < 99.95 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// A count with commas between thousands: `4,998`.
pub(crate) fn count(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 node`, `3 nodes`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// The first few names, and how many more there are: `a, b, c and 12 more`.
pub(crate) fn some_of<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let shown: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {} more", shown.join(", "), count(more)),
    }
}

/// Names of machines without the domain that they share, where what remains tells them apart.
pub(crate) fn without_domain<S: AsRef<str>>(names: &[S]) -> Vec<String> {
    let full = || names.iter().map(|name| name.as_ref().to_owned()).collect();
    let split: Option<Vec<(&str, &str)>> = names.iter().map(|name| name.as_ref().split_once('.')).collect();
    match split {
        Some(parts) if parts.windows(2).all(|pair| pair[0].1 == pair[1].1) => {
            parts.into_iter().map(|(host, _)| host.to_owned()).collect()
        }
        _ => full(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, expected) in [
            ("0", Ok(0.0)),
            ("0s", Ok(0.0)),
            ("30s", Ok(30.0)),
            ("1h30m", Ok(5400.0)),
            ("1.5s", Ok(1.5)),
            (".5m", Ok(30.0)),
            ("250ms", Ok(0.25)),
            ("", Err(InvalidDuration)),
            ("10", Err(InvalidDuration)),
            ("-5s", Err(InvalidDuration)),
            ("5 s", Err(InvalidDuration)),
            ("5d", Err(InvalidDuration)),
            ("1.2.3s", Err(InvalidDuration)),
            ("99999999999999999999999h", Err(InvalidDuration)),
            ("ten minutes", Err(InvalidDuration)),
        ] {
            let expected = expected.map(Duration::from_secs_f64);
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_look_like_kubectl_ages() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (100_000, "27h"),
            (200_000, "2d7h"),
            (1_000_000, "11d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(elapsed(Duration::from_millis(3_240)), "3.2s");
        assert_eq!(elapsed(Duration::from_secs(72)), "72s");
    }

    #[test]
    fn a_time_in_the_future_is_no_age() {
        let now = Timestamp::from_second(100).unwrap();
        let later = Timestamp::from_second(200).unwrap();
        assert_eq!(age(later, now), "0s");
    }

    #[test]
    fn bytes_have_three_digits() {
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (67_400_000, "67.4 MB"),
            (999_400_000, "999 MB"),
            (999_600_000, "1.00 GB"),
            (1_240_000_000, "1.24 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn a_domain_is_left_out_only_where_all_share_it() {
        assert_eq!(without_domain(&["a.eu.internal", "b.eu.internal"]), ["a", "b"]);
        assert_eq!(without_domain(&["a.eu", "a.us"]), ["a.eu", "a.us"]);
        assert_eq!(without_domain(&["a.eu", "b"]), ["a.eu", "b"]);
        assert_eq!(without_domain::<&str>(&[]), [""; 0]);
    }

    #[test]
    fn counts_and_names_are_readable() {
        assert_eq!(count(7), "7");
        assert_eq!(count(4_998), "4,998");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "node"), "1 node");
        assert_eq!(counted(0, "image"), "0 images");
        assert_eq!(some_of(&["a", "b", "c"], 3), "a, b, c");
        assert_eq!(some_of(&["a", "b", "c", "d"], 2), "a, b and 2 more");
    }
}
