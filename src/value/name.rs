//! What people are called.

use zeroize::Zeroizing;

use super::{
    Invalid,
    text::{self, Masked, Origin},
};

/// The name of a person as it is written on a parcel, in any script: one line of 1 to 256 characters, in NFC, single
/// spaces. It is not divided into first and last: many names are not.
pub struct PersonName(Zeroizing<String>);

const LONGEST: usize = 256;

impl PersonName {
    /// Reads a name. Letters composed of parts are joined (NFC), runs of spaces become one.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooLong`]; [`Invalid::Character`] for controls, line breaks, characters that
    /// reorder or hide text, marks without a letter and unassigned code points; [`Invalid::Form`] where no letter is in
    /// it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    fn read(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
        let name = text::line(text, LONGEST, origin)?;
        let letter = |c: char| c.is_alphabetic() || text::is_private(c);
        if origin == Origin::Given && !name.chars().any(letter) {
            return Err(Invalid::Form);
        }
        Ok(name)
    }

    /// The first character of a name of at least six, else nothing: a Chinese name has two or three.
    #[must_use]
    pub fn masked(&self) -> Masked {
        if self.0.chars().count() < 6 {
            return Masked::all();
        }
        let head = self.0.chars().next().map_or(0, char::len_utf8);
        Masked::showing(self.0.get(..head).unwrap_or_default(), "")
    }
}

text_value!(PersonName);
