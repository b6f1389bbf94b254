//! Moments, in milliseconds since 1970 UTC, and how they are written.

use crank_worker::Failure;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Now.
#[cfg(target_arch = "wasm32")]
pub fn now() -> i64 {
    let now = wasip2::clocks::wall_clock::now();
    i64::try_from(now.seconds).unwrap_or(0) * 1000 + i64::from(now.nanoseconds / 1_000_000)
}

/// Now.
#[cfg(not(target_arch = "wasm32"))]
pub fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}

/// As RFC 3339 has it, in UTC: `2026-11-22T12:35:21.042Z`.
pub fn rfc3339(milliseconds: i64) -> String {
    timestamp(milliseconds).to_string()
}

/// The id of a zettel that was made then: `20261122123521042`.
pub fn compact(milliseconds: i64) -> String {
    let then = timestamp(milliseconds).to_zoned(TimeZone::UTC);
    then.strftime("%Y%m%d%H%M%S%3f").to_string()
}

/// The begin and the end of what a text names, the end not within it: a day in UTC (`2026-11-22`) or a
/// millisecond (RFC 3339). `pointer` says where the text stands in the input.
pub fn moment(pointer: &str, text: &str) -> Result<(i64, i64), Failure> {
    let message = "a date (2026-11-22) or a moment with its zone (2026-11-22T12:00:00Z)";
    read(text).ok_or_else(|| Failure::invalid_input(pointer, message))
}

fn read(text: &str) -> Option<(i64, i64)> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        let begin = moment.as_millisecond();
        return Some((begin, begin + 1));
    }
    // A date-time without its zone is a date to the parser, with the time left out.
    let day: Date = text.parse().ok().filter(|_| text.len() == 10)?;
    let begin_of = |day: Date| {
        Some(
            day.to_zoned(TimeZone::UTC)
                .ok()?
                .timestamp()
                .as_millisecond(),
        )
    };
    Some((begin_of(day)?, begin_of(day.checked_add(1.day()).ok()?)?))
}

fn timestamp(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_it_is_written_and_a_date_is_a_day() {
        let noon = 1_795_348_800_042;
        assert_eq!(rfc3339(noon), "2026-11-22T12:00:00.042Z");
        assert_eq!(compact(noon), "20261122120000042");
        assert_eq!(read(&rfc3339(noon)), Some((noon, noon + 1)));
        assert_eq!(
            read("2026-11-22T13:00:00.042+01:00"),
            Some((noon, noon + 1))
        );
        let (begin, end) = read("2026-11-22").unwrap();
        assert_eq!(
            (end - begin, rfc3339(begin).as_str()),
            (86_400_000, "2026-11-22T00:00:00Z")
        );
        for wrong in ["", "yesterday", "2026-13-01", "2026-11-22T12:00:00"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
