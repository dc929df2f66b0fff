//! How keys are called on the server, and how a wrapped root is written.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding as _};

use crate::error::KeeperError;
use crate::keeper::{RootId, VaultId};
use crate::wire::{Put as _, Reader};

/// Before everything that is said to the server to derive a key.
const CONTEXT: &[u8] = b"customer-vault/v1/transit";

/// Before every name.
const PREFIX: &str = "cv1-";
const ACTIVE: &str = "-active";

/// A key on the server, by its name: `cv1-`, the vault, the epoch and the root in hexadecimal, joined by `-`. One that ends
/// with `-active` wraps nothing: that it is there says that the root was activated, and as the root of which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyName {
    pub(super) vault: VaultId,
    pub(super) epoch: u64,
    pub(super) root: RootId,
    pub(super) active: bool,
}

impl KeyName {
    pub(super) fn text(&self) -> String {
        let mut name = format!("{PREFIX}{}-{:016x}-", self.vault, self.epoch);
        for byte in self.root {
            // A string takes everything.
            let _ = write!(name, "{byte:02x}");
        }
        if self.active {
            name.push_str(ACTIVE);
        }
        name
    }

    /// `None` for every other name: the mount may hold keys of others.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let (rest, active) = rest.strip_suffix(ACTIVE).map_or((rest, false), |rest| (rest, true));
        let (vault, rest) = rest.split_once('-')?;
        let (epoch, root) = rest.split_once('-')?;
        let key = KeyName {
            vault: VaultId(bytes(vault)?),
            epoch: u64::from_be_bytes(bytes(epoch)?),
            root: bytes(root)?,
            active,
        };
        // One name for one key.
        (key.text() == name).then_some(key)
    }

    /// From what the server derives the key that it uses, beside the named key's own bytes. All parts but the first have
    /// one length, so that the split is clear.
    pub(super) fn context(&self) -> String {
        let parts = [CONTEXT, self.vault.bytes(), &self.epoch.to_be_bytes(), &self.root].concat();
        Base64::encode_string(&parts)
    }
}

/// Lower-case hexadecimal digits, exactly as many as `N` bytes have.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let digits = hex.as_bytes();
    if digits.len() != N.checked_mul(2)? {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// What the server made of a wrapping key: nonce, 32 bytes, and tag of AES-256-GCM, under the first version of its key.
pub(super) type Ciphertext = [u8; 60];

/// How the server writes it.
const FIRST: &str = "vault:v1:";

pub(super) fn ciphertext_of(text: &str) -> Result<Ciphertext, KeeperError> {
    let mut out = [0; 60];
    let text = text.strip_prefix(FIRST).ok_or(KeeperError::Damaged)?;
    match Base64::decode(text, &mut out) {
        Ok(bytes) if bytes.len() == 60 => Ok(out),
        _ => Err(KeeperError::Damaged),
    }
}

pub(super) fn text_of(ciphertext: &Ciphertext) -> String {
    format!("{FIRST}{}", Base64::encode_string(ciphertext))
}

const VERSION: u8 = 1;

/// A wrapped root as the store keeps it: a version byte, the epoch of the key's name (u64, big-endian), the wrapping key
/// as the server has encrypted it (60 bytes), and the root under that wrapping key (49 bytes): 118 bytes.
pub(super) struct Wrapped<'a> {
    pub(super) epoch: u64,
    pub(super) ciphertext: Ciphertext,
    pub(super) inner: &'a [u8],
}

impl<'a> Wrapped<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_u64(self.epoch);
        out.put(&self.ciphertext);
        out.put(self.inner);
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, KeeperError> {
        let mut r = Reader::new(bytes);
        let mut read = || {
            let version = r.u8()?;
            Ok::<_, crate::Error>((version, r.u64()?, r.array()?))
        };
        match read() {
            Ok((VERSION, epoch, ciphertext)) => Ok(Wrapped { epoch, ciphertext, inner: r.rest() }),
            _ => Err(KeeperError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyName, Wrapped, ciphertext_of, text_of};
    use crate::keeper::VaultId;

    const NAME: KeyName = KeyName { vault: VaultId([0xab; 16]), epoch: 258, root: [7; 16], active: false };

    #[test]
    fn a_key_has_one_name_and_a_name_one_key() {
        let text = NAME.text();
        assert_eq!(
            text,
            "cv1-abababababababababababababababab-0000000000000102-07070707070707070707070707070707"
        );
        let marker = KeyName { active: true, ..NAME };
        assert_eq!(KeyName::parse(&text), Some(NAME));
        assert_eq!(KeyName::parse(&marker.text()), Some(marker));
        for other in [
            String::new(),
            "cv1-".into(),
            text.to_uppercase(),
            text.replace("cv1", "cv2"),
            format!("{text}0"),
            format!("{text}-"),
            format!("{text}-active-active"),
            text.replace("-0000", "-+000"),
            text[..text.len() - 1].to_owned(),
            text.replace('a', "é"),
        ] {
            assert_eq!(KeyName::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn the_context_is_label_vault_epoch_and_root() {
        use base64ct::Encoding as _;
        let context = base64ct::Base64::decode_vec(&NAME.context()).unwrap();
        let literal =
            [b"customer-vault/v1/transit".as_slice(), &[0xab; 16], &[0, 0, 0, 0, 0, 0, 1, 2], &[7; 16]];
        assert_eq!(context, literal.concat());
    }

    #[test]
    fn a_ciphertext_is_of_the_first_version_canonical_and_of_its_length() {
        let bytes = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let text = text_of(&bytes);
        assert_eq!(ciphertext_of(&text), Ok(bytes));
        for bad in [
            text.replace("v1", "v2"),
            text.replace("vault", "bao"),
            format!("{text}A"),
            format!("{text}="),
            format!("{text} "),
            text[..text.len() - 1].to_owned(),
            text[..text.len() - 4].to_owned(),
            format!("{text}{}", "A".repeat(1 << 20)),
        ] {
            assert!(ciphertext_of(&bad).is_err());
        }
    }

    #[test]
    fn a_wrapped_root_is_read_as_it_is_written() {
        let ciphertext = [9; 60];
        let bytes = Wrapped { epoch: 5, ciphertext, inner: &[1, 2] }.encode();
        assert_eq!(bytes.len(), 71);
        let read = Wrapped::decode(&bytes).unwrap();
        assert_eq!((read.epoch, read.ciphertext, read.inner), (5, ciphertext, &[1, 2][..]));
        let cut = (0..69).map(|end| bytes[..end].to_vec());
        let other = [[2].as_slice(), &bytes[1..]].concat();
        for bad in cut.chain([other]) {
            assert!(Wrapped::decode(&bad).is_err());
        }
    }
}
