//! Telephone numbers.

mod plans;

use zeroize::Zeroizing;

use super::{
    Country, Invalid,
    text::{self, Masked, Origin},
};
use plans::Plan;

/// A telephone number in international form, ITU-T E.164, with an optional extension.
///
/// What people type is read by the region's habits: trunk prefix (`030 …`), international prefix (`0033 …`), a calling
/// code with or without the trunk prefix after it (`+33 (0)4 …`), spaces, hyphens, dots, slashes and brackets, and an
/// extension (`x12`, `ext. 12`, `#12`). Numbers have the length that the country's plan allows; whether one is in use
/// nobody can tell from it.
///
/// For some fifty countries the habits are known; numbers of others are read with a plus only. Letters, digits of other
/// scripts and more than fifteen digits are refused. Encoding: `+` and digits; `x` and digits where there is an
/// extension.
pub struct Phone(Zeroizing<String>);

const LONGEST_TEXT: usize = 64;
/// Fifteen digits, an international prefix of at most four, a trunk prefix of at most two.
const MOST_DIGITS: usize = 21;
const MOST_EXTENSION: usize = 9;

impl Phone {
    /// Reads a number as it is written in `region`.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooShort`], [`Invalid::TooLong`], [`Invalid::Character`]; [`Invalid::Form`] for
    /// brackets that do not close or a number that begins as none does; [`Invalid::Range`] for a calling code that is
    /// none; [`Invalid::Country`] where there is no plus and the region's habits are not known here.
    pub fn parse(text: &str, region: Country) -> Result<Self, Invalid> {
        given(text, Some(region)).map(Phone)
    }

    /// Reads a number that begins with a plus, from anywhere. `str::parse` does the same.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse); [`Invalid::Country`] where there is no plus.
    pub fn parse_international(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    /// A plus and up to fifteen digits.
    #[must_use]
    pub fn expose_e164(&self) -> &str {
        self.0.split_once('x').map_or(&self.0, |(number, _)| number)
    }

    /// The extension, up to nine digits.
    #[must_use]
    pub fn expose_extension(&self) -> Option<&str> {
        self.0.split_once('x').map(|(_, extension)| extension)
    }

    /// The calling code, and the last two digits of a number that has at least eight more.
    #[must_use]
    pub fn masked(&self) -> Masked {
        let number = self.expose_e164();
        let digits = number.get(1..).unwrap_or_default();
        let code = plans::split(digits).map_or(0, |(code, _)| code.len());
        if digits.len() < code.saturating_add(8) {
            return Masked::all();
        }
        let head = number.get(..=code).unwrap_or_default();
        Masked::showing(head, number.get(number.len().saturating_sub(2)..).unwrap_or_default())
    }

    fn read(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
        match origin {
            Origin::Given => given(text, None),
            Origin::Stored => stored(text),
        }
    }
}

text_value!(Phone);

/// The form alone: numbering plans change, and what was sealed must open.
fn stored(text: &str) -> Result<Zeroizing<String>, Invalid> {
    let number = text.strip_prefix('+').ok_or(Invalid::Form)?;
    let (digits, extension) = match number.split_once('x') {
        Some((digits, extension)) => (digits, Some(extension)),
        None => (number, None),
    };
    let all = |digits: &str, range: std::ops::RangeInclusive<usize>| {
        range.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    if !all(digits, 5..=15)
        || digits.starts_with('0')
        || !extension.is_none_or(|e| all(e, 1..=MOST_EXTENSION))
    {
        return Err(Invalid::Form);
    }
    Ok(text::copy(text))
}

fn given(text: &str, region: Option<Country>) -> Result<Zeroizing<String>, Invalid> {
    let text = text.trim_matches(' ');
    match text.len() {
        0 => return Err(Invalid::Empty),
        n if n > LONGEST_TEXT => return Err(Invalid::TooLong),
        _ => {}
    }
    let (number, extension) = split_extension(text)?;
    let (number, plus) = number.strip_prefix('+').map_or((number, false), |number| (number, true));
    let digits = digits(number)?;
    let (code, national) = if plus {
        international(&digits, number.contains("(0)"))?
    } else {
        let plan = region.and_then(plans::of_region).ok_or(Invalid::Country)?;
        nationally(&digits, plan)?
    };
    let mut out = Zeroizing::new(String::with_capacity(1 + 15 + 1 + MOST_EXTENSION));
    out.push('+');
    out.push_str(code);
    out.push_str(national);
    if let Some(extension) = extension {
        out.push('x');
        out.push_str(extension);
    }
    Ok(out)
}

/// After a plus, which says that it is meant so.
fn international(digits: &str, bracketed_zero: bool) -> Result<(&str, &str), Invalid> {
    let (code, rest) = plans::split(digits).ok_or(Invalid::Range)?;
    if plans::of_code(code).is_some() {
        return abroad(digits);
    }
    // "(0)" is left out or dialled, as the country has it; of this one it is not known.
    if bracketed_zero {
        return Err(Invalid::Form);
    }
    within(rest, 4, 15_usize.saturating_sub(code.len())).map(|rest| (code, rest))
}

/// To a country whose plan is known: after two zeros, a number of any length might otherwise pass for one of a country
/// that nobody thought of.
fn abroad(digits: &str) -> Result<(&str, &str), Invalid> {
    let (code, rest) = plans::split(digits).ok_or(Invalid::Range)?;
    let plan = plans::of_code(code).ok_or(Invalid::Country)?;
    planned(without_trunk(rest, plan), plan).map(|rest| (code, rest))
}

fn nationally<'a>(digits: &'a str, plan: &Plan) -> Result<(&'a str, &'a str), Invalid> {
    for prefix in plan.abroad {
        if let Some(rest) = digits.strip_prefix(prefix)
            && !rest.starts_with('0')
        {
            return abroad(rest);
        }
    }
    // Two zeros that are no way abroad: whatever was meant, it would be guessed.
    if plan.trunk == "0" && digits.starts_with("00") {
        return Err(Invalid::Form);
    }
    let national = match digits.strip_prefix(plan.code) {
        // The plus was forgotten: as it stands, it would be too long.
        Some(rest) if digits.len() > plan.longest() && plan.trunk != plan.code => without_trunk(rest, plan),
        _ => without_trunk(digits, plan),
    };
    planned(national, plan).map(|national| (plan.code, national))
}

fn without_trunk<'a>(digits: &'a str, plan: &Plan) -> &'a str {
    match digits.strip_prefix(plan.trunk) {
        Some(rest) if plan.lengths.contains(&rest.len()) || rest.len() > plan.longest() => rest,
        _ => digits,
    }
}

fn planned<'a>(digits: &'a str, plan: &Plan) -> Result<&'a str, Invalid> {
    match digits.len() {
        n if plan.lengths.contains(&n) => Ok(digits),
        n if n > plan.longest() => Err(Invalid::TooLong),
        _ => Err(Invalid::TooShort),
    }
}

fn within(digits: &str, shortest: usize, longest: usize) -> Result<&str, Invalid> {
    match digits.len() {
        n if n < shortest => Err(Invalid::TooShort),
        n if n > longest => Err(Invalid::TooLong),
        _ => Ok(digits),
    }
}

fn split_extension(text: &str) -> Result<(&str, Option<&str>), Invalid> {
    let Some(at) = text.find(['x', 'X', '#', 'e', 'E', ';']) else { return Ok((text, None)) };
    let (number, tail) = text.split_at(at);
    let marker =
        |marker: &&str| tail.get(..marker.len()).is_some_and(|head| head.eq_ignore_ascii_case(marker));
    let marker = [";ext=", "ext.", "ext", "x", "#"].into_iter().find(marker).ok_or(Invalid::Character)?;
    let extension = tail.get(marker.len()..).unwrap_or_default().trim_matches(' ');
    if !extension.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::Character);
    }
    within(extension, 1, MOST_EXTENSION)?;
    Ok((number.trim_end_matches([' ', ',']), Some(extension)))
}

fn digits(number: &str) -> Result<Zeroizing<String>, Invalid> {
    let mut out = Zeroizing::new(String::with_capacity(MOST_DIGITS));
    let mut open = false;
    for c in number.chars() {
        match c {
            '0'..='9' if out.len() == MOST_DIGITS => return Err(Invalid::TooLong),
            '0'..='9' => out.push(c),
            '(' | ')' if open == (c == '(') => return Err(Invalid::Form),
            '(' | ')' => open = !open,
            ' ' | '-' | '.' | '/' | '\u{A0}' | '\u{2010}'..='\u{2013}' => {}
            _ => return Err(Invalid::Character),
        }
    }
    match out.len() {
        0 => Err(Invalid::TooShort),
        _ if open => Err(Invalid::Form),
        _ => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value as _;

    fn read(text: &str, region: &str) -> Result<String, Invalid> {
        Phone::parse(text, Country::parse(region).unwrap()).map(|phone| phone.expose().to_owned())
    }

    #[test]
    fn what_people_type_becomes_one_form() {
        for (text, region, normal) in [
            ("+33 (0)4 74 53 09 04", "FR", "+33474530904"),
            ("+33 01 49 70 65 65", "DE", "+33149706565"),
            ("(0114) 4960787", "GB", "+441144960787"),
            ("001-746-539-6705", "US", "+17465396705"),
            ("+1-365-641-8408x88641", "US", "+13656418408x88641"),
            ("365.641.8408 Ext. 7", "CA", "+13656418408x7"),
            ("+49 (0) 0728 580952", "DE", "+490728580952"),
            ("09-90056215", "TW", "+886990056215"),
            ("+34 914 454 454", "ES", "+34914454454"),
            ("+39 06 39733434", "IT", "+390639733434"),
            ("0011 44 20 7946 0000", "AU", "+442079460000"),
            ("8 (912) 345-67-89", "RU", "+79123456789"),
            ("06 1 234 5678", "HU", "+3612345678"),
            ("55 (11) 98765-4321", "BR", "+5511987654321"),
            ("+354 410 4000", "US", "+3544104000"),
            ("+376 812 345", "US", "+376812345"),
        ] {
            assert_eq!(read(text, region).as_deref(), Ok(normal), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for (text, region, why) in [
            ("", "US", Invalid::Empty),
            ("---", "CN", Invalid::TooShort),
            ("+1 800 FLOWERS", "FR", Invalid::Character),
            ("+999999999999999999999999999999", "CN", Invalid::TooLong),
            ("+1234567890123456", "US", Invalid::TooLong),
            ("555-1234", "US", Invalid::TooShort),
            ("+999 1234567", "US", Invalid::Range),
            ("+0 1234567", "US", Invalid::Range),
            ("00795295505", "DE", Invalid::TooShort),
            ("0 (0)30 123456", "DE", Invalid::TooShort), // Greece
            ("00-5849-5630", "JP", Invalid::Form),
            ("030 (123456", "DE", Invalid::Form),
            ("030 ((123))456", "DE", Invalid::Form),
            ("+44+20 7946 0000", "GB", Invalid::Character),
            ("\u{ff10}30 123456", "DE", Invalid::Character),
            ("030 123456\n", "DE", Invalid::Character),
            ("030 123456 x", "DE", Invalid::TooShort),
            ("030 123456 x1234567890", "DE", Invalid::TooLong),
            ("030 123456 x1x2", "DE", Invalid::Character),
            ("12345678", "VA", Invalid::Country),
            ("+376 (0)812 345", "US", Invalid::Form),
        ] {
            assert_eq!(read(text, region), Err(why), "{text}");
        }
        assert_eq!(Phone::parse_international("030 123456").err(), Some(Invalid::Country));
    }

    #[test]
    fn a_stored_number_is_plus_digits_and_extension() {
        for text in ["+4930123456", "+13656418408x88641", "+99912345"] {
            assert!(Phone::decode(text.as_bytes()).is_some());
        }
        for text in [
            "",
            "+",
            "+1",
            "4930123456",
            "+0301234567",
            "+49 30 123456",
            "+4930123456x",
            "+4930123456x1x",
            "+1234567890123456",
        ] {
            assert!(Phone::decode(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn abuse_24_a_mask_keeps_code_and_two_digits_of_a_long_number() {
        assert_eq!(read("+49 30 123456", "DE").map(|_| ()), Ok(()));
        let mask = |text: &str| Phone::parse_international(text).unwrap().masked().as_str().to_owned();
        assert_eq!(mask("+49 30 12345678"), "+49***78");
        assert_eq!(mask("+1 365 641 8408 x123"), "+1***08");
        assert_eq!(mask("+354 410 4000"), "***");
    }
}
