//! Text and bytes of no particular form, and where a request came from.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use zeroize::Zeroizing;

use super::{
    Encoder, Invalid, Value,
    text::{self, Masked, Origin},
};

/// Text of any kind, 1 byte to 64 KiB, kept as it is: tabs and line breaks may stand in it, other controls and
/// characters that reorder what is shown may not.
pub struct FreeText(Zeroizing<String>);

impl FreeText {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooLong`], [`Invalid::Character`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    fn read(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
        text::block(text, 64 * 1024, origin)
    }

    /// Nothing.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::all()
    }
}

text_value!(FreeText);

/// What somebody searched for: one line of 1 to 1,024 characters, in NFC, single spaces.
pub struct SearchQuery(Zeroizing<String>);

impl SearchQuery {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooLong`], [`Invalid::Character`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    fn read(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
        text::line(text, 1024, origin)
    }

    /// Nothing.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::all()
    }
}

text_value!(SearchQuery);

/// Bytes of any kind, at most 1 MiB: a scan, a signature. None at all is allowed.
pub struct Bytes(Zeroizing<Vec<u8>>);

/// The most bytes of a [`Bytes`].
pub(crate) const MOST_BYTES: usize = 1024 * 1024;

impl Bytes {
    /// Copies the bytes. Wiping the original is the caller's.
    ///
    /// # Errors
    ///
    /// [`Invalid::TooLong`] for more than 1 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > MOST_BYTES {
            return Err(Invalid::TooLong);
        }
        Ok(Bytes(Zeroizing::new(bytes.to_vec())))
    }

    /// The bytes in the clear.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Nothing.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::all()
    }
}

opaque!(Bytes);
wiped_whole!(Bytes);

impl Value for Bytes {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(&self.0);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes).ok()
    }
}

/// The address of a host, IPv4 or IPv6. An IPv4 address that is written as an IPv6 one (`::ffff:192.0.2.1`) becomes
/// what it is. Encoding: its 4 or 16 bytes.
pub struct IpAddress(Zeroizing<Vec<u8>>);

impl IpAddress {
    /// Reads an address: four decimal numbers without leading zeros, or RFC 4291 without a zone.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`] or [`Invalid::Form`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::new(address)),
            Err(_) if text.is_empty() => Err(Invalid::Empty),
            Err(_) => Err(Invalid::Form),
        }
    }

    /// From an address that was read before.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        IpAddress(Zeroizing::new(match address.to_canonical() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }))
    }

    /// The address in the clear.
    #[must_use]
    pub fn expose(&self) -> IpAddr {
        if let Ok(octets) = <[u8; 4]>::try_from(self.0.as_slice()) {
            return IpAddr::from(octets);
        }
        <[u8; 16]>::try_from(self.0.as_slice()).map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::from)
    }

    /// The first half of an IPv4 address, the first 32 bits of an IPv6 address: the provider's.
    #[must_use]
    pub fn masked(&self) -> Masked {
        let head = match self.expose() {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                format!("{a}.{b}.")
            }
            IpAddr::V6(v6) => {
                let [a, b, ..] = v6.segments();
                format!("{a:x}:{b:x}:")
            }
        };
        Masked::showing(&head, "")
    }
}

opaque!(IpAddress);

impl FromStr for IpAddress {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl Value for IpAddress {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(&self.0);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let address = match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        };
        (address.to_canonical() == address).then(|| Self::new(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_value() {
        for (text, normal, mask) in [
            ("192.0.2.1", "192.0.2.1", "192.0.***"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.***"),
            ("2001:DB8:0::1", "2001:db8::1", "2001:db8:***"),
        ] {
            let address = IpAddress::parse(text).unwrap();
            assert_eq!((address.expose().to_string().as_str(), address.masked().as_str()), (normal, mask));
        }
        for text in
            ["", "192.0.2", "192.0.2.256", "192.0.2.01", "fe80::1%eth0", " 192.0.2.1", "1.2.3.4:80", "[::1]"]
        {
            assert!(IpAddress::parse(text).is_err());
        }
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        assert!(IpAddress::decode(&mapped.octets()).is_none());
        assert!(IpAddress::decode(&[0; 5]).is_none());
    }

    #[test]
    fn bounds_hold_to_the_byte() {
        assert!(FreeText::parse(&"a".repeat(65_536)).is_ok());
        assert_eq!(FreeText::parse(&"a".repeat(65_537)).err(), Some(Invalid::TooLong));
        assert_eq!(FreeText::parse("").err(), Some(Invalid::Empty));
        assert!(Bytes::parse(&vec![0; MOST_BYTES]).is_ok());
        assert!(Bytes::parse(&vec![0; MOST_BYTES + 1]).is_err());
        assert!(Bytes::parse(&[]).is_ok());
    }
}
