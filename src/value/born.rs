//! When people were born, and the number that says so.

use jiff::civil::Date;
use zeroize::Zeroizing;

use super::{
    Invalid,
    text::{self, Masked, Origin},
};
use crate::clock::Day;

/// A date of birth as ISO 8601 writes it, `1998-05-17`, from 1800 to 2149, a date of the (proleptic) Gregorian calendar.
pub struct DateOfBirth(Zeroizing<String>);

impl DateOfBirth {
    /// Reads `YYYY-MM-DD`. A value reads no clock: whether the date has come is asked with
    /// [`parse_before`](Self::parse_before).
    ///
    /// # Errors
    ///
    /// [`Invalid::Form`], or [`Invalid::Date`] where there is no such date, or before 1800 or after 2149.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    /// Reads `YYYY-MM-DD`, of today at the latest.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and [`Invalid::Future`] for a date after `today`.
    pub fn parse_before(text: &str, today: Day) -> Result<Self, Invalid> {
        if date(text)? > today.date() {
            return Err(Invalid::Future);
        }
        Self::parse(text)
    }

    fn read(text: &str, _: Origin) -> Result<Zeroizing<String>, Invalid> {
        date(text)?;
        Ok(text::copy(text))
    }

    /// Year, month and day.
    #[must_use]
    pub fn expose_parts(&self) -> (i16, i8, i8) {
        date(&self.0).map_or((0, 0, 0), |date| (date.year(), date.month(), date.day()))
    }

    /// Nothing: a year of birth alone says much.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::all()
    }
}

text_value!(DateOfBirth);

/// The number of a Chinese resident identity card, GB 11643-1999: eighteen characters, the last of them the check
/// character of ISO 7064 MOD 11-2, `X` for ten.
///
/// Form, province, date (from 1800 to 2149) and check character are checked. The county code is not: counties come and
/// go, and a list of today refuses people of yesterday. The older numbers of fifteen digits are refused; no card carries
/// one any more.
pub struct ResidentId(Zeroizing<String>);

impl ResidentId {
    /// Reads a number without separators; a small `x` becomes `X`.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooShort`], [`Invalid::TooLong`], [`Invalid::Character`]; [`Invalid::Range`] for a
    /// province that is none; [`Invalid::Date`]; [`Invalid::CheckDigit`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    /// Reads a number whose date is today's at the latest.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and [`Invalid::Future`] for a date of birth after `today`.
    pub fn parse_before(text: &str, today: Day) -> Result<Self, Invalid> {
        let id = Self::parse(text)?;
        if date(&id.born())? > today.date() { Err(Invalid::Future) } else { Ok(id) }
    }

    fn read(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
        match text.len() {
            0 => return Err(Invalid::Empty),
            1..18 => return Err(Invalid::TooShort),
            18 => {}
            _ => return Err(Invalid::TooLong),
        }
        let mut out = text::copy(text);
        out.make_ascii_uppercase();
        let (digits, check) = out.split_at_checked(17).ok_or(Invalid::Character)?;
        if !digits.bytes().all(|b| b.is_ascii_digit())
            || !check.bytes().all(|b| b.is_ascii_digit() || b == b'X')
        {
            return Err(Invalid::Character);
        }
        if origin == Origin::Given
            && !digits.get(..2).is_some_and(|code| PROVINCES.split(' ').any(|p| p == code))
        {
            return Err(Invalid::Range);
        }
        date(&born(&out))?;
        if mod_11_2(digits) != check.chars().next() {
            return Err(Invalid::CheckDigit);
        }
        Ok(out)
    }

    /// The date of birth in it.
    #[must_use]
    pub fn date_of_birth(&self) -> DateOfBirth {
        DateOfBirth(self.born())
    }

    fn born(&self) -> Zeroizing<String> {
        born(&self.0)
    }

    /// The first and the last character: a date of birth and a place would tell most of the rest.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::showing(self.0.get(..1).unwrap_or_default(), self.0.get(17..).unwrap_or_default())
    }
}

text_value!(ResidentId);

/// GB/T 2260 by its first two digits; 81 to 83 also stand on residence permits for people from Hong Kong, Macao and
/// Taiwan, 91 to 97 on permits for foreigners.
const PROVINCES: &str = "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 \
    81 82 83 91 92 93 94 95 96 97";

/// The date in a resident number of eighteen ASCII characters.
fn born(id: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(10));
    for (at, part) in [("", 6..10), ("-", 10..12), ("-", 12..14)] {
        out.push_str(at);
        out.push_str(id.get(part).unwrap_or_default());
    }
    out
}

/// ISO 7064 MOD 11-2 over the digits that stand before the check character.
fn mod_11_2(digits: &str) -> Option<char> {
    let sum = digits.bytes().fold(0_u32, |sum, b| {
        let digit = u32::from(b.wrapping_sub(b'0'));
        sum.wrapping_add(digit).wrapping_mul(2) % 11
    });
    match 12_u32.wrapping_sub(sum) % 11 {
        10 => Some('X'),
        digit => char::from_digit(digit, 10),
    }
}

/// `YYYY-MM-DD` and nothing else.
fn date(text: &str) -> Result<Date, Invalid> {
    if text.is_empty() {
        return Err(Invalid::Empty);
    }
    if text.len() != 10 || text.match_indices('-').map(|(at, _)| at).ne([4, 7]) {
        return Err(Invalid::Form);
    }
    let number = |digits: &str| {
        digits.bytes().try_fold(0_i16, |n, b| {
            let digit = b.is_ascii_digit().then(|| i16::from(b.wrapping_sub(b'0')))?;
            n.checked_mul(10)?.checked_add(digit)
        })
    };
    let mut parts = text.split('-').map(number);
    let mut part = || parts.next().flatten().ok_or(Invalid::Form);
    let (year, month, day) = (part()?, part()?, part()?);
    if !(1800..=2149).contains(&year) {
        return Err(Invalid::Date);
    }
    let [month, day] = [month, day].map(|n| i8::try_from(n).unwrap_or(i8::MAX)); // two digits: at most 99
    Date::new(year, month, day).map_err(|_| Invalid::Date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_that_is_none_is_refused() {
        for text in [
            "1990-02-30",
            "1900-02-29",
            "2023-13-01",
            "2023-00-01",
            "2023-01-00",
            "1799-12-31",
            "2150-01-01",
            "2190-01-01",
        ] {
            assert_eq!(DateOfBirth::parse(text).err(), Some(Invalid::Date), "{text}");
        }
        for text in [
            "",
            "1990-1-1",
            "19900101",
            "1990/01/01",
            " 1990-01-01",
            "1990-01-01T00",
            "+990-01-01",
            "1990-0\u{661}-1",
        ] {
            assert!(DateOfBirth::parse(text).is_err(), "{text}");
        }
        assert_eq!(DateOfBirth::parse("2000-02-29").unwrap().expose_parts(), (2000, 2, 29));
    }

    #[test]
    fn today_is_the_last_day_to_be_born() {
        let today = Day::from_ymd(2026, 3, 1).unwrap();
        assert!(DateOfBirth::parse_before("2026-03-01", today).is_ok());
        assert_eq!(DateOfBirth::parse_before("2026-03-02", today).err(), Some(Invalid::Future));
        assert!(ResidentId::parse_before("11010519491231002X", today).is_ok());
        let then = Day::from_ymd(1970, 1, 1).unwrap();
        assert_eq!(ResidentId::parse_before("650102199208214463", then).err(), Some(Invalid::Future));
    }

    #[test]
    fn the_standards_own_example_parses_and_its_neighbours_do_not() {
        let id = ResidentId::parse("11010519491231002x").unwrap();
        assert_eq!(id.expose(), "11010519491231002X");
        assert_eq!(id.date_of_birth().expose(), "1949-12-31");
        for (text, why) in [
            ("110105194912310021", Invalid::CheckDigit),
            ("11010519491231002Y", Invalid::Character),
            ("110105199002300019", Invalid::Date),
            ("110105491231002", Invalid::TooShort),
            ("00010519491231002X", Invalid::Range),
            ("1101051949123100X2", Invalid::Character),
            ("", Invalid::Empty),
        ] {
            assert_eq!(ResidentId::parse(text).err(), Some(why));
        }
    }
}
