//! A wrapping key wraps one root, ever.

use std::fmt;

use zeroize::Zeroizing;

use crate::crypto;
use crate::crypto::aead::{self, Suite, TAG};
use crate::error::{Error, KeeperError};
use crate::keeper::{Candidate, RootId, RootKey, VaultId};
use crate::wire::{Put as _, Reader};

/// Said where the active root is to be destroyed: it is in use.
pub(crate) const ACTIVE: KeeperError = KeeperError::Locked;

const LABEL: &[u8] = b"customer-vault/1 keeper wrapped root";

const VERSION: u8 = 1;

/// 32 bytes on the heap, filled in place: a list of them may grow without leaving copies behind.
pub(crate) struct WrappingKey(Box<Zeroizing<[u8; 32]>>);

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappingKey(..)")
    }
}

impl WrappingKey {
    pub(crate) fn random() -> Result<Self, KeeperError> {
        let mut key = Self::zero();
        crypto::fill_random(key.0.as_mut_slice()).map_err(narrow)?;
        Ok(key)
    }

    pub(crate) fn from_slice(bytes: &[u8; 32]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// For snapshots of the keeper in memory.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn copy(&self) -> Self {
        Self::from_slice(&self.0)
    }

    fn zero() -> Self {
        WrappingKey(Box::new(Zeroizing::new([0; 32])))
    }

    /// A version byte, 32 bytes, and the tag.
    fn wrap(&self, vault: VaultId, id: RootId, root: &RootKey) -> Result<Vec<u8>, KeeperError> {
        let mut buffer = Zeroizing::new(*root.expose());
        let tag =
            aead::seal_once(Suite::XChaCha20Poly1305, &self.0, &associated(vault, id), buffer.as_mut_slice())
                .map_err(narrow)?;
        let mut wrapped = vec![VERSION];
        wrapped.put(buffer.as_slice());
        wrapped.put(&tag);
        Ok(wrapped)
    }

    /// [`KeeperError::Damaged`] for everything that does not open: another version, another vault's, altered.
    pub(crate) fn unwrap(&self, vault: VaultId, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        let mut reader = Reader::new(wrapped);
        let mut read = || {
            let version = reader.u8()?;
            let key = Zeroizing::new(reader.array::<32>()?);
            let tag = reader.array::<TAG>()?;
            reader.end().map(|()| (version, key, tag))
        };
        let (version, mut key, tag) = read().map_err(|_| KeeperError::Damaged)?;
        if version != VERSION {
            return Err(KeeperError::Damaged);
        }
        aead::open_once(Suite::XChaCha20Poly1305, &self.0, &associated(vault, id), key.as_mut_slice(), &tag)
            .map_err(|_| KeeperError::Damaged)?;
        Ok(RootKey::new(key))
    }
}

/// A fresh root with a fresh name under a fresh wrapping key. Nothing of it is durable yet.
pub(crate) fn candidate(vault: VaultId) -> Result<(WrappingKey, Candidate), KeeperError> {
    let id = crypto::random::<16>().map_err(narrow)?;
    let mut root = RootKey::new(Zeroizing::new([0; 32]));
    crypto::fill_random(root.0.as_mut_slice()).map_err(narrow)?;
    let key = WrappingKey::random()?;
    let wrapped = key.wrap(vault, id, &root)?;
    Ok((key, Candidate { id, key: root, wrapped }))
}

/// Both parts have one length, so that the split is clear.
fn associated(vault: VaultId, id: RootId) -> Vec<u8> {
    [LABEL, vault.bytes(), &id].concat()
}

/// What the ports can say. What is left besides a keeper's own error is the generator, which is read like a file.
pub(crate) fn narrow(error: Error) -> KeeperError {
    match error {
        Error::Keeper(error) => error,
        _ => KeeperError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::{KeeperError, VaultId, candidate};

    const VAULT: VaultId = VaultId([3; 16]);

    #[test]
    fn a_wrapped_root_opens_under_its_own_name_and_vault_only() {
        let (key, root) = candidate(VAULT).unwrap();
        assert_eq!(key.unwrap(VAULT, root.id, &root.wrapped).unwrap().expose(), root.key.expose());
        let (other, _) = candidate(VAULT).unwrap();
        for result in [
            key.unwrap(VaultId([4; 16]), root.id, &root.wrapped),
            key.unwrap(VAULT, [0; 16], &root.wrapped),
            other.unwrap(VAULT, root.id, &root.wrapped),
        ] {
            assert_eq!(result.err(), Some(KeeperError::Damaged));
        }
    }

    #[test]
    fn abuse_07_an_altered_wrapped_root_does_not_open() {
        let (key, root) = candidate(VAULT).unwrap();
        let damaged = |bytes: &[u8]| {
            assert_eq!(key.unwrap(VAULT, root.id, bytes).err(), Some(KeeperError::Damaged));
        };
        for at in 0..root.wrapped.len() {
            damaged(&root.wrapped[..at]);
            for bit in 0..8 {
                let mut bytes = root.wrapped.clone();
                bytes[at] ^= 1 << bit;
                damaged(&bytes);
            }
        }
        for more in 1..=64 {
            damaged(&[root.wrapped.as_slice(), &vec![0; more]].concat());
        }
    }
}
