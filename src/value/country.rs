//! Countries.

use std::{fmt, str::FromStr};

use super::Invalid;

/// A country or area by its two letters, ISO 3166-1 alpha-2. It is a code, not personal data: it copies, compares and
/// prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country(&'static str);

/// The officially assigned codes. A code that ISO withdraws stays here, because addresses sealed with it must open.
const CODES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT \
    BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK \
    FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE \
    JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ \
    MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO \
    RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW \
    TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

impl Country {
    /// Reads two letters of either case.
    ///
    /// # Errors
    ///
    /// [`Invalid::Country`] for everything that is not assigned: `ZZ`, `EU`, `UK`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        CODES.split(' ').find(|code| code.eq_ignore_ascii_case(text)).map(Country).ok_or(Invalid::Country)
    }

    /// Two capitals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    pub(super) fn from_capitals(bytes: [u8; 2]) -> Option<Self> {
        CODES.split(' ').find(|code| code.as_bytes() == bytes).map(Country)
    }
}

impl FromStr for Country {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_assigned_code_is_known_and_no_other() {
        let letters = || (b'A'..=b'Z').map(char::from);
        let known = letters().flat_map(|a| letters().map(move |b| format!("{a}{b}")));
        assert_eq!(known.filter(|code| Country::parse(code).is_ok()).count(), 249);
        for text in ["ZZ", "EU", "UK", "XK", "", "D", "DEU", "D ", " D", "DE ", "\u{ff24}\u{ff25}"] {
            assert_eq!(Country::parse(text), Err(Invalid::Country));
        }
        assert_eq!(Country::parse("de").unwrap().as_str(), "DE");
    }
}
