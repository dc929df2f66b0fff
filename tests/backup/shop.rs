//! A shop with a vault in memory, and what its tests do over and over.

use customer_vault::backup::{Backup, Manifest};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::FreeText;
use customer_vault::*;

purposes! {
    /// Deliver the parcel.
    pub Ship: Contract = 1 "ship";
}

record! {
    /// What the driver is told.
    pub struct Note / SealedNote / NoteView in note = "note" {
        /// In words.
        pub text: FreeText = 1 "text", basic, for [Ship: 90 days];
    }
}

pub const CANARY: &str = "canary";

pub fn id(who: usize) -> SubjectId {
    SubjectId::new(&format!("{CANARY}-{who}")).unwrap()
}

/// A part with what belongs to it.
#[derive(Clone)]
pub struct Made {
    pub part: Vec<u8>,
    pub index: Vec<u8>,
    pub manifest: Manifest,
}

pub fn parts(backups: &[Made]) -> Vec<&[u8]> {
    backups.iter().map(|made| &made.part[..]).collect()
}

pub struct Shop {
    pub clock: ManualClock,
    pub store: MemoryStore,
    pub keeper: MemoryKeeper,
    pub vault: Vault,
    me: Actor,
    why: Ground,
}

impl Shop {
    pub async fn open() -> Self {
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
        let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
        let settings = Settings::default().height(2).unwrap();
        let options = Options::new().record::<Note>().settings(settings).clock(clock.clone());
        let vault = options.create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        Shop { clock, store, keeper, vault, me: tester(), why: test_ground() }
    }

    pub fn me(&self) -> &Actor {
        &self.me
    }

    pub fn why(&self) -> &Ground {
        &self.why
    }

    pub fn now(&self) -> i64 {
        clock::Clock::wall(&self.clock)
    }

    pub fn options(&self) -> Options {
        Options::new().record::<Note>().clock(self.clock.clone())
    }

    pub async fn enroll(&self, who: std::ops::Range<usize>) {
        for who in who {
            self.vault.enroll(&id(who), [], self.me(), self.why()).await.unwrap();
            let sealer = self.vault.sealer::<Note>(&id(who), self.me(), self.why()).await.unwrap();
            let note = Note { text: FreeText::parse(&format!("{CANARY} {who}")).unwrap() };
            let sealed = sealer.seal(note).unwrap();
            self.vault.put(&id(who), (), &sealed, self.me(), self.why()).await.unwrap();
        }
    }

    pub async fn forget(&self, who: usize) {
        let request = Forget::by(self.me(), self.why()).without_grace();
        self.vault.forget(&id(who), request).await.unwrap();
    }

    /// Whether the note that was stored for a person opens.
    pub async fn reads(&self, vault: &Vault, who: usize) -> bool {
        let grant = match grant::<Ship>(vault, &id(who)).await {
            Ok(grant) => grant,
            Err(Error::Erased(_)) => return false,
            Err(why) => panic!("person {who}: {why:?}"),
        };
        let sealed = vault.get::<Note>(&id(who), (), self.me(), self.why()).await.unwrap().unwrap();
        let view = sealed.open(&grant).unwrap();
        assert_eq!(view.text().unwrap().expose(), format!("{CANARY} {who}"));
        true
    }

    pub async fn full(&self) -> Made {
        let (mut part, mut index) = (Vec::new(), Vec::new());
        let what = Backup::full(self.me(), self.why());
        let manifest = self.vault.backup(&mut part, &mut index, what).await.unwrap();
        Made { part, index, manifest }
    }

    pub async fn since(&self, base: &Made) -> Made {
        let (mut part, mut index) = (Vec::new(), Vec::new());
        let mut old = &base.index[..];
        let what = Backup::since(&base.manifest, &mut old, self.me(), self.why());
        let manifest = self.vault.backup(&mut part, &mut index, what).await.unwrap();
        Made { part, index, manifest }
    }

    pub async fn restore<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a [u8], IntoIter: Send>,
    ) -> Result<Vault> {
        self.restore_into(&MemoryStore::new(), parts).await
    }

    pub async fn restore_into<'a>(
        &self,
        store: &MemoryStore,
        parts: impl IntoIterator<Item = &'a [u8], IntoIter: Send>,
    ) -> Result<Vault> {
        let (keeper, witness) = (self.keeper.clone(), self.keeper.clone());
        self.options().restore(store.clone(), keeper, witness, parts, self.me(), self.why()).await
    }

    /// What was the newest store is another history once a backup was restored.
    pub async fn refuses_to_open(&self) {
        let old = self.options().open(self.store.clone(), self.keeper.clone(), self.keeper.clone()).await;
        assert!(matches!(old, Err(Error::RolledBack(_))), "{old:?}");
    }
}

/// A disk that takes nothing.
pub struct Failing;

impl std::io::Write for Failing {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::Other.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The header and rows of one part with the end of another, under hashes that are right.
pub fn forge(rows: &[u8], end: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    const MAGIC: &[u8] = b"customer-vault/backup/1\n";
    let chunks = |part: &[u8]| {
        let (mut chunks, mut at) = (Vec::new(), MAGIC.len());
        while at < part.len() {
            let len = u32::from_be_bytes(part[at + 1..at + 5].try_into().unwrap());
            let len = usize::try_from(len).unwrap();
            chunks.push(part[at..at + 5 + len].to_vec());
            at += 5 + len + 32;
        }
        chunks
    };
    let mut chosen = chunks(rows);
    chosen.pop();
    chosen.extend(chunks(end).pop());
    let label = b"customer-vault/v1/backup";
    let mut hash = sha2::Sha256::digest([&label[..], MAGIC].concat());
    let mut out = MAGIC.to_vec();
    for chunk in chosen {
        hash = sha2::Sha256::digest([&label[..], &hash, &chunk].concat());
        out.extend_from_slice(&chunk);
        out.extend_from_slice(&hash);
    }
    out
}
