//! What lies on the token: a key object for every root, and a mark for every root that was activated.

use cryptoki::error::{Error as TokenError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::LOOK_AGAIN;
use super::link::Trouble;
use crate::error::KeeperError;
use crate::keeper::{RootId, RootKey, VaultId};
use crate::wire::{Put as _, Reader};

const LABEL: &[u8] = b"customer-vault/1 keeper pkcs11 wrapped root";
const APPLICATION: &[u8] = b"customer-vault";
const VERSION: u8 = 1;
const IV: usize = 12;
const TAG: usize = 16;

/// What the name of an object says: for a key the epoch that its candidate would follow, for a mark the root's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) epoch: u64,
    pub(super) id: RootId,
}

impl Name {
    /// Version, epoch, root id: 25 bytes.
    fn encode(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.put_u64(self.epoch);
        bytes.put(&self.id);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8().ok()?;
        let name = Name { epoch: reader.u64().ok()?, id: reader.array().ok()? };
        reader.end().ok()?;
        (version == VERSION).then_some(name)
    }
}

/// A wrapped root: version, epoch, IV, 32 bytes, tag. 69 bytes in all.
struct Wrapped<'a> {
    epoch: u64,
    iv: [u8; IV],
    sealed: &'a [u8],
}

impl<'a> Wrapped<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8().ok()?;
        let wrapped = Wrapped {
            epoch: reader.u64().ok()?,
            iv: reader.array().ok()?,
            sealed: reader.take(32 + TAG).ok()?,
        };
        reader.end().ok()?;
        (version == VERSION).then_some(wrapped)
    }
}

/// All of a vault's objects on the token.
pub(super) struct Listing {
    pub(super) keys: Vec<(Name, ObjectHandle)>,
    pub(super) marks: Vec<(Name, ObjectHandle)>,
}

impl Listing {
    /// The mark of the highest epoch.
    pub(super) fn active(&self) -> Option<Name> {
        self.marks.iter().map(|(name, _)| *name).max_by_key(|name| name.epoch)
    }

    pub(super) fn has(&self, id: RootId) -> bool {
        self.keys.iter().any(|(name, _)| name.id == id)
    }
}

/// One vault's objects, through a session.
pub(super) struct Objects<'a> {
    pub(super) session: &'a Session,
    pub(super) vault: VaultId,
    /// The label of all of them.
    pub(super) label: &'a str,
    pub(super) copyable: bool,
}

impl Objects<'_> {
    pub(super) fn list(&self) -> Result<Listing, Trouble> {
        let keys = || self.named(&self.keys(), AttributeType::Id);
        let mut listing = Listing { keys: keys()?, marks: self.named(&self.marks(), AttributeType::Value)? };
        if listing.active().is_some_and(|active| !listing.has(active.id)) {
            // It was made since the keys were listed, or the token was away for a moment, or the key is gone indeed.
            listing.keys = keys()?;
        }
        Ok(listing)
    }

    /// A fresh key object, checked, and the root wrapped under it.
    pub(super) fn make(&self, name: Name, root: &RootKey) -> Result<Vec<u8>, Trouble> {
        let mut template = self.keys();
        template.extend([
            Attribute::Id(name.encode()),
            Attribute::ValueLen(32.into()),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
        ]);
        if self.copyable {
            // A copy under another label would outlive what is destroyed here.
            template.push(Attribute::Copyable(false));
        }
        let mut made = self.make_once(name, root, &template);
        // While other sessions write, a token may refuse what it takes a moment later, or not show all of a key yet.
        for pause in LOOK_AGAIN {
            if !matches!(made, Err(Trouble::Final(KeeperError::Unfit))) {
                break;
            }
            std::thread::sleep(pause);
            let mut left = self.keys();
            left.push(Attribute::Id(name.encode()));
            for key in self.session.find_objects(&left)? {
                self.destroy(key)?;
            }
            made = self.make_once(name, root, &template);
        }
        made
    }

    fn make_once(&self, name: Name, root: &RootKey, template: &[Attribute]) -> Result<Vec<u8>, Trouble> {
        let key = self.session.generate_key(&Mechanism::AesKeyGen, template)?;
        let made = self.fit(key, name).and_then(|()| self.wrap(key, name, root));
        if made.is_err() {
            // Nothing is wrapped under it. Where this fails too, the vault finds a candidate that nobody has chosen.
            drop(self.session.destroy_object(key));
        }
        made
    }

    /// Refuses what the token has made weaker than it was asked to.
    fn fit(&self, key: ObjectHandle, name: Name) -> Result<(), Trouble> {
        let mut wanted = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Id(name.encode()),
            Attribute::Label(self.label.as_bytes().to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Extractable(false),
            Attribute::NeverExtractable(true),
            Attribute::Local(true),
            Attribute::Modifiable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ];
        if self.copyable {
            wanted.push(Attribute::Copyable(false));
        }
        let kinds: Vec<AttributeType> = wanted.iter().map(Attribute::attribute_type).collect();
        let made = self.session.get_attributes(key, &kinds)?;
        if wanted.iter().all(|attribute| made.contains(attribute)) {
            Ok(())
        } else {
            Err(KeeperError::Unfit.into())
        }
    }

    /// The key wraps one message, so that the IV may be zero. A token that makes its own writes it there: some take none
    /// but zeros from the caller. So what is kept is what the token has left, after it was tried.
    fn wrap(&self, key: ObjectHandle, name: Name, root: &RootKey) -> Result<Vec<u8>, Trouble> {
        let (mut iv, associated) = ([0; IV], self.associated(name));
        let parameters = GcmParams::new(&mut iv, &associated, 128.into())?;
        let sealed = self.session.encrypt(&Mechanism::AesGcm(parameters), key, root.expose())?;
        let mut wrapped = vec![VERSION];
        wrapped.put_u64(name.epoch);
        wrapped.put(&iv);
        wrapped.put(&sealed);
        let back = Wrapped::decode(&wrapped).ok_or(KeeperError::Unfit)?;
        let back = self.open(key, name, &back).map_err(|why| match why {
            Trouble::Final(KeeperError::Damaged) => KeeperError::Unfit.into(),
            why => why,
        })?;
        if crate::crypto::equal(back.expose(), root.expose()) {
            Ok(wrapped)
        } else {
            Err(KeeperError::Unfit.into())
        }
    }

    /// Unwraps; `None` where there is no such key under the epoch that the wrapped root names.
    pub(super) fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<Option<RootKey>, Trouble> {
        let Some(wrapped) = Wrapped::decode(wrapped) else { return Ok(None) };
        let name = Name { epoch: wrapped.epoch, id };
        let mut one = self.keys();
        one.push(Attribute::Id(name.encode()));
        let Some(key) = self.session.find_objects(&one)?.first().copied() else { return Ok(None) };
        self.open(key, name, &wrapped).map(Some)
    }

    fn open(&self, key: ObjectHandle, name: Name, wrapped: &Wrapped<'_>) -> Result<RootKey, Trouble> {
        let (mut iv, associated) = (wrapped.iv, self.associated(name));
        let parameters = GcmParams::new(&mut iv, &associated, 128.into())?;
        let opened = match self.session.decrypt(&Mechanism::AesGcm(parameters), key, wrapped.sealed) {
            Ok(opened) => Zeroizing::new(opened),
            // What SoftHSM says of a wrong tag, and others of a trouble of their own: the key must still be there.
            Err(TokenError::Pkcs11(RvError::GeneralError | RvError::FunctionFailed, _))
                if self.list().is_ok_and(|listing| listing.has(name.id)) =>
            {
                return Err(KeeperError::Damaged.into());
            }
            Err(why) => return Err(why.into()),
        };
        let mut root = Zeroizing::new([0; 32]);
        if opened.len() != root.len() {
            return Err(KeeperError::Damaged.into());
        }
        root.copy_from_slice(&opened);
        Ok(RootKey::new(root))
    }

    pub(super) fn mark(&self, name: Name) -> Result<(), Trouble> {
        let mut template = self.marks();
        template.extend([
            Attribute::Private(true),
            Attribute::Modifiable(false),
            Attribute::Application(APPLICATION.to_vec()),
            Attribute::Value(name.encode()),
        ]);
        self.session.create_object(&template)?;
        Ok(())
    }

    pub(super) fn destroy(&self, object: ObjectHandle) -> Result<(), Trouble> {
        Ok(self.session.destroy_object(object)?)
    }

    fn keys(&self) -> Vec<Attribute> {
        vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(true),
            Attribute::Label(self.label.as_bytes().to_vec()),
        ]
    }

    fn marks(&self) -> Vec<Attribute> {
        vec![
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Label(self.label.as_bytes().to_vec()),
        ]
    }

    /// Objects that `template` finds, by the name that the attribute `at` has. One that bears this vault's label and a
    /// name of another form is damage: it may be a root's, and nobody could say that it is gone.
    fn named(&self, template: &[Attribute], at: AttributeType) -> Result<Vec<(Name, ObjectHandle)>, Trouble> {
        let mut all = Vec::new();
        for object in self.session.find_objects(template)? {
            let attributes = self.session.get_attributes(object, &[at])?;
            let (Some(Attribute::Id(name) | Attribute::Value(name)), None) =
                (attributes.first(), attributes.get(1))
            else {
                return Err(KeeperError::Damaged.into());
            };
            all.push((Name::decode(name).ok_or(KeeperError::Damaged)?, object));
        }
        Ok(all)
    }

    /// All parts have one length, so that the split is clear.
    fn associated(&self, name: Name) -> Vec<u8> {
        [LABEL, self.vault.bytes(), &name.epoch.to_be_bytes(), &name.id].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, Wrapped};

    const NAME: Name = Name { epoch: 0x0102_0304_0506_0708, id: [0xAB; 16] };

    #[test]
    fn a_name_is_25_bytes_and_nothing_else_is_one() {
        let bytes = NAME.encode();
        assert_eq!(bytes, [[1, 1, 2, 3, 4, 5, 6, 7, 8].as_slice(), &[0xAB; 16]].concat());
        assert_eq!(Name::decode(&bytes), Some(NAME));
        for other in [&bytes[..24], &[], &[bytes.as_slice(), &[0]].concat(), &[&[2], &bytes[1..]].concat()] {
            assert_eq!(Name::decode(other), None);
        }
    }

    #[test]
    fn a_wrapped_root_is_69_bytes_of_version_1() {
        let mut bytes = vec![0; 69];
        assert!(Wrapped::decode(&bytes).is_none());
        bytes[0] = 1;
        assert_eq!(Wrapped::decode(&bytes).unwrap().sealed.len(), 48);
        assert!(Wrapped::decode(&bytes[..68]).is_none());
        bytes.push(0);
        assert!(Wrapped::decode(&bytes).is_none());
    }
}
