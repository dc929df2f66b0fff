//! Electronic mail.

use zeroize::Zeroizing;

use super::{
    Invalid,
    text::{self, Masked, Origin},
};

/// The address of a mailbox: RFC 5321 with RFC 6531, at most 254 bytes, 64 of them before the at sign.
///
/// - The part before the sign is a dot-string; the quoted form (`"a b"@…`) and comments are refused: hardly anyone has
///   such an address, and they have carried many injections. Its case is kept, for only the receiving server may say
///   that it does not matter.
/// - The domain has at least two labels of letters, digits and inner hyphens, at most 63 bytes each, and its last label
///   is no number. ASCII letters are lowered. Labels in other scripts are kept as they are given, in NFC: they are not
///   turned into `xn--` form, so the two spellings of one domain are two values.
/// - Addresses of hosts (`a@[192.0.2.1]`) are refused.
pub struct Email(Zeroizing<String>);

const LONGEST: usize = 254;

impl Email {
    /// Reads an address; spaces around it go.
    ///
    /// # Errors
    ///
    /// [`Invalid::Empty`], [`Invalid::TooLong`], [`Invalid::Character`], or [`Invalid::Form`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
    }

    fn read(text: &str, origin: Origin) -> Result<Zeroizing<String>, Invalid> {
        let mut out = text::line(text, LONGEST, origin)?;
        if out.len() > LONGEST {
            return Err(Invalid::TooLong);
        }
        let (local, domain) = out.split_once('@').ok_or(Invalid::Form)?;
        let at = local.len();
        check_local(local)?;
        check_domain(domain, origin)?;
        if let Some(domain) = out.get_mut(at..) {
            domain.make_ascii_lowercase();
        }
        Ok(out)
    }

    /// The part before the at sign.
    #[must_use]
    pub fn expose_local(&self) -> &str {
        self.0.split_once('@').map_or("", |(local, _)| local)
    }

    /// The domain.
    #[must_use]
    pub fn expose_domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }

    /// The first character where at least six stand before the sign, and the last label of the domain: a domain may be
    /// a person's own.
    #[must_use]
    pub fn masked(&self) -> Masked {
        let local = self.expose_local();
        let shown =
            if local.chars().count() < 6 { 0 } else { local.chars().next().map_or(0, char::len_utf8) };
        let last = self.expose_domain().rsplit('.').next().unwrap_or_default();
        let tail = Zeroizing::new(["@***.", last].concat());
        Masked::showing(local.get(..shown).unwrap_or_default(), &tail)
    }
}

text_value!(Email);

fn check_local(local: &str) -> Result<(), Invalid> {
    if local.len() > 64 {
        return Err(Invalid::TooLong);
    }
    if local.split('.').any(str::is_empty) {
        return Err(Invalid::Form);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii();
    if local.chars().all(allowed) { Ok(()) } else { Err(Invalid::Character) }
}

fn check_domain(domain: &str, origin: Origin) -> Result<(), Invalid> {
    if domain.contains('@') {
        return Err(Invalid::Form);
    }
    let mut labels = 0_usize;
    let mut last = "";
    for label in domain.split('.') {
        if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
            return Err(Invalid::Form);
        }
        if label.len() > 63 {
            return Err(Invalid::TooLong);
        }
        if !label.chars().all(|c| in_label(c, origin)) {
            return Err(Invalid::Character);
        }
        labels = labels.saturating_add(1);
        last = label;
    }
    // A last label of digits would be read as an address of a host.
    if labels < 2 || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::Form);
    }
    Ok(())
}

/// Other scripts' letters, digits, marks and joiners (RFC 5892); not their stops, which some software reads as dots.
fn in_label(c: char, origin: Origin) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '-';
    }
    origin == Origin::Stored
        || c.is_alphanumeric()
        || unicode_normalization::char::is_combining_mark(c)
        || matches!(c, '\u{B7}' | '\u{200C}' | '\u{200D}' | '\u{30FB}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value as _;

    #[test]
    fn the_domain_is_lowered_and_the_rest_is_kept() {
        for (given, normal) in [
            ("Ann.Lee+shop@Example.ORG", "Ann.Lee+shop@example.org"),
            (" a@b.example ", "a@b.example"),
            ("stanis\u{142}aw.w\u{f3}jcik@wp.pl", "stanis\u{142}aw.w\u{f3}jcik@wp.pl"),
            ("a@bu\u{308}cher.example", "a@b\u{fc}cher.example"),
            ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ] {
            assert_eq!(Email::parse(given).unwrap().expose(), normal);
        }
    }

    #[test]
    fn what_is_no_mailbox_is_refused() {
        for text in [
            "",
            "@",
            "someone@",
            "@b.example",
            "a@b@c.example",
            "a",
            "a@b",
            "a@b.",
            "a@.b",
            "a@b..example",
            ".a@b.example",
            "a.@b.example",
            "a..b@c.example",
            "a b@c.example",
            "a@b c.example",
            "a@-b.example",
            "a@b-.example",
            "a@b_c.example",
            "a@192.0.2.1",
            "a@[192.0.2.1]",
            "\"a\"@b.example",
            "a@b.example\nBcc: x@y.example",
            "a@b.example\0",
            "<a@b.example>",
            "a@b.example,c@d.example",
            "a@b\u{3002}example.org",
            "a@b\u{ff0e}example.org",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
        let long =
            |local: usize, label: usize| format!("{}@{}.example", "a".repeat(local), "b".repeat(label));
        assert!(Email::parse(&long(64, 63)).is_ok());
        assert!(Email::parse(&long(65, 1)).is_err());
        assert!(Email::parse(&long(1, 64)).is_err());
        let domain = ["b".repeat(60), "c".repeat(60), "d".repeat(60)].join(".");
        assert!(Email::parse(&format!("{}@{domain}.example", "a".repeat(62))).is_ok()); // 62 + 1 + 182 + 8 = 253
        assert!(Email::parse(&format!("{}@{domain}.example", "a".repeat(64))).is_err());
    }

    #[test]
    fn a_stored_address_is_in_normal_form() {
        assert!(Email::decode(b"a@b.example").is_some());
        assert!(Email::decode(b"a@B.example").is_none());
        assert!(Email::decode(b"a@b").is_none());
    }
}
