//! Dates of the old chat in PocketBase's form, `2026-11-28 10:00:00.000Z`.

use serde_json::Value;

/// Numbers from here on are milliseconds, below seconds (the year 5138 in seconds, 1973 in milliseconds).
const MILLISECONDS_FROM: f64 = 1e11;

/// PocketBase's date for "without an end".
pub const FOREVER: &str = "9999-12-31 23:59:59.000Z";

/// Reads ISO 8601 with any offset, PostgreSQL's form, and Unix times as number or text, in seconds or milliseconds.
/// Without an offset, the time is UTC. Digits below a millisecond are cut off.
pub fn parse(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => from_unix(number.as_f64()?),
        Value::String(text) => {
            let text = text.trim();
            match text.parse::<f64>() {
                Ok(number) if text.len() >= 9 => from_unix(number),
                _ => from_text(text),
            }
        }
        _ => None,
    }
}

fn from_unix(number: f64) -> Option<String> {
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    let milliseconds = if number < MILLISECONDS_FROM { number * 1000.0 } else { number };
    // The year 9999 is the end of four digits. The cast is exact below 2^53.
    (milliseconds < 2.534e14).then(|| format(milliseconds as i64))
}

fn from_text(text: &str) -> Option<String> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let bytes = text.as_bytes();
    if bytes.len() < 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    if bytes.len() == 10 {
        return Some(format(days * 86_400_000));
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') || bytes.get(13) != Some(&b':') {
        return None;
    }
    let (hour, minute) = (number(11..13)?, number(14..16)?);
    let (second, rest) =
        if bytes.get(16) == Some(&b':') { (number(17..19)?, text.get(19..)?) } else { (0, text.get(16..)?) };
    if hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let (milliseconds, zone) = fraction(rest);
    let clock = (hour * 60 + minute - offset(zone)?) * 60 + second;
    Some(format(days * 86_400_000 + clock * 1000 + milliseconds))
}

/// Milliseconds of `.123456`, and the text after the digits.
fn fraction(text: &str) -> (i64, &str) {
    let Some(rest) = text.strip_prefix(['.', ',']) else { return (0, text) };
    let end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let digits: String = rest[..end].chars().chain("000".chars()).take(3).collect();
    (digits.parse().unwrap_or(0), &rest[end..])
}

/// Minutes of `Z`, `+03`, `+0300`, `+03:00`, or nothing.
fn offset(zone: &str) -> Option<i64> {
    let zone = zone.trim();
    if zone.is_empty() || zone.eq_ignore_ascii_case("z") || zone == "UTC" {
        return Some(0);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = zone[1..].chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = match digits.len() {
        2 => (digits.parse::<i64>().ok()?, 0),
        4 => (digits[..2].parse().ok()?, digits[2..].parse().ok()?),
        _ => return None,
    };
    Some(sign * (hours * 60 + minutes))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// PocketBase's form of milliseconds since 1970.
pub fn format(milliseconds: i64) -> String {
    let days = milliseconds.div_euclid(86_400_000);
    let rest = milliseconds.rem_euclid(86_400_000);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
}

/// The present moment.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format(i64::try_from(since.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_forms_of_one_moment_agree() {
        let moment = Some("2026-11-28 10:00:01.234Z".to_owned());
        for form in [
            json!("2026-11-28T10:00:01.234Z"),
            json!("2026-11-28T13:00:01.234567+03:00"),
            json!("2026-11-28 10:00:01.234+00"),
            json!("2026-11-28 10:00:01.234"),
            json!("2026-11-28T02:00:01.234-0800"),
            json!(1_795_860_001_234_i64),
            json!("1795860001234"),
            json!(1_795_860_001.234),
        ] {
            assert_eq!(parse(&form), moment, "{form}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for form in [
            json!(null),
            json!(""),
            json!("yesterday"),
            json!("2026-02-30"),
            json!("2026-13-01"),
            json!(-1),
            json!(true),
            json!("2026-11-28T"),
            json!("28.11.2026"),
        ] {
            assert_eq!(parse(&form), None, "{form}");
        }
    }

    #[test]
    fn leap_days_and_offsets_across_midnight_are_right() {
        assert_eq!(parse(&json!("2024-02-29T23:30:00-01:00")).as_deref(), Some("2024-03-01 00:30:00.000Z"));
        assert_eq!(parse(&json!("2000-02-29")).as_deref(), Some("2000-02-29 00:00:00.000Z"));
        assert_eq!(parse(&json!("1900-02-29")), None);
    }
}
