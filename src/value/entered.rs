//! Input that is kept though it does not parse.

use std::{fmt, marker::PhantomData, str::FromStr};

use zeroize::Zeroizing;

use super::{
    Encoder, Invalid, Value,
    text::{self, Masked},
};

/// What somebody entered where a `T` was asked for, kept as it is: 1 to 4,096 bytes of text that may be anything, so it
/// must not be printed or put into a mail without care. Use it where a wrong entry is worth more than none.
///
/// ```
/// use customer_vault::value::{AsEntered, Country, Phone};
///
/// let entered = AsEntered::<Phone>::keep("ask for Ann, (0114) 4960787")?;
/// let region = Country::parse("GB")?;
/// assert!(entered.parsed_by(|text| Phone::parse(text, region)).is_err());
/// # Ok::<(), customer_vault::value::Invalid>(())
/// ```
pub struct AsEntered<T> {
    text: Zeroizing<String>,
    kind: PhantomData<fn() -> T>,
}

const LONGEST: usize = 4096;

impl<T> AsEntered<T> {
    /// Keeps the text as it is.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], or [`Invalid::TooLong`] for more than 4,096 bytes.
    pub fn keep(text: &str) -> Result<Self, Invalid> {
        match text.len() {
            0 => Err(Invalid::Empty),
            1..=LONGEST => Ok(AsEntered { text: text::copy(text), kind: PhantomData }),
            _ => Err(Invalid::TooLong),
        }
    }

    /// The text in the clear, unchecked.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Reads it as what was asked for.
    ///
    /// # Errors
    ///
    /// As the type's own `parse`.
    pub fn parsed(&self) -> Result<T, Invalid>
    where
        T: FromStr<Err = Invalid>,
    {
        self.text.parse()
    }

    /// Reads it as what was asked for, where that takes more than the text: a phone's region, today's date.
    ///
    /// # Errors
    ///
    /// What `parse` returns.
    pub fn parsed_by(&self, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Result<T, Invalid> {
        parse(&self.text)
    }

    /// Nothing: where it does not parse, nobody knows what it holds.
    #[must_use]
    pub fn masked(&self) -> Masked {
        Masked::all()
    }
}

impl<T> fmt::Debug for AsEntered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsEntered(***)")
    }
}

impl<T: Value> Value for AsEntered<T> {
    fn encoded_len(&self) -> usize {
        self.text.len()
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(self.text.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::keep(std::str::from_utf8(bytes).ok()?).ok()
    }
}
