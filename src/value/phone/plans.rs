//! How numbers are written in some fifty countries, and which calling codes there are.
//!
//! Lengths and prefixes as in Google's libphonenumber 9.0.43; the plans themselves are what the countries have notified
//! to the ITU (E.129). Numbers get new lengths at times: then a row changes, and what was sealed opens all the same.

use crate::value::Country;

/// One country's habits.
#[derive(Debug)]
pub(super) struct Plan {
    region: &'static str,
    /// What others dial before its numbers.
    pub(super) code: &'static str,
    /// What is dialled there before a foreign calling code. Where a carrier's digits must follow, none is listed.
    pub(super) abroad: &'static [&'static str],
    /// What is dialled there before an area code, and left out from abroad.
    pub(super) trunk: &'static str,
    /// Digits after the calling code.
    pub(super) lengths: &'static [usize],
}

const fn plan(
    region: &'static str,
    code: &'static str,
    abroad: &'static [&'static str],
    trunk: &'static str,
    lengths: &'static [usize],
) -> Plan {
    Plan { region, code, abroad, trunk, lengths }
}

/// Of countries that share a calling code, the first speaks for it. From North America `00` is no way abroad, but it is
/// written so often (`001-746-…`) that it is read as one; no number there begins with 0.
#[rustfmt::skip]
const PLANS: &[Plan] = &[
    plan("US", "1", &["011", "00"], "1", &[10]),
    plan("CA", "1", &["011", "00"], "1", &[10]),
    plan("GB", "44", &["00"], "0", &[7, 9, 10]),
    plan("IE", "353", &["00"], "0", &[7, 8, 9, 10]),
    plan("FR", "33", &["00"], "0", &[9]),
    plan("DE", "49", &["00"], "0", &[4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    plan("AT", "43", &["00"], "0", &[4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    plan("CH", "41", &["00"], "0", &[9, 12]),
    plan("BE", "32", &["00"], "0", &[8, 9]),
    plan("NL", "31", &["00"], "0", &[5, 6, 7, 8, 9, 10, 11]),
    plan("LU", "352", &["00"], "", &[4, 5, 6, 7, 8, 9, 10, 11]),
    plan("ES", "34", &["00"], "", &[9]),
    plan("PT", "351", &["00"], "", &[9]),
    plan("IT", "39", &["00"], "", &[6, 7, 8, 9, 10, 11, 12]),
    plan("DK", "45", &["00"], "", &[8]),
    plan("NO", "47", &["00"], "", &[5, 8]),
    plan("SE", "46", &["00"], "0", &[6, 7, 8, 9, 10, 12]),
    plan("FI", "358", &["00", "990"], "0", &[5, 6, 7, 8, 9, 10, 11, 12]),
    plan("IS", "354", &["00"], "", &[7, 9]),
    plan("PL", "48", &["00"], "", &[6, 7, 8, 9, 10]),
    plan("CZ", "420", &["00"], "", &[9, 10, 11, 12]),
    plan("SK", "421", &["00"], "0", &[6, 7, 9]),
    plan("HU", "36", &["00"], "06", &[8, 9]),
    plan("RO", "40", &["00"], "0", &[6, 9]),
    plan("BG", "359", &["00"], "0", &[6, 7, 8, 9, 12]),
    plan("GR", "30", &["00"], "", &[10, 11, 12]),
    plan("HR", "385", &["00"], "0", &[7, 8, 9]),
    plan("TR", "90", &["00"], "0", &[7, 10, 12, 13]),
    plan("RU", "7", &["810"], "8", &[10, 14]),
    plan("UA", "380", &["00"], "0", &[9, 10]),
    plan("IL", "972", &["00"], "0", &[7, 8, 9, 10, 11, 12]),
    plan("AE", "971", &["00"], "0", &[5, 6, 7, 8, 9, 10, 11, 12]),
    plan("SA", "966", &["00"], "0", &[9, 10]),
    plan("ZA", "27", &["00"], "0", &[5, 6, 7, 8, 9, 10]),
    plan("IN", "91", &["00"], "0", &[8, 9, 10, 11, 12, 13]),
    plan("CN", "86", &["00"], "0", &[7, 8, 9, 10, 11, 12]),
    plan("HK", "852", &["001"], "", &[5, 6, 7, 8, 9, 11]),
    plan("TW", "886", &["002", "005", "006", "007", "009", "019"], "0", &[7, 8, 9, 10, 11]),
    plan("JP", "81", &["010"], "0", &[8, 9, 10, 11, 12, 13]),
    plan("KR", "82", &["001", "002", "005", "006", "008", "009"], "0", &[5, 6, 8, 9, 10, 11, 12, 13]),
    plan("SG", "65", &["001"], "", &[8, 10, 11]),
    plan("MY", "60", &["00"], "0", &[8, 9, 10]),
    plan("TH", "66", &["001"], "0", &[8, 9, 10, 13]),
    plan("VN", "84", &["00"], "0", &[7, 8, 9, 10]),
    plan("ID", "62", &["001", "008"], "0", &[7, 8, 9, 10, 11, 12, 13]),
    plan("AU", "61", &["0011"], "0", &[5, 6, 7, 8, 9, 10, 12]),
    plan("NZ", "64", &["00"], "0", &[5, 6, 7, 8, 9, 10]),
    plan("BR", "55", &[], "0", &[8, 9, 10, 11]),
    plan("MX", "52", &["00"], "", &[10]),
    plan("AR", "54", &["00"], "0", &[10, 11]),
    plan("CL", "56", &[], "", &[9, 10, 11]),
    plan("CO", "57", &[], "0", &[8, 10, 11]),
];

/// Assigned calling codes of three digits; those of one or two are in [`split`].
#[rustfmt::skip]
const THREE_DIGITS: &[&str] = &[
    "211", "212", "213", "216", "218", "220", "221", "222", "223", "224", "225", "226", "227", "228", "229", "230",
    "231", "232", "233", "234", "235", "236", "237", "238", "239", "240", "241", "242", "243", "244", "245", "246",
    "247", "248", "249", "250", "251", "252", "253", "254", "255", "256", "257", "258", "260", "261", "262", "263",
    "264", "265", "266", "267", "268", "269", "290", "291", "297", "298", "299", "350", "351", "352", "353", "354",
    "355", "356", "357", "358", "359", "370", "371", "372", "373", "374", "375", "376", "377", "378", "380", "381",
    "382", "383", "385", "386", "387", "389", "420", "421", "423", "500", "501", "502", "503", "504", "505", "506",
    "507", "508", "509", "590", "591", "592", "593", "594", "595", "596", "597", "598", "599", "670", "672", "673",
    "674", "675", "676", "677", "678", "679", "680", "681", "682", "683", "685", "686", "687", "688", "689", "690",
    "691", "692", "800", "808", "850", "852", "853", "855", "856", "870", "878", "880", "881", "882", "883", "886",
    "888", "960", "961", "962", "963", "964", "965", "966", "967", "968", "970", "971", "972", "973", "974", "975",
    "976", "977", "979", "992", "993", "994", "995", "996", "998",
];

impl Plan {
    pub(super) fn longest(&self) -> usize {
        self.lengths.last().copied().unwrap_or(0)
    }
}

pub(super) fn of_region(region: Country) -> Option<&'static Plan> {
    PLANS.iter().find(|plan| plan.region == region.as_str())
}

pub(super) fn of_code(code: &str) -> Option<&'static Plan> {
    PLANS.iter().find(|plan| plan.code == code)
}

/// The calling code and what follows. No calling code begins another, so there is one way to split.
pub(super) fn split(digits: &str) -> Option<(&str, &str)> {
    let first = |n: usize| digits.split_at_checked(n);
    match digits.as_bytes() {
        [b'1' | b'7', ..] => first(1),
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => first(2),
        _ => first(3).filter(|(code, _)| THREE_DIGITS.contains(code)),
    }
}
