//! What all texts share: which characters may stand in one, normalisation, masks, and memory that is wiped.

use std::fmt;

use unicode_normalization::{
    UnicodeNormalization as _,
    char::{is_combining_mark, is_public_assigned},
    is_nfc,
};
use zeroize::Zeroizing;

use super::{Encoder, Invalid};
use crate::wire::{self, Put as _};

/// What a report may show of a value: at most a few characters at either end, and three stars for the rest, however
/// long that is.
#[derive(Clone, PartialEq, Eq)]
pub struct Masked(String);

const STARS: &str = "***";

impl Masked {
    pub(super) fn all() -> Self {
        Masked(STARS.to_owned())
    }

    pub(super) fn showing(head: &str, tail: &str) -> Self {
        Masked([head, STARS, tail].concat())
    }

    /// The mask.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text comes from outside or out of a sealed cell. What was sealed once must open for ever, so a stored text
/// is held to the bounds and forms that never change, and not to tables that grow with each version of Unicode, of a
/// numbering plan or of a registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Given,
    Stored,
}

/// `Debug` that shows nothing, whatever is in it.
macro_rules! opaque {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(***)"))
            }
        }
    };
}

/// Wipes a `Zeroizing` vector or text in one piece: what is spare is wiped so, elements are wiped byte by byte.
macro_rules! wiped_whole {
    ($name:ident) => {
        impl Drop for $name {
            fn drop(&mut self) {
                self.0.clear();
            }
        }
    };
}

/// A value that is one text, encoded as its UTF-8: what the type's own `read` makes of it.
macro_rules! text_value {
    ($name:ident) => {
        opaque!($name);
        wiped_whole!($name);

        impl $name {
            /// The text in the clear.
            #[must_use]
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::value::Invalid;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::read(text, $crate::value::text::Origin::Given).map(Self)
            }
        }

        impl $crate::value::Value for $name {
            fn encoded_len(&self) -> usize {
                self.0.len()
            }
            fn encode(&self, out: &mut $crate::value::Encoder<'_>) {
                out.put(self.0.as_bytes());
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                let text = std::str::from_utf8(bytes).ok()?;
                let read = Self::read(text, $crate::value::text::Origin::Stored).ok()?;
                (*read == *text).then_some(Self(read))
            }
        }
    };
}

/// One line in NFC, 1 to `longest` characters: runs of spaces of any kind become one, those at the ends go. Refused are
/// controls, line breaks, everything that reorders or hides text (what is shown would not be what is there), marks
/// without a letter to stand on, and code points that Unicode has not assigned: their normal form is not settled.
pub(super) fn line(text: &str, longest: usize, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
    // Bounds the work on hostile input; a character in NFC takes at most four bytes, the rest is room for spaces.
    if text.len() > longest.saturating_mul(16) {
        return Err(Invalid::TooLong);
    }
    if is_plain_line(text) {
        // Nothing of it changes.
        return if text.len() > longest { Err(Invalid::TooLong) } else { Ok(copy(text)) };
    }
    scan(text, Kind::Line, origin)?;
    if origin == Origin::Stored {
        return stored_line(text, longest);
    }
    let size = text.nfc().map(char::len_utf8).fold(0, usize::saturating_add);
    let mut out = Zeroizing::new(String::with_capacity(size));
    let mut gap = false;
    for c in text.nfc() {
        if c.is_whitespace() {
            gap = !out.is_empty();
        } else {
            if gap {
                out.push(' ');
                gap = false;
            }
            out.push(c);
        }
    }
    match out.chars().count() {
        0 => Err(Invalid::Empty),
        n if n > longest => Err(Invalid::TooLong),
        _ => Ok(out),
    }
}

/// Printable ASCII with single spaces, none at the ends: most lines are that, and are what they shall become.
fn is_plain_line(text: &str) -> bool {
    let mut before = b' ';
    for byte in text.bytes() {
        if !matches!(byte, b' '..=b'~') || (byte == b' ' && before == b' ') {
            return false;
        }
        before = byte;
    }
    before != b' '
}

/// What a line became, again: it has to be what it would become.
fn stored_line(text: &str, longest: usize) -> Result<Zeroizing<String>, Invalid> {
    let (mut before, mut count) = (' ', 0_usize);
    for c in text.chars() {
        if c.is_whitespace() && (c != ' ' || before == ' ') {
            return Err(Invalid::Form);
        }
        before = c;
        count = count.saturating_add(1);
    }
    if count > longest {
        Err(Invalid::TooLong)
    } else if before == ' ' || !is_nfc(text) {
        Err(Invalid::Form)
    } else {
        Ok(copy(text))
    }
}

/// Text of several lines, kept as it was given, 1 to `longest` bytes. Tabs, line breaks and the marks of direction that
/// Arabic and Hebrew need may stand in it; overrides, embeddings and isolates may not.
pub(super) fn block(text: &str, longest: usize, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
    match text.len() {
        0 => return Err(Invalid::Empty),
        n if n > longest => return Err(Invalid::TooLong),
        _ => {}
    }
    scan(text, Kind::Block, origin)?;
    Ok(copy(text))
}

/// Exactly as much memory as the text takes, so that it never grows.
pub(super) fn copy(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    out.push_str(text);
    out
}

pub(super) fn text_len(text: &str) -> usize {
    wire::varint_len(wire::length(text.as_bytes())).saturating_add(text.len())
}

pub(super) fn put_text(out: &mut Encoder<'_>, text: &str) {
    let mut prefix = Vec::with_capacity(5);
    prefix.put_varint(wire::length(text.as_bytes()));
    out.put(&prefix);
    out.put(text.as_bytes());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Line,
    Block,
}

fn scan(text: &str, kind: Kind, origin: Origin) -> Result<(), Invalid> {
    // Nothing is wrong with printable ASCII. All of it is looked at, so that many bytes are at once.
    if text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    let mut base = false; // is there something that a mark can stand on?
    for c in text.chars() {
        if !allowed(c, kind) {
            return Err(Invalid::Character);
        }
        if origin == Origin::Stored {
            continue;
        }
        if !is_public_assigned(c) && !is_private(c) {
            return Err(Invalid::Character);
        }
        if is_combining_mark(c) || is_joiner(c) {
            if !base {
                return Err(Invalid::Character);
            }
        } else {
            base = !c.is_whitespace();
        }
    }
    Ok(())
}

fn allowed(c: char, kind: Kind) -> bool {
    match c {
        '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => kind == Kind::Block,
        // Embeddings, overrides and isolates reorder what is shown (CVE-2021-42574); deprecated and interlinear format
        // characters do no less. The range in between, and the next arm, are no characters at all.
        '\u{202A}'..='\u{202E}'
        | '\u{2066}'..='\u{206F}'
        | '\u{FDD0}'..='\u{FDEF}'
        | '\u{FFF9}'..='\u{FFFB}' => false,
        c if u32::from(c) & 0xFFFE == 0xFFFE => false,
        // Unseen in a name or an address: two that look alike would differ. U+FFFD says that the text is damaged.
        '\u{AD}'
        | '\u{61C}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{180E}'
        | '\u{200B}'
        | '\u{200E}'
        | '\u{200F}'
        | '\u{2060}'..='\u{2065}'
        | '\u{3164}'
        | '\u{FEFF}'
        | '\u{FFA0}'
        | '\u{FFFD}'
        | '\u{E0000}'..='\u{E007F}' => kind == Kind::Block,
        c => !c.is_control(),
    }
}

/// Joins or parts letters, as Persian, the scripts of India and emoji need it.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}')
}

/// Characters of rare Chinese names stand there in older systems.
pub(super) fn is_private(c: char) -> bool {
    matches!(c, '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{FFFFD}' | '\u{100000}'..='\u{10FFFD}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line16(text: &str) -> Result<String, Invalid> {
        line(text, 16, Origin::Given).map(|text| text.as_str().to_owned())
    }

    #[test]
    fn a_line_is_composed_and_its_spaces_are_single() {
        assert_eq!(line16("  Ame\u{301}lie\u{3000} \u{A0}B "), Ok("Am\u{e9}lie B".into()));
        assert_eq!(line16("\u{AC00}\u{11A8}"), Ok("\u{AC01}".into()));
    }

    #[test]
    fn what_hides_or_reorders_is_refused() {
        for c in "\0\t\n\u{7f}\u{85}\u{ad}\u{200b}\u{200e}\u{200f}\u{202a}\u{202e}\u{2028}\u{2066}\u{2069}\u{61c}\u{feff}\u{fffd}\u{fffe}\u{fdd0}\u{1ffff}\u{378}\u{e0041}".chars() {
            assert_eq!(line16(&format!("a{c}b")), Err(Invalid::Character), "{}", u32::from(c));
        }
        for c in "\0\u{7f}\u{85}\u{202a}\u{202e}\u{2066}\u{2069}\u{fffe}\u{378}".chars() {
            let text = format!("a{c}b");
            assert_eq!(block(&text, 99, Origin::Given).err(), Some(Invalid::Character), "{}", u32::from(c));
        }
        assert!(block("a\tb\r\n\u{200f}\u{5d0}", 99, Origin::Given).is_ok());
    }

    #[test]
    fn a_mark_or_joiner_needs_something_to_stand_on() {
        for text in ["\u{301}\u{301}", " \u{301}", "a \u{301}", "\u{200d}a", "\u{200c}"] {
            assert_eq!(line16(text), Err(Invalid::Character));
        }
        assert!(line16("\u{9b0}\u{200d}\u{9cd}\u{9af}").is_ok());
        assert!(line16("\u{645}\u{6cc}\u{200c}\u{62e}").is_ok());
    }

    #[test]
    fn lengths_count_characters_after_normalisation() {
        assert_eq!(line16(""), Err(Invalid::Empty));
        assert_eq!(line16(" \u{3000} "), Err(Invalid::Empty));
        assert!(line16(&"e\u{301}".repeat(16)).is_ok());
        assert_eq!(line16(&"\u{e9}".repeat(17)), Err(Invalid::TooLong));
        assert_eq!(line16(&" ".repeat(1_000_000)), Err(Invalid::TooLong));
    }

    /// What the documentation says.
    fn composed(text: &str) -> String {
        text.nfc().collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn plain_and_stored_lines_are_read_as_any_other() {
        let parts = [
            "a",
            "B",
            " ",
            "  ",
            "~",
            "7",
            "\u{e9}",
            "e\u{301}",
            "\u{a0}",
            "\u{3000}",
            "\u{1100}\u{1161}",
            "\u{4e2d}",
        ];
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            let longer = texts.iter().flat_map(|text| parts.map(|part| format!("{text}{part}")));
            texts = texts.iter().cloned().chain(longer).collect();
            texts.sort();
            texts.dedup();
        }
        for text in &texts {
            let Ok(read) = line(text, 16, Origin::Given) else { continue };
            assert_eq!(read.as_str(), composed(text));
            assert!(line(&read, 16, Origin::Stored).is_ok_and(|stored| *stored == *read));
            assert_eq!(line(text, 16, Origin::Stored).is_ok(), *text == *read, "{text:?}");
        }
        assert!(line(&"x".repeat(17), 16, Origin::Stored).is_err());
        assert!(line(&"\u{e9}".repeat(17), 16, Origin::Stored).is_err());
        assert!(line(&"\u{e9}".repeat(16), 16, Origin::Stored).is_ok());
    }

    #[test]
    fn a_stored_line_is_in_normal_form_and_outlives_tables() {
        for text in ["e\u{301}", " a", "a ", "a  b", "a\u{a0}b", ""] {
            assert!(line(text, 16, Origin::Stored).is_err());
        }
        assert!(line("\u{378}", 16, Origin::Stored).is_ok());
    }
}
