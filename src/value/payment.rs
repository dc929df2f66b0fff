//! What people pay with.

use iban::{BaseIban, Iban as Layout, ParseBaseIbanError, ParseIbanError};
use zeroize::Zeroizing;

use super::{
    Encoder, Invalid, Value,
    text::{self, Masked, Origin},
};

/// What a payment provider gives in place of a card: its token, and the last four digits for the customer to know the
/// card by. Keep this, and not [`CardNumber`].
///
/// The token is 1 to 255 printable ASCII characters without spaces. Encoding: the four digits, then the token.
pub struct PaymentToken {
    last_four: Zeroizing<String>,
    token: Zeroizing<String>,
}

impl PaymentToken {
    /// Reads the provider's token and four digits.
    ///
    /// # Errors
    ///
    /// [`Invalid::CardNumber`] where the token is a card number itself; [`Invalid::Empty`], [`Invalid::TooLong`],
    /// [`Invalid::Character`] for the token; [`Invalid::Form`] where there are not four digits.
    pub fn parse(token: &str, last_four: &str) -> Result<Self, Invalid> {
        match token.len() {
            0 => return Err(Invalid::Empty),
            1..=255 => {}
            _ => return Err(Invalid::TooLong),
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::Character);
        }
        // Otherwise the very number that the token is to replace gets in under its name.
        if CardNumber::parse(token).is_ok() {
            return Err(Invalid::CardNumber);
        }
        if last_four.len() != 4 || !last_four.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Invalid::Form);
        }
        Ok(PaymentToken { last_four: text::copy(last_four), token: text::copy(token) })
    }

    /// The provider's token.
    #[must_use]
    pub fn expose_token(&self) -> &str {
        &self.token
    }

    /// The last four digits of the card.
    #[must_use]
    pub fn expose_last_four(&self) -> &str {
        &self.last_four
    }

    /// The last four digits of the card.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::showing("", &self.last_four)
    }
}

opaque!(PaymentToken);

impl Value for PaymentToken {
    fn encoded_len(&self) -> usize {
        self.token.len().saturating_add(4)
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(self.last_four.as_bytes());
        out.put(self.token.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (last_four, token) = std::str::from_utf8(bytes).ok()?.split_at_checked(4)?;
        Self::parse(token, last_four).ok()
    }
}

/// The number of a payment card: 12 to 19 digits, the last a check digit (ISO/IEC 7812, Luhn).
///
/// **Do you need it?** Whoever keeps card numbers answers for PCI DSS in full. A payment provider gives a token instead,
/// and its [`PaymentToken`] is worth nothing to a thief. There is **no type for the verification code** (CVV, CVC, CID):
/// PCI DSS requirement 3.3 forbids keeping it after authorisation, encrypted or not.
pub struct CardNumber(Zeroizing<String>);

impl CardNumber {
    /// Reads ASCII digits; single spaces or hyphens may stand between them, and are left out.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooShort`], [`Invalid::TooLong`], [`Invalid::Character`],
    /// [`Invalid::CheckDigit`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    fn read(text: &str, _: Origin) -> Result<Zeroizing<String>, Invalid> {
        let out = compact(text, 19, u8::is_ascii_digit)?;
        if out.len() < 12 {
            return Err(Invalid::TooShort);
        }
        if luhn(&out) { Ok(out) } else { Err(Invalid::CheckDigit) }
    }

    /// The last four digits, and the first six where there are at least fifteen: as much as PCI DSS lets be shown.
    #[must_use]
    pub fn masked(&self) -> Masked {
        let last = self.0.get(self.0.len().saturating_sub(4)..).unwrap_or_default();
        let first = if self.0.len() < 15 { "" } else { self.0.get(..6).unwrap_or_default() };
        Masked::showing(first, last)
    }
}

text_value!(CardNumber);

/// An international bank account number, ISO 13616: the check digits and the country's own layout are checked. Kept in
/// electronic form: capitals, no spaces.
pub struct Iban(Zeroizing<String>);

impl Iban {
    /// Reads either form: letters of either case, single spaces or hyphens between characters.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooLong`], [`Invalid::Character`], [`Invalid::Form`], [`Invalid::CheckDigit`], or
    /// [`Invalid::Country`] for a country that has no IBAN.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    fn read(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
        let mut out = compact(text, 34, u8::is_ascii_alphanumeric)?;
        out.make_ascii_uppercase();
        let checked = match origin {
            Origin::Given => out.parse::<Layout>().map(|_| ()),
            Origin::Stored => out.parse::<BaseIban>().map(|_| ()).map_err(ParseIbanError::from),
        };
        // The library's errors hold the number: none of them goes on.
        match checked {
            Ok(()) => Ok(out),
            Err(ParseIbanError::UnknownCountry(_)) => Err(Invalid::Country),
            Err(ParseIbanError::InvalidBaseIban { source: ParseBaseIbanError::InvalidChecksum }) => {
                Err(Invalid::CheckDigit)
            }
            Err(_) => Err(Invalid::Form),
        }
    }

    /// The country and the last four characters.
    #[must_use]
    pub fn masked(&self) -> Masked {
        let last = self.0.get(self.0.len().saturating_sub(4)..).unwrap_or_default();
        Masked::showing(self.0.get(..2).unwrap_or_default(), last)
    }
}

text_value!(Iban);

/// The characters without single spaces and hyphens between them.
fn compact(text: &str, longest: usize, allowed: impl Fn(&u8) -> bool) -> Result<Zeroizing<String>, Invalid> {
    let mut out = Zeroizing::new(String::with_capacity(longest));
    let mut gap = true; // a separator may stand only after a character
    for b in text.bytes() {
        match b {
            b' ' | b'-' if gap => return Err(Invalid::Form),
            b' ' | b'-' => gap = true,
            b if !allowed(&b) => return Err(Invalid::Character),
            _ if out.len() == longest => return Err(Invalid::TooLong),
            b => {
                gap = false;
                out.push(char::from(b));
            }
        }
    }
    match (out.is_empty(), gap) {
        (true, _) => Err(Invalid::Empty),
        (_, true) => Err(Invalid::Form),
        _ => Ok(out),
    }
}

fn luhn(digits: &str) -> bool {
    let sum = digits.bytes().rev().zip([false, true].into_iter().cycle()).fold(0_u32, |sum, (b, double)| {
        let digit = u32::from(b.wrapping_sub(b'0'));
        let digit = if double { digit.wrapping_mul(2) } else { digit };
        sum.wrapping_add(if digit > 9 { digit.wrapping_sub(9) } else { digit })
    });
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_digits_with_single_separators() {
        assert_eq!(CardNumber::parse("4111-1111 1111 1111").unwrap().expose(), "4111111111111111");
        for (text, why) in [
            ("4111111111111112", Invalid::CheckDigit),
            ("4111-1111-1111-111X", Invalid::Character),
            ("4111  1111 1111 1111", Invalid::Form),
            (" 4111111111111111", Invalid::Form),
            ("4111111111111111-", Invalid::Form),
            ("4444444444444444444444444", Invalid::TooLong),
            ("\u{ff14}\u{ff11}\u{ff11}\u{ff11}", Invalid::Character),
            ("00000000000", Invalid::TooShort),
            ("", Invalid::Empty),
        ] {
            assert_eq!(CardNumber::parse(text).err(), Some(why), "{text}");
        }
        assert!(CardNumber::decode(b"4111 1111 1111 1111").is_none());
    }

    #[test]
    fn a_card_number_is_no_token() {
        for token in ["4111111111111111", "4111-1111-1111-1111"] {
            assert_eq!(PaymentToken::parse(token, "1111").err(), Some(Invalid::CardNumber));
        }
        for (token, four) in
            [("", "1111"), ("tok 1", "1111"), ("tok", "111"), ("tok", "111x"), ("tok\u{e9}", "1111")]
        {
            assert!(PaymentToken::parse(token, four).is_err());
        }
        assert!(PaymentToken::decode(b"11114111111111111111").is_none());
        assert!(PaymentToken::decode(b"1111tok_1").is_some());
    }

    #[test]
    fn abuse_24_a_card_shows_at_most_first_six_and_last_four() {
        for (text, mask) in [
            ("4111111111111111", "411111***1111"),
            ("378282246310005", "378282***0005"),
            ("6304000000000000000", "630400***0000"),
            ("50000000000000", "***0000"),
        ] {
            let Ok(card) = CardNumber::parse(text) else { continue };
            assert_eq!(card.masked().as_str(), mask);
        }
        assert_eq!(Iban::parse("de89 3704 0044 0532 0130 00").unwrap().masked().as_str(), "DE***3000");
    }

    #[test]
    fn ibans_are_refused_by_layout_check_digits_and_country() {
        for (text, why) in [
            ("DE88370400440532013000", Invalid::CheckDigit),
            ("DE8937040044053201300", Invalid::CheckDigit),
            ("AL84212110090000AB023569874", Invalid::Form),
            ("ZZ", Invalid::Form),
            ("DE89.3704", Invalid::Character),
        ] {
            assert_eq!(Iban::parse(text).err(), Some(why), "{text}");
        }
        assert!(Iban::decode(b"de89370400440532013000").is_none());
        assert!(Iban::decode(b"DE89 3704 0044 0532 0130 00").is_none());
    }
}
