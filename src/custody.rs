//! In whose hands a vault is: what an operator wants to know of store, keeper and witness before starting another process.

use crate::error::Result;
use crate::keeper::{ErasureClass, Serves};
use crate::store::Volume;
use crate::vault::Vault;
use crate::witness::Remembers;

/// Something about store, keeper or witness that a promise of the vault does not hold with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Concern {
    /// `fsync` is off: what was acknowledged may be lost with the power.
    #[error("fsync is off: what was acknowledged may be lost with the power")]
    NoSync,
    /// `full_page_writes` is off: a crash may leave half a page.
    #[error("full_page_writes is off: a crash may leave half a page")]
    TornPages,
    /// A standby that `synchronous_standby_names` does not name: promoted, it may lack what was acknowledged.
    #[error("a standby is asynchronous: promoted, it may lack what was acknowledged")]
    AsynchronousStandbys,
    /// The role may not see the standbys' positions (`pg_monitor`): `settle` cannot tell whether they have everything.
    #[error("the role may not see the standbys' positions: grant it pg_monitor")]
    PositionsHidden,
    /// There is no witness: an older store is not told from a newer one.
    #[error("there is no witness: a restored store is not told from a newer one")]
    NoWitness,
    /// The newest backup was made before the root was last replaced: once the restore window is over it opens for nobody.
    #[error("the newest backup of the key tables is older than the last shred or expiry: make one")]
    BackupOlderThanShred,
    /// Backups are kept longer than the restore window: the older ones open for nobody once the root was replaced.
    #[error("backups are kept longer than the restore window: the older ones open for nobody")]
    BackupsOutliveWindow,
    /// The keeper lies on the store's volume: whoever takes that disk, or an image of it, has both.
    #[error("the keeper lies on the store's volume: whoever takes the disk has both")]
    KeeperOnStoresVolume,
    /// The witness lies on the store's volume: a restored disk brings back an older store with an older witness, and
    /// nothing tells.
    #[error("the witness lies on the store's volume: a restored disk brings back both, and nothing tells")]
    WitnessOnStoresVolume,
    /// The keeper's two copies lie on one volume: they are lost together.
    #[error("the keeper's two copies lie on one volume: they are lost together")]
    CopiesOnOneVolume,
    /// A database that speaks PostgreSQL's protocol and is another one: untested.
    #[error("a database that was not tested")]
    Untested,
}

/// What store, keeper and witness say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Custody {
    /// From where the store can be used at once.
    pub store: Serves,
    /// From where the keeper can.
    pub keeper: Serves,
    /// From where the witness can.
    pub witness: Serves,
    /// What the witness keeps.
    pub remembers: Remembers,
    /// What destruction by the keeper is worth.
    pub erasure_class: ErasureClass,
}

impl Custody {
    /// From where the vault can be open at once: no more than the least of the three.
    #[must_use]
    pub fn serves(&self) -> Serves {
        self.store.min(self.keeper).min(self.witness)
    }
}

impl Vault {
    /// What store, keeper and witness of this vault say of themselves.
    ///
    /// A shared store with a keeper of one process is no mistake: it is one process on that store, and a second one is
    /// refused by the keeper.
    #[must_use]
    pub fn custody(&self) -> Custody {
        let inner = &self.0;
        Custody {
            store: if inner.rows.shared() { Serves::ManyHosts } else { Serves::OneProcess },
            keeper: inner.roots.serves(),
            witness: inner.journal.witness().serves(),
            remembers: inner.journal.witness().remembers(),
            erasure_class: inner.roots.erasure_class(),
        }
    }

    /// What store, keeper and witness lack for what the vault promises, and what is wrong with the backups that this vault
    /// has made; empty where all is well. Ask at every start, and show it to an operator. Backups that were made by other
    /// means it knows nothing of.
    ///
    /// # Errors
    ///
    /// Where it cannot be found out.
    pub async fn doctor(&self) -> Result<Vec<Concern>> {
        let mut concerns = self.0.rows.doctor().await?;
        if self.0.journal.witness().remembers() == Remembers::Nothing {
            concerns.push(Concern::NoWitness);
        }
        self.0.catch_up().await?;
        concerns.extend(self.0.backup_concerns().await?);
        let (store, keeper) = (self.0.rows.volumes(), self.0.roots.volumes());
        let witness = self.0.journal.witness().volumes();
        let shared = |volumes: &[Volume]| volumes.iter().any(|volume| store.contains(volume));
        let twice = |(index, volume)| keeper.iter().skip(index).skip(1).any(|other| other == volume);
        for (is_so, concern) in [
            (shared(&keeper), Concern::KeeperOnStoresVolume),
            (shared(&witness), Concern::WitnessOnStoresVolume),
            (keeper.iter().enumerate().any(twice), Concern::CopiesOnOneVolume),
        ] {
            if is_so {
                concerns.push(concern);
            }
        }
        Ok(concerns)
    }
}

#[cfg(all(test, feature = "redb", unix))]
mod tests {
    use std::path::Path;

    use pollster::block_on;

    use super::{Concern, Volume};
    use crate::keeper::{FileKeeperOptions, FileSecret};
    use crate::store::RedbStore;
    use crate::testing::MemoryKeeper;
    use crate::witness::NoWitness;

    #[test]
    #[allow(clippy::print_stderr, reason = "what is skipped says so")]
    fn the_vault_says_what_lies_on_one_volume() {
        let name = format!("customer-vault-custody-{}", std::process::id());
        let (here, there) = (std::env::temp_dir().join(&name), Path::new("/dev/shm").join(&name));
        std::fs::create_dir_all(&here).unwrap();
        let secret = || FileSecret::key([3; 32].into());
        let said = |name: &str, options: FileKeeperOptions, path: &Path| {
            block_on(async {
                let store = RedbStore::create(here.join(format!("{name}.redb"))).unwrap();
                let keeper = options.create(path, secret()).unwrap();
                let vault = crate::Options::new().create(store, keeper.clone(), keeper).await.unwrap();
                vault.doctor().await.unwrap()
            })
        };
        let one = FileKeeperOptions::new;
        let both = [Concern::KeeperOnStoresVolume, Concern::WitnessOnStoresVolume];
        assert_eq!(said("a", one(), &here.join("a")), both);
        // Neither a handover nor a second witness hides where they lie, and the two keepers are no copies of each other.
        let [old, new] = ["old", "new"].map(|name| one().create(here.join(name), secret()).unwrap());
        let store = RedbStore::create(here.join("two.redb")).unwrap();
        let witness = crate::witness::Both::new(MemoryKeeper::new(), new.clone());
        let keeper = crate::keeper::Handover::new(old, new);
        let vault = block_on(crate::Options::new().create(store, keeper, witness)).unwrap();
        assert_eq!(block_on(vault.doctor()).unwrap(), both);
        let copies = [both.as_slice(), &[Concern::CopiesOnOneVolume]].concat();
        assert_eq!(said("b", one().copy(here.join("b2")), &here.join("b")), copies);
        if Volume::of(Path::new("/dev/shm")).is_none_or(|shm| Some(shm) == Volume::of(&here)) {
            eprintln!("skipped: /dev/shm is no volume of its own");
        } else {
            std::fs::create_dir_all(&there).unwrap();
            assert_eq!(said("c", one(), &there.join("c")), []);
            // One copy there is one too many.
            assert_eq!(said("d", one().copy(here.join("d2")), &there.join("d")), both);
            assert_eq!(
                said("e", one().copy(there.join("e2")), &there.join("e")),
                [Concern::CopiesOnOneVolume]
            );
            std::fs::remove_dir_all(&there).unwrap();
        }
        block_on(async {
            let store = RedbStore::create(here.join("f.redb")).unwrap();
            let vault =
                crate::Options::new().create(store, MemoryKeeper::new(), NoWitness::new()).await.unwrap();
            assert_eq!(vault.doctor().await.unwrap(), [Concern::NoWitness], "who does not know says nothing");
        });
        std::fs::remove_dir_all(&here).unwrap();
    }
}
