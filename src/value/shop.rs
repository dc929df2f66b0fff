//! What people bought and looked at.

use std::str::from_utf8;

use zeroize::Zeroizing;

use super::{
    Encoder, Invalid, Value,
    text::{self, Masked, Origin},
};
use crate::{clock::Day, wire::Reader};

/// One line of an order: what (an article number or a description, one line of 1 to 512 characters), how many, the price
/// of one in the currency's smallest unit, and the currency's ISO 4217 code.
///
/// Encoding: quantity as u32 and price as i64, big-endian, three letters, then the text.
pub struct OrderLine {
    quantity: Zeroizing<u32>,
    unit_price: Zeroizing<i64>,
    currency: Zeroizing<[u8; 3]>,
    item: Zeroizing<String>,
}

const LONGEST_ITEM: usize = 512;

impl OrderLine {
    /// Reads a line that is charged, or free of charge. `unit_price` is in the smallest unit: cents, yen.
    ///
    /// # Errors
    ///
    /// [`Invalid::Range`] for a quantity of 0 or a price below 0; [`Invalid::Form`] where the currency is not three
    /// capitals; [`Invalid::Empty`], [`Invalid::TooLong`], [`Invalid::Character`] for the text.
    pub fn parse(item: &str, quantity: u32, unit_price: i64, currency: &str) -> Result<Self, Invalid> {
        if unit_price < 0 {
            return Err(Invalid::Range);
        }
        Self::new(item, quantity, unit_price, currency.as_bytes(), Origin::Given)
    }

    /// Reads a line that is given back, a discount or a return: its price is below 0.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), with [`Invalid::Range`] for a price of 0 or more.
    pub fn parse_credit(item: &str, quantity: u32, unit_price: i64, currency: &str) -> Result<Self, Invalid> {
        if unit_price >= 0 {
            return Err(Invalid::Range);
        }
        Self::new(item, quantity, unit_price, currency.as_bytes(), Origin::Given)
    }

    fn new(
        item: &str,
        quantity: u32,
        unit_price: i64,
        currency: &[u8],
        origin: Origin,
    ) -> Result<Self, Invalid> {
        if quantity == 0 {
            return Err(Invalid::Range);
        }
        let currency = <[u8; 3]>::try_from(currency).map_err(|_| Invalid::Form)?;
        if !currency.iter().all(u8::is_ascii_uppercase) {
            return Err(Invalid::Form);
        }
        Ok(OrderLine {
            quantity: Zeroizing::new(quantity),
            unit_price: Zeroizing::new(unit_price),
            currency: Zeroizing::new(currency),
            item: text::line(item, LONGEST_ITEM, origin)?,
        })
    }

    /// What was bought.
    #[must_use]
    pub fn expose_item(&self) -> &str {
        &self.item
    }

    /// How many, at least 1.
    #[must_use]
    pub fn expose_quantity(&self) -> u32 {
        *self.quantity
    }

    /// The price of one, in the currency's smallest unit.
    #[must_use]
    pub fn expose_unit_price(&self) -> i64 {
        *self.unit_price
    }

    /// Quantity times price; `None` where that is beyond an `i64`.
    #[must_use]
    pub fn expose_total(&self) -> Option<i64> {
        self.unit_price.checked_mul(i64::from(*self.quantity))
    }

    /// Three capitals.
    #[must_use]
    pub fn expose_currency(&self) -> &str {
        from_utf8(self.currency.as_slice()).unwrap_or_default()
    }

    /// Nothing.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::all()
    }
}

opaque!(OrderLine);

impl Value for OrderLine {
    fn encoded_len(&self) -> usize {
        self.item.len().saturating_add(15)
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(&self.quantity.to_be_bytes());
        out.put(&self.unit_price.to_be_bytes());
        out.put(self.currency.as_slice());
        out.put(self.item.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (quantity, unit_price) = (reader.u32().ok()?, reader.i64().ok()?);
        let currency = reader.take(3).ok()?;
        Self::new(from_utf8(reader.rest()).ok()?, quantity, unit_price, currency, Origin::Stored).ok()
    }
}

/// One thing that somebody did in the shop: what (`view`, `cart`; one line of 1 to 64 characters), on which page or
/// article (a URL or number, one line of 1 to 2,048 characters), and when, in milliseconds since 1970 in UTC.
///
/// Encoding: the time as i64, big-endian; what, and on which, each after a varint that counts its bytes.
pub struct BrowsingEvent {
    when_ms: Zeroizing<i64>,
    what: Zeroizing<String>,
    target: Zeroizing<String>,
}

impl BrowsingEvent {
    /// Reads an event.
    ///
    /// # Errors
    ///
    /// [`Invalid::Range`] for a time before 1970 or after 2149-06-06; [`Invalid::Empty`], [`Invalid::TooLong`],
    /// [`Invalid::Character`] for the texts.
    pub fn parse(what: &str, target: &str, when_ms: i64) -> Result<Self, Invalid> {
        Self::new(what, target, when_ms, Origin::Given)
    }

    fn new(what: &str, target: &str, when_ms: i64, origin: Origin) -> Result<Self, Invalid> {
        if !(0..Day(u16::MAX).end_ms()).contains(&when_ms) {
            return Err(Invalid::Range);
        }
        Ok(BrowsingEvent {
            when_ms: Zeroizing::new(when_ms),
            what: text::line(what, 64, origin)?,
            target: text::line(target, 2048, origin)?,
        })
    }

    /// What was done.
    #[must_use]
    pub fn expose_what(&self) -> &str {
        &self.what
    }

    /// The page or article.
    #[must_use]
    pub fn expose_target(&self) -> &str {
        &self.target
    }

    /// When, in milliseconds since 1970 in UTC.
    #[must_use]
    pub fn expose_when_ms(&self) -> i64 {
        *self.when_ms
    }

    /// Nothing.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::all()
    }
}

opaque!(BrowsingEvent);

impl Value for BrowsingEvent {
    fn encoded_len(&self) -> usize {
        [&self.what, &self.target].map(|text| text::text_len(text)).into_iter().fold(8, usize::saturating_add)
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(&self.when_ms.to_be_bytes());
        text::put_text(out, &self.what);
        text::put_text(out, &self.target);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let when_ms = reader.i64().ok()?;
        let (what, target) = (reader.text().ok()?, reader.text().ok()?);
        reader.end().ok()?;
        Self::new(what, target, when_ms, Origin::Stored).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_not_negative_and_a_credit_is() {
        let line = OrderLine::parse("SKU-1", 3, 1999, "EUR").unwrap();
        assert_eq!((line.expose_total(), line.expose_currency()), (Some(5997), "EUR"));
        assert_eq!(OrderLine::parse("SKU-1", 1, -1, "EUR").err(), Some(Invalid::Range));
        assert!(OrderLine::parse_credit("voucher", 1, -500, "EUR").is_ok());
        assert!(OrderLine::parse_credit("voucher", 1, 0, "EUR").is_err());
        assert_eq!(OrderLine::parse("SKU-1", 2, i64::MAX, "EUR").unwrap().expose_total(), None);
        for (item, quantity, currency) in
            [("", 1, "EUR"), ("a", 0, "EUR"), ("a", 1, "eur"), ("a", 1, "EURO"), ("a", 1, "E1R")]
        {
            assert!(OrderLine::parse(item, quantity, 1, currency).is_err());
        }
    }

    #[test]
    fn an_event_lies_in_the_calendar() {
        assert!(BrowsingEvent::parse("view", "https://shop.example/p/1?q=a%20b", 1_700_000_000_000).is_ok());
        for when in [-1, i64::MIN, i64::MAX, Day(u16::MAX).end_ms()] {
            assert_eq!(BrowsingEvent::parse("view", "x", when).err(), Some(Invalid::Range));
        }
        assert!(BrowsingEvent::parse("", "x", 1).is_err());
        assert!(BrowsingEvent::parse("view", "x\ny", 1).is_err());
    }
}
