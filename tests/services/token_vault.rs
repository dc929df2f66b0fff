//! Keepers on tokens of SoftHSM, and small vaults with them.

use std::path::Path;

use customer_vault::keeper::{
    Argon2Cost, FileKeeper, FileSecret, Keeper as _, Passphrase, Pkcs11Keeper, Pkcs11Options, TokenPin,
    TokenSlot, VaultId,
};
use customer_vault::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

use crate::softhsm::{PIN, module};

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
}

record! {
    /// One parcel.
    pub struct Parcel[u64] / SealedParcel / ParcelView in parcel = "parcel" {
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 30 days];
    }
}

pub fn options(label: &str) -> Pkcs11Options {
    Pkcs11Options::new(module().unwrap(), TokenSlot::labelled(label), || TokenPin::new(PIN.to_owned()))
}

pub fn opened(label: &str) -> Pkcs11Keeper {
    block_on(Pkcs11Keeper::open(options(label))).unwrap()
}

/// Vaults' names.
pub fn vaults() -> [VaultId; 2] {
    let id = || block_on(ephemeral(Options::new())).unwrap().id();
    [id(), id()]
}

pub fn bound(label: &str, vault: VaultId) -> Pkcs11Keeper {
    let keeper = opened(label);
    block_on(keeper.bind(vault)).unwrap();
    keeper
}

/// A file witness.
pub fn witness(dir: &Path, create: bool) -> FileKeeper {
    let passphrase = Passphrase::new("a passphrase for tests".to_owned()).unwrap();
    let secret = FileSecret::passphrase_at(passphrase, Argon2Cost::insecure_for_tests());
    let path = dir.join("witness");
    if create { FileKeeper::create(path, secret) } else { FileKeeper::open(path, secret) }.unwrap()
}

pub fn vault_options(clock: &ManualClock) -> Options {
    let at_once = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
    let settings = Settings::default().restore_window(at_once);
    Options::new().record::<Parcel>().settings(settings).clock(clock.clone())
}

pub fn clock() -> ManualClock {
    ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap())
}

pub fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

pub async fn sealed(vault: &Vault, who: &SubjectId) -> SealedParcel {
    let sealer = vault.sealer::<Parcel>(who, &tester(), &test_ground()).await.unwrap();
    sealer.seal(Parcel { name: PersonName::parse("Ada Lovelace").unwrap() }, &1).unwrap()
}

pub async fn opens(vault: &Vault, who: &SubjectId, parcel: &SealedParcel) -> Result<()> {
    let grant = grant::<Shipping>(vault, who).await?;
    parcel.open(&grant, &1)?.name()?;
    Ok(())
}
