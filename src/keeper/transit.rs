//! A keeper in OpenBao or HashiCorp Vault: the transit engine, a key for every root.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::{fmt, fmt::Write as _};

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::{KeeperError, Misuse, Result};
use crate::keeper::file::wrapping::{self, WrappingKey};
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, Serves, VaultId};

pub(crate) mod client;
mod names;
pub(crate) mod options;
mod token;

pub use options::BaoOptions;

use client::{Client, Link};
use names::{KeyName, Wrapped, ciphertext_of, text_of};

/// How long copies of the server's own storage are kept. An old copy, restored, has every key that it had then: this is the
/// longest that a destroyed root can still be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerCopies(u16);

impl ServerCopies {
    /// Snapshots and backups of the server's storage, its disks' included, are kept for so many days: 1 to 3,650.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] outside that range.
    pub fn kept_for_days(days: u16) -> Result<Self> {
        if (1..=3650).contains(&days) { Ok(ServerCopies(days)) } else { Err(Misuse::Setting.into()) }
    }

    /// Nobody makes a snapshot, a backup or a copy of the server's storage, and whoever loses the server loses the vault.
    #[must_use]
    pub const fn none_are_made_and_losing_the_server_loses_the_vault() -> Self {
        ServerCopies(0)
    }
}

/// Root keys under the transit engine of an OpenBao or HashiCorp Vault server. Clones are the same keeper.
///
/// For each root the server makes a key of its own, named after vault, epoch and root: of type `aes256-gcm96`, derived, not
/// exportable, without plaintext backup, which is read back and refused otherwise ([`KeeperError::Unfit`]). It encrypts a
/// wrapping key that this process has made, for the context of that vault, epoch and root; the wrapping key encrypts the
/// root. So the server never has the root, nor has the store: whoever wants it needs both.
///
/// A root is destroyed by deleting its key; then the server is asked for it and must say that there is none. That a root was
/// activated is said by a second key beside it, which wraps nothing and is named after the epoch: to make one again changes
/// nothing, the highest counts, and so what was activated never goes backwards, whichever process says it and however
/// late. It takes no other engine, and no agreement beyond what the engine has: a name is there or not.
///
/// Any number of vaults may share a mount; a keeper serves one. Where the mount has keys of other vaults and none of this
/// one, unwrapping is [`KeeperError::Foreign`]. Give each vault a mount of its own all the same: whoever may list it sees
/// all names.
///
/// It works on a thread of its own and needs no runtime; requests are made one after the other. What waits in line while
/// the server is found out of reach is told so at once.
///
/// # What the token may do
///
/// The policy for a mount `transit`; the token needs nothing else but OpenBao's `default` policy, by which it may look at
/// itself and be renewed. Nothing has `create`: with it, to encrypt under a key that is not there would make one, with other
/// settings.
///
/// ```hcl
/// path "transit/keys"           { capabilities = ["list"] }
/// path "transit/keys/cv1-*"     { capabilities = ["read", "update", "delete"] }
/// path "transit/encrypt/cv1-*"  { capabilities = ["update"] }
/// path "transit/decrypt/cv1-*"  { capabilities = ["update"] }
/// ```
///
/// Nobody else should have `update` below `transit/keys/cv1-*`: a key whose `allow_plaintext_backup` or `exportable` is
/// switched on later can be taken out of the server.
///
/// # Errors
///
/// [`KeeperError::Unreachable`] where the server cannot be reached, is sealed, does not answer in time, or shows a
/// certificate that is not trusted; [`KeeperError::Refused`] where it refuses the token, a new one from the callback too, or
/// what the token may do; [`KeeperError::Missing`] where there is no such mount, and before the keeper is bound;
/// [`KeeperError::ReadOnly`] where a standby names another server instead of answering. They quote nothing.
///
/// # Security
///
/// Its erasure class is [`Service`](ErasureClass::Service), from 0 to as long as copies of the server's storage are kept
/// ([`ServerCopies`]). Keys on the server are encrypted by its barrier, so that a copy alone opens for nobody who lacks its
/// unseal keys. **A snapshot of the server that is restored brings back the keys that were destroyed since.** The vault sees
/// them again as roots that it left long ago, retires them anew, and destroys them after the restore window; it cannot see a
/// snapshot that is restored on another machine. Certificates say `unreadable_after` accordingly.
///
/// **Do not keep the witness on the same server** ([`KvWitness`](crate::witness::KvWitness)) where it can be avoided. A
/// snapshot of one server brings both to one moment; put the store back to the same day and nothing is left that knows
/// better: who was forgotten since then opens again. [`Vault::doctor`](crate::Vault::doctor) cannot see it, receipts cannot
/// say it.
///
/// The wrapping key in requests and answers is wiped where it lies in memory of this crate. The HTTP and TLS libraries
/// have it in buffers that they do not wipe. The root is in none of them.
///
/// ```no_run
/// use customer_vault::keeper::{BaoOptions, ServerCopies, TransitKeeper};
/// use customer_vault::witness::KvWitness;
/// use customer_vault::error::KeeperError;
/// use customer_vault::{Options, store::MemoryStore};
///
/// # async fn shop(authority: &str) -> customer_vault::Result<()> {
/// let token = |path: &'static str| move || {
///     std::fs::read_to_string(path).map(Into::into).map_err(|_| KeeperError::NotSet)
/// };
/// let server = BaoOptions::new("https://bao.example:8200", token("/run/bao/token"))?.certificate_authorities(authority)?;
/// let keeper = TransitKeeper::connect(server, "transit", ServerCopies::kept_for_days(30)?).await?;
/// // On another server, which is backed up and restored on its own.
/// let another = BaoOptions::new("https://witness.example:8200", token("/run/witness/token"))?;
/// let witness = KvWitness::connect(another, "secret", "customer-vault/shop").await?;
/// # let store = MemoryStore::new();
/// let vault = Options::new().create(store, keeper, witness).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TransitKeeper {
    link: Link<()>,
    mount: Arc<str>,
    copies: ServerCopies,
    vault: Arc<OnceLock<VaultId>>,
}

impl fmt::Debug for TransitKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransitKeeper").field("copies", &self.copies).finish_non_exhaustive()
    }
}

impl TransitKeeper {
    /// Over the transit engine that is mounted at `mount`, which must be there. It asks the server for the names of the
    /// keys, so that a token or an address that does not fit is known at once.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] where the options or the mount's path cannot be used, and where the machine has no certificate
    /// authorities and none are given; what the server says, as above.
    pub async fn connect(options: BaoOptions, mount: &str, copies: ServerCopies) -> Result<Self> {
        options::check_path(mount)?;
        let link = Link::start(options, ())?;
        let keeper = TransitKeeper { link, mount: mount.into(), copies, vault: Arc::default() };
        keeper.on_server(|server| server.names().map(drop)).await?;
        Ok(keeper)
    }

    async fn on_server<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Server<'_>) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let mount = Arc::clone(&self.mount);
        self.link.run(move |client, ()| job(&Server { client, mount: &mount })).await
    }

    fn vault(&self) -> Result<VaultId, KeeperError> {
        self.vault.get().copied().ok_or(KeeperError::Missing)
    }
}

impl Keeper for TransitKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        if *self.vault.get_or_init(|| vault) == vault { Ok(()) } else { Err(KeeperError::Foreign) }
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        let vault = self.vault()?;
        self.on_server(move |server| {
            let (key, mut candidate) = wrapping::candidate(vault)?;
            let name = KeyName { vault, epoch, root: candidate.id, active: false };
            server.make(&name)?;
            let ciphertext = server.encrypt(&name, &key)?;
            candidate.wrapped = Wrapped { epoch, ciphertext, inner: &candidate.wrapped }.encode();
            Ok(candidate)
        })
        .await
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        let vault = self.vault()?;
        self.on_server(move |server| {
            let roots = server.roots(vault)?;
            if roots.active.is_some_and(|(now, _)| epoch <= now) {
                return Ok(());
            }
            if !roots.keys.contains_key(&id) {
                return Err(KeeperError::NoSuchRoot);
            }
            server.make(&KeyName { vault, epoch, root: id, active: true })
        })
        .await
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        let (vault, wrapped) = (self.vault()?, wrapped.to_vec());
        self.on_server(move |server| {
            let parsed = Wrapped::decode(&wrapped);
            if let Ok(Wrapped { epoch, ciphertext, inner }) = &parsed {
                let name = KeyName { vault, epoch: *epoch, root: id, active: false };
                // Whatever the server says about the key: what counts is whether it still decrypts.
                if let Some(key) = server.decrypt(&name, ciphertext)? {
                    return key.unwrap(vault, id, inner);
                }
            }
            let roots = server.roots(vault)?;
            if roots.keys.contains_key(&id) {
                return Err(KeeperError::Damaged);
            }
            Err(if roots.only_others { KeeperError::Foreign } else { KeeperError::NoSuchRoot })
        })
        .await
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        let vault = self.vault()?;
        self.on_server(move |server| {
            let roots = server.roots(vault)?;
            if roots.active.is_some_and(|(_, active)| active == id) {
                return Err(wrapping::ACTIVE);
            }
            for epoch in roots.keys.get(&id).into_iter().flatten() {
                server.destroy(&KeyName { vault, epoch: *epoch, root: id, active: false })?;
            }
            // What says that it was activated goes last: until then a crash leaves a root that was one.
            for (epoch, _) in roots.markers.iter().filter(|(_, root)| *root == id) {
                server.destroy(&KeyName { vault, epoch: *epoch, root: id, active: true })?;
            }
            Ok(())
        })
        .await
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        let vault = self.vault()?;
        let roots = self.on_server(move |server| server.roots(vault)).await?;
        let held = roots.keys.iter().filter_map(|(id, epochs)| {
            let activated = roots.markers.iter().rev().find(|(_, root)| root == id).map(|(epoch, _)| *epoch);
            let epoch = activated.or(epochs.first().copied())?;
            Some(Held { id: *id, epoch, activated: activated.is_some() })
        });
        Ok(held.collect())
    }

    fn erasure_class(&self) -> ErasureClass {
        let max_delay_s = u64::from(self.copies.0).saturating_mul(86_400);
        ErasureClass::Service { min_delay_s: 0, max_delay_s }
    }

    fn serves(&self) -> Serves {
        Serves::ManyHosts
    }
}

/// What the server has of one vault.
struct Roots {
    /// Each root with the epochs under which it is named: one.
    keys: BTreeMap<RootId, BTreeSet<u64>>,
    /// Epochs with the roots that were activated as theirs, ascending.
    markers: BTreeSet<(u64, RootId)>,
    active: Option<(u64, RootId)>,
    /// There are keys of other vaults, and none of this one.
    only_others: bool,
}

/// The engine of one mount.
struct Server<'a> {
    client: &'a Client,
    mount: &'a str,
}

#[derive(Deserialize)]
struct Listed {
    data: Keys,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct About<'a> {
    #[serde(borrow)]
    data: Settings<'a>,
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as the server says it")]
struct Settings<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    derived: bool,
    exportable: bool,
    allow_plaintext_backup: bool,
    #[serde(default)]
    convergent_encryption: bool,
    #[serde(default)]
    imported_key: bool,
}

#[derive(Deserialize)]
struct Encrypted<'a> {
    #[serde(borrow)]
    data: CiphertextOf<'a>,
}

#[derive(Deserialize)]
struct CiphertextOf<'a> {
    ciphertext: &'a str,
}

#[derive(Deserialize)]
struct Decrypted<'a> {
    #[serde(borrow)]
    data: PlaintextOf<'a>,
}

#[derive(Deserialize)]
struct PlaintextOf<'a> {
    /// Lies in the answer, which is wiped.
    plaintext: &'a str,
}

impl Server<'_> {
    fn names(&self) -> Result<Vec<String>, KeeperError> {
        let answer = self.client.get(&format!("{}/keys?list=true", self.mount))?;
        if answer.is_nothing()? {
            return Ok(Vec::new());
        }
        Ok(answer.read::<Listed>()?.data.keys)
    }

    fn roots(&self, vault: VaultId) -> Result<Roots, KeeperError> {
        let names = self.names()?;
        let (mut keys, mut markers) = (BTreeMap::<RootId, BTreeSet<u64>>::new(), BTreeSet::new());
        let mut others = false;
        for name in names.iter().filter_map(|name| KeyName::parse(name)) {
            if name.vault != vault {
                others = true;
            } else if name.active {
                markers.insert((name.epoch, name.root));
            } else {
                keys.entry(name.root).or_default().insert(name.epoch);
            }
        }
        let only_others = others && keys.is_empty() && markers.is_empty();
        Ok(Roots { active: markers.last().copied(), keys, markers, only_others })
    }

    fn key(&self, name: &KeyName) -> String {
        format!("{}/keys/{}", self.mount, name.text())
    }

    /// Makes a key, which changes nothing where it is there, and looks at what was made: a policy or a plugin may have
    /// another mind.
    fn make(&self, name: &KeyName) -> Result<(), KeeperError> {
        let body = br#"{"type":"aes256-gcm96","derived":true,"exportable":false,"allow_plaintext_backup":false,"convergent_encryption":false}"#;
        if !self.client.post(&self.key(name), body)?.is_good() {
            return Err(KeeperError::Unfit);
        }
        let answer = self.client.get(&self.key(name))?;
        if answer.is_nothing()? {
            return Err(KeeperError::Io);
        }
        let Settings {
            kind,
            derived,
            exportable,
            allow_plaintext_backup,
            convergent_encryption,
            imported_key,
        } = answer.read::<About<'_>>()?.data;
        let weak = exportable || allow_plaintext_backup || convergent_encryption || imported_key;
        if kind == "aes256-gcm96" && derived && !weak { Ok(()) } else { Err(KeeperError::Unfit) }
    }

    fn encrypt(&self, name: &KeyName, key: &WrappingKey) -> Result<names::Ciphertext, KeeperError> {
        let mut base64 = Zeroizing::new([0; 44]);
        let plaintext = Base64::encode(key.expose(), base64.as_mut_slice()).map_err(|_| KeeperError::Io)?;
        // Taken at once, so that it is not moved about.
        let mut body = Zeroizing::new(String::with_capacity(512));
        let written = write!(body, r#"{{"plaintext":"{plaintext}","context":"{}"}}"#, name.context());
        written.map_err(|_| KeeperError::Io)?;
        let answer = self.client.post(&format!("{}/encrypt/{}", self.mount, name.text()), body.as_bytes())?;
        ciphertext_of(answer.read::<Encrypted<'_>>()?.data.ciphertext)
    }

    /// `None` where the server does not decrypt it.
    fn decrypt(
        &self,
        name: &KeyName,
        ciphertext: &names::Ciphertext,
    ) -> Result<Option<WrappingKey>, KeeperError> {
        let body = format!(r#"{{"ciphertext":"{}","context":"{}"}}"#, text_of(ciphertext), name.context());
        let path = format!("{}/decrypt/{}", self.mount, name.text());
        let answer = self.client.post(&path, body.as_bytes())?;
        if !answer.is_good() {
            // A mount that is not there is told from a key that is not.
            answer.is_nothing()?;
            return Ok(None);
        }
        let plaintext = answer.read::<Decrypted<'_>>()?.data.plaintext;
        let mut key = Zeroizing::new([0; 32]);
        match Base64::decode(plaintext, key.as_mut_slice()) {
            Ok(bytes) if bytes.len() == 32 => Ok(Some(WrappingKey::from_slice(&key))),
            _ => Err(KeeperError::Damaged),
        }
    }

    /// Deletes a key, and sees that it is not there.
    fn destroy(&self, name: &KeyName) -> Result<(), KeeperError> {
        let key = self.key(name);
        // What these two say of a key that another process has deleted meanwhile does not matter: the last word does.
        self.client.post(&format!("{key}/config"), br#"{"deletion_allowed":true}"#)?;
        let deleted = self.client.delete(&key)?.is_good();
        match self.client.get(&key)?.is_nothing()? {
            true => Ok(()),
            false if deleted => Err(KeeperError::StillUnwraps),
            false => Err(KeeperError::Refused),
        }
    }
}
