//! Where parcels go.

use zeroize::Zeroizing;

use super::{
    Country, Encoder, Invalid, Value,
    text::{self, Masked, Origin},
};
use crate::wire::Reader;

/// A postal address: one to eight lines and a country, and a city, region and postal code where the shop has them
/// apart. Many shops have the whole address in one text: then that is the lines, and the rest is absent.
///
/// Each part is one line in NFC with single spaces: lines of at most 256 characters, city and region 128, postal code
/// 16. Encoding: the country's two letters; a byte that counts the lines; lines, city, region, postal code, each after
/// a varint that counts its bytes, 0 for an absent part.
pub struct PostalAddress {
    country: Country,
    lines: Vec<Zeroizing<String>>,
    city: Option<Zeroizing<String>>,
    region: Option<Zeroizing<String>>,
    postal_code: Option<Zeroizing<String>>,
}

const MOST_LINES: usize = 8;
const LONGEST_LINE: usize = 256;
const LONGEST_PLACE: usize = 128;
const LONGEST_CODE: usize = 16;
const LONGEST_TEXT: usize = 16 * 1024;

impl PostalAddress {
    /// Reads the lines: street and house, or the whole address as it is written on a letter. Lines end with a line
    /// feed; blank ones are left out.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooLong`] (more than eight lines too), [`Invalid::Character`].
    pub fn parse(text: &str, country: Country) -> Result<Self, Invalid> {
        if text.len() > LONGEST_TEXT {
            return Err(Invalid::TooLong);
        }
        let mut lines = Vec::with_capacity(MOST_LINES);
        for line in text.split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line);
            match text::line(line, LONGEST_LINE, Origin::Given) {
                Err(Invalid::Empty) => {}
                Err(why) => return Err(why),
                Ok(_) if lines.len() == MOST_LINES => return Err(Invalid::TooLong),
                Ok(line) => lines.push(line),
            }
        }
        if lines.is_empty() {
            return Err(Invalid::Empty);
        }
        Ok(PostalAddress { country, lines, city: None, region: None, postal_code: None })
    }

    /// With the city or place.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooLong`], [`Invalid::Character`].
    pub fn with_city(mut self, text: &str) -> Result<Self, Invalid> {
        self.city = Some(text::line(text, LONGEST_PLACE, Origin::Given)?);
        Ok(self)
    }

    /// With the state, province or prefecture, by name or code.
    ///
    /// # Errors
    ///
    /// As [`with_city`](Self::with_city).
    pub fn with_region(mut self, text: &str) -> Result<Self, Invalid> {
        self.region = Some(text::line(text, LONGEST_PLACE, Origin::Given)?);
        Ok(self)
    }

    /// With the postal code: ASCII letters, which become capitals, digits, spaces and hyphens. Countries' forms are not
    /// checked: they change, and a parcel still arrives.
    ///
    /// # Errors
    ///
    /// As [`with_city`](Self::with_city).
    pub fn with_postal_code(mut self, text: &str) -> Result<Self, Invalid> {
        self.postal_code = Some(postal_code(text, Origin::Given)?);
        Ok(self)
    }

    /// The country.
    #[must_use]
    pub fn expose_country(&self) -> Country {
        self.country
    }

    /// The lines, at least one.
    pub fn expose_lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.as_str())
    }

    /// The city, where it was given apart.
    #[must_use]
    pub fn expose_city(&self) -> Option<&str> {
        self.city.as_deref().map(String::as_str)
    }

    /// The region, where it was given apart.
    #[must_use]
    pub fn expose_region(&self) -> Option<&str> {
        self.region.as_deref().map(String::as_str)
    }

    /// The postal code, where it was given apart.
    #[must_use]
    pub fn expose_postal_code(&self) -> Option<&str> {
        self.postal_code.as_deref().map(String::as_str)
    }

    /// The country alone.
    #[must_use]
    pub fn masked(&self) -> Masked {
        let mut tail = String::with_capacity(3);
        tail.push(' ');
        tail.push_str(self.country.as_str());
        Masked::showing("", &tail)
    }

    fn places(&self) -> [&str; 3] {
        [self.expose_city(), self.expose_region(), self.expose_postal_code()].map(Option::unwrap_or_default)
    }
}

opaque!(PostalAddress);

impl Value for PostalAddress {
    fn encoded_len(&self) -> usize {
        self.expose_lines().chain(self.places()).map(text::text_len).fold(3, usize::saturating_add)
    }

    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(self.country.as_str().as_bytes());
        out.put(&[u8::try_from(self.lines.len()).unwrap_or(u8::MAX)]);
        for part in self.expose_lines().chain(self.places()) {
            text::put_text(out, part);
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let country = Country::from_capitals(reader.array().ok()?)?;
        let count = usize::from(reader.u8().ok()?);
        if !(1..=MOST_LINES).contains(&count) {
            return None;
        }
        let mut lines = Vec::with_capacity(count);
        for _ in 0..count {
            lines.push(text::line(reader.text().ok()?, LONGEST_LINE, Origin::Stored).ok()?);
        }
        let mut place = |read: fn(&str) -> Result<Zeroizing<String>, Invalid>| match reader.text().ok()? {
            "" => Some(None),
            text => read(text).ok().map(Some),
        };
        let (city, region) = (place(stored_place)?, place(stored_place)?);
        let postal_code = place(|text| postal_code(text, Origin::Stored))?;
        reader.end().ok()?;
        Some(PostalAddress { country, lines, city, region, postal_code })
    }
}

fn stored_place(text: &str) -> Result<Zeroizing<String>, Invalid> {
    text::line(text, LONGEST_PLACE, Origin::Stored)
}

fn postal_code(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
    let mut code = text::line(text, LONGEST_CODE, origin)?;
    if !code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ' || b == b'-') {
        return Err(Invalid::Character);
    }
    code.make_ascii_uppercase();
    if origin == Origin::Stored && *code != *text { Err(Invalid::Form) } else { Ok(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn country() -> Country {
        Country::parse("CA").unwrap()
    }

    #[test]
    fn parts_and_one_block_are_both_addresses() {
        let parts = PostalAddress::parse("1498 rue B\u{e9}langer", country()).unwrap();
        let parts = parts.with_city("Montr\u{e9}al").unwrap().with_region("QC").unwrap();
        let parts = parts.with_postal_code(" h2g  1a7").unwrap();
        assert_eq!(parts.places(), ["Montr\u{e9}al", "QC", "H2G 1A7"]);
        let block = PostalAddress::parse("\r\n a  b \r\n\n c\n", country()).unwrap();
        assert_eq!(block.expose_lines().collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(block.expose_city(), None);
        assert_eq!(block.masked().as_str(), "*** CA");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "\n\n", "a\tb", "a\u{202e}b", "1\n2\n3\n4\n5\n6\n7\n8\n9"] {
            assert!(PostalAddress::parse(text, country()).is_err());
        }
        assert!(PostalAddress::parse("a", country()).unwrap().with_postal_code("\u{ff11}").is_err());
        assert!(PostalAddress::parse("a", country()).unwrap().with_city("a\nb").is_err());
        assert!(PostalAddress::parse("a", country()).unwrap().with_region("").is_err());
    }

    #[test]
    fn only_the_one_encoding_decodes() {
        for bytes in [
            &b"ca\x01\x01a\0\0\0"[..],
            b"ZZ\x01\x01a\0\0\0",
            b"CA\0\0\0\0",
            b"CA\x01\0\0\0\0",
            b"CA\x01\x01a\0\0",
        ] {
            assert!(PostalAddress::decode(bytes).is_none());
        }
        assert!(PostalAddress::decode(b"CA\x01\x01a\0\0\x01h").is_none());
        assert!(PostalAddress::decode(b"CA\x01\x01a\0\0\0\0").is_none());
        assert!(PostalAddress::decode(b"CA\x01\x01a\0\0\x01H").is_some());
    }
}
